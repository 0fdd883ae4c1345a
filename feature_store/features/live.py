"""Features of many series, candle by candle, with the windows that models read."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from feature_store.candle import CandleBlock, Series, Timeframe
from feature_store.errors import BadInputError, UnknownSymbolError
from feature_store.features import native
from feature_store.features.definition import TAIL, WINDOW
from feature_store.features.engine import COUNTERS, INPUT_COUNT, Continuity, FeatureEngine, SeriesState
from feature_store.features.state import load_state, save_state

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt


class LatestFeatures(NamedTuple):
    """What models read, for all symbols at once; copies, so that they stay as they are."""

    symbols: tuple[str, ...]
    open_time_ms: npt.NDArray[np.int64]
    """Open time of the newest candle of each symbol, -1 where there is none."""
    model_inputs: npt.NDArray[np.float32]
    """Inputs of the newest candle [n, inputs]."""
    windows: npt.NDArray[np.float32]
    """Inputs of the last 64 candles [n, 64, inputs], oldest first."""
    returns: npt.NDArray[np.float64]
    """Log returns of the last 64 candles [n, 64], oldest first."""
    ready: npt.NDArray[np.bool_]
    """Whether every number above is finite; false during warm-up."""


class LiveFeatures:
    """Feature states of many symbols of one venue in few arrays: about 14 kB for each symbol."""

    def __init__(self, symbols: Sequence[str], timeframe: Timeframe = Timeframe.M5) -> None:
        self.symbols = tuple(symbols)
        self.timeframe = timeframe
        count = len(self.symbols)
        if len(set(self.symbols)) != count:
            raise BadInputError("Each symbol may be named once; QT_SYMBOLS repeats one")
        self._inputs = np.full((count, WINDOW, INPUT_COUNT), np.nan, np.float32)
        self._returns = np.full((count, WINDOW), np.nan)
        self._counters = np.zeros((count, COUNTERS), np.int64)
        tails, recursions = np.zeros((count, TAIL, 5)), np.zeros((count, native.STATE_SIZE))
        self._engines = {
            symbol: FeatureEngine(
                timeframe,
                SeriesState(tails[row], recursions[row], self._counters[row], self._inputs[row], self._returns[row]),
            )
            for row, symbol in enumerate(self.symbols)
        }

    def advance(self, symbol: str, block: CandleBlock) -> npt.NDArray[np.float64]:
        """
        Take in closed candles of one symbol and return the features of those that are new.

        Raises:
            UnknownSymbolError: The symbol is not among ours.
            BadInputError: The block holds an impossible candle; nothing was changed.
        """
        return self._engine(symbol).advance(block)

    def rebuild(self, symbol: str, block: CandleBlock) -> None:
        """Begin a symbol afresh from stored candles, as after a candle that came late or was corrected."""
        engine = self._engine(symbol)
        engine.state.clear()
        engine.state.counters[:] = 0
        engine.advance(block)

    def latest(self) -> LatestFeatures:
        """Return the newest inputs, windows and returns of all symbols."""
        seen, last = self._counters[:, 0], self._counters[:, 2]
        windows, returns = self._inputs.copy(), self._returns.copy()
        ready = np.isfinite(windows).all(axis=(1, 2)) & np.isfinite(returns).all(axis=1)
        return LatestFeatures(
            self.symbols, np.where(seen > 0, last, -1), windows[:, -1].copy(), windows, returns, ready
        )

    def continuity(self, symbol: str) -> Continuity:
        """What is known about the candles of a symbol so far."""
        return self._engine(symbol).continuity

    def last_open_time_ms(self, symbol: str) -> int | None:
        """Open time of the newest candle of a symbol, or None."""
        return self._engine(symbol).last_open_time_ms

    def load(self, path: Path, series: Series) -> bool:
        """
        Take over a stored state of a symbol; return whether there was one.

        Raises:
            CorruptFileError: The file is damaged; nothing was changed.
            FingerprintMismatchError: Another feature set wrote it; nothing was changed.
        """
        stored = load_state(path, series)
        if stored is None:
            return False
        ours = self._engine(series.symbol).state.arrays()
        for name, array in stored.arrays().items():
            ours[name][...] = array
        return True

    def save(self, path: Path, series: Series) -> None:
        """Write the state of a symbol."""
        save_state(path, series, self._engine(series.symbol).state)

    def _engine(self, symbol: str) -> FeatureEngine:
        try:
            return self._engines[symbol]
        except KeyError:
            raise UnknownSymbolError(symbol, "this worker", self.symbols) from None
