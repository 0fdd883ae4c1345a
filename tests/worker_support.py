"""A venue in memory that can fail in every way we know of, and a clock that moves only when asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from feature_store.venue.errors import (
    OrderRefusedError,
    OutcomeUnknownError,
    RateLimitedError,
    RetryableError,
    VenueDownError,
)
from inference.domain.market import Quote
from inference.domain.order import Fill, OrderIntent, OrderReport, OrderStatus, OrderType, Side
from inference.domain.policy import EntryStyle
from inference.execution.book import Book
from inference.execution.executor import Executor
from inference.execution.ports import Recorder, VenuePosition
from inference.execution.submission import ExecutionSettings
from infra.prove.virtual import Crash, MemoryJournal, VirtualClock, abandon_everything, shuffled
from tests.worker_values import T0

__all__ = ["Crash", "MemoryJournal", "abandon_everything", "shuffled"]

FIVE_MINUTES_MS = 300_000
FEE = Decimal("0.0005")


class FakeClock(VirtualClock):
    """A virtual clock that begins where the tests' values do."""

    def __init__(self) -> None:
        super().__init__(T0)


@dataclass
class VenueOrder:
    """An order as the fake venue keeps it."""

    intent: OrderIntent
    order_id: str
    status: OrderStatus
    filled: Decimal = Decimal(0)
    price: Decimal | None = None
    child_id: str | None = None
    remaining_to_reduce: Decimal = Decimal(0)


