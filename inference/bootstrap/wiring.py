"""The worker put together: what is built in which order, what runs beside what, and how it all ends."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from feature_store.candle import CandleBlock
from feature_store.clock import monotonic, utc_now_ms
from feature_store.extensions.live import live_features
from feature_store.extensions.settings import ViewSettings
from inference.bootstrap.account_lease import AccountLease
from inference.bootstrap.anchor_parts import make_anchor
from inference.bootstrap.catch_up import catch_up, history, save_states, starting_points
from inference.bootstrap.event_bus import Events
from inference.bootstrap.federation_parts import make_federation
from inference.bootstrap.health_parts import make_health
from inference.bootstrap.lifetime import Services, end, live, sleep_unless
from inference.bootstrap.memory import bound_allocator, settle
from inference.bootstrap.model_parts import first_model, follow_registry, make_models
from inference.bootstrap.past import ACCOUNT_BEGUN, Past, require_own_home
from inference.bootstrap.policy_parts import Seed, StartedPolicy, read_charter
from inference.bootstrap.reaching import check_wall_clock, chosen_symbols, follow_clock, reach_venue
from inference.bootstrap.recollection import STARTED
from inference.bootstrap.reporting import StatusFile
from inference.bootstrap.risk_parts import make_emergency, make_risk, risk_status
from inference.bootstrap.shadow_parts import follow_challenger, shadow_inside
from inference.bootstrap.venue_parts import make_executor, make_venue
from inference.domain.events import Noted
from inference.domain.policy import Policy
from inference.exchange.gateways import AccountStream, account_stream_of
from inference.exchange.paper_gateway import PaperGateway
from inference.exchange.venue_clock import VenueClock
from inference.execution.book import Book
from inference.execution.heard import HeardJournal
from inference.feed.recent import RecentCandles
from inference.governance.charter import stated
from inference.journal.writer import JournalWriter
from inference.policy.exit_profiles import kept_exit_profiles
from inference.policy.exit_venues import no_exit_profiles
from inference.settings import Settings
from inference.supervision.funding_watch import FundingWatch
from inference.supervision.latency import Latencies
from inference.supervision.loop_lag import LoopLag
from inference.supervision.service_manager import ServiceManager
from inference.telemetry.logs import logger
from inference.worker import Worker, WorkerPlan

_log = logger("bootstrap")

_STATUS_SECONDS = 1.0
_STOP_SECONDS = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What one run of the worker was asked to do."""

    settings: Settings
    seed: Seed
    environment: Mapping[str, str]
    bundle: Path | None = None
    journal: Path | None = None


async def run_worker(order: Order) -> int:
    """
    Run until SIGTERM or SIGINT; return the exit status.

    Raises:
        QuantumError: The worker cannot start; the message says why and what to do.
    """
    bound_allocator()
    return await live(partial(_Run, order))


