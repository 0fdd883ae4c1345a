"""What choosing among many does to a result, whatever the result."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from flows.registered import RunSummary
from flows.training.selection import (
    ReturnMoments,
    Trials,
    benjamini_hochberg,
    deflated_sharpe,
    expected_maximum_sharpe,
    holm,
    probabilistic_sharpe,
    probability_of_overfitting,
    selection_metrics,
)
from flows.trials import (
    LOOK_TAG,
    SETS_TAG,
    STUDY_TAG,
    TUNED_FROM,
    TUNING_TRIALS,
    locked_tags,
    study_tags,
    trials_on,
)
from inference.models.manifest import TimeWindow

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=20)
COUNTS = st.integers(1, 5000)


@st.composite
def moments(draw: st.DrawFn) -> ReturnMoments:
    """Return moments that one sample can have: kurtosis is at least one more than the square of skewness."""
    skewness = draw(st.floats(-3, 3))
    return ReturnMoments(
        sharpe=draw(st.floats(-2, 2)),
        periods=float(draw(st.integers(3, 2000))),
        skewness=skewness,
        kurtosis=skewness**2 + 1 + draw(st.floats(0, 10)),
    )


@given(moments(), COUNTS, st.lists(st.floats(-1, 1), max_size=12))
def test_deflation_never_flatters(found, count, sharpes):
    """A deflated Sharpe ratio is a probability, and never above the plain one."""
    plain = probabilistic_sharpe(found)
    deflated = deflated_sharpe(found, Trials(count=count, sharpes=tuple(sharpes)))

    assert 0 <= deflated <= plain <= 1


@given(moments(), COUNTS, COUNTS)
def test_more_trials_deflate_more(found, one, other):
    """The more was tried, the less the same result is worth."""
    fewer, more = sorted((one, other))

    assert deflated_sharpe(found, Trials(count=more)) <= deflated_sharpe(found, Trials(count=fewer)) + 1e-12


@given(found=moments(), count=COUNTS, known=st.lists(st.floats(-0.3, 0.3), max_size=12))
def test_known_trials_never_excuse_unknown_ones(found, count, known):
    """Near-equal retrainings do not make many trials count for less than chance makes of them."""
    alone = deflated_sharpe(found, Trials(count=count))

    assert deflated_sharpe(found, Trials(count=count, sharpes=tuple(known))) <= alone + 1e-12


@given(COUNTS, COUNTS, st.floats(0, 2))
def test_the_expected_maximum_grows_with_trials(one, other, spread):
    """It is nought for a single trial and never falls."""
    fewer, more = sorted((one, other))

    assert expected_maximum_sharpe(1, spread) == 0
    assert expected_maximum_sharpe(fewer, spread) <= expected_maximum_sharpe(more, spread) + 1e-12


@pytest.mark.parametrize("count", [5, 50, 500])
def test_the_expected_maximum_is_that_of_normal_draws(count):
    """The formula agrees with the mean maximum of so many draws, to five hundredths."""
    draws = np.random.default_rng(3).standard_normal((4000, count)).max(axis=1)

    assert expected_maximum_sharpe(count, 1.0) == pytest.approx(draws.mean(), abs=0.05)


def test_the_probability_of_a_normal_sample_is_the_known_one():
    """Without skew or fat tails it is the normal probability of SR √(T - 1) / √(1 + SR²/2)."""
    found = ReturnMoments(sharpe=0.2, periods=101)

    assert probabilistic_sharpe(found) == pytest.approx(NormalDist().cdf(0.2 * 10 / math.sqrt(1 + 0.2**2 / 2)))


@settings(max_examples=50, deadline=None)
@given(arrays(np.float64, st.tuples(st.integers(16, 60), st.integers(2, 6)), elements=st.floats(-0.05, 0.05)))
def test_overfitting_is_a_probability(returns):
    """Whatever the returns, also where rules never trade or are one and the same."""
    assert 0 <= probability_of_overfitting(returns) <= 1


def test_overfitting_tells_luck_from_skill():
    """Among rules without skill the best one is as often below the median later as above; a skilled one is not."""
    rng = np.random.default_rng(5)
    lucky = [probability_of_overfitting(rng.standard_normal((64, 20))) for _ in range(30)]
    skilled = rng.standard_normal((64, 20))
    skilled[:, 3] += 1.5

    assert np.mean(lucky) == pytest.approx(0.5, abs=0.12)
    assert probability_of_overfitting(skilled) == 0
    assert math.isnan(probability_of_overfitting(skilled[:, :1]))
    assert math.isnan(probability_of_overfitting(skilled[:10]))


@given(P_VALUES)
def test_adjusted_p_values_are_larger_and_keep_their_order(values):
    """Holm is at least as strict as Benjamini-Hochberg, both at least as strict as no correction."""
    strict, loose = holm(values), benjamini_hochberg(values)

    assert all(
        value <= b + 1e-12 and b <= a + 1e-12 <= 1 + 1e-9 for value, b, a in zip(values, loose, strict, strict=True)
    )
    for adjusted in (strict, loose):
        pairs = sorted(zip(values, adjusted, strict=True))
        assert [one for _, one in pairs] == sorted(one for _, one in pairs)


def test_adjusted_p_values_of_a_known_case():
    """Three tests by hand."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx((0.03, 0.06, 0.06))
    assert benjamini_hochberg([0.01, 0.04, 0.03]) == pytest.approx((0.03, 0.04, 0.04))
    assert holm([]) == ()


