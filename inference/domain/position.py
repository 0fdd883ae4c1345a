"""Open exposure and the account that carries it."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

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
    """Money at the venue: `equity` is wallet plus unrealised; the two marks are what drawdowns are measured from."""

    equity: Decimal
    day_start_equity: Decimal
    peak_equity: Decimal

    @property
    def daily_drawdown(self) -> Decimal:
        """Loss since the start of the UTC day, as a fraction of that start; zero when in profit."""
        if self.day_start_equity <= 0:
            return Decimal(1)
        return max(Decimal(0), 1 - self.equity / self.day_start_equity)
