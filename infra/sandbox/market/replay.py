"""
A market that replays recorded candles.

Inside a candle only four prices are known, so the ticks between follow a stated path that knows nothing of our
positions: open, the extreme nearer to the open, the other extreme, close, with straight lines between, and volume
spread evenly. (Nearer-first finds the right order of high and low in about four of five candles.) The path is known
to be smoother than a market: nothing shorter than the recorded timeframe should be traded or measured on it.
Where candles of a minute were recorded too, and agree, they tell the inside, and each of them follows that path.
Between candles prices jump as recorded. A candle that is missing stays missing: no tick, no price, and after a while
no trading. Where the recording ends, time stands still and the market is halted.
"""

from __future__ import annotations

from decimal import Decimal

import numpy as np

from infra.sandbox.engine import path
from infra.sandbox.engine.instrument import Instrument
from infra.sandbox.engine.recorded import in_ticks, recorded_instrument
from infra.sandbox.market.minutes import detailed_paths, paths
from infra.sandbox.market.recording import Recorded, Recording, RecordingError, read_recording
from infra.sandbox.market.series import (
    DAY_MS,
    MINUTE_MS,
    TICK_MS,
    TICKS_PER_DAY,
    Candles,
    Ints,
    TickBlock,
    empty_candles,
    quote_unit,
)

__all__ = ["RecordingError", "ReplayMarket", "read_recording"]

KEPT_DAYS = 3


