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
from msgspec import UNSET

from feature_store.candle import CandleBlock
from feature_store.features.definition import fingerprint
from feature_store.features.live import LiveFeatures
from inference.domain.bias import BiasMode
from inference.domain.decision import TradingState
from inference.domain.events import CandlesDecided
from inference.domain.policy import Policy
from inference.domain.signal import SignalScore
from inference.domain.trade import ExitReason
from inference.feed.batches import CandleBatch
from inference.feed.rebuilding import Behind
from inference.journal.codec import canonical, event_of
from inference.journal.reader import read_entries
from inference.journal.replay import replay_decisions
from inference.models.bundle import load_bundle
from inference.models.manifest import PROMISED_HIT_RATE
from inference.policy.store import PolicyStore
from inference.policy.versions import Source
from inference.policy.watch import PolicyWatch
from inference.regime.states import Regime
from inference.supervision.followed_policy import FollowedPolicy
from inference.supervision.model_watch import ActiveModel
from tests.regime_support import small_model
from tests.worker_bundle import make_bundle
from tests.worker_stage import BTC, ETH, STEP, History, candles, process, staged
from tests.worker_values import T0, make_approved


@pytest.fixture
def venue_history():
    """Return what the venue tells of the past."""
    return History()


@pytest.fixture
def stage(tmp_path, venue_history):
    """Return a worker that follows two symbols, with the clock and gateway behind it."""
    with staged(tmp_path, venue_history) as one:
        yield one


async def test_a_position_is_left_at_its_time_though_the_decision_fails(stage, monkeypatch):
    """A decision that fails each time halts entries, and does not keep what is open beyond its time barrier."""
    worker, clock, gateway = stage
    await clock.drive(worker.executor.start())
    await clock.drive(worker.executor.enter(make_approved(), candle_close_ms=T0))
    clock.seconds += 600

    def broken():
        raise ValueError("a defect of ours")

    monkeypatch.setattr(worker.opinions.features, "latest", broken)
    batch = CandleBatch(close_time_ms=T0 + 2 * STEP, blocks={}, late=())

    await process(worker, batch, until=lambda: worker.executor.closed)

    assert worker.standing.trading_state is TradingState.HALTED
    assert worker.executor.door.why_barred == "HALTED, decide failed: ValueError: a defect of ours"
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
    assert worker.opinions.features.last_open_time_ms(ETH) == close_ms - STEP
    assert worker.opinions.features.last_open_time_ms(BTC) is None


async def test_stopping_waits_for_features_under_way(stage, monkeypatch):
    """States are saved after a stop: until then the thread that advances them must have ended."""
    worker, clock, _ = stage
    await clock.drive(worker.executor.start())
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()
    advance = worker.opinions.features.advance_all

    def slow(blocks):
        begun.set()
        go_on.wait(100)
        try:
            return advance(blocks)
        finally:
            ended.set()

    monkeypatch.setattr(worker.opinions.features, "advance_all", slow)
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
    opinion = worker.opinions.of(
        CandleBatch(close_time_ms=T0, blocks={BTC: block, ETH: block}, late=()), model, Behind()
    )
    signals = [one.signal for one in opinion.candidates]
    written = json.loads(canonical(signals[0]))

    assert [one.regime for one in signals] == ["ranging_calm"] * 2
    assert msgspec.json.decode(canonical(signals[0]), type=SignalScore) == signals[0]
    del written["regime"]
    assert msgspec.convert(written, SignalScore, strict=False).regime == "unknown"


async def test_signals_state_how_likely_each_regime_is(stage, tmp_path):
    """With a model of regimes, signals have its label and all probabilities, and the journal gives them back."""
    worker, _, _ = stage
    # The candles of this market hardly move.
    learned = msgspec.structs.replace(small_model((BTC,)), scales={BTC: 0.00005})
    folder = make_bundle(tmp_path / "bundle", regime_model=learned)
    bundle = load_bundle(folder, expected_fingerprint=fingerprint())
    model = ActiveModel(bundle=bundle, version="1", gated=True, source="test")
    block = candles(T0, 400)
    opinion = worker.opinions.of(
        CandleBatch(close_time_ms=T0, blocks={BTC: block, ETH: block}, late=()), model, Behind()
    )
    signals = {one.signal.symbol: one.signal for one in opinion.candidates}

    assert signals[BTC].regime in set(Regime) - {Regime.UNKNOWN}
    assert sum(signals[BTC].regime_probability.values()) == pytest.approx(1, abs=1e-5)
    # Nothing was learned of the other.
    assert signals[ETH].regime == "unknown"
    assert signals[ETH].regime_probability["unknown"] == 1.0
    for one in signals.values():
        assert msgspec.json.decode(canonical(one), type=SignalScore) == one


