"""Compiled: returns, volumes, ranges and flows, put together from windows of 2, 4, 8, 16 and 32 candles."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from feature_store.features.layout import (
    B1,
    B2,
    B3,
    B4,
    B5,
    B6,
    B8,
    B10,
    B12,
    B16,
    B32,
    B48,
    B56,
    BEGIN,
    BOTTOM_11,
    CLOSE,
    FALLING,
    FALLING_2,
    FALLING_4,
    FALLING_8,
    FLAT,
    GAIN,
    HIGH,
    HIGHEST_2,
    HIGHEST_4,
    HIGHEST_8,
    HISTORICAL_VOLATILITY_20,
    HISTORICAL_VOLATILITY_60,
    INVERSE,
    LOG_RETURN_1,
    LOG_RETURN_6,
    LOG_RETURN_24,
    LOSS,
    LOW,
    LOWEST_2,
    LOWEST_4,
    LOWEST_8,
    MFI_14,
    MINUS,
    PLUS,
    PRICE_CHANGE_1,
    RAW_STOCHASTIC,
    RELATIVE_MOMENTUM_12,
    RELATIVE_MOMENTUM_48,
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
    RISING,
    RISING_2,
    RISING_4,
    RISING_8,
    ROC_10,
    ROC_48,
    SIMPLE_RETURN_1,
    SIMPLE_RETURN_3,
    SIMPLE_RETURN_12,
    SLOW_STOCHASTIC,
    STOCHASTIC_D,
    STOCHASTIC_K,
    TIE,
    TOP_11,
    TRUE_RANGE,
    VOLUME,
    VOLUME_2,
    VOLUME_4,
    VOLUME_8,
    VOLUME_16,
    VOLUME_RATIO_20,
    VOLUME_SMA_20,
    VPT,
    WILLIAMS_R_14,
    compiled,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Room = npt.NDArray[np.float64]
    Place = Any  # An unsigned number; range makes an int of it for whoever checks types.

# In all that follows `w` is the room, and `at` runs over the places of a block; `low` is where rows of the tail have
# to be made first: 0 where a block begins from a tail, and the block's own beginning where it follows another.

_NEAR = 0.1  # Up to here the series of atanh is good to the last bit.
_SQRT_12, _SQRT_48 = math.sqrt(12.0), math.sqrt(48.0)


@compiled
def log_returns(w: Room, low: Place, end: Place) -> None:
    """Fill LOG_RETURN_1: ln(a / b) = 2 atanh((a - b) / (a + b)), which does not round a / b first."""
    far = 0
    for at in range(max(low, B5), end):
        now, then = w[CLOSE + at], w[CLOSE + at - B1]
        x = (now - then) / (now + then)
        z = x * x
        tail = 1.0 / 15.0 + z * (1.0 / 17.0)
        tail = 1.0 / 11.0 + z * (1.0 / 13.0 + z * tail)
        tail = 1.0 / 3.0 + z * (1.0 / 5.0 + z * (1.0 / 7.0 + z * (1.0 / 9.0 + z * tail)))
        w[LOG_RETURN_1 + at] = 2.0 * x + 2.0 * x * (z * tail)
        far += 1 if abs(x) > _NEAR else 0
    if far > 0:
        for at in range(max(low, B5), end):
            now, then = w[CLOSE + at], w[CLOSE + at - B1]
            if abs((now - then) / (now + then)) > _NEAR:
                w[LOG_RETURN_1 + at] = math.log(now / then)


@compiled
def price_returns(w: Room, low: Place, end: Place) -> None:
    """Fill simple returns: the exact difference of two prices times the inverse of the older."""
    for at in range(max(low, B16), end):
        w[INVERSE + at] = 1.0 / w[CLOSE + at]
    for at in range(BEGIN, end):
        now = w[CLOSE + at]
        change = now - w[CLOSE + at - B1]
        ratio = change * w[INVERSE + at - B1]
        w[PRICE_CHANGE_1 + at] = change
        w[SIMPLE_RETURN_1 + at] = ratio
        w[SIMPLE_RETURN_3 + at] = (now - w[CLOSE + at - B3]) * w[INVERSE + at - B3]
        w[SIMPLE_RETURN_12 + at] = (now - w[CLOSE + at - B12]) * w[INVERSE + at - B12]
        w[ROC_10 + at] = (now - w[CLOSE + at - B10]) * w[INVERSE + at - B10] * 100.0
        w[ROC_48 + at] = (now - w[CLOSE + at - B48]) * w[INVERSE + at - B48] * 100.0
        w[VPT + at] = w[VOLUME + at] * ratio
        w[GAIN + at] = max(change, 0.0)
        w[LOSS + at] = max(-change, 0.0)


@compiled
def returns(w: Room, low: Place, end: Place) -> None:
    """Fill what is made of log returns: sums and squared deviations of 2, 4, … 32, joined as Chan et al. do."""
    for at in range(max(low, B6), end):
        a, b = w[LOG_RETURN_1 + at], w[LOG_RETURN_1 + at - B1]
        w[RETURN_2 + at] = a + b
        w[RETURN_SPREAD_2 + at] = (a - b) * (a - b) * 0.5
    for at in range(max(low, B8), end):
        a, b = w[RETURN_2 + at], w[RETURN_2 + at - B2]
        w[RETURN_4 + at] = a + b
        w[RETURN_SPREAD_4 + at] = (w[RETURN_SPREAD_2 + at] + w[RETURN_SPREAD_2 + at - B2]) + (a - b) * (a - b) * 0.25
    for at in range(max(low, B16), end):
        a, b = w[RETURN_4 + at], w[RETURN_4 + at - B4]
        w[RETURN_8 + at] = a + b
        w[RETURN_SPREAD_8 + at] = (w[RETURN_SPREAD_4 + at] + w[RETURN_SPREAD_4 + at - B4]) + (a - b) * (a - b) * 0.125
    for at in range(max(low, B32), end):
        a, b = w[RETURN_8 + at], w[RETURN_8 + at - B8]
        w[RETURN_16 + at] = a + b
        w[RETURN_SPREAD_16 + at] = (w[RETURN_SPREAD_8 + at] + w[RETURN_SPREAD_8 + at - B8]) + (a - b) * (a - b) * 0.0625
    for at in range(BEGIN, end):
        a, b = w[RETURN_16 + at], w[RETURN_16 + at - B16]
        w[RETURN_32 + at] = a + b
        w[RETURN_SPREAD_32 + at] = (w[RETURN_SPREAD_16 + at] + w[RETURN_SPREAD_16 + at - B16]) + (a - b) * (
            a - b
        ) * 0.03125
        w[LOG_RETURN_6 + at] = w[RETURN_4 + at] + w[RETURN_2 + at - B4]
        w[LOG_RETURN_24 + at] = a + w[RETURN_8 + at - B16]


@compiled
def volatilities(w: Room, end: Place) -> None:
    """Fill both volatilities: 20 candles are 16 and 4, 60 are 32, 16, 8 and 4."""
    for at in range(BEGIN, end):
        apart = w[RETURN_16 + at] - 4.0 * w[RETURN_4 + at - B16]
        spread = (w[RETURN_SPREAD_16 + at] + w[RETURN_SPREAD_4 + at - B16]) + apart * apart * (1.0 / 80.0)
        w[HISTORICAL_VOLATILITY_20 + at] = math.sqrt(spread * (1.0 / 19.0))
    for at in range(BEGIN, end):
        total, part = w[RETURN_32 + at], w[RETURN_16 + at - B32]
        apart = total - 2.0 * part
        spread = (w[RETURN_SPREAD_32 + at] + w[RETURN_SPREAD_16 + at - B32]) + apart * apart * (1.0 / 96.0)
        total, part = total + part, w[RETURN_8 + at - B48]
        apart = total - 6.0 * part
        spread = (spread + w[RETURN_SPREAD_8 + at - B48]) + apart * apart * (1.0 / 336.0)
        total, part = total + part, w[RETURN_4 + at - B56]
        apart = total - 14.0 * part
        spread = (spread + w[RETURN_SPREAD_4 + at - B56]) + apart * apart * (1.0 / 840.0)
        usual = math.sqrt(spread * (1.0 / 59.0))
        per_usual = 1.0 / usual
        moved_12 = (w[RETURN_8 + at] + w[RETURN_4 + at - B8]) * (1.0 / _SQRT_12)
        moved_48 = (w[RETURN_32 + at] + w[RETURN_16 + at - B32]) * (1.0 / _SQRT_48)
        w[HISTORICAL_VOLATILITY_60 + at] = usual
        w[RELATIVE_MOMENTUM_12 + at] = moved_12 * per_usual if usual > FLAT else 0.0
        w[RELATIVE_MOMENTUM_48 + at] = moved_48 * per_usual if usual > FLAT else 0.0


@compiled
def volumes(w: Room, low: Place, end: Place) -> None:
    """Fill the average volume and the newest volume's ratio to it."""
    for at in range(max(low, B48 - B2), end):
        w[VOLUME_2 + at] = w[VOLUME + at] + w[VOLUME + at - B1]
    for at in range(max(low, B48), end):
        w[VOLUME_4 + at] = w[VOLUME_2 + at] + w[VOLUME_2 + at - B2]
    for at in range(max(low, B56), end):
        w[VOLUME_8 + at] = w[VOLUME_4 + at] + w[VOLUME_4 + at - B4]
    for at in range(BEGIN, end):
        w[VOLUME_16 + at] = w[VOLUME_8 + at] + w[VOLUME_8 + at - B8]
        usual = (w[VOLUME_16 + at] + w[VOLUME_4 + at - B16]) * 0.05
        ratio = w[VOLUME + at] / usual
        w[VOLUME_SMA_20 + at] = usual
        w[VOLUME_RATIO_20 + at] = ratio if usual > 0.0 else 0.0


