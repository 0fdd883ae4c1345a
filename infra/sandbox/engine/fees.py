"""What a fill costs."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from infra.sandbox.engine.position import cents


@dataclass(frozen=True, slots=True)
class Fees:
    """Rates per notional, paid in the quote currency."""

    maker: Decimal = Decimal("0.0002")
    taker: Decimal = Decimal("0.0005")

    def of(self, notional: Decimal, *, is_maker: bool) -> Decimal:
        """Fee of one fill."""
        return cents(notional * (self.maker if is_maker else self.taker))
