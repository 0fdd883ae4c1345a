"""Flags of quality in the decision chain: told by default, and refused where the policy says so, never otherwise."""

from __future__ import annotations

import math
from dataclasses import replace
from decimal import Decimal
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.features.definition import MODEL_INPUT_NAMES, WINDOW
from feature_store.features.live import LatestFeatures
from inference.bus.projection import events_of
from inference.decision import decide
from inference.domain.bias import BiasMode
from inference.domain.decision import Approved, Denied, DenyCode, Snapshot
from inference.domain.errors import PolicyError
from inference.domain.events import CandlesDecided
from inference.domain.policy import Policy
from inference.domain.quality import QualityCode, QualityFlag
from inference.feed.followed import LastRow
from inference.journal.codec import GENESIS, chained, entry_of, event_data, event_of, line_of
from inference.journal.replay import replay_decisions
from inference.policy.values import policy_of, value_of_text
from inference.signals.trained_inputs import TrainedInputs
from inference.supervision.signal_quality import SignalQuality
from tests.property.test_decision_invariants import NOW, policies, snapshots
from tests.worker_values import T0, make_candidate, make_snapshot

STEP_MS = 300_000
EVERYTHING = tuple(QualityCode)
flags = st.lists(
    st.builds(QualityFlag, code=st.sampled_from(QualityCode), context=st.just({"spread": "0.01", "maximum": "0.002"})),
    max_size=3,
).map(tuple)


@st.composite
def flagged(draw) -> Snapshot:
    """Return a snapshot whose signals were looked at, and some of which have something said against them."""
    snapshot = draw(snapshots())
    return replace(
        snapshot,
        candidates=tuple(replace(one, signal=replace(one.signal, quality=draw(flags))) for one in snapshot.candidates),
    )


def _told(decisions):
    """Return what was decided, without what only the signal says."""
    return [
        replace(one, signal=None) if isinstance(one, Denied) else replace(one, signal=make_candidate().signal)
        for one in decisions
    ]


@given(flagged(), policies, st.lists(st.sampled_from(QualityCode), unique=True).map(tuple))
def test_observed_flags_change_nothing(snapshot, policy, refusing):
    """Whatever is said against signals, and whichever flags would refuse: observed, decisions are what they were."""
    bare = replace(snapshot, candidates=tuple(_without_flags(one) for one in snapshot.candidates))
    # Equals are told apart by their whole text, of which flags are a part: one candidate a symbol and none is equal.
    snapshot, bare = _one_each(snapshot), _one_each(bare)

    assert _told(decide(snapshot, replace(policy, refusing_flags=refusing), NOW)) == _told(decide(bare, policy, NOW))


def _without_flags(candidate):
    signal = candidate.signal
    names = [name for name in signal.__dataclass_fields__ if name != "quality"]
    return replace(candidate, signal=type(signal)(**{name: getattr(signal, name) for name in names}))


def _one_each(snapshot: Snapshot) -> Snapshot:
    chosen = {one.signal.symbol: one for one in snapshot.candidates}
    return replace(snapshot, candidates=tuple(chosen.values()))


@given(flagged(), policies, st.lists(st.sampled_from(QualityCode), unique=True, min_size=1).map(tuple))
def test_enforced_flags_always_refuse_and_only_theirs(snapshot, policy, refusing):
    """No signal with a refusing flag is entered; the others are decided on as if it had never come."""
    enforced = replace(policy, quality_mode=BiasMode.ENFORCE, refusing_flags=refusing)
    refused = {id(one) for one in snapshot.candidates if any(flag.code in refusing for flag in one.signal.quality)}
    without = replace(snapshot, candidates=tuple(one for one in snapshot.candidates if id(one) not in refused))

    decisions = decide(snapshot, enforced, NOW)

    for one in decisions:
        found = one.signal is not None and any(flag.code in refusing for flag in one.signal.quality)
        assert not (found and isinstance(one, Approved))
        if isinstance(one, Denied) and one.code is DenyCode.SIGNAL_QUALITY:
            assert found
            assert one.context["flag"] in refusing
    rest = [
        one for one in decisions if one.signal is None or not any(flag.code in refusing for flag in one.signal.quality)
    ]
    assert rest == list(decide(without, policy, NOW))


