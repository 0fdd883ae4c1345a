"""Candles: their timeframe, the series they belong to, and blocks of them as arrays."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Self

import numpy as np

from feature_store.errors import BadInputError, UnknownTimeframeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy.typing as npt

COLUMNS = ("open", "high", "low", "close", "volume")
OPEN, HIGH, LOW, CLOSE, VOLUME = range(5)

_MINUTE_MS = 60_000
_VENUE = re.compile(r"[a-z0-9_]+")
_SYMBOL = re.compile(r"[^/:\x00-\x1f\x7f]+/[^/:\x00-\x1f\x7f]+(?::[^/:\x00-\x1f\x7f]+)?")


class Timeframe(StrEnum):
    """Duration of one candle."""

    M1 = "1m"
    M5 = "5m"
    M15 = "15m"
    H1 = "1h"
    H4 = "4h"
    D1 = "1d"

    @property
    def milliseconds(self) -> int:
        """Length of one candle."""
        return _LENGTH_MS[self]

    @classmethod
    def parse(cls, text: str) -> Self:
        """
        Read a timeframe's name.

        Raises:
            UnknownTimeframeError: The name is not one of ours.
        """
        try:
            return cls(text)
        except ValueError:
            raise UnknownTimeframeError(text, list(cls)) from None

    def floor_ms(self, time_ms: int) -> int:
        """Return the open time of the candle that contains a moment."""
        return time_ms - time_ms % self.milliseconds

    def last_closed_open_ms(self, now_ms: int) -> int:
        """Return the open time of the newest candle that has closed at `now_ms`."""
        return self.floor_ms(now_ms) - self.milliseconds


_LENGTH_MS = {
    Timeframe.M1: _MINUTE_MS,
    Timeframe.M5: 5 * _MINUTE_MS,
    Timeframe.M15: 15 * _MINUTE_MS,
    Timeframe.H1: 60 * _MINUTE_MS,
    Timeframe.H4: 240 * _MINUTE_MS,
    Timeframe.D1: 1440 * _MINUTE_MS,
}


@dataclass(frozen=True, slots=True, order=True)
class Series:
    """One instrument at one venue in one timeframe; the symbol is the unified name, `BTC/USDT:USDT`."""

    venue: str
    symbol: str
    timeframe: Timeframe

    @property
    def key(self) -> str:
        """A name that is unique and readable."""
        return f"{self.venue}|{self.symbol}|{self.timeframe}"


@dataclass(frozen=True, slots=True)
class Candle:
    """One candle over `[open_time, open_time + timeframe)`."""

    open_time_ms: int
    open: float
    high: float
    low: float
    close: float
    volume: float

    def close_time_ms(self, timeframe: Timeframe) -> int:
        """Return the moment at which the candle is closed."""
        return self.open_time_ms + timeframe.milliseconds


@dataclass(frozen=True, slots=True, eq=False)
class CandleBlock:
    """Candles of one series as arrays, oldest first; `values` has the columns of `COLUMNS`."""

    open_time_ms: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        times = np.ascontiguousarray(self.open_time_ms, dtype=np.int64)
        values = np.ascontiguousarray(self.values, dtype=np.float64)
        if times.ndim != 1 or values.shape != (len(times), len(COLUMNS)):
            message = f"A candle block needs times [n] and values [n, 5], was {times.shape} and {values.shape}"
            raise BadInputError(message)
        object.__setattr__(self, "open_time_ms", times)
        object.__setattr__(self, "values", values)

    @classmethod
    def empty(cls) -> Self:
        """Return a block without candles."""
        return cls(np.empty(0, np.int64), np.empty((0, len(COLUMNS))))

    @classmethod
    def from_rows(cls, rows: Sequence[Sequence[float]]) -> Self:
        """Read rows of `[open_time_ms, open, high, low, close, volume]`, the form ccxt answers with."""
        if not rows:
            return cls.empty()
        try:
            times = np.array([int(row[0]) for row in rows], dtype=np.int64)
            values = np.array([row[1:6] for row in rows], dtype=np.float64)
        except (TypeError, ValueError, IndexError) as error:
            message = f"Candle rows need six numbers each (time, open, high, low, close, volume): {error}"
            raise BadInputError(message) from error
        return cls(times, values)

    @classmethod
    def from_candles(cls, candles: Iterable[Candle]) -> Self:
        """Return a block of single candles."""
        return cls.from_rows([(c.open_time_ms, c.open, c.high, c.low, c.close, c.volume) for c in candles])

    def __len__(self) -> int:
        return len(self.open_time_ms)

    def __getitem__(self, rows: slice) -> Self:
        return type(self)(self.open_time_ms[rows], self.values[rows])

    def candles(self) -> Iterator[Candle]:
        """Walk through the candles one by one."""
        for time_ms, row in zip(self.open_time_ms.tolist(), self.values.tolist(), strict=True):
            yield Candle(time_ms, *row)

    @property
    def close(self) -> npt.NDArray[np.float64]:
        """Closing prices."""
        return self.values[:, CLOSE]

    @property
    def first_open_time_ms(self) -> int | None:
        """Open time of the oldest candle, or None."""
        return int(self.open_time_ms[0]) if len(self) else None

    @property
    def last_open_time_ms(self) -> int | None:
        """Open time of the newest candle, or None."""
        return int(self.open_time_ms[-1]) if len(self) else None

    def concat(self, *others: CandleBlock) -> CandleBlock:
        """Return this block followed by others, as they are: nothing is sorted or dropped."""
        blocks: list[CandleBlock] = [self, *others]
        return CandleBlock(
            np.concatenate([block.open_time_ms for block in blocks]),
            np.concatenate([block.values for block in blocks]),
        )

    def since(self, open_time_ms: int) -> Self:
        """Return the candles that open at or after a moment."""
        return self[int(np.searchsorted(self.open_time_ms, open_time_ms, side="left")) :]

    def until(self, open_time_ms: int) -> Self:
        """Return the candles that open before a moment."""
        return self[: int(np.searchsorted(self.open_time_ms, open_time_ms, side="left"))]

    def equals(self, other: CandleBlock) -> bool:
        """Tell whether both blocks hold the same candles, to the bit."""
        return np.array_equal(self.open_time_ms, other.open_time_ms) and np.array_equal(self.values, other.values)


def require_named(series: Series) -> None:
    """
    Check that venue and symbol are names under which candles can be kept: what lies outside the lake has none.

    Raises:
        BadInputError: They are not.
    """
    if not _VENUE.fullmatch(series.venue):
        raise BadInputError(
            f"Expected a venue in small letters, digits and underscores, as binance, found {series.venue!r}"
        )
    if not _SYMBOL.fullmatch(series.symbol):
        raise BadInputError(f"Expected a symbol as BTC/USDT or BTC/USDT:USDT, found {series.symbol!r}")


def validate(block: CandleBlock, timeframe: Timeframe) -> CandleBlock:
    """
    Return the block if it could have come from a market, oldest first and each candle once.

    Raises:
        BadInputError: Times repeat, fall back or miss the grid, or a candle contradicts itself.
    """
    times = block.open_time_ms
    if len(block) == 0:
        return block
    steps = np.diff(times)
    if (steps <= 0).any():
        _refuse(block, int(np.argmax(steps <= 0)) + 1, "open times must rise")
    off_grid = times % timeframe.milliseconds != 0
    if off_grid.any():
        _refuse(block, int(np.argmax(off_grid)), f"open times must be multiples of {timeframe}")
    broken = broken_rows(block)
    if broken.any():
        _refuse(
            block, int(np.argmax(broken)), "prices must be finite and positive, low <= open, close <= high, volume >= 0"
        )
    return block


def broken_rows(block: CandleBlock) -> npt.NDArray[np.bool_]:
    """Mark the candles that no market could have made."""
    open_, high, low, close, volume = block.values.T
    with np.errstate(invalid="ignore"):
        sound = (low > 0) & (low <= np.minimum(open_, close)) & (high >= np.maximum(open_, close)) & (volume >= 0)
    broken: npt.NDArray[np.bool_] = ~(sound & np.isfinite(block.values).all(axis=1))
    return broken


def _refuse(block: CandleBlock, row: int, expected: str) -> None:
    time_ms, values = int(block.open_time_ms[row]), block.values[row].tolist()
    message = (
        f"Unusable candle at row {row} (open time {time_ms} ms, {values}): {expected}. Get it again from its source."
    )
    raise BadInputError(message)
