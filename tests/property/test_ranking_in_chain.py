"""Candidates ranked by risk: the same whoever comes first, journaled as they stood, and off unless a policy says so."""

from __future__ import annotations

import random
from dataclasses import replace
from decimal import Decimal

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from inference.bus.projection import events_of
from inference.decision import decide, ranking_of
from inference.domain.decision import Approved, DenyCode
from inference.domain.events import CandlesDecided
from inference.domain.market import Quote
from inference.domain.policy import Policy, Ranking
from inference.domain.position import Position
from inference.domain.risk import RiskView
from inference.domain.signal import Direction
from inference.journal.codec import GENESIS, chained, entry_of, event_data, event_of, line_of
from inference.journal.replay import replay_decisions
from inference.supervision.risk_watch import RiskWatch
from tests.property.test_decision_invariants import NAMES, NOW, policies, snapshots
from tests.worker_values import T0, make_candidate, make_snapshot

BY_RISK = Policy(ranking=Ranking.RISK_ADJUSTED)


@st.composite
def by_risk(draw):
    """Return a snapshot with clusters, and a policy that ranks by risk."""
    clusters = draw(st.dictionaries(st.sampled_from(NAMES), st.sampled_from(NAMES[:3]), max_size=20))
    factor = draw(st.sampled_from([Decimal(1), Decimal("0.5"), Decimal("0.1")]))
    policy = replace(draw(policies), ranking=Ranking.RISK_ADJUSTED, companion_factor=factor)
    return replace(draw(snapshots()), risk=RiskView(clusters=clusters)), policy


@given(by_risk(), st.integers(0, 1000))
def test_the_order_of_candidates_changes_no_ranking(case, seed):
    """Any permutation is ranked and answered the same, and everybody has a place once."""
    snapshot, policy = case
    shuffled = list(snapshot.candidates)
    random.Random(seed).shuffle(shuffled)
    other = replace(snapshot, candidates=tuple(shuffled))

    ranked = ranking_of(snapshot, policy)

    assert ranked == ranking_of(other, policy)
    assert decide(snapshot, policy, NOW) == decide(other, policy, NOW)
    asked = sorted((one.signal.symbol, one.signal.trace_id) for one in snapshot.candidates)
    assert sorted((one.symbol, one.trace_id) for one in ranked) == asked


@given(by_risk())
def test_answers_come_in_the_ranking_and_who_cannot_be_judged_last(case):
    """Decisions stand in the order of the ranking, by falling score; what has none comes behind."""
    snapshot, policy = case
    ranked = ranking_of(snapshot, policy)
    decisions = decide(snapshot, policy, NOW)

    assert [(one.symbol, one.signal.trace_id) for one in decisions if one.signal] == [
        (one.symbol, one.trace_id) for one in ranked
    ]
    scores = [one.score for one in ranked]
    judged = [one for one in scores if one is not None]
    assert judged == sorted(judged, reverse=True)
    assert scores[: len(judged)] == judged


@given(by_risk())
def test_a_ranking_only_reorders(case):
    """One candidate by itself is answered as by net edge: the ranking approves nobody."""
    snapshot, policy = case
    plain = replace(policy, ranking=Ranking.NET_EDGE)
    for candidate in snapshot.candidates:
        alone = replace(snapshot, candidates=(candidate,))

        assert decide(alone, policy, NOW) == decide(alone, plain, NOW)


@given(by_risk())
def test_a_ranking_is_journaled_and_made_again_to_the_byte(case):
    """The entry holds every place with its numbers, and a place that was changed is found."""
    snapshot, policy = case
    event = CandlesDecided.of(snapshot, policy, NOW, decide(snapshot, policy, NOW), ranking_of(snapshot, policy))
    entry = entry_of(line_of(chained(event, seq=1, timestamp_ms=NOW, trace_id="t", previous=GENESIS)))
    lied = replace(event, ranking=(*event.ranking[1:], replace(event.ranking[0], companions=99)))
    forged = entry_of(line_of(chained(lied, seq=1, timestamp_ms=NOW, trace_id="t", previous=GENESIS)))

    assert event_of(entry) == event
    assert replay_decisions([entry]) == (1, [])
    assert len(replay_decisions([forged])[1]) == 1


@given(snapshots(), policies)
def test_without_it_nothing_is_ranked_or_written(snapshot, policy):
    """By net edge, as ever, no entry has a word of it."""
    event = CandlesDecided.of(snapshot, policy, NOW, decide(snapshot, policy, NOW), ranking_of(snapshot, policy))

    assert b'"ranking":' not in event_data(event)
    assert b'"companion_factor":' not in event_data(event)


