"""From approved decision to closed trade: protects what is open, whatever the venue and the process do."""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal

from feature_store.venue.errors import VenueError
from inference.domain.decision import Approved
from inference.domain.events import ExitObserved, ExitRequested, TradePlanned
from inference.domain.exit_state import Priced, Seen
from inference.domain.market import Quote
from inference.domain.order import Fill, OrderReport
from inference.domain.policy import EntryStyle, Policy
from inference.domain.trade import ExitReason, TradePlan, TradeResult
from inference.execution.book import Book, Trade
from inference.execution.closing import Closing
from inference.execution.dead_man import DeadMan
from inference.execution.entering import needs_quote
from inference.execution.entry_door import HALTED, EntryDoor, Held
from inference.execution.entry_holds import Hold
from inference.execution.exit_following import is_news
from inference.execution.exit_pauses import ExitPauses
from inference.execution.ledger import Ledger
from inference.execution.next_step import next_step
from inference.execution.patience import ExecutionSettings
from inference.execution.placing import Placing
from inference.execution.planning import trade_plan
from inference.execution.ports import Gateway, Recorder, VenuePosition
from inference.execution.prices import Prices
from inference.execution.protection import Protection
from inference.execution.reconciler import Reconciler
from inference.execution.steps import Cancel, Finish, Leave, Place, Resolve, Step
from inference.execution.strange import Strangers
from inference.execution.submission import Outcome, Submission
from inference.execution.turns import Turns
from inference.execution.wishes import Wishes

# A turn ends after this many steps even if more are due: what does not converge must not starve the rest.
_STEPS_PER_TURN = 40
# How long the best prices are waited for: a fill meanwhile waits for its stop.
_QUOTE_PATIENCE_S = 1.0


