"""What one bar lets an account trade, and at what price."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from hashlib import blake2b

from infra.sandbox.engine.instrument import Instrument
from infra.sandbox.engine.model import ZERO, Side
from infra.sandbox.engine.rules import Rules

_BPS = Decimal(10_000)
# Price and quantity of each fill, best first.
Fills = list[tuple[Decimal, Decimal]]


@dataclass(frozen=True, slots=True)
class Bar:
    """What was traded lately: by everybody, and how much of it the account has taken for itself."""

    start_ms: int
    volume: Decimal
    taken: Decimal = ZERO


def room(bar: Bar, rules: Rules, instrument: Instrument) -> Decimal | None:
    """Return how much more the account may trade in a bar, in whole steps; None is without a bound."""
    if rules.participation:
        share = (bar.volume * rules.participation).quantize(instrument.step, rounding=ROUND_FLOOR)
        return max(ZERO, share - bar.taken)
    # The price that a bar without trades would move to is unknown, so that nothing can be taken from it.
    return None if bar.volume or not rules.impact_bps else ZERO


def taken_from(
    bar: Bar, rules: Rules, instrument: Instrument, side: Side, *, fills: Fills, limit: Decimal | None
) -> Fills:
    """
    Return what is left of a taker's fills where volume is bounded: fewer of them, at worse prices.

    Impact grows with all that the account has taken from the bar, so that an order sent in pieces pays what it would
    have paid whole.
    """
    left = room(bar, rules, instrument)
    taken = bar.taken
    rounding = ROUND_CEILING if side is Side.BUY else ROUND_FLOOR
    bounded: Fills = []
    for listed, size in fills:
        quantity = size if left is None else min(size, left)
        if quantity <= ZERO:
            break
        taken += quantity
        price = listed
        if rules.impact_bps:
            moved = listed * rules.impact_bps / _BPS * (taken / bar.volume).sqrt()
            price = (listed + side.sign * moved).quantize(instrument.tick, rounding=rounding)
        if price <= ZERO or (limit is not None and (price - limit) * side.sign > 0):
            break
        bounded.append((price, quantity))
        left = None if left is None else left - quantity
    return bounded


def fills_at_touch(rules: Rules, order_id: int, now_ms: int) -> bool:
    """Whether a price that only touches a limit fills it: chance, but the same chance whenever it is asked."""
    if not rules.touch_probability:
        return False
    drawn = blake2b(f"{rules.seed}|{order_id}|{now_ms}".encode(), digest_size=8).digest()
    return Decimal(int.from_bytes(drawn)) < rules.touch_probability * (1 << 64)
