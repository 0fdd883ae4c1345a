"""A peer of the feature kernel: the same 49 from TA-Lib as its users call it, by arrays and by frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import talib
from talib import abstract

from feature_store.features.definition import FEATURE_NAMES

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

_SMA: Any = 0


def by_arrays(values: Floats) -> list[Floats]:
    """Return the 49 of one series [n, 5]: TA-Lib where it knows them, numpy elsewhere; nothing is computed twice."""
    o, h, low, c, v = (np.ascontiguousarray(column) for column in values.T)
    with np.errstate(all="ignore"):
        macd, signal, histogram = talib.MACD(c, 12, 26, 9)
        upper, middle, lower = talib.BBANDS(c, 20, 2, 2)
        slow_k, slow_d = talib.STOCH(h, low, c, 14, 3, _SMA, 3, _SMA)
        atr, volume_mean = talib.ATR(h, low, c, 14), talib.SMA(v, 20)
        ema_20, ema_50 = talib.EMA(c, 20), talib.EMA(c, 50)
        plus, minus = talib.PLUS_DI(h, low, c, 14), talib.MINUS_DI(h, low, c, 14)
        log_close = np.log(c)
        returns = np.diff(log_close, prepend=np.nan)
        hv_20, hv_60 = (_deviation(returns, length) for length in (20, 60))
        rise, change = talib.ROCP(c, 1), talib.MOM(c, 1)
        return [
            *(o, h, low, c, v, change, rise, talib.ROCP(c, 3), talib.ROCP(c, 12)),
            *(returns, _ago(log_close, 6), _ago(log_close, 24)),
            *(talib.RSI(c, 14), macd, signal, histogram, upper, middle, lower, slow_k, slow_d, atr),
            *(talib.ADX(h, low, c, 14), talib.SMA(c, 10), talib.SMA(c, 30), talib.SMA(c, 50)),
            *(talib.EMA(c, 10), ema_20, ema_50, talib.WMA(c, 20), volume_mean, _ratio(v, volume_mean)),
            *(talib.OBV(c, v), np.cumsum(v * np.nan_to_num(rise)), hv_20, hv_60, atr / c, (upper - lower) / middle),
            *(np.abs(ema_20 - ema_50) / atr, (plus - minus) / (plus + minus)),
            *(_pivots(low, talib.MIN(low, 11)), _pivots(h, talib.MAX(h, 11)), talib.ROC(c, 10), talib.ROC(c, 48)),
            *(talib.CCI(h, low, c, 20), talib.WILLR(h, low, c, 14), talib.MFI(h, low, c, v, 14)),
            *(_ago(log_close, 12) / (hv_60 * np.sqrt(12)), _ago(log_close, 48) / (hv_60 * np.sqrt(48))),
        ]


def by_frames(frame: Any) -> Any:
    """Return the 49 of one series as FreqAI's users write them: `talib.abstract` on a frame, column after column."""
    ta: Any = abstract
    c, v = frame["close"], frame["volume"]
    with np.errstate(all="ignore"):
        frame["price_change_1"] = c.diff()
        for length in (1, 3, 12):
            frame[f"simple_return_{length}"] = c.pct_change(length)
        for length in (1, 6, 24):
            frame[f"log_return_{length}"] = np.log(c / c.shift(length))
        frame["rsi_14"] = ta.RSI(frame, timeperiod=14)
        macd = ta.MACD(frame)
        frame["macd"], frame["macd_signal"], frame["macd_histogram"] = (
            macd["macd"],
            macd["macdsignal"],
            macd["macdhist"],
        )
        bands = ta.BBANDS(frame, timeperiod=20, nbdevup=2.0, nbdevdn=2.0)
        for ours, theirs in (("upper", "upperband"), ("middle", "middleband"), ("lower", "lowerband")):
            frame[f"bollinger_{ours}"] = bands[theirs]
        slow = ta.STOCH(frame, fastk_period=14, slowk_period=3, slowd_period=3)
        frame["stochastic_k"], frame["stochastic_d"] = slow["slowk"], slow["slowd"]
        frame["atr_14"], frame["adx_14"] = ta.ATR(frame, timeperiod=14), ta.ADX(frame, timeperiod=14)
        for length in (10, 30, 50):
            frame[f"sma_{length}"] = ta.SMA(frame, timeperiod=length)
        for length in (10, 20, 50):
            frame[f"ema_{length}"] = ta.EMA(frame, timeperiod=length)
        frame["wma_20"] = ta.WMA(frame, timeperiod=20)
        frame["volume_sma_20"] = v.rolling(20).mean()
        frame["volume_ratio_20"] = v / frame["volume_sma_20"]
        frame["obv"] = ta.OBV(frame)
        frame["vpt"] = (v * c.pct_change().fillna(0)).cumsum()
        for length in (20, 60):
            frame[f"historical_volatility_{length}"] = frame["log_return_1"].rolling(length).std()
        frame["atr_volatility_14"] = frame["atr_14"] / c
        frame["bollinger_width_20"] = (frame["bollinger_upper"] - frame["bollinger_lower"]) / frame["bollinger_middle"]
        frame["trend_strength"] = (frame["ema_20"] - frame["ema_50"]).abs() / frame["atr_14"]
        plus, minus = ta.PLUS_DI(frame, timeperiod=14), ta.MINUS_DI(frame, timeperiod=14)
        frame["trend_direction"] = (plus - minus) / (plus + minus)
        bottom, top = frame["low"].rolling(11).min(), frame["high"].rolling(11).max()
        frame["support_level"] = bottom.where(frame["low"].shift(5) == bottom).ffill().fillna(bottom)
        frame["resistance_level"] = top.where(frame["high"].shift(5) == top).ffill().fillna(top)
        frame["roc_10"], frame["roc_48"] = ta.ROC(frame, timeperiod=10), ta.ROC(frame, timeperiod=48)
        frame["cci_20"], frame["williams_r_14"] = ta.CCI(frame, timeperiod=20), ta.WILLR(frame, timeperiod=14)
        frame["mfi_14"] = ta.MFI(frame, timeperiod=14)
        for length in (12, 48):
            usual = frame["historical_volatility_60"] * np.sqrt(length)
            frame[f"relative_momentum_{length}"] = np.log(c / c.shift(length)) / usual
    return frame[list(FEATURE_NAMES)]


def _ago(log_close: Floats, candles: int) -> Floats:
    out = np.full(len(log_close), np.nan)
    out[candles:] = log_close[candles:] - log_close[:-candles]
    return out


def _ratio(above: Floats, below: Floats) -> Floats:
    ratio: Floats = above / below
    return np.where(below > 0, ratio, np.where(np.isnan(below), np.nan, 0.0))


def _deviation(returns: Floats, length: int) -> Floats:
    # A thousand times the returns: TA-Lib takes variances below 1e-14 for none.
    deviation = talib.STDDEV(returns[1:] * 1e3, length) * (1e-3 * np.sqrt(length / (length - 1)))
    return np.concatenate([[np.nan], deviation])


def _pivots(price: Floats, extreme: Floats) -> Floats:
    found = np.zeros(len(price), np.int64)
    rows = np.arange(10, len(price))
    found[10:] = np.where(price[5:-5] == extreme[10:], rows, 0)
    last = np.maximum.accumulate(found)
    return np.where(last > 0, extreme[last], extreme)