class Executor:
    """
    Executes approvals and keeps every open trade protected.

    `start` first; then `run` in a task of its own, `enter` and `request_exit` from the decision loop, `on_report`
    and `on_fill` from the user stream, `doubt` wherever some of it may have been missed. One trade per symbol; symbols
    do not wait for each other. Entries that rest are followed by `run`.
    """

    def __init__(
        self,
        *,
        gateway: Gateway,
        journal: Recorder,
        book: Book,
        now_ms: Callable[[], int],
        monotonic: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        taker_fee: Decimal,
        settings: ExecutionSettings | None = None,
        entry_style: EntryStyle = EntryStyle.MARKET,
        entry_patience_seconds: int = 30,
        chance: Callable[[], float] = lambda: 1.0,
        no_capacity: Callable[[], str] = lambda: "",
        may_double: bool = True,
        traded: Callable[[str], Decimal | None] = lambda _: None,
        order_took: Callable[[float], None] = lambda _: None,
        is_followed: Callable[[str], bool] = lambda _: True,
    ) -> None:
        """
        `may_double` says that the venue knows reduce-only orders: another may stand beside one in doubt.

        `traded` returns what a symbol traded at last, where that is known and not old. `order_took` is told how many
        seconds each order that the venue took had to wait for that answer. Of a symbol that is not followed reports are
        told, and not taken in.
        """
        self.book = book
        self.is_reconciled = False
        self._settings = settings or ExecutionSettings()
        self._entry_style = entry_style
        self._may_double = may_double
        self._entry_patience_ms = entry_patience_seconds * 1000
        self._gateway = gateway
        self._ledger = Ledger(book=book, journal=journal, now_ms=now_ms)
        self.door = EntryDoor(self._ledger, monotonic=monotonic, no_capacity=no_capacity)
        self._strangers = Strangers(self._ledger, doubt=self.doubt, is_followed=is_followed)
        self._turns = Turns(self.settle, sleep)
        self._submission = Submission(
            gateway=gateway,
            ledger=self._ledger,
            settings=self._settings,
            monotonic=monotonic,
            sleep=sleep,
            changed=self._turns.touch,
            took=order_took,
        )
        self._closing = Closing(
            gateway=gateway,
            ledger=self._ledger,
            submission=self._submission,
            settings=self._settings,
            now_ms=now_ms,
            sleep=sleep,
            taker_fee=taker_fee,
        )
        self._protection = Protection(self._settings, monotonic, sent_at=self._submission.sent_at)
        self._wishes = Wishes(book, submission=self._submission, settings=self._settings, now_ms=now_ms)
        self._prices = Prices(now_ms, traded)
        self._pauses = ExitPauses(longest_seconds=self._settings.exit_pause_seconds, chance=chance)
        self._dead_man = DeadMan(gateway, seconds=self._settings.countdown_seconds, monotonic=monotonic)
        self._placing = Placing(
            ledger=self._ledger,
            submission=self._submission,
            closing=self._closing,
            protection=self._protection,
            dead_man=self._dead_man,
            door=self.door,
            pauses=self._pauses,
            prices=self._prices,
            settings=self._settings,
            monotonic=monotonic,
            sleep=sleep,
            may_send_entry=self._may_send_entry,
            doubt=self.doubt,
        )
        self._now_ms = now_ms
        self._monotonic = monotonic
        self._sleep = sleep
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._reconciler = Reconciler(
            gateway=gateway,
            ledger=self._ledger,
            submission=self._submission,
            settings=self._settings,
            locks=self._locks,
            settle=self.settle,
            is_due=lambda trade: next_step(trade, wish=self._wishes.of(trade)) is not None,
            now_ms=now_ms,
            sleep=sleep,
            answers_again=self._pauses.note_answer,
            on_positions=self._see_marks,
        )
        self._reconciling = asyncio.Lock()
        self._doubts = 0
        self._stopping = False

    @property
    def closed(self) -> deque[TradeResult]:
        """The newest results."""
        return self._closing.closed

    @property
    def failure(self) -> BaseException | None:
        """What keeps the worker from entering anything new until it is started again, if anything does."""
        return self._ledger.failure or self._submission.defect or self._turns.defect

    @property
    def entries_held(self) -> Mapping[Hold, float]:
        """What the venue said that holds entries back, and for how many more seconds."""
        now = self._monotonic()
        return {one: one.until - now for one in self.door.holds.held(now)}

    @property
    def unexplained(self) -> str:
        """What was found at the venue that nothing of ours explains; until the next start nothing new is entered."""
        return self._reconciler.unexplained

    @property
    def trouble(self) -> str:
        """Why nothing new may be entered until the next start, in words; empty where nothing speaks against it."""
        if self.failure is not None:
            return f"execution failed: {self.failure}"
        found = self.unexplained
        return found and f"the venue holds what nothing of ours explains, look at the account: {found}"

    def follow(self, policy: Policy) -> None:
        """Work entries, and estimate untold fees, by these rules from now on; what rests stays as planned."""
        self._entry_style = policy.entry_style
        self._entry_patience_ms = policy.entry_patience_seconds * 1000
        self._closing.taker_fee = policy.taker_fee

    async def start(self) -> None:
        """Reconcile with the venue until journal and venue agree; a venue that is down is waited for."""
        await self._reconciler.ask_for_earlier_exits()
        while not self._stopping and not await self.reconcile():
            await self._sleep(self._settings.watch_seconds)
            await self._reconciler.ask_for_earlier_exits()

    async def enter(self, approved: Approved, *, candle_close_ms: int) -> bool:
        """
        Turn an approval into a protected position; return whether anything was opened by now.

        An entry that rests goes on after this returns, for as long as the policy has patience.
        An approval that had to wait past the next decision is not taken: its slot may be given to another by now.

        Raises:
            JournalError: The intent could not be recorded; nothing was sent.
        """
        symbol = approved.symbol
        async with self._locks[symbol]:
            if self._wishes.is_outdated(candle_close_ms) or self.book.active_in(symbol):
                return False
            if not self._may_leave(symbol, approved.signal.trace_id):
                return False
            plan = self._plan(approved, candle_close_ms)
            if plan.trade_id in self.book.trades:
                return False
            self._ledger.commit(TradePlanned(plan=plan), trace_id=plan.trace_id, durable=False)
            self._wishes.begin(plan.trade_id)
            try:
                await self._settle_trade(plan.trade_id)
            except BaseException:
                self._wishes.end(plan.trade_id)
                raise

            return self.book.trades[plan.trade_id].entered > 0

    async def request_exit(self, symbol: str, reason: ExitReason, detail: str = "") -> None:
        """End a symbol's trades now: out at market first, then the orders that protected them."""
        for trade in self.book.active_in(symbol):
            event = ExitRequested(trade_id=trade.plan.trade_id, reason=reason, detail=detail)
            self._ledger.note(event, trace_id=trade.plan.trace_id)
        await self.settle(symbol)

    def observe(self, seen: Mapping[str, Sequence[Seen]]) -> None:
        """Tell the exit profiles of what is open what was seen of their symbols, oldest first; `run` acts on it."""
        for trade in list(self.book.active()):
            for one in seen.get(trade.symbol, ()):
                current = self.book.trades[trade.plan.trade_id]
                if is_news(current, one):
                    event = ExitObserved(trade_id=current.plan.trade_id, seen=one)
                    self._ledger.note(event, trace_id=current.plan.trace_id)
                    self._turns.touch(current.symbol)

    def on_report(self, report: OrderReport) -> None:
        """Take in a report from the user stream, in whatever order and however often it comes."""
        if not self._strangers.is_strange(report) and self._ledger.note_report(report):
            self._submission.heard(report.client_order_id)
            self._turns.touch(report.symbol)

    def on_fill(self, fill: Fill) -> None:
        """Take in an execution from the user stream."""
        if not self._strangers.is_strange(fill) and self._ledger.note_fill(fill):
            self._submission.heard(fill.client_order_id)
            self._turns.touch(fill.symbol)

    async def settle(self, symbol: str) -> None:
        """Do whatever a symbol's trades need next, until nothing is due or the venue must be waited for."""
        async with self._locks[symbol]:
            for trade in self.book.active_in(symbol):
                await self._settle_trade(trade.plan.trade_id)

    def doubt(self) -> None:
        """Enter nothing before the next reconciliation: something may have happened that nobody told us of."""
        self._doubts += 1
        self.is_reconciled = False
        self._turns.wake()

    def bar_entries(self, code: str, reason: str) -> None:
        """Let no entry out until `admit_entries`, and take away those that rest; exits and stops go on."""
        was_open = self.door.shut is None
        self.door.barred = Held(code, reason)
        self._take_entries_away(at_once=was_open)

    def admit_entries(self) -> None:
        """Let entries out again, but for what halted them."""
        self.door.barred = None

    def halt_entries(self, reason: str) -> None:
        """Let no entry out in this life any more, and take away those that rest; exits and stops go on."""
        was_open = self.door.shut is None
        self.door.halted = Held(HALTED, reason)
        self._take_entries_away(at_once=was_open)

    def _take_entries_away(self, *, at_once: bool) -> None:
        self._wishes.end_all()
        if at_once:
            for trade in self.book.active():
                self._turns.touch(trade.symbol)

    def know(self, quotes: dict[str, Quote]) -> dict[str, Quote]:
        """Remember prices and return them: what an order executes at is held against what was known as it was sent."""
        self._prices.know(quotes)
        return quotes

    async def run(self) -> None:
        """Watch and settle until `stop`; a failure is kept in `failure`, and what is open is watched on."""
        last_reconcile = self._monotonic()
        while not self._stopping:
            await self._turns.pause(self._settings.watch_seconds)
            self.watch()
            self._turns.begin()
            if not self._dead_man.is_off:
                self._turns.beside("dead man", lambda: self._dead_man.follow(self._wishes.resting))
            wait = self._settings.reconcile_seconds if self.is_reconciled else self._settings.watch_seconds
            if self._monotonic() - last_reconcile >= wait and self._turns.beside("reconcile", self.reconcile):
                last_reconcile = self._monotonic()

    def watch(self) -> None:
        """Mark every symbol in which something is due, an entry rests, or a stop fired and does not fill."""
        self.door.tell_holds()
        for trade in self.book.active():
            if (
                self._due(trade) is not None
                or self._wishes.may_rest(trade)
                or self._protection.has_fired_in_vain(trade)
            ):
                self._turns.mark(trade.symbol)

    async def reconcile(self) -> bool:
        """Make journal and venue agree; return whether they do. Until they do, nothing new is entered."""
        async with self._reconciling:
            doubts = self._doubts
            agreed = await self._reconciler.reconcile()
            # What made us doubt meanwhile may have happened after the venue was read.
            self.is_reconciled = agreed and doubts == self._doubts
            return self.is_reconciled

    async def stop(self) -> None:
        """Finish what is under way and leave; entries that rest are taken away, stops and targets stay at the venue."""
        self._stopping = self._wishes.are_over = True
        self._turns.wake()
        await asyncio.gather(*(self.settle(symbol) for symbol in self._wishes.resting()))
        await self._turns.finished()
        await self._dead_man.follow(self._wishes.resting)
        await self._submission.stop()

    def _may_leave(self, symbol: str, trace_id: str) -> bool:
        is_sound = self.is_reconciled and self.failure is None and not self.unexplained
        return is_sound and not self._stopping and self.door.lets_out(symbol, trace_id)

    def _plan(self, approved: Approved, candle_close_ms: int) -> TradePlan:
        return trade_plan(
            approved,
            candle_close_ms=candle_close_ms,
            # By a clock a moment behind the venue's it would be of the candle before, and end one early.
            now_ms=max(self._now_ms(), candle_close_ms),
            style=self._entry_style,
            patience_ms=self._entry_patience_ms,
            arrival_price=self._prices.arrival(approved.symbol),
        )

    def _see_marks(self, positions: Sequence[VenuePosition]) -> None:
        now_ms = self._now_ms()
        self.observe(
            {one.symbol: [Priced(at_ms=now_ms, price=one.mark_price)] for one in positions if one.mark_price > 0}
        )

    async def _settle_trade(self, trade_id: str) -> None:
        for _ in range(_STEPS_PER_TURN):
            trade = self.book.trades.get(trade_id)
            if trade is None:
                break
            step = await self._next_step(trade)
            if step is None or not await self._take(trade, step):
                break
        self._wishes.end_where_done(trade_id)

    def _due(self, trade: Trade) -> Step | None:
        overdue = self._protection.is_overdue(trade)
        # A stop that fired in vain protects nothing, whatever else is waited for.
        return self._protection.unfilled_stop(trade) or next_step(
            trade, wish=self._wishes.of(trade), stop_overdue=overdue, may_double=self._may_double
        )

    async def _next_step(self, trade: Trade) -> Step | None:
        step = self._due(trade)
        if step is None and needs_quote(trade, self._wishes.of(trade)):
            # Only now: protection does not wait for a price.
            with suppress(VenueError, TimeoutError):
                async with asyncio.timeout(_QUOTE_PATIENCE_S):
                    quote = await self._gateway.quote(trade.symbol)
                self._prices.know({trade.symbol: quote})
                # Much may have happened while it was asked for.
                current = self.book.trades[trade.plan.trade_id]
                wish = replace(self._wishes.of(current), quote=quote)
                overdue = self._protection.is_overdue(current)
                step = next_step(current, wish=wish, stop_overdue=overdue, may_double=self._may_double)
        return step

    async def _take(self, trade: Trade, step: Step) -> bool:
        # Returns whether to go straight on; False leaves the rest to a later turn, which `watch` begins.
        key = trade.plan.trade_id

        def is_moot() -> bool:
            current = self.book.trades.get(key)
            return current is None or self._due(current) != step

        match step:
            case Place(intent=intent):
                return await self._placing.place(trade, intent, is_moot=is_moot)
            case Resolve(order=order):
                # On the way out nothing is more pressing than what became of the way out.
                until = self._protection.bare_until(trade) if trade.exit_reason is None else math.inf
                if await self._submission.resolve(order.intent, is_moot=is_moot, until=until) is Outcome.KNOWN:
                    return await self._placing.after(trade, order.intent.client_order_id)
                return is_moot()
            case Cancel(order=order):
                self._wishes.note_taken_away(order.intent.client_order_id)
                return await self._submission.cancel(order.intent) is Outcome.KNOWN
            case Leave(reason=reason, detail=detail):
                event = ExitRequested(trade_id=key, reason=reason, detail=detail)
                self._ledger.note(event, trace_id=trade.plan.trace_id)
                return True
            case Finish():
                return await self._finish(trade)

    async def _finish(self, trade: Trade) -> bool:
        went_on = await self._closing.finish(trade)
        key = trade.plan.trade_id
        current = self.book.trades.get(key)
        if current is None or current.is_over:
            orders = trade.orders if current is None else current.orders
            self._protection.forget(key, orders.keys())
            self._pauses.forget(key)
            self._wishes.forget_closed()
        return went_on

    def _may_send_entry(self, trade: Trade) -> bool:
        # What made us hold entries back while this one rested holds its successor back too.
        return self._wishes.holds(trade) and self._may_leave(trade.symbol, trade.plan.trace_id)
