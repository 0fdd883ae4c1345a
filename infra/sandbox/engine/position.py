"""How a fill changes a position, exactly."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal

from infra.sandbox.engine.model import ZERO, PositionSide

CENT = Decimal("0.00000001")


def cents(amount: Decimal) -> Decimal:
    """Round money to the eight decimals the venue keeps."""
    return amount.quantize(CENT, rounding=ROUND_HALF_EVEN)


@dataclass(frozen=True, slots=True)
class Position:
    """
    A signed quantity and what it cost.

    The cost, not the average price, is what is kept: realized profit plus the remaining cost
    is then exactly the cash that changed hands, whatever the order of partial fills.
    """

    symbol: str
    position_side: PositionSide = PositionSide.BOTH
    quantity: Decimal = ZERO
    cost: Decimal = ZERO
    realized_pnl: Decimal = ZERO
    updated_ms: int = 0
    # What of the wallet only this position may lose; nothing in cross margin.
    isolated_wallet: Decimal = ZERO

    @property
    def key(self) -> str:
        """Where the engine keeps it."""
        return position_key(self.symbol, self.position_side)

    @property
    def entry_price(self) -> Decimal:
        """Average entry price, zero when flat."""
        return self.cost / self.quantity if self.quantity else ZERO

    def unrealized(self, mark: Decimal) -> Decimal:
        """Profit if it were closed at `mark`, without fees."""
        return cents(self.quantity * mark - self.cost)


def position_key(symbol: str, position_side: PositionSide) -> str:
    """Name a position in the engine's state."""
    return f"{symbol}|{position_side.value}"


@dataclass(frozen=True, slots=True)
class Change:
    """What one fill did to a position."""

    position: Position
    realized_pnl: Decimal
    closed: Decimal
    opened: Decimal


def apply_fill(position: Position, signed_quantity: Decimal, price: Decimal, *, now_ms: int) -> Change:
    """Return the position after a fill of `signed_quantity` (negative sells) at `price`."""
    held = position.quantity
    opposes = held * signed_quantity < 0
    closed = min(abs(held), abs(signed_quantity)) if opposes else ZERO
    opened = abs(signed_quantity) - closed
    sign = 1 if signed_quantity > 0 else -1

    # Closing all of it releases all of the cost, whatever a rounded share would say.
    released = position.cost if closed == abs(held) else cents(position.cost * closed / abs(held))
    # Adding zero turns the negative zero of an opening fill into zero.
    realized = cents(-sign * closed * price - released) + 0
    updated = Position(
        symbol=position.symbol,
        position_side=position.position_side,
        quantity=held + signed_quantity,
        cost=position.cost - released + cents(sign * opened * price),
        realized_pnl=position.realized_pnl + realized,
        updated_ms=now_ms,
    )
    return Change(updated, realized, closed, opened)
