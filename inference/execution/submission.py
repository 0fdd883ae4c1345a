"""Sending an order exactly once, whatever the venue answers or fails to answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto

from feature_store.venue.errors import (
    AccountError,
    ClockError,
    OutcomeUnknownError,
    RateLimitedError,
    RequestRefusedError,
    RetryableError,
    VenueError,
)
from inference.domain.events import OrderFoundAbsent, OrderIntended, OrderRefused
from inference.domain.order import OrderIntent, OrderReport, Purpose
from inference.execution.ledger import Ledger
from inference.execution.lifecycle import NOTHING_HAPPENED, Order
from inference.execution.ports import Gateway

# A venue that had the order and now denies it may be reading from a copy that lags.
_DENIALS_BELIEVED = 4
# A position that nothing explains makes us doubt that an entry is absent, yet not for ever: by then the entry is too
# old to be sent again, and the reconciliation deals with the position, whosesoever it is.
_DOUBTED_DENIALS_BELIEVED = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionSettings:
    """How patient execution is, in wall-clock seconds where nothing else is said."""

    # Between two questions about one order.
    poll_seconds: float = 0.2
    # How long an answer to a sending is awaited before the order is queried besides.
    answer_patience_seconds: float = 1.0
    # Beyond the venue's recvWindow, before "absent" is believed.
    window_margin_seconds: float = 0.5
    # How long an entry that provably did not happen is still worth sending again.
    entry_resend_seconds: float = 5.0
    # How long after its candle's close an approval is good, in the venue's milliseconds: until the next decision.
    approval_valid_ms: int = 300_000
    # How long one order is asked for before others get their turn.
    resolve_patience_seconds: float = 10.0
    # How long a market order may rest before it is cancelled.
    market_patience_seconds: float = 5.0
    # How long a position may wait for its stop to be confirmed before it is flattened.
    stop_within_seconds: float = 5.0
    # How long a stop may have fired without filling.
    fired_patience_seconds: float = 3.0
    watch_seconds: float = 1.0
    reconcile_seconds: float = 30.0
    # After how long without a word from us the venue cancels entries that rest, where it can.
    countdown_seconds: float = 30.0
    # How long an exit that is refused again and again waits at most before it is tried once more.
    exit_pause_seconds: float = 15.0
    # How often the executions of a flat trade are asked for before its money is counted without them.
    fills_attempts: int = 5


class Outcome(Enum):
    """How far a sending or a question came."""

    KNOWN = auto()
    # The venue could not be asked, or its answer does not settle the matter yet.
    LATER = auto()


class Submission:
    """
    Write-ahead, send, and find out.

    An order whose outcome is unknown is asked for; it is believed absent, and may be sent again, only once the venue
    says that it has none and no request of ours can reach its matching engine any more.
    """

    def __init__(
        self,
        *,
        gateway: Gateway,
        ledger: Ledger,
        settings: ExecutionSettings,
        monotonic: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        changed: Callable[[str], None],
    ) -> None:
        self._gateway = gateway
        self._ledger = ledger
        self._settings = settings
        self._monotonic = monotonic
        self._sleep = sleep
        self._changed = changed
        self._started = monotonic()
        self._first_sent: dict[str, float] = {}
        self._last_sent: dict[str, float] = {}
        self._sending: dict[str, asyncio.Task[OrderReport]] = {}
        self._denials: dict[str, int] = {}
        self._heard: dict[str, asyncio.Event] = {}
        self._quiet_until = 0.0
        self.defect: BaseException | None = None

    @property
    def quiet_seconds(self) -> float:
        """How long the venue still wants to hear nothing from us."""
        return max(0.0, self._quiet_until - self._monotonic())

    async def send(self, intent: OrderIntent, *, is_wanted: Callable[[], bool] = lambda: True) -> Outcome:
        """
        Journal the intent, send it, and stay until its outcome is known or the patience for it is spent.

        Nothing is sent where, once the venue may be spoken to, it is not wanted any more.

        Raises:
            JournalError: An entry could not be recorded; it was not sent.
        """
        await self._pace()
        if not is_wanted():
            return Outcome.LATER
        event = OrderIntended(intent=intent)
        if intent.purpose is Purpose.ENTRY:
            self._ledger.commit(event, trace_id=intent.trace_id)
        else:
            # A position without a stop is worse than a record without a line.
            self._ledger.note(event, trace_id=intent.trace_id, durable=True)
        self._first_sent.setdefault(intent.client_order_id, self._monotonic())

        task = asyncio.create_task(self._submitted(intent))
        self._sending[intent.client_order_id] = task
        task.add_done_callback(lambda done: self._answered(intent, done))
        await self._first_word(intent, task)
        if self._is_known(intent):
            return Outcome.KNOWN

        return await self.resolve(intent)

    async def resolve(self, intent: OrderIntent) -> Outcome:
        """Ask for one order until its fate is known, or its turn is over."""
        began = self._monotonic()
        patience = self._settings.resolve_patience_seconds
        if intent.purpose is Purpose.STOP:
            patience = min(patience, self._settings.stop_within_seconds)
        while True:
            if self._is_settled(intent):
                return Outcome.KNOWN
            if await self.ask(intent) is Outcome.KNOWN and self._is_settled(intent):
                return Outcome.KNOWN
            waited = self._monotonic() - began
            if waited > patience:
                return Outcome.LATER
            order = self._order(intent)
            if order.is_live and waited > self._settings.market_patience_seconds:
                return await self.cancel(intent)
            await self._sleep(self._settings.poll_seconds)

    async def cancel(self, intent: OrderIntent) -> Outcome:
        """Cancel an order and find out whether a fill was faster; KNOWN once it can do nothing more."""
        try:
            await self._pace()
            report = await self._gateway.cancel(intent)
        except RateLimitedError as error:
            self._rest(error)
            return Outcome.LATER
        except RequestRefusedError:
            report = None
        except VenueError:
            return Outcome.LATER
        if report is not None:
            self._ledger.note_report(report)
        if not self._order(intent).status.is_terminal:
            await self.ask(intent)

        return Outcome.KNOWN if self._order(intent).status.is_terminal else Outcome.LATER

    async def ask(self, intent: OrderIntent) -> Outcome:
        """Ask for one order once; LATER means that the answer proves nothing yet."""
        # What was sent before this question can no longer execute once the window has passed: read the clock first.
        window_passed = self._window_has_passed(intent)
        try:
            await self._pace()
            report = await self._gateway.query(intent)
        except RateLimitedError as error:
            self._rest(error)
            return Outcome.LATER
        except VenueError:
            return Outcome.LATER
        if report is not None:
            self._denials.pop(intent.client_order_id, None)
            self._ledger.note_report(report)
            return Outcome.KNOWN
        if self._order(intent).status.is_terminal:
            return Outcome.KNOWN
        if not window_passed or not await self._is_denial_credible(intent):
            return Outcome.LATER

        self._ledger.note(
            OrderFoundAbsent(client_order_id=intent.client_order_id), trace_id=intent.trace_id, durable=True
        )
        return Outcome.KNOWN

    async def remove(self, intent: OrderIntent) -> None:
        """
        Cancel an order that the book does not know; one that is gone already is as good.

        Raises:
            VenueError: The venue could not be asked.
        """
        await self._pace()
        with suppress(RequestRefusedError):
            await self._gateway.cancel(intent)

    async def stop(self) -> None:
        """Wait for requests that are still under way, so that none is cut off half sent."""
        tasks = list(self._sending.values())
        if tasks:
            await asyncio.wait(tasks)

    def forget(self, client_order_ids: Collection[str]) -> None:
        """Let go of what was remembered of orders that can do nothing more."""
        for remembered in (self._first_sent, self._last_sent, self._denials):
            for key in client_order_ids:
                remembered.pop(key, None)

    async def _submitted(self, intent: OrderIntent) -> OrderReport:
        return await self._gateway.submit(intent)

    def heard(self, client_order_id: str) -> None:
        """Tell that something was learned of an order by another way than asking for it."""
        if event := self._heard.get(client_order_id):
            event.set()

    async def _first_word(self, intent: OrderIntent, task: asyncio.Task[OrderReport]) -> None:
        # The user stream may know before the answer is here, or when no answer comes at all.
        event = self._heard[intent.client_order_id] = asyncio.Event()
        word = asyncio.ensure_future(event.wait())
        nap = asyncio.ensure_future(self._sleep(self._settings.answer_patience_seconds))
        try:
            while not task.done() and not nap.done() and not self._is_known(intent):
                await asyncio.wait({task, nap, word}, return_when=asyncio.FIRST_COMPLETED)
                if word.done() and not self._is_known(intent):
                    event.clear()
                    word = asyncio.ensure_future(event.wait())
        finally:
            nap.cancel()
            word.cancel()
            self._heard.pop(intent.client_order_id, None)

    def _answered(self, intent: OrderIntent, task: asyncio.Task[OrderReport]) -> None:
        key = intent.client_order_id
        self._sending.pop(key, None)
        self._last_sent[key] = self._monotonic()
        if task.cancelled():
            return
        match task.exception():
            case None:
                self._ledger.note_report(task.result())
            case OutcomeUnknownError():
                pass
            case RateLimitedError() as error:
                self._rest(error)
                self._refused(intent, NOTHING_HAPPENED, error)
            case RetryableError() | ClockError() as error:
                self._refused(intent, NOTHING_HAPPENED, error)
            case RequestRefusedError() | AccountError() as error:
                self._refused(intent, str(error.code or type(error).__name__), error)
            case BaseException() as error:
                # Not an answer of the venue: a defect of ours. The order stays unknown, the loop hears of it.
                self.defect = self.defect or error
        self._changed(intent.symbol)

    def _refused(self, intent: OrderIntent, code: str, error: VenueError) -> None:
        if self._is_known(intent):
            return
        self._ledger.note(
            OrderRefused(client_order_id=intent.client_order_id, code=code, message=str(error)),
            trace_id=intent.trace_id,
        )

    async def _is_denial_credible(self, intent: OrderIntent) -> bool:
        key = intent.client_order_id
        self._denials[key] = self._denials.get(key, 0) + 1
        if self._order(intent).is_live and self._denials[key] < _DENIALS_BELIEVED:
            return False
        # A stop or target that rests changes no position; what goes to market does.
        if intent.is_conditional or self._denials[key] >= _DOUBTED_DENIALS_BELIEVED:
            return True
        return not await self._may_have_executed(intent)

    async def _may_have_executed(self, intent: OrderIntent) -> bool:
        # "Not found" can be a stale read; a position that nothing else explains says otherwise.
        try:
            positions = await self._gateway.positions()
        except VenueError:
            return True
        held = sum(position.signed_quantity for position in positions if position.symbol == intent.symbol)
        known = sum(trade.signed_quantity for trade in self._ledger.book.active_in(intent.symbol))
        return held != known

    def is_worth_resending(self, intent: OrderIntent) -> bool:
        """Whether an entry that provably did not happen is still young enough to be sent again."""
        first = self._first_sent.get(intent.client_order_id)
        return first is not None and self._monotonic() - first < self._settings.entry_resend_seconds

    def _window_has_passed(self, intent: OrderIntent) -> bool:
        if intent.client_order_id in self._sending:
            return False
        # After a restart we do not know when it was sent, but no later than we started.
        last = self._last_sent.get(intent.client_order_id, self._started)
        window = self._gateway.recv_window_ms / 1000 + self._settings.window_margin_seconds
        return self._monotonic() - last > window

    def _order(self, intent: OrderIntent) -> Order:
        return self._ledger.book.order(intent.client_order_id) or Order(intent=intent)

    def _is_known(self, intent: OrderIntent) -> bool:
        return not self._order(intent).may_exist

    def _is_settled(self, intent: OrderIntent) -> bool:
        order = self._order(intent)
        return order.status.is_terminal or (order.is_live and (intent.is_conditional or intent.rests))

    async def _pace(self) -> None:
        while (wait := self.quiet_seconds) > 0:
            await self._sleep(wait)

    def _rest(self, error: RateLimitedError) -> None:
        self._quiet_until = max(self._quiet_until, self._monotonic() + error.retry_after_seconds)
