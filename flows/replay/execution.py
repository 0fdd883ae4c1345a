"""
Trades carried out at the matching engine at once: the worker's own book and next step, without a wire between.

The engine answers within the call, so nothing is ever unknown; what the worker does about answers that do not come has
no part in a backtest.
"""

from __future__ import annotations

from decimal import Decimal

from inference.domain.decision import Approved
from inference.domain.events import (
    ExitRequested,
    FillBooked,
    OrderIntended,
    OrderRefused,
    OrderReported,
    TradeClosed,
    TradePlanned,
)
from inference.domain.order import Fill, OrderIntent, OrderReport, OrderStatus, Side
from inference.domain.trade import ExitReason, TradePlan, TradeResult
from inference.execution.book import Book
from inference.execution.client_order_id import trade_id_of
from inference.execution.next_step import Cancel, Finish, Leave, Place, next_step
from inference.execution.result import trade_result
from infra.sandbox.engine import model as venue
from infra.sandbox.engine.errors import VenueError
from infra.sandbox.engine.exchange import Exchange

_MAX_STEPS = 40
_STATUS = {
    venue.OrderStatus.NEW: OrderStatus.ACCEPTED,
    venue.OrderStatus.PARTIALLY_FILLED: OrderStatus.PARTIALLY_FILLED,
    venue.OrderStatus.FILLED: OrderStatus.FILLED,
    venue.OrderStatus.CANCELED: OrderStatus.CANCELED,
    venue.OrderStatus.EXPIRED: OrderStatus.EXPIRED,
}


