"""Features of one's own for one series, over all its candles or one at a time: the same windows, the same bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from feature_store.candle import CandleBlock, Timeframe, validate
from feature_store.errors import BadInputError
from feature_store.extensions.definition import BLOCK, ExtensionFeature, ExtensionSet, Window
from feature_store.features.definition import TAIL

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

_ALIGNMENT = 64


class ExtensionError(BadInputError):
    """A feature's function raised, or gave something that is no number."""

    def __init__(self, name: str, open_time_ms: int, problem: str) -> None:
        super().__init__(f"Feature {name} failed at the candle that opens at {open_time_ms} ms: {problem}")


class ExtensionEngine:
    """
    An extension set, candle after candle.

    Windows count candles, not minutes, by the rules of the 49: a gap of up to 64 missing candles is bridged, after a
    longer one the series begins afresh. The state is the last `memory` candles and nothing else, so that a restart
    from stored candles is exact.
    """

    def __init__(self, extensions: ExtensionSet, timeframe: Timeframe) -> None:
        self.extensions = extensions
        self.timeframe = timeframe
        self._memory = extensions.memory
        self._tail = CandleBlock.empty()
        self._buffers = {one.name: _Buffer(one) for one in extensions.features}

    @property
    def tail(self) -> CandleBlock:
        """The candles that are remembered: the whole state."""
        return self._tail

    def resume(self, tail: CandleBlock) -> None:
        """Go on from remembered or stored candles; what lies before the last long gap, or too far back, is dropped."""
        validate(tail, self.timeframe)
        breaks = np.flatnonzero(self._missing(tail, None) > TAIL)
        self._tail = tail[int(breaks[-1]) if len(breaks) else 0 :][-max(self._memory, 1) :]

    def advance(self, block: CandleBlock) -> Floats:
        """
        Take in closed candles and return their features [n, k], one row for each that is newer than the last.

        Raises:
            BadInputError: The block holds an impossible candle; nothing was changed.
            ExtensionError: A function failed; nothing was changed.
        """
        validate(block, self.timeframe)
        last = self._tail.last_open_time_ms
        fresh = block if last is None else block.since(last + 1)
        out = np.empty((len(fresh), len(self.extensions.features)))
        begins = sorted({0, *np.flatnonzero(self._missing(fresh, last) > TAIL).tolist()})
        tail = self._tail
        for begin, end in zip(begins, [*begins[1:], len(fresh)], strict=True):
            if begin == end:
                continue
            part = fresh[begin:end]
            starts_afresh = begin > 0 or (last is not None and self._missing(part, last)[0] > TAIL)
            whole = part if starts_afresh or len(tail) == 0 else tail.concat(part)
            self._compute(whole, len(part), out[begin:end])
            tail = whole[-max(self._memory, 1) :]
        self._tail = tail
        return out

    def _missing(self, block: CandleBlock, last: int | None) -> npt.NDArray[np.int64]:
        if len(block) == 0:
            return np.empty(0, np.int64)
        step = self.timeframe.milliseconds
        before = int(block.open_time_ms[0]) - step if last is None else last
        return np.diff(block.open_time_ms, prepend=before) // step - 1

    def _compute(self, whole: CandleBlock, rows: int, out: Floats) -> None:
        first = len(whole) - rows
        columns = np.ascontiguousarray(whole.values.T)
        for column, one in enumerate(self.extensions.features):
            out[:, column] = np.nan
            begin = max(first, one.warm_up)
            if begin < len(whole):
                buffer = self._buffers[one.name]
                compute = buffer.many if one.vectorised else buffer.single
                compute(whole.open_time_ms, columns, begin, out[begin - first :, column])


class _Buffer:
    """
    One window (or a block of them) at a fixed place in memory.

    Every window is copied there first: sums, and what linear-algebra libraries do, may end in other bits where arrays
    of the same numbers lie differently.
    """

    def __init__(self, one: ExtensionFeature) -> None:
        self._feature = one
        rows = BLOCK if one.vectorised else 1
        shape = (rows, one.lookback)
        self._columns = [_aligned(shape) for _ in range(5)]
        self._times = np.zeros(shape, np.int64)
        times = _shown(self._times, whole=one.vectorised)
        self._window = Window(times, *[_shown(array, whole=one.vectorised) for array in self._columns])

    def single(self, times: npt.NDArray[np.int64], columns: Floats, begin: int, out: Floats) -> None:
        """Compute rows from `begin` on, one after the other."""
        lookback = self._feature.lookback
        for place in range(len(out)):
            end = begin + place + 1
            self._times[0] = times[end - lookback : end]
            for array, column in zip(self._columns, columns, strict=True):
                array[0] = column[end - lookback : end]
            out[place] = self._asked(int(times[end - 1]), ())

    def many(self, times: npt.NDArray[np.int64], columns: Floats, begin: int, out: Floats) -> None:
        """Compute rows from `begin` on, a block of windows at a time; what the last lacks is filled with its newest."""
        lookback = self._feature.lookback
        reach = np.arange(1 - lookback, 1)
        for place in range(0, len(out), BLOCK):
            kept = min(BLOCK, len(out) - place)
            ends = np.minimum(begin + place + np.arange(BLOCK), begin + place + kept - 1)
            at = ends[:, None] + reach
            self._times[...] = times[at]
            for array, column in zip(self._columns, columns, strict=True):
                array[...] = column[at]
            out[place : place + kept] = self._asked(int(times[ends[-1]]), (BLOCK,))[:kept]

    def _asked(self, open_time_ms: int, shape: tuple[int, ...]) -> Floats:
        one = self._feature
        try:
            with np.errstate(all="ignore"):
                answer = np.asarray(one.compute(self._window), np.float64)
        except Exception as error:
            raise ExtensionError(one.name, open_time_ms, f"{type(error).__name__}: {error}") from error
        if answer.shape != shape:
            wanted = f"an array of shape {shape}" if shape else "one number"
            raise ExtensionError(one.name, open_time_ms, f"it should give {wanted}, gave shape {answer.shape}")
        # What is not finite is not defined: models would carry it on.
        return np.where(np.isfinite(answer), answer, np.nan)


def _shown(array: npt.NDArray[Any], *, whole: bool) -> npt.NDArray[Any]:
    view = array.view() if whole else array[0]
    view.flags.writeable = False
    return view


def _aligned(shape: tuple[int, int]) -> Floats:
    size = shape[0] * shape[1]
    raw = np.zeros(size * 8 + _ALIGNMENT, np.uint8)
    offset = -raw.ctypes.data % _ALIGNMENT
    return raw[offset : offset + size * 8].view(np.float64).reshape(shape)
