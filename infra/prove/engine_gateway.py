"""An account at the sandbox's matching engine without its wire: the worker's gateway, with faults on demand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any, TypeVar

from feature_store.venue.errors import (
    OutcomeUnknownError,
    RateLimitedError,
    RetryableError,
    VenueDownError,
)
from inference.domain.market import Quote
from inference.domain.order import Fill, OrderIntent, OrderReport
from inference.exchange.engine_account import EngineAccount, refusal
from inference.execution.ports import VenuePosition
from infra.prove.virtual import Crash, VirtualClock
from infra.sandbox.audit import Auditor
from infra.sandbox.disturbed import ThinBook
from infra.sandbox.engine import countdown, model, state
from infra.sandbox.engine.errors import VenueError
from infra.sandbox.engine.exchange import Exchange
from infra.sandbox.engine.instrument import Instrument

_T = TypeVar("_T")
_LATE_S, _HANGS_S, _REST_S = 1.2, 30.0, 2.0
PART = "part"
SENDING_FAULTS = ("drop", "exec_then_drop", "late", "down", "overload", "limited", "hang", PART)
ASKING_FAULTS = ("down", "stale", "limited")


class EngineGateway:
    """
    Implements `inference.execution.ports.Gateway` on the engine itself, through the words of its wire.

    `sending_faults` and `asking_faults` are taken one by one by requests: "" is none, "drop" was not executed and not
    answered, "exec_then_drop" executed and not answered, "late" executed before the window ends, "down", "overload" and
    "limited" not executed, "hang" executed and answered after half a minute, "part" executed for half of what it would
    take at once and answered as ever, "stale" denied though it may be there.
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
        self.account = EngineAccount(self.exchange, self._native)
        self._late: list[tuple[float, OrderIntent]] = []

    # -- the port -------------------------------------------------------------------------------------------------

    async def venue_now_ms(self) -> int:
        """See the port."""
        return self.clock.now_ms()

    async def equity(self) -> Decimal:
        """See the port."""
        return self.account.equity()

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
        whole = self.exchange.book
        if fault == PART:
            self.exchange.book = ThinBook(whole, Decimal("0.5"), None)  # type: ignore[assignment]
        try:
            report = self.account.place(intent, now_ms=self.clock.now_ms())
        except VenueError as error:
            self._settle()
            raise refusal(error) from error
        finally:
            self.exchange.book = whole
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
        report = None if fault == "stale" else self.account.find(intent)
        return await self._answered(report)

    async def cancel(self, intent: OrderIntent) -> OrderReport | None:
        """See the port; takes the next of `asking_faults`."""
        await self._request(self.asking_faults)
        if not self.account.cancel(intent, now_ms=self.clock.now_ms()):
            return None
        self._settle()
        return await self._answered(self.account.find(intent))

    async def open_orders(self) -> list[OrderReport]:
        """See the port."""
        await self._request(self.asking_faults)
        return self.account.open_orders()

    async def positions(self) -> list[VenuePosition]:
        """See the port."""
        await self._request(self.asking_faults)
        return self.account.positions()

    async def fills(self, symbol: str, since_ms: int) -> list[Fill]:
        """See the port."""
        await self._request(self.asking_faults)
        return self.account.fills(symbol, since_ms)

    # -- what happens at the venue --------------------------------------------------------------------------------

    def _run_countdowns(self) -> None:
        countdown.run(self.exchange, now_ms=self.clock.now_ms())
        self._settle()

    def move(self, symbol: str, price: Decimal, *, volume: Decimal | None = None) -> None:
        """
        Trade at a price: conditional orders that it reaches fire, resting orders that it passes fill.

        With a `volume` all of them together get no more than that.
        """
        self.prices[symbol] = price
        native, account = self._native[symbol], self.exchange.state
        rules = account.rules
        if volume is not None:
            account.rules = replace(rules, participation=Decimal(1))
        volumes = {} if volume is None else {native: volume}
        self.exchange.tick({native: price}, now_ms=self.clock.now_ms(), volumes=volumes)
        account.rules = rules
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
        # What is answered keeps nobody waiting.
        self.faults_met += bool(fault) and fault != PART
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
                self.account.place(intent, now_ms=self.clock.now_ms())
            except VenueError:
                continue
            finally:
                self._settle()

    def _settle(self) -> None:
        events = self.exchange.drain()
        if not events:
            return
        self.auditor.observe(self.exchange, now_ms=self.clock.now_ms(), wall_ms=self.clock.seconds * 1000)
        for told in self.account.told(events):
            self._emit(told)

    def _emit(self, event: OrderReport | Fill) -> None:
        if self.holds_stream:
            self.undelivered.append(event)
        else:
            self._emit_now(event)

    def _emit_now(self, event: OrderReport | Fill) -> None:
        if self.stream is not None:
            self.stream(event)
