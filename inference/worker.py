"""The worker's loop: one batch of closed candles in, decisions and orders out, and a status for whoever watches."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from feature_store.candle import Timeframe
from feature_store.errors import QuantumError
from feature_store.extensions.live import ViewedFeatures
from feature_store.features import native
from feature_store.features.live import LiveFeatures
from feature_store.venue.errors import VenueError
from inference.decision import decide, due_exits
from inference.domain.bias import BiasRules
from inference.domain.decision import Approved, Candidate, Decision, Denied, Snapshot, TradingState
from inference.domain.errors import JournalError
from inference.domain.events import AccountMarked, CandlesDecided, Event, FeaturesUsed, Noted
from inference.domain.market import Instrument, Quote
from inference.domain.policy import Policy
from inference.domain.position import Account
from inference.domain.trade import ExitReason
from inference.exchange.venue_clock import VenueClock
from inference.execution.executor import Executor
from inference.feed.batches import CandleBatch
from inference.feed.followed import FollowedFeatures, Known
from inference.feed.rebuilding import Behind, History, Rebuilds
from inference.journal.writer import JournalWriter
from inference.signals.used_features import UsedFeatures
from inference.supervision.account_marks import marked
from inference.supervision.counters import Counters
from inference.supervision.latency import Latencies
from inference.supervision.member_counts import MemberCounts
from inference.supervision.model_supervisor import ModelSupervisor
from inference.supervision.model_watch import ActiveModel, ModelWatch
from inference.supervision.remembered import Remembered
from inference.supervision.scored_candle import ScoredCandle, Scoring
from inference.supervision.shadow import Shadow, ShadowScene
from inference.supervision.standing import Standing
from inference.telemetry.logs import logger

_log = logger("worker")
# Entries at once: more would delay each other's stops, and a position must not wait for its stop.
_ENTRIES_AT_ONCE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPlan:
    """What this worker trades, where and by which rules."""

    venue: str
    mode: str
    symbols: tuple[str, ...]
    timeframe: Timeframe
    policy: Policy
    status_file: Path
    bias: BiasRules = field(default_factory=BiasRules)


@dataclass(frozen=True, slots=True)
class _Opinion:
    known: Known
    scored: ScoredCandle = field(default_factory=ScoredCandle)
    used: FeaturesUsed | None = None

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        return self.scored.candidates

    @property
    def incomplete(self) -> Mapping[str, str]:
        return self.known.incomplete


@dataclass(frozen=True, slots=True)
class _Asked:
    close_time_ms: int
    quotes: asyncio.Task[dict[str, Quote]]
    account: asyncio.Task[Account]


class Worker:
    """
    Turns candle batches into decisions and hands approvals to the executor.

    It owns no connection: feed, gateway and executor are given, started and stopped by whoever composes them.
    """

    def __init__(
        self,
        plan: WorkerPlan,
        *,
        features: LiveFeatures,
        equity: Callable[[], Awaitable[Decimal]],
        quotes: Callable[[], Awaitable[dict[str, Quote]]],
        executor: Executor,
        models: ModelWatch,
        journal: JournalWriter,
        clock: VenueClock,
        instruments: Mapping[str, Instrument],
        last_mark: tuple[AccountMarked | None, int],
        history: History,
        monotonic: Callable[[], float],
        shadow: Shadow | None = None,
        remembered: Remembered | None = None,
    ) -> None:
        self.plan = plan
        self.executor = executor
        self.models = models
        self.model: ActiveModel | None = None
        self.standing = Standing()
        self.counters = Counters()
        self.latencies = Latencies()
        self.account, self._account_at_ms = last_mark
        self.shadow = shadow
        self.members = MemberCounts()
        self._scoring: Scoring | None = None
        self.supervisor = ModelSupervisor(
            plan.bias,
            plan.policy,
            timeframe=plan.timeframe,
            on_event=self.note,
            on_fact=lambda kind, detail: self._record(Noted(event_type=kind, detail=detail)),
            remembered=remembered,
        )
        self._features = features
        self._equity = equity
        self._quotes = quotes
        self._journal = journal
        self._clock = clock
        self._instruments = instruments
        self._monotonic = monotonic
        self._used = UsedFeatures(
            plan.symbols,
            venue=plan.venue,
            timeframe=plan.timeframe.value,
            code=native.made_from()[:16],
            viewed=features if isinstance(features, ViewedFeatures) else None,
        )
        self._followed = FollowedFeatures(features, keep=self._used.keep)
        self._rebuilds = Rebuilds(history, note=self.note)
        self._entries: set[asyncio.Task[None]] = set()
        self._asked: _Asked | None = None
        self._computing: asyncio.Task[_Opinion] | None = None
        self._entering = asyncio.Semaphore(_ENTRIES_AT_ONCE)

    @property
    def now_ms(self) -> int:
        """The venue's time."""
        return self._clock.now_ms(self._monotonic())

    @property
    def stale(self) -> Mapping[str, str]:
        """Series that wait to be rebuilt since candles behind them have changed, and why."""
        return self._rebuilds.stale

    async def run(self, batches: asyncio.Queue[CandleBatch]) -> None:
        """Process batches until cancelled."""
        while True:
            batch = await batches.get()
            await self.guard("decide", self.on_batch(batch))
            # Whatever became of the decision: a position is not held beyond its time.
            self._leave_overdue(batch)

    async def guard(self, what: str, work: Awaitable[object]) -> None:
        """Do a piece of work; whatever goes wrong in it halts trading, not the process that guards what is open."""
        try:
            await work
        except Exception as error:  # noqa: BLE001 - the one place where anything at all is caught
            self.halt(f"{what} failed: {type(error).__name__}: {error}")
            _log.exception("work_failed", what=what)

    def on_close(self, close_time_ms: int) -> None:
        """Ask the venue for prices and equity while the closed candles are still on their way."""
        if self._asked is not None:
            self._asked.quotes.cancel()
            self._asked.account.cancel()
        self._asked = self._ask(close_time_ms)

    async def on_batch(self, batch: CandleBatch) -> None:
        """Take one close time through features, ensemble and decision chain."""
        started = self._monotonic()
        asked = self._answers(batch.close_time_ms)
        self._swap_model()
        model = self.model
        behind = self._rebuilds.behind(batch.changed)
        # In a thread, so that stops and fills are attended to meanwhile.
        self._computing = asyncio.create_task(asyncio.to_thread(self._opinion, batch, model, behind))
        opinion = await asyncio.shield(self._computing)
        self._rebuilds.settle(behind)
        self.members.add(opinion.scored.answers, opinion.scored.seconds)
        horizon = 1 if model is None else model.bundle.horizon
        self.supervisor.watch(opinion.candidates, close_ms=batch.close_time_ms, horizon=horizon)
        snapshot = self._snapshot(batch, opinion, account=await asked.account, quotes=await asked.quotes)
        now_ms = self.now_ms
        decisions = () if model is None else decide(snapshot, self.plan.policy, now_ms)
        self.latencies.add(self._monotonic() - started)

        if model is not None:
            self._carry_out(snapshot, decisions, now_ms=now_ms, used=opinion.used)
        self._journal.sync()
        if self.shadow is not None:
            self.shadow.offer(self._scene(snapshot, opinion, model, now_ms=now_ms))

    def note(self, event_type: str, detail: Mapping[str, str]) -> None:
        """Journal what the shell did or saw, and log it; a journal that cannot be written halts trading."""
        _log.info(event_type.replace(".", "_"), **detail)
        self._record(Noted(event_type=event_type, detail=detail))

    def halt(self, reason: str) -> None:
        """Enter nothing more until the next start; what is open stays protected and may be left."""
        if self.standing.object("halted", TradingState.HALTED, reason):
            _log.error("halted", reason=reason)
            self._record(Noted(event_type="health.halted", detail={"reason": reason[:500]}))

    @property
    def is_entering(self) -> bool:
        """Whether an order is on its way, or the stop that follows it."""
        return bool(self._entries)

    async def stop(self) -> None:
        """Let entries that are under way end, and the thread that advances features: they are saved next."""
        await self._rebuilds.stop()
        if self._entries:
            await asyncio.wait(self._entries, timeout=5.0)
        if self._computing is not None:
            await asyncio.wait({self._computing}, timeout=5.0)

    def _answers(self, close_time_ms: int) -> _Asked:
        asked, self._asked = self._asked, None
        if asked is not None and asked.close_time_ms == close_time_ms:
            return asked
        self._asked = asked
        return self._ask(close_time_ms)

    def _ask(self, close_time_ms: int) -> _Asked:
        quotes = asyncio.create_task(self._read_quotes())
        return _Asked(close_time_ms, quotes, asyncio.create_task(self._read_account()))

    def _swap_model(self) -> None:
        offered = self.models.take()
        if offered is not None:
            self.model = offered
            detail = {
                "version": offered.version,
                "digest": offered.bundle.digest,
                "horizon": str(offered.bundle.horizon),
                "verdict": offered.label,
                "source": offered.source,
            }
            self.note("model.loaded", detail)
        elif not self.models.wanted and self.model is not None:
            self.note("model.unloaded", {"version": self.model.version, "reason": self.models.reason[:300]})
            self.model = None

    def _opinion(self, batch: CandleBatch, model: ActiveModel | None, behind: Behind) -> _Opinion:
        known = self._followed.advance(batch, behind)
        self.counters.candles += known.candles
        self.counters.batches += 1
        if model is None or not known.ready:
            return _Opinion(known)
        scored = self._scoring_of(model).score(known.latest, known.ready, self._followed.rows)
        used = self._used.record(
            known.latest, known.ready, continuity=self._features.continuity, candle_close_ms=batch.close_time_ms
        )
        return _Opinion(known, scored, used)

    def _scoring_of(self, model: ActiveModel) -> Scoring:
        if self._scoring is None or self._scoring.model is not model:
            length_ms = self.plan.timeframe.milliseconds
            self._scoring = Scoring(model, venue=self.plan.venue, timeframe_ms=length_ms, monotonic=self._monotonic)
        return self._scoring

    def _scene(self, snapshot: Snapshot, opinion: _Opinion, model: ActiveModel | None, *, now_ms: int) -> ShadowScene:
        signals = tuple(candidate.signal for candidate in opinion.candidates)
        return ShadowScene(
            candle_close_ms=snapshot.candle_close_ms,
            now_ms=now_ms,
            latest=opinion.known.latest,
            rows=tuple(opinion.known.ready),
            quotes=snapshot.quotes,
            champion=None if model is None else (model, signals),
        )

    def _snapshot(
        self, batch: CandleBatch, opinion: _Opinion, *, account: Account, quotes: Mapping[str, Quote]
    ) -> Snapshot:
        book = self.executor.book
        self._judge_standing()
        return Snapshot(
            candle_close_ms=batch.close_time_ms,
            trading_state=self.standing.trading_state,
            account=account,
            candidates=opinion.candidates,
            positions=book.positions(),
            in_flight=book.in_flight(),
            heat=book.heat(),
            instruments=self._instruments,
            quotes={symbol: quotes[symbol] for symbol in self.plan.symbols if symbol in quotes},
            last_entry_ms=dict(book.last_entry_ms),
            incomplete=opinion.incomplete,
            timeframe_ms=self.plan.timeframe.milliseconds,
            bias=self.supervisor.enforced,
        )

    def _judge_standing(self) -> None:
        if trouble := self.executor.trouble:
            self.halt(trouble)
        if self.executor.is_reconciled:
            self.standing.lift("reconcile")
        else:
            self.standing.object("reconcile", TradingState.REDUCING, "journal and venue do not agree yet")

    async def _read_quotes(self) -> dict[str, Quote]:
        try:
            return self.executor.know(await self._quotes())
        except VenueError as error:
            # Without a quote every candidate is denied, with its code.
            _log.warning("quotes_not_read", error=str(error)[:200])
            return {}

    async def _read_account(self) -> Account:
        try:
            equity = await self._equity()
        except VenueError as error:
            self.standing.object("account", TradingState.REDUCING, f"equity is not known: {error}"[:300])
        else:
            self.standing.lift("account")
            now_ms = self.now_ms
            self.account = marked(self.account, self._account_at_ms, equity=equity, now_ms=now_ms)
            self._account_at_ms = now_ms
            self._record(self.account)
        known = self.account
        if known is None:
            return Account(equity=Decimal(0), day_start_equity=Decimal(0), peak_equity=Decimal(0))
        return Account(equity=known.equity, day_start_equity=known.day_start_equity, peak_equity=known.peak_equity)

    def _leave_overdue(self, batch: CandleBatch) -> None:
        due = due_exits(
            self.executor.book.positions(),
            candle_close_ms=batch.close_time_ms,
            policy=self.plan.policy,
            timeframe_ms=self.plan.timeframe.milliseconds,
        )
        for symbol in due:
            self._in_background("leave", self.executor.request_exit(symbol, ExitReason.TIME_BARRIER))

    def _carry_out(
        self, snapshot: Snapshot, decisions: tuple[Decision, ...], *, now_ms: int, used: FeaturesUsed | None
    ) -> None:
        approved = tuple(one for one in decisions if isinstance(one, Approved))
        denied = tuple(one for one in decisions if isinstance(one, Denied))
        event = CandlesDecided(
            now_ms=now_ms, policy=self.plan.policy, snapshot=snapshot, approved=approved, denied=denied
        )
        if used is not None:
            self._journal.record(used, timestamp_ms=now_ms)
        self._journal.record(event, timestamp_ms=now_ms)
        self._remember(decisions)
        for approval in approved:
            self._in_background("enter", self._enter(approval, candle_close_ms=snapshot.candle_close_ms))

    def _remember(self, decisions: tuple[Decision, ...]) -> None:
        for decision in decisions:
            outcome = "APPROVED" if isinstance(decision, Approved) else decision.code.value
            if isinstance(decision, Denied):
                self.counters.refusals[decision.code.value] += 1
            else:
                self.counters.orders["approved"] += 1
            if decision.signal is not None:
                self.counters.last_signals[decision.symbol] = (decision.signal, outcome)

    async def _enter(self, approval: Approved, *, candle_close_ms: int) -> None:
        async with self._entering:
            opened = await self.executor.enter(approval, candle_close_ms=candle_close_ms)
        self.counters.orders["opened" if opened else "not_opened"] += 1
        _log.info("entry_finished", symbol=approval.symbol, direction=approval.direction.value, opened=opened)

    def _in_background(self, what: str, work: Awaitable[object]) -> None:
        task = asyncio.create_task(self.guard(what, work), name=what)
        self._entries.add(task)
        task.add_done_callback(self._entries.discard)

    def _record(self, event: Event) -> None:
        try:
            self._journal.record(event, timestamp_ms=self.now_ms)
        except JournalError as error:
            self.standing.object("journal", TradingState.HALTED, str(error))
            _log.error("journal_not_written", error=str(error))
        except (QuantumError, ValueError) as error:
            _log.error("event_not_recorded", error=str(error))
