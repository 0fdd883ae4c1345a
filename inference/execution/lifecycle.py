"""The life of one order: which state may follow which, whatever order the venue's reports come in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal

from inference.domain.order import Fill, OrderIntent, OrderReport, OrderStatus

# Refusals that say: it never existed, and no request of ours can make it exist any more.
ABSENT = "ABSENT"
NOTHING_HAPPENED = "NOTHING_HAPPENED"
# The same, and it never left us: who writes for the account is in doubt.
NOT_SENT = "NOT_SENT"
# The refusal of an order that the venue took and then rejected, without a code.
REJECTED = "REJECTED"

_LIVE = frozenset({OrderStatus.ACCEPTED, OrderStatus.TRIGGERED, OrderStatus.PARTIALLY_FILLED})
_ENDED = frozenset({OrderStatus.FILLED, OrderStatus.CANCELED, OrderStatus.EXPIRED})

TRANSITIONS: Mapping[OrderStatus, frozenset[OrderStatus]] = {
    OrderStatus.INTENDED: frozenset(OrderStatus) - {OrderStatus.INTENDED},
    OrderStatus.IN_FLIGHT: frozenset({OrderStatus.UNKNOWN, OrderStatus.REFUSED}) | _LIVE | _ENDED,
    OrderStatus.UNKNOWN: frozenset({OrderStatus.REFUSED}) | _LIVE | _ENDED,
    OrderStatus.ACCEPTED: frozenset(
        {OrderStatus.TRIGGERED, OrderStatus.PARTIALLY_FILLED, OrderStatus.REFUSED, *_ENDED}
    ),
    OrderStatus.TRIGGERED: frozenset({OrderStatus.PARTIALLY_FILLED, *_ENDED}),
    OrderStatus.PARTIALLY_FILLED: _ENDED,
    # A fill may overtake our cancel, or the venue's own.
    OrderStatus.CANCELED: frozenset({OrderStatus.FILLED}),
    OrderStatus.EXPIRED: frozenset({OrderStatus.FILLED}),
    # The venue may come to know an order that it denied: what it reports exists.
    OrderStatus.REFUSED: _LIVE | _ENDED,
    OrderStatus.FILLED: frozenset(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An order and everything known of it. `filled` is what reports say, `fills` what was executed, by venue id."""

    intent: OrderIntent
    status: OrderStatus = OrderStatus.INTENDED
    filled: Decimal = Decimal(0)
    average_price: Decimal | None = None
    venue_order_id: str = ""
    child_order_id: str | None = None
    refusal: str = ""
    fills: Mapping[str, Fill] = field(default_factory=dict)

    @property
    def executed(self) -> Decimal:
        """The quantity known to be executed, from whichever source knows more."""
        return max(self.filled, self.booked)

    @property
    def booked(self) -> Decimal:
        """The quantity that single executions explain."""
        return sum((fill.quantity for fill in self.fills.values()), Decimal(0))

    @property
    def remaining(self) -> Decimal:
        """What may still execute, were the order live."""
        return max(Decimal(0), self.intent.quantity - self.executed)

    @property
    def is_live(self) -> bool:
        """Whether the venue holds it."""
        return self.status in _LIVE

    @property
    def may_exist(self) -> bool:
        """Whether it was sent and its fate is not known."""
        return self.status in (OrderStatus.INTENDED, OrderStatus.IN_FLIGHT, OrderStatus.UNKNOWN)

    @property
    def never_existed(self) -> bool:
        """Whether it was sent in vain, provably: the same id may be sent again."""
        return self.status is OrderStatus.REFUSED and self.refusal in (ABSENT, NOTHING_HAPPENED, NOT_SENT)

    @property
    def price(self) -> Decimal | None:
        """Average price of what was executed: from the executions once they explain all, else from reports."""
        if self.booked > 0 and (self.booked >= self.filled or self.average_price is None):
            return sum((fill.quantity * fill.price for fill in self.fills.values()), Decimal(0)) / self.booked
        return self.average_price

    def traded(self, fallback: Decimal) -> Decimal:
        """Return the quote worth of what was executed, exact where fills explain it; `fallback` is a price."""
        if self.booked > 0 and self.booked >= self.filled:
            # An average of several prices has no last digit.
            return sum((fill.quantity * fill.price for fill in self.fills.values()), Decimal(0))
        return self.executed * (self.price or fallback)


def apply(order: Order, report: OrderReport) -> Order:
    """Return the order after a venue report; late, repeated and reordered reports never undo what is known."""
    knows_more = report.filled > order.filled
    filled = max(order.filled, report.filled)
    status = report.status if report.status in TRANSITIONS[order.status] else order.status
    if filled >= order.intent.quantity:
        status = OrderStatus.FILLED

    # What a conditional order became reports under the same client id with a venue id of its own.
    own_id = report.venue_order_id if report.venue_order_id != report.child_order_id else ""
    return replace(
        order,
        status=status,
        filled=filled,
        refusal=order.refusal or REJECTED if status is OrderStatus.REFUSED else order.refusal,
        average_price=report.average_price if knows_more and report.average_price is not None else order.average_price,
        venue_order_id=order.venue_order_id or own_id,
        child_order_id=order.child_order_id or report.child_order_id,
    )


def book(order: Order, fill: Fill) -> Order:
    """Return the order with one execution; an execution booked before changes nothing."""
    if fill.fill_id in order.fills:
        return order
    booked = replace(order, fills={**order.fills, fill.fill_id: fill})
    status = order.status
    if booked.booked >= order.intent.quantity:
        status = OrderStatus.FILLED
    elif OrderStatus.PARTIALLY_FILLED in TRANSITIONS[order.status]:
        status = OrderStatus.PARTIALLY_FILLED

    return replace(booked, status=status)


def sent(order: Order, intent: OrderIntent) -> Order:
    """Return the order once `intent` is about to be sent, again perhaps: from here on it may exist."""
    if not order.may_exist and not order.never_existed:
        return order
    return replace(order, intent=intent, status=OrderStatus.IN_FLIGHT, refusal="")


def refused(order: Order, code: str) -> Order:
    """Return the order after the venue proved that it does not have it; evidence that it has outweighs this."""
    if OrderStatus.REFUSED not in TRANSITIONS[order.status] or order.executed > 0:
        return order
    return replace(order, status=OrderStatus.REFUSED, refusal=code)


def absent(order: Order) -> Order:
    """Return the order after the venue proved to have it no more; what it executed stays."""
    if order.status.is_terminal:
        return order
    ended = order.executed > 0 or order.status is OrderStatus.TRIGGERED
    return replace(order, status=OrderStatus.EXPIRED if ended else OrderStatus.REFUSED, refusal=ABSENT)
