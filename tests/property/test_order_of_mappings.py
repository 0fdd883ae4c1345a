"""A decision does not depend on the order of any mapping or set, to the last digit, and a journal replays it so."""

from __future__ import annotations

import random
from collections import Counter
from decimal import ROUND_HALF_UP, Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.decision import decide
from inference.domain.events import CandlesDecided
from inference.domain.policy import Policy
from inference.journal.codec import GENESIS, chained
from inference.journal.replay import replay_decisions
from inference.journal.writer import JournalWriter
from inference.portfolio.exposure import portfolio_load
from inference.risk.tiers import beta_with, carried_by_cluster, net_beta
from infra.prove.recorded_decisions import MANY, START_MS, SYMBOLS, drawn_snapshot, reordered, write_journal
from infra.prove.replayed_elsewhere import HASH_SEEDS, begin, result_of

# Every number that a refusal tells is looked at, so that the last digit of each sum shows.
TELLING = (
    Policy(max_positions=20, max_exposure=Decimal("0.001")),
    Policy(max_positions=20, max_exposure=Decimal(20), max_portfolio_heat=Decimal("0.01")),
    Policy(max_positions=20, max_exposure=Decimal(20), max_correlated_exposure=Decimal("0.001")),
    Policy(max_positions=20, max_exposure=Decimal(20), max_btc_beta=Decimal("0.001")),
)


def snapshot_of(seed: int):
    return drawn_snapshot(random.Random(seed), START_MS, START_MS + 100)


def load_of(snapshot):
    return portfolio_load(positions=snapshot.positions, in_flight=snapshot.in_flight, heat=snapshot.heat)


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_what_is_carried_is_the_same_in_any_order(seed, other):
    """Load, cluster and beta are equal to the last digit, however the mappings were filled."""
    snapshot = snapshot_of(seed)
    mixed = reordered(snapshot, random.Random(other))
    load, again = load_of(snapshot), load_of(mixed)

    assert load == again
    assert (list(load.signed), list(load.undirected)) == (list(again.signed), list(again.undirected))
    if snapshot.risk:
        view, shown = snapshot.risk, mixed.risk
        assert net_beta(view, load) == net_beta(shown, again)
        for symbol in SYMBOLS:
            if symbol in view.clusters:
                assert str(carried_by_cluster(symbol, view, load)) == str(carried_by_cluster(symbol, shown, again))
            direction = snapshot.candidates[0].signal.direction
            asked = {"direction": direction, "notional": Decimal(100) / 7}
            assert beta_with(symbol, view, load=load, **asked) == beta_with(symbol, shown, load=again, **asked)


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.sampled_from(TELLING))
def test_what_is_decided_is_the_same_in_any_order(seed, other, policy):
    """Every answer, with every number that it tells."""
    snapshot = snapshot_of(seed)

    assert decide(reordered(snapshot, random.Random(other)), policy, START_MS + 100) == decide(
        snapshot, policy, START_MS + 100
    )


@given(st.integers(0, 10**6), st.sampled_from(TELLING))
def test_what_is_decided_is_the_same_however_its_thread_rounds(seed, policy):
    """A library that changes the thread's decimal context, as ccxt does, changes no digit of an answer."""
    snapshot = snapshot_of(seed)
    plain = decide(snapshot, policy, START_MS + 100)

    with localcontext(prec=9, rounding=ROUND_HALF_UP):
        assert decide(snapshot, policy, START_MS + 100) == plain


def test_the_order_of_these_sums_would_show():
    """What is drawn has teeth: added up in another order, heat and exposure differ in many of these states."""
    differing = Counter()
    for seed in range(200):
        snapshot = snapshot_of(seed)
        mixed = reordered(snapshot, random.Random(seed + 1))
        if len(snapshot.positions) >= MANY:
            differing["crowded"] += 1
            differing["heat"] += sum(snapshot.heat.values()) != sum(mixed.heat.values())
            notionals = [sum(one.notional for one in each.positions.values()) for each in (snapshot, mixed)]
            differing["notional"] += notionals[0] != notionals[1]

    assert differing["crowded"] > 80
    assert differing["heat"] > 20
    assert differing["notional"] > 20


@given(st.integers(0, 10**6), st.sampled_from(TELLING))
def test_a_journal_that_was_written_unsorted_is_decided_again_to_the_byte(seed, policy):
    """Read back, its mappings have the order of its text; the answers are the same bytes."""
    rng = random.Random(seed)
    snapshot = reordered(drawn_snapshot(rng, START_MS, START_MS + 100), rng)
    decisions = decide(snapshot, policy, START_MS + 100)
    event = CandlesDecided.of(snapshot, policy, START_MS + 100, decisions)
    entry = chained(event, seq=1, timestamp_ms=1, trace_id="", previous=GENESIS)

    assert replay_decisions([entry]) == (1, [])


@pytest.mark.parametrize("hash_seed", HASH_SEEDS)
def test_another_process_with_other_hashes_decides_the_same(tmp_path, hash_seed):
    """Nothing of an answer hangs on how sets and mappings hash."""
    path = tmp_path / "journal.jsonl"
    recorded = write_journal(path, 20, 5)
    assert result_of(begin(path, hash_seed)) == (20, [])
    assert recorded.reordered == []


def test_what_another_process_decides_otherwise_is_told(tmp_path):
    """By the number of its entry: here a recorded denial was taken out, as no rule would have it."""
    path, snapshot = tmp_path / "journal.jsonl", snapshot_of(3)
    decisions = decide(snapshot, Policy(), START_MS + 100)
    with JournalWriter.open(path) as journal:
        for answers in (decisions, decisions[1:]):
            event = CandlesDecided.of(snapshot, Policy(), START_MS + 100, answers)
            journal.record(event, timestamp_ms=START_MS + 100)

    assert result_of(begin(path, "1")) == (2, [2])


def test_a_process_that_cannot_read_is_no_answer(tmp_path):
    """Where there is no journal nothing was decided again, and of one that is none nothing is claimed."""
    path = tmp_path / "journal.jsonl"
    assert result_of(begin(path, "1")) == (0, [])
    path.write_text("no entry\n")
    with pytest.raises(ValueError, match="ended with"):
        result_of(begin(path, "1"))
