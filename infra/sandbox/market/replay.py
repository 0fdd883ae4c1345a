"""
A market that replays recorded candles.

Inside a candle only four prices are known, so the ticks between follow a stated path that knows nothing of our
positions: open, the extreme nearer to the open, the other extreme, close, with straight lines between, and volume
spread evenly. (Nearer-first finds the right order of high and low in about four of five candles.) The path is known
to be smoother than a market: nothing shorter than the recorded timeframe should be traded or measured on it.
Between candles prices jump as recorded. A candle that is missing stays missing: no tick, no price, and after a while
no trading. Where the recording ends, time stands still and the market is halted.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from infra.sandbox.engine.instrument import Instrument, instrument_for_price
from infra.sandbox.market.recording import Recorded, Recording, RecordingError, read_recording
from infra.sandbox.market.series import (
    DAY_MS,
    MINUTE_MS,
    TICK_MS,
    TICKS_PER_DAY,
    Candles,
    Floats,
    Ints,
    TickBlock,
    quote_unit,
)

__all__ = ["RecordingError", "ReplayMarket", "read_recording"]

KEPT_DAYS = 3


class ReplayMarket:
    """Recorded candles behind the same door as the synthetic market."""

    kind = "replay"
    edge = 0.0

    def __init__(self, recording: Recording, *, start_ms: int | None, history_days: int) -> None:
        self.base_ms = recording.timeframe_ms
        self.dropped = recording.dropped
        self._series = recording.series
        self.instruments = tuple(_instrument(one) for one in recording.series)
        self._candles = [_candles(one, i) for one, i in zip(recording.series, self.instruments, strict=True)]
        self.first_ms = min(int(one.open_time[0]) for one in recording.series)
        self.end_ms: int | None = max(int(one.open_time[-1]) for one in recording.series) + self.base_ms
        self.start_ms = self._start(start_ms, history_days)
        self._ticks: dict[int, TickBlock] = {}

    def is_trading(self, index: int, now_ms: int) -> bool:
        """Whether a candle was recorded not long ago: a quiet one does not halt the market, an outage does."""
        times = self._candles[index].open_time
        place = int(np.searchsorted(times, now_ms, side="right")) - 1
        if place < 0:
            return False
        patience = max(3 * self.base_ms, 15 * MINUTE_MS)
        return now_ms < int(times[place]) + self.base_ms + (patience if place < len(times) - 1 else 0)

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
        self._ticks[day] = block
        while len(self._ticks) > KEPT_DAYS:
            self._ticks.pop(next(iter(self._ticks)))
        return block

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
        up_first = candles.high - candles.open <= candles.open - candles.low
        first = np.where(up_first, candles.high, candles.low)
        second = np.where(up_first, candles.low, candles.high)
        corners = np.stack([candles.open, first, second, candles.close]).astype(np.float64)
        paths = np.rint(_weights(count) @ corners).astype(np.int64)
        shares = np.repeat((candles.volume // count)[None, :], count, axis=0)
        shares[-1] += candles.volume - shares.sum(axis=0)
        rows = ((candles.open_time - midnight_ms) // TICK_MS)[None, :] + np.arange(count)[:, None]
        price[rows.ravel()] = paths.ravel()
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


@lru_cache
def _weights(count: int) -> Floats:
    """How much of open, first extreme, second extreme and close is in each tick of a candle."""
    corners = np.array([0, count // 3, 2 * count // 3, count - 1], np.float64)
    ticks = np.arange(count, dtype=np.float64)
    return np.stack([np.interp(ticks, corners, np.eye(4)[corner]) for corner in range(4)], axis=1)


def _instrument(recorded: Recorded) -> Instrument:
    prices = recorded.values[:, :4]
    sample = prices[:: max(1, len(prices) // 2_000)].ravel()
    median = float(np.median(sample))
    # Resampled recordings have averages with endless decimals; a tick below a tenth of a basis point is noise.
    finest = next((k for k in range(9) if median * 10**k >= 100_000), 8)
    decimals = next(
        (k for k in range(finest) if np.allclose(sample * 10**k, np.rint(sample * 10**k), rtol=0, atol=1e-3)), finest
    )
    return instrument_for_price(recorded.symbol, recorded.base, median, price_decimals=decimals)


def _candles(recorded: Recorded, instrument: Instrument) -> Candles:
    scaled = np.rint(recorded.values[:, :4] * 10.0**instrument.price_decimals).astype(np.int64)
    opened, high, low, close = (np.ascontiguousarray(column) for column in scaled.T)
    volume = np.rint(recorded.values[:, 4] * 10.0**instrument.quantity_decimals).astype(np.int64)
    quote = (opened + high + low + close) / 4.0 * volume * quote_unit(instrument)
    trades = np.full(len(volume), 1, np.int64)
    return Candles(recorded.open_time, opened, high, low, close, volume, quote, trades)


def _iso(time_ms: int) -> str:
    return str(np.datetime64(time_ms, "ms")) + "Z"
