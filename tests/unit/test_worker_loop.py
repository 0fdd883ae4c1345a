"""The worker's loop when a part of it fails: what is open is still left in time."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import replace
from decimal import Decimal

import msgspec
import numpy as np
import pytest

from feature_store.candle import CandleBlock, Timeframe
from feature_store.features.definition import fingerprint
from feature_store.features.live import LiveFeatures
from inference.domain.bias import BiasMode, BiasRules
from inference.domain.decision import TradingState
from inference.domain.market import Quote
from inference.domain.policy import Policy
from inference.domain.signal import SignalScore
from inference.domain.trade import ExitReason
from inference.exchange.venue_clock import TimeSample, VenueClock
from inference.feed.batches import CandleBatch
from inference.feed.rebuilding import Behind
from inference.journal.codec import canonical, event_of
from inference.journal.reader import read_entries
from inference.journal.writer import JournalWriter
from inference.models.bundle import load_bundle
from inference.models.registry import BundleCache
from inference.supervision.model_supervisor import ModelSupervisor
from inference.supervision.model_watch import ActiveModel, ModelWatch
from inference.worker import Worker, WorkerPlan
from tests.worker_bundle import make_bundle
from tests.worker_support import FakeClock, FakeGateway, make_executor
from tests.worker_values import T0, make_approved, make_instrument

BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"
STEP = Timeframe.M5.milliseconds


class QuotingGateway(FakeGateway):
    """The venue in memory, with quotes as the worker asks for them."""

    async def quotes(self) -> dict[str, Quote]:
        """Return a quote at the mark."""
        return {
            symbol: Quote(symbol=symbol, bid=mark - 1, ask=mark + 1, event_time_ms=self.clock.now_ms())
            for symbol, mark in self.marks.items()
        }


def candles(close_ms: int, count: int = 1) -> CandleBlock:
    times = close_ms - STEP * np.arange(count, 0, -1)
    close = 50_000 + 10 * np.sin(np.arange(count) / 3)
    return CandleBlock.from_rows(
        [[int(at), c, c + 5, c - 5, c, 1.0 + n % 7] for n, (at, c) in enumerate(zip(times, close, strict=True))]
    )


class History:
    """The venue's candles as they are known now, and how often they were asked for."""

    def __init__(self) -> None:
        self.blocks: dict[str, CandleBlock] = {}
        self.asked: list[str] = []

    async def read(self, symbol: str) -> CandleBlock:
        """Return the candles of a symbol."""
        self.asked.append(symbol)
        return self.blocks[symbol]


@pytest.fixture
def venue_history():
    """Return what the venue tells of the past."""
    return History()


@pytest.fixture
def stage(tmp_path, venue_history):
    """Return a worker that follows two symbols, with the clock and gateway behind it."""
    clock = FakeClock()
    gateway = QuotingGateway(clock, marks={BTC: Decimal(50_000), ETH: Decimal(50_000)})
    venue = VenueClock(accelerated=False)
    venue.add(TimeSample(sent=clock.seconds, received=clock.seconds, venue_ms=T0))
    with JournalWriter.open(tmp_path / "journal.jsonl") as journal:
        executor = make_executor(gateway, journal)
        models = ModelWatch(
            cache=BundleCache(tmp_path / "bundles"),
            fingerprint=fingerprint(),
            timeframe="5m",
            on_event=lambda *_: None,
            monotonic=clock.monotonic,
        )
        worker = Worker(
            WorkerPlan(
                venue="sandbox",
                mode="sandbox",
                symbols=(BTC, ETH),
                timeframe=Timeframe.M5,
                policy=Policy(max_holding_candles=1),
                status_file=tmp_path / "status.json",
            ),
            features=LiveFeatures((BTC, ETH)),
            equity=gateway.equity,
            quotes=gateway.quotes,
            executor=executor,
            models=models,
            journal=journal,
            clock=venue,
            instruments={symbol: make_instrument(symbol) for symbol in (BTC, ETH)},
            last_mark=(None, 0),
            history=venue_history.read,
            monotonic=clock.monotonic,
        )
        yield worker, clock, gateway


async def process(worker, batch, *, until=lambda: False):
    """Run the loop over one batch."""
    queue = asyncio.Queue()
    queue.put_nowait(batch)
    running = asyncio.create_task(worker.run(queue))
    async with asyncio.timeout(100):
        while not until():  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_position_is_left_at_its_time_though_the_decision_fails(stage, monkeypatch):
    """A decision that fails each time halts entries, and does not keep what is open beyond its time barrier."""
    worker, clock, gateway = stage
    await clock.drive(worker.executor.start())
    await clock.drive(worker.executor.enter(make_approved(), candle_close_ms=T0))
    clock.seconds += 600

    def broken():
        raise ValueError("a defect of ours")

    monkeypatch.setattr(worker._features, "latest", broken)
    batch = CandleBatch(close_time_ms=T0 + 2 * STEP, blocks={}, late=())

    await process(worker, batch, until=lambda: worker.executor.closed)

    assert worker.standing.trading_state is TradingState.HALTED
    assert worker.executor.closed[0].reason is ExitReason.TIME_BARRIER
    assert gateway.held[BTC] == 0


