"""Compiled: averages of closes, the bands around them, and CCI, all from differences of prices."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from feature_store.features.layout import (
    APART_2,
    APART_4,
    APART_8,
    APART_16,
    APART_20,
    B1,
    B2,
    B3,
    B4,
    B5,
    B6,
    B7,
    B8,
    B9,
    B10,
    B11,
    B12,
    B13,
    B14,
    B15,
    B16,
    B17,
    B18,
    B19,
    B24,
    B28,
    B32,
    B48,
    B56,
    BEGIN,
    BOLLINGER_LOWER,
    BOLLINGER_MIDDLE,
    BOLLINGER_UPPER,
    BOLLINGER_WIDTH_20,
    CCI_20,
    CLOSE,
    FLAT,
    HIGH,
    LOW,
    OFFSET,
    OFFSET_2,
    OFFSET_4,
    OFFSET_8,
    OFFSET_16,
    SMA_10,
    SMA_30,
    SMA_50,
    SPREAD_2,
    SPREAD_4,
    SPREAD_8,
    SPREAD_16,
    WEIGHED_4,
    WEIGHED_8,
    WEIGHED_16,
    WMA_20,
    compiled,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Room = npt.NDArray[np.float64]
    Place = Any  # An unsigned number; range makes an int of it for whoever checks types.

# `w`, `at` and `low` are what they are in windows.py.


@compiled
def closes(w: Room, low: Place, end: Place) -> None:
    """
    Fill sums, weighted sums and squared deviations of closes, each of them relative to the newest close.

    Two closes are subtracted without rounding, so that a quiet market costs no digits, and one that stands still
    gives averages that are the price itself.
    """
    for at in range(max(low, B16), end):
        older = w[CLOSE + at - B1] - w[CLOSE + at]
        w[APART_2 + at] = older
        w[SPREAD_2 + at] = older * older * 0.5
    for at in range(max(low, B16 + B4), end):
        step, newer = w[CLOSE + at - B2] - w[CLOSE + at], w[APART_2 + at]
        older = w[APART_2 + at - B2] + 2.0 * step
        w[APART_4 + at] = newer + older
        w[SPREAD_4 + at] = (w[SPREAD_2 + at] + w[SPREAD_2 + at - B2]) + (newer - older) * (newer - older) * 0.25
        w[WEIGHED_4 + at] = 3.0 * newer + (w[APART_2 + at - B2] + 3.0 * step)
    for at in range(max(low, B24), end):
        step, newer = w[CLOSE + at - B4] - w[CLOSE + at], w[APART_4 + at]
        older = w[APART_4 + at - B4] + 4.0 * step
        w[APART_8 + at] = newer + older
        w[SPREAD_8 + at] = (w[SPREAD_4 + at] + w[SPREAD_4 + at - B4]) + (newer - older) * (newer - older) * 0.125
        w[WEIGHED_8 + at] = (w[WEIGHED_4 + at] + 4.0 * newer) + (w[WEIGHED_4 + at - B4] + 10.0 * step)
    for at in range(max(low, B32), end):
        step, newer = w[CLOSE + at - B8] - w[CLOSE + at], w[APART_8 + at]
        older = w[APART_8 + at - B8] + 8.0 * step
        w[APART_16 + at] = newer + older
        w[SPREAD_16 + at] = (w[SPREAD_8 + at] + w[SPREAD_8 + at - B8]) + (newer - older) * (newer - older) * 0.0625
        w[WEIGHED_16 + at] = (w[WEIGHED_8 + at] + 8.0 * newer) + (w[WEIGHED_8 + at - B8] + 36.0 * step)


@compiled
def averages(w: Room, end: Place) -> None:
    """Fill simple and weighted averages and the bands: 10 candles are 8 and 2, 20 are 16 and 4, and so on."""
    for at in range(BEGIN, end):
        now = w[CLOSE + at]
        step = w[CLOSE + at - B16] - now
        older = w[APART_4 + at - B16] + 4.0 * step
        apart = w[APART_16 + at] - 4.0 * older
        total = w[APART_16 + at] + older
        middle = now + total * 0.05
        spread = (w[SPREAD_16 + at] + w[SPREAD_4 + at - B16]) + apart * apart * (1.0 / 80.0)
        band = math.sqrt(spread * 0.05)
        band = 2.0 * band if band > FLAT * middle else 0.0
        w[APART_20 + at] = total
        w[BOLLINGER_MIDDLE + at] = middle
        w[BOLLINGER_UPPER + at] = middle + band
        w[BOLLINGER_LOWER + at] = middle - band
        w[BOLLINGER_WIDTH_20 + at] = 2.0 * band / middle
        weighed = (w[WEIGHED_16 + at] + 4.0 * w[APART_16 + at]) + (w[WEIGHED_4 + at - B16] + 10.0 * step)
        w[WMA_20 + at] = now + weighed * (1.0 / 210.0)
    for at in range(BEGIN, end):
        now = w[CLOSE + at]
        total_10 = w[APART_8 + at] + (w[APART_2 + at - B8] + 2.0 * (w[CLOSE + at - B8] - now))
        older = w[APART_8 + at - B16] + 8.0 * (w[CLOSE + at - B16] - now)
        oldest = w[APART_4 + at - B24] + 4.0 * (w[CLOSE + at - B24] - now)
        oldest += w[APART_2 + at - B28] + 2.0 * (w[CLOSE + at - B28] - now)
        w[SMA_10 + at] = now + total_10 * 0.1
        w[SMA_30 + at] = now + ((w[APART_16 + at] + older) + oldest) * (1.0 / 30.0)
    for at in range(BEGIN, end):
        now = w[CLOSE + at]
        total = w[APART_16 + at] + (w[APART_16 + at - B16] + 16.0 * (w[CLOSE + at - B16] - now))
        older = w[APART_16 + at - B32] + 16.0 * (w[CLOSE + at - B32] - now)
        oldest = w[APART_2 + at - B48] + 2.0 * (w[CLOSE + at - B48] - now)
        w[SMA_50 + at] = now + ((total + older) + oldest) * 0.02


@compiled
def _beside(w: Room, at: Place, back: Place, now: float, middle: float) -> float:
    # Typical price then less the mean one. Close and offset are subtracted apart: a sum of the two would be rounded at
    # the size of the price, and CCI divides by movements that can be millions of times smaller.
    apart: float = (w[CLOSE + at - back] - now) + (w[OFFSET + at - back] - middle)
    return abs(apart)


@compiled
def channel(w: Room, low: Place, end: Place) -> None:
    """Fill CCI: typical prices less the newest one, their mean, and how far each is from it."""
    for at in range(max(low, B48 - B4), end):
        now = w[CLOSE + at]
        w[OFFSET + at] = ((w[HIGH + at] - now) + (w[LOW + at] - now)) * (1.0 / 3.0)
    for at in range(max(low, B48 - B2), end):
        w[OFFSET_2 + at] = w[OFFSET + at] + w[OFFSET + at - B1]
    for at in range(max(low, B48), end):
        w[OFFSET_4 + at] = w[OFFSET_2 + at] + w[OFFSET_2 + at - B2]
    for at in range(max(low, B56), end):
        w[OFFSET_8 + at] = w[OFFSET_4 + at] + w[OFFSET_4 + at - B4]
    for at in range(BEGIN, end):
        w[OFFSET_16 + at] = w[OFFSET_8 + at] + w[OFFSET_8 + at - B8]
    for at in range(BEGIN, end):
        now, offset = w[CLOSE + at], w[OFFSET + at]
        total = w[APART_20 + at] + ((w[OFFSET_16 + at] + w[OFFSET_4 + at - B16]) - 20.0 * offset)
        mean = total * 0.05
        x = offset + mean
        apart = abs(mean) + _beside(w, at, B1, now, x)
        apart += _beside(w, at, B2, now, x) + _beside(w, at, B3, now, x)
        apart += _beside(w, at, B4, now, x) + _beside(w, at, B5, now, x)
        apart += _beside(w, at, B6, now, x) + _beside(w, at, B7, now, x)
        apart += _beside(w, at, B8, now, x) + _beside(w, at, B9, now, x)
        apart += _beside(w, at, B10, now, x) + _beside(w, at, B11, now, x)
        apart += _beside(w, at, B12, now, x) + _beside(w, at, B13, now, x)
        apart += _beside(w, at, B14, now, x) + _beside(w, at, B15, now, x)
        apart += _beside(w, at, B16, now, x) + _beside(w, at, B17, now, x)
        apart += _beside(w, at, B18, now, x) + _beside(w, at, B19, now, x)
        deviation = apart * 0.05
        index = -mean / (0.015 * deviation)
        w[CCI_20 + at] = index if deviation > FLAT * now else 0.0
