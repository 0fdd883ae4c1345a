"""Regimes by a bundle's model, candle by candle: what is believed of each symbol is carried from one to the next."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from feature_store.features.live import LatestFeatures
from inference.regime.detector import Detector, RegimeModel, carried, detector, read, start, walk_through
from inference.regime.hidden_markov import Belief
from inference.regime.states import REGIMES, Floats, Regime, RegimeReading

_NO_CANDLE = -1


class FollowedRegimes:
    """
    Reads each candle of a symbol once, after the one before it; one thread at a time may ask.

    A symbol that is new, or whose newest candle does not follow the last one read, begins anew with the candles of its
    window, of which the warm-up is a part: so a start, a reload or a gap leaves nothing unknown that is in the window.
    A candle that is asked for again is answered as before.
    """

    def __init__(self, model: RegimeModel, input_names: Sequence[str], *, step_ms: int) -> None:
        """
        Begin with nothing read.

        Raises:
            ValueError: Inputs that regimes are told from are not among `input_names`.
        """
        self._model = model
        self._input_names = tuple(input_names)
        self._step_ms = step_ms
        self._found: Detector = detector(model, (), self._input_names)
        self._belief: Belief = start(self._found)
        self._open_time_ms: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._probability: Floats = np.zeros((0, len(REGIMES)))
        self._labels: list[Regime] = []

    def read(self, latest: LatestFeatures, rows: Sequence[int]) -> RegimeReading:
        """Return what is said of the newest candle of each of `rows`, in their order; they must be ready."""
        if latest.symbols != self._found.symbols:
            self._know(latest.symbols)
        asked = np.zeros(len(latest.symbols), np.bool_)
        asked[list(rows)] = True
        apart = np.asarray(latest.open_time_ms, np.int64) - self._open_time_ms
        follows = asked & (apart == self._step_ms)
        self._begin(latest, asked & ~follows & (apart != 0))
        if follows.any():
            places = np.flatnonzero(follows)
            # Rows that are not read keep what is believed of them, whatever comes out for them here.
            self._keep(places, *read(self._found, self._belief, latest.model_inputs), latest, among=places)
        return RegimeReading(self._probability[list(rows)], tuple(self._labels[row] for row in rows))

    def _begin(self, latest: LatestFeatures, anew: npt.NDArray[np.bool_]) -> None:
        places = np.flatnonzero(anew)
        if not len(places):
            return
        found = detector(self._model, [latest.symbols[row] for row in places.tolist()], self._input_names)
        # Only what regimes are told from: windows are large.
        inputs = np.swapaxes(latest.windows[places][:, :, list(found.columns)], 0, 1)
        narrow = found._replace(columns=tuple(range(len(found.columns))))
        *_, newest = walk_through(narrow, start(narrow), inputs)
        self._keep(places, *newest, latest, among=np.arange(len(places)))

    def _keep(
        self,
        places: npt.NDArray[np.int64],
        belief: Belief,
        reading: RegimeReading,
        latest: LatestFeatures,
        *,
        among: npt.NDArray[np.int64],
    ) -> None:
        for ours, theirs in zip(self._belief, belief, strict=True):
            ours[places] = theirs[among]
        self._probability[places] = reading.probability[among]
        for place, row in zip(places.tolist(), among.tolist(), strict=True):
            self._labels[place] = reading.label[row]
        self._open_time_ms[places] = latest.open_time_ms[places]

    def _know(self, symbols: tuple[str, ...]) -> None:
        before = self._found.symbols
        self._found = detector(self._model, symbols, self._input_names)
        self._belief = carried(self._found, self._belief, before)
        known = {symbol: row for row, symbol in enumerate(before)}
        times = np.full(len(symbols), _NO_CANDLE, np.int64)
        probability = np.zeros((len(symbols), len(REGIMES)))
        labels = [Regime.UNKNOWN] * len(symbols)
        for row, symbol in enumerate(symbols):
            if (place := known.get(symbol)) is not None:
                times[row], probability[row] = self._open_time_ms[place], self._probability[place]
                labels[row] = self._labels[place]
        self._open_time_ms, self._probability, self._labels = times, probability, labels