async def test_an_impossible_candle_costs_its_own_symbol_only(stage):
    """One candle that no market could have made leaves the other symbols' features in step and trading not halted."""
    worker, clock, _ = stage
    await clock.drive(worker.executor.start())
    close_ms = T0 + STEP
    impossible = CandleBlock.from_rows([[close_ms - STEP, 1.0, 0.5, 2.0, 1.0, 1.0]])
    batch = CandleBatch(close_time_ms=close_ms, blocks={BTC: impossible, ETH: candles(close_ms)}, late=())

    await process(worker, batch, until=lambda: worker.counters.batches == 1 or worker.standing.reason)

    assert worker.standing.trading_state is TradingState.ACTIVE
    assert worker._features.last_open_time_ms(ETH) == close_ms - STEP
    assert worker._features.last_open_time_ms(BTC) is None


async def test_stopping_waits_for_features_under_way(stage, monkeypatch):
    """States are saved after a stop: until then the thread that advances them must have ended."""
    worker, clock, _ = stage
    await clock.drive(worker.executor.start())
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()
    advance = worker._features.advance_all

    def slow(blocks):
        begun.set()
        go_on.wait(100)
        try:
            return advance(blocks)
        finally:
            ended.set()

    monkeypatch.setattr(worker._features, "advance_all", slow)
    batch = CandleBatch(close_time_ms=T0 + STEP, blocks={ETH: candles(T0 + STEP)}, late=())
    await process(worker, batch, until=begun.is_set)
    asyncio.get_running_loop().call_later(0.2, go_on.set)

    await worker.stop()

    assert ended.is_set()


async def test_signals_state_the_regime_they_were_made_in(stage, tmp_path):
    """Each signal says what market it was made in, in the journal too; one from before says unknown."""
    worker, _, _ = stage
    bundle = load_bundle(make_bundle(tmp_path / "bundle"), expected_fingerprint=fingerprint())
    model = ActiveModel(bundle=bundle, version="1", gated=True, source="test")
    block = candles(T0, 400)
    opinion = worker._opinion(CandleBatch(close_time_ms=T0, blocks={BTC: block, ETH: block}, late=()), model, Behind())
    signals = [one.signal for one in opinion.candidates]
    written = json.loads(canonical(signals[0]))

    assert [one.regime for one in signals] == ["ranging_calm"] * 2
    assert msgspec.json.decode(canonical(signals[0]), type=SignalScore) == signals[0]
    del written["regime"]
    assert msgspec.convert(written, SignalScore, strict=False).regime == "unknown"


@pytest.mark.parametrize("mode", list(BiasMode))
async def test_a_bias_is_refused_where_it_is_enforced(stage, tmp_path, mode):
    """The candle that makes a bias is decided with it, the journal has it once, and observing refuses nothing."""
    worker, clock, _ = stage
    policy = Policy(confidence_threshold=0.5, taker_fee=Decimal(0), slippage=Decimal(0))
    worker.plan = replace(worker.plan, policy=policy)
    worker.supervisor = ModelSupervisor(
        BiasRules(mode=mode, window=1), policy, timeframe=Timeframe.M5, on_event=worker.note
    )
    await clock.drive(worker.executor.start())
    bundle = load_bundle(make_bundle(tmp_path / "bundle"), expected_fingerprint=fingerprint())
    worker.models.offered = ActiveModel(bundle=bundle, version="1", gated=True, source="test")
    block = candles(T0, 400)
    batch = CandleBatch(close_time_ms=T0, blocks={BTC: block, ETH: block}, late=())

    await process(worker, batch, until=lambda: worker.counters.last_signals or worker.standing.reason)

    outcomes = {outcome for _, outcome in worker.counters.last_signals.values()}
    found = [one for one in read_entries(tmp_path / "journal.jsonl") if one.type == "model.bias_found"]
    assert worker.standing.reason == ""
    assert outcomes == ({"SIGNALS_BIASED"} if mode is BiasMode.ENFORCE else {"APPROVED"})
    assert [event_of(one).detail["mode"] for one in found] == [mode.value]


