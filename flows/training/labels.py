"""What the models learn to expect: the log return over the horizon."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.int64]


def without_market(values: Floats, open_time_ms: Times, share: float) -> Floats:
    """
    Return values with a share of their mean over all series of the same moment taken off.

    What the whole market does in the next hour is most of an outcome and hardly foreseeable; without it the same
    candles say more about what is. A series that is alone at its moment keeps all of its value.
    """
    _, moment = np.unique(open_time_ms, return_inverse=True)
    count = np.bincount(moment)
    mean = np.bincount(moment, weights=values) / count
    return values - (share * (1 - 1 / count) * mean)[moment]


def forward_log_return(close: Floats, open_time_ms: Times, *, horizon: int, timeframe_ms: int) -> Floats:
    """
    Return ln(close[t + horizon] / close[t]) for each candle.

    NaN where the outcome is not known yet, or where a candle is missing on the way.
    """
    label = np.full(len(close), np.nan)
    if len(close) <= horizon:
        return label
    whole = open_time_ms[horizon:] - open_time_ms[:-horizon] == horizon * timeframe_ms
    with np.errstate(divide="ignore", invalid="ignore"):
        moved = np.log(close[horizon:] / close[:-horizon])
    label[:-horizon] = np.where(whole, moved, np.nan)

    return label
