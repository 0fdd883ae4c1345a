"""Features of many series, candle by candle, with the windows that models read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from feature_store.candle import CandleBlock, Series, Timeframe, validate
from feature_store.errors import BadInputError, CorruptFileError, UnknownSymbolError
from feature_store.features import native
from feature_store.features.definition import TAIL, WINDOW
from feature_store.features.engine import (
    INPUT_COUNT,
    READY_AFTER,
    WARM_UP_CANDLES,
    Continuity,
    FeatureEngine,
    SeriesState,
    slots,
)
from feature_store.features.state import load_state, save_state
from feature_store.features.state_files import StoredStates, read_states, write_states

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

# Where a state counts its candles, holds its newest open time, and counts candles since a gap.
_SEEN, _LAST, _SINCE_GAP = 0, 2, 7
UNBROKEN = WINDOW + 1
"""Candles in a row that a row needs: 64 moves without a gap, as training asks for, have 65 prices."""


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
    """Whether models may read it, as training would: all finite, and no gap among the candles behind the window."""


class LiveFeatures:
    """Feature states of many symbols of one venue in few arrays: about 14 kB for each symbol."""

    def __init__(self, symbols: Sequence[str], timeframe: Timeframe = Timeframe.M5) -> None:
        self.symbols = tuple(symbols)
        self.timeframe = timeframe
        count = len(self.symbols)
        if len(set(self.symbols)) != count:
            raise BadInputError("Each symbol may be named once; QT_SYMBOLS repeats one")
        self._states = native.States(
            tails=np.zeros((count, 5, TAIL)),
            recursions=np.zeros((count, native.STATE_SIZE)),
            counters=np.zeros((count, native.COUNTERS), np.int64),
            input_rings=np.full((count, WINDOW, INPUT_COUNT), np.nan, np.float32),
            return_rings=np.full((count, WINDOW), np.nan),
        )
        self._places = {symbol: row for row, symbol in enumerate(self.symbols)}
        self._engines = {
            symbol: FeatureEngine(timeframe, SeriesState(*(array[row] for array in self._states)))
            for symbol, row in self._places.items()
        }

    @property
    def ready_after(self) -> int:
        """Candles after which a series has a full window of all inputs."""
        return READY_AFTER

    def advance(self, symbol: str, block: CandleBlock) -> npt.NDArray[np.float64]:
        """
        Take in closed candles of one symbol and return the features of those that are new.

        Raises:
            UnknownSymbolError: The symbol is not among ours.
            BadInputError: The block holds an impossible candle; nothing was changed.
        """
        return self._engine(symbol).advance(block)

    def advance_all(self, blocks: Mapping[str, CandleBlock]) -> dict[str, npt.NDArray[np.float64] | BadInputError]:
        """
        Take in closed candles of many symbols and return the features of those that are new, by symbol.

        The same as `advance` for each of them, in one call of the kernel for all that bring a single candle. A block
        that is refused gives its error in place of features; the other symbols go on.

        Raises:
            UnknownSymbolError: A symbol is not among ours; nothing was changed.
        """
        for symbol in blocks:
            if symbol not in self._places:
                self._engine(symbol)
        single = [symbol for symbol, block in blocks.items() if len(block) == 1]
        done: dict[str, npt.NDArray[np.float64] | BadInputError] = {}
        if single:
            chosen = [blocks[symbol] for symbol in single]
            features, taken = self.advance_rows(
                np.array([self._places[symbol] for symbol in single]),
                np.concatenate([block.open_time_ms for block in chosen]),
                np.concatenate([block.values for block in chosen]),
            )
            for row, (symbol, outcome) in enumerate(zip(single, taken.tolist(), strict=True)):
                # Whatever the kernel refuses is left to the one place that says what is wrong with it.
                refused = outcome < 0
                done[symbol] = self._outcome(symbol, blocks[symbol]) if refused else features[row : row + outcome]
        for symbol, block in blocks.items():
            if len(block) != 1:
                done[symbol] = self._outcome(symbol, block)
        return done

    def advance_rows(
        self,
        places: npt.NDArray[np.int64],
        open_time_ms: npt.NDArray[np.int64],
        values: npt.NDArray[np.float64],
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """
        Take in one closed candle of each symbol that `places` counts among ours; the fastest way to go on.

        Returns:
            Features [n, 49], and [n] what became of each candle: 1 taken in, 0 ignored since it is not newer than the
            last one, -1 refused since no market could have made it. Only the rows of the first kind mean something.

        Raises:
            BadInputError: A place is not among ours, or arrays do not fit; nothing was changed.
        """
        return native.take_candles(
            places, open_time_ms, self.timeframe.milliseconds, values, self._states, WARM_UP_CANDLES
        )

    def _outcome(self, symbol: str, block: CandleBlock) -> npt.NDArray[np.float64] | BadInputError:
        try:
            return self.advance(symbol, block)
        except BadInputError as error:
            return error

    def rebuild(self, symbol: str, block: CandleBlock) -> npt.NDArray[np.float64]:
        """
        Begin a symbol afresh from stored candles, as after one that came late or was corrected; return its features.

        Raises:
            UnknownSymbolError: The symbol is not among ours.
            BadInputError: The block holds an impossible candle; nothing was changed.
        """
        engine = self._engine(symbol)
        validate(block, self.timeframe)
        engine.state.clear()
        engine.state.counters[:] = 0
        return engine.advance(block)

    def agrees(self, symbol: str, block: CandleBlock) -> bool:
        """
        Tell whether a symbol's features come of the candles of a block, as far as both tell of the past.

        These are the last 64 candles of a series, to the bit, or as many as the block holds of them.
        """
        engine = self._engine(symbol)
        last = engine.last_open_time_ms
        if last is None:
            return True
        known = block.until(last + 1)
        count = min(len(known), engine.continuity.candles, TAIL)
        ours = engine.state.tail[:, TAIL - count :].T
        return known.last_open_time_ms == last and np.array_equal(ours, known.values[len(known) - count :])

    def latest(self) -> LatestFeatures:
        """Return the newest inputs, windows and returns of all symbols."""
        seen, last = self._states.counters[:, _SEEN], self._states.counters[:, _LAST]
        inputs, returns = self._states.input_rings, self._states.return_rings
        # Rows are gathered by one flat index, which is twice as fast as by two.
        rows = (np.arange(len(self.symbols))[:, None] * WINDOW + slots(seen)).ravel()
        windows = inputs.reshape(-1, INPUT_COUNT).take(rows, axis=0).reshape(inputs.shape)
        ready = np.isfinite(inputs).all(axis=(1, 2)) & np.isfinite(returns).all(axis=1)
        ready &= self._states.counters[:, _SINCE_GAP] >= UNBROKEN
        return LatestFeatures(
            self.symbols,
            np.where(seen > 0, last, -1),
            windows[:, -1].copy(),
            windows,
            returns.reshape(-1).take(rows).reshape(returns.shape),
            np.asarray(ready),
        )

    def continuity(self, symbol: str) -> Continuity:
        """What is known about the candles of a symbol so far."""
        return self._engine(symbol).continuity

    def newest_candles(self, symbol: str) -> npt.NDArray[np.float64]:
        """
        Return the newest candles that a symbol's features are made of [n, 5], oldest first, 64 at most; a copy.

        Raises:
            UnknownSymbolError: The symbol is not among ours.
        """
        engine = self._engine(symbol)
        count = min(engine.continuity.candles, TAIL)
        return engine.state.tail[:, TAIL - count :].T.copy()

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

    def save_all(self, path: Path, venue: str, *, without: Collection[str] = ()) -> None:
        """Write the states of all symbols that have one, in one file, but for some."""
        left_out = np.array([symbol in without for symbol in self.symbols])
        known = np.flatnonzero((self._states.counters[:, _SEEN] > 0) & ~left_out)
        chosen = native.States._make(array[known] for array in self._states)
        symbols = tuple(self.symbols[place] for place in known.tolist())
        write_states(path, StoredStates(venue, str(self.timeframe), symbols, chosen))

    def load_all(self, path: Path, venue: str) -> frozenset[str]:
        """
        Take over the stored states of our symbols and return which had one.

        Raises:
            CorruptFileError: The file is damaged, or of another venue or timeframe; nothing was changed.
            FingerprintMismatchError: Another feature set wrote it; nothing was changed.
        """
        stored = read_states(path)
        if stored is None:
            return frozenset()
        if (stored.venue, stored.timeframe) != (venue, str(self.timeframe)):
            found = f"it holds {stored.venue} {stored.timeframe}, not {venue} {self.timeframe}"
            raise CorruptFileError(path, found, "Point to the folder of this venue.")
        return self.take_over(stored, stored.symbols)

    def take_over(self, stored: StoredStates, symbols: Sequence[str]) -> frozenset[str]:
        """Take over the stored states of some symbols, as far as they are ours; return which."""
        chosen = set(symbols) & self._places.keys()
        there = [place for place, symbol in enumerate(stored.symbols) if symbol in chosen]
        here = [self._places[stored.symbols[place]] for place in there]
        arrays: list[Any] = list(self._states)
        theirs_all: list[Any] = list(stored.states)
        for ours, theirs in zip(arrays, theirs_all, strict=True):
            ours[here] = theirs[there]
        return frozenset(stored.symbols[place] for place in there)

    def _engine(self, symbol: str) -> FeatureEngine:
        try:
            return self._engines[symbol]
        except KeyError:
            raise UnknownSymbolError(symbol, "this worker", self.symbols) from None
