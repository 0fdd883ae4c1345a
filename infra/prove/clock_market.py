"""The hundred symbols that decisions are timed on: seeded walks, instruments and quotes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal

import numpy as np

from feature_store.candle import Timeframe
from inference.domain.market import Instrument, Quote

SYMBOLS = tuple(f"S{number:03}/USDT:USDT" for number in range(100))
WARM_UP = 400
STEP_MS = Timeframe.M5.milliseconds
_FIRST_MS = 1_700_000_100_000
_TICK = Decimal("0.01")


def open_times(candles: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return when so many candles open, in UTC milliseconds."""
    return np.arange(candles, dtype=np.int64) * STEP_MS + _FIRST_MS


def walks(candles: int) -> np.ndarray:
    """Return seeded random walks as candle values [symbols, candles, 5]."""
    rng = np.random.default_rng(5)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.002, (len(SYMBOLS), candles)), axis=1))
    opened = np.concatenate([np.full((len(SYMBOLS), 1), 100.0), close[:, :-1]], axis=1)
    reach = np.abs(rng.normal(0, 0.001, (2, *close.shape)))
    high = np.maximum(opened, close) * (1 + reach[0])
    low = np.minimum(opened, close) * (1 - reach[1])
    volume = rng.lognormal(3, 0.5, close.shape)
    return np.stack([opened, high, low, close, volume], axis=2)


def instruments_of(symbols: Sequence[str]) -> dict[str, Instrument]:
    """Return instruments with fine steps and small minimums."""
    return {
        symbol: Instrument(
            symbol=symbol,
            price_tick=_TICK,
            quantity_step=Decimal("0.001"),
            min_quantity=Decimal("0.001"),
            max_quantity=Decimal(10_000),
            min_notional=Decimal(5),
        )
        for symbol in symbols
    }


def quotes_of(closes: Mapping[str, float], at_ms: int) -> dict[str, Quote]:
    """Return quotes a tick wide around closes."""
    return {
        symbol: Quote(
            symbol=symbol,
            bid=Decimal(str(round(close, 2))),
            ask=Decimal(str(round(close, 2))) + _TICK,
            event_time_ms=at_ms,
        )
        for symbol, close in closes.items()
    }
