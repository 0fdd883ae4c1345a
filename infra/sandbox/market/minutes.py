"""The prices inside larger candles, where candles of a minute were recorded as well."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from infra.sandbox.engine import path
from infra.sandbox.market.series import MINUTE_MS, TICK_MS, Candles, Ints

TICKS_PER_MINUTE = MINUTE_MS // TICK_MS


def paths(candles: Candles, count: int) -> Ints:
    """
    Return the ticks of each candle, one column per candle, of which only four prices are known.

    The extreme nearer to the open comes first, with straight lines between.
    """
    rises_first = path.up_first(candles.open, candles.high, candles.low)
    first = np.where(rises_first, candles.high, candles.low)
    second = np.where(rises_first, candles.low, candles.high)
    reached = (0, *path.corners(count))
    prices = (candles.open, first, second, candles.close)
    found = np.empty((count, len(candles)), np.int64)
    for start, end, begins, ends in zip(prices[:-1], prices[1:], reached[:-1], reached[1:], strict=True):
        steps = np.arange(begins, ends + 1)[:, None] - begins
        found[begins : ends + 1] = path.between(start[None, :], end[None, :], steps, ends - begins)
    return found


def agreeing(candles: Candles, minutes: Candles, length_ms: int) -> tuple[npt.NDArray[np.bool_], Ints]:
    """
    Say which candles are made of recorded minutes, and in which rows each of those begins.

    All minutes of a candle have to be there, and their first, highest, lowest and last prices to be its own: minutes
    of another venue, or with a hole, tell nothing of it.
    """
    parts = length_ms // MINUTE_MS
    begins = np.searchsorted(minutes.open_time, candles.open_time)
    whole = begins + parts <= len(minutes)
    rows = np.where(whole, begins, 0)[:, None] + np.arange(parts)[None, :]
    if not len(minutes) or not len(candles):
        return np.zeros(len(candles), bool), rows
    wanted = candles.open_time[:, None] + MINUTE_MS * np.arange(parts)[None, :]
    agrees = (
        whole
        & (minutes.open_time[rows % len(minutes)] == wanted).all(axis=1)
        & (minutes.open[rows[:, 0] % len(minutes)] == candles.open)
        & (minutes.high[rows % len(minutes)].max(axis=1) == candles.high)
        & (minutes.low[rows % len(minutes)].min(axis=1) == candles.low)
        & (minutes.close[rows[:, -1] % len(minutes)] == candles.close)
    )
    return agrees, rows


def detailed_paths(candles: Candles, minutes: Candles, length_ms: int) -> tuple[npt.NDArray[np.bool_], Ints]:
    """Say which candles their minutes tell of, and return the ticks of those, one column per candle."""
    agrees, rows = agreeing(candles, minutes, length_ms)
    count = length_ms // TICK_MS
    chosen = rows[agrees]
    if not len(chosen):
        return agrees, np.empty((count, 0), np.int64)
    ticks = paths(minutes.take(chosen.ravel()), TICKS_PER_MINUTE)
    return agrees, np.ascontiguousarray(ticks.T.reshape(len(chosen), count).T)
