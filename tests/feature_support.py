"""Candles for tests: seeded markets with ticks, jumps, flat stretches and gaps."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from feature_store.candle import CandleBlock, Series, Timeframe

REPOSITORY = Path(__file__).resolve().parents[1]
T0 = 1_700_000_100_000
STEP = Timeframe.M5.milliseconds
BTC = Series("sandbox", "BTC/USDT:USDT", Timeframe.M5)
ETH = Series("sandbox", "ETH/USDT:USDT", Timeframe.M5)


def market(
    candles: int,
    *,
    seed: int = 1,
    price: float = 100.0,
    tick: float = 0.01,
    flat: float = 0.1,
    start_ms: int = T0,
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
    times = start_ms + np.arange(candles, dtype=np.int64) * timeframe.milliseconds
    return CandleBlock(times, np.column_stack([open_, high, low, close, volume]))


def without(block: CandleBlock, rows: np.ndarray | slice) -> CandleBlock:
    """Return a block with some of its candles missing."""
    return CandleBlock(np.delete(block.open_time_ms, rows), np.delete(block.values, rows, axis=0))


def same(left: np.ndarray, right: np.ndarray) -> bool:
    """Tell whether two arrays are equal to the bit, NaN for NaN."""
    return left.shape == right.shape and left.dtype == right.dtype and np.array_equal(left, right, equal_nan=True)


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest error relative to each value, or to a thousandth of their spread for values near zero."""
    scale = np.maximum(np.abs(expected), 1e-3 * np.nanstd(expected))
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.where(found == expected, 0.0, np.abs(found - expected) / scale)
    return float(np.nanmax(error))


def python(code: str, *arguments: str, interpreter: str = sys.executable, **environment: str) -> str:
    """Run code in a fresh interpreter and return what it printed."""
    result = subprocess.run(
        [interpreter, "-c", code, *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def recorded(name: str) -> Path:
    """Return a file of recorded candles."""
    return Path(os.environ["MARKET_DATA_DIR"]) / name
