"""A challenger inside the worker: whatever it does, the champion notices nothing; what is passed over is counted."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest

from feature_store.candle import CandleBlock, Timeframe
from feature_store.features.definition import fingerprint
from feature_store.features.live import LiveFeatures
from inference.domain.errors import JournalError
from inference.domain.market import Quote
from inference.domain.policy import Policy
from inference.domain.shadow import Role, ShadowOpinion, ShadowScored
from inference.exchange.venue_clock import TimeSample, VenueClock
from inference.journal.codec import event_of
from inference.journal.daily import DailyJournal, day_of
from inference.journal.reader import day_files, read_entries
from inference.models.bundle import load_bundle
from inference.models.registry import BundleCache, ModelVersion
from inference.supervision.model_watch import ActiveModel
from inference.supervision.shadow import Shadow, ShadowPlan, ShadowScene
from tests.worker_bundle import make_bundle
from tests.worker_values import T0

BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"
STEP = Timeframe.M5.milliseconds


class Bench:
    """A shadow with a clock, a memory and a journal of a test's choosing."""

    def __init__(self, folder, models: list[ActiveModel]) -> None:
        self.seconds, self.memory_mb, self.models = 1000.0, 200.0, models
        clock = VenueClock(accelerated=False)
        clock.add(TimeSample(sent=1000.0, received=1000.0, venue_ms=T0))
        self.journal = DailyJournal(folder / "journal")
        self.shadow = Shadow(
            ShadowPlan(
                venue="sandbox",
                mode="sandbox",
                place="inside",
                timeframe=Timeframe.M5,
                policy=Policy(),
                memory_mb=450,
            ),
            cache=BundleCache(folder / "bundles"),
            fingerprint=fingerprint(),
            journal=self.journal,
            clock=clock,
            monotonic=lambda: self.seconds,
            memory_mb=lambda: self.memory_mb,
        )
        features = LiveFeatures((BTC, ETH))
        times = T0 - STEP * np.arange(400, 0, -1)
        close = 50_000 + 10 * np.sin(np.arange(400) / 3)
        rows = [[int(at), c, c + 5, c - 5, c, 1.0 + n % 7] for n, (at, c) in enumerate(zip(times, close, strict=True))]
        features.advance(BTC, CandleBlock.from_rows(rows))
        features.advance(ETH, CandleBlock.from_rows(rows[:300]))
        self.latest = features.latest()

    def offer(self, number: int = 0, **changed: object) -> None:
        """Hand over a candle of which one symbol can be read, and quotes of which one is stale."""
        close_ms = T0 + number * STEP
        self.seconds = 1000.0 + number * 300
        quotes = {
            BTC: Quote(symbol=BTC, bid=Decimal(49_999), ask=Decimal(50_001), event_time_ms=close_ms),
            ETH: Quote(symbol=ETH, bid=Decimal(99), ask=Decimal(101), event_time_ms=close_ms - 2 * STEP),
        }
        scene = ShadowScene(
            candle_close_ms=close_ms, now_ms=close_ms + 50, latest=self.latest, rows=(0,), quotes=quotes, champion=None
        )
        self.shadow.offer(replace(scene, **changed))

    async def settle(self) -> None:
        """Score what was offered, as the loop does."""
        scene, self.shadow._waiting = self.shadow._waiting, None
        await self.shadow._guarded("score", self.shadow._score(scene))

    def events(self) -> list[ShadowScored]:
        """Return what was journaled."""
        return [event_of(one) for path in day_files(self.journal.folder) for one in read_entries(path)]


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> list[ActiveModel]:
    """Return two verified models."""
    folder = tmp_path_factory.mktemp("bundles")
    return [
        ActiveModel(
            bundle=load_bundle(make_bundle(folder / str(seed), seed=seed), expected_fingerprint=fingerprint()),
            version=str(seed),
            gated=False,
            source="registry",
        )
        for seed in (1, 2)
    ]


