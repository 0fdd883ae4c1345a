"""How an entry is worked: at market, resting until its time is over, or following the best price without taking."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from inference.domain.market import Quote
from inference.domain.order import OrderIntent, OrderStatus, OrderType, Purpose, Side
from inference.domain.policy import EntryStyle
from inference.domain.signal import Direction
from inference.execution.book import Trade
from inference.execution.lifecycle import ABSENT, Order
from inference.execution.steps import Cancel, Place, Resolve, Step, intent_of

# The venue's words for: it would have taken at once.
WOULD_TAKE = "-5022"


@dataclass(frozen=True, slots=True)
class Wish:
    """
    What is still wanted of an entry, which only the process that decided knows; after a restart nothing is.

    `is_late` says that it may rest no longer, `quote` what the best prices are, where that was asked.
    """

    may_enter: bool = False
    is_late: bool = False
    quote: Quote | None = None


NOTHING_WANTED = Wish()


def entry_step(trade: Trade, wish: Wish) -> Step | None:
    """Return what the entry needs next; None also where it rests as it should."""
    entries = trade.of(Purpose.ENTRY)
    for order in entries:
        if order.may_exist:
            return Resolve(order)
        if order.is_live:
            return _watch(trade, order, wish)
    if not _is_open(trade, wish):
        return None
    if trade.plan.entry_style is EntryStyle.MARKET:
        unsent = all(order.never_existed for order in entries)
        return Place(intent_of(trade, Purpose.ENTRY, trade.plan.quantity)) if unsent else None
    intent = _next_order(trade, entries, wish)
    return None if intent is None else Place(intent)


def is_under_way(trade: Trade, wish: Wish) -> bool:
    """Whether an entry that rests, or waits for a price to rest at, may still add to the trade."""
    if trade.plan.entry_style is EntryStyle.MARKET or not _is_open(trade, wish):
        return False
    entries = trade.of(Purpose.ENTRY)
    if any(order.is_live or order.may_exist for order in entries):
        return True
    return not wish.is_late and trade.entered < trade.plan.quantity and _may_go_on(entries)


def needs_quote(trade: Trade, wish: Wish) -> bool:
    """Whether the next step of an entry depends on the best prices: to rest at one, or to follow it."""
    if wish.is_late or not is_under_way(trade, wish):
        return False
    entries = trade.of(Purpose.ENTRY)
    if any(order.may_exist for order in entries):
        return False
    return trade.plan.entry_style is EntryStyle.POST_ONLY or not any(order.is_live for order in entries)


def _is_open(trade: Trade, wish: Wish) -> bool:
    # Where somebody else had a hand in the position, what is missing of ours is not known.
    return wish.may_enter and trade.exit_reason is None and trade.result is None and trade.external == 0


def _watch(trade: Trade, order: Order, wish: Wish) -> Step | None:
    if not order.intent.rests:
        return Resolve(order)
    if not _is_open(trade, wish) or wish.is_late:
        return Cancel(order)
    if trade.plan.entry_style is EntryStyle.POST_ONLY and wish.quote is not None:
        # Only after a better price of our own side; behind a worse one we are first already.
        touch = _touch(order.intent.side, wish.quote)
        moved = touch - (order.intent.limit_price or Decimal(0))
        if ((moved > 0) if order.intent.side is Side.BUY else (moved < 0)) and _is_short_of_target(trade, touch):
            return Cancel(order)
    return None


def _next_order(trade: Trade, entries: list[Order], wish: Wish) -> OrderIntent | None:
    missing = trade.plan.quantity - trade.entered
    if missing <= 0 or not _may_go_on(entries):
        return None
    style = trade.plan.entry_style
    if wish.is_late:
        return intent_of(trade, Purpose.ENTRY, missing) if style is EntryStyle.LIMIT else None
    if wish.quote is None:
        return None
    price = _touch(Side.opening(trade.plan.direction), wish.quote)
    post_only = style is EntryStyle.POST_ONLY
    if post_only and not _is_short_of_target(trade, price):
        return None
    return intent_of(trade, Purpose.ENTRY, missing, limit_price=price, post_only=post_only)


def _may_go_on(entries: list[Order]) -> bool:
    """Whether another order may follow: after one that rested and ended, never after a refusal or a market order."""
    if not entries or entries[-1].never_existed:
        return True
    last = entries[-1]
    # What the venue forgot after it had executed in part may have executed further: unknown is not missing.
    if last.intent.order_type is OrderType.MARKET or last.refusal == ABSENT:
        return False
    return last.refusal == WOULD_TAKE if last.status is OrderStatus.REFUSED else last.status is not OrderStatus.FILLED


def _is_short_of_target(trade: Trade, price: Decimal) -> bool:
    """Whether there is anything left to gain: whoever follows a price beyond the target pays twice for nothing."""
    target = trade.plan.target_price
    return price < target if trade.plan.direction is Direction.LONG else price > target


def _touch(side: Side, quote: Quote) -> Decimal:
    return quote.bid if side is Side.BUY else quote.ask
