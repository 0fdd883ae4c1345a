"""
What a trade needs next: protection before profit, exits before tidying, one step at a time.

An order that was sent and not answered for may exist. An entry that may exist is never followed by another. A stop is,
at once and under an id of its own, where nothing else protects the position: both are reduce-only and name a quantity,
so that both may rest; what turns out to be too much is cancelled. So is the order that leaves an unprotected position:
it is reduce-only too, and an account that nets long and short (a gateway connects to no other) cannot be turned over by
two of them; a position with a stop has time to find out instead. Where a venue knows no reduce-only, spot, a second
order would sell what the trade does not hold: nothing is doubled there.
"""

from __future__ import annotations

from decimal import Decimal

from inference.domain.order import OrderStatus, Purpose
from inference.domain.trade import ExitReason
from inference.execution.book import Trade
from inference.execution.entering import Wish, entry_step, is_under_way
from inference.execution.lifecycle import Order
from inference.execution.profiled_exits import closing_step, stop_step, target_step
from inference.execution.standing_orders import (
    MAX_IN_DOUBT,
    MAX_REFUSALS,
    NOTHING_TO_REDUCE,
    ONE_STOP_ONLY,
    REDUCE_ONLY_CONFLICT,
    WOULD_TRIGGER,
    covered_by,
    fired_in_vain,
    first_in_doubt,
    has_room_for_doubt,
    refusals,
)
from inference.execution.steps import Cancel, Finish, Leave, Place, Resolve, Step, intent_of

__all__ = [
    "MAX_IN_DOUBT", "MAX_REFUSALS", "NOTHING_TO_REDUCE", "Cancel", "Finish", "Leave", "Place", "Resolve", "Step",
    "next_step",
]  # fmt: skip


def next_step(
    trade: Trade,
    *,
    may_enter: bool = False,
    wish: Wish | None = None,
    stop_overdue: bool = False,
    may_double: bool = True,
) -> Step | None:
    """
    Return the one thing to do next for a trade, or None when it is as it should be.

    Derived from the trade and the wish alone, so that a worker that was killed anywhere continues where it stood: it
    wishes for no entry then. `may_enter` is the whole wish where an entry is at market. With `stop_overdue` the venue
    has had its time to confirm a stop. `may_double` says that the venue keeps reduce-only orders to what there is to
    reduce. Before a `Place` beside orders in doubt, those should have been asked for.
    """
    wish = wish or Wish(may_enter=may_enter)
    if trade.open_quantity > 0:
        if trade.exit_reason:
            return _leave(trade, may_double=may_double)
        return _guard(trade, wish, stop_overdue=stop_overdue, may_double=may_double)

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


def _guard(trade: Trade, wish: Wish, *, stop_overdue: bool, may_double: bool) -> Step | None:
    wanted = trade.standing
    if wanted is not None:
        return (
            closing_step(wanted)
            or stop_step(trade, wanted, stop_overdue=stop_overdue, may_double=may_double)
            or entry_step(trade, wish)
            or target_step(trade, wanted)
            or first_in_doubt(trade.of(Purpose.STOP))
        )
    return (
        _hold_stop(trade, stop_overdue=stop_overdue, may_double=may_double)
        or entry_step(trade, wish)
        or _hold_target(trade)
        # Protected already: what else became of the stops that were sent can wait for the rest.
        or first_in_doubt(trade.of(Purpose.STOP))
    )


def _hold_stop(trade: Trade, *, stop_overdue: bool, may_double: bool) -> Step | None:
    stops = trade.of(Purpose.STOP)
    covered = covered_by(stops) >= trade.open_quantity
    # Where none was tried yet, a stop protects as soon as an order that leaves would.
    lost = _lost_stop(stops, is_overdue=stop_overdue and not covered and bool(stops))
    if lost is not None:
        return lost
    if covered:
        return _surplus(trade, stops)
    if stops and stops[-1].refusal == ONE_STOP_ONLY:
        # Bare for a moment, and within the bound: the time that a stop has runs already.
        for order in stops:
            if order.is_live:
                return Cancel(order)
    in_doubt = first_in_doubt(stops)
    if in_doubt is not None and not (may_double and has_room_for_doubt(stops)):
        return in_doubt

    return Place(intent_of(trade, Purpose.STOP, _uncovered(trade, stops)))


def _lost_stop(stops: list[Order], *, is_overdue: bool) -> Leave | None:
    if any(order.refusal == WOULD_TRIGGER for order in stops):
        return Leave(ExitReason.STOP, "the price was already through the stop")
    if any(fired_in_vain(order) for order in stops):
        return Leave(ExitReason.STOP_UNFILLED, "the stop fired and its order ended unfilled")
    if is_overdue:
        return Leave(ExitReason.UNPROTECTED, "the venue confirmed no stop in time")
    if refusals(stops) >= MAX_REFUSALS and not any(order.is_live for order in stops):
        return Leave(ExitReason.UNPROTECTED, f"the venue refused {refusals(stops)} stops")

    return None


def _hold_target(trade: Trade) -> Step | None:
    targets = trade.of(Purpose.TARGET)
    if any(order.refusal == WOULD_TRIGGER or fired_in_vain(order) for order in targets):
        return Leave(ExitReason.TARGET, "the price was already through the target")
    for order in targets:
        if order.may_exist:
            return Resolve(order)
    if covered_by(targets) >= trade.open_quantity:
        return _surplus(trade, targets)
    if refusals(targets) >= MAX_REFUSALS:
        return None

    return Place(intent_of(trade, Purpose.TARGET, _uncovered(trade, targets)))


def _leave(trade: Trade, *, may_double: bool) -> Step:
    exits = trade.of(Purpose.EXIT)
    for order in exits:
        if order.is_live:
            return Resolve(order)
    in_doubt = first_in_doubt(exits)
    is_bare = covered_by(trade.of(Purpose.STOP)) < trade.open_quantity
    if in_doubt is not None and not (may_double and is_bare and has_room_for_doubt(exits)):
        return in_doubt
    # The stop stays until the position is flat; a resting target may stand in the exit's way.
    if exits and exits[-1].refusal == REDUCE_ONLY_CONFLICT:
        for order in trade.of(Purpose.TARGET):
            if order.is_live:
                return Cancel(order)

    return Place(intent_of(trade, Purpose.EXIT, trade.open_quantity))


def _surplus(trade: Trade, orders: list[Order]) -> Step | None:
    # Replaced by place-then-cancel, so that the position is never without.
    waiting = [order for order in orders if order.status is OrderStatus.ACCEPTED]
    covered = covered_by(orders)
    for order in sorted(waiting, key=lambda one: one.remaining, reverse=True):
        if covered - order.remaining >= trade.open_quantity:
            return Cancel(order)
    shrunk = len(waiting) == 1 and len(waiting) == len([one for one in orders if one.is_live or one.may_exist])
    if shrunk and waiting[0].remaining > trade.open_quantity and not orders[-1].refusal:
        return Place(intent_of(trade, orders[0].intent.purpose, trade.open_quantity))

    return None


def _uncovered(trade: Trade, orders: list[Order]) -> Decimal:
    # Whole, unless the venue counts what rests against the position: then only what is missing.
    conflict = bool(orders) and orders[-1].refusal == REDUCE_ONLY_CONFLICT
    return trade.open_quantity - covered_by(orders) if conflict else trade.open_quantity
