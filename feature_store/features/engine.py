"""Features of one series, moved forward by any number of candles, and the state that carries them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from feature_store.candle import CandleBlock, Timeframe, validate
from feature_store.errors import BadInputError
from feature_store.features import native
from feature_store.features.definition import FEATURES, INDEX, MODEL_INPUTS, TAIL, WARM_UP, WINDOW

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Inputs = npt.NDArray[np.float32]

FEATURE_COUNT = len(FEATURES)
INPUT_COUNT = len(MODEL_INPUTS)
READY_AFTER = max(WARM_UP) + WINDOW
"""Candles after which a series has a full window of inputs without NaN."""

WARM_UP_CANDLES = np.array(WARM_UP, dtype=np.int64)
_LOG_RETURN = INDEX["log_return_1"]

# Counters of a state, in order.
_SEEN, _FIRST, _LAST, _BRIDGED, _MISSING, _RESTARTS, _IGNORED, _SINCE_GAP = range(native.COUNTERS)


def model_inputs(features: Floats) -> Inputs:
    """
    Return what models read for rows of features [n, 49]: float32 [n, len(MODEL_INPUT_NAMES)].

    Each row stands for itself. An input is NaN where a feature it reads is NaN, and otherwise finite.

    Raises:
        BadInputError: They are no rows of 49 numbers.
    """
    try:
        features = np.asarray(features, np.float64)
    except (TypeError, ValueError) as error:
        raise BadInputError(f"Expected rows of {FEATURE_COUNT} numbers, found {type(features).__name__}") from error
    if features.ndim != 2 or features.shape[1] != FEATURE_COUNT:
        raise BadInputError(f"Expected rows of features [n, {FEATURE_COUNT}], found shape {list(features.shape)}")
    out = np.empty((len(features), INPUT_COUNT), dtype=np.float32)
    native.compute_inputs(features, out)
    return out


def slots(seen: int | npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return where in its rings a series that has seen so many candles holds the last 64, oldest first."""
    return (np.expand_dims(seen, -1) + np.arange(WINDOW)) % WINDOW


@dataclass(frozen=True, slots=True)
class Continuity:
    """What a series' state has to say about the candles it was made from."""

    candles: int
    first_open_time_ms: int | None
    last_open_time_ms: int | None
    gaps_bridged: int
    candles_missing: int
    restarts: int
    ignored: int
    candles_since_gap: int


@dataclass(frozen=True, slots=True, eq=False)
class SeriesState:
    """The arrays that carry one series; they may be rows of larger arrays, and are changed in place."""

    tail: Floats = field(default_factory=lambda: np.zeros((5, TAIL)))
    """The last 64 candles by column, zeros where there were none."""
    recursion: Floats = field(default_factory=lambda: np.zeros(native.STATE_SIZE))
    counters: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(native.COUNTERS, np.int64))
    input_ring: Inputs = field(default_factory=lambda: np.full((WINDOW, INPUT_COUNT), np.nan, np.float32))
    """Inputs of the last 64 candles; the n-th candle of a series stands in row n % 64, so that nothing is moved."""
    return_ring: Floats = field(default_factory=lambda: np.full(WINDOW, np.nan))
    """Log returns of the same candles, in the same places."""

    def arrays(self) -> dict[str, npt.NDArray[np.float64 | np.float32 | np.int64]]:
        """Return the arrays by name."""
        return {
            "tail": self.tail,
            "recursion": self.recursion,
            "counters": self.counters,
            "input_ring": self.input_ring,
            "return_ring": self.return_ring,
        }

    def copy(self) -> SeriesState:
        """Return the same in arrays of its own."""
        return SeriesState(
            self.tail.copy(),
            self.recursion.copy(),
            self.counters.copy(),
            self.input_ring.copy(),
            self.return_ring.copy(),
        )

    @property
    def inputs(self) -> Inputs:
        """Inputs of the last 64 candles [64, inputs], oldest first; a copy."""
        return self.input_ring[slots(int(self.counters[_SEEN]))]

    @property
    def returns(self) -> Floats:
        """Log returns of the last 64 candles [64], oldest first; a copy."""
        return self.return_ring[slots(int(self.counters[_SEEN]))]

    def clear(self) -> None:
        """Begin the series afresh; how often and why is kept in the counters."""
        self.tail[:] = 0.0
        self.recursion[:] = 0.0
        self.input_ring[:] = np.nan
        self.return_ring[:] = np.nan
        self.counters[_SEEN] = 0
        self.counters[_SINCE_GAP] = 0

    @property
    def continuity(self) -> Continuity:
        """What is known about the candles so far."""
        numbers = self.counters.tolist()
        started = numbers[_SEEN] > 0
        return Continuity(
            candles=numbers[_SEEN],
            first_open_time_ms=numbers[_FIRST] if started else None,
            last_open_time_ms=numbers[_LAST] if started else None,
            gaps_bridged=numbers[_BRIDGED],
            candles_missing=numbers[_MISSING],
            restarts=numbers[_RESTARTS],
            ignored=numbers[_IGNORED],
            candles_since_gap=numbers[_SINCE_GAP],
        )

    @property
    def is_ready(self) -> bool:
        """Whether the window of inputs is full and without NaN."""
        return int(self.counters[_SEEN]) >= READY_AFTER


