"""Sending an order exactly once, whatever the venue answers or fails to answer."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Collection, Coroutine
from contextlib import suppress
from enum import Enum, auto
from typing import Any, TypeVar

from feature_store.venue.errors import (
    AccountError,
    ClockError,
    OutcomeUnknownError,
    RateLimitedError,
    RequestRefusedError,
    RetryableError,
    VenueError,
    WithheldError,
)
from inference.domain.events import OrderFoundAbsent, OrderIntended, OrderRefused
from inference.domain.order import OrderIntent, OrderReport, Purpose
from inference.execution.ledger import Ledger
from inference.execution.lifecycle import NOT_SENT, NOTHING_HAPPENED, Order
from inference.execution.patience import ExecutionSettings, within
from inference.execution.ports import Gateway
from inference.risk.errors import ACCOUNT_CODES, REDUCE_ONLY_CODES

_T = TypeVar("_T")

# A venue that had the order and now denies it may be reading from a copy that lags.
_DENIALS_BELIEVED = 4
# A position that nothing explains makes us doubt that an entry is absent, yet not for ever: by then the entry is too
# old to be sent again, and the reconciliation deals with the position, whosesoever it is.
_DOUBTED_DENIALS_BELIEVED = 25
# Whatever is more pressing, an answer that is here already is taken.
_LEAST_PATIENCE_S = 0.05

__all__ = ["ExecutionSettings", "Outcome", "Submission"]


class Outcome(Enum):
    """How far a sending or a question came."""

    KNOWN = auto()
    # It was sent, and no word of it came within the patience for an answer.
    IN_DOUBT = auto()
    # The venue could not be asked, or its answer does not settle the matter yet.
    LATER = auto()


class Submission:
    """
    Write-ahead, send, and find out.

    An order whose outcome is unknown is asked for; it is believed absent, and may be sent again, only once the venue
    says that it has none and no request of ours can reach its matching engine any more. No question is waited for
    longer than its patience, whatever the connection does.
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
        took: Callable[[float], None] = lambda _: None,
    ) -> None:
        """`took` is told how many seconds each order that the venue took had to wait for that answer."""
        self._gateway = gateway
        self._ledger = ledger
        self._settings = settings
        self._monotonic = monotonic
        self._sleep = sleep
        self._changed = changed
        self._took = took
        self._started = monotonic()
        self._first_sent: dict[str, float] = {}
        self._began: dict[str, float] = {}
        self._last_sent: dict[str, float] = {}
        self._sending: dict[str, asyncio.Task[OrderReport]] = {}
        self._denials: dict[str, int] = {}
        self._silences: dict[str, int] = {}
        self._heard: dict[str, asyncio.Event] = {}
        self._quiet_until = 0.0
        self.defect: BaseException | None = None

    @property
    def quiet_seconds(self) -> float:
        """How long the venue still wants to hear nothing from us."""
        return max(0.0, self._quiet_until - self._monotonic())

    def sent_at(self, client_order_id: str) -> float | None:
        """Return the monotonic time at which an order was last sent, None where not in this life."""
        return self._began.get(client_order_id)

    async def send(
        self, intent: OrderIntent, *, is_wanted: Callable[[], bool] = lambda: True, until: float = math.inf
    ) -> Outcome:
        """
        Journal the intent, send it, and wait for the first word of it, not beyond the monotonic time `until`.

        Nothing is sent where, once the venue may be spoken to, it is not wanted any more. What becomes of an order
        IN_DOUBT is found out by `resolve`; its answer, when it comes, is taken in.

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
        self._began[intent.client_order_id] = self._monotonic()
        self._first_sent.setdefault(intent.client_order_id, self._monotonic())

        task = asyncio.create_task(self._submitted(intent))
        self._sending[intent.client_order_id] = task
        task.add_done_callback(lambda done: self._answered(intent, done))
        left = max(until - self._monotonic(), _LEAST_PATIENCE_S)
        await self._first_word(intent, task, min(self._settings.answer_patience_seconds, left))
        return Outcome.KNOWN if self._is_known(intent) else Outcome.IN_DOUBT

    async def resolve(
        self, intent: OrderIntent, *, is_moot: Callable[[], bool] = lambda: False, until: float = math.inf
    ) -> Outcome:
        """
        Ask for one order until its fate is known, something else is more pressing, or its turn is over.

        No question is waited for beyond the monotonic time `until`.
        """
        began = self._monotonic()
        while True:
            if self._is_settled(intent):
                return Outcome.KNOWN
            left = max(until - self._monotonic(), _LEAST_PATIENCE_S)
            if await self.ask(intent, at_most=left) is Outcome.KNOWN and self._is_settled(intent):
                return Outcome.KNOWN
            waited = self._monotonic() - began
            if waited > self._settings.resolve_patience_seconds or is_moot():
                return Outcome.LATER
            order = self._order(intent)
            if order.is_live and waited > self._settings.market_patience_seconds:
                return await self.cancel(intent)
            await self._sleep(self._settings.poll_seconds)

    async def was_sent_before(self, intent: OrderIntent) -> bool:
        """
        Ask whether an order of a journal that was put back from a backup exists already, and take it in if it does.

        Where no answer comes it is taken not to: an exit, or a stop, must not wait for ever.
        """
        try:
            await self._pace()
            report = await self._within(self._settings.question_patience(0), self._gateway.query(intent))
        except RateLimitedError as error:
            self._rest(error)
            return False
        except (VenueError, TimeoutError):
            return False
        if report is None:
            return False
        self._ledger.note(OrderIntended(intent=intent), trace_id=intent.trace_id, durable=True)
        self._ledger.note_report(report)
        return True

    async def ask_soon(self, intents: Collection[OrderIntent]) -> None:
        """Ask for orders in doubt once, all at the same time, after a moment in which a word may come by itself."""
        await self._sleep(self._settings.poll_seconds)
        if self.quiet_seconds > 0:
            return
        most = self._settings.doubt_seconds
        await asyncio.gather(*(self.ask(one, at_most=most) for one in intents if not self._is_known(one)))

    async def cancel(self, intent: OrderIntent) -> Outcome:
        """Cancel an order and find out whether a fill was faster; KNOWN once it can do nothing more."""
        try:
            await self._pace()
            report = await self._within(self._settings.question_patience(6), self._gateway.cancel(intent))
        except RateLimitedError as error:
            self._rest(error)
            return Outcome.LATER
        except RequestRefusedError:
            report = None
        except (VenueError, TimeoutError):
            return Outcome.LATER
        if report is not None:
            self._ledger.note_report(report)
        if not self._order(intent).status.is_terminal:
            await self.ask(intent)

        return Outcome.KNOWN if self._order(intent).status.is_terminal else Outcome.LATER

    async def ask(self, intent: OrderIntent, *, at_most: float = math.inf) -> Outcome:
        """Ask for one order once; LATER means that no answer came in time, or proves nothing yet."""
        key = intent.client_order_id
        silences = self._silences.pop(key, 0)
        patience = min(self._settings.question_patience(silences), at_most)
        # What was sent before this question can no longer execute once the window has passed: read the clock first.
        window_passed = self._window_has_passed(intent)
        try:
            await self._pace()
            report = await self._within(patience, self._gateway.query(intent))
        except (VenueError, TimeoutError) as error:
            if isinstance(error, RateLimitedError):
                self._rest(error)
            elif isinstance(error, TimeoutError):
                self._silences[key] = silences + 1
            return Outcome.LATER
        if report is not None:
            self._denials.pop(key, None)
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

    def forget_closed(self) -> None:
        """Let go of what is remembered of orders whose trade is over, and of what was heard of them even later."""
        book = self._ledger.book
        active = {trade.plan.trade_id for trade in book.active()}
        for remembered in (self._first_sent, self._began, self._last_sent, self._denials, self._silences):
            for key in list(remembered):
                order = book.order(key)
                if order is None or order.intent.trade_id not in active:
                    del remembered[key]

    async def _submitted(self, intent: OrderIntent) -> OrderReport:
        began = self._monotonic()
        report = await self._gateway.submit(intent)
        self._took(self._monotonic() - began)
        return report

    def heard(self, client_order_id: str) -> None:
        """Tell that something was learned of an order by another way than asking for it."""
        if event := self._heard.get(client_order_id):
            event.set()

    async def _first_word(self, intent: OrderIntent, task: asyncio.Task[OrderReport], patience: float) -> None:
        # The user stream may know before the answer is here, or when no answer comes at all.
        event = self._heard[intent.client_order_id] = asyncio.Event()
        word = asyncio.ensure_future(event.wait())
        nap = asyncio.ensure_future(self._sleep(patience))
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
            case WithheldError() as error:
                self._refused(intent, NOT_SENT, error)
            case RetryableError() | ClockError() as error:
                self._refused(intent, NOTHING_HAPPENED, error)
            case AccountError() as error:
                self._refused(intent, _account_code(error), error)
            case RequestRefusedError() as error:
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
            positions = await self._within(self._settings.question_patience(2), self._gateway.positions())
        except (VenueError, TimeoutError):
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

    async def _within(self, seconds: float, work: Coroutine[Any, Any, _T]) -> _T:
        return await within(seconds, work, sleep=self._sleep)

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


def _account_code(error: AccountError) -> str:
    """Return the venue's number where it is of accounts alone, else the class: Bitfinex has one number for much."""
    code = str(error.code)
    return code if code in ACCOUNT_CODES or code in REDUCE_ONLY_CODES else AccountError.__name__