@given(flagged(), policies, st.sampled_from(BiasMode))
def test_flags_are_journaled_and_replayed_as_they_were(snapshot, policy, mode):
    """Snapshot, flags and answers survive the journal's text, and deciding again gives the same bytes."""
    policy = replace(policy, quality_mode=mode, refusing_flags=EVERYTHING)
    event = CandlesDecided.of(snapshot, policy, NOW, decide(snapshot, policy, NOW))
    entry = entry_of(line_of(chained(event, seq=1, timestamp_ms=NOW, trace_id="t", previous=GENESIS)))

    assert event_of(entry) == event
    assert replay_decisions([entry]) == (1, [])


def test_the_chain_asks_for_quality_between_confidence_and_costs():
    """What is unsure is refused for that, what is flagged for its flag, and before anybody asks for its costs."""
    policy = Policy(quality_mode=BiasMode.ENFORCE, refusing_flags=("WIDE_SPREAD",))
    flag = QualityFlag(code=QualityCode.WIDE_SPREAD, context={"spread": "0.01", "maximum": "0.002"})

    def code(**changes):
        (one,) = decide(make_snapshot((make_candidate(quality=(flag,), **changes),)), policy, NOW)
        return one.code, dict(one.context)

    assert code(probability=0.55)[0] is DenyCode.CONFIDENCE_BELOW_THRESHOLD
    told = (DenyCode.SIGNAL_QUALITY, {"flag": "WIDE_SPREAD", "spread": "0.01", "maximum": "0.002"})
    assert code() == told
    assert code(expected_return=-0.01) == told


def test_signals_that_nobody_looked_at_are_decided_as_before():
    """A journal from before flags, decided under rules that enforce them, refuses nothing for them."""
    policy = Policy(quality_mode=BiasMode.ENFORCE, refusing_flags=EVERYTHING)
    event = CandlesDecided.of(make_snapshot(), policy, NOW, decide(make_snapshot(), policy, NOW))

    assert isinstance(decide(make_snapshot(), policy, NOW)[0], Approved)
    assert b'quality":' not in event_data(event)


def test_subscribers_are_told_of_flags_and_regimes():
    """`signal.generated` has both where a signal has them, `signal.filtered` the flag that refused."""
    policy = Policy(quality_mode=BiasMode.ENFORCE, refusing_flags=("NO_QUOTE",))
    flag = QualityFlag(code=QualityCode.NO_QUOTE, context={"bid": "nan"})
    told = make_candidate("A", quality=(flag,), regime="trend", regime_probability={"trend": 0.9, "unknown": 0.1})
    snapshot = make_snapshot((told, make_candidate("B")))
    event = CandlesDecided.of(snapshot, policy, NOW, decide(snapshot, policy, NOW))
    events = events_of(chained(event, seq=1, timestamp_ms=NOW, trace_id="t", previous=GENESIS), "j")

    generated = {one.data["symbol"]: one.data for one in events if one.event_type == "signal.generated"}
    filtered = {one.data["symbol"]: one.data for one in events if one.event_type == "signal.filtered"}
    assert generated["A"]["quality"] == [{"code": "NO_QUOTE", "context": {"bid": "nan"}}]
    assert generated["A"]["regime_probability"] == {"trend": 0.9, "unknown": 0.1}
    assert {"quality", "regime_probability"}.isdisjoint(generated["B"])
    assert (filtered["A"]["code"], filtered["A"]["context"]["flag"]) == ("SIGNAL_QUALITY", "NO_QUOTE")


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"refusing_flags": ("NO_SUCH_FLAG",)}, "NO_SUCH_FLAG"),
        ({"quality_mode": "enforce"}, "needs refusing_flags"),
        ({"max_spread": 0}, "max_spread"),
        ({"min_candle_volume": -1}, "min_candle_volume"),
        ({"quality_mode": "loud"}, "observe"),
    ],
)
def test_rules_that_cannot_be_meant_are_refused(rules, words):
    """A flag that there is not, a mode without flags, and limits that are none."""
    with pytest.raises(PolicyError, match=words):
        policy_of(rules)


