"""The one compiled kernel: candles and state in, 49 features and state out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar

import numba
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

# Everything that is compiled stands in this file, constants too: a change of it makes kept machine code void.
# definition.py and native.py hold the same order and sizes for who does not compile; tests hold them together.
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
) = range(49)

TAIL = 64
STATE_SIZE = 24
INPUTS = 41

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

_FLAT = 1e-12  # Price units below this share of the price are rounding, not movement.
_TIE = 1e-13  # TA-Lib's rule for money flow, made relative: a smaller change of the typical price is none.
_BOUND = 20.0

_F = TypeVar("_F", bound="Callable[..., Any]")


def compiled(function: _F) -> _F:
    """
    Compile a function.

    Never fastmath: sums have one order, so that blocks of 256 candles and of one give the same bits. Without numba's
    runtime, too: nothing here allocates or raises, so that the machine code stands by itself.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": False, "_nrt": False}
    result: _F = numba.njit(**options)(function)
    return result


@compiled
def _sum(x: Floats, start: int, length: int, out: Floats) -> None:
    # Slices first, then plain indices: numba vectorises this form. The newest candle is added first, always.
    out[:] = 0.0
    for back in range(length):
        part = x[start - back : start - back + len(out)]
        for row in range(len(out)):
            out[row] += part[row]


@compiled
def _highest(x: Floats, start: int, length: int, out: Floats) -> None:
    for row in range(len(out)):
        out[row] = x[start + row]
    for back in range(1, length):
        part = x[start - back : start - back + len(out)]
        for row in range(len(out)):
            out[row] = max(out[row], part[row])


@compiled
def _lowest(x: Floats, start: int, length: int, out: Floats) -> None:
    for row in range(len(out)):
        out[row] = x[start + row]
    for back in range(1, length):
        part = x[start - back : start - back + len(out)]
        for row in range(len(out)):
            out[row] = min(out[row], part[row])


@compiled
def _squares(x: Floats, start: int, length: int, mean: Floats, out: Floats) -> None:
    out[:] = 0.0
    for back in range(length):
        part = x[start - back : start - back + len(out)]
        for row in range(len(out)):
            deviation = part[row] - mean[row]
            out[row] += deviation * deviation


@compiled
def _deviations(x: Floats, start: int, length: int, mean: Floats, out: Floats) -> None:
    out[:] = 0.0
    for back in range(length):
        part = x[start - back : start - back + len(out)]
        for row in range(len(out)):
            out[row] += abs(part[row] - mean[row])


@compiled
def _weighted(x: Floats, start: int, length: int, out: Floats) -> None:
    out[:] = 0.0
    for back in range(length):
        part = x[start - back : start - back + len(out)]
        weight = float(length - back)
        for row in range(len(out)):
            out[row] += weight * part[row]


@compiled
def _prices_and_returns(cols: Floats, bars: Floats, c: Floats) -> None:
    for row in range(len(bars)):
        at = TAIL + row
        for column in range(5):
            cols[OPEN + column, row] = bars[row, column]
        cols[PRICE_CHANGE_1, row] = c[at] - c[at - 1]
        cols[SIMPLE_RETURN_1, row] = c[at] / c[at - 1] - 1.0
        cols[SIMPLE_RETURN_3, row] = c[at] / c[at - 3] - 1.0
        cols[SIMPLE_RETURN_12, row] = c[at] / c[at - 12] - 1.0
        cols[LOG_RETURN_1, row] = math.log(c[at] / c[at - 1])
        cols[LOG_RETURN_6, row] = math.log(c[at] / c[at - 6])
        cols[LOG_RETURN_24, row] = math.log(c[at] / c[at - 24])
        cols[ROC_10, row] = (c[at] / c[at - 10] - 1.0) * 100.0
        cols[ROC_48, row] = (c[at] / c[at - 48] - 1.0) * 100.0


@compiled
def _averages(cols: Floats, c: Floats, v: Floats) -> None:
    _sum(c, TAIL, 10, cols[SMA_10])
    _sum(c, TAIL, 20, cols[BOLLINGER_MIDDLE])
    _sum(c, TAIL, 30, cols[SMA_30])
    _sum(c, TAIL, 50, cols[SMA_50])
    _weighted(c, TAIL, 20, cols[WMA_20])
    _sum(v, TAIL, 20, cols[VOLUME_SMA_20])
    for row in range(cols.shape[1]):
        cols[SMA_10, row] /= 10.0
        cols[BOLLINGER_MIDDLE, row] /= 20.0
        cols[SMA_30, row] /= 30.0
        cols[SMA_50, row] /= 50.0
        cols[WMA_20, row] /= 210.0
        cols[VOLUME_SMA_20, row] /= 20.0
        usual = cols[VOLUME_SMA_20, row]
        cols[VOLUME_RATIO_20, row] = v[TAIL + row] / usual if usual > 0.0 else 0.0


