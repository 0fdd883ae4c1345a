"""
Trades carried out at the matching engine at once: the worker's own book and next step, without a wire between.

The engine answers within the call, so nothing is ever unknown; what the worker does about answers that do not come has
no part in a backtest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal

from inference.domain.decision import Approved
from inference.domain.events import (
    Event,
    ExitObserved,
    ExitRequested,
    FillBooked,
    OrderIntended,
    OrderRefused,
    OrderReported,
    TradeClosed,
    TradePlanned,
)
from inference.domain.exit_state import CandleClosed
from inference.domain.market import Quote
from inference.domain.order import Fill, OrderIntent, OrderReport, OrderStatus, OrderType, Side
from inference.domain.policy import Policy
from inference.domain.trade import ExitReason, TradePlan, TradeResult
from inference.execution.book import Book, Trade
from inference.execution.entering import WOULD_TAKE, Wish, is_under_way, needs_quote
from inference.execution.exit_following import is_news
from inference.execution.next_step import Cancel, Finish, Leave, Place, Step, next_step
from inference.execution.planning import trade_plan
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
    """
    Opens, protects and closes trades at an engine; `results` are those that ended, in that order.

    Entries are worked as the policy says. One that rests is looked at by `watch`, which its owner calls at each price;
    it is wanted for `valid_ms` after the close that it was decided at, as the worker wants it. `told` hears which
    trades begin and end, and when.
    """

    def __init__(
        self,
        exchange: Exchange,
        policy: Policy,
        *,
        quote: Callable[[str, int], Quote],
        valid_ms: int,
        told: Callable[[Event, int], None] = lambda _event, _at_ms: None,
    ) -> None:
        self.book = Book()
        self.results: list[tuple[TradePlan, TradeResult]] = []
        self._exchange = exchange
        self._policy = policy
        self._quote = quote
        self._valid_ms = valid_ms
        self._told = told
        # Trades whose entry may still add to them, by symbol.
        self._entering: dict[str, str] = {}

    def enter(self, approved: Approved, *, now_ms: int) -> None:
        """Turn an approval into a protected position, as far as the venue takes it by now."""
        plan = trade_plan(
            approved,
            candle_close_ms=now_ms,
            now_ms=now_ms,
            style=self._policy.entry_style,
            patience_ms=self._policy.entry_patience_seconds * 1000,
            arrival_price=None,
        )
        planned = TradePlanned(plan=plan)
        self.book.apply(planned)
        self._told(planned, now_ms)
        self._entering[plan.symbol] = plan.trade_id
        self._settle(plan.trade_id, now_ms=now_ms)

    @property
    def resting(self) -> tuple[str, ...]:
        """The symbols in which an entry rests, or waits for a price to rest at, in a fixed order."""
        return tuple(sorted(self._entering))

    def watch(self, *, now_ms: int) -> None:
        """Let entries that rest follow the price, or end: the worker's look at them, at the price in force."""
        for symbol in self.resting:
            self._settle(self._entering[symbol], now_ms=now_ms)

    def give_up(self, *, now_ms: int) -> None:
        """Take away what rests, as a worker that is stopped."""
        left, self._entering = self._entering, {}
        for _, trade_id in sorted(left.items()):
            self._settle(trade_id, now_ms=now_ms)

    def leave(self, symbol: str, reason: ExitReason, *, now_ms: int) -> None:
        """End a symbol's trade at market."""
        for trade in self.book.active_in(symbol):
            self.book.apply(ExitRequested(trade_id=trade.plan.trade_id, reason=reason, detail=""))
            self._settle(trade.plan.trade_id, now_ms=now_ms)

    def observe(self, closes: Mapping[str, Decimal], *, now_ms: int) -> None:
        """Tell exit profiles of the candles that closed at this moment; a symbol without one has a candle missing."""
        for trade in sorted(self.book.active(), key=lambda one: one.symbol):
            seen = CandleClosed(close_ms=now_ms, close=closes.get(trade.symbol))
            if is_news(trade, seen):
                self.book.apply(ExitObserved(trade_id=trade.plan.trade_id, seen=seen))
                self._settle(trade.plan.trade_id, now_ms=now_ms)

    def hear(self, *, now_ms: int) -> bool:
        """Take in what the engine has done by itself, stops and targets; return whether anything had happened."""
        touched = self._take_events()
        for symbol in sorted(touched):
            for trade in self.book.active_in(symbol):
                self._settle(trade.plan.trade_id, now_ms=now_ms)
        return bool(touched)

    def _settle(self, trade_id: str, *, now_ms: int) -> None:
        for _ in range(_MAX_STEPS):
            trade = self.book.trades[trade_id]
            step = self._next_step(trade, now_ms=now_ms)
            if step is None or not self._take(trade, step, now_ms=now_ms):
                break
        else:
            raise RuntimeError(f"Trade {trade_id} does not come to rest")
        trade = self.book.trades[trade_id]
        if not is_under_way(trade, self._wish(trade, now_ms)) and self._entering.get(trade.symbol) == trade_id:
            del self._entering[trade.symbol]

    def _next_step(self, trade: Trade, *, now_ms: int) -> Step | None:
        wish = self._wish(trade, now_ms)
        step = next_step(trade, wish=wish)
        if step is None and needs_quote(trade, wish):
            step = next_step(trade, wish=replace(wish, quote=self._quote(trade.symbol, now_ms)))
        return step

    def _take(self, trade: Trade, step: Step, *, now_ms: int) -> bool:
        # Returns whether more may be due at this price.
        match step:
            case Place(intent=intent):
                # What would have taken at this price waits for another.
                return self._place(intent, now_ms=now_ms) != WOULD_TAKE
            case Cancel(order=order):
                self._cancel(order.intent, now_ms=now_ms)
            case Leave(reason=reason, detail=detail):
                self.book.apply(ExitRequested(trade_id=trade.plan.trade_id, reason=reason, detail=detail))
            case Finish():
                result = trade_result(trade, closed_at_ms=now_ms, taker_fee=self._policy.taker_fee)
                closed = TradeClosed(trade_id=trade.plan.trade_id, result=result)
                self.book.apply(closed)
                self._told(closed, now_ms)
                self.results.append((trade.plan, result))
            case _:
                raise RuntimeError(f"Nothing is unknown at an engine in process, but a trade needs {step}")
        return True

    def _wish(self, trade: Trade, now_ms: int) -> Wish:
        plan = trade.plan
        wanted = self._entering.get(plan.symbol) == plan.trade_id and now_ms - plan.candle_close_ms <= self._valid_ms
        return Wish(may_enter=wanted, is_late=now_ms >= plan.entry_until_ms)

    def _place(self, intent: OrderIntent, *, now_ms: int) -> str:
        # Returns the code of its refusal, empty where there is none.
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
            code = str(refusal.code)
            self.book.apply(OrderRefused(client_order_id=intent.client_order_id, code=code, message=refusal.message))
            return code
        self._take_events()
        self._report(intent.client_order_id, intent.symbol, venue_id, status, filled, now_ms)
        return ""

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
        venue.OrderType(intent.order_type.value),
        intent.quantity,
        price=intent.limit_price if intent.order_type is OrderType.LIMIT else None,
        time_in_force=venue.TimeInForce.GTX if intent.post_only else venue.TimeInForce.GTC,
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