async def test_each_member_is_counted(stage, tmp_path):
    """Each scored candle counts for every member and for all together, and the journal says how far they look."""
    worker, clock, _ = stage
    await clock.drive(worker.executor.start())
    bundle = load_bundle(make_bundle(tmp_path / "bundle"), expected_fingerprint=fingerprint())
    worker.models.offered = ActiveModel(bundle=bundle, version="1", gated=True, source="test")
    block = candles(T0, 400)
    batch = CandleBatch(close_time_ms=T0, blocks={BTC: block, ETH: block}, late=())

    await process(worker, batch, until=lambda: worker.counters.last_signals or worker.standing.reason)

    counted = {name: (one.predictions, one.not_finite) for name, one in worker.members.by_name.items()}
    loaded = [event_of(one) for one in read_entries(tmp_path / "journal.jsonl") if one.type == "model.loaded"]
    assert worker.standing.reason == ""
    assert counted == dict.fromkeys([*bundle.weights, "ensemble"], (2, 0))
    assert [one.detail["horizon"] for one in loaded] == [str(bundle.horizon)]


async def test_after_a_gap_a_series_waits_for_a_whole_window(stage):
    """Behind a gap of thirty candles nothing is decided until 65 follow one another, and the journal can say so."""
    worker, _, _ = stage
    block = candles(T0 + 400 * STEP, 400)
    whole = CandleBatch(close_time_ms=T0, blocks={BTC: block[:300], ETH: block[:300]}, late=())
    assert set(worker._opinion(whole, None, Behind()).incomplete) == set()

    reasons = []
    for at in range(330, 396):
        close_ms = int(block.open_time_ms[at]) + STEP
        batch = CandleBatch(close_time_ms=close_ms, blocks={BTC: block[at : at + 1]}, late=(ETH,))
        reasons.append(worker._opinion(batch, None, Behind()).incomplete.get(BTC))

    assert reasons[1] == "65 candles in a row needed after a gap, 2 so far"
    assert [one is None for one in reasons] == [False] * 64 + [True] * 2


async def test_a_candle_that_came_late_is_built_in_before_the_next_decision(stage, venue_history):
    """A series behind which a candle has changed is not decided on until it is what batch makes of all candles."""
    worker, clock, _ = stage
    await clock.drive(worker.executor.start())
    block = candles(T0 + 400 * STEP, 400)
    at = np.arange(400)
    without = CandleBlock(block.open_time_ms[at != 200], block.values[at != 200])
    worker._opinion(
        CandleBatch(close_time_ms=T0, blocks={BTC: without[:300], ETH: block[:301]}, late=()), None, Behind()
    )
    reasons: list[dict[str, str]] = []
    opinion = worker._opinion

    def listening(*given):
        found = opinion(*given)
        reasons.append(dict(found.incomplete))
        return found

    worker._opinion = listening

    async def close(place: int, changed: dict[str, str]) -> None:
        one = block[place : place + 1]
        close_ms = int(one.open_time_ms[0]) + STEP
        batch = CandleBatch(close_time_ms=close_ms, blocks={BTC: one, ETH: one}, late=(), changed=changed)
        await process(worker, batch, until=lambda: len(worker.latencies._milliseconds) > place - 301)

    venue_history.blocks[BTC] = block[:302]
    await close(301, {BTC: "the candle of yesterday came late"})
    await close(302, {})

    assert reasons == [{BTC: "the candle of yesterday came late, its features are being rebuilt"}, {}]
    assert venue_history.asked == [BTC]
    assert worker.stale == {}
    expected = LiveFeatures((BTC, ETH))
    expected.advance(BTC, block[:303])
    for found, wanted in zip(worker._features.latest()[2:5], expected.latest()[2:5], strict=True):
        np.testing.assert_array_equal(found[0], wanted[0])
    noted = [event_of(entry) for entry in read_entries(worker._journal.path) if entry.type.startswith("market.")]
    assert [(one.event_type, one.detail["symbol"]) for one in noted] == [
        ("market.candles_changed", BTC),
        ("market.features_rebuilt", BTC),
    ]


async def test_a_series_stays_stale_until_its_candles_reach_far_enough(stage, venue_history):
    """A venue that cannot be asked, or is behind, is asked again with every close; nothing is decided meanwhile."""
    worker, clock, _ = stage
    await clock.drive(worker.executor.start())
    block = candles(T0 + 400 * STEP, 400)
    both = {BTC: block[:300], ETH: block[:300]}
    worker._opinion(CandleBatch(close_time_ms=T0, blocks=both, late=()), None, Behind())
    venue_history.blocks[BTC] = block[:250]
    worker._rebuilds.mark(BTC, "the candle of yesterday was corrected")

    incomplete = []
    for place in range(300, 303):
        if place == 302:
            venue_history.blocks[BTC] = block[:302]
        await asyncio.sleep(0)
        behind = worker._rebuilds.behind({})
        one = {BTC: block[place : place + 1], ETH: block[place : place + 1]}
        opinion = worker._opinion(CandleBatch(close_time_ms=T0, blocks=one, late=()), None, behind)
        worker._rebuilds.settle(behind)
        incomplete.append(set(opinion.incomplete))
    await worker.stop()

    assert incomplete == [{BTC}, {BTC}, set()]
    assert venue_history.asked == [BTC] * 3
