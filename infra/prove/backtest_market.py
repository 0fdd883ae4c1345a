"""A market made for backtests: prices of all sizes that jump and gap, and opinions that are sure now and then."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from flows.replay.market import ScoredMarket
from infra.sandbox.engine.instrument import instrument_for_price

STEP_MS = 300_000
START_MS = 1_735_689_600_000


def make_market(
    *, symbols: int = 5, candles: int = 400, seed: int = 1, confident: float = 0.3, missing: float = 0.0
) -> ScoredMarket:
    """
    Return candles with opinions that know nothing of what comes.

    `confident` is the share of opinions worth trading, `missing` that of candles which are not there.
    """
    rng = np.random.default_rng(seed)
    shape = (candles, symbols)
    times = START_MS + STEP_MS * np.arange(candles, dtype=np.int64)
    prices, atr, instruments = np.zeros((*shape, 4), np.int64), np.zeros(shape), []
    for place in range(symbols):
        symbol, usual = f"S{place:03d}/USDT:USDT", float(10 ** rng.uniform(-3, 4.7))
        instrument = replace(instrument_for_price("SUSDT", "S", usual), symbol=symbol)
        instruments.append(instrument)
        close = usual * np.exp(np.cumsum(0.002 * rng.standard_t(4, candles)))
        opened = np.concatenate([[usual], close[:-1]])
        opened *= np.where(rng.random(candles) < 0.3, np.exp(0.001 * rng.standard_normal(candles)), 1.0)
        wick = 0.0015 * np.abs(rng.standard_normal((2, candles)))
        high, low = np.maximum(opened, close) * (1 + wick[0]), np.minimum(opened, close) * (1 - wick[1])
        ticks = np.rint(np.stack([opened, high, low, close], axis=1) * 10.0**instrument.price_decimals)
        prices[:, place] = ticks
        atr[:, place] = np.convolve(high - low, np.ones(14) / 14)[:candles]
    expected = 0.003 * rng.standard_normal(shape)
    rising = 0.5 + 0.3 * np.tanh(expected / 0.003)
    quiet = rng.random(shape) >= confident
    rising[quiet] = 0.5 + 0.005 * rng.standard_normal(int(quiet.sum()))
    absent = rng.random(shape) < missing
    prices[absent] = 0
    rising[absent | (rng.random(shape) < 0.05)] = np.nan
    rising[:5] = np.nan
    boundaries = times[times % (8 * 3_600_000) == 0]
    return ScoredMarket(
        symbols=tuple(one.symbol for one in instruments),
        instruments=tuple(instruments),
        timeframe_ms=STEP_MS,
        open_time_ms=times,
        prices=prices,
        atr=atr,
        expected_return=expected,
        probability_up=rising,
        funding_time_ms=boundaries,
        funding_rate=rng.integers(-30_000, 30_000, (len(boundaries), symbols)),
        threshold=0.6,
        model_version="test",
    )
