"""How a position is divided among its targets: on the venue's steps, never below its minimums, without dust."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from inference.domain.exit_profile import ExitProfile
from inference.domain.market import Instrument

_NOTHING = Decimal(0)


def parts_of(
    profile: ExitProfile, quantity: Decimal, *, prices: Sequence[Decimal], instrument: Instrument
) -> tuple[Decimal, ...]:
    """
    Return the quantity that each target takes, in base units; what is missing of the whole has no target.

    Rounded down to steps; what that leaves goes with the last target. A part that the venue would not take by itself
    is merged into the next, and what comes after the last, where that is too little, into the one before.
    """
    wanted = [instrument.round_quantity(quantity * target.share) for target in profile.targets]
    if not wanted or quantity <= 0:
        return tuple(_NOTHING for _ in wanted)
    if not profile.has_runner:
        wanted[-1] = quantity - sum(wanted[:-1], _NOTHING)
    parts: list[Decimal] = []
    merged = _NOTHING
    for size, price in zip(wanted, prices, strict=True):
        whole = size + merged
        stands = _stands(whole, price, instrument)
        parts.append(whole if stands else _NOTHING)
        merged = _NOTHING if stands else whole
    rest = quantity - sum(parts, _NOTHING)
    last = max((place for place, size in enumerate(parts) if size > 0), default=None)
    if last is not None and rest > 0 and not (profile.has_runner and _stands(rest, prices[last], instrument)):
        parts[last] += rest
    elif last is None and not profile.has_runner:
        # Too small for any minimum: all of it leaves at once, which venues let a reduce-only order do.
        parts[-1] = quantity
    return tuple(parts)


def _stands(quantity: Decimal, price: Decimal, instrument: Instrument) -> bool:
    return quantity > 0 and quantity >= instrument.min_quantity and quantity * price >= instrument.min_notional
