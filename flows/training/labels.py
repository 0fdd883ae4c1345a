"""What the models learn to expect: the log return over the horizon."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.int64]


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
