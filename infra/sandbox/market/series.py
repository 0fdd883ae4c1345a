"""Ticks, candles, and how the second are made from the first."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from infra.sandbox.engine.instrument import Instrument

if TYPE_CHECKING:
    from infra.sandbox.market.tape import Snapshots, Tape

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
AnyInts = NDArray[Any]

TICK_MS: Final = 10_000
MINUTE_MS: Final = 60_000
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 86_400_000
TICKS_PER_DAY: Final = DAY_MS // TICK_MS

INTERVALS: Final[dict[str, int]] = {
    "1m": MINUTE_MS,
    "3m": 3 * MINUTE_MS,
    "5m": 5 * MINUTE_MS,
    "15m": 15 * MINUTE_MS,
    "30m": 30 * MINUTE_MS,
    "1h": HOUR_MS,
    "2h": 2 * HOUR_MS,
    "4h": 4 * HOUR_MS,
    "6h": 6 * HOUR_MS,
    "8h": 8 * HOUR_MS,
    "12h": 12 * HOUR_MS,
    "1d": DAY_MS,
    "3d": 3 * DAY_MS,
    "1w": 7 * DAY_MS,
    "1M": 0,
}
# Weeks begin on Monday; 1970-01-01 was a Thursday.
_WEEK_OFFSET: Final = 4 * DAY_MS


def open_time(interval: str, time_ms: int) -> int:
    """Open time of the candle that contains `time_ms`."""
    if interval == "1M":
        at = datetime.fromtimestamp(time_ms / 1000, UTC)
        return int(datetime(at.year, at.month, 1, tzinfo=UTC).timestamp()) * 1000
    length = INTERVALS[interval]
    offset = _WEEK_OFFSET if interval == "1w" else 0
    return time_ms - (time_ms - offset) % length


def next_open(interval: str, open_ms: int) -> int:
    """Open time of the candle after the one that opens at `open_ms`."""
    if interval == "1M":
        at = datetime.fromtimestamp(open_ms / 1000, UTC) + timedelta(days=32)
        return int(datetime(at.year, at.month, 1, tzinfo=UTC).timestamp()) * 1000
    return open_ms + INTERVALS[interval]


@dataclass(frozen=True, slots=True)
class TickBlock:
    """One day of ticks of every symbol; row k is the price in force from `start_ms + k * TICK_MS`; 0 is no tick."""

    start_ms: int
    price: AnyInts
    volume: AnyInts


@dataclass(frozen=True, slots=True)
class Candles:
    """Candles of one symbol, oldest first; prices in ticks, volume in steps, quote volume in currency."""

    open_time: Ints
    open: AnyInts
    high: AnyInts
    low: AnyInts
    close: AnyInts
    volume: AnyInts
    quote: Floats
    trades: AnyInts

    def __len__(self) -> int:
        """Count of candles."""
        return len(self.open_time)

    def slice(self, start: int, stop: int) -> Candles:
        """Return a view of some of them."""
        return self.take(slice(start, stop))

    def take(self, rows: Any) -> Candles:
        """Return chosen ones."""
        return Candles(
            self.open_time[rows], self.open[rows], self.high[rows], self.low[rows],
            self.close[rows], self.volume[rows], self.quote[rows], self.trades[rows],
        )  # fmt: skip


class Market(Protocol):
    """Where prices come from. Everything is a function of virtual time: asking again gives the same answer."""

    kind: str
    instruments: tuple[Instrument, ...]
    # Length of the stored candles; anything shorter is built from ticks.
    base_ms: int
    first_ms: int
    start_ms: int
    # None while there is always more.
    end_ms: int | None
    # Strength of the predictable component; 0 for recorded candles, about which nothing is known.
    edge: float

    def ticks(self, day: int) -> TickBlock:
        """Ticks of one UTC day, counted from 1970."""
        ...

    def history(self, index: int, start_ms: int, end_ms: int) -> Candles:
        """Stored candles of one symbol that open in [start_ms, end_ms)."""
        ...

    def is_trading(self, index: int, now_ms: int) -> bool:
        """Whether the instrument trades at this time."""
        ...

    def listed_ms(self, index: int) -> int:
        """Return when the instrument's candles begin."""
        ...

    def tape(self, index: int) -> Tape | None:
        """Return recorded trades, which stand in the place of ticks; None where there are none."""
        ...

    def snapshots(self, index: int) -> Snapshots | None:
        """Return recorded books; None where there are none."""
        ...


def empty_candles() -> Candles:
    """No candles."""
    none = np.zeros(0, np.int64)
    return Candles(none, none, none, none, none, none, np.zeros(0), none)