@compiled
def ranges(w: Room, low: Place, end: Place) -> None:
    """Fill the stochastic, Williams' range and the extremes of 11 candles."""
    for at in range(max(low, B48), end):
        w[HIGHEST_2 + at] = max(w[HIGH + at], w[HIGH + at - B1])
        w[LOWEST_2 + at] = min(w[LOW + at], w[LOW + at - B1])
    for at in range(max(low, B48 + B2), end):
        w[HIGHEST_4 + at] = max(w[HIGHEST_2 + at], w[HIGHEST_2 + at - B2])
        w[LOWEST_4 + at] = min(w[LOWEST_2 + at], w[LOWEST_2 + at - B2])
    for at in range(max(low, B48 + B6), end):
        w[HIGHEST_8 + at] = max(w[HIGHEST_4 + at], w[HIGHEST_4 + at - B4])
        w[LOWEST_8 + at] = min(w[LOWEST_4 + at], w[LOWEST_4 + at - B4])
    for at in range(max(low, BEGIN - B4), end):
        top = max(w[HIGHEST_8 + at], w[HIGHEST_8 + at - B6])
        bottom = min(w[LOWEST_8 + at], w[LOWEST_8 + at - B6])
        now = w[CLOSE + at]
        per_span = 100.0 / (top - bottom)
        w[RAW_STOCHASTIC + at] = (now - bottom) * per_span if top > bottom else 0.0
        w[WILLIAMS_R_14 + at] = (now - top) * per_span if top > bottom else 0.0
    for at in range(max(low, BEGIN - B2), end):
        total = (w[RAW_STOCHASTIC + at] + w[RAW_STOCHASTIC + at - B1]) + w[RAW_STOCHASTIC + at - B2]
        w[SLOW_STOCHASTIC + at] = total * (1.0 / 3.0)
    for at in range(BEGIN, end):
        total = (w[SLOW_STOCHASTIC + at] + w[SLOW_STOCHASTIC + at - B1]) + w[SLOW_STOCHASTIC + at - B2]
        w[STOCHASTIC_K + at] = w[SLOW_STOCHASTIC + at]
        w[STOCHASTIC_D + at] = total * (1.0 / 3.0)
        w[TOP_11 + at] = max(w[HIGHEST_8 + at], w[HIGHEST_8 + at - B3])
        w[BOTTOM_11 + at] = min(w[LOWEST_8 + at], w[LOWEST_8 + at - B3])


