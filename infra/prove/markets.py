"""Candles to prove features on: seeded markets with ticks, jumps, stretches that stand still, and gaps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from feature_store.candle import CandleBlock, Series, Timeframe

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

T0 = 1_700_000_100_000


def market(
    candles: int,
    *,
    seed: int = 1,
    price: float = 100.0,
    tick: float = 0.01,
    flat: float = 0.1,
    start_ms: int | None = None,
    timeframe: Timeframe = Timeframe.M5,
) -> CandleBlock:
    """Return a random market on a tick grid; a share `flat` of its candles does not move or trade at all."""
    rng = np.random.default_rng(seed)
    moves = rng.standard_t(4, candles) * 0.002 * (rng.random(candles) >= flat)
    close = np.maximum(np.round(price * np.exp(np.cumsum(moves)) / tick), 10) * tick
    open_ = np.concatenate([[close[0]], close[:-1]])
    still = moves == 0
    wick = np.where(still, 0.0, np.round(rng.exponential(0.001, (2, candles)) * price / tick) * tick)
    high = np.maximum(open_, close) + wick[0]
    low = np.maximum(np.minimum(open_, close) - wick[1], tick)
    volume = np.where(still, 0.0, np.round(rng.lognormal(3, 1, candles), 3))
    begin = timeframe.floor_ms(T0) if start_ms is None else start_ms
    times = begin + np.arange(candles, dtype=np.int64) * timeframe.milliseconds
    return CandleBlock(times, np.column_stack([open_, high, low, close, volume]))


def without(block: CandleBlock, rows: npt.NDArray[np.int64] | slice) -> CandleBlock:
    """Return a block with some of its candles missing."""
    return CandleBlock(np.delete(block.open_time_ms, rows), np.delete(block.values, rows, axis=0))


def gapped(block: CandleBlock, seed: int) -> CandleBlock:
    """Return a block from which stretches are missing, some too long to be bridged."""
    rng = np.random.default_rng(seed)
    absent = [np.arange(at, at + size) for at, size in zip(_places(rng, len(block)), (1, 5, 64, 65, 150), strict=True)]
    return without(block, np.unique(np.concatenate(absent).clip(max=len(block) - 1)))


def _places(rng: np.random.Generator, candles: int) -> list[int]:
    return sorted(rng.integers(1, candles, 5).tolist())


def synthetic_series(candles: int, count: int) -> Iterator[tuple[Series, CandleBlock]]:
    """Yield series of several timeframes: dear and cheap, lively, quiet and standing still, whole and with gaps."""
    prices = ((100.0, 0.01), (60_000.0, 0.1), (0.00002, 1e-8), (1.0, 1e-4))
    flats = (0.02, 0.1, 0.5, 0.0, 0.9)
    for number in range(count):
        timeframe = (Timeframe.M5, Timeframe.M5, Timeframe.M15, Timeframe.H1)[number % 4]
        price, tick = prices[number // 4 % 4]
        flat = flats[number % 5] if number != count - 1 else 1.0
        block = market(candles, seed=number, price=price, tick=tick, flat=flat, timeframe=timeframe)
        if number % 2:
            block = gapped(block, number)
        yield Series("synthetic", f"S{number}/USDT:USDT", timeframe), block
