"""Candles for tests: seeded markets with ticks, jumps, flat stretches and gaps."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from feature_store.candle import Series, Timeframe
from infra.prove.comparing import relative_error, same
from infra.prove.markets import T0, market, without

__all__ = [
    "BTC",
    "ETH",
    "REPOSITORY",
    "STEP",
    "T0",
    "market",
    "python",
    "recorded",
    "relative_error",
    "same",
    "without",
]

REPOSITORY = Path(__file__).resolve().parents[1]
STEP = Timeframe.M5.milliseconds
BTC = Series("sandbox", "BTC/USDT:USDT", Timeframe.M5)
ETH = Series("sandbox", "ETH/USDT:USDT", Timeframe.M5)


def python(
    code: str, *arguments: str, interpreter: str = sys.executable, patience_s: float = 120, **environment: str
) -> str:
    """Run code in a fresh interpreter and return what it printed."""
    result = subprocess.run(
        [interpreter, "-c", code, *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
        capture_output=True,
        text=True,
        timeout=patience_s,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def recorded(name: str) -> Path:
    """Return a file of recorded candles."""
    return Path(os.environ["MARKET_DATA_DIR"]) / name
