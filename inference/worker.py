"""The worker's loop: one batch of closed candles in, decisions and orders out, and a status for whoever watches."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path

from msgspec import UNSET, UnsetType

from feature_store.candle import Timeframe
from feature_store.errors import QuantumError
from feature_store.features.live import LiveFeatures
from inference.decision import decide, due_exits, ranking_of
from inference.domain.bias import BiasRules
from inference.domain.decision import Approved, Candidate, Decision, Denied, Snapshot, TradingState
from inference.domain.errors import JournalError
from inference.domain.events import AccountMarked, CandlesDecided, Event, FeaturesUsed, Noted
from inference.domain.exit_profile import ExitProfile
from inference.domain.fallback import FallbackMode
from inference.domain.governance import Resolution
from inference.domain.market import Instrument, Quote
from inference.domain.mode import AS_LIVE
from inference.domain.policy import Policy
from inference.domain.position import Account
from inference.domain.trade import ExitReason
from inference.exchange.venue_clock import VenueClock
from inference.execution.executor import Executor
from inference.feed.batches import CandleBatch
from inference.feed.candles_closed import candles_closed
from inference.feed.rebuilding import History, Rebuilds
from inference.feed.seen_closes import seen_closes
from inference.governance.charter import Charter
from inference.journal.writer import JournalWriter
from inference.models.opinions import model_name
from inference.opinions import Opinion, Opinions
from inference.policy.watch import PolicyWatch
from inference.supervision.committee_watch import CommitteeWatch, briefing_of, seen_of
from inference.supervision.counters import Counters
from inference.supervision.explaining import Explainer
from inference.supervision.fallback import FallbackWatch
from inference.supervision.federation_watch import FederationWatch
from inference.supervision.followed_exits import FollowedExits, built_in
from inference.supervision.followed_policy import FollowedPolicy
from inference.supervision.latency import Latencies
from inference.supervision.member_counts import MemberCounts
from inference.supervision.model_supervisor import ModelSupervisor
from inference.supervision.model_watch import LOCAL, ActiveModel, ModelWatch
from inference.supervision.remembered import Remembered
from inference.supervision.reproducing import Reproducer
from inference.supervision.risk_watch import RiskWatch
from inference.supervision.shadow import Shadow, ShadowScene
from inference.supervision.signal_quality import SignalQuality
from inference.supervision.standing import Standing
from inference.supervision.venue_answers import VenueAnswers
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
    fallback: FallbackMode = FallbackMode.OBSERVE
    charter: Charter = field(default_factory=Charter)


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
        risk: RiskWatch | None = None,
        policies: PolicyWatch | None = None,
        on_policy: Callable[[Policy], None] = lambda _: None,
        exit_profiles: Callable[[], Mapping[str, ExitProfile]] = built_in,
        no_exit_profiles: str = "",
    ) -> None:
        self.risk = risk
        # The others of its desk, where it has any; set before candles are followed.
        self.federation: FederationWatch | None = None
        # When the next candle is due; None before candles are followed.
        self.next_close_ms: int | None = None
        self.plan = plan
        self.executor = executor
        self.models = models
        self.model: ActiveModel | None = None
        self.standing = Standing()
        self.counters = Counters()
        self.latencies = Latencies()
        self.shadow = shadow
        self.members = MemberCounts()
        self.supervisor = ModelSupervisor(
            plan.bias,
            plan.policy,
            timeframe=plan.timeframe,
            on_event=self.note,
            on_fact=lambda kind, detail: self._record(Noted(event_type=kind, detail=detail)),
            remembered=remembered,
        )
        self.fallback = FallbackWatch(
            plan.fallback,
            note=self.note,
            leave=lambda name: None if (model := self._known_as(name)) is None else self.models.leave(model),
            is_aside=lambda name: (model := self._known_as(name)) is not None and self.models.is_left(model),
            left=remembered.left if remembered else (),
        )
        self.policies = FollowedPolicy(policies, self.standing, note=self.note, as_live=plan.mode in AS_LIVE)
        self.exits = FollowedExits(self.standing, note=self.note, read=exit_profiles, unsupported=no_exit_profiles)
        self._on_policy = on_policy
        self.committee = CommitteeWatch(self.note, plan.charter)
        self.explainer = Explainer(lambda event: self._record(event, event.trace_id))
        self.reproducer = Reproducer(self.note)
        self.opinions = Opinions(
            features, symbols=plan.symbols, venue=plan.venue, timeframe=plan.timeframe, monotonic=monotonic
        )
        self._quality = SignalQuality(timeframe_ms=plan.timeframe.milliseconds)
        self._journal = journal
        self._clock = clock
        self._instruments = instruments
        self._monotonic = monotonic
        self._rebuilds = Rebuilds(history, note=self.note)
        self._entries: set[asyncio.Task[None]] = set()
        self._computing: asyncio.Task[Opinion] | None = None
        self._entering = asyncio.Semaphore(_ENTRIES_AT_ONCE)
        self.answers = VenueAnswers(
            equity=equity, quotes=quotes, know=executor.know, standing=self.standing, record=self._record,
            now_ms=lambda: self.now_ms, last_mark=last_mark,
        )  # fmt: skip

    @property
    def now_ms(self) -> int:
        """The venue's time."""
        return self._clock.now_ms(self._monotonic())

    @property
    def account(self) -> AccountMarked | None:
        """The account's newest marks."""
        return self.answers.account

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
        if self.risk is not None:
            self.risk.prepare(close_time_ms)
        self.answers.ask(close_time_ms)

    async def on_batch(self, batch: CandleBatch) -> None:
        """Take one close time through features, ensemble and decision chain."""
        started = self._monotonic()
        if batch.blocks:
            self.next_close_ms = batch.close_time_ms + self.plan.timeframe.milliseconds
        asked = self.answers.of(batch.close_time_ms)
        self.follow_policy()
        self._swap_model()
        model = self.model
        behind = self._rebuilds.behind(batch.changed)
        # In a thread, so that stops and fills are attended to meanwhile.
        self._computing = asyncio.create_task(asyncio.to_thread(self.opinions.of, batch, model, behind))
        opinion = await asyncio.shield(self._computing)
        self._rebuilds.settle(behind)
        self.counters.candles += opinion.known.candles
        self.counters.batches += 1
        self.members.add(opinion.scored.answers, opinion.scored.seconds)
        horizon = 1 if model is None else model.bundle.horizon
        self.supervisor.watch(opinion.candidates, close_ms=batch.close_time_ms, horizon=horizon)
        if opinion.candidates:
            self.fallback.look(self.supervisor.watched, self.supervisor.evidence)
        snapshot = self._snapshot(batch, opinion, account=await asked.account, quotes=await asked.quotes)
        # The venue said that the candle has closed, so it is no earlier than that, whatever our reckoning of its time.
        now_ms = max(self.now_ms, batch.close_time_ms)
        decisions = () if model is None else decide(snapshot, self.plan.policy, now_ms)
        self.latencies.add(self._monotonic() - started)

        self._record(candles_closed(batch, self.plan.timeframe.value))
        if model is not None:
            self._carry_out(snapshot, decisions, now_ms=now_ms, used=opinion.used)
            entered = (one for one in decisions if isinstance(one, Approved))
            self.explainer.explain(model, opinion.known.latest, entered)
        self._journal.sync()
        if self.shadow is not None:
            self.shadow.offer(self._scene(snapshot, opinion, model, now_ms=now_ms))

    def follow_policy(self) -> None:
        """Go by the newest version of the policy from here on; what is already decided stays as it was decided."""
        policy = self.policies.take(self.plan.policy)
        if policy is not None:
            self.plan = replace(self.plan, policy=policy, bias=policy.bias_rules)
            self.supervisor.follow(policy.bias_rules, policy)
            if self.shadow is not None:
                self.shadow.follow(policy)
            self._on_policy(policy)
        self.exits.follow(self.plan.policy)

    def note(self, event_type: str, detail: Mapping[str, str]) -> None:
        """Journal what the shell did or saw, and log it; a journal that cannot be written halts trading."""
        _log.info(event_type.replace(".", "_"), **detail)
        self._record(Noted(event_type=event_type, detail=detail))

    def halt(self, reason: str) -> None:
        """Enter nothing more until the next start; what is open stays protected and may be left."""
        # First: an entry under way, or one at rest that would be sent anew, is as new as one decided from now on.
        self.executor.halt_entries(reason)
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
        await self.explainer.stop()
        await self.reproducer.stop()
        if self._entries:
            await asyncio.wait(self._entries, timeout=5.0)
        if self._computing is not None:
            await asyncio.wait({self._computing}, timeout=5.0)

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
                "trained_at": offered.bundle.manifest.created_at[:40],
                "params": json.dumps(offered.bundle.parameters),
            }
            if (promised := offered.bundle.manifest.promised_hit_rate) is not None:
                detail["promised"] = repr(promised)
            self.supervisor.hold_to(model_name(offered.version, offered.bundle.digest), promised)
            self.note("model.loaded", detail)
        elif not self.models.wanted and self.model is not None:
            self.note("model.unloaded", {"version": self.model.version, "reason": self.models.reason[:300]})
            self.model = None

    def _known_as(self, name: str) -> ActiveModel | None:
        """Return the model that trades if that is its name; a folder's has no registry behind it, and no other."""
        model = self.model
        if model is None or model.version == LOCAL or model_name(model.version, model.bundle.digest) != name:
            return None
        return model

    def _scene(self, snapshot: Snapshot, opinion: Opinion, model: ActiveModel | None, *, now_ms: int) -> ShadowScene:
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
        self, batch: CandleBatch, opinion: Opinion, *, account: Account, quotes: Mapping[str, Quote]
    ) -> Snapshot:
        book = self.executor.book
        self._judge_standing()
        return Snapshot(
            candle_close_ms=batch.close_time_ms,
            trading_state=self.standing.trading_state,
            account=account,
            candidates=self._looked_at(opinion, quotes),
            # In the order that the journal's text has: sums of decimals depend on it to the last digit.
            positions=dict(sorted(book.positions().items())),
            in_flight=dict(sorted(book.in_flight().items())),
            heat=dict(sorted(book.heat().items())),
            instruments=self._instruments,
            quotes={symbol: quotes[symbol] for symbol in self.plan.symbols if symbol in quotes},
            last_entry_ms=dict(book.last_entry_ms),
            incomplete=opinion.incomplete,
            timeframe_ms=self.plan.timeframe.milliseconds,
            bias=self.supervisor.enforced,
            risk=UNSET if self.risk is None else self.risk.view(batch.close_time_ms, self.now_ms),
            recent=book.recent(self.now_ms) if self.plan.policy.counts_trades else UNSET,
            resolution=self._resolution(opinion, account),
            exits=self.exits.profile,
        )

    def _looked_at(self, opinion: Opinion, quotes: Mapping[str, Quote]) -> tuple[Candidate, ...]:
        if self.model is None:
            return opinion.candidates
        return self._quality.looked_at(
            opinion.candidates,
            self.model.bundle,
            latest=opinion.known.latest,
            rows=self.opinions.rows,
            quotes=quotes,
            policy=self.plan.policy,
            now_ms=self.now_ms,
        )

    def _resolution(self, opinion: Opinion, account: Account) -> Resolution | UnsetType:
        model = self.model
        briefing = briefing_of(
            self.plan.policy,
            account=account,
            book=self.executor.book,
            candidates=opinion.candidates,
            real_money=self.plan.mode == "live",
            # The writer verified it at its start; what broke it since may have left anything behind.
            is_whole=not self._journal.is_broken,
            unsynced=self._journal.unsynced,
            reproduced=self.reproducer.answer,
            model=None if model is None else seen_of(self.supervisor, gated=model.gated),
            others=None if self.federation is None else self.federation.others,
        )
        return self.fallback.heeded(self.committee.attend(briefing), self.plan.policy.fingerprint)

    def _judge_standing(self) -> None:
        if trouble := self.executor.trouble:
            self.halt(trouble)
        if self.executor.is_reconciled:
            self.standing.lift("reconcile")
        else:
            self.standing.object("reconcile", TradingState.REDUCING, "journal and venue do not agree yet")

    def _leave_overdue(self, batch: CandleBatch) -> None:
        self.executor.observe(seen_closes(batch, self.executor.book.positions(), timeframe=self.plan.timeframe))
        due = due_exits(
            self.executor.book.timed(),
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
        version, fingerprint = self.policies.stamp
        event = CandlesDecided(
            now_ms=now_ms,
            policy=self.plan.policy,
            snapshot=snapshot,
            approved=approved,
            denied=denied,
            policy_version=version,
            policy_fingerprint=fingerprint,
            ranking=ranking_of(snapshot, self.plan.policy),
        )
        if used is not None:
            self._journal.record(used, timestamp_ms=now_ms)
        self.reproducer.look(self._journal.record(event, timestamp_ms=now_ms))
        self.counters.decided(decisions)
        for approval in approved:
            self._in_background("enter", self._enter(approval, candle_close_ms=snapshot.candle_close_ms))

    async def _enter(self, approval: Approved, *, candle_close_ms: int) -> None:
        async with self._entering:
            # What was decided may have had to wait while trading was stopped.
            if self.standing.trading_state is not TradingState.ACTIVE:
                self.counters.orders["not_opened"] += 1
                return
            opened = await self.executor.enter(approval, candle_close_ms=candle_close_ms)
        self.counters.orders["opened" if opened else "not_opened"] += 1
        _log.info("entry_finished", symbol=approval.symbol, direction=approval.direction.value, opened=opened)

    def _in_background(self, what: str, work: Awaitable[object]) -> None:
        task = asyncio.create_task(self.guard(what, work), name=what)
        self._entries.add(task)
        task.add_done_callback(self._entries.discard)

    def _record(self, event: Event, trace_id: str = "") -> None:
        try:
            self._journal.record(event, timestamp_ms=self.now_ms, trace_id=trace_id)
        except JournalError as error:
            self.standing.object("journal", TradingState.HALTED, str(error))
            self.executor.halt_entries(str(error))
            _log.error("journal_not_written", error=str(error))
        except (QuantumError, ValueError) as error:
            _log.error("event_not_recorded", error=str(error))
        if self.risk is not None and isinstance(event, AccountMarked):
            self.risk.hear(event, self.now_ms)