async def test_flags_are_journaled_and_refuse_once_the_policy_says_so(stage, tmp_path):
    """Signals are looked at when their quotes are here: told first, then refused, and replay agrees with both."""
    worker, clock, _ = stage
    eager = Policy(confidence_threshold=0.5, taker_fee=Decimal(0), slippage=Decimal(0), max_spread=Decimal("0.00001"))
    await clock.drive(worker.executor.start())
    bundle = load_bundle(make_bundle(tmp_path / "bundle"), expected_fingerprint=fingerprint())
    worker.models.offered = ActiveModel(bundle=bundle, version="1", gated=True, source="test")
    strict = replace(eager, quality_mode=BiasMode.ENFORCE, refusing_flags=("WIDE_SPREAD",))

    for place, policy in enumerate((Policy(), eager, strict)):
        worker.plan = replace(worker.plan, policy=policy)
        clock.seconds = place * STEP / 1000
        worker.counters.last_signals.clear()
        block = candles(T0 + place * STEP, 400 if place == 0 else 1)
        batch = CandleBatch(close_time_ms=T0 + place * STEP, blocks={BTC: block, ETH: block}, late=())
        await process(worker, batch, until=lambda: len(worker.counters.last_signals) == 2)

    entries = list(read_entries(tmp_path / "journal.jsonl"))
    decided = [event for one in entries if isinstance(event := event_of(one), CandlesDecided)]
    flags = [[one.signal.quality for one in event.snapshot.candidates] for event in decided]
    assert flags[0] == [UNSET, UNSET]
    assert all("WIDE_SPREAD" in [flag.code for flag in found] for found in (*flags[1], *flags[2]))
    assert not any(one.code.value == "SIGNAL_QUALITY" for one in decided[1].denied)
    assert not decided[2].approved
    assert replay_decisions(entries) == (3, [])


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
    assert [one.detail["trained_at"] for one in loaded] == [bundle.manifest.created_at]
    assert [json.loads(one.detail["params"]) for one in loaded] == [bundle.parameters]
    assert bundle.parameters["weights"] == bundle.weights
    # Training of this bundle measured no hit rate, so that it promised none.
    assert bundle.manifest.promised_hit_rate is None
    assert "promised" not in loaded[0].detail


async def test_a_model_is_held_to_what_its_training_promised(stage, tmp_path):
    """The hit rate of the calibration window is in the journal, and what live opinions are bet against."""
    worker, clock, _ = stage
    await clock.drive(worker.executor.start())
    bundle = load_bundle(make_bundle(tmp_path / "bundle"), expected_fingerprint=fingerprint())
    metrics = bundle.manifest.metrics | {PROMISED_HIT_RATE: 0.5625}
    bundle.manifest = msgspec.structs.replace(bundle.manifest, metrics=metrics)
    worker.models.offered = ActiveModel(bundle=bundle, version="1", gated=True, source="test")
    block = candles(T0, 400)
    batch = CandleBatch(close_time_ms=T0, blocks={BTC: block, ETH: block}, late=())

    await process(worker, batch, until=lambda: worker.counters.last_signals or worker.standing.reason)

    loaded = [event_of(one) for one in read_entries(tmp_path / "journal.jsonl") if one.type == "model.loaded"]
    assert [one.detail["promised"] for one in loaded] == ["0.5625"]
    assert worker.supervisor.evidence.promised == 0.5625
    assert worker.supervisor.evidence.halfway == 0.53125


async def test_after_a_gap_a_series_waits_for_a_whole_window(stage):
    """Behind a gap of thirty candles nothing is decided until 65 follow one another, and the journal can say so."""
    worker, _, _ = stage
    block = candles(T0 + 400 * STEP, 400)
    whole = CandleBatch(close_time_ms=T0, blocks={BTC: block[:300], ETH: block[:300]}, late=())
    assert set(worker.opinions.of(whole, None, Behind()).incomplete) == set()

    reasons = []
    for at in range(330, 396):
        close_ms = int(block.open_time_ms[at]) + STEP
        batch = CandleBatch(close_time_ms=close_ms, blocks={BTC: block[at : at + 1]}, late=(ETH,))
        reasons.append(worker.opinions.of(batch, None, Behind()).incomplete.get(BTC))

    assert reasons[1] == "65 candles in a row needed after a gap, 2 so far"
    assert [one is None for one in reasons] == [False] * 64 + [True] * 2


