"""When live opinions are called poor: how often wrongly, how soon rightly, and when they have recovered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from feature_store.candle import Timeframe
from inference.bootstrap.reporting import quality_status
from inference.domain.bias import BiasRules
from inference.domain.decision import Candidate
from inference.domain.policy import Policy
from inference.domain.signal import Direction
from inference.supervision.model_supervisor import ModelSupervisor
from inference.supervision.prediction_quality import MaturedCandle
from inference.supervision.quality_evidence import (
    FALSE_ALARM_RATE,
    FEWEST_OUTCOMES,
    LIMIT,
    Bets,
    Measure,
    QualityEvidence,
)
from inference.supervision.remembered import matured_detail, matured_of
from infra.stack.overview import quality_told
from tests.worker_values import T0, make_signal

STEP = Timeframe.M5.milliseconds
MARKETS, OUTCOMES = 300, 300
shares = st.floats(0, 1)
matured = st.builds(
    MaturedCandle,
    model_version=st.just("1"),
    said_ms=st.just(T0),
    due_ms=st.just(T0),
    right=shares,
    stated=st.floats(0.5, 1),
    brier=shares,
    rose=shares,
)


def outcome(place: int, *, right: float, stated: float, brier: float, rose: float) -> MaturedCandle:
    return MaturedCandle(
        model_version="1", said_ms=place, due_ms=place + 1, right=right, stated=stated, brier=brier, rose=rose
    )


def path(rng: np.random.Generator, says: Callable, *, symbols: int, together: float) -> list[MaturedCandle]:
    """Return outcomes of a market whose symbols move `together`, of a model that is right and sure as `says` tells."""
    candles = []
    for place in range(OUTCOMES):
        truth, stated = says(rng)
        common = rng.random() < together
        draws = np.full(symbols, rng.random()) if common else rng.random(symbols)
        right = draws < truth
        rose = right == (rng.random(symbols) < 0.5)
        brier = float(np.mean((stated - right) ** 2))
        candles.append(outcome(place, right=right.mean(), stated=stated, brier=brier, rose=rose.mean()))
    return candles


def found_at(candles: list[MaturedCandle]) -> tuple[int, Measure] | None:
    """Return after how many outcomes a model is called poor, looked at after each, and by what; None if never."""
    evidence = QualityEvidence()
    for place, one in enumerate(candles):
        evidence = evidence.after(one)
        if evidence.poor_by is not None:
            return place + 1, evidence.poor_by
    return None


def coin(_: np.random.Generator) -> tuple[float, float]:
    """Return a model that knows nothing and says so: exactly as good as it has to be."""
    return 0.5, 0.5


def twice_as_sure(rng: np.random.Generator) -> tuple[float, float]:
    """Return a model whose Brier score is that of a coin: right more often, and twice as sure as it may be."""
    skill = min(abs(rng.normal()) * 0.08, 0.2)
    return 0.5 + skill, 0.5 + 2 * skill


@pytest.mark.parametrize("says", [coin, twice_as_sure])
@pytest.mark.parametrize(("symbols", "together"), [(1, 0.0), (20, 0.5)], ids=["one-symbol", "twenty-that-move-as-one"])
def test_who_is_not_poor_is_hardly_ever_called_so(says, symbols, together):
    """Looked at after every outcome, models that are just good enough are called poor no oftener than is stated."""
    found = sum(
        found_at(path(np.random.default_rng([1, number]), says, symbols=symbols, together=together)) is not None
        for number in range(MARKETS)
    )

    assert FALSE_ALARM_RATE == 0.01
    assert found <= binom.ppf(0.95, MARKETS, FALSE_ALARM_RATE)


@pytest.mark.parametrize(
    ("truth", "stated", "measure"),
    [
        pytest.param(0.35, 0.55, Measure.HIT_RATE, id="wrong-more-often-than-right"),
        pytest.param(0.5, 0.7, Measure.BRIER, id="sure-of-coins"),
    ],
)
def test_who_is_poor_is_found_within_two_hundred_outcomes(truth, stated, measure):
    """Nine in ten models that are clearly poor are found, mostly by what is wrong with them."""
    found = [
        found_at(path(np.random.default_rng([2, number]), lambda _: (truth, stated), symbols=20, together=0.2))
        for number in range(40)
    ]
    soon = [one for one in found if one is not None and one[0] <= 200]

    assert len(soon) >= 36
    assert sum(one[1] is measure for one in soon) > len(soon) / 2


@given(st.lists(st.floats(-1, 4), max_size=80))
def test_bets_own_nothing_negative_and_begin_with_one(numbers):
    """Whatever happens, nobody owes anything; before anything happened the evidence is 1."""
    bets = Bets()
    for number in numbers:
        bets = bets.after(number)
        assert bets.evidence > 0

    assert Bets().evidence == 1
    assert bets.outcomes == len(numbers)


@given(st.lists(st.booleans(), min_size=12, max_size=12))
def test_no_stake_wins_on_average_over_all_that_fair_coins_can_do(first):
    """After any beginning, what a fair coin may do next changes what is owned by nothing on average."""
    bets = Bets()
    for heads in first:
        bets = bets.after(1.0 if heads else -1.0)

    assert (bets.after(1.0).evidence + bets.after(-1.0).evidence) / 2 == pytest.approx(bets.evidence)


@given(st.lists(matured, max_size=60), st.integers(1, 6))
def test_outcomes_that_overlap_count_once(candles, horizon):
    """Of opinions on every candle only those count that were said when the last that counted had ended."""
    evidence = QualityEvidence()
    for place, one in enumerate(candles):
        evidence = evidence.after(replace(one, said_ms=place, due_ms=place + horizon))

    assert evidence.counted == -(-len(candles) // horizon)
    assert evidence.poor_by is None or evidence.outcomes >= FEWEST_OUTCOMES


def test_nothing_is_said_of_few_outcomes():
    """Nineteen that are all wrong say nothing yet; the twentieth does."""
    wrong = [outcome(place, right=0.0, stated=0.9, brier=0.81, rose=0.5) for place in range(FEWEST_OUTCOMES)]

    assert found_at(wrong[:-1]) is None
    assert found_at(wrong) == (FEWEST_OUTCOMES, Measure.BRIER)


def test_a_model_that_is_shown_to_be_right_again_has_recovered():
    """What it was found poor by has to be shown to be good, at the same rate; then the watch begins anew."""
    evidence = QualityEvidence()
    for place in range(40):
        evidence = evidence.after(outcome(place, right=0.2, stated=0.55, brier=0.25, rose=0.5))
    poor = evidence
    for place in range(40, 140):
        evidence = evidence.after(outcome(place, right=0.7, stated=0.6, brier=0.22, rose=0.5))

    assert poor.poor_by is Measure.HIT_RATE
    assert poor.evidence >= LIMIT
    assert evidence.poor_by is None
    assert evidence.evidence < LIMIT
    assert evidence.counted == 140


@given(matured)
def test_a_matured_candle_comes_back_from_the_journal(one):
    """What is written of it is all of it, to the last bit."""
    assert matured_of(matured_detail(one)) == one


def test_the_supervisor_tells_of_poor_opinions_once():
    """A model that is wrong of every candle is found poor by one event; status and status line say so."""
    told: list[tuple[str, dict[str, str]]] = []
    supervisor = ModelSupervisor(
        BiasRules(), Policy(), timeframe=Timeframe.M5, on_event=lambda kind, detail: told.append((kind, dict(detail)))
    )
    for place in range(60):
        price = 100.0 + place % 2
        signal = make_signal(direction=Direction.LONG if place % 2 else Direction.SHORT, probability=0.9)
        scored = (Candidate(signal=signal, atr=1.0, close=price, threshold=0.6),)
        supervisor.watch(scored, close_ms=T0 + place * STEP, horizon=1)
    found = [detail for kind, detail in told if kind == "model.quality_found_poor"]
    status = quality_status(supervisor)

    assert [one["measure"] for one in found] == ["brier"]
    assert found[0] | {"right": "0.0000", "brier": "0.8100", "limit": "100", "model_version": "1"} == found[0]
    assert (status.poor_by, status.limit, status.outcomes) == ("brier", 100, FEWEST_OUTCOMES)
    assert "POOR by Brier score (20 independent outcomes" in quality_told(msgspec.to_builtins(status))


def promised_at(promise: float, truth: float, seed: int, outcomes: int) -> QualityEvidence:
    """Return what is known of a model that says what it is worth, and promised something else."""
    rng = np.random.default_rng([3, seed])
    evidence = QualityEvidence().held_to(promise)
    for place in range(outcomes):
        right = float((rng.random(8) < truth).mean())
        brier = right * (1 - truth) ** 2 + (1 - right) * truth**2
        evidence = evidence.after(outcome(place, right=right, stated=truth, brier=brier, rose=0.5))
        if evidence.poor_by is not None:
            break
    return evidence


def test_who_breaks_a_promise_is_found_though_better_than_a_coin():
    """A model that promised 66 % and is right in 51 %, and says so, is left for its promise: 18 of 20."""
    found = [promised_at(0.66, 0.51, seed, 400).poor_by for seed in range(20)]
    without = [promised_at(0.5, 0.51, seed, 400).poor_by for seed in range(20)]

    assert found.count(Measure.PROMISED) >= 18
    assert without.count(None) >= 19


def test_who_keeps_half_of_a_promise_is_hardly_ever_called_poor():
    """A model that is right just halfway between a coin and its promise is within the stated rate."""
    found = sum(promised_at(0.58, 0.54, seed, OUTCOMES).poor_by is not None for seed in range(MARKETS))

    assert found <= binom.ppf(0.95, MARKETS, FALSE_ALARM_RATE)


@given(st.lists(matured, max_size=60), st.floats(0.5001, 0.9999))
def test_a_promise_that_comes_late_makes_nothing_of_what_was_owned(candles, promise):
    """The moment a promise is known the evidence is what it was, and it is held to once."""
    evidence = QualityEvidence()
    for place, one in enumerate(candles):
        evidence = evidence.after(replace(one, said_ms=place, due_ms=place + 1))
    held = evidence.held_to(promise)

    assert held.evidence == pytest.approx(evidence.evidence)
    assert held.held_to(0.9) is held
    assert held.halfway == (0.5 + promise) / 2


@pytest.mark.parametrize("promise", [None, 0.5, 0.2, 1.0, float("nan")])
def test_nobody_is_held_to_a_promise_that_is_none(promise):
    """Without a promise, or with one no better than a coin, the two other measures are all there is, as before."""
    evidence = QualityEvidence().held_to(promise)
    for place in range(30):
        evidence = evidence.after(outcome(place, right=0.4, stated=0.55, brier=0.26, rose=0.5))

    assert evidence.evidence == (evidence.hit_bets.evidence + evidence.brier_bets.evidence) / 2
    assert evidence.promise_bets == Bets()


@given(st.lists(st.booleans(), min_size=12, max_size=12))
def test_promise_bets_win_nothing_on_average_of_who_is_right_halfway(first):
    """After any beginning, the next outcome of a model right exactly halfway changes nothing owned on average."""
    evidence = QualityEvidence().held_to(0.6)
    for place, right in enumerate(first):
        evidence = evidence.after(outcome(place, right=float(right), stated=0.55, brier=0.25, rose=0.5))
    after = {
        right: evidence.after(outcome(99, right=right, stated=0.55, brier=0.25, rose=0.5)).promise_bets.evidence
        for right in (0.0, 1.0)
    }

    assert evidence.poor_by is not None or 0.55 * after[1.0] + 0.45 * after[0.0] == pytest.approx(
        evidence.promise_bets.evidence
    )


def test_who_broke_a_promise_recovers_by_keeping_it():
    """To be right as often as a coin is not enough then; to be right as promised is, and the promise stays."""
    poor = promised_at(0.66, 0.45, 1, 400)
    coin_like, kept = poor, poor
    for place in range(1000, 1400):
        coin_like = coin_like.after(outcome(place, right=0.52, stated=0.55, brier=0.25, rose=0.5))
        kept = kept.after(outcome(place, right=0.8, stated=0.55, brier=0.2, rose=0.5))

    assert poor.poor_by is Measure.PROMISED
    assert kept.poor_by is None
    assert kept.promised == 0.66
    assert coin_like.poor_by is Measure.PROMISED
