"""The compiled kernel's room: which number stands where while a block of candles is computed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numba
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

# Everything that is compiled stands in the files that native.py names: a change of one makes kept machine code void.
# definition.py and native.py hold the same order and sizes for who does not compile; tests hold them together.

TAIL = 64
"""Earlier candles that a series remembers."""

BLOCK = 256
"""Candles that are computed at once at most."""

WIDTH = TAIL + BLOCK
"""A row of the room: the tail, then the candles of the block. One width always, so that compilers know distances."""

STATE_SIZE = 24
INPUTS = 41
FEATURE_COUNT = 49

# Where the row of each feature begins. Places are unsigned: numba need not ask whether they count from the end.
(
    OPEN,
    HIGH,
    LOW,
    CLOSE,
    VOLUME,
    PRICE_CHANGE_1,
    SIMPLE_RETURN_1,
    SIMPLE_RETURN_3,
    SIMPLE_RETURN_12,
    LOG_RETURN_1,
    LOG_RETURN_6,
    LOG_RETURN_24,
    RSI_14,
    MACD,
    MACD_SIGNAL,
    MACD_HISTOGRAM,
    BOLLINGER_UPPER,
    BOLLINGER_MIDDLE,
    BOLLINGER_LOWER,
    STOCHASTIC_K,
    STOCHASTIC_D,
    ATR_14,
    ADX_14,
    SMA_10,
    SMA_30,
    SMA_50,
    EMA_10,
    EMA_20,
    EMA_50,
    WMA_20,
    VOLUME_SMA_20,
    VOLUME_RATIO_20,
    OBV,
    VPT,
    HISTORICAL_VOLATILITY_20,
    HISTORICAL_VOLATILITY_60,
    ATR_VOLATILITY_14,
    BOLLINGER_WIDTH_20,
    TREND_STRENGTH,
    TREND_DIRECTION,
    SUPPORT_LEVEL,
    RESISTANCE_LEVEL,
    ROC_10,
    ROC_48,
    CCI_20,
    WILLIAMS_R_14,
    MFI_14,
    RELATIVE_MOMENTUM_12,
    RELATIVE_MOMENTUM_48,
) = (np.uint64(row * WIDTH) for row in range(FEATURE_COUNT))

# What windows are put together from, for 2, 4, 8 or 16 candles: these rows reach into the tail, so that a block goes
# on where the last one ended.
(
    INVERSE,
    OFFSET,
    RISING,
    FALLING,
    APART_2,
    APART_4,
    APART_8,
    APART_16,
    SPREAD_2,
    SPREAD_4,
    SPREAD_8,
    SPREAD_16,
    WEIGHED_4,
    WEIGHED_8,
    WEIGHED_16,
    RETURN_2,
    RETURN_4,
    RETURN_8,
    RETURN_16,
    RETURN_32,
    RETURN_SPREAD_2,
    RETURN_SPREAD_4,
    RETURN_SPREAD_8,
    RETURN_SPREAD_16,
    RETURN_SPREAD_32,
    VOLUME_2,
    VOLUME_4,
    VOLUME_8,
    VOLUME_16,
    OFFSET_2,
    OFFSET_4,
    OFFSET_8,
    OFFSET_16,
    RISING_2,
    RISING_4,
    RISING_8,
    FALLING_2,
    FALLING_4,
    FALLING_8,
    HIGHEST_2,
    HIGHEST_4,
    HIGHEST_8,
    LOWEST_2,
    LOWEST_4,
    LOWEST_8,
    RAW_STOCHASTIC,
    SLOW_STOCHASTIC,
) = (np.uint64(row * WIDTH) for row in range(FEATURE_COUNT, FEATURE_COUNT + 47))
CARRIED = 47

# What one block alone needs.
(
    TRUE_RANGE,
    PLUS,
    MINUS,
    GAIN,
    LOSS,
    APART_20,
    TOP_11,
    BOTTOM_11,
    STRENGTH,
    RANGE_SUM,
    MOMENTUM_48,
) = (np.uint64(row * WIDTH) for row in range(FEATURE_COUNT + CARRIED, FEATURE_COUNT + CARRIED + 11))
ROWS = FEATURE_COUNT + CARRIED + 11

# Where the block begins in a row, and candles back from a place.
BEGIN = np.uint64(TAIL)
(B0, B1, B2, B3, B4, B5, B6, B7, B8, B9, B10, B11, B12, B13, B14, B15, B16, B17, B18, B19) = (
    np.uint64(back) for back in range(20)
)
B24, B28, B32, B48, B56 = (np.uint64(back) for back in (24, 28, 32, 48, 56))

# Slots of the state vector: what Wilder's and exponential averages carry, running totals, the last pivots.
(
    S_GAIN,
    S_LOSS,
    S_EMA_10,
    S_EMA_20,
    S_EMA_50,
    S_EMA_12,
    S_EMA_26,
    S_SIGNAL,
    S_ATR,
    S_PLUS_DM,
    S_MINUS_DM,
    S_TRUE_RANGE,
    S_DX_SUM,
    S_ADX,
    S_OBV,
    S_VPT,
    S_SUPPORT,
    S_RESISTANCE,
) = range(18)

FLAT = 1e-12  # Price units below this share of the price are rounding, not movement.
TIE = 1e-13  # TA-Lib's rule for money flow, made relative: a smaller change of the typical price is none.

F = TypeVar("F", bound="Callable[..., Any]")


def compiled(function: F) -> F:
    """
    Compile a function.

    Never fastmath: every value has one order of sums, so that blocks of 256 candles and of one give the same bits.
    Without numba's runtime, too: nothing here allocates or raises, so that the machine code stands by itself.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": False, "_nrt": False}
    result: F = numba.njit(**options)(function)
    return result
