"""What the orders of one purpose come to: how much they cover, how often the venue refused them, which are in doubt."""

from __future__ import annotations

from decimal import Decimal

from inference.domain.order import OrderStatus
from inference.execution.lifecycle import Order
from inference.execution.steps import Resolve

# The venue's words for: the price is already through the trigger; nothing left to reduce; too much already resting; a
# stop rests already, and it holds no second one.
WOULD_TRIGGER = "-2021"
NOTHING_TO_REDUCE = "-2022"
REDUCE_ONLY_CONFLICT = "-4118"
ONE_STOP_ONLY = "-4130"

# Refusals of a protective order before its absence is accepted: for a stop by leaving, for a target by doing without.
MAX_REFUSALS = 3

# So many orders of one purpose may be in doubt at the same time. Each may turn out to rest, and a venue holds only a
# few conditional orders in a symbol (ten at Binance).
MAX_IN_DOUBT = 4


def covered_by(orders: list[Order]) -> Decimal:
    """Return the quantity that live orders may still execute."""
    return sum((order.remaining for order in orders if order.is_live), Decimal(0))


def refusals(orders: list[Order]) -> int:
    """Return how many of them the venue refused; what never reached it does not count."""
    # Where one stop had to go before another could come, that the other came says that nothing is wrong.
    taken = max((place for place, order in enumerate(orders) if not order.refusal and not order.may_exist), default=-1)
    return sum(
        bool(order.refusal) and not order.never_existed and (order.refusal != ONE_STOP_ONLY or place > taken)
        for place, order in enumerate(orders)
    )


def fired_in_vain(order: Order) -> bool:
    """Whether a conditional order fired, and what it became ended unfilled."""
    ended = order.status in (OrderStatus.CANCELED, OrderStatus.EXPIRED)
    return ended and order.child_order_id is not None and order.remaining > 0


def first_in_doubt(orders: list[Order]) -> Resolve | None:
    """Return the question to ask about the oldest in doubt: it is the first that can no longer execute."""
    return next((Resolve(order) for order in orders if order.may_exist), None)


def has_room_for_doubt(orders: list[Order]) -> bool:
    """Whether another order may be sent beside those in doubt; not where the venue says that one of them is there."""
    is_told = orders[-1].refusal in (REDUCE_ONLY_CONFLICT, NOTHING_TO_REDUCE, ONE_STOP_ONLY)
    return not is_told and sum(order.may_exist for order in orders) < MAX_IN_DOUBT
