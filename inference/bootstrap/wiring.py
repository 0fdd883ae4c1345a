"""The worker put together: what is built in which order, what runs beside what, and how it all ends."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from feature_store.clock import monotonic, utc_now, utc_now_ms
from feature_store.errors import UnknownSymbolError
from feature_store.features.definition import fingerprint
from feature_store.features.live import LiveFeatures
from feature_store.venue.errors import ClockError, RetryableError, VenueError
from feature_store.venue.factory import create_exchange
from inference.bootstrap.catch_up import catch_up, save_states, starting_points
from inference.bootstrap.reporting import bare_status, live_status
from inference.domain.errors import SettingsError
from inference.domain.events import AccountMarked, CandlesDecided, Noted
from inference.domain.policy import Policy
from inference.exchange.ccxt_gateway import CcxtGateway
from inference.exchange.user_stream import UserStream
from inference.exchange.venue_clock import VenueClock
from inference.execution.book import Book
from inference.execution.executor import Executor
from inference.execution.submission import ExecutionSettings
from inference.feed.batches import BatchAssembler
from inference.feed.candle_feed import CandleFeed
from inference.journal.codec import Entry, event_of
from inference.journal.writer import JournalWriter
from inference.models.registry import BundleCache
from inference.settings import Mode, Settings
from inference.supervision.model_watch import ModelWatch
from inference.supervision.service_manager import ServiceManager
from inference.supervision.status import ModelStatus, Status, write_status
from inference.telemetry.logs import logger
from inference.worker import Worker, WorkerPlan

_log = logger("bootstrap")

_STATUS_SECONDS = 1.0
_STOP_SECONDS = 8.0
_MAX_CLOCK_OFFSET_MS = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What one run of the worker was asked to do."""

    settings: Settings
    policy: Policy
    environment: Mapping[str, str]
    bundle: Path | None = None
    journal: Path | None = None


@dataclass(slots=True)
class _Past:
    """What the journal tells of earlier runs."""

    book: Book
    mark: AccountMarked | None = None
    mark_ms: int = 0

    def visit(self, entry: Entry) -> None:
        # Decisions are the bulk of a journal and change nothing that execution knows.
        if entry.type == CandlesDecided.event_type:
            return
        event = event_of(entry)
        if isinstance(event, AccountMarked):
            self.mark, self.mark_ms = event, entry.timestamp_ms
        self.book.apply(event)


