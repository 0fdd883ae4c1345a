"""
Which orders hold the exits of a trade that has an exit profile: as the brain wants them, one step at a time.

A stop that moves is placed before the one that it follows is cancelled, and never looser: whatever happens between the
two, a stop rests for all that is open. Targets are taken away before they are placed anew, since nothing is unprotected
without one and two of them would take too much.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal
from itertools import takewhile

from inference.domain.exit_state import HoldStop, HoldTarget, Standing
from inference.domain.order import OrderIntent, OrderStatus, OrderType, Purpose
from inference.domain.signal import Direction
from inference.domain.trade import ExitReason
from inference.execution.book import Trade
from inference.execution.lifecycle import Order
from inference.execution.standing_orders import (
    MAX_REFUSALS,
    REDUCE_ONLY_CONFLICT,
    WOULD_TRIGGER,
    covered_by,
    fired_in_vain,
    first_in_doubt,
    has_room_for_doubt,
    refusals,
)
from inference.execution.steps import Cancel, Leave, Place, Step, intent_of


def closing_step(wanted: Standing) -> Leave | None:
    """Return the end of a trade, where its profile says that it must end."""
    if wanted.close is None:
        return None
    return Leave(wanted.close.cause.reason, "by its exit profile")


def stop_step(trade: Trade, wanted: Standing, *, stop_overdue: bool, may_double: bool) -> Step | None:
    """Return what brings the stop to where it is wanted, None where it rests there."""
    stop = wanted.stop
    if stop is None:
        return None
    stops = trade.of(Purpose.STOP)
    # A looser one protects as well, until the wanted one rests.
    covered = covered_by(stops) >= trade.open_quantity
    lost = _lost_stop(stops, stop, is_overdue=stop_overdue and not covered and bool(stops))
    if lost is not None:
        return lost
    good = [order for order in stops if _is_as_tight(order, trade, stop)]
    if covered_by(good) >= trade.open_quantity:
        return _surplus(trade, stops, good, stop)
    if covered and refusals(good) >= MAX_REFUSALS:
        return None
    in_doubt = first_in_doubt(good) or (None if not stops or has_room_for_doubt(stops) else first_in_doubt(stops))
    if in_doubt is not None and (covered or not may_double or not has_room_for_doubt(stops)):
        return in_doubt
    return Place(_stop_intent(trade, stop, _uncovered(trade, stops, covered=covered)))


def target_step(trade: Trade, wanted: Standing) -> Step | None:
    """Return what brings the targets to where they are wanted, None where they rest there or are done without."""
    targets = trade.of(Purpose.TARGET)
    in_doubt = first_in_doubt(targets)
    if in_doubt is not None:
        return in_doubt
    numbers = {one.number for one in wanted.targets}
    for order in _waiting(targets):
        if order.intent.target not in numbers:
            return Cancel(order)
    steps = (_one_target(trade, one, [order for order in targets if order.intent.target == one.number])
             for one in wanted.targets)  # fmt: skip
    return next((step for step in steps if step is not None), None)


def _one_target(trade: Trade, wanted: HoldTarget, orders: list[Order]) -> Step | None:
    if covered_by(orders) == wanted.quantity:
        return None
    for order in _waiting(orders):
        return Cancel(order)
    if any(order.is_live for order in orders) or refusals(orders) >= MAX_REFUSALS:
        return None
    # The price was through it already: this part leaves now, as it would have there.
    is_passed = any(order.refusal == WOULD_TRIGGER or fired_in_vain(order) for order in orders)
    return Place(_target_intent(trade, wanted, at_market=is_passed))


def _lost_stop(stops: list[Order], wanted: HoldStop, *, is_overdue: bool) -> Leave | None:
    passed = next((order for order in stops if order.refusal == WOULD_TRIGGER), None)
    if passed is not None:
        because = passed.intent.because
        reason = because if isinstance(because, ExitReason) else wanted.cause.reason
        return Leave(reason, "the price was already through the stop")
    if any(fired_in_vain(order) for order in stops):
        return Leave(ExitReason.STOP_UNFILLED, "the stop fired and its order ended unfilled")
    if is_overdue:
        return Leave(ExitReason.UNPROTECTED, "the venue confirmed no stop in time")
    # Of a stop that moves often, only what was refused since the last that was not.
    latest = refusals(list(takewhile(lambda order: order.refusal, reversed(stops))))
    if latest >= MAX_REFUSALS and not any(order.is_live for order in stops):
        return Leave(ExitReason.UNPROTECTED, f"the venue refused {latest} stops")
    return None


def _surplus(trade: Trade, stops: list[Order], good: list[Order], wanted: HoldStop) -> Step | None:
    for order in _waiting(stops):
        if order not in good:
            return Cancel(order)
    waiting, covered = _waiting(good), covered_by(good)
    for order in sorted(waiting, key=lambda one: one.remaining, reverse=True):
        if covered - order.remaining >= trade.open_quantity:
            return Cancel(order)
    is_alone = len(waiting) == 1 == len([one for one in stops if one.is_live or one.may_exist])
    if is_alone and waiting[0].remaining > trade.open_quantity and not stops[-1].refusal:
        return Place(_stop_intent(trade, wanted, trade.open_quantity))
    return None


def _is_as_tight(order: Order, trade: Trade, wanted: HoldStop) -> bool:
    price = order.intent.trigger_price
    if price is None:
        return False
    return price >= wanted.price if trade.plan.direction is Direction.LONG else price <= wanted.price


def _waiting(orders: Iterable[Order]) -> list[Order]:
    return [order for order in orders if order.status is OrderStatus.ACCEPTED]


def _uncovered(trade: Trade, stops: list[Order], *, covered: bool) -> Decimal:
    # Whole, unless the venue counts what rests against the position: then only what is missing, if anything is.
    conflict = bool(stops) and stops[-1].refusal == REDUCE_ONLY_CONFLICT
    return trade.open_quantity - covered_by(stops) if conflict and not covered else trade.open_quantity


def _stop_intent(trade: Trade, wanted: HoldStop, quantity: Decimal) -> OrderIntent:
    intent = intent_of(trade, Purpose.STOP, quantity)
    return replace(intent, trigger_price=wanted.price, arrival_price=wanted.price, because=wanted.cause.reason)


def _target_intent(trade: Trade, wanted: HoldTarget, *, at_market: bool) -> OrderIntent:
    intent = replace(intent_of(trade, Purpose.TARGET, wanted.quantity), target=wanted.number)
    if at_market:
        return replace(intent, order_type=OrderType.MARKET, trigger_price=None, arrival_price=wanted.price)
    return replace(intent, trigger_price=wanted.price, arrival_price=wanted.price)
