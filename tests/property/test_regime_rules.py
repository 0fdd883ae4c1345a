"""Rules by regime: a size never grows by them, nothing is approved for them, and defaults leave all as it was."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.decision import decide
from inference.domain.decision import Approved, DenyCode
from inference.domain.errors import PolicyError
from inference.domain.events import CandlesDecided
from inference.domain.policy import Policy
from inference.domain.regime_rules import REGIME_NAMES, UNKNOWN, figures_of
from inference.journal.codec import GENESIS, chained, entry_of, event_of, line_of
from inference.journal.replay import replay_decisions
from inference.policy.values import plain, policy_of, value_of_text
from inference.regime.market import MarketRegime
from inference.regime.states import Regime
from tests.property.test_decision_invariants import NOW, policies, snapshots
from tests.worker_values import make_candidate, make_snapshot

KNOWN = [name for name in REGIME_NAMES if name != UNKNOWN]


@st.composite
def by_regime(draw):
    """Return a snapshot in some regimes, and a policy of defaults with rules by regime."""
    snapshot = draw(snapshots())
    snapshot = replace(
        snapshot,
        candidates=tuple(
            replace(one, signal=replace(one.signal, regime=draw(st.sampled_from(REGIME_NAMES))))
            for one in snapshot.candidates
        ),
    )
    policy = draw(policies)
    shares = draw(st.dictionaries(st.sampled_from(KNOWN), st.sampled_from(["0", "0.25", "0.5", "1"]), max_size=4))
    least = draw(st.dictionaries(st.sampled_from(REGIME_NAMES), st.sampled_from(["0.3", "0.6", "0.9"]), max_size=4))
    ruled = replace(
        policy,
        regime_sizes=tuple(f"{name}={share}" for name, share in shares.items()),
        regime_thresholds=tuple(f"{name}={one}" for name, one in least.items()),
    )
    return snapshot, policy, ruled


def test_every_regime_that_can_be_told_can_be_named():
    """What the two detectors say, and nothing else, has a name in a policy."""
    assert set(REGIME_NAMES) == {*map(str, Regime), *map(str, MarketRegime)}
    assert len(set(REGIME_NAMES)) == len(REGIME_NAMES)


@given(by_regime())
def test_rules_by_regime_only_ever_hold_back(given_rules):
    """One candidate by itself is approved under them only if it was without, and never larger."""
    snapshot, policy, ruled = given_rules
    for candidate in snapshot.candidates:
        alone = replace(snapshot, candidates=(candidate,))
        (before, *_), (after, *_) = decide(alone, policy, NOW), decide(alone, ruled, NOW)

        if isinstance(after, Approved):
            assert isinstance(before, Approved)
            assert after.quantity <= before.quantity
            assert candidate.signal.confidence >= figures_of(ruled.regime_thresholds).get(candidate.signal.regime, 0)
        elif not isinstance(before, Approved):
            assert after.code in (before.code, DenyCode.CONFIDENCE_BELOW_THRESHOLD, DenyCode.NO_EDGE_TO_BET)


@given(by_regime())
def test_decisions_by_regime_are_made_again_to_the_byte(given_rules):
    """The journal holds the rules and the regimes, and deciding again gives the same."""
    snapshot, _, policy = given_rules
    event = CandlesDecided.of(snapshot, policy, NOW, decide(snapshot, policy, NOW))
    entry = entry_of(line_of(chained(event, seq=1, timestamp_ms=NOW, trace_id="t", previous=GENESIS)))

    assert event_of(entry) == event
    assert replay_decisions([entry]) == (1, [])


def test_sizes_and_thresholds_are_of_their_regime_alone():
    """A quarter of a size in a crash, no entry at all where nothing is left, more confidence where it is asked."""
    policy = Policy(
        regime_sizes=("crash=0.25", "high_volatility=0"), regime_thresholds=("range=0.9",), min_notional=Decimal(1)
    )

    def decided(regime):
        return decide(make_snapshot((make_candidate(regime=regime, atr=1000.0),)), policy, NOW)[0]

    whole, crash, wild, unsure = (decided(one) for one in ("trend", "crash", "high_volatility", "range"))
    assert crash.risk == pytest.approx(whole.risk / 4, rel=Decimal("0.05"))
    assert (wild.code, wild.context["regime"]) == (DenyCode.NO_EDGE_TO_BET, "high_volatility")
    assert (unsure.code, unsure.context["regime"]) == (DenyCode.CONFIDENCE_BELOW_THRESHOLD, "range")
    assert unsure.context["threshold"] == "0.9"
    assert decided("unknown").quantity == whole.quantity


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("regime_sizes", "crash", "not understood"),
        ("regime_sizes", "bear=0.5", "no regime 'bear'"),
        ("regime_sizes", "crash=0.5,crash=0.25", "two figures"),
        ("regime_sizes", "crash=1.5", "from 0 to 1"),
        ("regime_sizes", "unknown=0.5", "unknown_regime_size"),
        ("regime_sizes", "crash=-1", "not understood"),
        ("regime_sizes", "crash=NaN", "not understood"),
        ("regime_thresholds", "crash=1", "between 0 and 1"),
    ],
)
def test_rules_that_cannot_be_meant_are_refused(name, text, words):
    """Each with what is wrong with it."""
    with pytest.raises(PolicyError, match=words):
        policy_of({name: value_of_text(name, text)})


def test_rules_by_regime_come_back_as_they_were_written():
    """A policy of them has the same values after JSON, and one of defaults states none."""
    policy = policy_of({"regime_sizes": value_of_text("regime_sizes", "crash=0, trend=0.5")})

    assert policy_of(plain(policy)) == policy
    assert figures_of(policy.regime_sizes) == {"crash": Decimal(0), "trend": Decimal("0.5")}
    assert Policy().stated().keys().isdisjoint({"regime_sizes", "regime_thresholds"})