class FakeGateway:
    """
    One account at a venue in memory. Market orders fill at the mark, conditional ones when `move` crosses them.

    `faults` is a list of words, one taken per request: "" (none), "drop" (not executed, unknown), "exec_then_drop",
    "late" (executed before the window ends, unknown), "down", "overload", "limited", "partial", "hang" (executed,
    answered after 30 s), "stale" (a query answers None).
    """

    recv_window_ms = 1500

    def __init__(self, clock: FakeClock, *, marks: dict[str, Decimal]) -> None:
        self.clock = clock
        self.marks = dict(marks)
        self.orders: dict[str, VenueOrder] = {}
        self.ended: dict[str, list[VenueOrder]] = {}
        self.held: dict[str, Decimal] = {}
        self.entry_prices: dict[str, Decimal] = {}
        self.trades: list[Fill] = []
        self.faults: list[str] = []
        self.query_faults: list[str] = []
        self.refusals: dict[str, list[int]] = {}
        self.submitted: list[OrderIntent] = []
        # Refuse a second stop while one rests.
        self.one_stop = False
        self.late: list[tuple[float, OrderIntent]] = []
        self.stream: Callable[[OrderReport | Fill], None] | None = None
        self.undelivered: list[OrderReport | Fill] = []
        self.hold_stream = False
        self.crash_at: int | None = None
        self.moments = 0
        self.on_moment: Callable[[], None] = lambda: None
        self.wallet = Decimal(10_000)
        self._ids = 0

    async def venue_now_ms(self) -> int:
        """See the port."""
        return self.clock.now_ms()

    async def equity(self) -> Decimal:
        """See the port."""
        return self.wallet

    has_countdown = False

    async def set_countdown(self, symbol: str, seconds: float) -> None:
        """See the port; this venue has none."""
        raise OrderRefusedError("no such path", code=-5000)

    async def quote(self, symbol: str) -> Quote:
        """See the port; bid and ask are the mark."""
        await self._request()
        mark = self.marks[symbol]
        return Quote(symbol=symbol, bid=mark, ask=mark, event_time_ms=self.clock.now_ms())

    async def submit(self, intent: OrderIntent) -> OrderReport:
        """See the port; takes the next of `faults`."""
        await self._request()
        fault = self.faults.pop(0) if self.faults else ""
        self.submitted.append(intent)
        if fault == "down":
            raise VenueDownError("refused to connect")
        if fault == "overload":
            raise RetryableError("overloaded", code=-1008)
        if fault == "limited":
            raise RateLimitedError("too many", retry_after_seconds=2.0)
        if fault == "drop":
            raise OutcomeUnknownError("no answer")
        if fault == "late":
            self.late.append((self.clock.seconds + 1.2, intent))
            raise OutcomeUnknownError("no answer")
        order = self._execute(intent, partial=fault == "partial")
        if fault == "hang":
            await self.clock.sleep(30)
            raise OutcomeUnknownError("timed out")
        if fault == "exec_then_drop":
            raise OutcomeUnknownError("connection reset")
        await self._answer()
        return self._report(order)

    async def query(self, intent: OrderIntent) -> OrderReport | None:
        """See the port; takes the next of `query_faults`."""
        await self._request()
        fault = self.query_faults.pop(0) if self.query_faults else ""
        if fault == "down":
            raise VenueDownError("refused to connect")
        order = self._find(intent.client_order_id)
        if fault == "stale" or order is None:
            return None
        await self._answer()
        return self._report(order)

    async def cancel(self, intent: OrderIntent) -> OrderReport | None:
        """See the port."""
        await self._request()
        order = self.orders.get(intent.client_order_id)
        if order is None:
            return None
        self._end(order, OrderStatus.CANCELED)
        await self._answer()
        return self._report(order)

    async def open_orders(self) -> list[OrderReport]:
        """See the port."""
        await self._request()
        return [self._report(order) for order in self.orders.values()]

    async def positions(self) -> list[VenuePosition]:
        """See the port."""
        await self._request()
        return [
            VenuePosition(
                symbol=symbol,
                signed_quantity=quantity,
                entry_price=self.entry_prices[symbol],
                mark_price=self.marks[symbol],
            )
            for symbol, quantity in self.held.items()
            if quantity != 0
        ]

    async def fills(self, symbol: str, since_ms: int) -> list[Fill]:
        """See the port."""
        await self._request()
        # Like the real one: no client order id here.
        return [
            replace(fill, client_order_id="")
            for fill in self.trades
            if fill.symbol == symbol and fill.event_time_ms >= since_ms
        ]

    def moment(self) -> None:
        """One moment at which the process may die; once dead it stays so until `crash_at` is taken away."""
        self.moments += 1
        self.on_moment()
        if self.crash_at is not None and self.moments >= self.crash_at:
            raise Crash

    def duplicates(self) -> list[str]:
        """Return the client order ids under which more than one order executed."""
        return [key for key, ended in self.ended.items() if sum(one.filled > 0 for one in ended) > 1]

    def move(self, symbol: str, mark: Decimal) -> None:
        """Move the price; conditional orders that it crosses fire and fill."""
        self.marks[symbol] = mark
        for order in [one for one in self.orders.values() if one.intent.symbol == symbol]:
            if order.intent.is_conditional and self._crossed(order.intent):
                self._fire(order)

    def trade_by_hand(self, symbol: str, signed_quantity: Decimal) -> None:
        """Trade on the account past the worker, as a person or a liquidation would."""
        self._book(None, symbol, signed_quantity, f"hand-{self._next()}")

    def unprotected(self) -> list[str]:
        """Return the symbols whose position no resting stop covers."""
        return [
            symbol
            for symbol, quantity in self.held.items()
            if quantity != 0
            and sum(
                (
                    order.intent.quantity - order.filled
                    for order in self.orders.values()
                    if order.intent.symbol == symbol and order.intent.order_type is OrderType.STOP_MARKET
                ),
                Decimal(0),
            )
            < abs(quantity)
        ]

    def deliver(self, order: Callable[[list[Any]], list[Any]] = lambda batch: batch) -> None:
        """Send the user stream what was held back, in an order of the test's choosing."""
        batch, self.undelivered = order(self.undelivered), []
        for event in batch:
            if self.stream is not None:
                self.stream(event)

    async def _request(self) -> None:
        self.moment()
        self._tick()
        await asyncio.sleep(0)

    async def _answer(self) -> None:
        # The second half of a request: a crash here has executed and never learned it.
        self.moment()
        await asyncio.sleep(0)

    def _tick(self) -> None:
        due = [one for one in self.late if one[0] <= self.clock.seconds]
        self.late = [one for one in self.late if one[0] > self.clock.seconds]
        for _, intent in due:
            try:
                self._execute(intent)
            except OrderRefusedError:
                continue

    def _execute(self, intent: OrderIntent, *, partial: bool = False) -> VenueOrder:
        codes = self.refusals.get(intent.purpose, [])
        if codes:
            code = codes.pop(0)
            if code:
                raise OrderRefusedError(f"refused with {code}", code=code)
        if intent.client_order_id in self.orders:
            raise OutcomeUnknownError("duplicate id", code=-4116)
        if self.one_stop and intent.order_type is OrderType.STOP_MARKET and self._rests_beside(intent):
            raise OrderRefusedError("An open stop order is existing in the direction", code=-4130)
        if intent.is_conditional and self._crossed(intent):
            raise OrderRefusedError("would immediately trigger", code=-2021)
        signed = self.held.get(intent.symbol, Decimal(0))
        reducing = signed < 0 if intent.side is Side.BUY else signed > 0
        if intent.reduce_only and not reducing:
            raise OrderRefusedError("ReduceOnly Order is rejected", code=-2022)
        order = VenueOrder(intent=intent, order_id=self._next(), status=OrderStatus.ACCEPTED)
        self.orders[intent.client_order_id] = order
        self._emit(self._report(order))
        if not intent.is_conditional:
            self._fill(order, half=partial)
        return order

    def _rests_beside(self, intent: OrderIntent) -> bool:
        likes = (one.intent for one in self.orders.values())
        return any(one.symbol == intent.symbol and one.order_type is intent.order_type for one in likes)

    def _fire(self, order: VenueOrder) -> None:
        order.child_id = self._next()
        order.status = OrderStatus.TRIGGERED
        self._emit(self._report(order))
        self._fill(order)

    def _fill(self, order: VenueOrder, *, half: bool = False) -> None:
        intent = order.intent
        quantity = intent.quantity - order.filled
        if half:
            quantity = (quantity / 2).quantize(Decimal("0.001"))
        if intent.reduce_only:
            quantity = min(quantity, abs(self.held.get(intent.symbol, Decimal(0))))
        if quantity > 0:
            order.filled += quantity
            order.price = self.marks[intent.symbol]
            signed = quantity if intent.side is Side.BUY else -quantity
            self._book(intent, intent.symbol, signed, order.child_id or order.order_id)
        self._end(order, OrderStatus.FILLED if order.filled >= intent.quantity else OrderStatus.EXPIRED)

    def _book(self, intent: OrderIntent | None, symbol: str, signed: Decimal, order_id: str) -> None:
        before = self.held.get(symbol, Decimal(0))
        self.held[symbol] = before + signed
        if before == 0 or before * self.held[symbol] < 0:
            self.entry_prices[symbol] = self.marks[symbol]
        fill = Fill(
            fill_id=self._next(),
            client_order_id=intent.client_order_id if intent else "",
            venue_order_id=order_id,
            symbol=symbol,
            side=Side.BUY if signed > 0 else Side.SELL,
            quantity=abs(signed),
            price=self.marks[symbol],
            fee=abs(signed) * self.marks[symbol] * FEE,
            is_maker=False,
            event_time_ms=self.clock.now_ms(),
        )
        self.trades.append(fill)
        self._emit(fill)

    def _end(self, order: VenueOrder, status: OrderStatus) -> None:
        order.status = status
        self.orders.pop(order.intent.client_order_id, None)
        self.ended.setdefault(order.intent.client_order_id, []).append(order)
        self._emit(self._report(order))

    def _find(self, client_order_id: str) -> VenueOrder | None:
        ended = self.ended.get(client_order_id, [])
        return self.orders.get(client_order_id) or (ended[-1] if ended else None)

    def _crossed(self, intent: OrderIntent) -> bool:
        mark, trigger = self.marks[intent.symbol], intent.trigger_price
        assert trigger is not None
        below = (intent.order_type is OrderType.STOP_MARKET) == (intent.side is Side.SELL)
        return mark <= trigger if below else mark >= trigger

    def _report(self, order: VenueOrder) -> OrderReport:
        return OrderReport(
            client_order_id=order.intent.client_order_id,
            venue_order_id=order.order_id,
            symbol=order.intent.symbol,
            status=order.status,
            filled=order.filled,
            average_price=order.price,
            event_time_ms=self.clock.now_ms(),
            child_order_id=order.child_id,
        )

    def _emit(self, event: OrderReport | Fill) -> None:
        if self.hold_stream:
            self.undelivered.append(event)
        elif self.stream is not None:
            self.stream(event)

    def _next(self) -> str:
        self._ids += 1
        return str(self._ids)


def make_executor(
    gateway: FakeGateway,
    journal: Recorder,
    *,
    book: Book | None = None,
    may_double: bool = True,
    entry_style: EntryStyle = EntryStyle.MARKET,
    traded: Callable[[str], Decimal | None] = lambda _: None,
    order_took: Callable[[float], None] = lambda _: None,
    is_followed: Callable[[str], bool] = lambda _: True,
    **settings: float,
) -> Executor:
    clock = gateway.clock
    executor = Executor(
        gateway=gateway,
        journal=journal,
        book=book or Book(),
        now_ms=clock.now_ms,
        monotonic=clock.monotonic,
        sleep=clock.sleep,
        taker_fee=FEE,
        settings=ExecutionSettings(**settings),
        entry_style=entry_style,
        may_double=may_double,
        traded=traded,
        order_took=order_took,
        is_followed=is_followed,
    )

    def stream(event: OrderReport | Fill) -> None:
        # The venue does not notice that we died while listening.
        with suppress(Crash):
            if isinstance(event, Fill):
                executor.on_fill(event)
            else:
                executor.on_report(event)

    gateway.stream = stream
    return executor