async def run_worker(order: Order) -> int:
    """
    Run until SIGTERM or SIGINT; return the exit status.

    Raises:
        QuantumError: The worker cannot start; the message says why and what to do.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    run = _Run(order, stop)
    async with AsyncExitStack() as stack:
        starting = asyncio.create_task(run.start(stack))
        asked = asyncio.create_task(stop.wait())
        await asyncio.wait({starting, asked}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
        try:
            await starting
            await run.until_stopped()
        except asyncio.CancelledError:
            if not stop.is_set():
                raise
        finally:
            asked.cancel()
            await run.wind_down()
    return 0


def check_wall_clock(*, venue_ms: int, wall_ms: int) -> None:
    """
    Refuse to trade real money by a clock that is wrong.

    Raises:
        ClockError: The machine's clock and the venue's differ by more than is safe.
    """
    offset_ms = abs(venue_ms - wall_ms)
    if offset_ms > _MAX_CLOCK_OFFSET_MS:
        raise ClockError(
            f"This machine's clock is {offset_ms / 1000:.0f} s off the venue's; "
            "switch time synchronisation on (timedatectl set-ntp true), then start the worker again"
        )


class _Run:
    """One life of the worker."""

    def __init__(self, order: Order, stop: asyncio.Event) -> None:
        self._order = order
        self._settings = order.settings
        self._stop = stop
        self._manager = ServiceManager(order.environment)
        self._clock = VenueClock(accelerated=order.settings.mode is Mode.SANDBOX)
        self._services: list[asyncio.Task[None]] = []
        self._cold_start_s: float | None = None
        self._model_seen: tuple[str, ModelStatus] | None = None

    async def start(self, stack: AsyncExitStack) -> None:
        settings = self._settings
        self._say("starting", "opening the journal")
        past = _Past(Book())
        self._journal = stack.enter_context(
            JournalWriter.open(self._order.journal or settings.journal, visit=past.visit)
        )
        exchange = create_exchange(
            settings.venue,
            url=settings.venue_url,
            api_key=settings.api_key.get_secret_value(),
            api_secret=settings.api_secret.get_secret_value(),
        )
        self._gateway = CcxtGateway(
            exchange,
            clock=self._clock,
            monotonic=monotonic,
            leverage=self._order.policy.leverage,
            on_accepted=self._expect_event,
        )
        stack.push_async_callback(self._gateway.close)
        await self._connect()
        if self._stop.is_set():
            return
        self._note_opening()
        symbols = self._symbols()
        self._executor = self._make_executor(past.book)
        self._stream = self._make_stream(exchange)
        self._models = self._make_models()
        self._features = LiveFeatures(symbols, settings.timeframe)
        self._worker = self._make_worker(symbols, past)
        self._service("user stream", self._stream.run)
        await self._come_to_the_present(exchange, symbols)
        self._feed = self._make_feed(exchange, symbols)
        self._begin_services()

    async def until_stopped(self) -> None:
        """Report until somebody asks to stop; who was asked before it stood ready never says that it is."""
        if self._stop.is_set():
            return
        self._manager.ready("following candles")
        while not self._stop.is_set():
            self._report()
            status = f"{self._worker.standing.trading_state.value}, {self._worker.counters.candles} candles"
            self._manager.alive(status)
            await self._sleep(_STATUS_SECONDS)

    async def wind_down(self) -> None:
        """Stop deciding, finish what is under way, leave stops and targets at the venue."""
        self._manager.stopping()
        if not hasattr(self, "_worker"):
            self._say("stopped", "it did not start")
            return
        keep = {"execution", "user stream", "clock"}
        await self._cancel([task for task in self._services if task.get_name() not in keep])
        try:
            await asyncio.wait_for(self._finish(), _STOP_SECONDS)
        except TimeoutError:
            _log.warning("stopped_with_requests_open", seconds=_STOP_SECONDS)
        await self._cancel(self._services)
        await asyncio.to_thread(self._save_states)
        self._worker.note("health.stopped", {"positions": str(len(self._executor.book.positions()))})
        if hasattr(self, "_feed"):
            self._report(stopped=True)

    async def _finish(self) -> None:
        await self._worker.stop()
        await self._executor.stop()

    def _expect_event(self, sent: float) -> None:
        self._stream.expect_event(sent)

    def _note(self, event_type: str, detail: Mapping[str, str]) -> None:
        self._worker.note(event_type, detail)

    def _save_states(self) -> None:
        settings = self._settings
        try:
            save_states(self._features, venue=settings.venue, folder=settings.own_states, timeframe=settings.timeframe)
        except OSError as error:
            _log.warning("feature_states_not_saved", error=str(error), consequence="the next start asks the venue")

    async def _connect(self) -> None:
        pause = 0.5
        while not self._stop.is_set():
            try:
                await self._gateway.connect()
                self._check_wall_clock()
            except RetryableError as error:
                self._say("starting", f"waiting for the venue: {error}"[:400])
                _log.warning("venue_not_reached", error=str(error)[:300], retry_in_seconds=pause)
                await self._sleep(pause)
                pause = min(10.0, pause * 1.7)
            else:
                return

    def _check_wall_clock(self) -> None:
        if self._settings.mode is not Mode.SANDBOX:
            check_wall_clock(venue_ms=self._clock.now_ms(monotonic()), wall_ms=utc_now_ms())

    def _note_opening(self) -> None:
        torn = self._journal.recovered
        if torn is not None:
            _log.warning("journal_tail_recovered", offset=torn.offset, length=torn.length)
        detail = {"mode": self._settings.mode.value, "venue": self._settings.venue, "pid": str(psutil.Process().pid)}
        if torn is not None:
            detail["torn_bytes"] = str(torn.length)
        self._journal.record(Noted(event_type="health.started", detail=detail), timestamp_ms=self._now_ms())

    def _symbols(self) -> tuple[str, ...]:
        tradable = self._gateway.tradable_symbols()
        wanted = self._settings.symbols or tradable
        for symbol in wanted:
            if symbol not in tradable:
                raise UnknownSymbolError(symbol, self._settings.venue, tradable)
        if not wanted:
            raise SettingsError(f"Venue {self._settings.venue} lists nothing that could be traded")
        return tuple(wanted)

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
        )

    def _make_stream(self, exchange: Any) -> UserStream:
        return UserStream(
            exchange,
            on_report=self._executor.on_report,
            on_fill=self._executor.on_fill,
            on_gap=lambda _: self._reconcile_soon.set(),
            monotonic=monotonic,
        )

    def _make_models(self) -> ModelWatch:
        settings = self._settings
        live = settings.mode is Mode.LIVE
        approved = settings.approval_file.read_text().strip() if settings.approval_file is not None else None
        return ModelWatch(
            cache=BundleCache(settings.bundles),
            fingerprint=fingerprint(),
            timeframe=settings.timeframe.value,
            on_event=self._note,
            monotonic=monotonic,
            approved_digest=approved,
            only_approved=live,
        )

    def _make_worker(self, symbols: tuple[str, ...], past: _Past) -> Worker:
        settings = self._settings
        self._reconcile_soon = asyncio.Event()
        return Worker(
            WorkerPlan(
                venue=settings.venue,
                mode=settings.mode.value,
                symbols=symbols,
                timeframe=settings.timeframe,
                policy=self._order.policy,
                status_file=settings.status_file,
            ),
            features=self._features,
            gateway=self._gateway,
            executor=self._executor,
            models=self._models,
            journal=self._journal,
            clock=self._clock,
            instruments=self._gateway.instruments(symbols),
            last_mark=(past.mark, past.mark_ms),
            monotonic=monotonic,
        )

    async def _come_to_the_present(self, exchange: Any, symbols: tuple[str, ...]) -> None:
        self._say("starting", f"reading candles of {len(symbols)} symbols, reconciling, loading the model")
        settings = self._settings
        features = asyncio.create_task(
            catch_up(
                self._features,
                exchange,
                venue=settings.venue,
                homes=(settings.home, settings.own_states),
                timeframe=settings.timeframe,
                now_ms=self._now_ms(),
            )
        )
        model = asyncio.create_task(self._first_model())
        if not await self._stream.connected(within=5.0):
            _log.warning("user_stream_not_open", consequence="fills are read by REST until it opens")
        execution = asyncio.create_task(self._executor.start())
        caught_up, _, _ = await asyncio.gather(features, model, execution)
        _log.info(
            "caught_up",
            symbols=len(symbols),
            from_snapshot=caught_up.from_snapshot,
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

    def _make_feed(self, exchange: Any, symbols: tuple[str, ...]) -> CandleFeed:
        points = starting_points(self._features, symbols, timeframe=self._settings.timeframe, now_ms=self._now_ms())
        return CandleFeed(
            exchange,
            assembler=BatchAssembler(last_open_ms=points, timeframe=self._settings.timeframe),
            timeframe=self._settings.timeframe,
            clock=self._clock,
            monotonic=monotonic,
            on_close=self._worker.on_close,
        )

    def _begin_services(self) -> None:
        settings = self._settings
        self._service("candle feed", self._feed.run)
        self._service("decisions", lambda: self._worker.run(self._feed.batches))
        self._service("execution", self._executor.run)
        self._service("reconciliation", self._reconcile_when_asked)
        self._service("clock", self._follow_clock)
        mlflow_url = settings.mlflow_url
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
        self._cold_start_s = round(utc_now_ms() / 1000 - psutil.Process().create_time(), 3)
        _log.info("ready", cold_start_s=self._cold_start_s, model=self._models.reason)

    def _service(self, name: str, make: Callable[[], Awaitable[None]]) -> None:
        """Run something for as long as the worker lives; where it fails, trading halts and it is begun again."""

        async def keep() -> None:
            while True:
                await self._worker.guard(name, make())
                await asyncio.sleep(1.0)

        self._services.append(asyncio.create_task(keep(), name=name))

    async def _reconcile_when_asked(self) -> None:
        while True:
            await self._reconcile_soon.wait()
            self._reconcile_soon.clear()
            await self._executor.reconcile()
            await asyncio.sleep(0.5)

    async def _follow_clock(self) -> None:
        # A clock that runs fast is asked more often: what is unknown of its rate grows with time.
        pause = 2.0 if self._settings.mode is Mode.SANDBOX else 30.0
        while True:
            try:
                await self._gateway.sync_clock()
            except VenueError as error:
                _log.warning("venue_time_not_read", error=str(error)[:200])
            await asyncio.sleep(pause)

    def _report(self, *, stopped: bool = False) -> None:
        status = live_status(
            self._settings,
            self._worker,
            self._feed,
            model=self._model_status(),
            journal_entries=self._journal.seq,
            clock_rate=self._clock.rate,
            cold_start_s=self._cold_start_s,
            updated_at=utc_now().isoformat(timespec="milliseconds"),
            stopped=stopped,
        )
        self._write(status)

    def _model_status(self) -> ModelStatus | None:
        model = self._worker.model
        if model is None:
            return None
        if self._model_seen is None or self._model_seen[0] != model.bundle.digest + model.version:
            shown = ModelStatus(
                version=model.version,
                digest=model.bundle.digest,
                gated=model.gated,
                source=model.source,
                loaded_at=utc_now().isoformat(timespec="seconds"),
            )
            self._model_seen = (model.bundle.digest + model.version, shown)
        return self._model_seen[1]

    def _say(self, state: str, reason: str) -> None:
        self._write(
            bare_status(
                self._settings, state=state, reason=reason, updated_at=utc_now().isoformat(timespec="milliseconds")
            )
        )

    def _write(self, status: Status) -> None:
        try:
            write_status(self._settings.status_file, status)
        except OSError as error:
            _log.warning("status_not_written", error=str(error))

    def _now_ms(self) -> int:
        return self._clock.now_ms(monotonic())

    async def _sleep(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return

    async def _cancel(self, tasks: list[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