@compiled
def _bands(cols: Floats, c: Floats) -> None:
    _squares(c, TAIL, 20, cols[BOLLINGER_MIDDLE], cols[BOLLINGER_WIDTH_20])
    for row in range(cols.shape[1]):
        middle = cols[BOLLINGER_MIDDLE, row]
        spread = math.sqrt(cols[BOLLINGER_WIDTH_20, row] / 20.0)
        if spread <= _FLAT * middle:
            spread = 0.0
        cols[BOLLINGER_UPPER, row] = middle + 2.0 * spread
        cols[BOLLINGER_LOWER, row] = middle - 2.0 * spread
        cols[BOLLINGER_WIDTH_20, row] = 4.0 * spread / middle


@compiled
def _volatility(cols: Floats, r: Floats, mean: Floats, length: int, feature: int) -> None:
    _sum(r, TAIL, length, mean)
    for row in range(len(mean)):
        mean[row] /= float(length)
    _squares(r, TAIL, length, mean, cols[feature])
    for row in range(len(mean)):
        cols[feature, row] = math.sqrt(cols[feature, row] / float(length - 1))


@compiled
def _relative_momentum(cols: Floats, c: Floats) -> None:
    for row in range(cols.shape[1]):
        at = TAIL + row
        usual = cols[HISTORICAL_VOLATILITY_60, row]
        still = usual <= _FLAT
        cols[RELATIVE_MOMENTUM_12, row] = 0.0 if still else math.log(c[at] / c[at - 12]) / (usual * math.sqrt(12.0))
        cols[RELATIVE_MOMENTUM_48, row] = 0.0 if still else math.log(c[at] / c[at - 48]) / (usual * math.sqrt(48.0))


@compiled
def _ranges(cols: Floats, h: Floats, low: Floats, c: Floats, work: Floats) -> None:
    # Four earlier rows of the raw stochastic feed the two averages of three.
    rows = cols.shape[1]
    top, bottom, raw, slow = work[0], work[1], work[2], work[3]
    _highest(h, TAIL - 4, 14, top)
    _lowest(low, TAIL - 4, 14, bottom)
    for row in range(rows + 4):
        span = top[row] - bottom[row]
        raw[row] = 100.0 * (c[TAIL - 4 + row] - bottom[row]) / span if span > 0.0 else 0.0
    for row in range(rows + 2):
        slow[row] = (raw[row + 2] + raw[row + 1] + raw[row]) / 3.0
    for row in range(rows):
        cols[STOCHASTIC_K, row] = slow[row + 2]
        cols[STOCHASTIC_D, row] = (slow[row + 2] + slow[row + 1] + slow[row]) / 3.0
        span = top[row + 4] - bottom[row + 4]
        cols[WILLIAMS_R_14, row] = -100.0 * (top[row + 4] - c[TAIL + row]) / span if span > 0.0 else 0.0


@compiled
def _flows(cols: Floats, typical: Floats, rising: Floats, falling: Floats, work: Floats) -> None:
    rows = cols.shape[1]
    mean, other = work[0, :rows], work[1, :rows]
    _sum(typical, TAIL, 20, mean)
    for row in range(rows):
        mean[row] /= 20.0
    _deviations(typical, TAIL, 20, mean, other)
    for row in range(rows):
        deviation = other[row] / 20.0
        distance = typical[TAIL + row] - mean[row]
        flat = deviation <= _FLAT * mean[row]
        cols[CCI_20, row] = 0.0 if flat else distance / (0.015 * deviation)
    _sum(rising, TAIL, 14, mean)
    _sum(falling, TAIL, 14, other)
    for row in range(rows):
        moved = mean[row] + other[row]
        cols[MFI_14, row] = 100.0 * mean[row] / moved if moved > 0.0 else 0.0


