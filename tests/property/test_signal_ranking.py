"""Opportunities in their order: the same however they are given, the better never behind, the unjudged last."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.domain.signal import Direction
from inference.signals.ranking import Opportunity, RankingRules, rank

SYMBOLS = tuple(f"S{number}" for number in range(9))
SIDES = st.sampled_from([Direction.LONG, Direction.SHORT])
RULES = RankingRules()
CLUSTERS = st.dictionaries(st.sampled_from(SYMBOLS), st.sampled_from(SYMBOLS[:3]))
HELD = st.dictionaries(st.sampled_from(SYMBOLS), st.sampled_from(list(Direction)))
SOUND = st.lists(
    st.builds(
        Opportunity,
        symbol=st.sampled_from(SYMBOLS),
        direction=SIDES,
        # Few values, so that there are equals.
        net_return=st.sampled_from([-0.01, 0.0, 0.001, 0.002, 0.004]) | st.floats(-0.1, 0.1),
        risk=st.sampled_from([0.01, 0.02]),
        confidence=st.sampled_from([0.55, 0.6]) | st.floats(0, 1),
    ),
    max_size=9,
)
ANY = st.lists(
    st.builds(
        Opportunity,
        symbol=st.sampled_from(SYMBOLS),
        direction=st.sampled_from(list(Direction)),
        net_return=st.floats(allow_nan=True, allow_infinity=True),
        risk=st.floats(allow_nan=True, allow_infinity=True),
        confidence=st.floats(allow_nan=True, allow_infinity=True),
    ),
    max_size=9,
)


def _one(symbol: str, net_return: float, /, **changed: object) -> Opportunity:
    plain = {"direction": Direction.LONG, "risk": 0.01, "confidence": 0.6}
    return Opportunity(symbol=symbol, **{**plain, "net_return": net_return, **changed})


def _order(*opportunities: Opportunity, **changed: object) -> list[str]:
    asked = {"held": {}, "clusters": {}, "rules": RULES, **changed}
    return [one.opportunity.symbol for one in rank(opportunities, **asked)]


@given(given=SOUND, clusters=CLUSTERS, held=HELD, data=st.data())
def test_the_order_of_asking_changes_nothing(given, clusters, held, data):
    """Any permutation of the same opportunities is answered the same."""
    shuffled = data.draw(st.permutations(given))

    assert rank(given, held=held, clusters=clusters, rules=RULES) == rank(
        shuffled, held=held, clusters=clusters, rules=RULES
    )


@given(given=ANY, clusters=CLUSTERS, held=HELD)
def test_everyone_is_answered_once_and_the_unjudged_last(given, clusters, held):
    """Whatever numbers come, nobody is lost or doubled; what is no number stands behind everything that is one."""
    ranked = rank(given, held=held, clusters=clusters, rules=RULES)
    judged = [one.score is not None for one in ranked]

    assert sorted(map(repr, given)) == sorted(repr(one.opportunity) for one in ranked)
    assert judged == sorted(judged, reverse=True)
    for one in ranked:
        assert (one.score is None) == (one.opportunity.worth is None)
        assert one.score is None or math.isfinite(one.score)


@settings(max_examples=200)
@given(given=SOUND.filter(bool), clusters=CLUSTERS, held=HELD, data=st.data(), more=st.floats(1e-6, 0.1))
def test_expecting_more_never_puts_anyone_back(given, clusters, held, data, more):
    """Raising one opportunity's net return leaves it where it was or moves it forward, companions and all."""
    place = data.draw(st.integers(0, len(given) - 1))
    # One opportunity of a symbol, so that it can be told from the others.
    unique = {one.symbol: one for one in given}
    chosen = given[place].symbol
    before = _order(*unique.values(), held=held, clusters=clusters)
    raised = replace(unique[chosen], net_return=unique[chosen].net_return + more)
    after = _order(*{**unique, chosen: raised}.values(), held=held, clusters=clusters)

    assert after.index(chosen) <= before.index(chosen)


