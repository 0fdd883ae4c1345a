"""
The emergency stop at work: looks several times a second, latches before it acts, and acts until it is done.

It needs neither database nor registry nor Prefect: a stop is a file in the home and an entry of the journal, whichever
can be written, and in the worth of this process's memory where neither can.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal

from feature_store.venue.errors import VenueError
from inference.domain.decision import DenyCode, TradingState
from inference.domain.events import AccountMarked, Noted
from inference.domain.health import HealthLevel
from inference.domain.market import Quote
from inference.domain.policy import Policy
from inference.domain.position import Account
from inference.domain.trade import ExitReason
from inference.execution.book import Trade
from inference.execution.executor import Executor
from inference.risk.emergency import (
    Action,
    Bases,
    EmergencyInputs,
    Evaluator,
    Trip,
    Verdict,
    bases_of,
    evaluate,
    positions_to_close,
)
from inference.risk.errors import ErrorCounts
from inference.supervision import emergency_record
from inference.supervision.account_marks import account_of, day_of, week_of
from inference.supervision.emergency_latch import Latch, LatchFiles, ResetOrder, StopOrder, key_of
from inference.supervision.emergency_prices import prices_of
from inference.supervision.emergency_record import EmergencyRecord
from inference.supervision.standing import Standing
from inference.telemetry.logs import logger

_log = logger("emergency")

LOOK_SECONDS = 0.2
"""How often files and numbers are looked at, on the wall's clock."""
_EQUITY_SECONDS = {True: 5.0, False: 30.0}
_EQUITY_PATIENCE_S = 5.0
_UNPRICED = "no price tells whether it loses"
_REMIND_SECONDS = 1.0
OBJECTION = "emergency"
CODE = DenyCode.EMERGENCY_STOP.value
MISSING_CODE = DenyCode.RISK_INPUT_MISSING.value


@dataclass(frozen=True, slots=True, kw_only=True)
class EmergencyParts:
    """
    What the emergency stop reads and uses of a worker.

    `equity` asks the venue, `marks` are the account's as that equity leaves them, `rebase` moves its peak there after a
    reset. `traded` is a symbol's last price where it is fresh. `next_close_ms` is when the next candle is due, None
    before candles are followed. `wall` is the moment as ISO 8601 text in UTC.
    """

    executor: Executor
    standing: Standing
    policy: Callable[[], Policy]
    equity: Callable[[], Awaitable[Decimal]]
    marks: Callable[[Decimal], AccountMarked]
    rebase: Callable[[Decimal | None], Decimal | None]
    quotes: Callable[[], Awaitable[Mapping[str, Quote]]]
    traded: Callable[[str], Decimal | None]
    health: Callable[[], HealthLevel | None]
    errors: Callable[[], ErrorCounts | None]
    forget_errors: Callable[[], None]
    next_close_ms: Callable[[], int | None]
    record: Callable[[Noted], None]
    now_ms: Callable[[], int]
    monotonic: Callable[[], float]
    wall: Callable[[], str]


