"""A process of its own that scores the challenger beside the champion: it reads the market, and has no account."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

import psutil

from feature_store.candle import CandleBlock
from feature_store.clock import monotonic, utc_now
from feature_store.extensions.live import live_features
from feature_store.extensions.settings import ViewSettings
from feature_store.features.live import LiveFeatures
from feature_store.venue.budget import budget_of, tell
from feature_store.venue.errors import VenueError
from feature_store.venue.factory import create_exchange
from inference.bootstrap.catch_up import catch_up, history, save_states, starting_points
from inference.bootstrap.lifetime import live, sleep_unless
from inference.bootstrap.reaching import chosen_symbols, follow_clock, reach_venue
from inference.bootstrap.shadow_parts import follow_challenger, make_shadow
from inference.domain.market import Quote
from inference.domain.policy import Policy
from inference.exchange.capabilities import CAPABILITIES
from inference.exchange.gateways import gateway_of
from inference.exchange.venue_clock import VenueClock
from inference.feed.batches import CandleBatch
from inference.feed.followed import FollowedFeatures, Known
from inference.feed.market_data import MarketData
from inference.feed.rebuilding import Rebuilds
from inference.models.opinions import opinions
from inference.models.registry import BundleCache
from inference.settings import ShadowPlace, ShadowSettings
from inference.supervision.model_watch import ActiveModel, ModelWatch
from inference.supervision.service_manager import ServiceManager
from inference.supervision.shadow import ShadowScene
from inference.supervision.status import Status, write_status
from inference.telemetry.logs import logger

_log = logger("shadow_process")

_STATUS_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowOrder:
    """What one run of the shadow process was asked to do."""

    settings: ShadowSettings
    policy: Policy
    environment: Mapping[str, str]


async def run_shadow(order: ShadowOrder) -> int:
    """
    Score until SIGTERM or SIGINT; return the exit status.

    Raises:
        QuantumError: It cannot start; the message says why and what to do.
    """
    return await live(partial(_ShadowRun, order))


class _ShadowRun:
    """One life of the process: candles, prices and two models in, a journal of opinions out."""

    def __init__(self, order: ShadowOrder, stop: asyncio.Event) -> None:
        settings = order.settings
        self._settings = settings
        self._stop = stop
        self._manager = ServiceManager(order.environment)
        self._view = ViewSettings.of().view()
        self._clock = VenueClock(accelerated=settings.is_accelerated)
        # Without a key no request that needs an account can even be made.
        self._exchange = create_exchange(settings.venue, url=settings.venue_url, test_network=settings.is_test_network)
        if budget := budget_of(settings.home, settings.venue, self._exchange):
            tell(self._exchange, budget, lambda why: _log.warning("requests_not_noted", reason=why))
        self._gateway = gateway_of(
            settings.venue, self._exchange, clock=self._clock, monotonic=monotonic, leverage=order.policy.leverage
        )
        self._market = MarketData(
            self._exchange,
            self._gateway,
            timeframe=settings.timeframe,
            clock=self._clock,
            monotonic=monotonic,
            capabilities=CAPABILITIES[settings.venue],
            closed_seconds=lambda: self._gateway.closed_seconds,
        )
        self._shadow = make_shadow(
            settings,
            order.policy,
            place=ShadowPlace.BESIDE,
            fingerprint=self._view.fingerprint(),
            clock=self._clock,
        )
        self._champions = ModelWatch(
            cache=BundleCache(settings.shadow_folder / "champions"),
            fingerprint=self._view.fingerprint(),
            timeframe=settings.timeframe.value,
            on_event=self._noted,
            monotonic=monotonic,
        )
        self._champion: ActiveModel | None = None
        self._quotes: tuple[int, asyncio.Task[dict[str, Quote]]] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._candles = 0
        self._batches = 0
        self._features: LiveFeatures | None = None

    async def start(self, stack: AsyncExitStack) -> None:
        settings = self._settings
        stack.push_async_callback(self._gateway.close)
        self._say("starting", "asking the venue")
        await reach_venue(self._gateway.connect_public, self._stop, lambda reason: self._say("starting", reason))
        if self._stop.is_set():
            return
        symbols = chosen_symbols(settings.symbols, self._gateway.tradable_symbols(), settings.venue)
        self._say("starting", f"reading candles of {len(symbols)} symbols")
        features = live_features(symbols, settings.timeframe, self._view)
        # The worker's own states serve as well; this process keeps its own beside them.
        caught_up = await catch_up(
            features,
            self._market.past,
            venue=settings.market,
            homes=(settings.stored_states, settings.own_states, settings.shadow_folder),
            timeframe=settings.timeframe,
            now_ms=self._now_ms(),
        )
        self._features = features
        self._followed = FollowedFeatures(features)
        self._rebuilds = Rebuilds(self._candles_of, note=self._noted)
        points = starting_points(features, symbols, timeframe=settings.timeframe, now_ms=self._now_ms())
        self._market.follow(points, recent=caught_up.recent, restored=caught_up.restored, on_close=self._on_close)
        self._begin()

    async def until_stopped(self) -> None:
        if self._stop.is_set():
            return
        self._manager.ready("following candles")
        while not self._stop.is_set():
            self._report("shadowing")
            self._manager.alive(f"{self._shadow.status.state}, {self._shadow.scored} candles scored")
            await sleep_unless(self._stop, _STATUS_SECONDS)

    async def wind_down(self) -> None:
        self._manager.stopping()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._shadow.stop()
        if self._features is not None:
            await self._rebuilds.stop()
            await asyncio.to_thread(self._save_states, self._features)
        self._report("stopped")

    def _begin(self) -> None:
        settings = self._settings
        self._keep("market data", self._market.run)
        self._keep("opinions", self._follow_batches)
        self._keep("clock", lambda: follow_clock(self._gateway.sync_clock, accelerated=settings.is_accelerated))
        self._keep("champions", self._follow_champion)
        follow_challenger(self._shadow, settings)
        _log.info("ready", symbols=len(self._followed.features.symbols))

    def _keep(self, name: str, make: Callable[[], Awaitable[None]]) -> None:
        """Run something for as long as the process lives; where it fails it is begun again."""

        async def keep() -> None:
            while True:
                try:
                    await make()
                except Exception:  # noqa: BLE001 - nothing hangs on this process; it goes on with the next candle
                    _log.exception("work_failed", what=name)
                await asyncio.sleep(1.0)

        self._tasks.append(asyncio.create_task(keep(), name=name))

    async def _follow_champion(self) -> None:
        settings = self._settings
        if settings.mlflow_url is not None:
            await self._champions.run(
                settings.mlflow_url,
                model_name=settings.model_name,
                alias=settings.model_alias,
                every=settings.model_poll_seconds,
            )

    async def _follow_batches(self) -> None:
        while True:
            batch = await self._market.batches.get()
            asked = self._asked(batch.close_time_ms)
            behind = self._rebuilds.behind(batch.changed)
            known = await asyncio.to_thread(self._followed.advance, batch, behind)
            self._rebuilds.settle(behind)
            self._candles += known.candles
            self._batches += 1
            self._swap_champion()
            self._shadow.offer(await self._scene(batch, known, await asked))

    async def _scene(self, batch: CandleBatch, known: Known, quotes: Mapping[str, Quote]) -> ShadowScene:
        champion, said = self._champion, None
        if champion is not None and known.ready:
            signals = await asyncio.to_thread(
                opinions,
                champion.bundle,
                champion.version,
                known.latest,
                known.ready,
                venue=self._settings.venue,
                timeframe_ms=self._settings.timeframe.milliseconds,
            )
            said = champion, signals
        return ShadowScene(
            candle_close_ms=batch.close_time_ms,
            now_ms=self._now_ms(),
            latest=known.latest,
            rows=tuple(known.ready),
            quotes=quotes,
            champion=said,
        )

    def _swap_champion(self) -> None:
        offered = self._champions.take()
        if offered is not None:
            self._champion = offered
        elif not self._champions.wanted:
            self._champion = None

    def _asked(self, close_time_ms: int) -> asyncio.Task[dict[str, Quote]]:
        if self._quotes is not None and self._quotes[0] == close_time_ms:
            (_, asked), self._quotes = self._quotes, None
            return asked
        return asyncio.create_task(self._read_quotes())

    def _on_close(self, close_time_ms: int) -> None:
        """Ask for prices while the closed candles are still on their way, as the worker does."""
        if self._quotes is not None:
            self._quotes[1].cancel()
        self._quotes = close_time_ms, asyncio.create_task(self._read_quotes())

    async def _read_quotes(self) -> dict[str, Quote]:
        try:
            return await self._market.quotes()
        except VenueError as error:
            _log.warning("quotes_not_read", error=str(error)[:200])
            return {}

    async def _candles_of(self, symbol: str) -> CandleBlock:
        return await history(
            self._followed.features,
            self._market.past,
            symbol,
            timeframe=self._settings.timeframe,
            now_ms=self._now_ms(),
        )

    def _save_states(self, features: LiveFeatures) -> None:
        settings = self._settings
        stale = {*self._rebuilds.stale, *self._market.changes_left()}
        try:
            save_states(
                features,
                venue=settings.market,
                folder=settings.shadow_folder,
                timeframe=settings.timeframe,
                stale=stale,
            )
        except OSError as error:
            _log.warning("feature_states_not_saved", error=str(error), consequence="the next start asks the venue")

    def _report(self, state: str) -> None:
        shadow = self._shadow.status
        self._say(state, f"{shadow.state}: {shadow.reason}" if state != "stopped" else "stopped on request")

    def _say(self, state: str, reason: str) -> None:
        settings = self._settings
        status = Status(
            state=state,
            reason=reason,
            trading_state="HALTED",
            pid=os.getpid(),
            mode=settings.mode.value,
            venue=settings.venue,
            updated_at=utc_now().isoformat(timespec="milliseconds"),
            symbols=0 if self._features is None else len(self._features.symbols),
            candles_processed=self._candles,
            batches_processed=self._batches,
            rss_mb=round(psutil.Process().memory_info().rss / 2**20, 1),
            shadow=self._shadow.status,
        )
        try:
            write_status(settings.shadow_folder / "status.json", status)
        except OSError as error:
            _log.warning("status_not_written", error=str(error))

    def _noted(self, event_type: str, detail: Mapping[str, str]) -> None:
        _log.info(event_type.replace(".", "_"), **detail)

    def _now_ms(self) -> int:
        return self._clock.now_ms(monotonic())