@compiled
def _pivots(cols: Floats, seen: int, h: Floats, low: Floats, state: Floats, work: Floats) -> None:
    rows = cols.shape[1]
    bottom, top = work[0, :rows], work[1, :rows]
    _lowest(low, TAIL, 11, bottom)
    _highest(h, TAIL, 11, top)
    for row in range(rows):
        middle = TAIL + row - 5
        if seen + row >= 10:
            if low[middle] == bottom[row]:
                state[S_SUPPORT] = bottom[row]
            if h[middle] == top[row]:
                state[S_RESISTANCE] = top[row]
        # No price is 0: 0 means that no pivot was seen yet.
        cols[SUPPORT_LEVEL, row] = state[S_SUPPORT] if state[S_SUPPORT] > 0.0 else bottom[row]
        cols[RESISTANCE_LEVEL, row] = state[S_RESISTANCE] if state[S_RESISTANCE] > 0.0 else top[row]


@compiled
def _wilder(mean: float, value: float, index: int) -> float:
    # Candles 1 to 14 are summed, and 14 turns the sum into the first mean.
    if index < 14:
        return mean + value
    if index == 14:
        return (mean + value) / 14.0
    return (mean * 13.0 + value) / 14.0


@compiled
def _ema(previous: float, value: float, seed: float, length: int, index: int) -> float:
    if index < length - 1:
        return 0.0
    if index == length - 1:
        return seed
    return (value - previous) * (2.0 / (length + 1.0)) + previous


@compiled
def _mean_at(x: Floats, at: int, length: int) -> float:
    total = 0.0
    for back in range(length):
        total += x[at - back]
    return total / length


@compiled
def _macd(cols: Floats, seen: int, c: Floats, state: Floats) -> None:
    for row in range(cols.shape[1]):
        at, index = TAIL + row, seen + row
        # Both averages begin at candle 25, the fast one from the newest 12 closes, as in TA-Lib.
        if index < 25:
            continue
        if index == 25:
            state[S_EMA_12], state[S_EMA_26] = _mean_at(c, at, 12), _mean_at(c, at, 26)
        else:
            state[S_EMA_12] = (c[at] - state[S_EMA_12]) * (2.0 / 13.0) + state[S_EMA_12]
            state[S_EMA_26] = (c[at] - state[S_EMA_26]) * (2.0 / 27.0) + state[S_EMA_26]
        macd = state[S_EMA_12] - state[S_EMA_26]
        if index < 33:
            state[S_SIGNAL] += macd
        elif index == 33:
            state[S_SIGNAL] = (state[S_SIGNAL] + macd) / 9.0
        else:
            state[S_SIGNAL] = (macd - state[S_SIGNAL]) * 0.2 + state[S_SIGNAL]
        cols[MACD, row] = macd
        cols[MACD_SIGNAL, row] = state[S_SIGNAL]
        cols[MACD_HISTOGRAM, row] = macd - state[S_SIGNAL]


@compiled
def _direction(cols: Floats, seen: int, h: Floats, low: Floats, c: Floats, true_range: Floats, state: Floats) -> None:
    for row in range(cols.shape[1]):
        at, index = TAIL + row, seen + row
        if index == 0:
            continue
        up, down = h[at] - h[at - 1], low[at - 1] - low[at]
        plus = up if up > 0.0 and up > down else 0.0
        minus = down if down > 0.0 and up < down else 0.0
        if index < 14:
            state[S_PLUS_DM] += plus
            state[S_MINUS_DM] += minus
            state[S_TRUE_RANGE] += true_range[at]
        else:
            state[S_PLUS_DM] += plus - state[S_PLUS_DM] / 14.0
            state[S_MINUS_DM] += minus - state[S_MINUS_DM] / 14.0
            state[S_TRUE_RANGE] += true_range[at] - state[S_TRUE_RANGE] / 14.0
        moved = state[S_PLUS_DM] + state[S_MINUS_DM]
        defined = state[S_TRUE_RANGE] > _FLAT * c[at] and moved > _FLAT * c[at]
        balance = (state[S_PLUS_DM] - state[S_MINUS_DM]) / moved if defined else 0.0
        cols[TREND_DIRECTION, row] = balance
        strength = 100.0 * abs(balance)
        if 14 <= index <= 27:
            state[S_DX_SUM] += strength
            state[S_ADX] = state[S_DX_SUM] / 14.0
        elif index > 27 and defined:
            state[S_ADX] = (state[S_ADX] * 13.0 + strength) / 14.0
        cols[ADX_14, row] = state[S_ADX]


