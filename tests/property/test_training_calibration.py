"""Weights, scales and calibration curves, whatever the members say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.training.calibrate import fit_calibration, probabilities, shrinking_scale, skill_weights
from flows.training.dataset import Rows

NAMES = ("xgboost", "lightgbm", "nhits", "patchtst")


@given(
    skill=st.lists(st.floats(-1, 1) | st.just(float("nan")), min_size=4, max_size=4),
    shrinkage=st.floats(0, 1),
    cap=st.floats(0.25, 1),
)
def test_weights_sum_to_one_and_stay_under_the_cap(skill, shrinkage, cap):
    """Whatever the skills, no member gets more than the cap and none less than nothing."""
    weights = skill_weights(dict(zip(NAMES, skill, strict=True)), shrinkage=shrinkage, cap=cap)

    assert sum(weights.values()) == pytest.approx(1, abs=1e-9)
    assert all(-1e-12 <= one <= cap + 1e-9 for one in weights.values())


def test_members_without_skill_vote_equally():
    """Where nobody knows anything nobody has more to say."""
    assert skill_weights(dict.fromkeys(NAMES, -0.1), shrinkage=0.5, cap=0.4) == dict.fromkeys(NAMES, 0.25)


@given(seed=st.integers(0, 1000), strength=st.floats(-2, 4), method=st.sampled_from(["logistic", "isotonic"]))
def test_calibrated_probabilities_never_fall_and_mirror(seed, strength, method):
    """More expected return is never less probable, and minus the return has minus the odds."""
    rng = np.random.default_rng(seed)
    expected = 0.002 * rng.standard_normal(600)
    label = strength * expected + 0.004 * rng.standard_normal(600)
    table = fit_calibration(expected, label, method)
    grid = np.linspace(-0.02, 0.02, 201)
    found = probabilities(table, grid)

    assert (np.diff(found) >= 0).all()
    assert ((found > 0) & (found < 1)).all()
    np.testing.assert_allclose(found + found[::-1], 1, atol=0.03 if method == "isotonic" else 1e-9)


def test_a_member_that_shouts_is_turned_down():
    """Predictions four times too large get a scale of a quarter; predictions of pure noise are next to silenced."""
    rng = np.random.default_rng(1)
    truth = rng.standard_normal(20_000)
    label = truth + 3 * rng.standard_normal(20_000)

    rows = Rows(np.arange(20_000), np.zeros(20_000, np.int64), np.arange(20_000), label)

    assert shrinking_scale(4 * truth, rows, 0.75) == pytest.approx(0.25, abs=0.03)
    assert shrinking_scale(rng.standard_normal(20_000), rows, 0.75) == pytest.approx(0.05, abs=0.03)