@pytest.fixture
async def bench(tmp_path, models):
    made = Bench(tmp_path, models)
    yield made
    await made.shadow.stop()


async def test_both_are_journaled_with_the_prices_that_were_shown(bench):
    """Columns hold the champion's own signals, the challenger's, None for who was not ready, and no stale price."""
    bench.shadow._watch.offered = bench.models[1]
    bench.offer(champion=(bench.models[0], ()))
    await bench.settle()

    (event,) = bench.events()
    champion, challenger = event.opinions
    assert (event.symbols, event.bid, event.ask) == ((BTC, ETH), (Decimal(49_999), None), (Decimal(50_001), None))
    assert (champion.role, champion.expected_return) == (Role.CHAMPION, (None, None))
    assert (challenger.version, challenger.digest) == ("2", bench.models[1].bundle.digest)
    assert challenger.expected_return[0] is not None
    assert challenger.expected_return[1] is None
    assert bench.shadow.status.state == "scoring"


async def test_prices_are_owed_for_a_horizon_after_the_challenger_left(bench):
    """Once it is withdrawn, its last predictions still find the prices at which they end; then nothing is written."""
    bench.shadow._watch.offered = bench.models[1]
    for number in range(20):
        if number == 2:
            bench.shadow._watch.wanted = False
        bench.offer(number)
        await bench.settle()

    assert [len(one.opinions) for one in bench.events()] == [1, 1] + [0] * 12
    assert bench.shadow.status.state == "waiting"


async def test_a_challenger_that_fails_is_counted_and_goes_no_further(bench, monkeypatch):
    """Neither an error of its own nor a journal that cannot be written leaves the shadow; the next candle is scored."""
    bench.shadow._watch.offered = bench.models[1]
    monkeypatch.setattr("inference.supervision.shadow.opinions", lambda *_, **__: 1 / 0)
    bench.offer(0)
    await bench.settle()
    failed = bench.shadow.status
    monkeypatch.undo()
    record = bench.journal.record

    def full(*_, **__):
        raise JournalError("no space left")

    monkeypatch.setattr(bench.journal, "record", full)
    bench.offer(1)
    await bench.settle()
    monkeypatch.setattr(bench.journal, "record", record)
    bench.offer(2)
    await bench.settle()

    assert (failed.state, failed.skipped) == ("degraded", {"failed": 1})
    assert "ZeroDivisionError" in failed.reason
    assert bench.shadow.status.skipped == {"failed": 2}
    assert bench.shadow.status.state == "scoring"
    assert len(bench.events()) == 1


@pytest.mark.parametrize(
    ("late_s", "free", "cause"),
    [pytest.param(250, 1 << 40, "no_time", id="late"), pytest.param(0, 1 << 20, "disk", id="disk-nearly-full")],
)
async def test_what_would_cost_the_champion_is_passed_over(bench, monkeypatch, late_s, free, cause):
    """Too little of the candle left, or of the disk: the candle is not scored, and the cause is counted."""
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": free}))
    bench.shadow._watch.offered = bench.models[1]
    bench.offer(0)
    bench.seconds += late_s
    await bench.settle()

    assert bench.shadow.status.skipped == {cause: 1}
    assert bench.events() == []


async def test_a_slow_challenger_rests(bench, monkeypatch):
    """One that takes more than a quarter of a candle is passed over for twelve, then tried again."""
    score = bench.shadow._score_now

    def slow(*given):
        bench.seconds += 100
        score(*given)

    monkeypatch.setattr(bench.shadow, "_score_now", slow)
    bench.shadow._watch.offered = bench.models[1]
    for number in range(14):
        bench.offer(number)
        await bench.settle()

    assert bench.shadow.status.skipped == {"resting": 12}
    assert len(bench.events()) == 2
    assert bench.shadow.status.state == "degraded"


