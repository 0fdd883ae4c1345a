"""Facts and small markets for tests of the universe."""

from __future__ import annotations

import numpy as np

from feature_store.candle import CandleBlock, Series, Timeframe
from feature_store.universe.policy import Rules
from feature_store.universe.selection import (
    DAY_MS,
    AssetClass,
    AssetLists,
    ListedAsset,
    Mode,
    SymbolFacts,
    UniversePolicy,
)

MONDAY_MS = 1_700_438_400_000
"""2023-11-20, a Monday."""
STEP = Timeframe.H1.milliseconds
LISTS = AssetLists(
    "test",
    {
        AssetClass.LAYER_1: (ListedAsset("BTC"), ListedAsset("ETH"), ListedAsset("SOL")),
        AssetClass.LAYER_2: (ListedAsset("ARB"),),
        AssetClass.MEGACAP: (ListedAsset("BTC"), ListedAsset("LINK", since_ms=MONDAY_MS)),
    },
)
EVERYTHING = Rules(UniversePolicy(mode=Mode.ALL, min_volume_24h=0, min_liquidity=0, min_age_days=0), LISTS)


def perpetual(asset: str) -> str:
    """Return the symbol of an asset's perpetual."""
    return f"{asset}/USDT:USDT"


def facts(asset: str, **other) -> SymbolFacts:
    """Return facts of a symbol that every filter lets through."""
    values = {
        "symbol": perpetual(asset),
        "volume_24h": 5e6,
        "liquidity": 2e5,
        "first_open_ms": MONDAY_MS - 100 * DAY_MS,
        "last_close_ms": MONDAY_MS,
    }
    return SymbolFacts(**(values | other))


def hourly(asset: str) -> Series:
    """Return the hourly series of an asset's perpetual."""
    return Series("sandbox", perpetual(asset), Timeframe.H1)


def candles(first_ms: int, last_ms: int, *, volume: float = 1_000.0, price: float = 100.0) -> CandleBlock:
    """Return hourly candles that open in `[first_ms, last_ms)` at one price and volume."""
    times = np.arange(first_ms, last_ms, STEP, dtype=np.int64)
    return CandleBlock(times, np.tile([price, price * 1.01, price * 0.99, price, volume], (len(times), 1)))