def _names(decisions) -> list[str]:
    return [one.symbol for one in decisions]


def test_what_earns_more_for_its_risk_comes_first():
    """The larger edge with the wider stop stands behind; look-alikes of what is held stand behind that."""
    wild, calm = make_candidate("A", atr=1000.0, expected_return=0.02), make_candidate("B", expected_return=0.01)
    snapshot = make_snapshot((wild, calm))

    assert _names(decide(snapshot, Policy(), NOW)) == ["A", "B"]
    assert _names(decide(snapshot, BY_RISK, NOW)) == ["B", "A"]

    held = Position(
        symbol="C", direction=Direction.LONG, quantity=Decimal(1), entry_price=Decimal(100), entry_time_ms=T0,
        trade_id="x",
    )  # fmt: skip
    beside = replace(snapshot, positions={"C": held}, risk=RiskView(clusters={"B": "one", "C": "one"}))
    careful = replace(BY_RISK, companion_factor=Decimal("0.01"))
    first, second = ranking_of(beside, careful)
    assert (first.symbol, second.symbol, second.companions) == ("A", "B", 1)
    assert second.score < second.worth

    entering = replace(snapshot, in_flight={"C": Decimal(500)}, risk=RiskView(clusters={"B": "one", "C": "one"}))
    assert [one.symbol for one in ranking_of(entering, careful)] == ["A", "B"]


def test_what_has_no_quote_no_steps_or_no_stop_comes_last():
    """Each is still answered by the chain, in its place behind all that can be judged."""
    names = ("A", "B", "C", "D")
    snapshot = make_snapshot(tuple(make_candidate(name, atr=1e6 if name == "C" else 100.0) for name in names))
    crossed = Quote(symbol="A", bid=Decimal(50_005), ask=Decimal(49_995), event_time_ms=T0)
    instruments = {name: one for name, one in snapshot.instruments.items() if name != "B"}
    snapshot = replace(snapshot, quotes=snapshot.quotes | {"A": crossed}, instruments=instruments)

    decisions = decide(snapshot, BY_RISK, NOW)

    assert _names(decisions) == ["D", "A", "B", "C"]
    assert isinstance(decisions[0], Approved)
    assert [one.code for one in decisions[1:]] == [DenyCode.NO_QUOTE, DenyCode.NO_QUOTE, DenyCode.STOP_UNUSABLE]
    assert [one.score is None for one in ranking_of(snapshot, BY_RISK)] == [False, True, True, True]


def test_subscribers_are_told_by_what_was_ranked():
    """`signal.ranked` has worth, score and companions of what passed, where the journal has them."""
    snapshot = make_snapshot((make_candidate("A"),))
    told = {}
    for policy in (Policy(), BY_RISK):
        event = CandlesDecided.of(snapshot, policy, NOW, decide(snapshot, policy, NOW), ranking_of(snapshot, policy))
        entry = chained(event, seq=1, timestamp_ms=NOW, trace_id="t", previous=GENESIS)
        (ranked,) = [one for one in events_of(entry, "j") if one.event_type == "signal.ranked"]
        told[policy.ranking] = ranked.data["ranking"][0]

    added = set(told[Ranking.RISK_ADJUSTED]) - set(told[Ranking.NET_EDGE])
    assert added == {"worth", "score", "companions"}
    assert told[Ranking.RISK_ADJUSTED]["worth"] > 0


def test_clusters_are_made_where_only_the_ranking_asks_for_them():
    """A worker without limits on clusters still knows them if its ranking counts companions."""
    times = np.arange(400, dtype=np.int64) * 300_000
    walk = 100 * np.exp(np.cumsum(np.random.default_rng(1).standard_normal(400) * 0.001))
    closes = {"A/USDT:USDT": (times, walk), "B/USDT:USDT": (times, 2 * walk)}

    def clusters(policy):
        watch = RiskWatch(
            policy=lambda: policy, timeframe_ms=300_000, closes=lambda: closes,
            note=lambda _kind, _detail: None, monotonic=lambda: 0.0,
        )  # fmt: skip
        return watch.view(int(times[-1]) + 600_000, 0).clusters

    assert clusters(Policy()) == {}
    assert clusters(BY_RISK) == {}
    found = clusters(replace(BY_RISK, companion_factor=Decimal("0.5")))
    assert found["A/USDT:USDT"] == found["B/USDT:USDT"]
