"""Compiled: what models read, computed from one candle's features."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_store.features.layout import (
    ADX_14,
    ATR_14,
    ATR_VOLATILITY_14,
    BOLLINGER_LOWER,
    BOLLINGER_MIDDLE,
    BOLLINGER_UPPER,
    BOLLINGER_WIDTH_20,
    CCI_20,
    CLOSE,
    EMA_10,
    EMA_20,
    EMA_50,
    FLAT,
    HIGH,
    HISTORICAL_VOLATILITY_20,
    HISTORICAL_VOLATILITY_60,
    LOG_RETURN_1,
    LOG_RETURN_6,
    LOG_RETURN_24,
    LOW,
    MACD,
    MACD_HISTOGRAM,
    MACD_SIGNAL,
    MFI_14,
    OPEN,
    PRICE_CHANGE_1,
    RELATIVE_MOMENTUM_12,
    RELATIVE_MOMENTUM_48,
    RESISTANCE_LEVEL,
    ROC_10,
    ROC_48,
    RSI_14,
    SIMPLE_RETURN_3,
    SIMPLE_RETURN_12,
    SMA_10,
    SMA_30,
    SMA_50,
    STOCHASTIC_D,
    STOCHASTIC_K,
    SUPPORT_LEVEL,
    TREND_DIRECTION,
    TREND_STRENGTH,
    VOLUME_RATIO_20,
    WILLIAMS_R_14,
    WMA_20,
    compiled,
)

if TYPE_CHECKING:
    import numpy.typing as npt

    Room = npt.NDArray[np.float64]
    Place = Any  # An unsigned number; range makes an int of it for whoever checks types.

BOUND = 20.0


@compiled
def _log_ratio(above: float, below: float) -> float:
    return math.log(above / below)


@compiled
def _put(out: npt.NDArray[np.float32], begin: Place, column: int, value: float) -> None:
    # NaN is not itself, and stays.
    bounded = min(max(value, -BOUND), BOUND) if value == value else value  # noqa: PLR0124
    out[begin + np.uint64(column)] = bounded


@compiled
def inputs_at(w: Room, at: Place, out: npt.NDArray[np.float32], begin: Place) -> None:
    """Turn the features that stand at one place of the room into INPUTS numbers from `begin` on in `out`."""
    c, atr = w[CLOSE + at], w[ATR_14 + at]
    hv_20, hv_60 = w[HISTORICAL_VOLATILITY_20 + at], w[HISTORICAL_VOLATILITY_60 + at]
    per_atr = 0.0 if atr <= FLAT * c else 1.0 / atr
    band = w[BOLLINGER_UPPER + at] - w[BOLLINGER_LOWER + at]
    _put(out, begin, 0, _log_ratio(c, w[OPEN + at]))
    _put(out, begin, 1, _log_ratio(w[HIGH + at], max(w[OPEN + at], c)))
    _put(out, begin, 2, _log_ratio(min(w[OPEN + at], c), w[LOW + at]))
    _put(out, begin, 3, w[PRICE_CHANGE_1 + at] * per_atr)
    _put(out, begin, 4, w[LOG_RETURN_1 + at])
    _put(out, begin, 5, math.log(1.0 + w[SIMPLE_RETURN_3 + at]))
    _put(out, begin, 6, w[LOG_RETURN_6 + at])
    _put(out, begin, 7, math.log(1.0 + w[ROC_10 + at] / 100.0))
    _put(out, begin, 8, math.log(1.0 + w[SIMPLE_RETURN_12 + at]))
    _put(out, begin, 9, w[LOG_RETURN_24 + at])
    _put(out, begin, 10, math.log(1.0 + w[ROC_48 + at] / 100.0))
    _put(out, begin, 11, w[RSI_14 + at] / 50.0 - 1.0)
    _put(out, begin, 12, w[MACD + at] * per_atr)
    _put(out, begin, 13, w[MACD_SIGNAL + at] * per_atr)
    _put(out, begin, 14, w[MACD_HISTOGRAM + at] * per_atr)
    _put(out, begin, 15, 2.0 * (c - w[BOLLINGER_MIDDLE + at]) / band if band != 0.0 else 0.0)
    _put(out, begin, 16, w[BOLLINGER_WIDTH_20 + at])
    _put(out, begin, 17, w[STOCHASTIC_K + at] / 50.0 - 1.0)
    _put(out, begin, 18, w[STOCHASTIC_D + at] / 50.0 - 1.0)
    _put(out, begin, 19, w[ADX_14 + at] / 50.0 - 1.0)
    _put(out, begin, 20, _log_ratio(c, w[SMA_10 + at]))
    _put(out, begin, 21, _log_ratio(c, w[SMA_30 + at]))
    _put(out, begin, 22, _log_ratio(c, w[SMA_50 + at]))
    _put(out, begin, 23, _log_ratio(c, w[EMA_10 + at]))
    _put(out, begin, 24, _log_ratio(c, w[EMA_20 + at]))
    _put(out, begin, 25, _log_ratio(c, w[EMA_50 + at]))
    _put(out, begin, 26, _log_ratio(c, w[WMA_20 + at]))
    _put(out, begin, 27, math.log(1.0 + w[VOLUME_RATIO_20 + at]))
    _put(out, begin, 28, hv_20)
    _put(out, begin, 29, hv_60)
    _put(out, begin, 30, (hv_20 - hv_60) / (hv_20 + hv_60) if hv_20 + hv_60 != 0.0 else 0.0)
    _put(out, begin, 31, w[ATR_VOLATILITY_14 + at])
    _put(out, begin, 32, w[TREND_STRENGTH + at] * np.sign(w[EMA_20 + at] - w[EMA_50 + at]))
    _put(out, begin, 33, w[TREND_DIRECTION + at])
    _put(out, begin, 34, _log_ratio(c, w[SUPPORT_LEVEL + at]))
    _put(out, begin, 35, _log_ratio(w[RESISTANCE_LEVEL + at], c))
    _put(out, begin, 36, w[CCI_20 + at] / 200.0)
    _put(out, begin, 37, w[WILLIAMS_R_14 + at] / 50.0 + 1.0)
    _put(out, begin, 38, w[MFI_14 + at] / 50.0 - 1.0)
    _put(out, begin, 39, w[RELATIVE_MOMENTUM_12 + at])
    _put(out, begin, 40, w[RELATIVE_MOMENTUM_48 + at])
