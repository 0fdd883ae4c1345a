"""What a fill costs, and what a liquidation costs beyond it."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from infra.sandbox.engine.model import ZERO
from infra.sandbox.engine.position import cents


@dataclass(frozen=True, slots=True)
class Fees:
    """Rates per notional, paid in the quote currency."""

    maker: Decimal = Decimal("0.0002")
    taker: Decimal = Decimal("0.0005")

    def of(self, notional: Decimal, *, is_maker: bool) -> Decimal:
        """Fee of one fill."""
        return cents(notional * (self.maker if is_maker else self.taker))


@dataclass(frozen=True, slots=True)
class Clearance:
    """
    What a liquidation costs beyond its fills, and who bears what the account cannot.

    By default nothing and nobody: a cross wallet may end below zero, and what the book did not take waits for the
    next price. Insured, the venue's fund pays what is missing and takes over what is left.
    """

    fee: Decimal = ZERO
    insured: bool = False
