"""What the worker's loop heeds of those who watch it: bias, live opinions that are poor, the desk's other workers."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from feature_store.candle import Timeframe
from feature_store.features.definition import fingerprint
from inference.bootstrap.federation_parts import view_of
from inference.domain.bias import BiasMode, BiasRules
from inference.domain.fallback import FallbackMode
from inference.domain.governance import Stance
from inference.domain.policy import Policy
from inference.feed.batches import CandleBatch
from inference.governance.federation import View, read_views, write_view
from inference.journal.codec import event_of
from inference.journal.reader import read_entries
from inference.models.bundle import load_bundle
from inference.models.set_aside import found_aside
from inference.supervision.federation_watch import Desk, FederationWatch
from inference.supervision.model_supervisor import ModelSupervisor
from inference.supervision.model_watch import ActiveModel
from inference.supervision.quality_evidence import Measure, QualityEvidence
from inference.supervision.remembered import Remembered
from tests.worker_bundle import make_bundle
from tests.worker_stage import BTC, ETH, History, candles, process, staged
from tests.worker_values import T0


@pytest.fixture
def venue_history():
    """Return what the venue tells of the past."""
    return History()


@pytest.fixture
def stage(tmp_path, venue_history):
    """Return a worker that follows two symbols, with the clock and gateway behind it."""
    with staged(tmp_path, venue_history) as one:
        yield one


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


@pytest.mark.parametrize("mode", list(FallbackMode))
async def test_a_model_whose_live_opinions_are_poor_enters_nothing(stage, tmp_path, mode):
    """Where it is enforced the candle is decided with it and the model set aside in this home; else it is only told."""
    worker, clock, _ = stage
    policy = Policy(confidence_threshold=0.5, taker_fee=Decimal(0), slippage=Decimal(0))
    worker.plan = replace(worker.plan, policy=policy)
    await clock.drive(worker.executor.start())
    bundle = load_bundle(make_bundle(tmp_path / "bundle"), expected_fingerprint=fingerprint())
    poor = QualityEvidence(poor_by=Measure.HIT_RATE)
    worker.supervisor = ModelSupervisor(
        BiasRules(), policy, timeframe=Timeframe.M5, on_event=worker.note,
        remembered=Remembered(evidence={f"1:{bundle.digest[:12]}": poor}),
    )  # fmt: skip
    worker.fallback._mode = mode
    worker.models.offered = ActiveModel(bundle=bundle, version="1", gated=True, source="test")
    block = candles(T0, 400)
    batch = CandleBatch(close_time_ms=T0, blocks={BTC: block, ETH: block}, late=())

    await process(worker, batch, until=lambda: worker.counters.last_signals or worker.standing.reason)

    outcomes = {outcome for _, outcome in worker.counters.last_signals.values()}
    told = [one.type for one in read_entries(tmp_path / "journal.jsonl") if one.type.startswith("model.f")]
    is_enforced = mode is FallbackMode.ENFORCE
    assert outcomes == ({"COMMITTEE_VETO"} if is_enforced else {"APPROVED"})
    assert told == (["model.fallback", "model.fell_back"] if is_enforced else ["model.fallback"])
    assert (found_aside(tmp_path / "bundles", "1", bundle.digest) is not None) == is_enforced


async def test_a_desk_that_takes_exits_only_is_followed_where_that_is_enforced(stage, tmp_path):
    """Most of the desk's other workers enter nothing: with the committee enforced, neither does this one."""
    worker, clock, _ = stage
    policy = Policy(
        confidence_threshold=0.5, taker_fee=Decimal(0), slippage=Decimal(0), committee_mode=BiasMode.ENFORCE
    )
    worker.plan = replace(worker.plan, policy=policy)
    await clock.drive(worker.executor.start())
    bundle = load_bundle(make_bundle(tmp_path / "bundle"), expected_fingerprint=fingerprint())
    worker.models.offered = ActiveModel(bundle=bundle, version="1", gated=True, source="test")
    desk = Desk(folder=tmp_path / "desk", own="a", members=("a", "b"), fresh_seconds=60)
    other = View(worker="b", said_ms=T0, stance=Stance.EXITS_ONLY, equity=Decimal(1), notional={})
    write_view(tmp_path / "desk", other)
    worker.federation = FederationWatch(
        desk, view=lambda: view_of(worker, "a"), note=worker.note, wall_ms=lambda: T0 + 1000
    )
    await worker.federation.exchange()
    block = candles(T0, 400)
    batch = CandleBatch(close_time_ms=T0, blocks={BTC: block, ETH: block}, late=())

    await process(worker, batch, until=lambda: worker.counters.last_signals or worker.standing.reason)
    await worker.federation.exchange()

    assert {outcome for _, outcome in worker.counters.last_signals.values()} == {"COMMITTEE_VETO"}
    views, _ = read_views(tmp_path / "desk")
    # What it says of itself is not the others' echo: two that heard each other would never come out of it.
    assert {one.worker: one.stance for one in views} == {"a": Stance.NORMAL, "b": Stance.EXITS_ONLY}
    assert any("most of the federation takes exits only" in str(one.detail) for one in
               (event_of(entry) for entry in read_entries(tmp_path / "journal.jsonl")
                if entry.type == "risk.committee_resolved"))  # fmt: skip