class FeatureEngine:
    """
    The 49 features of one series, candle after candle.

    Blocks of any size give the same bits. Windows count candles, not minutes:

    - A gap of up to 64 missing candles is bridged: the next candle follows the last known one, and `continuity`
      counts the gap and what is missing.
    - After a longer gap nothing that the state remembers is recent: the series begins afresh with a new warm-up,
      and `continuity` counts the restart.
    - A candle that is not newer than the last one is ignored and counted. One that comes late changes the lake, and
      the state only when it is rebuilt from there.

    The state is a function of the candles alone, so these rules hold for batch and live alike.
    """

    def __init__(self, timeframe: Timeframe, state: SeriesState | None = None) -> None:
        self.timeframe = timeframe
        self.state = SeriesState() if state is None else state

    @property
    def continuity(self) -> Continuity:
        """What is known about the candles so far."""
        return self.state.continuity

    @property
    def last_open_time_ms(self) -> int | None:
        """Open time of the newest candle that was taken in."""
        return self.state.continuity.last_open_time_ms

    def new_candles(self, block: CandleBlock) -> CandleBlock:
        """Return the candles of a block that `advance` would take in."""
        last = self.last_open_time_ms
        return block if last is None else block.since(last + 1)

    def advance(self, block: CandleBlock, out: Floats | None = None) -> Floats:
        """
        Take in closed candles and return their features, one row for each candle that is new.

        Args:
            block: Closed candles, oldest first.
            out: Where the features go [at least len(block), 49]; without it they get memory of their own, in which
                the values of one feature lie side by side.

        Raises:
            BadInputError: The block is unsorted, off the grid, or holds an impossible candle; nothing was changed.
        """
        wrong, gaps = native.check(block.open_time_ms, block.values, self.timeframe.milliseconds)
        if wrong:
            validate(block, self.timeframe)
        fresh = self.new_candles(block)
        self.state.counters[_IGNORED] += len(block) - len(fresh)
        out = np.empty((FEATURE_COUNT, len(fresh))).T if out is None else out[: len(fresh)]
        missing = self._missing_before(fresh, whole=not gaps)
        begins = [0] if missing is None else sorted({0, *np.flatnonzero(missing > TAIL).tolist()})
        for begin, end in zip(begins, [*begins[1:], len(fresh)], strict=True):
            if begin < end:
                part = None if missing is None else missing[begin:end]
                self._advance_unbroken(fresh[begin:end], part, out[begin:end])
        return out

    def _missing_before(self, block: CandleBlock, *, whole: bool) -> npt.NDArray[np.int64] | None:
        """Count the candles that are absent before each row, None where there are none at all."""
        step = self.timeframe.milliseconds
        first, last = block.first_open_time_ms, self.last_open_time_ms
        if first is None or (whole and (last is None or first == last + step)):
            return None
        before = first - step if last is None else last
        return np.diff(block.open_time_ms, prepend=before) // step - 1

    def _advance_unbroken(self, block: CandleBlock, missing: npt.NDArray[np.int64] | None, out: Floats) -> None:
        state, counters = self.state, self.state.counters
        if missing is not None and missing[0] > TAIL:
            state.clear()
            counters[_RESTARTS] += 1
        if counters[_SEEN] == 0:
            counters[_FIRST] = block.open_time_ms[0]
        native.advance(int(counters[_SEEN]), block.values, state.tail, state.recursion, WARM_UP_CANDLES, out)
        counters[_SEEN] += len(out)
        counters[_LAST] = block.open_time_ms[-1]
        counters[_SINCE_GAP] += len(out)
        if missing is not None:
            self._count_gaps(missing)
        newest = slots(int(counters[_SEEN]))[-len(out) :]
        state.input_ring[newest] = model_inputs(out[-WINDOW:])
        state.return_ring[newest] = out[-WINDOW:, _LOG_RETURN]

    def _count_gaps(self, missing: npt.NDArray[np.int64]) -> None:
        counters = self.state.counters
        gaps = np.flatnonzero(missing)
        if len(gaps):
            counters[_BRIDGED] += np.count_nonzero(missing[gaps] <= TAIL)
            counters[_MISSING] += missing.sum()
            counters[_SINCE_GAP] = len(missing) - gaps[-1]