class EmergencyWatch:
    """Owns the latch of one worker. `begin` before anything is entered, `heed` while it starts, `run` from then on."""

    def __init__(self, latch: Latch, record: EmergencyRecord, parts: EmergencyParts) -> None:
        self.record = record
        self.missing: tuple[Evaluator, ...] = ()
        # For how long a candle that has closed has not come, in wall-clock seconds; None before candles are followed.
        self.feed_overdue_seconds: float | None = None
        self._latch = latch
        self._parts = parts
        self._unreadable = ""
        self._unwritten: dict[str, StopOrder] = {}
        self._equity: Decimal | None = None
        self._equity_at: float | None = None
        self._asked_at: float | None = None
        self._asking: asyncio.Task[None] | None = None
        self._overdue_since: float | None = None
        self._critical_since: float | None = None
        self._working: dict[str, asyncio.Task[None]] = {}
        self._began: dict[str, float] = {}
        self._reminded = 0.0

    @property
    def reason(self) -> str:
        """Why the stop is latched, empty where it stands by."""
        if self.record.standing:
            first = next(iter(self.record.standing.values()))
            more = len(self.record.standing) - 1
            return f"{first.evaluator.value}: {first.reason}" + (f" (and {more} more)" if more else "")
        return self._unreadable

    @property
    def account_age_seconds(self) -> float | None:
        """How old the account's equity is, in wall-clock seconds; None where it was never heard."""
        return None if self._equity_at is None else self._parts.monotonic() - self._equity_at

    @property
    def withheld(self) -> str:
        """Whose input is missing, in words; while there is any, nothing is entered."""
        return ", ".join(one.value for one in self.missing)

    def begin(self) -> None:
        """Latch again what was latched when the last worker ended, before anything can be entered."""
        for order in self.record.standing.values():
            self._write(order)
        self._read_files()
        self._hold()

    async def heed(self) -> None:
        """
        Take in and carry out what people ask for until cancelled, for a worker that starts; `run` goes on with it.

        No evaluator is asked: what they judge by is not known yet, and a start may last for as long as it likes.
        """
        while True:
            self._read_files()
            self._act()
            await asyncio.sleep(LOOK_SECONDS)

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_SECONDS)

    def look(self) -> None:
        """Take in what people asked for, ask the evaluators, and see to it that what was begun is finished."""
        self._read_files()
        self._ask_equity()
        verdict = self._evaluate()
        self.missing = verdict.missing
        for trip in verdict.trips:
            if all(one.evaluator is not trip.evaluator for one in self.record.standing.values()):
                self._trip(trip)
        self._act()

    async def stop(self) -> None:
        """End what waits; exits that were asked for are in the journal and go on with the next worker."""
        tasks = [*self._working.values(), *((self._asking,) if self._asking else ())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _act(self) -> None:
        self._hold()
        for order in list(self._unwritten.values()):
            self._write(order)
        for order in list(self.record.standing.values()):
            self._pursue(order)

    # -- latching ------------------------------------------------------------------------------------------------------

    def _read_files(self) -> None:
        try:
            files = self._latch.read()
        except OSError as error:
            # Whether anything is latched is not known: nothing is entered until it is.
            self._unreadable = f"the folder of emergency stops cannot be read: {error}"
            return
        self._unreadable = ""
        for order in files.stops:
            if order.key not in self.record.standing and order.key not in self.record.ended:
                self._take(order)
        for found in files.resets:
            self._end(found, files)

    def _trip(self, trip: Trip) -> None:
        at = self._parts.wall()
        order = StopOrder(
            key=key_of(at, trip.evaluator.value),
            evaluator=trip.evaluator,
            reason=trip.reason,
            actions=trip.actions,
            at=at,
            by="worker",
            numbers=dict(trip.numbers),
        )
        self._take(order)

    def _take(self, order: StopOrder) -> None:
        # Memory first, then the file, then the journal: whatever fails, nothing is entered any more.
        self.record.standing.setdefault(order.key, order)
        self._began[order.key] = self._parts.monotonic()
        self._hold()
        self._write(order)
        self._parts.record(emergency_record.stopped(order))
        _log.critical("emergency_stop", evaluator=order.evaluator.value, reason=order.reason, by=order.by)

    def _write(self, order: StopOrder) -> None:
        try:
            if all(one.key != order.key for one in self._latch.read().stops):
                self._latch.stop(order)
            self._unwritten.pop(order.key, None)
        except (OSError, ValueError) as error:
            if order.key not in self._unwritten:
                _log.error("emergency_stop_not_written", key=order.key, error=str(error)[:200])
            self._unwritten[order.key] = order

    def _end(self, order: ResetOrder, files: LatchFiles) -> None:
        ended = [key for key in order.stops if key in self.record.standing]
        if ended:
            equity = self._parts.rebase(self._equity)
            told = emergency_record.reset(order, equity)
            self._parts.record(told)
            self.record.visit(told, self._parts.now_ms())
            for key in ended:
                self._unwritten.pop(key, None)
            # What led to it is counted anew: whoever resets has looked at it.
            self._parts.forget_errors()
            self._overdue_since = self._critical_since = None
            _log.warning("emergency_reset", stops=ended, reason=order.reason, by=order.by)
        if all(key not in self.record.standing for key in order.stops):
            # Stops first: a crash between the two must not leave one without its reset.
            present = {one.key for one in files.stops}
            self._latch.remove([key for key in order.stops if key in present])
            self._latch.remove([order.key])
        if not self.record.standing:
            self._release()

    def _hold(self) -> None:
        reason = self.reason
        if reason:
            self._parts.standing.object(OBJECTION, TradingState.HALTED, f"emergency stop: {reason}"[:500])
            self._parts.executor.bar_entries(CODE, reason)
        elif self.missing:
            # Nothing is latched any more: what halted is over, and only the input that is missing holds entries.
            self._parts.standing.release(OBJECTION)
            self._parts.executor.bar_entries(MISSING_CODE, f"input of {self.withheld} is missing or stale")
        else:
            self._release()

    def _release(self) -> None:
        if not self.reason:
            self._parts.standing.release(OBJECTION)
            if not self.missing:
                self._parts.executor.admit_entries()

    # -- evaluating ----------------------------------------------------------------------------------------------------

    def _evaluate(self) -> Verdict:
        now = self._parts.monotonic()
        account, bases = self._account()
        self.feed_overdue_seconds = self._overdue_for(now)
        health = self._parts.health()
        inputs = EmergencyInputs(
            account=account,
            account_age_seconds=float("inf") if self.account_age_seconds is None else self.account_age_seconds,
            bases=bases,
            health=health,
            health_seconds=self._critical_for(health, now),
            errors=self._parts.errors(),
            feed_overdue_seconds=self.feed_overdue_seconds,
        )
        return evaluate(inputs, self._parts.policy())

    def _account(self) -> tuple[Account | None, Bases | None]:
        equity, now_ms = self._equity, self._parts.now_ms()
        if equity is None:
            return None, None
        # Not recorded: marks move at candles. They are those of now all the same, as the reset's day and week are: at
        # midnight the day that was reset must not be measured once more from where it began.
        account = account_of(self._parts.marks(equity))
        reset_ms = self.record.reset_ms
        bases = bases_of(
            account,
            reset_equity=self.record.reset_equity,
            same_day=reset_ms is not None and day_of(reset_ms) == day_of(now_ms),
            same_week=reset_ms is not None and week_of(reset_ms) == week_of(now_ms),
        )
        return account, bases

    def _critical_for(self, health: HealthLevel | None, now: float) -> float:
        if health not in (HealthLevel.CRITICAL, HealthLevel.EMERGENCY):
            self._critical_since = None
            return 0.0
        if self._critical_since is None:
            self._critical_since = now
        return now - self._critical_since

    def _overdue_for(self, now: float) -> float | None:
        due_ms = self._parts.next_close_ms()
        if due_ms is None:
            return None
        if self._parts.now_ms() < due_ms:
            self._overdue_since = None
            return 0.0
        if self._overdue_since is None:
            self._overdue_since = now
        return now - self._overdue_since

    def _ask_equity(self) -> None:
        now = self._parts.monotonic()
        if self._asking is not None and not self._asking.done():
            return
        failed = self._asked_at is None or self._equity_at is None or self._equity_at < self._asked_at
        is_open = any(trade.open_quantity > 0 for trade in self._parts.executor.book.active())
        if self._asked_at is None or now - self._asked_at >= _EQUITY_SECONDS[is_open or failed]:
            self._asked_at = now
            self._asking = asyncio.create_task(self._read_equity(), name="emergency equity")

    async def _read_equity(self) -> None:
        with suppress(VenueError, TimeoutError):
            async with asyncio.timeout(_EQUITY_PATIENCE_S):
                self._equity = await self._parts.equity()
            self._equity_at = self._parts.monotonic()

    # -- acting --------------------------------------------------------------------------------------------------------

    def _pursue(self, order: StopOrder) -> None:
        working = self._working.get(order.key)
        if working is not None:
            if not working.done():
                return
            del self._working[order.key]
            if not working.cancelled() and (error := working.exception()) is not None:
                _log.error("emergency_action_failed", key=order.key, error=f"{type(error).__name__}: {error}"[:300])
        elif order.key not in self.record.confirmed and order.key not in self._began:
            # A worker before this one began it.
            self._began[order.key] = self._parts.monotonic()
        if order.key not in self.record.chosen:
            self._parts.executor.doubt()
            self._working[order.key] = asyncio.create_task(self._begin(order), name="emergency")
        elif self._left(order):
            now = self._parts.monotonic()
            if now - self._reminded >= _REMIND_SECONDS:
                self._reminded = now
                self._working[order.key] = asyncio.create_task(self._close(order), name="emergency")
        elif order.key not in self.record.confirmed and self._is_done(order):
            told = emergency_record.confirmed(order, self._parts.monotonic() - self._began[order.key])
            self._parts.record(told)
            self.record.visit(told, self._parts.now_ms())

    async def _begin(self, order: StopOrder) -> None:
        looked = asyncio.create_task(self._parts.executor.reconcile(), name="emergency reconcile")
        book, asks_losers = self._parts.executor.book, Action.CLOSE_LOSERS in order.actions
        quotes = (
            await prices_of(
                book.positions(), ask=self._parts.quotes, traded=self._parts.traded, now_ms=self._parts.now_ms
            )
            if asks_losers
            else {}
        )
        positions = book.positions()
        # Whether they lose cannot be told, and is decided once: behind a wall what is not known to win goes.
        unpriced = positions.keys() - quotes.keys() if asks_losers else set[str]()
        closing = dict.fromkeys(sorted(unpriced), _UNPRICED)
        closing |= positions_to_close(
            order.actions,
            positions={symbol: one for symbol, one in positions.items() if symbol not in unpriced},
            quotes=quotes,
            heat=book.heat(),
            reduce_share=self._parts.policy().emergency_reduce_share,
        )
        told = emergency_record.chosen(order, {positions[symbol].trade_id: why for symbol, why in closing.items()})
        self._parts.record(told)
        self.record.visit(told, self._parts.now_ms())
        await self._close(order)
        await looked

    async def _close(self, order: StopOrder) -> None:
        symbols = sorted({trade.symbol for trade in self._left(order)})
        await asyncio.gather(*(self._parts.executor.request_exit(one, ExitReason.EMERGENCY, order.reason[:200])
                               for one in symbols))  # fmt: skip

    def _left(self, order: StopOrder) -> list[Trade]:
        """Return what this stop closes and nobody has been asked to leave yet; executions keep asking from then on."""
        mine = set(self.record.chosen.get(order.key, ()))
        everything = Action.FLATTEN in order.actions
        return [
            trade
            for trade in self._parts.executor.book.active()
            if trade.open_quantity > 0 and trade.exit_reason is None and (everything or trade.plan.trade_id in mine)
        ]

    def _is_done(self, order: StopOrder) -> bool:
        executor = self._parts.executor
        mine = set(self.record.chosen.get(order.key, ()))
        everything = Action.FLATTEN in order.actions
        return executor.is_reconciled and not any(
            trade.is_entering or (trade.open_quantity > 0 and (everything or trade.plan.trade_id in mine))
            for trade in executor.book.active()
        )