async def test_memory_has_a_budget(bench):
    """A challenger with which the process outgrows its budget is let go and not loaded again; another may be."""
    bench.shadow._watch.offered = bench.models[1]
    bench.memory_mb = 500.0
    bench.offer(0)
    await bench.settle()
    refused = bench.shadow.status
    full = bench.shadow._unwanted(ModelVersion(version="3"))
    bench.memory_mb = 200.0

    assert refused.state == "waiting"
    assert "QT_SHADOW_MEMORY_MB" in refused.reason
    assert "500 MB" in str(full)
    assert "takes more memory" in str(bench.shadow._unwanted(ModelVersion(version="2")))
    assert bench.shadow._unwanted(ModelVersion(version="3")) is None


async def test_the_champion_is_not_its_own_challenger(bench):
    """After a promotion both aliases name one version: it is not loaded twice, unless the number is another model's."""
    bench.offer(champion=(bench.models[0], ()))
    digest = bench.models[0].bundle.digest

    assert "trades already" in str(bench.shadow._unwanted(ModelVersion(version="1", tags={"bundle_digest": digest})))
    assert "trades already" in str(bench.shadow._unwanted(ModelVersion(version="1")))
    assert bench.shadow._unwanted(ModelVersion(version="1", tags={"bundle_digest": "f" * 64})) is None
    assert bench.shadow._unwanted(ModelVersion(version="2")) is None


async def test_a_promoted_challenger_is_not_compared_with_itself(bench):
    """Until the alias is read again it may be loaded still: prices are recorded, and no opinion."""
    bench.shadow._watch.offered = bench.models[1]
    bench.offer(0)
    await bench.settle()
    bench.offer(1, champion=(bench.models[1], ()))
    await bench.settle()

    assert [len(one.opinions) for one in bench.events()] == [1, 0]


async def test_the_newest_candle_counts(bench):
    """A candle that still waits when the next has closed is passed over."""
    bench.shadow._watch.offered = bench.models[1]
    bench.offer(0)
    bench.offer(1)
    await bench.settle()

    assert bench.shadow.status.skipped == {"busy": 1}
    assert [one.candle_close_ms for one in bench.events()] == [T0 + STEP]


def test_each_day_has_a_chain_of_its_own(tmp_path):
    """Two days are two files, and a second writer of a day is refused while the first lives."""
    journal, other = DailyJournal(tmp_path), DailyJournal(tmp_path)
    event = ShadowScored(
        candle_close_ms=T0, timeframe_ms=STEP, venue="sandbox", mode="sandbox", place="inside",
        taker_fee=Decimal(0), slippage=Decimal(0), symbols=(), bid=(), ask=(), opinions=(),
    )  # fmt: skip
    for at_ms in (T0, T0 + 1, T0 + 86_400_000):
        journal.record(event, timestamp_ms=at_ms)
    with pytest.raises(JournalError, match="Another process"):
        other.record(event, timestamp_ms=T0 + 86_400_000)
    journal.close()
    other.record(event, timestamp_ms=T0 + 86_400_001)
    other.close()

    files = day_files(tmp_path)
    assert [path.name for path in files] == [f"{day_of(T0)}.jsonl", f"{day_of(T0 + 86_400_000)}.jsonl"]
    assert [[one.seq for one in read_entries(path)] for path in files] == [[1, 2], [1, 2]]


def test_columns_of_unequal_length_are_refused():
    """A value too few would shift the others to the wrong symbol."""
    said = ShadowOpinion(
        role=Role.CHALLENGER, version="1", digest="d", horizon=1, threshold=0.5, expected_return=(), probability_up=()
    )
    with pytest.raises(ValueError, match="1 values"):
        ShadowScored(
            candle_close_ms=0, timeframe_ms=STEP, venue="v", mode="m", place="p", taker_fee=Decimal(0),
            slippage=Decimal(0), symbols=(BTC,), bid=(None,), ask=(None,), opinions=(said,),
        )  # fmt: skip
