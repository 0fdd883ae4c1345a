"""What a backtest came to: its trades, its equity, and why candidates were denied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import numpy.typing as npt

from inference.domain.signal import Direction

END_OF_DATA = "END_OF_DATA"
"""Why a trade ended that was still open at the last candle; all others are `inference.domain.trade.ExitReason`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BacktestTrade:
    """
    One closed round trip, in quote currency; times are UTC milliseconds.

    `pnl` is net of `fees`, which both sides paid; `funding` is what was received (negative: paid) on the way, and not
    in `pnl`, as in the worker's own results.
    """

    symbol: str
    direction: Direction
    reason: str
    quantity: Decimal
    entry_price: Decimal
    exit_price: Decimal
    pnl: Decimal
    fees: Decimal
    funding: Decimal
    opened_ms: int
    closed_ms: int

    @property
    def net(self) -> Decimal:
        """What was left of it."""
        return self.pnl + self.funding

    @property
    def net_return(self) -> float:
        """What was left, as a fraction of the notional at entry."""
        return float(self.net / (self.quantity * self.entry_price))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BacktestRun:
    """
    One walk through a market.

    `equity` is the account at the open of each candle, as the decision there saw it, and last when all was closed;
    `exposure` the gross notional that was carried there. `denied` counts candidates by the code of their denial.
    `liquidated_ms` is when the venue closed everything, None as a rule; nothing is traded after it. `stopped_ms` is
    when a wall of drawdown set off the emergency stop, None as a rule; nothing is entered after it.
    """

    trades: tuple[BacktestTrade, ...]
    time_ms: npt.NDArray[np.int64]
    equity: npt.NDArray[np.float64]
    exposure: npt.NDArray[np.float64]
    denied: Mapping[str, int]
    approved: int
    liquidated_ms: int | None = None
    stopped_ms: int | None = None