def test_rules_are_read_as_people_write_them():
    """Flags are a list of names, limits are numbers or none."""
    policy = policy_of({
        "quality_mode": "enforce",
        "refusing_flags": value_of_text("refusing_flags", "STALE_DATA, FAR_FROM_TRAINING"),
        "execution": {"max_spread": "0.002", "min_candle_volume": "none"},
    })  # fmt: skip

    assert policy.refusing_flags == ("STALE_DATA", "FAR_FROM_TRAINING")
    assert policy.max_spread == Decimal("0.002")
    assert policy.min_candle_volume is None
    assert Policy().stated().keys().isdisjoint({"max_spread", "min_candle_volume", "quality_mode", "refusing_flags"})


DEFAULT = Policy()
SYMBOLS = ("A/USDT:USDT", "B/USDT:USDT")
COUNT = len(MODEL_INPUT_NAMES)


def _trained() -> TrainedInputs:
    unit = tuple(tuple(float(row == column) for column in range(COUNT)) for row in range(COUNT))
    return TrainedInputs(
        names=MODEL_INPUT_NAMES, lowest=(-4.0,) * COUNT, highest=(4.0,) * COUNT, centre=(0.0,) * COUNT,
        spread=(1.0,) * COUNT, whitening=unit, far=30.0, range_alarm=0.01, distance_alarm=0.001,
    )  # fmt: skip


def _looked_at(policy=DEFAULT, *, trained=None, inputs=0.0, volume=2.0, quotes=None, now_ms=T0 + 1000):
    bundle = SimpleNamespace(manifest=SimpleNamespace(trained_inputs=trained, model_inputs=MODEL_INPUT_NAMES))
    given_inputs = np.full((2, COUNT), inputs, np.float32)
    snapshot = make_snapshot(tuple(make_candidate(symbol) for symbol in SYMBOLS))
    latest = LatestFeatures(
        SYMBOLS, np.full(2, T0 - STEP_MS), given_inputs, np.zeros((2, WINDOW, COUNT)), np.zeros((2, WINDOW)),
        np.ones(2, bool),
    )  # fmt: skip
    given_candidates = snapshot.candidates
    found = SignalQuality(timeframe_ms=STEP_MS).looked_at(
        given_candidates,
        bundle,
        latest=latest,
        rows={symbol: LastRow(atr=100.0, close=50_000.0, volume=volume) for symbol in SYMBOLS},
        quotes=snapshot.quotes if quotes is None else quotes,
        policy=policy,
        now_ms=now_ms,
    )
    return given_candidates, found


def _codes(found) -> set[str]:
    return {flag.code.value for one in found for flag in one.signal.quality}


def test_nobody_looks_where_nothing_was_learned_and_no_rule_asks():
    """A worker with a bundle of before and the default policy journals what it always did."""
    before, found = _looked_at()

    assert found is before


def test_what_a_rule_asks_for_is_flagged():
    """Spread and volume by the policy's figures; what is not known counts as not enough, a missing quote as missing."""
    narrow, wide = Policy(max_spread=Decimal("0.001")), Policy(max_spread=Decimal("0.0001"))

    assert _codes(_looked_at(narrow)[1]) == set()
    assert _codes(_looked_at(wide)[1]) == {"WIDE_SPREAD"}
    assert _codes(_looked_at(Policy(min_candle_volume=Decimal(100_000)))[1]) == set()
    assert _codes(_looked_at(Policy(min_candle_volume=Decimal(100_001)))[1]) == {"THIN_VOLUME"}
    assert _codes(_looked_at(Policy(min_candle_volume=Decimal(1)), volume=math.nan)[1]) == {"THIN_VOLUME"}
    assert _codes(_looked_at(narrow, quotes={})[1]) == {"NO_QUOTE"}
    assert _codes(_looked_at(narrow, now_ms=T0 + STEP_MS + 1)[1]) == {"STALE_DATA"}


def test_what_training_never_saw_is_flagged_without_being_asked():
    """Where a bundle says what inputs were like, each signal is held against it."""
    assert _codes(_looked_at(trained=_trained())[1]) == set()
    assert _codes(_looked_at(trained=_trained(), inputs=5.0)[1]) == {"INPUT_OUT_OF_RANGE", "FAR_FROM_TRAINING"}
    assert _codes(_looked_at(trained=_trained(), inputs=math.nan)[1]) == {"INPUT_MISSING"}
