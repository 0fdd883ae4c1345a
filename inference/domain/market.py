"""What is traded and at what price it can be had."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Instrument:
    """An instrument's steps and minimums at its venue, able to round to them."""

    symbol: str
    price_tick: Decimal
    quantity_step: Decimal
    min_quantity: Decimal
    max_quantity: Decimal
    min_notional: Decimal

    def __post_init__(self) -> None:
        """Refuse steps that could never round anything."""
        for name in ("price_tick", "quantity_step"):
            if getattr(self, name) <= 0:
                raise ValueError(f"Instrument {self.symbol} needs a positive {name}, was {getattr(self, name)}")

    def round_quantity(self, quantity: Decimal) -> Decimal:
        """Return the largest multiple of the step not above `quantity`: never more than was asked."""
        return (quantity / self.quantity_step).to_integral_value(ROUND_DOWN) * self.quantity_step

    def round_price(self, price: Decimal) -> Decimal:
        """Return the multiple of the tick nearest to `price`."""
        return (price / self.price_tick).to_integral_value(ROUND_HALF_EVEN) * self.price_tick


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """Best bid and ask of a symbol, in quote currency, as the venue last showed them."""

    symbol: str
    bid: Decimal
    ask: Decimal
    event_time_ms: int

    @property
    def mid(self) -> Decimal:
        """Halfway between bid and ask."""
        return (self.bid + self.ask) / 2