@compiled
def movements(w: Room, end: Place) -> None:
    """Fill the true range and Wilder's directional movements."""
    for at in range(BEGIN, end):
        top, bottom, before = w[HIGH + at], w[LOW + at], w[CLOSE + at - B1]
        up, down = top - w[HIGH + at - B1], w[LOW + at - B1] - bottom
        w[TRUE_RANGE + at] = max(max(top - bottom, abs(top - before)), abs(bottom - before))  # noqa: PLW3301 - compiled
        w[PLUS + at] = up if (up > 0.0) & (up > down) else 0.0
        w[MINUS + at] = down if (down > 0.0) & (up < down) else 0.0


@compiled
def flows(w: Room, low: Place, end: Place) -> None:
    """Fill the money flow index."""
    for at in range(max(low, B48 + B3), end):
        typical = (w[HIGH + at] + w[LOW + at] + w[CLOSE + at]) * (1.0 / 3.0)
        moved = typical - (w[HIGH + at - B1] + w[LOW + at - B1] + w[CLOSE + at - B1]) * (1.0 / 3.0)
        flow = typical * w[VOLUME + at]
        w[RISING + at] = flow if moved > TIE * typical else 0.0
        w[FALLING + at] = flow if moved < -TIE * typical else 0.0
    for at in range(max(low, B48 + B4), end):
        w[RISING_2 + at] = w[RISING + at] + w[RISING + at - B1]
        w[FALLING_2 + at] = w[FALLING + at] + w[FALLING + at - B1]
    for at in range(max(low, B48 + B6), end):
        w[RISING_4 + at] = w[RISING_2 + at] + w[RISING_2 + at - B2]
        w[FALLING_4 + at] = w[FALLING_2 + at] + w[FALLING_2 + at - B2]
    for at in range(max(low, B48 + B10), end):
        w[RISING_8 + at] = w[RISING_4 + at] + w[RISING_4 + at - B4]
        w[FALLING_8 + at] = w[FALLING_4 + at] + w[FALLING_4 + at - B4]
    for at in range(BEGIN, end):
        rising = w[RISING_8 + at] + (w[RISING_4 + at - B8] + w[RISING_2 + at - B12])
        falling = w[FALLING_8 + at] + (w[FALLING_4 + at - B8] + w[FALLING_2 + at - B12])
        index = 100.0 * rising / (rising + falling)
        w[MFI_14 + at] = index if rising + falling > 0.0 else 0.0