async def test_a_candle_that_came_late_is_built_in_before_the_next_decision(stage, venue_history):
    """A series behind which a candle has changed is not decided on until it is what batch makes of all candles."""
    worker, clock, _ = stage
    await clock.drive(worker.executor.start())
    block = candles(T0 + 400 * STEP, 400)
    at = np.arange(400)
    without = CandleBlock(block.open_time_ms[at != 200], block.values[at != 200])
    worker.opinions.of(
        CandleBatch(close_time_ms=T0, blocks={BTC: without[:300], ETH: block[:301]}, late=()), None, Behind()
    )
    reasons: list[dict[str, str]] = []
    opinion = worker.opinions.of

    def listening(*given):
        found = opinion(*given)
        reasons.append(dict(found.incomplete))
        return found

    worker.opinions.of = listening

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
    for found, wanted in zip(worker.opinions.features.latest()[2:5], expected.latest()[2:5], strict=True):
        np.testing.assert_array_equal(found[0], wanted[0])
    kinds = {"market.candles_changed", "market.features_rebuilt"}
    noted = [event_of(entry) for entry in read_entries(worker._journal.path) if entry.type in kinds]
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
    worker.opinions.of(CandleBatch(close_time_ms=T0, blocks=both, late=()), None, Behind())
    venue_history.blocks[BTC] = block[:250]
    worker._rebuilds.mark(BTC, "the candle of yesterday was corrected")

    incomplete = []
    for place in range(300, 303):
        if place == 302:
            venue_history.blocks[BTC] = block[:302]
        await asyncio.sleep(0)
        behind = worker._rebuilds.behind({})
        one = {BTC: block[place : place + 1], ETH: block[place : place + 1]}
        opinion = worker.opinions.of(CandleBatch(close_time_ms=T0, blocks=one, late=()), None, behind)
        worker._rebuilds.settle(behind)
        incomplete.append(set(opinion.incomplete))
    await worker.stop()

    assert incomplete == [{BTC}, {BTC}, set()]
    assert venue_history.asked == [BTC] * 3


async def test_a_new_policy_counts_from_the_next_candle_and_is_stamped(stage, tmp_path):
    """Each decision names the version it was made under; a store that fails stops entries, and replay agrees."""
    worker, clock, _ = stage
    begun = clock.seconds
    eager = Policy(confidence_threshold=0.5, taker_fee=Decimal(0), slippage=Decimal(0), cooldown_seconds=0)
    store = PolicyStore(tmp_path / "policy", now_ms=lambda: 0)
    first = store.append(eager, expected=0, author="anna", reason="begin", source=Source.SET)
    taken: list[Policy] = []
    worker.plan = replace(worker.plan, policy=eager)
    worker.policies = FollowedPolicy(PolicyWatch(store, first), worker.standing, note=worker.note)
    worker._on_policy = taken.append
    await clock.drive(worker.executor.start())
    bundle = load_bundle(make_bundle(tmp_path / "bundle"), expected_fingerprint=fingerprint())
    worker.models.offered = ActiveModel(bundle=bundle, version="1", gated=True, source="test")

    async def close(place: int) -> None:
        clock.seconds = begun + place * STEP / 1000
        worker.counters.last_signals.clear()
        block = candles(T0 + place * STEP, 400 if place == 0 else 1)
        batch = CandleBatch(close_time_ms=T0 + place * STEP, blocks={BTC: block, ETH: block}, late=())
        await process(worker, batch, until=lambda: len(worker.counters.last_signals) == 2)

    await close(0)
    second = store.append(
        replace(eager, denied_symbols=("BTC",), bias_mode=BiasMode.ENFORCE),
        expected=1, author="anna", reason="no more of it", source=Source.SET,
    )  # fmt: skip
    await close(1)
    store.path.write_bytes(b"\0" * 4096)
    await close(2)
    store.recover()
    await close(3)

    entries = list(read_entries(tmp_path / "journal.jsonl"))
    decided = [event for one in entries if isinstance(event := event_of(one), CandlesDecided)]
    assert [(one.policy_version, one.policy_fingerprint) for one in decided] == [
        (1, first.policy.fingerprint), *[(2, second.policy.fingerprint)] * 3,
    ]  # fmt: skip
    assert [one.snapshot.trading_state.value for one in decided] == ["ACTIVE", "ACTIVE", "REDUCING", "ACTIVE"]
    assert {one.code.value for one in decided[1].denied if one.symbol == BTC} == {"SYMBOL_NOT_ALLOWED"}
    assert {one.code.value for one in decided[2].denied} == {"TRADING_STATE"}
    assert taken == [second.policy]
    assert worker.supervisor.rules.mode is BiasMode.ENFORCE
    noted = [one.type for one in entries if one.type.startswith("policy.")]
    assert noted == ["policy.updated", "policy.store_failed", "policy.store_recovered"]
    assert replay_decisions(entries) == (4, [])