@given(moments(), COUNTS)
def test_what_is_logged_is_finite(found, count):
    """MLflow and JSON take no NaN: figures that cannot be computed are left out."""
    figures = selection_metrics(found, Trials(count=count, p_values=(0.5, math.nan)))

    assert all(map(math.isfinite, figures.values()))
    assert figures["net_p_value_holm"] >= figures["net_p_value"]


WINDOW = TimeWindow(start_ms=1_000, end_ms=2_000)


def _run(name: str, start_ms: int | None, end_ms: int = 0, *, looked: bool = True, **tags: str) -> RunSummary:
    window = {} if start_ms is None else locked_tags(TimeWindow(start_ms=start_ms, end_ms=end_ms))
    looks = {"shadow/days": 3.0, "shadow/ensemble/sharpe_per_period": 0.1} if looked else {}
    return RunSummary(name, window | tags, looks)


@pytest.mark.parametrize(
    ("runs", "count"),
    [
        pytest.param([], 1, id="nothing-else"),
        pytest.param([_run("ours", 1_000, 2_000)], 1, id="itself"),
        pytest.param([_run("a", 1_500, 2_500), _run("b", 500, 1_001)], 3, id="overlapping"),
        pytest.param([_run("a", 2_000, 3_000), _run("b", 0, 1_000)], 1, id="before-and-after"),
        pytest.param([_run("a", 1_000, 2_000, looked=False)], 1, id="never-scored"),
        pytest.param([_run("a", None)], 2, id="window-unknown"),
        pytest.param([_run("a", 1_000, 2_000, **{TUNING_TRIALS: "40"})], 42, id="tuned"),
        pytest.param([_run("ours", 1_000, 2_000, **{TUNING_TRIALS: "40"})], 41, id="itself-tuned"),
        pytest.param([_run("ours", 1_000, 2_000, **{TUNING_TRIALS: "many"})], 1, id="no-number"),
        pytest.param([_run("ours", 1_000, 2_000, **{f"{LOOK_TAG}a": "1"})], 1, id="looked-at-once"),
        pytest.param([_run("ours", 1_000, 2_000, **{f"{LOOK_TAG}{n}": "1" for n in "abc"})], 3, id="looked-at-thrice"),
        pytest.param([_run("a", 1_500, 2_500, **{f"{LOOK_TAG}{n}": "1" for n in "ab"})], 3, id="another-twice"),
        pytest.param([_run("a", 2_000, 3_000, **{f"{LOOK_TAG}{n}": "1" for n in "ab"})], 1, id="twice-elsewhere"),
        pytest.param([_run("a", 1_000, 2_000, looked=False, **{f"{LOOK_TAG}a": "1"})], 2, id="backtested-alone"),
        pytest.param([_run("a", 2_000, 3_000, looked=False, **{f"{LOOK_TAG}a": "1"})], 1, id="backtested-elsewhere"),
        pytest.param([_run("ours", 1_000, 2_000, **{f"{SETS_TAG}a": "40"})], 41, id="rules-swept"),
        pytest.param([_run("a", 1_000, 2_000, **{f"{SETS_TAG}{n}": "40" for n in "ab"})], 82, id="swept-twice"),
        pytest.param([_run("a", 2_000, 3_000, **{f"{SETS_TAG}a": "40"})], 1, id="swept-elsewhere"),
        pytest.param([_run("ours", 1_000, 2_000, **{f"{SETS_TAG}a": "-7", f"{SETS_TAG}b": "x"})], 1, id="no-sets"),
    ],
)
def test_trials_are_counted_on_the_same_candles(runs, count):
    """What counts is what was scored on any of the locked candles, with the tunings behind it."""
    assert trials_on(WINDOW, runs, ours="ours").count == count