@compiled
def _recursions(cols: Floats, seen: int, c: Floats, v: Floats, true_range: Floats, state: Floats) -> None:
    for row in range(cols.shape[1]):
        at, index = TAIL + row, seen + row
        if index == 0:
            state[S_OBV] = v[at]
        else:
            change = c[at] - c[at - 1]
            state[S_GAIN] = _wilder(state[S_GAIN], max(change, 0.0), index)
            state[S_LOSS] = _wilder(state[S_LOSS], max(-change, 0.0), index)
            state[S_ATR] = _wilder(state[S_ATR], true_range[at], index)
            if change > 0.0:
                state[S_OBV] += v[at]
            elif change < 0.0:
                state[S_OBV] -= v[at]
            state[S_VPT] += v[at] * (c[at] / c[at - 1] - 1.0)
        state[S_EMA_10] = _ema(state[S_EMA_10], c[at], cols[SMA_10, row], 10, index)
        state[S_EMA_20] = _ema(state[S_EMA_20], c[at], cols[BOLLINGER_MIDDLE, row], 20, index)
        state[S_EMA_50] = _ema(state[S_EMA_50], c[at], cols[SMA_50, row], 50, index)
        moved = state[S_GAIN] + state[S_LOSS]
        cols[RSI_14, row] = 100.0 * state[S_GAIN] / moved if moved > _FLAT * c[at] else 0.0
        cols[ATR_14, row] = state[S_ATR]
        cols[ATR_VOLATILITY_14, row] = state[S_ATR] / c[at]
        cols[OBV, row] = state[S_OBV]
        cols[VPT, row] = state[S_VPT]
        cols[EMA_10, row] = state[S_EMA_10]
        cols[EMA_20, row] = state[S_EMA_20]
        cols[EMA_50, row] = state[S_EMA_50]
        parted = abs(state[S_EMA_20] - state[S_EMA_50])
        cols[TREND_STRENGTH, row] = parted / state[S_ATR] if state[S_ATR] > _FLAT * c[at] else 0.0


@compiled
def _join(tail: Floats, bars: Floats, joined: Floats) -> None:
    for column in range(5):
        for at in range(TAIL):
            joined[column, at] = tail[at, column]
        for row in range(len(bars)):
            joined[column, TAIL + row] = bars[row, column]


@compiled
def _per_candle(joined: Floats, begin: int, series: Floats) -> None:
    size = joined.shape[1]
    h, low, c, v = joined[1], joined[2], joined[3], joined[4]
    returns, typical, true_range, rising, falling = series[0], series[1], series[2], series[3], series[4]
    series[:] = 0.0
    for at in range(begin, size):
        typical[at] = (h[at] + low[at] + c[at]) / 3.0
    for at in range(begin + 1, size):
        returns[at] = math.log(c[at] / c[at - 1])
        true_range[at] = max(h[at] - low[at], abs(h[at] - c[at - 1]), abs(low[at] - c[at - 1]))
        moved = typical[at] - typical[at - 1]
        if moved > _TIE * typical[at]:
            rising[at] = typical[at] * v[at]
        elif moved < -_TIE * typical[at]:
            falling[at] = typical[at] * v[at]


@compiled
def advance(
    seen: int,
    bars: Floats,
    tail: Floats,
    state: Floats,
    warm_up: npt.NDArray[np.int64],
    joined: Floats,
    series: Floats,
    cols: Floats,
    work: Floats,
    out: Floats,
) -> None:
    """
    Compute the features of the next candles of one series.

    Args:
        seen: Candles of this series so far.
        bars: The next candles [k, 5]; any k gives the same bits.
        tail: The 64 candles before them [64, 5], zeros where there were none; moved forward in place.
        state: What the recursions carry [STATE_SIZE], zeros at the start; moved forward in place.
        warm_up: Candles without a value at the start of a series, by feature [49].
        joined: Room for tail and candles by column [5, 64 + k]; nothing is allocated here, and nothing raises.
        series: Room for what is computed per candle [5, 64 + k].
        cols: Room for the features by column [49, k].
        work: Room for sums [4, k + 4].
        out: The features [k, 49]; NaN during warm-up.
    """
    rows = len(bars)
    _join(tail, bars, joined)
    h, low, c, v = joined[1], joined[2], joined[3], joined[4]
    _per_candle(joined, TAIL - min(seen, TAIL), series)
    returns, typical, true_range, rising, falling = series[0], series[1], series[2], series[3], series[4]
    cols[:] = 0.0
    _prices_and_returns(cols, bars, c)
    _averages(cols, c, v)
    _bands(cols, c)
    mean = work[0, :rows]
    _volatility(cols, returns, mean, 20, HISTORICAL_VOLATILITY_20)
    _volatility(cols, returns, mean, 60, HISTORICAL_VOLATILITY_60)
    _relative_momentum(cols, c)
    _ranges(cols, h, low, c, work)
    _flows(cols, typical, rising, falling, work)
    _pivots(cols, seen, h, low, state, work)
    _macd(cols, seen, c, state)
    _direction(cols, seen, h, low, c, true_range, state)
    _recursions(cols, seen, c, v, true_range, state)
    for row in range(rows):
        for feature in range(49):
            out[row, feature] = cols[feature, row] if seen + row >= warm_up[feature] else np.nan
    for at in range(TAIL):
        for column in range(5):
            tail[at, column] = joined[column, rows + at]


