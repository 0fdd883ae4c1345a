"""The steps a trade may need, and the orders they place."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal

from inference.domain.order import OrderIntent, OrderType, Purpose, Side
from inference.domain.trade import ExitReason
from inference.execution.book import Trade
from inference.execution.client_order_id import client_order_id
from inference.execution.lifecycle import Order


@dataclass(frozen=True, slots=True)
class Place:
    """Journal this order, then send it."""

    intent: OrderIntent


@dataclass(frozen=True, slots=True)
class Resolve:
    """Find out what became of this order."""

    order: Order


@dataclass(frozen=True, slots=True)
class Cancel:
    """Take this order away."""

    order: Order


@dataclass(frozen=True, slots=True)
class Leave:
    """Decide that the trade must end."""

    reason: ExitReason
    detail: str


@dataclass(frozen=True, slots=True)
class Finish:
    """Count the money and close the trade."""


Step = Place | Resolve | Cancel | Leave | Finish

_TYPES = {
    Purpose.ENTRY: OrderType.MARKET,
    Purpose.STOP: OrderType.STOP_MARKET,
    Purpose.TARGET: OrderType.TAKE_PROFIT_MARKET,
    Purpose.EXIT: OrderType.MARKET,
}


def intent_of(
    trade: Trade, purpose: Purpose, quantity: Decimal, *, limit_price: Decimal | None = None, post_only: bool = False
) -> OrderIntent:
    """Return the next order of a trade for a purpose: with a limit price a limit order, else what its purpose wants."""
    plan = trade.plan
    opening = Side.opening(plan.direction)
    earlier = trade.of(purpose)
    # An order that never existed is sent again under its own id.
    attempt = len(earlier) if earlier and earlier[-1].never_existed else len(earlier) + 1
    trigger_price = {Purpose.STOP: plan.stop_price, Purpose.TARGET: plan.target_price}.get(purpose)
    return OrderIntent(
        client_order_id=client_order_id(plan.trade_id, purpose, attempt),
        trade_id=plan.trade_id,
        trace_id=plan.trace_id,
        symbol=plan.symbol,
        side=opening if purpose is Purpose.ENTRY else opening.opposite,
        order_type=_TYPES[purpose] if limit_price is None else OrderType.LIMIT,
        purpose=purpose,
        quantity=quantity,
        limit_price=limit_price,
        trigger_price=trigger_price,
        post_only=post_only,
        arrival_price=plan.arrival_price if purpose is Purpose.ENTRY else trigger_price,
    )


def held_as(intent: OrderIntent, target_type: OrderType) -> OrderIntent:
    """Return an order as the venue can hold it: a target, where nothing there waits for its price, rests at it."""
    if not (intent.purpose is Purpose.TARGET and intent.is_conditional) or target_type is not OrderType.LIMIT:
        return intent
    return replace(intent, order_type=OrderType.LIMIT, limit_price=intent.trigger_price, trigger_price=None)
