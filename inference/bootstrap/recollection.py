"""What the supervisor of the model knew when the last worker stopped, read back from the journal."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from feature_store.json_text import UNREADABLE
from inference.domain.bias import CANDLES_KEPT
from inference.domain.decision import Candidate
from inference.domain.events import CandlesDecided, Noted
from inference.domain.policy import Policy
from inference.domain.signal import Direction
from inference.journal.reader import newest_lines
from inference.models.opinions import model_name
from inference.settings import Settings
from inference.supervision.prediction_quality import MaturedCandle
from inference.supervision.quality_evidence import QualityEvidence
from inference.supervision.remembered import (
    BIAS_ENDED,
    BIAS_FOUND,
    FELL_BACK,
    MATURED,
    QUALITY_RECOVERED,
    DecidedCandle,
    Remembered,
    matured_of,
)
from inference.telemetry.logs import logger

_log = logger("bootstrap")

STARTED = "health.started"
"""What a worker journals once the venue has answered, with its mode and venue."""

# The first candle that is remembered compares its prices with the one before.
_DECISIONS = CANDLES_KEPT + 1
# Canonical JSON has no spaces and sorts its keys, so that the kind of an entry is the last thing in its line.
_DECIDED = f'"type":"{CandlesDecided.event_type}"}}\n'.encode()
_NOTHING_SCORED = b'"candidates":[]'


@dataclass(slots=True)
class Recollection:
    """
    What a journal says of live opinions, taken in while it is read from its beginning.

    What was said at another venue or in another mode is forgotten, and so is what was said before the venue's time was
    set back. `horizons` holds how many candles ahead each model looks; journals of before do not say it.
    """

    place: tuple[str, str] | None = None
    since_seq: int = 0
    horizons: dict[str, int] = field(default_factory=dict)
    matured: deque[MaturedCandle] = field(default_factory=lambda: deque(maxlen=CANDLES_KEPT))
    evidence: dict[str, QualityEvidence] = field(default_factory=dict)
    told: Direction | None = None
    left: set[str] = field(default_factory=set)

    def visit(self, event: Noted, seq: int) -> None:
        """Take in what was noted, in the journal's order."""
        kind, detail = event.event_type, event.detail
        if kind == STARTED:
            self._start(detail, seq)
        elif kind == "model.loaded" and "horizon" in detail:
            name = model_name(detail["version"], detail["digest"])
            self.horizons[name] = int(detail["horizon"])
            if "promised" in detail:
                known = self.evidence.get(name, QualityEvidence())
                self.evidence[name] = known.held_to(float(detail["promised"]))
        elif kind == MATURED:
            self._count(matured_of(detail), seq)
        elif kind in (BIAS_FOUND, BIAS_ENDED):
            self.told = Direction(detail["side"]) if kind == BIAS_FOUND else None
        elif kind == FELL_BACK:
            self.left.add(detail["model"])
        elif kind == QUALITY_RECOVERED:
            self.left.discard(detail["model_version"])

    def remembered(self, journal: Path, settings: Settings, *, now_ms: int) -> Remembered:
        """
        Return what a supervisor has to know that goes on here and now; the newest decisions are read when asked for.

        A decision that this version cannot read is left out.

        Args:
            journal: Where the decisions are.
            settings: What the worker trades now, and how real its money is.
            now_ms: The venue's time; it is not known to the last second yet.
        """
        timeframe_ms, place = settings.timeframe.milliseconds, (settings.venue, settings.mode.value)
        latest_ms = now_ms + timeframe_ms
        if self.place not in (None, place) or (self.matured and self.matured[-1].due_ms > latest_ms):
            return Remembered()
        offsets = _newest_decisions(journal, since_seq=self.since_seq, latest_ms=latest_ms)
        return Remembered(
            decided=_decided(journal, reversed(offsets), self.horizons, timeframe_ms),
            matured=tuple(self.matured),
            told=self.told,
            evidence=dict(self.evidence),
            left=frozenset(self.left),
        )

    def _start(self, detail: Mapping[str, str], seq: int) -> None:
        place = detail.get("venue", ""), detail.get("mode", "")
        if place != self.place:
            self._forget(seq)
        self.place = place

    def _count(self, one: MaturedCandle, seq: int) -> None:
        if self.matured and one.due_ms < self.matured[-1].due_ms:
            self._forget(seq)
        self.matured.append(one)
        self.evidence[one.model_version] = self.evidence.get(one.model_version, QualityEvidence()).after(one)

    def _forget(self, seq: int) -> None:
        self.since_seq = seq
        self.matured.clear()
        self.evidence.clear()
        self.left.clear()
        self.told = None


def _newest_decisions(journal: Path, *, since_seq: int, latest_ms: int) -> list[int]:
    """Return where the newest decisions begin on which something was scored, the newest first."""
    found: list[int] = []
    before_ms = latest_ms + 1
    for offset, line in newest_lines(journal):
        if not line.endswith(_DECIDED):
            continue
        close_ms, seq = _number(line, b'"candle_close_ms":'), _number(line, b'"seq":')
        # Further back than the time of one venue goes there is nothing to go on from.
        if len(found) == _DECISIONS or not 0 <= close_ms < before_ms or seq < since_seq:
            break
        before_ms = close_ms
        if _NOTHING_SCORED not in line:
            found.append(offset)
    return found


def _number(line: bytes, key: bytes) -> int:
    _, found, after = line.rpartition(key)
    digits = after[: len(after) - len(after.lstrip(b"0123456789"))]
    return int(digits) if found and digits else -1


class _Snapshot(msgspec.Struct, frozen=True):
    candidates: tuple[Candidate, ...]
    candle_close_ms: int
    timeframe_ms: int


class _Decided(msgspec.Struct, frozen=True):
    policy: Policy
    snapshot: _Snapshot


class _Line(msgspec.Struct, frozen=True):
    """What is needed of a decision: what was answered, most of it, is passed by."""

    data: _Decided


def _decided(
    journal: Path, offsets: Iterator[int], horizons: Mapping[str, int], timeframe_ms: int
) -> Iterator[DecidedCandle]:
    decoder = msgspec.json.Decoder(_Line)
    with journal.open("rb") as file:
        for offset in offsets:
            file.seek(offset)
            try:
                event = decoder.decode(file.readline()).data
            except UNREADABLE as error:
                # The chain is whole, so another version wrote it. A watch that begins later keeps nobody from starting.
                _log.warning("decision_not_remembered", offset=offset, error=str(error)[:200])
                continue
            candidates = event.snapshot.candidates
            if event.snapshot.timeframe_ms == timeframe_ms:
                yield DecidedCandle(
                    candidates=candidates,
                    policy=event.policy,
                    close_ms=event.snapshot.candle_close_ms,
                    horizon=horizons.get(candidates[0].signal.model_version),
                )