@compiled
def _log_ratio(above: float, below: float) -> float:
    return math.log(above / below)


@compiled
def _bounded(value: float) -> float:
    return min(max(value, -_BOUND), _BOUND) if value == value else value  # noqa: PLR0124  # NaN is not itself


@compiled
def compute_inputs(features: Floats, row_out: Floats, out: npt.NDArray[np.float32]) -> None:
    """Turn rows of features [n, 49] into model inputs [n, INPUTS], each row by itself; `row_out` is room [INPUTS]."""
    for row in range(len(features)):
        f = features[row]
        c, atr, hv_20, hv_60 = f[CLOSE], f[ATR_14], f[HISTORICAL_VOLATILITY_20], f[HISTORICAL_VOLATILITY_60]
        per_atr = 0.0 if atr <= _FLAT * c else 1.0 / atr
        band = f[BOLLINGER_UPPER] - f[BOLLINGER_LOWER]
        row_out[0] = _log_ratio(c, f[OPEN])
        row_out[1] = _log_ratio(f[HIGH], max(f[OPEN], c))
        row_out[2] = _log_ratio(min(f[OPEN], c), f[LOW])
        row_out[3] = f[PRICE_CHANGE_1] * per_atr
        row_out[4] = f[LOG_RETURN_1]
        row_out[5] = math.log(1.0 + f[SIMPLE_RETURN_3])
        row_out[6] = f[LOG_RETURN_6]
        row_out[7] = math.log(1.0 + f[ROC_10] / 100.0)
        row_out[8] = math.log(1.0 + f[SIMPLE_RETURN_12])
        row_out[9] = f[LOG_RETURN_24]
        row_out[10] = math.log(1.0 + f[ROC_48] / 100.0)
        row_out[11] = f[RSI_14] / 50.0 - 1.0
        row_out[12] = f[MACD] * per_atr
        row_out[13] = f[MACD_SIGNAL] * per_atr
        row_out[14] = f[MACD_HISTOGRAM] * per_atr
        row_out[15] = 2.0 * (c - f[BOLLINGER_MIDDLE]) / band if band != 0.0 else 0.0
        row_out[16] = f[BOLLINGER_WIDTH_20]
        row_out[17] = f[STOCHASTIC_K] / 50.0 - 1.0
        row_out[18] = f[STOCHASTIC_D] / 50.0 - 1.0
        row_out[19] = f[ADX_14] / 50.0 - 1.0
        row_out[20] = _log_ratio(c, f[SMA_10])
        row_out[21] = _log_ratio(c, f[SMA_30])
        row_out[22] = _log_ratio(c, f[SMA_50])
        row_out[23] = _log_ratio(c, f[EMA_10])
        row_out[24] = _log_ratio(c, f[EMA_20])
        row_out[25] = _log_ratio(c, f[EMA_50])
        row_out[26] = _log_ratio(c, f[WMA_20])
        row_out[27] = math.log(1.0 + f[VOLUME_RATIO_20])
        row_out[28] = hv_20
        row_out[29] = hv_60
        row_out[30] = (hv_20 - hv_60) / (hv_20 + hv_60) if hv_20 + hv_60 != 0.0 else 0.0
        row_out[31] = f[ATR_VOLATILITY_14]
        row_out[32] = f[TREND_STRENGTH] * np.sign(f[EMA_20] - f[EMA_50])
        row_out[33] = f[TREND_DIRECTION]
        row_out[34] = _log_ratio(c, f[SUPPORT_LEVEL])
        row_out[35] = _log_ratio(f[RESISTANCE_LEVEL], c)
        row_out[36] = f[CCI_20] / 200.0
        row_out[37] = f[WILLIAMS_R_14] / 50.0 + 1.0
        row_out[38] = f[MFI_14] / 50.0 - 1.0
        row_out[39] = f[RELATIVE_MOMENTUM_12]
        row_out[40] = f[RELATIVE_MOMENTUM_48]
        for column in range(INPUTS):
            out[row, column] = _bounded(row_out[column])