class InstantExecution:
    """Opens, protects and closes trades at an engine; `results` are those that ended, in that order."""

    def __init__(self, exchange: Exchange, *, taker_fee: Decimal) -> None:
        self.book = Book()
        self.results: list[tuple[TradePlan, TradeResult]] = []
        self._exchange = exchange
        self._taker_fee = taker_fee

    def enter(self, approved: Approved, *, now_ms: int) -> None:
        """Turn an approval into a protected position, as far as the venue takes it."""
        signal = approved.signal
        plan = TradePlan(
            trade_id=trade_id_of(signal.trace_id),
            trace_id=signal.trace_id,
            symbol=approved.symbol,
            direction=approved.direction,
            quantity=approved.quantity,
            reference_price=approved.reference_price,
            stop_price=approved.stop_price,
            target_price=approved.target_price,
            risk=approved.risk,
            confidence=signal.confidence,
            model_version=signal.model_version,
            candle_close_ms=now_ms,
            planned_at_ms=now_ms,
        )
        self.book.apply(TradePlanned(plan=plan))
        self._settle(plan.trade_id, now_ms=now_ms, may_enter=True)

    def leave(self, symbol: str, reason: ExitReason, *, now_ms: int) -> None:
        """End a symbol's trade at market."""
        for trade in self.book.active_in(symbol):
            self.book.apply(ExitRequested(trade_id=trade.plan.trade_id, reason=reason, detail=""))
            self._settle(trade.plan.trade_id, now_ms=now_ms)

    def hear(self, *, now_ms: int) -> bool:
        """Take in what the engine has done by itself, stops and targets; return whether anything had happened."""
        touched = self._take_events()
        for symbol in sorted(touched):
            for trade in self.book.active_in(symbol):
                self._settle(trade.plan.trade_id, now_ms=now_ms)
        return bool(touched)

    def _settle(self, trade_id: str, *, now_ms: int, may_enter: bool = False) -> None:
        for _ in range(_MAX_STEPS):
            trade = self.book.trades[trade_id]
            step = next_step(trade, may_enter=may_enter)
            match step:
                case None:
                    return
                case Place(intent=intent):
                    self._place(intent, now_ms=now_ms)
                case Cancel(order=order):
                    self._cancel(order.intent, now_ms=now_ms)
                case Leave(reason=reason, detail=detail):
                    self.book.apply(ExitRequested(trade_id=trade_id, reason=reason, detail=detail))
                case Finish():
                    result = trade_result(trade, closed_at_ms=now_ms, taker_fee=self._taker_fee)
                    self.book.apply(TradeClosed(trade_id=trade_id, result=result))
                    self.results.append((trade.plan, result))
                case _:
                    raise RuntimeError(f"Nothing is unknown at an engine in process, but a trade needs {step}")
        raise RuntimeError(f"Trade {trade_id} does not come to rest")

    def _place(self, intent: OrderIntent, *, now_ms: int) -> None:
        self.book.apply(OrderIntended(intent=intent))
        try:
            if intent.is_conditional:
                algo = self._exchange.submit_algo(_algo(intent), now_ms=now_ms)
                status, venue_id = OrderStatus.ACCEPTED, f"a{algo.algo_id}"
                filled = Decimal(0)
            else:
                order = self._exchange.submit(_order(intent), now_ms=now_ms)
                status, venue_id, filled = _STATUS[order.status], str(order.order_id), order.filled
        except VenueError as refusal:
            self.book.apply(
                OrderRefused(client_order_id=intent.client_order_id, code=str(refusal.code), message=refusal.message)
            )
            return
        self._take_events()
        self._report(intent.client_order_id, intent.symbol, venue_id, status, filled, now_ms)

    def _cancel(self, intent: OrderIntent, *, now_ms: int) -> None:
        if intent.is_conditional:
            self._exchange.cancel_algo(client_algo_id=intent.client_order_id, now_ms=now_ms)
        else:
            self._exchange.cancel(intent.symbol, client_order_id=intent.client_order_id, now_ms=now_ms)
        self._take_events()
        self._report(intent.client_order_id, intent.symbol, "", OrderStatus.CANCELED, Decimal(0), now_ms)

    def _report(
        self, key: str, symbol: str, venue_id: str, status: OrderStatus, filled: Decimal, now_ms: int,
        child: str | None = None,
    ) -> None:  # fmt: skip
        report = OrderReport(
            client_order_id=key,
            venue_order_id=venue_id,
            symbol=symbol,
            status=status,
            filled=filled,
            average_price=None,
            event_time_ms=now_ms,
            child_order_id=child,
        )
        self.book.apply(OrderReported(report=report))

    def _take_events(self) -> set[str]:
        touched = set()
        for event in self._exchange.drain():
            if not isinstance(event, venue.OrderEvent):
                continue
            order, trade = event.order, event.trade
            if self.book.order(order.client_order_id) is None:
                continue
            touched.add(order.symbol)
            if trade is not None:
                self.book.apply(FillBooked(fill=_fill(trade)))
            if order.algo_id:
                status = _STATUS[order.status] if not order.is_open else OrderStatus.TRIGGERED
                self._report(
                    order.client_order_id, order.symbol, f"a{order.algo_id}", status, order.filled, event.time_ms,
                    child=str(order.order_id),
                )  # fmt: skip
        return touched


def _order(intent: OrderIntent) -> venue.OrderRequest:
    return venue.OrderRequest(
        intent.symbol,
        venue.Side(intent.side.value),
        venue.OrderType.MARKET,
        intent.quantity,
        reduce_only=intent.reduce_only,
        client_order_id=intent.client_order_id,
    )


def _algo(intent: OrderIntent) -> venue.AlgoRequest:
    return venue.AlgoRequest(
        intent.symbol,
        venue.Side(intent.side.value),
        venue.OrderType(intent.order_type.value),
        intent.quantity,
        trigger_price=intent.trigger_price,
        reduce_only=True,
        client_algo_id=intent.client_order_id,
    )


def _fill(trade: venue.Trade) -> Fill:
    return Fill(
        fill_id=str(trade.trade_id),
        client_order_id=trade.client_order_id,
        venue_order_id=str(trade.order_id),
        symbol=trade.symbol,
        side=Side(trade.side.value),
        quantity=trade.quantity,
        price=trade.price,
        fee=trade.fee,
        is_maker=trade.is_maker,
        event_time_ms=trade.time_ms,
    )