def join(parts: list[Candles]) -> Candles:
    """Concatenate candles that follow each other."""
    kept = [one for one in parts if len(one)]
    if not kept:
        return empty_candles()
    if len(kept) == 1:
        return kept[0]
    return Candles(
        np.concatenate([c.open_time for c in kept]),
        np.concatenate([c.open for c in kept]),
        np.concatenate([c.high for c in kept]),
        np.concatenate([c.low for c in kept]),
        np.concatenate([c.close for c in kept]),
        np.concatenate([c.volume for c in kept]),
        np.concatenate([c.quote for c in kept]),
        np.concatenate([c.trades for c in kept]),
    )


def group(candles: Candles, opens: Ints) -> Candles:
    """Merge candles whose group's open time is equal and adjacent; exact for prices and volume."""
    if not len(candles):
        return candles
    starts = np.flatnonzero(np.concatenate(([True], opens[1:] != opens[:-1])))
    ends = np.concatenate((starts[1:], [len(opens)])) - 1
    return Candles(
        opens[starts],
        candles.open[starts],
        np.maximum.reduceat(candles.high, starts),
        np.minimum.reduceat(candles.low, starts),
        candles.close[ends],
        np.add.reduceat(candles.volume.astype(np.int64), starts),
        np.add.reduceat(candles.quote, starts),
        np.add.reduceat(candles.trades.astype(np.int64), starts),
    )


def open_times(interval: str, times: Ints) -> Ints:
    """Open time of the candle that contains each time."""
    if interval == "1M":
        months = times.astype("datetime64[ms]").astype("datetime64[M]")
        return months.astype("datetime64[ms]").astype(np.int64)
    offset = _WEEK_OFFSET if interval == "1w" else 0
    result: Ints = times - (times - offset) % INTERVALS[interval]
    return result


def from_ticks(market: Market, index: int, start_ms: int, end_ms: int) -> Candles:
    """One flat candle per tick, or recorded trade, in [start_ms, end_ms), to be grouped."""
    parts: list[Candles] = []
    unit = quote_unit(market.instruments[index])
    first_tick = -(-max(start_ms, market.first_ms) // TICK_MS)
    last_tick = -(-end_ms // TICK_MS)
    while first_tick < last_tick:
        day, offset = divmod(first_tick, TICKS_PER_DAY)
        stop = min(TICKS_PER_DAY, offset + last_tick - first_tick)
        block = market.ticks(day)
        price = block.price[offset:stop, index].astype(np.int64)
        volume = block.volume[offset:stop, index].astype(np.int64)
        times = block.start_ms + np.arange(offset, stop, dtype=np.int64) * TICK_MS
        there = price > 0
        price, volume, times = price[there], volume[there], times[there]
        quote: Floats = np.asarray(price * volume.astype(np.float64) * unit, np.float64)
        parts.append(Candles(times, price, price, price, price, volume, quote, np.ones(len(times), np.int64)))
        first_tick += stop - offset
    tape = market.tape(index)
    if tape is None:
        return join(parts)
    # A tick is when trades become known: of a stretch that does not end at one, nothing after its last.
    known_ms = end_ms if end_ms % TICK_MS == 0 else end_ms - end_ms % TICK_MS + 1
    both = join([*parts, tape.between(max(start_ms, market.first_ms), known_ms).flat(market.instruments[index])])
    return both.take(np.argsort(both.open_time, kind="stable"))


def quote_unit(instrument: Instrument) -> float:
    """Currency of one price tick times one quantity step."""
    return float(10.0 ** -(instrument.price_decimals + instrument.quantity_decimals))


def candles_between(market: Market, index: int, interval: str, start_ms: int, end_ms: int, *, now_ms: int) -> Candles:
    """
    Candles of any interval that open in [start_ms, end_ms), the last perhaps unfinished at `now_ms`.

    Nothing later than `now_ms` is ever in them.
    """
    start_ms = max(start_ms, market.first_ms)
    first = open_time(interval, start_ms)
    if first < start_ms:
        first = next_open(interval, first)
    # A tick at `now` is known; hence the one millisecond.
    until = min(end_ms, now_ms + 1)
    if until <= first:
        return empty_candles()
    last_open = open_time(interval, until - 1)
    stop = min(next_open(interval, last_open), now_ms + 1)
    base = market.base_ms
    if interval == "1M" or INTERVALS[interval] % base == 0:
        closed_until = stop - stop % base
        raw = join([market.history(index, first, closed_until), from_ticks(market, index, closed_until, stop)])
    else:
        raw = from_ticks(market, index, first, stop)
    return group(raw, open_times(interval, raw.open_time))
