"""The challenger on live candles: scored once the champion has decided, journaled beside it, never traded."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

from feature_store.candle import Timeframe
from feature_store.features.live import LatestFeatures
from inference.domain.market import Quote
from inference.domain.policy import Policy
from inference.domain.shadow import Role, ShadowOpinion, ShadowScored
from inference.domain.signal import SignalScore
from inference.exchange.venue_clock import VenueClock
from inference.journal.daily import DailyJournal
from inference.models.opinions import opinions
from inference.models.registry import BundleCache, ModelVersion
from inference.signals.shadow_record import shadow_opinion, shown_prices, threshold_of
from inference.supervision.latency import Latencies
from inference.supervision.model_watch import ActiveModel, ModelWatch
from inference.supervision.status import ShadowStatus
from inference.telemetry.logs import logger

_log = logger("shadow")

# A challenger that takes a larger share of a candle than this competes with the next decision, and rests.
_SHARE_OF_CANDLE = 0.25
_REST_CANDLES = 12
# What is left of the disk belongs to the champion's journal.
_LEAST_FREE_BYTES = 512 * 2**20
_RETRY_SECONDS = 5.0


@dataclass(frozen=True, slots=True, eq=False)
class ShadowScene:
    """One candle as the champion saw it: what could be read, `rows` of it that may be, prices, and what it said."""

    candle_close_ms: int
    now_ms: int
    latest: LatestFeatures
    rows: tuple[int, ...]
    quotes: Mapping[str, Quote]
    champion: tuple[ActiveModel, tuple[SignalScore, ...]] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowPlan:
    """Where and by which rules a challenger is scored, and how much resident memory the process may have with it."""

    venue: str
    mode: str
    place: str
    timeframe: Timeframe
    policy: Policy
    memory_mb: float


class Shadow:
    """
    Follows the alias of the challenger and scores what is offered, one candle at a time, in a thread.

    Nothing that goes wrong here leaves here: it is counted, named in `status`, and tried again. The newest candle
    counts; one that is offered while the last is being scored replaces any that waits.
    """

    def __init__(
        self,
        plan: ShadowPlan,
        *,
        cache: BundleCache,
        fingerprint: str,
        journal: DailyJournal,
        clock: VenueClock,
        monotonic: Callable[[], float],
        memory_mb: Callable[[], float],
        is_busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self._plan = plan
        self._journal = journal
        self._clock = clock
        self._monotonic = monotonic
        self._memory_mb = memory_mb
        self._is_busy = is_busy
        self._watch = ModelWatch(
            cache=cache,
            fingerprint=fingerprint,
            timeframe=plan.timeframe.value,
            on_event=self._noted,
            monotonic=monotonic,
            unwanted=self._unwanted,
        )
        self.model: ActiveModel | None = None
        self.scored = 0
        self.last_close_ms: int | None = None
        self.skipped: Counter[str] = Counter()
        self.latencies = Latencies()
        self._champion: ActiveModel | None = None
        self._waiting: ShadowScene | None = None
        self._offered = asyncio.Event()
        self._failure = ""
        self._rest = 0
        self._owed = 0
        self._too_large: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []
        self._computing: asyncio.Task[None] | None = None

    def follow(self, policy: Policy) -> None:
        """Score by these rules from the next candle on."""
        self._plan = replace(self._plan, policy=policy)

    def offer(self, scene: ShadowScene) -> None:
        """Hand over a candle that was decided; returns at once."""
        if self._waiting is not None:
            self.skipped["busy"] += 1
        self._champion = None if scene.champion is None else scene.champion[0]
        self._waiting = scene
        self._offered.set()

    def start(self, url: str, *, model_name: str, alias: str, every: float) -> None:
        """Begin to follow the alias, once a first candle was offered, and to score."""

        async def follow() -> None:
            # The champion comes first: it starts, loads and decides as if there were no challenger.
            await self._offered.wait()
            await self._watch.run(url, model_name=model_name, alias=alias, every=every)

        self._tasks = [
            asyncio.create_task(self._kept("follow", follow), name="shadow-models"),
            asyncio.create_task(self._kept("score", self._score_offered), name="shadow"),
        ]

    async def stop(self) -> None:
        """Score no more, and let the journal go."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._computing is not None:
            await asyncio.wait({self._computing}, timeout=5.0)
        await self._guarded("close", asyncio.to_thread(self._journal.close))

    @property
    def status(self) -> ShadowStatus:
        """What it does, for whoever watches."""
        model, reason = self.model, self._failure or self._watch.reason
        if self._rest and not self._failure:
            reason = f"it took more than {_SHARE_OF_CANDLE:.0%} of a candle, and rests for {self._rest} more"
        return ShadowStatus(
            place=self._plan.place,
            state="waiting" if model is None else "degraded" if self._failure or self._rest else "scoring",
            reason=reason[:300],
            version=None if model is None else model.version,
            digest=None if model is None else model.bundle.digest,
            candles=self.scored,
            last_close_ms=self.last_close_ms,
            skipped=dict(self.skipped),
            latency_ms=self.latencies.figures(),
        )

    async def _kept(self, what: str, make: Callable[[], Awaitable[None]]) -> None:
        while True:
            await self._guarded(what, make())
            await asyncio.sleep(_RETRY_SECONDS)

    async def _guarded(self, what: str, work: Awaitable[object]) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - whatever goes wrong with a challenger must not reach the champion
            self._fail(f"{what} failed: {type(error).__name__}: {error}")

    def _fail(self, reason: str) -> None:
        self.skipped["failed"] += 1
        if reason != self._failure:
            _log.warning("shadow_failed", reason=reason[:500])
        self._failure = reason

    async def _score_offered(self) -> None:
        while True:
            await self._offered.wait()
            self._offered.clear()
            scene, self._waiting = self._waiting, None
            if scene is not None:
                await self._guarded("score", self._score(scene))

    async def _score(self, scene: ShadowScene) -> None:
        self._swap()
        model = self.model
        if model is not None and self._champion is not None and self._champion.bundle.digest == model.bundle.digest:
            # It was promoted a moment ago: from now on it is what others are compared with.
            model = None
        if model is None and self._owed == 0:
            return
        if (reason := self._why_not(scene)) is not None:
            self.skipped[reason] += 1
            return
        await self._until_quiet()
        began = self._monotonic()
        self._computing = asyncio.create_task(asyncio.to_thread(self._score_now, scene, model))
        await asyncio.shield(self._computing)
        took = self._monotonic() - began
        self._failure = ""
        # Whoever predicted last is owed the prices at the end of its horizon, whatever became of it.
        self._owed = self._owed - 1 if model is None else model.bundle.horizon
        if model is None:
            return
        self.scored += 1
        self.last_close_ms = scene.candle_close_ms
        self.latencies.add(took)
        if took > _SHARE_OF_CANDLE * self._candle_seconds():
            self._rest = _REST_CANDLES

    def _swap(self) -> None:
        offered = self._watch.take()
        if offered is not None:
            if (memory := self._memory_mb()) > self._plan.memory_mb:
                self._too_large.add(offered.version)
                self._fail(
                    f"with challenger {offered.version} the process holds {memory:.0f} MB, above the "
                    f"{self._plan.memory_mb:.0f} of QT_SHADOW_MEMORY_MB; score it beside, with `qtctl worker --shadow`"
                )
                return
            self.model, self._failure, self._rest = offered, "", 0
            _log.info("challenger_loaded", version=offered.version, digest=offered.bundle.digest)
        elif not self._watch.wanted and self.model is not None:
            _log.info("challenger_unloaded", version=self.model.version, reason=self._watch.reason)
            self.model = None

    def _unwanted(self, version: ModelVersion) -> str | None:
        champion = self._champion
        if champion is not None and champion.version == version.version:
            digest = version.tags.get("bundle_digest", champion.bundle.digest)
            if digest == champion.bundle.digest:
                return f"version {version.version} trades already: there is no other challenger"
        if version.version in self._too_large:
            return f"version {version.version} takes more memory than QT_SHADOW_MEMORY_MB leaves"
        is_loaded = self.model is not None or self._watch.offered is not None
        if not is_loaded and (memory := self._memory_mb()) > self._plan.memory_mb:
            return f"{memory:.0f} MB are resident, above QT_SHADOW_MEMORY_MB={self._plan.memory_mb:.0f} already"
        return None

    def _why_not(self, scene: ShadowScene) -> str | None:
        """Return why a candle is passed over, in a word to count by."""
        if self._rest > 0:
            self._rest -= 1
            return "resting"
        left_ms = scene.candle_close_ms + self._plan.timeframe.milliseconds - self._now_ms()
        if self._clock.wall_seconds(left_ms) < _SHARE_OF_CANDLE * self._candle_seconds():
            return "no_time"
        self._journal.folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(self._journal.folder).free < _LEAST_FREE_BYTES:
            return "disk"
        return None

    async def _until_quiet(self) -> None:
        """Let entries and the stops that follow them go first, for a tenth of a candle at most."""
        until = self._monotonic() + 0.1 * self._candle_seconds()
        while self._is_busy() and self._monotonic() < until:  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0.02)

    def _score_now(self, scene: ShadowScene, model: ActiveModel | None) -> None:
        plan, symbols = self._plan, scene.latest.symbols
        length_ms = plan.timeframe.milliseconds
        said: list[ShadowOpinion] = []
        if model is not None:
            if scene.champion is not None:
                said.append(self._columns(Role.CHAMPION, *scene.champion, symbols))
            scored = opinions(
                model.bundle, model.version, scene.latest, scene.rows, venue=plan.venue, timeframe_ms=length_ms
            )
            said.append(self._columns(Role.CHALLENGER, model, scored, symbols))
        bid, ask = shown_prices(
            scene.quotes, symbols, now_ms=scene.now_ms, maximum_age_ms=plan.policy.stale_after_candles * length_ms
        )
        event = ShadowScored(
            candle_close_ms=scene.candle_close_ms,
            timeframe_ms=length_ms,
            venue=plan.venue,
            mode=plan.mode,
            place=plan.place,
            taker_fee=plan.policy.taker_fee,
            slippage=plan.policy.slippage,
            symbols=symbols,
            bid=bid,
            ask=ask,
            opinions=tuple(said),
        )
        self._journal.record(event, timestamp_ms=scene.now_ms)

    def _columns(
        self, role: Role, model: ActiveModel, signals: tuple[SignalScore, ...], symbols: tuple[str, ...]
    ) -> ShadowOpinion:
        return shadow_opinion(
            signals,
            symbols,
            role=role,
            version=model.version,
            digest=model.bundle.digest,
            horizon=model.bundle.horizon,
            threshold=threshold_of(self._plan.policy, model.bundle.threshold),
        )

    def _candle_seconds(self) -> float:
        return self._clock.wall_seconds(self._plan.timeframe.milliseconds)

    def _now_ms(self) -> int:
        return self._clock.now_ms(self._monotonic())

    def _noted(self, event_type: str, detail: Mapping[str, str]) -> None:
        _log.info(event_type.replace(".", "_"), of="challenger", **detail)