class ReplayMarket:
    """Recorded candles behind the same door as the synthetic market."""

    kind = "replay"
    edge = 0.0

    def __init__(
        self, recording: Recording, *, start_ms: int | None, history_days: int, minutes: Recording | None = None
    ) -> None:
        """
        Replay a recording; `minutes` tells of the inside of its candles, as far as both were recorded and agree.

        Raises:
            RecordingError: `start_ms` lies outside the recording.
        """
        self.base_ms = recording.timeframe_ms
        self.dropped = recording.dropped
        self._series = recording.series
        self.instruments = tuple(
            recorded_instrument(one.symbol, one.base, one.values[:, :4]) for one in recording.series
        )
        self._candles = [_candles(one, i) for one, i in zip(recording.series, self.instruments, strict=True)]
        inside = {one.symbol: one for one in minutes.series} if minutes is not None else {}
        self._minutes = [
            _candles(inside[one.symbol], one) if one.symbol in inside else empty_candles() for one in self.instruments
        ]
        # Candles whose minutes were played, by day and instrument.
        self._detailed: dict[int, dict[int, frozenset[int]]] = {}
        self.first_ms = min(int(one.open_time[0]) for one in recording.series)
        self.end_ms: int | None = max(int(one.open_time[-1]) for one in recording.series) + self.base_ms
        self.start_ms = self._start(start_ms, history_days)
        self._ticks: dict[int, TickBlock] = {}
        # Candles that were bent, by instrument and open: from which tick on, and which way. A day is drawn again.
        self._bent: dict[tuple[int, int], tuple[int, bool]] = {}

    def is_trading(self, index: int, now_ms: int) -> bool:
        """Whether a candle was recorded not long ago: a quiet one does not halt the market, an outage does."""
        times = self._candles[index].open_time
        place = int(np.searchsorted(times, now_ms, side="right")) - 1
        if place < 0:
            return False
        patience = max(3 * self.base_ms, 15 * MINUTE_MS)
        return now_ms < int(times[place]) + self.base_ms + (patience if place < len(times) - 1 else 0)

    def listed_ms(self, index: int) -> int:
        """Return when the first candle of an instrument was recorded."""
        return int(self._candles[index].open_time[0])

    def ticks(self, day: int) -> TickBlock:
        """Ticks of one UTC day, counted from 1970."""
        known = self._ticks.get(day)
        if known is not None:
            return known
        count = len(self.instruments)
        price = np.zeros((TICKS_PER_DAY, count), np.int64)
        volume = np.zeros((TICKS_PER_DAY, count), np.int64)
        for index in range(count):
            self._draw(index, day * DAY_MS, price[:, index], volume[:, index])
        block = TickBlock(day * DAY_MS, price, volume)
        for (index, open_ms), (tick_ms, falls_first) in self._bent.items():
            if open_ms // DAY_MS == day:
                self._bend(block, index, tick_ms, falls_first=falls_first)
        self._ticks[day] = block
        while len(self._ticks) > KEPT_DAYS:
            oldest = next(iter(self._ticks))
            self._detailed.pop(oldest, None)
            self._ticks.pop(oldest)
        return block

    def is_detailed(self, index: int, open_ms: int) -> bool:
        """Whether recorded minutes tell the prices inside a candle."""
        day = open_ms // DAY_MS
        self.ticks(day)
        return open_ms in self._detailed.get(day, {}).get(index, ())

    def extremes(self, index: int, open_ms: int) -> tuple[Decimal, Decimal] | None:
        """Return the lowest and the highest price of a candle, None where there is none."""
        candle = self.history(index, open_ms, open_ms + self.base_ms)
        if not len(candle):
            return None
        instrument = self.instruments[index]
        return instrument.price(int(candle.low[0])), instrument.price(int(candle.high[0]))

    def lean(self, index: int, tick_ms: int, *, falls_first: bool) -> bool:
        """
        Let the rest of a candle, from the tick at `tick_ms` on, fall or rise first; say whether it was early enough.

        Open, high, low and close stay what they are, and what was already played stays as it was.
        """
        open_ms = tick_ms - tick_ms % self.base_ms
        if not self._bend(self.ticks(open_ms // DAY_MS), index, tick_ms, falls_first=falls_first):
            return False
        self._bent[index, open_ms] = tick_ms, falls_first
        return True

    def _bend(self, block: TickBlock, index: int, tick_ms: int, *, falls_first: bool) -> bool:
        open_ms = tick_ms - tick_ms % self.base_ms
        candle = self.history(index, open_ms, open_ms + self.base_ms)
        count = self.base_ms // TICK_MS
        first, second, last = path.corners(count)
        played = (tick_ms - open_ms) // TICK_MS - 1
        if not len(candle) or not 0 <= played < first:
            return False
        high, low, close = (int(one[0]) for one in (candle.high, candle.low, candle.close))
        column = block.price[:, index]
        row = open_ms % DAY_MS // TICK_MS
        corners = ((first, low), (second, high)) if falls_first else ((first, high), (second, low))
        start, price = played, int(column[row + played])
        for ends, target in (*corners, (last, close)):
            steps = np.arange(1, ends - start + 1)
            column[row + start + 1 : row + ends + 1] = path.between(price, target, steps, ends - start)
            start, price = ends, target
        return True

    def history(self, index: int, start_ms: int, end_ms: int) -> Candles:
        """Recorded candles of one symbol that open in [start_ms, end_ms)."""
        candles = self._candles[index]
        start, stop = np.searchsorted(candles.open_time, [start_ms, max(start_ms, end_ms)])
        return candles.slice(int(start), int(stop))

    def _draw(self, index: int, midnight_ms: int, price: Ints, volume: Ints) -> None:
        candles = self.history(index, midnight_ms, midnight_ms + DAY_MS)
        if not len(candles):
            return
        count = self.base_ms // TICK_MS
        ticks = paths(candles, count)
        agrees, inside = detailed_paths(candles, self._minutes[index], self.base_ms)
        if agrees.any():
            ticks[:, agrees] = inside
            within = self._detailed.setdefault(midnight_ms // DAY_MS, {})
            within[index] = frozenset(candles.open_time[agrees].tolist())
        shares = np.repeat((candles.volume // count)[None, :], count, axis=0)
        shares[-1] += candles.volume - shares.sum(axis=0)
        rows = ((candles.open_time - midnight_ms) // TICK_MS)[None, :] + np.arange(count)[:, None]
        price[rows.ravel()] = ticks.ravel()
        volume[rows.ravel()] = shares.ravel()

    def _start(self, wanted_ms: int | None, history_days: int) -> int:
        assert self.end_ms is not None
        if wanted_ms is not None:
            if not self.first_ms < wanted_ms < self.end_ms:
                raise RecordingError(
                    f"--replay-start must lie inside the recording, between {_iso(self.first_ms)} and "
                    f"{_iso(self.end_ms)}, was {_iso(wanted_ms)}."
                )
            return wanted_ms - wanted_ms % self.base_ms
        # Where most instruments have begun, so that a late listing does not hide the others' history.
        first = int(np.median([int(one.open_time[0]) for one in self._series]))
        span = self.end_ms - first
        if span > (history_days + 1) * DAY_MS:
            start = first + history_days * DAY_MS
        elif span > 31 * DAY_MS:
            start = first + 30 * DAY_MS
        else:
            start = first + span * 3 // 4
        return start - start % self.base_ms


def _candles(recorded: Recorded, instrument: Instrument) -> Candles:
    scaled = in_ticks(recorded.values[:, :4], instrument)
    opened, high, low, close = (np.ascontiguousarray(column) for column in scaled.T)
    volume = np.rint(recorded.values[:, 4] * 10.0**instrument.quantity_decimals).astype(np.int64)
    quote = (opened + high + low + close) / 4.0 * volume * quote_unit(instrument)
    trades = np.full(len(volume), 1, np.int64)
    return Candles(recorded.open_time, opened, high, low, close, volume, quote, trades)


def _iso(time_ms: int) -> str:
    return str(np.datetime64(time_ms, "ms")) + "Z"
