"""Open exposure and the account that carries it."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from msgspec import UNSET, UnsetType

from inference.domain.signal import Direction


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Open exposure in one symbol; `quantity` is unsigned base units, `entry_price` the average."""

    symbol: str
    direction: Direction
    quantity: Decimal
    entry_price: Decimal
    entry_time_ms: int
    trade_id: str

    @property
    def notional(self) -> Decimal:
        """Quantity times entry price, in quote currency."""
        return self.quantity * self.entry_price


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """
    Money at the venue: `equity` is wallet plus unrealised; the marks are what drawdowns are measured from.

    Journals of before weeks were counted have no `week_start_equity`.
    """

    equity: Decimal
    day_start_equity: Decimal
    peak_equity: Decimal
    week_start_equity: Decimal | UnsetType = UNSET

    @property
    def daily_drawdown(self) -> Decimal:
        """Loss since the start of the UTC day, as a fraction of that start; zero when in profit."""
        return _fall(self.equity, self.day_start_equity)

    @property
    def weekly_drawdown(self) -> Decimal | None:
        """Loss since Monday, midnight UTC, as a fraction of equity then; None where that is not known."""
        start = self.week_start_equity
        return None if isinstance(start, UnsetType) else _fall(self.equity, start)

    @property
    def peak_drawdown(self) -> Decimal:
        """Fall from the highest equity, as a fraction of it."""
        return _fall(self.equity, self.peak_equity)


def _fall(equity: Decimal, start: Decimal) -> Decimal:
    if not (start.is_finite() and equity.is_finite()) or start <= 0:
        return Decimal(1)
    return max(Decimal(0), 1 - equity / start)
