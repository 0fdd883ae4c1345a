"""From approved decision to closed trade: protects what is open, whatever the venue and the process do."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal

from feature_store.venue.errors import VenueError
from inference.domain.decision import Approved
from inference.domain.events import ExitRequested, TradePlanned
from inference.domain.market import Quote
from inference.domain.order import Fill, OrderIntent, OrderReport, OrderStatus, Purpose
from inference.domain.policy import EntryStyle
from inference.domain.trade import ExitReason, TradePlan, TradeResult
from inference.execution.book import Book, Trade
from inference.execution.closing import Closing
from inference.execution.dead_man import DeadMan
from inference.execution.entering import Wish, is_under_way, needs_quote
from inference.execution.entry_door import EntryDoor
from inference.execution.entry_holds import Hold
from inference.execution.exit_pauses import ExitPauses
from inference.execution.ledger import Ledger
from inference.execution.next_step import NOTHING_TO_REDUCE, next_step
from inference.execution.planning import trade_plan
from inference.execution.ports import Gateway, Recorder
from inference.execution.prices import Prices
from inference.execution.protection import Protection
from inference.execution.reconciler import Reconciler
from inference.execution.steps import Cancel, Finish, Leave, Place, Resolve, Step
from inference.execution.submission import ExecutionSettings, Outcome, Submission
from inference.execution.turns import Turns

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
    ) -> None:
        self.book = book
        self.is_reconciled = False
        self._settings = settings or ExecutionSettings()
        self._entry_style = entry_style
        self._entry_patience_ms = entry_patience_seconds * 1000
        self._gateway = gateway
        self._ledger = Ledger(book=book, journal=journal, now_ms=now_ms)
        self.door = EntryDoor(self._ledger, monotonic=monotonic, no_capacity=no_capacity)
        self._turns = Turns(self.settle, sleep)
        self._submission = Submission(
            gateway=gateway,
            ledger=self._ledger,
            settings=self._settings,
            monotonic=monotonic,
            sleep=sleep,
            changed=self._turns.touch,
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
        self._protection = Protection(self._settings, monotonic)
        self._pauses = ExitPauses(longest_seconds=self._settings.exit_pause_seconds, chance=chance)
        self._dead_man = DeadMan(gateway, seconds=self._settings.countdown_seconds, monotonic=monotonic)
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
            is_due=lambda trade: next_step(trade, wish=self._wish(trade)) is not None,
            now_ms=now_ms,
            sleep=sleep,
            answers_again=self._pauses.note_answer,
        )
        self._reconciling = asyncio.Lock()
        self._doubts = 0
        self._may_enter: set[str] = set()
        self._taken_away: set[str] = set()
        self._prices = Prices(now_ms)
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

    async def start(self) -> None:
        """Reconcile with the venue until journal and venue agree; a venue that is down is waited for."""
        while not self._stopping and not await self.reconcile():
            await self._sleep(self._settings.watch_seconds)

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
            if self._is_outdated(candle_close_ms) or self.book.active_in(symbol):
                return False
            if not self._may_leave(symbol, approved.signal.trace_id):
                return False
            plan = self._plan(approved, candle_close_ms)
            if plan.trade_id in self.book.trades:
                return False
            self._ledger.commit(TradePlanned(plan=plan), trace_id=plan.trace_id, durable=False)
            self._may_enter.add(plan.trade_id)
            try:
                await self._settle_trade(plan.trade_id)
            except BaseException:
                self._may_enter.discard(plan.trade_id)
                raise

            return self.book.trades[plan.trade_id].entered > 0

    async def request_exit(self, symbol: str, reason: ExitReason, detail: str = "") -> None:
        """End a symbol's trades now: out at market first, then the orders that protected them."""
        for trade in self.book.active_in(symbol):
            event = ExitRequested(trade_id=trade.plan.trade_id, reason=reason, detail=detail)
            self._ledger.note(event, trace_id=trade.plan.trace_id)
        await self.settle(symbol)

    def on_report(self, report: OrderReport) -> None:
        """Take in a report from the user stream, in whatever order and however often it comes."""
        if self._ledger.note_report(report):
            self._submission.heard(report.client_order_id)
            self._turns.touch(report.symbol)

    def on_fill(self, fill: Fill) -> None:
        """Take in an execution from the user stream."""
        if self._ledger.note_fill(fill):
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
                self._turns.beside("dead man", lambda: self._dead_man.follow(self._resting))
            wait = self._settings.reconcile_seconds if self.is_reconciled else self._settings.watch_seconds
            if self._monotonic() - last_reconcile >= wait and self._turns.beside("reconcile", self.reconcile):
                last_reconcile = self._monotonic()

    def watch(self) -> None:
        """Mark every symbol in which something is due, an entry rests, or a stop fired and does not fill."""
        self.door.tell_holds()
        for trade in self.book.active():
            due = next_step(trade, wish=self._wish(trade), stop_overdue=self._protection.is_overdue(trade)) is not None
            if due or self._may_rest(trade) or self._protection.has_fired_in_vain(trade):
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
        self._stopping = True
        self._turns.wake()
        await asyncio.gather(*(self.settle(symbol) for symbol in self._resting()))
        await self._turns.finished()
        await self._dead_man.follow(self._resting)
        await self._submission.stop()

    def _is_outdated(self, candle_close_ms: int) -> bool:
        return self._now_ms() - candle_close_ms > self._settings.approval_valid_ms

    def _may_leave(self, symbol: str, trace_id: str) -> bool:
        is_sound = self.is_reconciled and self.failure is None and not self.unexplained
        return is_sound and not self._stopping and self.door.lets_out(symbol, trace_id)

    def _plan(self, approved: Approved, candle_close_ms: int) -> TradePlan:
        return trade_plan(
            approved,
            candle_close_ms=candle_close_ms,
            now_ms=self._now_ms(),
            style=self._entry_style,
            patience_ms=self._entry_patience_ms,
            arrival_price=self._prices.mid(approved.symbol),
        )

    async def _settle_trade(self, trade_id: str) -> None:
        for _ in range(_STEPS_PER_TURN):
            trade = self.book.trades.get(trade_id)
            if trade is None:
                break
            step = await self._next_step(trade)
            if step is None or not await self._take(trade, step):
                break
        trade = self.book.trades.get(trade_id)
        if trade is None or not is_under_way(trade, self._wish(trade)):
            self._may_enter.discard(trade_id)

    async def _next_step(self, trade: Trade) -> Step | None:
        overdue = self._protection.is_overdue(trade)
        wish = self._wish(trade)
        step = next_step(trade, wish=wish, stop_overdue=overdue) or self._protection.unfilled_stop(trade)
        if step is None and needs_quote(trade, wish):
            # Only now: protection does not wait for a price.
            with suppress(VenueError, TimeoutError):
                async with asyncio.timeout(_QUOTE_PATIENCE_S):
                    quote = await self._gateway.quote(trade.symbol)
                self._prices.know({trade.symbol: quote})
                # Much may have happened while it was asked for.
                current = self.book.trades[trade.plan.trade_id]
                step = next_step(current, wish=replace(self._wish(current), quote=quote), stop_overdue=overdue)
        return step

    async def _take(self, trade: Trade, step: Step) -> bool:
        # Returns whether to go straight on; False leaves the rest to a later turn, which `watch` begins.
        match step:
            case Place(intent=intent):
                return await self._place(trade, intent)
            case Resolve(order=order):
                return await self._submission.resolve(order.intent) is Outcome.KNOWN
            case Cancel(order=order):
                self._taken_away.add(order.intent.client_order_id)
                return await self._submission.cancel(order.intent) is Outcome.KNOWN
            case Leave(reason=reason, detail=detail):
                event = ExitRequested(trade_id=trade.plan.trade_id, reason=reason, detail=detail)
                self._ledger.note(event, trace_id=trade.plan.trace_id)
                return True
            case Finish():
                return await self._finish(trade)

    async def _place(self, trade: Trade, intent: OrderIntent) -> bool:
        is_entry, key = intent.purpose is Purpose.ENTRY, trade.plan.trade_id
        # Before anything else is asked of the venue: what is short is room for requests.
        if is_entry and not self._may_send_entry(trade):
            return False
        if intent.rests and not await self._dead_man.arm(intent.symbol):
            return False
        if intent.purpose is Purpose.EXIT:
            if self._pauses.waits(key, self._monotonic()):
                return False
            intent = replace(intent, arrival_price=self._prices.mid(intent.symbol))
        outcome = await self._submission.send(
            intent, is_wanted=lambda: not is_entry or self._may_send_entry(self.book.trades[key])
        )
        return outcome is Outcome.KNOWN and await self._after_placing(trade, intent.client_order_id)

    async def _after_placing(self, trade: Trade, client_order_id: str) -> bool:
        order, key = self.book.order(client_order_id), trade.plan.trade_id
        if order is None:
            return True
        if not order.refusal:
            self._pauses.note_accepted(key)
            return True
        if order.intent.purpose is Purpose.ENTRY:
            self.door.note(order.intent.symbol, order.refusal)
        if order.intent.purpose is Purpose.EXIT and order.refusal == NOTHING_TO_REDUCE:
            if not await self._closing.believe_venue(key):
                return False
            current = self.book.trades.get(key)
            if current is None or current.open_quantity != trade.open_quantity:
                return True
            # It holds what we hold, and takes no exit for it: a refusal as any other.
        if order.intent.purpose is Purpose.EXIT and not order.never_existed:
            self._pauses.note_refusal(key, self._monotonic())
        await self._sleep(self._settings.poll_seconds)
        # A refused exit is tried again and again, but in turns that let the rest live.
        return not self._pauses.waits(key, self._monotonic())

    async def _finish(self, trade: Trade) -> bool:
        went_on = await self._closing.finish(trade)
        key = trade.plan.trade_id
        current = self.book.trades.get(key)
        if current is None or current.is_over:
            orders = trade.orders if current is None else current.orders
            self._protection.forget(key, orders.keys())
            self._pauses.forget(key)
            self._taken_away.difference_update(orders.keys())
        return went_on

    def _wish(self, trade: Trade) -> Wish:
        until_ms = trade.plan.entry_until_ms
        return Wish(may_enter=self._is_still_wanted(trade), is_late=self._now_ms() >= until_ms)

    def _resting(self) -> set[str]:
        """Return the symbols in which an entry of ours may rest, or is about to."""
        return {
            trade.symbol
            for trade in self.book.active()
            if self._may_rest(trade)
            or any(order.intent.rests and not order.status.is_terminal for order in trade.of(Purpose.ENTRY))
        }

    def _may_rest(self, trade: Trade) -> bool:
        return trade.plan.trade_id in self._may_enter and trade.plan.entry_style is not EntryStyle.MARKET

    def _may_send_entry(self, trade: Trade) -> bool:
        # What made us hold entries back while this one rested holds its successor back too.
        return self._is_still_wanted(trade) and self._may_leave(trade.symbol, trade.plan.trace_id)

    def _is_still_wanted(self, trade: Trade) -> bool:
        key = trade.plan.trade_id
        if key not in self._may_enter or self._stopping or self._is_outdated(trade.plan.candle_close_ms):
            return False
        # The price that was decided on will not wait for a ban to pass.
        if self._submission.quiet_seconds > self._settings.entry_resend_seconds:
            return False
        entries = trade.of(Purpose.ENTRY)
        if any(self._was_taken_from_us(order.intent, order.status) for order in entries):
            return False
        last = entries[-1] if entries else None
        return last is None or not last.never_existed or self._submission.is_worth_resending(last.intent)

    def _was_taken_from_us(self, intent: OrderIntent, status: OrderStatus) -> bool:
        # By a person, or by the switch: whoever did it does not want it back.
        return intent.rests and status is OrderStatus.CANCELED and intent.client_order_id not in self._taken_away
