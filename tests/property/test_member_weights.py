"""Weights of members, whatever they predict: a share each, and nobody's share depends on where it stands in a list."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.training.bagging import drawn_days
from flows.training.combine import Scored, combine
from flows.training.dataset import Rows
from flows.training.weighting import stacking_weights, time_folds
from inference.models.ensemble import Ensemble
from tests.training_support import FIVE_MINUTES_MS, small_config

NAMES = ("xgboost", "lightgbm", "nhits", "patchtst", "forest", "mlp")
HOUR_MS = 12 * FIVE_MINUTES_MS


def _market(seed: int, members: int, skill: float, size: int = 400) -> tuple[dict[str, np.ndarray], Rows]:
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal(size)
    shared = rng.standard_normal(size)
    predictions = {
        name: 1e-3 * (skill * rng.random() * truth + rng.random() * shared + rng.standard_normal(size))
        for name in NAMES[:members]
    }
    label = 2e-3 * (truth + rng.standard_normal(size))
    clock = FIVE_MINUTES_MS * np.repeat(np.arange(size // 2), 2)
    return predictions, Rows(np.arange(size), np.tile([0, 1], size // 2), clock, label)


def _holds(weights: dict[str, float], cap: float) -> bool:
    total = sum(weights.values())
    return abs(total - 1) < 1e-9 and all(-1e-12 <= one <= max(cap, 1 / len(weights)) + 1e-9 for one in weights.values())


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000), members=st.integers(1, 6), skill=st.floats(-2, 3),
    shrinkage=st.floats(0, 1), cap=st.floats(0.1, 1),
)  # fmt: skip
def test_stacked_weights_are_shares_under_the_cap(seed, members, skill, shrinkage, cap):
    """They sum to one, none is negative, and none is above the cap."""
    predictions, rows = _market(seed, members, skill)
    folds = time_folds(rows.open_time_ms)

    assert _holds(stacking_weights(predictions, rows.label, folds, shrinkage=shrinkage, cap=cap), cap)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    order=st.permutations(NAMES[:4]),
    weighting=st.sampled_from(["skill", "stacking", "equal", "fixed"]),
    mode=st.sampled_from(["voting", "stacking", "bagging"]),
)
def test_a_member_weighs_the_same_wherever_it_stands(seed, order, weighting, mode):
    """Naming the members in another order changes nobody's weight, in any mode."""
    predictions, rows = _market(seed, 4, 1.0)
    config = small_config(weighting=weighting, ensemble_mode=mode)
    scored = [
        Scored({n: predictions[n] for n in names}, {n: predictions[n] for n in names}) for names in (NAMES[:4], order)
    ]
    first, second = (combine(one, rows, rows, config, HOUR_MS) for one in scored)

    assert list(second.weights) == list(order)
    assert second.weights == pytest.approx(dict(first.weights), abs=1e-9)
    assert _holds(dict(first.weights), 1.0 if mode == "stacking" else config.weight_cap)
    np.testing.assert_allclose(second.validation, first.validation, rtol=1e-9, atol=1e-15)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), members=st.integers(2, 6), skill=st.floats(-2, 3), shared=st.floats(-1, 1))
def test_what_members_usually_say_is_believed(seed, members, skill, shared):
    """However members contradict each other, and though later nothing came as they said, no usual answer abstains."""
    predictions, rows = _market(seed, members, skill)
    later = Rows(rows.index, rows.series, rows.open_time_ms, -2 * rows.label)
    alone = {name: values + 1e-3 * shared for name, values in predictions.items()}
    config = small_config()
    combined = combine(Scored(predictions, predictions, alone=(alone, alone)), rows, later, config, HOUR_MS)
    ensemble = Ensemble(
        {},
        weights=combined.weights,
        scale=combined.scale,
        calibration=combined.table,
        max_abs_expected_return=combined.bound,
        shape=(64, 1),
    )

    for said in (predictions, alone):
        assert not ensemble.combined(combined.scaled(said), {}).abstained.any()


def test_stacking_finds_who_knows():
    """Of one that knows, one that repeats it with noise, and two that guess, the first gets most and guesses little."""
    rng = np.random.default_rng(3)
    truth, size = rng.standard_normal(20_000), 20_000
    predictions = {
        "knows": truth,
        "repeats": truth + rng.standard_normal(size),
        "guesses": rng.standard_normal(size),
        "guesses_too": rng.standard_normal(size),
    }
    outcome = truth + 2 * rng.standard_normal(size)
    weights = stacking_weights(predictions, outcome, np.arange(size) * 5 // size, shrinkage=0.0, cap=1.0)

    assert weights["knows"] > 0.85
    assert weights["guesses"] + weights["guesses_too"] < 0.05


def test_nobody_who_knows_is_everybody_alike():
    """Members that say nothing, or the opposite of what comes, are weighed equally."""
    rng = np.random.default_rng(4)
    outcome = rng.standard_normal(1000)
    folds = np.arange(1000) // 200
    silent = {name: np.zeros(1000) for name in NAMES[:4]}
    wrong = {name: -outcome + 0.1 * rng.standard_normal(1000) for name in NAMES[:4]}

    for predictions in (silent, wrong):
        assert stacking_weights(predictions, outcome, folds, shrinkage=0.3, cap=0.4) == dict.fromkeys(NAMES[:4], 0.25)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), number=st.integers(0, 5), days=st.integers(1, 12))
def test_draws_are_of_whole_days(seed, number, days):
    """A draw holds as many days as there were, each whole and of all series, and is the same when drawn again."""
    clock = FIVE_MINUTES_MS * np.repeat(np.arange(288 * days), 2)
    rows = Rows(np.arange(len(clock)), np.tile([0, 1], len(clock) // 2), clock, np.ones(len(clock)))
    drawn, again = (drawn_days(rows, seed=seed, number=number) for _ in range(2))
    day, count = np.unique(drawn.open_time_ms // 86_400_000, return_counts=True)

    assert len(drawn) == len(rows)
    assert (count % 576 == 0).all()
    assert set(day) <= set(range(days))
    np.testing.assert_array_equal(drawn.index, again.index)
