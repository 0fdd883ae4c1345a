"""What a trade came to, counted from its executions."""

from __future__ import annotations

from decimal import Decimal

from inference.domain.order import Purpose
from inference.domain.signal import Direction
from inference.domain.trade import ExitReason, TradeResult
from inference.execution.book import Trade
from inference.execution.lifecycle import Order


def explained(trade: Trade) -> bool:
    """Whether single executions explain every quantity that order reports claim."""
    return all(order.booked >= order.filled for order in trade.orders.values())


def trade_result(trade: Trade, *, closed_at_ms: int, taker_fee: Decimal) -> TradeResult:
    """
    Return the money of a flat trade.

    Where executions are missing, their price is the order report's and their fee is `taker_fee`: an estimate, marked
    by `fills_complete` being False. What somebody else closed is valued at the price that was seen with it.
    """
    entries = trade.of(Purpose.ENTRY)
    exits = [order for order in trade.orders.values() if order.intent.reduce_only]
    fallback = trade.entry_price or trade.plan.reference_price
    external = max(Decimal(0), trade.entered - trade.exited)
    found = max(Decimal(0), trade.exited - trade.entered)
    external_price = trade.external_price or fallback

    bought_in = _value(entries, fallback) + found * fallback
    sold_out = _value(exits, external_price) + external * external_price
    gross = sold_out - bought_in if trade.plan.direction is Direction.LONG else bought_in - sold_out
    fees = sum((_fees(order, fallback, taker_fee) for order in trade.orders.values()), Decimal(0))
    if external > 0:
        fees += trade.external_fees
    fills = [fill for order in trade.orders.values() for fill in order.fills.values()]
    out = trade.exited + external
    quantity = trade.entered + found

    return TradeResult(
        symbol=trade.symbol,
        direction=trade.plan.direction,
        reason=exit_reason(trade),
        quantity=quantity,
        entry_price=trade.entry_price,
        exit_price=sold_out / out if out > 0 else None,
        pnl=gross - fees,
        fees=fees,
        opened_at_ms=min((fill.event_time_ms for fill in fills), default=trade.plan.planned_at_ms),
        closed_at_ms=max((fill.event_time_ms for fill in fills), default=closed_at_ms),
        fills_complete=explained(trade) and external == 0 and found == 0,
    )


def exit_reason(trade: Trade) -> ExitReason:
    """Return why the trade ended: by the order that closed most of it."""
    closed = {
        purpose: sum((order.executed for order in trade.of(purpose)), Decimal(0))
        for purpose in (Purpose.EXIT, Purpose.STOP, Purpose.TARGET)
    }
    external = max(Decimal(0), trade.entered - trade.exited)
    most = max(closed, key=lambda purpose: closed[purpose])
    if closed[most] == 0 and external == 0:
        return ExitReason.NOT_ENTERED
    if external > closed[most]:
        return ExitReason.EXTERNAL
    if most is Purpose.EXIT:
        return trade.exit_reason or ExitReason.OPERATOR
    return _stop_reason(trade.of(Purpose.STOP)) if most is Purpose.STOP else ExitReason.TARGET


def _stop_reason(stops: list[Order]) -> ExitReason:
    because = max(stops, key=lambda order: order.executed).intent.because
    return because if isinstance(because, ExitReason) else ExitReason.STOP


def _value(orders: list[Order], fallback: Decimal) -> Decimal:
    return sum((order.traded(fallback) for order in orders), Decimal(0))


def _fees(order: Order, fallback: Decimal, taker_fee: Decimal) -> Decimal:
    known = sum((fill.fee for fill in order.fills.values()), Decimal(0))
    missing = max(Decimal(0), order.executed - order.booked)
    return known + missing * (order.price or fallback) * taker_fee
