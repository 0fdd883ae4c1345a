"""An account at the sandbox's matching engine without its wire: the worker's gateway, with faults on demand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from decimal import Decimal
from typing import Any, TypeVar

from feature_store.venue.errors import (
    OrderRefusedError,
    OutcomeUnknownError,
    RateLimitedError,
    RetryableError,
    VenueDownError,
)
from inference.domain.market import Quote
from inference.domain.order import Fill, OrderIntent, OrderReport, OrderType
from inference.exchange import ccxt_mapping as mapped
from inference.execution.ports import VenuePosition
from infra.prove.virtual import Crash, VirtualClock
from infra.sandbox.audit import Auditor
from infra.sandbox.engine import countdown, model, state
from infra.sandbox.engine.errors import VenueError
from infra.sandbox.engine.exchange import Exchange
from infra.sandbox.engine.instrument import Instrument
from infra.sandbox.protocol import shapes
from infra.sandbox.protocol.user_events import user_event

_T = TypeVar("_T")
_LATE_S, _HANGS_S, _REST_S = 1.2, 30.0, 2.0
SENDING_FAULTS = ("drop", "exec_then_drop", "late", "down", "overload", "limited", "hang")
ASKING_FAULTS = ("down", "stale", "limited")


class EngineGateway:
    """
    Implements `inference.execution.ports.Gateway` on the engine itself, through the words of its wire.

    `sending_faults` and `asking_faults` are taken one by one by requests: "" is none, "drop" was not executed and not
    answered, "exec_then_drop" executed and not answered, "late" executed before the window ends, "down", "overload" and
    "limited" not executed, "hang" executed and answered after half a minute, "stale" denied though it may be there.
    `crash_at` kills the process at that moment, of which there are two to a request.
    """

    recv_window_ms = 2000

    def __init__(self, clock: VirtualClock, instruments: dict[str, Instrument], *, balance: Decimal) -> None:
        self.clock = clock
        self.exchange = Exchange(instruments.values(), state.new_state(balance))
        self.auditor = Auditor()
        self.prices = {}  # type: dict[str, Decimal]
        self.sending_faults: list[str] = []
        self.asking_faults: list[str] = []
        self.faults_met = 0
        self.stream: Callable[[OrderReport | Fill], None] | None = None
        self.undelivered: list[OrderReport | Fill] = []
        self.holds_stream = False
        self.crash_at: int | None = None
        self.moments = 0
        self.is_dead = False
        self._names = {one.symbol: name for name, one in instruments.items()}
        self._native = {name: one.symbol for name, one in instruments.items()}
        self._late: list[tuple[float, OrderIntent]] = []

    # -- the port -------------------------------------------------------------------------------------------------

    async def venue_now_ms(self) -> int:
        """See the port."""
        return self.clock.now_ms()

    async def equity(self) -> Decimal:
        """See the port."""
        return self.exchange.margin().balance

    async def quote(self, symbol: str) -> Quote:
        """See the port."""
        await self._request(self.asking_faults)
        return self._quote(symbol)

    @property
    def has_countdown(self) -> bool:
        """See the port."""
        return True

    async def set_countdown(self, symbol: str, seconds: float) -> None:
        """See the port; takes the next of `asking_faults`."""
        await self._request(self.asking_faults)
        countdown.set_countdown(self.exchange, self._native[symbol], round(seconds * 1000), now_ms=self.clock.now_ms())
        await self._answered(None)

    async def submit(self, intent: OrderIntent) -> OrderReport:
        """See the port; takes the next of `sending_faults`."""
        fault = await self._request(self.sending_faults)
        if fault == "overload":
            raise RetryableError("overloaded", code=-1008)
        if fault == "drop":
            raise OutcomeUnknownError("no answer")
        if fault == "late":
            self._late.append((self.clock.seconds + _LATE_S, intent))
            raise OutcomeUnknownError("no answer")
        try:
            report = self._sent(intent)
        except VenueError as refusal:
            self._settle()
            if refusal.code == -4116:
                raise OutcomeUnknownError(refusal.message, code=refusal.code) from refusal
            raise OrderRefusedError(refusal.message, code=refusal.code) from refusal
        self._settle()
        if fault == "hang":
            await self.clock.sleep(_HANGS_S)
            raise OutcomeUnknownError("timed out")
        if fault == "exec_then_drop":
            raise OutcomeUnknownError("connection reset")
        return await self._answered(report)

    async def query(self, intent: OrderIntent) -> OrderReport | None:
        """See the port; takes the next of `asking_faults`."""
        fault = await self._request(self.asking_faults)
        report = None if fault == "stale" else self._found(intent)
        return await self._answered(report)

    async def cancel(self, intent: OrderIntent) -> OrderReport | None:
        """See the port; takes the next of `asking_faults`."""
        await self._request(self.asking_faults)
        try:
            now_ms = self.clock.now_ms()
            if intent.is_conditional:
                self.exchange.cancel_algo(client_algo_id=intent.client_order_id, now_ms=now_ms)
            else:
                self.exchange.cancel(self._native[intent.symbol], client_order_id=intent.client_order_id, now_ms=now_ms)
        except VenueError:
            return None
        self._settle()
        return await self._answered(self._found(intent))

    async def open_orders(self) -> list[OrderReport]:
        """See the port."""
        await self._request(self.asking_faults)
        plain = [
            mapped.order_report(shapes.order(one), symbol=self._names[one.symbol])
            for one in self.exchange.open_orders()
        ]
        return plain + [self._algo(one) for one in self.exchange.open_algos()]

    async def positions(self) -> list[VenuePosition]:
        """See the port."""
        await self._request(self.asking_faults)
        account = self.exchange.margin()
        return [
            mapped.venue_position(shapes.position_risk(self.exchange, one, account), symbol=self._names[one.symbol])
            for one in self.exchange.state.open_positions()
        ]

    async def fills(self, symbol: str, since_ms: int) -> list[Fill]:
        """See the port."""
        await self._request(self.asking_faults)
        native = self._native[symbol]
        return [
            mapped.fill(shapes.trade(one), symbol=symbol)
            for one in self.exchange.state.trades
            if one.symbol == native and one.time_ms >= since_ms
        ]

    # -- what happens at the venue --------------------------------------------------------------------------------

    def _run_countdowns(self) -> None:
        countdown.run(self.exchange, now_ms=self.clock.now_ms())
        self._settle()

    def move(self, symbol: str, price: Decimal) -> None:
        """Trade at a price: conditional orders that it reaches fire, resting orders that it passes fill."""
        self.prices[symbol] = price
        self.exchange.tick({self._native[symbol]: price}, now_ms=self.clock.now_ms())
        self._settle()

    def trade_by_hand(self, symbol: str, signed_quantity: Decimal) -> None:
        """Trade on the account past the worker, as a person would."""
        request = model.OrderRequest(
            symbol=self._native[symbol],
            side=model.Side.BUY if signed_quantity > 0 else model.Side.SELL,
            type=model.OrderType.MARKET,
            quantity=abs(signed_quantity),
            client_order_id=f"hand-{self.exchange.state.next_order_id}",
        )
        self.exchange.submit(request, now_ms=self.clock.now_ms())
        self._settle()

    def deliver(self, reorder: Callable[[list[Any]], list[Any]] = lambda batch: batch) -> None:
        """Send the user stream what was held back, in an order of the caller's choosing."""
        batch, self.undelivered = reorder(self.undelivered), []
        for event in batch:
            self._emit_now(event)

    def moment(self) -> None:
        """One moment at which the process may die; once dead it stays so until `crash_at` is taken away."""
        self.moments += 1
        if self.crash_at is not None and self.moments >= self.crash_at:
            self.is_dead = True
            raise Crash

    def held(self) -> dict[str, Decimal]:
        """Return what is held by symbol, short negative."""
        return {self._names[one.symbol]: one.quantity for one in self.exchange.state.open_positions()}

    def resting(self) -> set[str]:
        """Return our ids of all orders that rest."""
        plain = {one.client_order_id for one in self.exchange.open_orders()}
        return plain | {one.client_algo_id for one in self.exchange.open_algos()}

    def longest_bare_s(self) -> float:
        """Return how long a position that is bare now has been so, in virtual seconds."""
        wall_ms = self.clock.seconds * 1000
        open_now = self.auditor.intervals(now_ms=self.clock.now_ms(), wall_ms=wall_ms)[len(self.auditor.finished) :]
        return max((one.wall_ms for one in open_now), default=0.0) / 1000

    def _quote(self, symbol: str) -> Quote:
        instrument, last = self.exchange.instruments[self._native[symbol]], self.prices[symbol]
        best = self.exchange.book.best
        return Quote(
            symbol=symbol,
            bid=best(instrument, last, model.Side.SELL),
            ask=best(instrument, last, model.Side.BUY),
            event_time_ms=self.clock.now_ms(),
        )

    async def _request(self, faults: list[str]) -> str:
        self.moment()
        self._run_late()
        self._run_countdowns()
        await asyncio.sleep(0)
        fault = faults.pop(0) if faults else ""
        self.faults_met += bool(fault)
        if fault == "down":
            raise VenueDownError("refused to connect")
        if fault == "limited":
            raise RateLimitedError("too many", retry_after_seconds=_REST_S)
        return fault

    async def _answered(self, answer: _T) -> _T:
        # The second half of a request: a crash here has executed and never learned it.
        self.moment()
        await asyncio.sleep(0)
        return answer

    def _run_late(self) -> None:
        due = [intent for at, intent in self._late if at <= self.clock.seconds]
        self._late = [one for one in self._late if one[0] > self.clock.seconds]
        for intent in due:
            try:
                self._sent(intent)
            except VenueError:
                continue
            finally:
                self._settle()

    def _sent(self, intent: OrderIntent) -> OrderReport:
        native, now_ms = self._native[intent.symbol], self.clock.now_ms()
        side, kind = model.Side(intent.side.value), model.OrderType(intent.order_type.value)
        if intent.is_conditional:
            algo = model.AlgoRequest(
                symbol=native,
                side=side,
                type=kind,
                quantity=intent.quantity,
                trigger_price=intent.trigger_price,
                reduce_only=intent.reduce_only,
                client_algo_id=intent.client_order_id,
            )
            return self._algo(self.exchange.submit_algo(algo, now_ms=now_ms))
        plain = model.OrderRequest(
            symbol=native,
            side=side,
            type=kind,
            quantity=intent.quantity,
            price=intent.limit_price if intent.order_type is OrderType.LIMIT else None,
            time_in_force=model.TimeInForce.GTX if intent.post_only else model.TimeInForce.GTC,
            reduce_only=intent.reduce_only,
            client_order_id=intent.client_order_id,
        )
        order = self.exchange.submit(plain, now_ms=now_ms)
        return mapped.order_report(shapes.order(order), symbol=intent.symbol)

    def _found(self, intent: OrderIntent) -> OrderReport | None:
        try:
            if intent.is_conditional:
                return self._algo(self.exchange.find_algo(client_algo_id=intent.client_order_id))
            order = self.exchange.find_order(self._native[intent.symbol], client_order_id=intent.client_order_id)
        except VenueError:
            return None
        return mapped.order_report(shapes.order(order), symbol=intent.symbol)

    def _algo(self, algo: model.AlgoOrder) -> OrderReport:
        name = self._names[algo.symbol]
        child = self.exchange.state.orders.get(algo.order_id)
        report = mapped.algo_report(shapes.algo(algo, child), symbol=name)
        if child is None:
            return report
        return mapped.fired_report(report, mapped.order_report(shapes.order(child), symbol=name))

    def _settle(self) -> None:
        events = self.exchange.drain()
        if not events:
            return
        self.auditor.observe(self.exchange, now_ms=self.clock.now_ms(), wall_ms=self.clock.seconds * 1000)
        for event in events:
            if not isinstance(event, model.OrderEvent | model.AlgoEvent):
                continue
            told = user_event(event, self.exchange.state)
            raw = {"T": told["T"], **told["o"]}
            name = self._names[raw["s"]]
            if (fill := mapped.stream_fill(raw, symbol=name)) is not None:
                self._emit(fill)
            self._emit(mapped.stream_report(raw, symbol=name))

    def _emit(self, event: OrderReport | Fill) -> None:
        if self.holds_stream:
            self.undelivered.append(event)
        else:
            self._emit_now(event)

    def _emit_now(self, event: OrderReport | Fill) -> None:
        if self.stream is not None:
            self.stream(event)
