"""The label of a candle: how far the close moves until a number of candles later."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.int64]


def forward_log_return(close: Floats, open_time_ms: Times, *, horizon: int, timeframe_ms: int) -> Floats:
    """
    Return ln(close[t + horizon] / close[t]) for each candle; the one definition that frames and training share.

    NaN where the outcome is not known yet, and where any candle on the way is missing, even if the last one is there:
    who was in the trade saw no price meanwhile, could not have been stopped out, and over an outage the horizon is
    often no more than the first trade after it.
    """
    label = np.full(len(close), np.nan)
    if len(close) <= horizon:
        return label
    whole = open_time_ms[horizon:] - open_time_ms[:-horizon] == horizon * timeframe_ms
    with np.errstate(divide="ignore", invalid="ignore"):
        moved = np.log(close[horizon:] / close[:-horizon])
    label[:-horizon] = np.where(whole, moved, np.nan)

    return label
