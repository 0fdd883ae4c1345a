"""What the models learn to expect: the log return over the horizon, as it is and net of what trading it costs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from feature_store.labels import forward_log_return
from flows.training.costs import Funding, TradingCosts, net_of_costs

Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.int64]


def net_forward_log_return(
    close: Floats,
    open_time_ms: Times,
    *,
    horizon: int,
    timeframe_ms: int,
    direction: int,
    costs: TradingCosts,
    funding: Funding | None = None,
) -> Floats:
    """
    Return the forward log return of one who went long (1) or short (-1) at each candle's close, net of costs.

    NaN where the forward log return is. A position entered at a boundary of funding pays nothing there, one left at
    a boundary does: the order leaves after it.
    """
    moved = forward_log_return(close, open_time_ms, horizon=horizon, timeframe_ms=timeframe_ms)
    entry_ms = open_time_ms + timeframe_ms
    return net_of_costs(
        moved, direction=direction, costs=costs,
        entry_ms=entry_ms, exit_ms=entry_ms + horizon * timeframe_ms, funding=funding,
    )  # fmt: skip
