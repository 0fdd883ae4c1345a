"""What a worker's journal says that the champion predicted, candle by candle, and what it found of that."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from flows.drifting.live_quality import HEARD, LiveQuality
from flows.training.dataset import Dataset, Floats, Rows
from inference.domain.events import CandlesDecided, Event, Noted
from inference.domain.signal import Direction, SignalScore
from inference.journal.codec import entry_of, event_of
from inference.journal.reader import whole_lines
from inference.models.opinions import model_name
from inference.supervision.remembered import MATURED, matured_of

_MARKS = tuple(f'"type":"{kind}"}}\n'.encode() for kind in (CandlesDecided.event_type, *HEARD))
_STARTED = b'"type":"health.started"}\n'


@dataclass(frozen=True, slots=True, eq=False)
class LivePredictions:
    """
    Expected log return and probability of a rise, by symbol and close time of the candle.

    `quality` is what the worker found of these opinions, None where no worker has watched them.
    """

    said: dict[tuple[str, int], tuple[float, float]] = field(default_factory=dict)
    quality: LiveQuality | None = None

    def of_other_candles(self) -> LivePredictions:
        """Return what the worker found, and nothing of what it said: that was of candles which no lake holds."""
        return LivePredictions(quality=self.quality)

    def over(
        self, dataset: Dataset, rows: Rows, expected: Floats, probability_up: Floats
    ) -> tuple[Floats, Floats, int]:
        """Return predictions with what was said live in place of what was replayed, and of how many rows it was."""
        expected, probability_up = expected.copy(), probability_up.copy()
        if not self.said:
            return expected, probability_up, 0
        closes: npt.NDArray[np.int64] = rows.open_time_ms + dataset.timeframe_ms
        found = 0
        for place, (series, close_ms) in enumerate(zip(rows.series.tolist(), closes.tolist(), strict=True)):
            live = self.said.get((dataset.symbols[series], close_ms))
            if live is not None:
                expected[place], probability_up[place] = live
                found += 1
        return expected, probability_up, found


def live_predictions(journal: Path, version: str, digest: str) -> LivePredictions:
    """
    Return what the worker of this home said with one version; nothing where there is no journal.

    Raises:
        JournalError: An entry cannot be read.
    """
    named = model_name(version, digest)
    quality: LiveQuality | None = None
    said: dict[tuple[str, int], tuple[float, float]] = {}
    place: tuple[str, str] | None = None
    due_ms = 0
    for line in whole_lines(journal):
        if line.endswith(_STARTED):
            earlier, place = place, _place_of(event_of(entry_of(line)))
            # What was found elsewhere is forgotten, as the worker forgets it.
            quality = quality if earlier in (None, place) else None
            continue
        # Most entries are of other kinds, and reading one is costly.
        if not line.endswith(_MARKS) or named.encode() not in line:
            continue
        event = event_of(entry_of(line))
        if isinstance(event, Noted) and event.detail.get("model_version") == named:
            if event.event_type == MATURED:
                matured = matured_of(event.detail)
                quality = None if matured.due_ms < due_ms else quality
                due_ms = matured.due_ms
            quality = (quality or LiveQuality()).after(event.event_type, event.detail)
        if not isinstance(event, CandlesDecided):
            continue
        for candidate in event.snapshot.candidates:
            signal = candidate.signal
            if signal.model_version == named:
                said[signal.symbol, signal.feature_time_ms] = (signal.expected_return, _rising(signal))
    return LivePredictions(said, quality)


def _place_of(started: Event) -> tuple[str, str]:
    detail = started.detail if isinstance(started, Noted) else {}
    return detail.get("venue", ""), detail.get("mode", "")


def _rising(signal: SignalScore) -> float:
    if signal.direction is Direction.FLAT:
        return 0.5
    return signal.probability if signal.direction is Direction.LONG else 1 - signal.probability
