"""What TA-Lib says of the features that it knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import talib

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from feature_store.candle import CandleBlock

_SMA: Any = 0  # The simple average, by TA-Lib's number; its type information does not export the name.


class Columns:
    """Candles as TA-Lib wants them."""

    def __init__(self, block: CandleBlock) -> None:
        self.open, self.high, self.low, self.close, self.volume = (np.ascontiguousarray(x) for x in block.values.T)


def _direction(x: Columns) -> Any:
    plus, minus = talib.PLUS_DI(x.high, x.low, x.close, 14), talib.MINUS_DI(x.high, x.low, x.close, 14)
    return (plus - minus) / (plus + minus)


def _sample_deviation(x: Columns, length: int) -> Any:
    returns = np.diff(np.log(x.close))
    return np.append([np.nan], talib.STDDEV(returns * 1e3, length) / 1e3 * np.sqrt(length / (length - 1)))


TALIB: dict[str, Callable[[Columns], npt.NDArray[np.float64]]] = {
    "rsi_14": lambda x: talib.RSI(x.close, 14),
    "macd": lambda x: talib.MACD(x.close, 12, 26, 9)[0],
    "macd_signal": lambda x: talib.MACD(x.close, 12, 26, 9)[1],
    "macd_histogram": lambda x: talib.MACD(x.close, 12, 26, 9)[2],
    "bollinger_upper": lambda x: talib.BBANDS(x.close, 20, 2, 2)[0],
    "bollinger_middle": lambda x: talib.BBANDS(x.close, 20, 2, 2)[1],
    "bollinger_lower": lambda x: talib.BBANDS(x.close, 20, 2, 2)[2],
    "stochastic_k": lambda x: talib.STOCH(x.high, x.low, x.close, 14, 3, _SMA, 3, _SMA)[0],
    "stochastic_d": lambda x: talib.STOCH(x.high, x.low, x.close, 14, 3, _SMA, 3, _SMA)[1],
    "atr_14": lambda x: talib.ATR(x.high, x.low, x.close, 14),
    "adx_14": lambda x: talib.ADX(x.high, x.low, x.close, 14),
    "sma_10": lambda x: talib.SMA(x.close, 10),
    "sma_30": lambda x: talib.SMA(x.close, 30),
    "sma_50": lambda x: talib.SMA(x.close, 50),
    "ema_10": lambda x: talib.EMA(x.close, 10),
    "ema_20": lambda x: talib.EMA(x.close, 20),
    "ema_50": lambda x: talib.EMA(x.close, 50),
    "wma_20": lambda x: talib.WMA(x.close, 20),
    "volume_sma_20": lambda x: talib.SMA(x.volume, 20),
    "obv": lambda x: talib.OBV(x.close, x.volume),
    "atr_volatility_14": lambda x: talib.NATR(x.high, x.low, x.close, 14) / 100,
    "trend_direction": _direction,
    "trend_strength": lambda x: (
        abs(talib.EMA(x.close, 20) - talib.EMA(x.close, 50)) / talib.ATR(x.high, x.low, x.close, 14)
    ),
    "roc_10": lambda x: talib.ROC(x.close, 10),
    "roc_48": lambda x: talib.ROC(x.close, 48),
    "cci_20": lambda x: talib.CCI(x.high, x.low, x.close, 20),
    "williams_r_14": lambda x: talib.WILLR(x.high, x.low, x.close, 14),
    "mfi_14": lambda x: talib.MFI(x.high, x.low, x.close, x.volume, 14),
    "price_change_1": lambda x: talib.MOM(x.close, 1),
    "simple_return_1": lambda x: talib.ROCP(x.close, 1),
    "simple_return_3": lambda x: talib.ROCP(x.close, 3),
    "simple_return_12": lambda x: talib.ROCP(x.close, 12),
    "historical_volatility_20": lambda x: _sample_deviation(x, 20),
    "historical_volatility_60": lambda x: _sample_deviation(x, 60),
}
