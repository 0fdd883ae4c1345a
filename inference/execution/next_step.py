"""What a trade needs next: protection before profit, exits before tidying, one step at a time."""

from __future__ import annotations

from decimal import Decimal

from inference.domain.order import OrderStatus, Purpose
from inference.domain.trade import ExitReason
from inference.execution.book import Trade
from inference.execution.entering import Wish, entry_step, is_under_way
from inference.execution.lifecycle import Order
from inference.execution.steps import Cancel, Finish, Leave, Place, Resolve, Step, intent_of

__all__ = ["Cancel", "Finish", "Leave", "Place", "Resolve", "Step", "next_step"]

# The venue's words for: the price is already through the trigger; nothing left to reduce; too much already resting.
WOULD_TRIGGER = "-2021"
NOTHING_TO_REDUCE = "-2022"
REDUCE_ONLY_CONFLICT = "-4118"

# Refusals of a protective order before its absence is accepted: for a stop by leaving, for a target by doing without.
MAX_REFUSALS = 3


def next_step(
    trade: Trade, *, may_enter: bool = False, wish: Wish | None = None, stop_overdue: bool = False
) -> Step | None:
    """
    Return the one thing to do next for a trade, or None when it is as it should be.

    Derived from the trade and the wish alone, so that a worker that was killed anywhere continues where it stood: it
    wishes for no entry then. `may_enter` is the whole wish where an entry is at market. With `stop_overdue` the venue
    has had its time to confirm a stop.
    """
    wish = wish or Wish(may_enter=may_enter)
    if trade.open_quantity > 0:
        return _leave(trade) if trade.exit_reason else _guard(trade, wish, stop_overdue=stop_overdue)

    step = entry_step(trade, wish)
    if step is not None or is_under_way(trade, wish):
        return step
    for order in trade.orders.values():
        if order.may_exist:
            return Resolve(order)
    for order in trade.orders.values():
        if order.is_live:
            return Cancel(order)

    return None if trade.is_counted else Finish()


def _guard(trade: Trade, wish: Wish, *, stop_overdue: bool) -> Step | None:
    return _hold_stop(trade, stop_overdue=stop_overdue) or entry_step(trade, wish) or _hold_target(trade)


def _hold_stop(trade: Trade, *, stop_overdue: bool) -> Step | None:
    stops = trade.of(Purpose.STOP)
    covered = _covered(stops) >= trade.open_quantity
    lost = _lost_stop(stops, is_overdue=stop_overdue and not covered)
    if lost is not None:
        return lost
    if covered:
        return _surplus(trade, stops)
    for order in stops:
        if order.may_exist:
            return Resolve(order)

    return Place(intent_of(trade, Purpose.STOP, _uncovered(trade, stops)))


def _lost_stop(stops: list[Order], *, is_overdue: bool) -> Leave | None:
    if any(order.refusal == WOULD_TRIGGER for order in stops):
        return Leave(ExitReason.STOP, "the price was already through the stop")
    if any(_fired_in_vain(order) for order in stops):
        return Leave(ExitReason.STOP_UNFILLED, "the stop fired and its order ended unfilled")
    if is_overdue:
        return Leave(ExitReason.UNPROTECTED, "the venue confirmed no stop in time")
    if _refusals(stops) >= MAX_REFUSALS and not any(order.is_live for order in stops):
        return Leave(ExitReason.UNPROTECTED, f"the venue refused {_refusals(stops)} stops")

    return None


def _hold_target(trade: Trade) -> Step | None:
    targets = trade.of(Purpose.TARGET)
    if any(order.refusal == WOULD_TRIGGER or _fired_in_vain(order) for order in targets):
        return Leave(ExitReason.TARGET, "the price was already through the target")
    for order in targets:
        if order.may_exist:
            return Resolve(order)
    if _covered(targets) >= trade.open_quantity:
        return _surplus(trade, targets)
    if _refusals(targets) >= MAX_REFUSALS:
        return None

    return Place(intent_of(trade, Purpose.TARGET, _uncovered(trade, targets)))


def _leave(trade: Trade) -> Step:
    exits = trade.of(Purpose.EXIT)
    for order in exits:
        if order.may_exist or order.is_live:
            return Resolve(order)
    # The stop stays until the position is flat; a resting target may stand in the exit's way.
    if exits and exits[-1].refusal == REDUCE_ONLY_CONFLICT:
        for order in trade.of(Purpose.TARGET):
            if order.is_live:
                return Cancel(order)

    return Place(intent_of(trade, Purpose.EXIT, trade.open_quantity))


def _surplus(trade: Trade, orders: list[Order]) -> Step | None:
    # Replaced by place-then-cancel, so that the position is never without.
    waiting = [order for order in orders if order.status is OrderStatus.ACCEPTED]
    covered = _covered(orders)
    for order in sorted(waiting, key=lambda one: one.remaining, reverse=True):
        if covered - order.remaining >= trade.open_quantity:
            return Cancel(order)
    shrunk = len(waiting) == 1 and len(waiting) == len([one for one in orders if one.is_live])
    if shrunk and waiting[0].remaining > trade.open_quantity and not orders[-1].refusal and not orders[-1].may_exist:
        return Place(intent_of(trade, orders[0].intent.purpose, trade.open_quantity))
    if any(order.may_exist for order in orders):
        return Resolve(next(order for order in orders if order.may_exist))

    return None


def _covered(orders: list[Order]) -> Decimal:
    return sum((order.remaining for order in orders if order.is_live), Decimal(0))


def _uncovered(trade: Trade, orders: list[Order]) -> Decimal:
    # Whole, unless the venue counts what rests against the position: then only what is missing.
    conflict = bool(orders) and orders[-1].refusal == REDUCE_ONLY_CONFLICT
    return trade.open_quantity - _covered(orders) if conflict else trade.open_quantity


def _refusals(orders: list[Order]) -> int:
    return sum(bool(order.refusal) and not order.never_existed for order in orders)


def _fired_in_vain(order: Order) -> bool:
    ended = order.status in (OrderStatus.CANCELED, OrderStatus.EXPIRED)
    return ended and order.child_order_id is not None and order.remaining > 0
