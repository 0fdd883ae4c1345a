"""Sums of money to the last digit, whatever order they are made in."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import ROUND_HALF_EVEN, Context, Decimal, DivisionByZero, InvalidOperation, Overflow

DECIMALS = Context(prec=28, rounding=ROUND_HALF_EVEN, traps=[InvalidOperation, DivisionByZero, Overflow])
"""
How decisions calculate: as Python does by default, said here because a context belongs to a thread, not to a function.

A library in the same thread can change how it rounds (ccxt does, with its first price), and a replay of the journal,
which loads no such library, would come to another last digit.
"""

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
