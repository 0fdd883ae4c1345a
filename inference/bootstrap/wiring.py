"""The worker put together: what is built in which order, what runs beside what, and how it all ends."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
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
from feature_store.venue.budget import budget_of
from feature_store.venue.factory import create_exchange
from inference.bootstrap.account_lease import AccountLease
from inference.bootstrap.catch_up import catch_up, history, save_states, starting_points
from inference.bootstrap.lifetime import end, live, sleep_unless
from inference.bootstrap.model_parts import make_models
from inference.bootstrap.past import Past
from inference.bootstrap.reaching import check_wall_clock, chosen_symbols, follow_clock, reach_venue
from inference.bootstrap.reporting import StatusFile
from inference.bootstrap.shadow_parts import follow_challenger, make_shadow
from inference.domain.events import Noted
from inference.domain.policy import Policy
from inference.exchange.capabilities import CAPABILITIES
from inference.exchange.gateways import AccountStream, account_stream_of, gateway_of
from inference.exchange.transport import govern
from inference.exchange.venue_clock import VenueClock
from inference.execution.book import Book
from inference.execution.executor import Executor
from inference.execution.submission import ExecutionSettings
from inference.feed.market_data import MarketData
from inference.feed.recent import RecentCandles
from inference.journal.writer import JournalWriter
from inference.settings import Mode, Settings, ShadowPlace
from inference.supervision.funding_watch import FundingWatch
from inference.supervision.service_manager import ServiceManager
from inference.supervision.shadow import Shadow
from inference.telemetry.logs import logger
from inference.worker import Worker, WorkerPlan

_log = logger("bootstrap")

_STATUS_SECONDS = 1.0
_STOP_SECONDS = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What one run of the worker was asked to do."""

    settings: Settings
    policy: Policy
    environment: Mapping[str, str]
    bundle: Path | None = None
    journal: Path | None = None


async def run_worker(order: Order) -> int:
    """
    Run until SIGTERM or SIGINT; return the exit status.

    Raises:
        QuantumError: The worker cannot start; the message says why and what to do.
    """
    return await live(partial(_Run, order))


