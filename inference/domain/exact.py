"""Sums of money to the last digit, whatever order they are made in."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Context, Decimal

# Python's own sums keep 28 digits; an average price has as many behind its point, and a sum of such loses the last.
_WIDE = Context(prec=600)


def total(amounts: Iterable[Decimal]) -> Decimal:
    """Return the exact sum; zero of nothing."""
    amount = Decimal(0)
    for one in amounts:
        amount = _WIDE.add(amount, one)
    return amount


def product(one: Decimal, other: Decimal) -> Decimal:
    """Return the exact product."""
    return _WIDE.multiply(one, other)
