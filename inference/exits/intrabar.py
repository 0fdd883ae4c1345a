"""Exits on a candle of which four prices are known, in the order that a backtest assumes: what hurts first."""

from __future__ import annotations

from decimal import Decimal

import msgspec
from msgspec.structs import replace

from feature_store.errors import BadInputError
from inference.domain.exit_profile import ExitProfile
from inference.domain.exit_state import CandleClosed, ExitCause, ExitState, Held
from inference.exits.brain import standing, step

OPEN, ADVERSE, FAVOURABLE, CLOSE = range(4)
"""The moments of a candle, in this order."""


class Prices(msgspec.Struct, frozen=True, kw_only=True):
    """The four prices of a candle, in quote currency, and when it closed, in UTC milliseconds."""

    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    close_ms: int

    def __post_init__(self) -> None:
        """
        Refuse what is no candle.

        Raises:
            BadInputError: A price is not a positive number, or lies outside low and high.
        """
        prices = (self.low, self.open, self.close, self.high)
        if not all(one.is_finite() and one > 0 for one in prices):
            raise BadInputError(f"Prices of a candle must be positive numbers, were {prices}")
        if min(prices) != self.low or max(prices) != self.high:
            raise BadInputError(f"Open and close must lie between low and high, were {prices}")


class ExitFill(msgspec.Struct, frozen=True, kw_only=True):
    """
    A part of a position that left.

    `price` is the one it left around, before spread and depth: a target's own, else the one that was shown. `moment`
    counts the prices of the candle from its open; `target` is 0 where it was none.
    """

    cause: ExitCause
    price: Decimal
    quantity: Decimal
    moment: int
    target: int = 0


def candle_exits(profile: ExitProfile, state: ExitState, candle: Prices) -> tuple[ExitState, tuple[ExitFill, ...]]:
    """
    Return the state after a candle through which a position was held, and what left on the way.

    The first price meets what rests; then what was decided at the close before leaves at that price; then come the
    extreme that hurts, the one that helps, and the close; at last the brain sees the close. A stop fills around the
    price that was shown, the worst of what it may have been; a target at its own. For the candle of the entry, the
    state is that after the entry at its open. A candle that is missing is a `CandleClosed` without a close, and
    what was decided by then leaves at the newest price there is.
    """
    closing = state.closing
    # The order at market comes after the first price: a target there was first.
    state, found = shown_price(profile, replace(state, closing=None), candle.open, OPEN)
    fills = list(found)
    if closing is not None and state.open_quantity > 0:
        state, left = _all_out(profile, state, closing, candle.open, OPEN)
        fills.append(left)
    for moment, price in inside(state, candle):
        state, found = shown_price(profile, state, price, moment)
        fills += found
    state, _ = step(profile, state, CandleClosed(close_ms=candle.close_ms, close=candle.close))
    return state, tuple(fills)


def inside(state: ExitState, candle: Prices) -> tuple[tuple[int, Decimal], ...]:
    """Return the prices after the open, each with its moment: what hurts, what helps, the close."""
    hurts, helps = (candle.low, candle.high) if state.facts.sign > 0 else (candle.high, candle.low)
    return (ADVERSE, hurts), (FAVOURABLE, helps), (CLOSE, candle.close)


def shown_price(
    profile: ExitProfile, state: ExitState, price: Decimal, moment: int
) -> tuple[ExitState, tuple[ExitFill, ...]]:
    """
    Return what one price does to what the venue holds: the stop takes all, or each target that it passed its part.

    All targets that a price passes fill before the brain hears of the first, as at a venue.
    """
    wanted = standing(profile, state)
    if wanted.stop is None:
        return state, ()
    sign = state.facts.sign
    if sign * (price - wanted.stop.price) <= 0:
        state, left = _all_out(profile, state, wanted.stop.cause, price, moment)
        return state, (left,)
    passed = [one for one in wanted.targets if sign * (price - one.price) >= 0]
    if not passed:
        return state, ()
    held = state.held
    taken = list(held.taken)
    for one in passed:
        taken[one.number - 1] += one.quantity
    gone = sum((one.quantity for one in passed), Decimal(0))
    state, _ = step(profile, state, replace(held, exited=held.exited + gone, taken=tuple(taken)))
    return state, tuple(
        ExitFill(cause=ExitCause.TARGET, price=one.price, quantity=one.quantity, moment=moment, target=one.number)
        for one in passed
    )


def _all_out(
    profile: ExitProfile, state: ExitState, cause: ExitCause, price: Decimal, moment: int
) -> tuple[ExitState, ExitFill]:
    left = ExitFill(cause=cause, price=price, quantity=state.open_quantity, moment=moment)
    held: Held = replace(state.held, exited=state.held.entered)
    state, _ = step(profile, state, held)
    return state, left