class _Run:
    """One life of the worker."""

    def __init__(self, order: Order, stop: asyncio.Event) -> None:
        self._order = order
        self._settings = order.settings
        self._stop = stop
        self._view = ViewSettings.of().view()
        self._manager = ServiceManager(order.environment)
        self._clock = VenueClock(accelerated=order.settings.mode is Mode.SANDBOX)
        self._services: list[asyncio.Task[None]] = []
        self._cold_start_s: float | None = None
        self._recent: RecentCandles | None = None
        self._restored: frozenset[str] = frozenset()
        self._status = StatusFile(order.settings)

    async def start(self, stack: AsyncExitStack) -> None:
        settings = self._settings
        self._lease = AccountLease(settings, self._manager)
        await self._lease.take(stack)
        self._status.say("starting", "opening the journal")
        past = Past(Book())
        self._journal = stack.enter_context(
            JournalWriter.open(self._order.journal or settings.journal, visit=past.visit)
        )
        exchange = create_exchange(
            settings.venue,
            url=settings.venue_url,
            api_key=settings.api_key.get_secret_value(),
            api_secret=settings.api_secret.get_secret_value(),
        )
        budget = budget_of(settings.home, settings.venue, exchange)
        self._transport = govern(exchange, budget=budget, monotonic=monotonic, on_event=self._note_transport)
        stack.push_async_callback(self._transport.close)
        self._lease.guard(exchange)
        self._gateway = gateway_of(
            settings.venue,
            exchange,
            clock=self._clock,
            monotonic=monotonic,
            leverage=self._order.policy.leverage,
            on_accepted=self._expect_event,
            on_clock_moved=self._lease.doubt,
        )
        self._gateway.remember(key for trade in past.book.trades.values() for key in trade.orders)
        stack.push_async_callback(self._gateway.close)
        self._market = MarketData(
            exchange,
            self._gateway,
            timeframe=settings.timeframe,
            clock=self._clock,
            monotonic=monotonic,
            capabilities=CAPABILITIES[settings.venue],
        )
        await reach_venue(self._connect, self._stop, lambda reason: self._status.say("starting", reason))
        if self._stop.is_set():
            return
        self._note_opening()
        self._lease.tell_to(self._note_now)
        symbols = chosen_symbols(settings.symbols, self._gateway.tradable_symbols(), settings.venue)
        self._executor = self._make_executor(past.book)
        began_ms = past.funding_since((settings.venue, settings.mode.value), self._now_ms())
        self._funding = FundingWatch(past.funding, read=self._gateway.funding, note=self._note, began_ms=began_ms)
        self._stream = self._make_stream(exchange)
        self._models = make_models(settings, past, fingerprint=self._view.fingerprint(), on_event=self._note)
        self._features = live_features(symbols, settings.timeframe, self._view)
        self._worker = self._make_worker(symbols, past)
        self._service("user stream", self._stream.run)
        await self._come_to_the_present(symbols)
        self._follow(symbols)
        self._begin_services()

    async def until_stopped(self) -> None:
        """Report until somebody asks to stop; who was asked before it stood ready never says that it is."""
        if self._stop.is_set():
            return
        self._manager.ready("following candles")
        while not self._stop.is_set():
            self._lease.look(self._worker.standing)
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
        await end([task for task in self._services if task.get_name() not in keep])
        try:
            await asyncio.wait_for(self._finish(), _STOP_SECONDS)
        except TimeoutError:
            _log.warning("stopped_with_requests_open", seconds=_STOP_SECONDS)
        await end(self._services)
        await asyncio.to_thread(self._save_states)
        self._worker.note("health.stopped", {"positions": str(len(self._executor.book.positions()))})
        if self._market.is_following:
            self._report(stopped=True)

    async def _finish(self) -> None:
        await self._worker.stop()
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
                venue=settings.venue,
                folder=settings.own_states,
                timeframe=settings.timeframe,
                recent=self._recent,
                stale={*self._worker.stale, *self._market.changes_left()},
            )
        except OSError as error:
            _log.warning("feature_states_not_saved", error=str(error), consequence="the next start asks the venue")

    async def _connect(self) -> None:
        await self._gateway.connect()
        if self._settings.mode is not Mode.SANDBOX:
            check_wall_clock(venue_ms=self._clock.now_ms(monotonic()), wall_ms=utc_now_ms())

    def _note_opening(self) -> None:
        torn = self._journal.recovered
        if torn is not None:
            _log.warning("journal_tail_recovered", offset=torn.offset, length=torn.length)
        detail = {"mode": self._settings.mode.value, "venue": self._settings.venue, "pid": str(psutil.Process().pid)}
        if torn is not None:
            detail["torn_bytes"] = str(torn.length)
        detail["lease_token"] = str(self._lease.token)
        self._note_now("health.started", detail)

    def _note_now(self, event_type: str, detail: Mapping[str, str]) -> None:
        self._journal.record(Noted(event_type=event_type, detail=detail), timestamp_ms=self._now_ms())

    def _make_executor(self, book: Book) -> Executor:
        return Executor(
            gateway=self._gateway,
            journal=self._journal,
            book=book,
            now_ms=self._now_ms,
            monotonic=monotonic,
            sleep=asyncio.sleep,
            taker_fee=self._order.policy.taker_fee,
            settings=ExecutionSettings(approval_valid_ms=self._settings.timeframe.milliseconds),
            entry_style=self._order.policy.entry_style,
            entry_patience_seconds=self._order.policy.entry_patience_seconds,
            chance=random.random,
            no_capacity=self._transport.no_room_for_entry,
        )

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

    def _make_worker(self, symbols: tuple[str, ...], past: Past) -> Worker:
        settings = self._settings

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
                policy=self._order.policy,
                status_file=settings.status_file,
                bias=settings.bias_rules,
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
            shadow=self._make_shadow(),
            remembered=past.opinions.remembered(self._journal.path, settings, now_ms=self._now_ms()),
        )

    def _make_shadow(self) -> Shadow | None:
        settings = self._settings
        follows = self._order.bundle is None and settings.mlflow_url is not None
        if not follows or settings.shadow_place is not ShadowPlace.INSIDE:
            return None
        return make_shadow(
            settings,
            self._order.policy,
            place=ShadowPlace.INSIDE,
            fingerprint=self._view.fingerprint(),
            clock=self._clock,
            is_busy=lambda: self._worker.is_entering,
        )

    async def _come_to_the_present(self, symbols: tuple[str, ...]) -> None:
        self._status.say("starting", f"reading candles of {len(symbols)} symbols, reconciling, loading the model")
        settings = self._settings
        features = asyncio.create_task(
            catch_up(
                self._features,
                self._market.past,
                venue=settings.venue,
                homes=(settings.stored_states, settings.own_states),
                timeframe=settings.timeframe,
                now_ms=self._now_ms(),
            )
        )
        model = asyncio.create_task(self._first_model())
        if not await self._stream.connected(within=5.0):
            _log.warning("user_stream_not_open", consequence="fills are read by REST until it opens")
        execution = asyncio.create_task(self._executor.start())
        caught_up, _, _ = await asyncio.gather(features, model, execution)
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

    async def _first_model(self) -> None:
        if self._order.bundle is not None:
            await self._models.load_folder(self._order.bundle)
        else:
            await self._models.load_last_good()
            if self._settings.mlflow_url is None and self._models.offered is None:
                self._models.reason = "QT_MLFLOW_URL is not set and no bundle was named"

    def _follow(self, symbols: tuple[str, ...]) -> None:
        points = starting_points(self._features, symbols, timeframe=self._settings.timeframe, now_ms=self._now_ms())
        self._market.follow(points, recent=self._recent, restored=self._restored, on_close=self._worker.on_close)

    def _begin_services(self) -> None:
        settings = self._settings
        self._service("market data", self._market.run)
        self._service("decisions", lambda: self._worker.run(self._market.batches))
        self._service("execution", self._executor.run)
        self._service("funding", self._funding.run)
        self._service(
            "clock", lambda: follow_clock(self._gateway.sync_clock, accelerated=settings.mode is Mode.SANDBOX)
        )
        mlflow_url = settings.mlflow_url
        self._service("decisions on models", lambda: self._models.follow_home(every=settings.model_poll_seconds))
        if self._order.bundle is None and mlflow_url is not None:
            self._service(
                "models",
                lambda: self._models.run(
                    mlflow_url,
                    model_name=settings.model_name,
                    alias=settings.model_alias,
                    every=settings.model_poll_seconds,
                ),
            )
        if self._worker.shadow is not None:
            follow_challenger(self._worker.shadow, settings)
        self._cold_start_s = round(utc_now_ms() / 1000 - psutil.Process().create_time(), 3)
        _log.info("ready", cold_start_s=self._cold_start_s, model=self._models.reason)

    def _service(self, name: str, make: Callable[[], Awaitable[None]]) -> None:
        """Run something for as long as the worker lives; where it fails, trading halts and it is begun again."""

        async def keep() -> None:
            while True:
                await self._worker.guard(name, make())
                await asyncio.sleep(1.0)

        self._services.append(asyncio.create_task(keep(), name=name))

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
        )

    def _now_ms(self) -> int:
        return self._clock.now_ms(monotonic())