def _study(run_id: str, name: str, trials: int, start_ms: int, end_ms: int) -> RunSummary:
    looked_at = TimeWindow(start_ms=start_ms, end_ms=end_ms)
    tags = study_tags(name, venue="sandbox", timeframe="5m", trials=trials, looked_at=looked_at)
    return RunSummary(run_id, tags, {"tuning/trials": float(trials)})


def _took(run_id: str, study: str, trials: int) -> RunSummary:
    return _run(run_id, 1_000, 2_000, **{STUDY_TAG: study, TUNING_TRIALS: str(trials)})


@pytest.mark.parametrize(
    ("runs", "count"),
    [
        pytest.param([_study("s", "a", 40, 200, 800)], 41, id="not-taken"),
        pytest.param([_study(f"s{n}", f"a{n}", 40, 200, 800) for n in range(10)], 401, id="best-of-ten"),
        pytest.param([_took("ours", "a", 40), _study("s", "a", 40, 200, 800)], 41, id="told-twice"),
        pytest.param([_took("ours", "a", 40), _took("b", "a", 40)], 42, id="taken-twice"),
        pytest.param([_took("ours", "a", 40), _study("s", "a", 60, 200, 800)], 61, id="went-on"),
        pytest.param([_took("ours", "a", 40), _study("s", "b", 7, 200, 800)], 48, id="another-beside"),
        pytest.param([_took("ours", "a", 40), _study("s", "a", 30, 0, 50)], 41, id="taken-from-before"),
        pytest.param([_study("s", "a", 5, 200, 800), _study("t", "a", 7, 200, 800)], 13, id="same-name-elsewhere"),
        pytest.param([_study("s", "a", 40, 0, 100)], 1, id="before-its-candles"),
        pytest.param([_study("s", "a", 40, 2_000, 3_000)], 1, id="after-its-candles"),
        pytest.param([_run("s", None, looked=False, **{STUDY_TAG: "a", TUNED_FROM: "x", TUNING_TRIALS: "9"})], 10,
                     id="window-damaged"),
    ],
)  # fmt: skip
def test_all_tunings_on_the_candles_count_once(runs, count):
    """The best of ten studies is the best of all their trials; one that several tell of is one."""
    assert trials_on(WINDOW, runs, ours="ours", since_ms=100).count == count
    assert trials_on(WINDOW, reversed(runs), ours="ours", since_ms=100).count == count


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 50), st.booleans()), max_size=6))
def test_more_tunings_never_count_less(told):
    """Each run that is added leaves the count as it was or raises it, and never above one trial for each told."""
    runs, before = [], 1
    for number, (name, trials, own_run) in enumerate(told):
        runs.append(_study(f"s{number}", name, trials, 200, 800) if own_run else _took(f"c{number}", name, trials))
        count = trials_on(WINDOW, runs, ours="ours").count
        assert count >= before
        before = count
    assert before <= 1 + sum(trials + (0 if own_run else 1) for _, trials, own_run in told)
