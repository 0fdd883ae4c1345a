"""Compile the kernel ahead of time: `python -m feature_store.features.warm`, once at set-up."""

from __future__ import annotations

import sys

import numpy as np

from feature_store.candle import CandleBlock, Timeframe
from feature_store.clock import monotonic
from feature_store.features.engine import FeatureEngine


def warm() -> float:
    """Compile the kernel, or load it from numba's cache, and return the seconds it took."""
    started = monotonic()
    step = Timeframe.M5.milliseconds
    prices = np.linspace(100.0, 101.0, 4)
    block = CandleBlock(
        np.arange(4, dtype=np.int64) * step, np.column_stack([prices, prices + 1, prices - 1, prices, prices])
    )
    FeatureEngine(Timeframe.M5).advance(block)
    return monotonic() - started


def main() -> int:
    """Warm the cache and say how long it took."""
    sys.stdout.write(f"feature kernel ready in {warm():.1f} s\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
