"""From approved decision to closed trade: protects what is open, whatever the venue and the process do."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

from feature_store.venue.errors import RequestRefusedError, VenueError
from inference.domain.decision import Approved
from inference.domain.events import ExitRequested, PositionFoundChanged, TradeClosed, TradePlanned
from inference.domain.order import Fill, OrderReport, OrderStatus, Purpose, Side
from inference.domain.trade import ExitReason, TradePlan, TradeResult
from inference.execution.book import Book, Trade
from inference.execution.client_order_id import trade_id_of
from inference.execution.ledger import Ledger
from inference.execution.next_step import NOTHING_TO_REDUCE, Cancel, Finish, Leave, Place, Resolve, Step, next_step
from inference.execution.ports import Gateway, Recorder
from inference.execution.reconciler import Reconciler
from inference.execution.result import explained, trade_result
from inference.execution.submission import ExecutionSettings, Outcome, Submission

# A turn ends after this many steps even if more are due: what does not converge must not starve the rest.
_STEPS_PER_TURN = 40
_FILLS_SLACK_MS = 60_000
# The newest results; the book counts them all.
_RESULTS_KEPT = 100


class Executor:
    """
    Executes approvals and keeps every open trade protected.

    `start` first; then `run` in a task of its own, `enter` and `request_exit` from the decision loop, `on_report`
    and `on_fill` from the user stream. One trade per symbol; symbols do not wait for each other.
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
    ) -> None:
        self.book = book
        self.is_reconciled = False
        self.closed: deque[TradeResult] = deque(maxlen=_RESULTS_KEPT)
        self._settings = settings or ExecutionSettings()
        self._gateway = gateway
        self._ledger = Ledger(book=book, journal=journal, now_ms=now_ms)
        self._submission = Submission(
            gateway=gateway,
            ledger=self._ledger,
            settings=self._settings,
            monotonic=monotonic,
            sleep=sleep,
            changed=self._touch,
        )
        self._now_ms = now_ms
        self._monotonic = monotonic
        self._sleep = sleep
        self._taker_fee = taker_fee
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._reconciler = Reconciler(
            gateway=gateway,
            ledger=self._ledger,
            submission=self._submission,
            settings=self._settings,
            locks=self._locks,
            settle=self.settle,
            now_ms=now_ms,
            sleep=sleep,
        )
        self._touched: set[str] = set()
        self._again: set[str] = set()
        self._wake = asyncio.Event()
        self._turns: dict[str, asyncio.Task[None]] = {}
        self._reconciling: asyncio.Task[bool] | None = None
        self._defect: BaseException | None = None
        self._naked_since: dict[str, float] = {}
        self._fired_since: dict[str, float] = {}
        self._fills_asked: defaultdict[str, int] = defaultdict(int)
        self._may_enter: set[str] = set()
        self._stopping = False

    @property
    def failure(self) -> BaseException | None:
        """What keeps the worker from entering anything new until it is started again, if anything does."""
        return self._ledger.failure or self._submission.defect or self._defect

    async def start(self) -> None:
        """Reconcile with the venue until journal and venue agree; a venue that is down is waited for."""
        while not self._stopping and not await self.reconcile():
            await self._sleep(self._settings.watch_seconds)

    async def enter(self, approved: Approved, *, candle_close_ms: int) -> bool:
        """
        Turn an approval into a protected position; return whether anything was opened.

        An approval that had to wait past the next decision is not taken: its slot may be given to another by now.

        Raises:
            JournalError: The intent could not be recorded; nothing was sent.
        """
        symbol = approved.symbol
        async with self._locks[symbol]:
            if self._is_outdated(candle_close_ms) or not self._is_open_for_entries(symbol):
                return False
            plan = self._plan(approved, candle_close_ms)
            if plan.trade_id in self.book.trades:
                return False
            self._ledger.commit(TradePlanned(plan=plan), trace_id=plan.trace_id, durable=False)
            self._may_enter.add(plan.trade_id)
            try:
                await self._settle_trade(plan.trade_id)
            finally:
                self._may_enter.discard(plan.trade_id)

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
            self._touch(report.symbol)

    def on_fill(self, fill: Fill) -> None:
        """Take in an execution from the user stream."""
        if self._ledger.note_fill(fill):
            self._submission.heard(fill.client_order_id)
            self._touch(fill.symbol)

    async def settle(self, symbol: str) -> None:
        """Do whatever a symbol's trades need next, until nothing is due or the venue must be waited for."""
        async with self._locks[symbol]:
            for trade in self.book.active_in(symbol):
                await self._settle_trade(trade.plan.trade_id)

    async def run(self) -> None:
        """Watch and settle until `stop`; a failure is kept in `failure`, and what is open is watched on."""
        last_reconcile = self._monotonic()
        while not self._stopping:
            await self._pause()
            self.watch()
            touched, self._touched = self._touched, set()
            self._wake.clear()
            for symbol in sorted(touched):
                self._begin_turn(symbol)
            wait = self._settings.reconcile_seconds if self.is_reconciled else self._settings.watch_seconds
            if self._monotonic() - last_reconcile >= wait and self._reconciling is None:
                self._begin_reconcile()
                last_reconcile = self._monotonic()

    def watch(self) -> None:
        """Mark every symbol in which something is due, and every stop that fired and does not fill."""
        for trade in self.book.active():
            due = next_step(trade, stop_overdue=self._is_overdue(trade)) is not None
            if due or self._has_fired_in_vain(trade):
                self._touched.add(trade.symbol)

    async def reconcile(self) -> bool:
        """Make journal and venue agree; return whether they do. Until they do, nothing new is entered."""
        self.is_reconciled = await self._reconciler.reconcile()
        return self.is_reconciled

    async def stop(self) -> None:
        """Finish what is under way and leave; stops and targets stay at the venue."""
        self._stopping = True
        self._wake.set()
        tasks: list[asyncio.Task[Any]] = [task for task in self._turns.values() if not task.done()]
        if self._reconciling is not None:
            tasks.append(self._reconciling)
        if tasks:
            await asyncio.wait(tasks)
        await self._submission.stop()

    def _is_outdated(self, candle_close_ms: int) -> bool:
        return self._now_ms() - candle_close_ms > self._settings.approval_valid_ms

    def _is_open_for_entries(self, symbol: str) -> bool:
        return not self._stopping and self.is_reconciled and self.failure is None and not self.book.active_in(symbol)

    def _plan(self, approved: Approved, candle_close_ms: int) -> TradePlan:
        signal = approved.signal
        return TradePlan(
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
            candle_close_ms=candle_close_ms,
            planned_at_ms=self._now_ms(),
        )

    async def _settle_trade(self, trade_id: str) -> None:
        for _ in range(_STEPS_PER_TURN):
            trade = self.book.trades.get(trade_id)
            if trade is None:
                return
            step = next_step(
                trade, may_enter=self._is_still_wanted(trade), stop_overdue=self._is_overdue(trade)
            ) or self._unfilled_stop(trade)
            if step is None:
                return
            if not await self._take(trade, step):
                return

    async def _take(self, trade: Trade, step: Step) -> bool:
        # Returns whether to go straight on; False leaves the rest to a later turn, which `watch` begins.
        match step:
            case Place(intent=intent):
                is_entry = intent.purpose is Purpose.ENTRY
                outcome = await self._submission.send(
                    intent, is_wanted=lambda: not is_entry or self._is_still_wanted(trade)
                )
                return outcome is Outcome.KNOWN and await self._after_placing(trade, intent.client_order_id)
            case Resolve(order=order):
                return await self._submission.resolve(order.intent) is Outcome.KNOWN
            case Cancel(order=order):
                return await self._submission.cancel(order.intent) is Outcome.KNOWN
            case Leave(reason=reason, detail=detail):
                event = ExitRequested(trade_id=trade.plan.trade_id, reason=reason, detail=detail)
                self._ledger.note(event, trace_id=trade.plan.trace_id)
                return True
            case Finish():
                return await self._finish(trade)

    async def _after_placing(self, trade: Trade, client_order_id: str) -> bool:
        order = self.book.order(client_order_id)
        if order is None or not order.refusal:
            return True
        if order.intent.purpose is Purpose.EXIT and order.refusal == NOTHING_TO_REDUCE:
            return await self._believe_venue(trade.plan.trade_id)
        await self._sleep(self._settings.poll_seconds)
        # A refused exit is tried again and again, but in turns that let the rest live.
        return order.intent.purpose is not Purpose.EXIT or len(trade.of(Purpose.EXIT)) < _STEPS_PER_TURN // 4

    async def _finish(self, trade: Trade) -> bool:
        key = trade.plan.trade_id
        if trade.entered > 0 or trade.exited > 0:
            self._fills_asked[key] += 1
            try:
                await self._book_fills(trade)
            except VenueError as error:
                # A refusal stays one: the money is then counted from the order reports.
                if not isinstance(error, RequestRefusedError) or self._fills_asked[key] < self._settings.fills_attempts:
                    return False
            current = self.book.trades[key]
            if not explained(current) and self._fills_asked[key] < self._settings.fills_attempts:
                await self._sleep(self._settings.poll_seconds)
                return True
        current = self.book.trades[key]
        if current.open_quantity > 0:
            return True
        result = trade_result(current, closed_at_ms=self._now_ms(), taker_fee=self._taker_fee)
        self._ledger.note(TradeClosed(trade_id=key, result=result), trace_id=trade.plan.trace_id, durable=True)
        self.closed.append(result)
        for remembered in (self._naked_since, self._fills_asked):
            remembered.pop(key, None)
        for order_id in current.orders:
            self._fired_since.pop(order_id, None)
        self._submission.forget(current.orders.keys())
        return True

    async def _book_fills(self, trade: Trade) -> None:
        fills = await self._gateway.fills(trade.symbol, trade.plan.planned_at_ms - _FILLS_SLACK_MS)
        for fill in fills:
            self._ledger.note_fill(fill)
        current = self.book.trades[trade.plan.trade_id]
        strange = [one for one in fills if self._is_strange(one, current)]
        taken = sum((one.quantity for one in strange), Decimal(0))
        if current.external > 0 and taken == current.external:
            # Somebody else's executions say at what price they closed our position.
            price = sum((one.quantity * one.price for one in strange), Decimal(0)) / taken
            if price != current.external_price:
                fees = sum((one.fee for one in strange), Decimal(0))
                self._adopt(current, current.open_quantity, price, fees)

    def _is_strange(self, fill: Fill, trade: Trade) -> bool:
        ours = self.book.order(fill.client_order_id) or self.book.client_order_id_of(fill.venue_order_id)
        closing = fill.side is not Side.opening(trade.plan.direction)
        return not ours and closing and fill.event_time_ms >= trade.plan.planned_at_ms

    def _adopt(self, trade: Trade, open_quantity: Decimal, price: Decimal, fees: Decimal = Decimal(0)) -> None:
        event = PositionFoundChanged(
            trade_id=trade.plan.trade_id, symbol=trade.symbol, open_quantity=open_quantity, price=price, fees=fees
        )
        self._ledger.note(event, trace_id=trade.plan.trace_id, durable=True)

    async def _believe_venue(self, trade_id: str) -> bool:
        # Every order first: what the venue closed for us explains more than what somebody else may have done.
        trade = self.book.trades[trade_id]
        for order in trade.orders.values():
            if not order.status.is_terminal:
                await self._submission.ask(order.intent)
        try:
            await self._book_fills(trade)
            positions = {one.symbol: one for one in await self._gateway.positions()}
        except VenueError:
            return False
        trade = self.book.trades[trade_id]
        position = positions.get(trade.symbol)
        held = position.signed_quantity if position else Decimal(0)
        if held != trade.signed_quantity:
            own = abs(held) if held * trade.signed_quantity > 0 else Decimal(0)
            self._adopt(trade, own, position.mark_price if position else trade.plan.reference_price)
        return True

    def _is_still_wanted(self, trade: Trade) -> bool:
        key = trade.plan.trade_id
        if key not in self._may_enter or self._stopping or self._is_outdated(trade.plan.candle_close_ms):
            return False
        # The price that was decided on will not wait for a ban to pass.
        if self._submission.quiet_seconds > self._settings.entry_resend_seconds:
            return False
        entries = trade.of(Purpose.ENTRY)
        return not entries or self._submission.is_worth_resending(entries[-1].intent)

    def _is_overdue(self, trade: Trade) -> bool:
        key = trade.plan.trade_id
        covered = sum((order.remaining for order in trade.of(Purpose.STOP) if order.is_live), Decimal(0))
        if covered >= trade.open_quantity:
            self._naked_since.pop(key, None)
            return False
        since = self._naked_since.setdefault(key, self._monotonic())
        return self._monotonic() - since > self._settings.stop_within_seconds

    def _unfilled_stop(self, trade: Trade) -> Step | None:
        if trade.exit_reason is None and self._has_fired_in_vain(trade):
            return Leave(ExitReason.STOP_UNFILLED, "the stop fired and did not fill in time")
        return None

    def _has_fired_in_vain(self, trade: Trade) -> bool:
        late = False
        for order in trade.of(Purpose.STOP):
            key = order.intent.client_order_id
            fired = order.status in (OrderStatus.TRIGGERED, OrderStatus.PARTIALLY_FILLED)
            if not fired or trade.open_quantity == 0:
                self._fired_since.pop(key, None)
                continue
            since = self._fired_since.setdefault(key, self._monotonic())
            late = late or self._monotonic() - since > self._settings.fired_patience_seconds
        return late

    def _touch(self, symbol: str) -> None:
        self._touched.add(symbol)
        self._wake.set()

    async def _pause(self) -> None:
        if self._touched:
            await asyncio.sleep(0)
            return
        nap = asyncio.ensure_future(self._sleep(self._settings.watch_seconds))
        woken = asyncio.ensure_future(self._wake.wait())
        try:
            await asyncio.wait({nap, woken}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            nap.cancel()
            woken.cancel()

    def _begin_turn(self, symbol: str) -> None:
        running = self._turns.get(symbol)
        if running is not None and not running.done():
            self._again.add(symbol)
            return
        turn = asyncio.create_task(self.settle(symbol), name=f"settle-{symbol}")
        turn.add_done_callback(lambda done: self._turn_ended(symbol, done))
        self._turns[symbol] = turn

    def _turn_ended(self, symbol: str, turn: asyncio.Task[None]) -> None:
        self._take_defect(turn)
        if symbol in self._again:
            self._again.discard(symbol)
            self._touch(symbol)

    def _begin_reconcile(self) -> None:
        def ended(task: asyncio.Task[bool]) -> None:
            self._reconciling = None
            self._take_defect(task)

        self._reconciling = asyncio.create_task(self.reconcile(), name="reconcile")
        self._reconciling.add_done_callback(ended)

    def _take_defect(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            # No wake-up: what fails at once must not spin, the watch tries again.
            self._defect = self._defect or error
