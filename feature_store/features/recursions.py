"""Compiled: features that remember a whole series, and the state that carries them from candle to candle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from feature_store.features.layout import (
    ADX_14,
    ATR_14,
    ATR_VOLATILITY_14,
    B1,
    B5,
    BEGIN,
    BOLLINGER_MIDDLE,
    BOTTOM_11,
    CLOSE,
    EMA_10,
    EMA_20,
    EMA_50,
    FLAT,
    GAIN,
    HIGH,
    LOSS,
    LOW,
    MACD,
    MACD_HISTOGRAM,
    MACD_SIGNAL,
    MINUS,
    OBV,
    PLUS,
    PRICE_CHANGE_1,
    RANGE_SUM,
    RESISTANCE_LEVEL,
    RSI_14,
    S_ADX,
    S_ATR,
    S_DX_SUM,
    S_EMA_10,
    S_EMA_12,
    S_EMA_20,
    S_EMA_26,
    S_EMA_50,
    S_GAIN,
    S_LOSS,
    S_MINUS_DM,
    S_OBV,
    S_PLUS_DM,
    S_RESISTANCE,
    S_SIGNAL,
    S_SUPPORT,
    S_TRUE_RANGE,
    S_VPT,
    SMA_10,
    SMA_50,
    STRENGTH,
    SUPPORT_LEVEL,
    TOP_11,
    TREND_DIRECTION,
    TREND_STRENGTH,
    TRUE_RANGE,
    VOLUME,
    VPT,
    compiled,
)

if TYPE_CHECKING:
    import numpy.typing as npt

    Room = npt.NDArray[np.float64]
    State = npt.NDArray[np.float64]
    Place = Any  # An unsigned number; range makes an int of it for whoever checks types.

SEEDED = 64
"""From this candle on every recursion has begun; before it each asks whether it has."""

_KEPT, _ADDED = 13.0 / 14.0, 1.0 / 14.0  # Wilder's average of 14.
_OF_10, _OF_20, _OF_50, _OF_12, _OF_26, _OF_9 = 2.0 / 11.0, 2.0 / 21.0, 2.0 / 51.0, 2.0 / 13.0, 2.0 / 27.0, 0.2


@compiled
def _mean(w: Room, at: Place, length: int) -> float:
    # Relative to the newest close, as all averages are.
    now: float = w[CLOSE + at]
    total = 0.0
    for back in range(length):
        total += w[CLOSE + at - np.uint64(back)] - now
    return now + total / length


@compiled
def _begun_ema(previous: float, value: float, seed: float, weight: float, index: int, begins: int) -> float:
    if index < begins:
        return 0.0
    return seed if index == begins else (value - previous) * weight + previous


@compiled
def _begun_wilder(mean: float, value: float, index: int) -> float:
    # Candles 1 to 14 are summed, and 14 turns the sum into the first mean.
    if index < 14:
        return mean + value
    return (mean + value) / 14.0 if index == 14 else mean * _KEPT + value * _ADDED


@compiled
def _first_averages(w: Room, s: State, at: Place, index: int) -> None:
    now = w[CLOSE + at]
    s[S_EMA_10] = _begun_ema(s[S_EMA_10], now, w[SMA_10 + at], _OF_10, index, 9)
    s[S_EMA_20] = _begun_ema(s[S_EMA_20], now, w[BOLLINGER_MIDDLE + at], _OF_20, index, 19)
    s[S_EMA_50] = _begun_ema(s[S_EMA_50], now, w[SMA_50 + at], _OF_50, index, 49)
    # Both averages of MACD begin at candle 25, the fast one from the newest 12 closes, as in TA-Lib.
    s[S_EMA_12] = _begun_ema(s[S_EMA_12], now, _mean(w, at, 12), _OF_12, index, 25)
    s[S_EMA_26] = _begun_ema(s[S_EMA_26], now, _mean(w, at, 26), _OF_26, index, 25)
    macd = s[S_EMA_12] - s[S_EMA_26]
    if index < 33:
        s[S_SIGNAL] += macd
    elif index == 33:
        s[S_SIGNAL] = (s[S_SIGNAL] + macd) / 9.0
    else:
        s[S_SIGNAL] = (macd - s[S_SIGNAL]) * _OF_9 + s[S_SIGNAL]
    w[EMA_10 + at], w[EMA_20 + at], w[EMA_50 + at] = s[S_EMA_10], s[S_EMA_20], s[S_EMA_50]
    w[MACD + at], w[MACD_SIGNAL + at] = macd, s[S_SIGNAL]


@compiled
def _first_movements(w: Room, s: State, at: Place, index: int) -> None:
    if index == 0:
        s[S_OBV] = w[VOLUME + at]
    else:
        s[S_GAIN] = _begun_wilder(s[S_GAIN], w[GAIN + at], index)
        s[S_LOSS] = _begun_wilder(s[S_LOSS], w[LOSS + at], index)
        s[S_ATR] = _begun_wilder(s[S_ATR], w[TRUE_RANGE + at], index)
        kept = 1.0 if index < 14 else _KEPT
        s[S_PLUS_DM] = s[S_PLUS_DM] * kept + w[PLUS + at]
        s[S_MINUS_DM] = s[S_MINUS_DM] * kept + w[MINUS + at]
        s[S_TRUE_RANGE] = s[S_TRUE_RANGE] * kept + w[TRUE_RANGE + at]
        change = w[PRICE_CHANGE_1 + at]
        s[S_OBV] += w[VOLUME + at] if change > 0.0 else (-w[VOLUME + at] if change < 0.0 else 0.0)
        s[S_VPT] += w[VPT + at]
    if index >= 10:
        s[S_SUPPORT] = w[BOTTOM_11 + at] if w[LOW + at - B5] == w[BOTTOM_11 + at] else s[S_SUPPORT]
        s[S_RESISTANCE] = w[TOP_11 + at] if w[HIGH + at - B5] == w[TOP_11 + at] else s[S_RESISTANCE]
    w[GAIN + at], w[LOSS + at], w[ATR_14 + at] = s[S_GAIN], s[S_LOSS], s[S_ATR]
    w[PLUS + at], w[MINUS + at], w[RANGE_SUM + at] = s[S_PLUS_DM], s[S_MINUS_DM], s[S_TRUE_RANGE]
    w[OBV + at], w[VPT + at] = s[S_OBV], s[S_VPT]
    w[SUPPORT_LEVEL + at], w[RESISTANCE_LEVEL + at] = s[S_SUPPORT], s[S_RESISTANCE]


@compiled
def _averages(w: Room, s: State, begin: Place, end: Place) -> None:
    ema_10, ema_20, ema_50 = s[S_EMA_10], s[S_EMA_20], s[S_EMA_50]
    ema_12, ema_26, signal = s[S_EMA_12], s[S_EMA_26], s[S_SIGNAL]
    for at in range(begin, end):
        now = w[CLOSE + at]
        ema_10 = (now - ema_10) * _OF_10 + ema_10
        ema_20 = (now - ema_20) * _OF_20 + ema_20
        ema_50 = (now - ema_50) * _OF_50 + ema_50
        ema_12 = (now - ema_12) * _OF_12 + ema_12
        ema_26 = (now - ema_26) * _OF_26 + ema_26
        macd = ema_12 - ema_26
        signal = (macd - signal) * _OF_9 + signal
        w[EMA_10 + at], w[EMA_20 + at], w[EMA_50 + at] = ema_10, ema_20, ema_50
        w[MACD + at], w[MACD_SIGNAL + at] = macd, signal
    s[S_EMA_10], s[S_EMA_20], s[S_EMA_50] = ema_10, ema_20, ema_50
    s[S_EMA_12], s[S_EMA_26], s[S_SIGNAL] = ema_12, ema_26, signal


@compiled
def _movements(w: Room, s: State, begin: Place, end: Place) -> None:
    gain, loss, atr = s[S_GAIN], s[S_LOSS], s[S_ATR]
    plus, minus, total = s[S_PLUS_DM], s[S_MINUS_DM], s[S_TRUE_RANGE]
    for at in range(begin, end):
        true_range = w[TRUE_RANGE + at]
        gain = gain * _KEPT + w[GAIN + at] * _ADDED
        loss = loss * _KEPT + w[LOSS + at] * _ADDED
        atr = atr * _KEPT + true_range * _ADDED
        plus = plus * _KEPT + w[PLUS + at]
        minus = minus * _KEPT + w[MINUS + at]
        total = total * _KEPT + true_range
        w[GAIN + at], w[LOSS + at], w[ATR_14 + at] = gain, loss, atr
        w[PLUS + at], w[MINUS + at], w[RANGE_SUM + at] = plus, minus, total
    s[S_GAIN], s[S_LOSS], s[S_ATR] = gain, loss, atr
    s[S_PLUS_DM], s[S_MINUS_DM], s[S_TRUE_RANGE] = plus, minus, total


@compiled
def _totals(w: Room, s: State, begin: Place, end: Place) -> None:
    for at in range(begin, end):
        change, volume = w[PRICE_CHANGE_1 + at], w[VOLUME + at]
        w[OBV + at] = volume if change > 0.0 else (-volume if change < 0.0 else 0.0)
        w[SUPPORT_LEVEL + at] = w[BOTTOM_11 + at] if w[LOW + at - B5] == w[BOTTOM_11 + at] else 0.0
        w[RESISTANCE_LEVEL + at] = w[TOP_11 + at] if w[HIGH + at - B5] == w[TOP_11 + at] else 0.0
    obv, vpt, support, resistance = s[S_OBV], s[S_VPT], s[S_SUPPORT], s[S_RESISTANCE]
    for at in range(begin, end):
        obv += w[OBV + at]
        vpt += w[VPT + at]
        pivot_low, pivot_high = w[SUPPORT_LEVEL + at], w[RESISTANCE_LEVEL + at]
        support = pivot_low if pivot_low > 0.0 else support
        resistance = pivot_high if pivot_high > 0.0 else resistance
        w[OBV + at], w[VPT + at] = obv, vpt
        w[SUPPORT_LEVEL + at], w[RESISTANCE_LEVEL + at] = support, resistance
    s[S_OBV], s[S_VPT], s[S_SUPPORT], s[S_RESISTANCE] = obv, vpt, support, resistance


@compiled
def _ratios(w: Room, end: Place) -> None:
    for at in range(BEGIN, end):
        now = w[CLOSE + at]
        w[MACD_HISTOGRAM + at] = w[MACD + at] - w[MACD_SIGNAL + at]
        moved = w[GAIN + at] + w[LOSS + at]
        strength = 100.0 * w[GAIN + at] / moved
        w[RSI_14 + at] = strength if moved > FLAT * now else 0.0
        atr = w[ATR_14 + at]
        parted = abs(w[EMA_20 + at] - w[EMA_50 + at]) / atr
        w[TREND_STRENGTH + at] = parted if atr > FLAT * now else 0.0
        w[ATR_VOLATILITY_14 + at] = atr / now
    for at in range(BEGIN, end):
        flat = FLAT * w[CLOSE + at]
        moved = w[PLUS + at] + w[MINUS + at]
        balance = (w[PLUS + at] - w[MINUS + at]) / moved
        defined = (w[RANGE_SUM + at] > flat) & (moved > flat)
        balance = balance if defined else 0.0
        w[TREND_DIRECTION + at] = balance
        # Where there is no direction the average stays as it is: -1 says so.
        w[STRENGTH + at] = 100.0 * abs(balance) if defined else -1.0
        # No price is 0: 0 means that no pivot was seen yet.
        low, high = w[SUPPORT_LEVEL + at], w[RESISTANCE_LEVEL + at]
        w[SUPPORT_LEVEL + at] = low if low > 0.0 else w[BOTTOM_11 + at]
        w[RESISTANCE_LEVEL + at] = high if high > 0.0 else w[TOP_11 + at]


@compiled
def _strengths(w: Room, s: State, seen: int, end: Place) -> None:
    adx, index = s[S_ADX], seen
    for at in range(BEGIN, end):
        strength = w[STRENGTH + at]
        if index > 27:
            adx = adx * _KEPT + strength * _ADDED if strength >= 0.0 else adx
        elif index >= 14:
            s[S_DX_SUM] += max(strength, 0.0)
            adx = s[S_DX_SUM] / 14.0
        w[ADX_14 + at] = adx
        index += 1
    s[S_ADX] = adx


@compiled
def recursions(w: Room, s: State, seen: int, end: Place) -> None:
    """Fill what is carried from candle to candle; `seen` candles came before the block."""
    begin = BEGIN
    index = seen
    while index < SEEDED and begin < end:
        _first_averages(w, s, begin, index)
        _first_movements(w, s, begin, index)
        begin += B1
        index += 1
    _averages(w, s, begin, end)
    _movements(w, s, begin, end)
    _totals(w, s, begin, end)
    _ratios(w, end)
    _strengths(w, s, seen, end)
