"""A peer of live features: the same 49 from TA-Lib's handles, one for each indicator and symbol, and Python between."""

from __future__ import annotations

from collections import deque
from math import log, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
from talib import stream as untyped_stream

if TYPE_CHECKING:
    import numpy.typing as npt

stream: Any = untyped_stream
_SMA: Any = 0
_HISTORY = 49  # Closes that the longest look back needs.


class Handles:
    """The indicators of one symbol, opened on a history and carried forward by one candle at a time."""

    def __init__(self, values: npt.NDArray[np.float64]) -> None:
        _, h, low, c, v = (np.ascontiguousarray(column) for column in values.T)
        returns = np.diff(np.log(c)) * 1e3
        self._of_close = [
            *(stream.MOM(c, 1), stream.ROCP(c, 1), stream.ROCP(c, 3), stream.ROCP(c, 12), stream.RSI(c, 14)),
            *(stream.SMA(c, 10), stream.SMA(c, 30), stream.SMA(c, 50), stream.EMA(c, 10), stream.EMA(c, 20)),
            *(stream.EMA(c, 50), stream.WMA(c, 20), stream.ROC(c, 10), stream.ROC(c, 48)),
        ]
        self._macd, self._bands = stream.MACD(c, 12, 26, 9), stream.BBANDS(c, 20, 2.0, 2.0)
        self._slow = stream.STOCH(h, low, c, 14, 3, _SMA, 3, _SMA)
        kinds = (stream.ATR, stream.ADX, stream.PLUS_DI, stream.MINUS_DI, stream.WILLR)
        self._of_range = [*(kind(h, low, c, 14) for kind in kinds), stream.CCI(h, low, c, 20)]
        self._bottom, self._top = stream.MIN(low, 11), stream.MAX(h, 11)
        self._flow, self._volume, self._obv = stream.MFI(h, low, c, v, 14), stream.SMA(v, 20), stream.OBV(c, v)
        self._hv_20, self._hv_60 = stream.STDDEV(returns, 20), stream.STDDEV(returns, 60)
        self._closes = deque(c.tolist(), _HISTORY)
        self._lows, self._highs = deque(low.tolist(), 6), deque(h.tolist(), 6)
        self._vpt = float(np.sum(v[1:] * (np.diff(c) / c[:-1])))
        self._support, self._resistance = self._last_pivot(low, np.min), self._last_pivot(h, np.max)

    @staticmethod
    def _last_pivot(price: npt.NDArray[np.float64], extreme: Any) -> float:
        extremes = extreme(np.lib.stride_tricks.sliding_window_view(price, 11), axis=1)
        at = np.flatnonzero(price[5:-5] == extremes)
        return float(extremes[at[-1]] if len(at) else extremes[-1])

    def update(self, o: float, h: float, low: float, c: float, v: float) -> tuple[float, ...]:
        """Take in one closed candle and return the 49."""
        closes = self._closes
        closes.append(c)
        self._lows.append(low)
        self._highs.append(h)
        change, r1, r3, r12, rsi, s10, s30, s50, e10, e20, e50, wma, roc_10, roc_48 = [
            one.update(c) for one in self._of_close
        ]
        macd, signal, histogram = self._macd.update(c)
        upper, middle, lower = self._bands.update(c)
        slow_k, slow_d = self._slow.update(h, low, c)
        atr, adx, plus, minus, williams, cci = [one.update(h, low, c) for one in self._of_range]
        bottom, top = self._bottom.update(low), self._top.update(h)
        flow, usual, obv = self._flow.update(h, low, c, v), self._volume.update(v), self._obv.update(c, v)
        log_return = log(c / closes[-2])
        hv_20 = self._hv_20.update(log_return * 1e3) * (1e-3 * sqrt(20 / 19))
        hv_60 = self._hv_60.update(log_return * 1e3) * (1e-3 * sqrt(60 / 59))
        self._vpt += v * r1
        if self._lows[0] == bottom:
            self._support = bottom
        if self._highs[0] == top:
            self._resistance = top
        moved = plus + minus
        return (
            *(o, h, low, c, v, change, r1, r3, r12, log_return, log(c / closes[-7]), log(c / closes[-25])),
            *(rsi, macd, signal, histogram, upper, middle, lower, slow_k, slow_d, atr, adx, s10, s30, s50),
            *(e10, e20, e50, wma, usual, v / usual if usual else 0.0, obv, self._vpt, hv_20, hv_60, atr / c),
            *((upper - lower) / middle, abs(e20 - e50) / atr, (plus - minus) / moved if moved else 0.0),
            *(self._support, self._resistance, roc_10, roc_48, cci, williams, flow),
            *(log(c / closes[-13]) / (hv_60 * sqrt(12)), log(c / closes[-49]) / (hv_60 * sqrt(48))),
        )