class _Run:
    """One life of the worker."""

    def __init__(self, order: Order, stop: asyncio.Event) -> None:
        self._order = order
        self._settings = order.settings
        self._stop = stop
        self._view = ViewSettings.of().view()
        self._manager = ServiceManager(order.environment)
        self._clock = VenueClock(accelerated=order.settings.is_accelerated)
        self._services = Services(lambda name, work: self._worker.guard(name, work))  # noqa: PLW0108 - made later
        self._cold_start_s: float | None = None
        self._recent: RecentCandles | None = None
        self._restored: frozenset[str] = frozenset()
        self._status = StatusFile(order.settings)
        self._order_latencies = Latencies()

    async def start(self, stack: AsyncExitStack) -> None:
        settings = self._settings
        self._lease = AccountLease(settings, self._manager)
        await self._lease.take(stack)
        self._status.serve(stack)
        self._status.say("starting", "opening the journal")
        past = Past(Book())
        path = self._order.journal or settings.journal
        self._anchor = make_anchor(settings, path)
        stack.push_async_callback(self._anchor.close)
        self._journal = stack.enter_context(
            JournalWriter.open(path, visit=past.visit, anchors=partial(self._anchor.vouched, path))
        )
        require_own_home(past.modes, settings.mode, path)
        past.heed_restore(self._journal, self._anchor)
        # After the journal: what it says is open is guarded, whatever the policy is.
        started = StartedPolicy(settings, self._order.seed, guards=any(past.book.active()))
        policy = started.policy
        self._anchor.follow(self._journal, self._note)
        self._events = Events(settings, self._journal.path)
        stack.callback(self._events.close)
        venue = make_venue(
            settings,
            stack,
            clock=self._clock,
            lease=self._lease,
            policy=policy,
            on_event=self._note_transport,
            on_accepted=self._expect_event,
            sent_before=(key for trade in past.book.trades.values() for key in trade.orders),
        )
        self._transport, self._gateway, self._market = venue.transport, venue.gateway, venue.market
        await reach_venue(self._connect, self._stop, lambda reason: self._status.say("starting", reason))
        if self._stop.is_set():
            return
        self._note_opening()
        self._heed_new_account(past)
        self._lease.tell_to(self._note_now)
        symbols = chosen_symbols(settings.symbols, self._gateway.tradable_symbols(), settings.venue)
        self._risk = make_risk(
            past,
            policy=lambda: self._worker.plan.policy if hasattr(self, "_worker") else policy,
            timeframe_ms=settings.timeframe.milliseconds,
            closes=self._market.closes,
            note=self._note,
            monotonic=monotonic,
        )
        self._executor = make_executor(
            venue,
            settings,
            journal=HeardJournal(self._journal, self._risk.hear),
            book=past.book,
            policy=policy,
            now_ms=self._now_ms,
            order_took=self._order_latencies.add,
            is_followed=frozenset(symbols).__contains__,
        )
        began_ms = past.funding_since((settings.venue, settings.mode.value), self._now_ms())
        self._funding = FundingWatch(past.funding, read=self._gateway.funding, note=self._note, began_ms=began_ms)
        self._stream = self._make_stream(venue.exchange)
        self._models = make_models(settings, past, fingerprint=self._view.fingerprint(), on_event=self._note)
        self._features = live_features(symbols, settings.timeframe, self._view)
        self._worker = self._make_worker(symbols, past, started)
        started.tell(self._note, told=past.policy_version)
        self._worker.follow_policy()
        self._emergency = make_emergency(
            self._worker,
            self._risk,
            past,
            home=settings.home,
            equity=self._gateway.equity,
            quotes=self._market.quotes,
            traded=self._market.traded,
            health=lambda: self._health.look(),  # noqa: PLW0108 - it is made of this stop, below
            monotonic=monotonic,
        )
        self._lag = LoopLag(monotonic)
        self._health = make_health(
            self._worker,
            self._risk,
            self._emergency,
            home=settings.home,
            journal=self._journal,
            lease=self._lease,
            events=self._events,
            transport=self._transport,
            lag=self._lag,
        )
        self._worker.federation = make_federation(self._worker, settings)
        self._services.begin("user stream", self._stream.run)
        await self._start_up(symbols)
        self._follow(symbols)
        self._begin_services()

    async def until_stopped(self) -> None:
        """Report until somebody asks to stop; who was asked before it stood ready never says that it is."""
        if self._stop.is_set():
            return
        settle()
        self._manager.ready("following candles")
        while not self._stop.is_set():
            self._lease.look(self._worker.standing)
            self._events.look(self._executor.door, self._note)
            self._report()
            status = f"{self._worker.standing.trading_state.value}, {self._worker.counters.candles} candles"
            self._manager.alive(status)
            await sleep_unless(self._stop, _STATUS_SECONDS)

    async def wind_down(self) -> None:
        """Stop deciding, finish what is under way, leave stops and targets at the venue."""
        self._manager.stopping()
        if not hasattr(self, "_worker"):
            # Without the lease the status is another worker's.
            if hasattr(self, "_lease") and self._lease.token:
                self._status.say("stopped", "it did not start")
            return
        keep = {"execution", "user stream", "clock"}
        await self._services.end(but=keep)
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await self._finish()
        except TimeoutError:
            _log.warning("stopped_with_requests_open", seconds=_STOP_SECONDS)
        await self._services.end()
        await asyncio.to_thread(self._save_states)
        self._worker.note("health.stopped", {"positions": str(len(self._executor.book.positions()))})
        await self._events.stop()
        if self._market.is_following:
            self._report(stopped=True)

    async def _finish(self) -> None:
        await self._worker.stop()
        await self._emergency.stop()
        await self._executor.stop()
        if self._worker.shadow is not None:
            await self._worker.shadow.stop()

    def _expect_event(self, sent: float) -> None:
        self._stream.expect_event(sent)

    def _note(self, event_type: str, detail: Mapping[str, str]) -> None:
        self._worker.note(event_type, detail)

    def _note_transport(self, event_type: str, detail: Mapping[str, str]) -> None:
        # Before there is a worker there is nothing to decide either; the log has it.
        if hasattr(self, "_worker"):
            self._note(event_type, detail)

    def _save_states(self) -> None:
        settings = self._settings
        try:
            save_states(
                self._features,
                venue=settings.market,
                folder=settings.own_states,
                timeframe=settings.timeframe,
                recent=self._recent,
                stale={*self._worker.stale, *self._market.changes_left()},
            )
        except OSError as error:
            _log.warning("feature_states_not_saved", error=str(error), consequence="the next start asks the venue")

    async def _connect(self) -> None:
        await self._gateway.connect()
        if not self._settings.is_accelerated:
            check_wall_clock(venue_ms=self._clock.now_ms(monotonic()), wall_ms=utc_now_ms())

    def _note_opening(self) -> None:
        torn = self._journal.recovered
        if torn is not None:
            _log.warning("journal_tail_recovered", offset=torn.offset, length=torn.length)
        detail = {"mode": self._settings.mode.value, "venue": self._settings.venue, "pid": str(psutil.Process().pid)}
        if torn is not None:
            detail["torn_bytes"] = str(torn.length)
        detail["lease_token"] = str(self._lease.token)
        self._note_now(STARTED, detail)

    def _heed_new_account(self, past: Past) -> None:
        # Before anything is made of the marks: a fall from what another account had is none of this one's.
        if isinstance(self._gateway, PaperGateway) and self._gateway.is_new:
            self._note_now(ACCOUNT_BEGUN, {"file": str(self._settings.paper_file)})
            past.begin_anew(self._now_ms())

    def _note_now(self, event_type: str, detail: Mapping[str, str]) -> None:
        self._journal.record(Noted(event_type=event_type, detail=detail), timestamp_ms=self._now_ms())

    def _make_stream(self, exchange: Any) -> AccountStream:
        return account_stream_of(
            self._gateway,
            exchange,
            on_report=self._executor.on_report,
            on_fill=self._executor.on_fill,
            on_gap=self._doubt,
            monotonic=monotonic,
            on_funding=self._funding.wake,
        )

    def _doubt(self, _: str) -> None:
        # Until what was missed is known: exits only.
        self._executor.doubt()
        self._funding.wake()

    def _follow_policy(self, policy: Policy) -> None:
        self._executor.follow(policy)
        self._gateway.use_leverage(policy.leverage)
        if isinstance(self._gateway, PaperGateway):
            self._gateway.use_taker_fee(policy.taker_fee)

    def _make_worker(self, symbols: tuple[str, ...], past: Past, started: StartedPolicy) -> Worker:
        settings, policy = self._settings, started.policy
        charter = read_charter(settings.charter)
        if settings.charter is not None:
            self._note_now("risk.committee_chartered", {"file": str(settings.charter), **stated(charter)})

        async def candles_of(symbol: str) -> CandleBlock:
            return await history(
                self._features, self._market.past, symbol, timeframe=settings.timeframe, now_ms=self._now_ms()
            )

        return Worker(
            WorkerPlan(
                venue=settings.venue,
                mode=settings.mode.value,
                symbols=symbols,
                timeframe=settings.timeframe,
                policy=policy,
                status_file=settings.status_file,
                bias=policy.bias_rules,
                fallback=settings.fallback,
                charter=charter,
            ),
            features=self._features,
            equity=self._gateway.equity,
            quotes=self._market.quotes,
            executor=self._executor,
            models=self._models,
            journal=self._journal,
            clock=self._clock,
            instruments=self._gateway.instruments(symbols),
            last_mark=(past.mark, past.mark_ms),
            history=candles_of,
            monotonic=monotonic,
            shadow=shadow_inside(
                settings,
                policy,
                bundle=self._order.bundle,
                fingerprint=self._view.fingerprint(),
                clock=self._clock,
                is_busy=lambda: self._worker.is_entering,
            ),
            remembered=past.opinions.remembered(self._journal.path, settings, now_ms=self._now_ms()),
            risk=self._risk,
            policies=started.watch,
            on_policy=self._follow_policy,
            exit_profiles=partial(kept_exit_profiles, settings.policy_folder),
            no_exit_profiles=no_exit_profiles(settings.venue),
        )

    async def _start_up(self, symbols: tuple[str, ...]) -> None:
        # It lasts for as long as an exit is refused: whoever asks for a flattening is heard meanwhile.
        heeding = self._services.begin("emergency files", self._emergency.heed)
        telling = self._services.begin("status of the start", self._tell_start)
        try:
            await self._come_to_the_present(symbols)
        finally:
            await end([heeding, telling])

    async def _tell_start(self) -> None:
        reason = f"reading candles of {len(self._worker.plan.symbols)} symbols, reconciling, loading the model"
        while True:
            self._status.say("starting", reason, risk=risk_status(self._worker, self._emergency))
            await asyncio.sleep(_STATUS_SECONDS)

    async def _come_to_the_present(self, symbols: tuple[str, ...]) -> None:
        settings = self._settings
        features = asyncio.create_task(
            catch_up(
                self._features,
                self._market.past,
                venue=settings.market,
                homes=(settings.stored_states, settings.own_states),
                timeframe=settings.timeframe,
                now_ms=self._now_ms(),
            )
        )
        model = asyncio.create_task(first_model(self._models, settings, self._order.bundle))
        beside: list[asyncio.Task[Any]] = [features, model]
        try:
            if not await self._stream.connected(within=5.0):
                _log.warning("user_stream_not_open", consequence="fills are read by REST until it opens")
            beside.append(asyncio.create_task(self._executor.start()))
            await asyncio.gather(*beside)
        finally:
            # A start that is cut short saves states next: nothing may work on them by then.
            await end(beside)
        caught_up = features.result()
        self._recent, self._restored = caught_up.recent, caught_up.restored
        for symbol, why in caught_up.outdated.items():
            self._note("market.candles_changed", {"symbol": symbol, "found": why, "consequence": "begun afresh"})
        _log.info(
            "caught_up",
            symbols=len(symbols),
            from_snapshot=len(caught_up.restored),
            candles_read=caught_up.candles_read,
            not_ready=len(caught_up.not_ready),
        )

    def _follow(self, symbols: tuple[str, ...]) -> None:
        points = starting_points(self._features, symbols, timeframe=self._settings.timeframe, now_ms=self._now_ms())
        self._market.follow(points, recent=self._recent, restored=self._restored, on_close=self._worker.on_close)
        timeframe = self._settings.timeframe
        self._worker.next_close_ms = timeframe.floor_ms(self._now_ms()) + timeframe.milliseconds

    def _begin_services(self) -> None:
        settings = self._settings
        self._events.start()
        self._services.begin("event loop", self._lag.run)
        self._services.begin("anchor", self._anchor.run)
        if self._worker.federation is not None:
            self._services.begin("federation", self._worker.federation.run)
        self._services.begin("emergency stop", self._emergency.run)
        self._services.begin("market data", self._market.run)
        self._services.begin("decisions", lambda: self._worker.run(self._market.batches))
        self._services.begin("execution", self._executor.run)
        self._services.begin("funding", self._funding.run)
        self._services.begin(
            "clock",
            lambda: follow_clock(
                self._gateway.sync_clock,
                accelerated=settings.is_accelerated,
                error_ms=lambda: self._clock.error_ms,
                on_off=self._note,
            ),
        )
        self._services.begin("decisions on models", lambda: self._models.follow_home(every=settings.model_poll_seconds))
        if self._order.bundle is None and settings.mlflow_url is not None:
            self._services.begin("models", lambda: follow_registry(self._models, settings))
        if self._worker.shadow is not None:
            follow_challenger(self._worker.shadow, settings)
        self._cold_start_s = round(utc_now_ms() / 1000 - psutil.Process().create_time(), 3)
        _log.info("ready", cold_start_s=self._cold_start_s, model=self._models.reason)

    def _report(self, *, stopped: bool = False) -> None:
        self._status.show(
            self._worker,
            self._market,
            journal_entries=self._journal.seq,
            clock_rate=self._clock.rate,
            cold_start_s=self._cold_start_s,
            stopped=stopped,
            transport=self._transport.figures(),
            funding=self._funding.total,
            bus=self._events.status(),
            risk=risk_status(self._worker, self._emergency),
            health=self._health.status,
            order_latency_ms=self._order_latencies.figures(),
        )

    def _now_ms(self) -> int:
        return self._clock.now_ms(monotonic())