@pytest.mark.parametrize(
    ("volume", "close", "told"),
    [
        pytest.param(1e300, 50_000.0, "is more than any market trades", id="volume-of-no-market"),
        pytest.param(1e7, 50_000.0, "beyond 10,000 times the highest of late, 7", id="volume-out-of-proportion"),
        pytest.param(1.0, 5_000_001.0 * 2, "beyond 100 times the one before it", id="close-far-above"),
        pytest.param(1.0, 400.0, "beyond 100 times the one before it", id="close-far-below"),
    ],
)
async def test_an_absurd_candle_is_not_decided_on(stage, tmp_path, volume, close, told):
    """What no market has made makes its own symbol incomplete, with a code and the reason; features never see it."""
    worker, clock, _ = stage
    await clock.drive(worker.executor.start())
    bundle = load_bundle(make_bundle(tmp_path / "bundle"), expected_fingerprint=fingerprint())
    worker.models.offered = ActiveModel(bundle=bundle, version="1", gated=True, source="test")
    block = candles(T0 - STEP, 400)
    worker.opinions.of(CandleBatch(close_time_ms=T0 - STEP, blocks={BTC: block, ETH: block}, late=()), None, Behind())
    absurd = CandleBlock.from_rows([[T0 - STEP, close, close, close, close, volume]])
    batch = CandleBatch(close_time_ms=T0, blocks={BTC: absurd, ETH: candles(T0)}, late=())

    await process(worker, batch, until=lambda: worker.counters.last_signals or worker.standing.reason)
    decided = next(
        event for one in read_entries(tmp_path / "journal.jsonl") if isinstance(event := event_of(one), CandlesDecided)
    )
    refused = {one.symbol: (one.code, one.context["found"]) for one in decided.denied if one.symbol == BTC}

    assert [one.signal.symbol for one in decided.snapshot.candidates] == [ETH]
    assert refused[BTC][0].value == "FEATURES_INCOMPLETE"
    assert told in refused[BTC][1]
    assert worker.opinions.features.last_open_time_ms(BTC) == T0 - 2 * STEP
    assert worker.standing.trading_state is TradingState.ACTIVE


async def test_after_an_absurd_candle_its_symbol_waits_as_after_a_gap(stage):
    """What was refused is missing: its symbol is ready again once a whole window follows, or it is corrected."""
    worker, _, _ = stage
    block = candles(T0 + 400 * STEP, 400)
    absurd = CandleBlock(block.open_time_ms[300:301], block.values[300:301] * [1, 1, 1, 1, 1e300])
    batch = CandleBatch(close_time_ms=T0, blocks={BTC: block[:300], ETH: block[:300]}, late=())
    worker.opinions.of(batch, None, Behind())

    def close(place: int, one: CandleBlock, behind: Behind) -> str | None:
        close_ms = int(block.open_time_ms[place]) + STEP
        batch = CandleBatch(close_time_ms=close_ms, blocks={BTC: one}, late=(ETH,))
        return worker.opinions.of(batch, None, behind).incomplete.get(BTC)

    first = close(300, absurd, Behind())
    second = close(301, block[301:302], Behind())
    # A history that still holds it is built from without it; one that was corrected makes the series whole.
    still = Behind({BTC: "again"}, {BTC: CandleBlock(block.open_time_ms[:302], _with(block, 300, 1e300)[:302])})
    third = close(302, block[302:303], still)
    fourth = close(303, block[303:304], Behind({BTC: "corrected"}, {BTC: block[:303]}))

    assert "more than any market trades" in first
    assert second == "65 candles in a row needed after a gap, 1 so far"
    assert third == "65 candles in a row needed after a gap, 2 so far"
    assert fourth is None


def _with(block: CandleBlock, place: int, volume: float):
    values = block.values.copy()
    values[place, 4] = volume
    return values