@given(given=SOUND, clusters=CLUSTERS, held=HELD)
def test_scores_fall_and_what_loses_comes_last(given, clusters, held):
    """From first to last no score rises, and none is above what the opportunity alone is worth."""
    ranked = rank(given, held=held, clusters=clusters, rules=RULES)

    assert all(one.score >= other.score for one, other in pairwise(ranked))
    assert all(one.score <= one.worth for one in ranked)
    assert all(one.score == one.worth for one in ranked if one.companions == 0 or one.worth <= 0)


@given(given=SOUND, clusters=CLUSTERS, held=HELD)
def test_each_is_the_best_of_what_is_left(given, clusters, held):
    """The order is that of choosing one by one, done the slow way."""
    ranked = rank(given, held=held, clusters=clusters, rules=RULES)
    sides = [(clusters.get(symbol, symbol), side) for symbol, side in held.items()]
    left = list(given)
    for one in ranked:

        def key(other: Opportunity) -> tuple:
            count = sides.count((clusters.get(other.symbol, other.symbol), other.direction))
            score = other.worth * RULES.companion_factor**count if other.worth > 0 else other.worth
            return -score, other.symbol, other.direction, other.net_return, other.risk, other.confidence

        best = min(left, key=key)

        assert one.opportunity == best
        left.remove(best)
        sides.append((clusters.get(best.symbol, best.symbol), best.direction))


def test_more_for_less_risk_and_surer_comes_first():
    """Return, risk and confidence each decide where the two others are equal, and the symbol where all are."""
    assert _order(_one("A", 0.001), _one("B", 0.002)) == ["B", "A"]
    assert _order(_one("A", 0.002, risk=0.02), _one("B", 0.002)) == ["B", "A"]
    assert _order(_one("A", 0.002, confidence=0.55), _one("B", 0.002)) == ["B", "A"]
    assert _order(_one("B", 0.002), _one("A", 0.002)) == ["A", "B"]


def test_a_look_alike_stands_behind_what_adds_something_else():
    """The second of a cluster, and one whose look-alike is held, is worth half; the other side of it is not."""
    clusters = {"A": "A", "B": "A"}
    three = (_one("A", 0.004), _one("B", 0.003), _one("C", 0.002))

    assert _order(*three) == ["A", "B", "C"]
    assert _order(*three, clusters=clusters) == ["A", "C", "B"]
    assert _order(*three[1:], clusters=clusters, held={"A": Direction.LONG}) == ["C", "B"]
    assert _order(*three[1:], clusters=clusters, held={"A": Direction.SHORT}) == ["B", "C"]
    assert _order(*three, clusters=clusters, rules=RankingRules(companion_factor=1.0)) == ["A", "B", "C"]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["net_return", "risk", "confidence"])
def test_what_is_no_number_never_ranks_first(name, number):
    """Nothing is promised by a number that is none, not even against a loss."""
    assert _order(_one("A", 0.001, **{name: number}), _one("B", -0.05)) == ["B", "A"]


@pytest.mark.parametrize(
    "changed", [{"risk": 0.0}, {"risk": -0.01}, {"risk": 5e-324}, {"confidence": 1.5}, {"direction": Direction.FLAT}]
)
def test_what_cannot_be_judged_comes_last(changed):
    """No risk, less than none, a confidence that is no probability, no side: behind what is expected to lose."""
    assert _order(_one("A", 0.01, **changed), _one("B", -0.05)) == ["B", "A"]


@pytest.mark.parametrize("factor", [0.0, -1.0, 1.1, math.nan])
def test_a_factor_that_would_turn_the_order_round_is_refused(factor):
    """Companions take something off or nothing, and never everything."""
    with pytest.raises(ValueError, match="must lie in"):
        RankingRules(companion_factor=factor)


def test_a_hundred_opportunities_are_ranked_quickly():
    """A hundred symbols in seven clusters take about a millisecond; fifty are allowed here, for busy machines."""
    many = [_one(f"S{number:03d}", 0.001 + 1e-5 * number) for number in range(100)]
    clusters = {one.symbol: f"S{number % 7:03d}" for number, one in enumerate(many)}
    times = []
    for _ in range(20):
        began = time.perf_counter()
        rank(many, held={}, clusters=clusters, rules=RULES)
        times.append(time.perf_counter() - began)

    assert min(times) < 0.05
