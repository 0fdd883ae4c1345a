"""The population stability index tells whether a distribution moved."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from flows.stability import DRIFTED, MOVED, population_stability_index, stability

samples = arrays(np.float64, st.integers(1, 200), elements=st.floats(-1e6, 1e6) | st.just(math.nan))


def _normal(mean: float, spread: float = 1.0, n: int = 20_000) -> np.ndarray:
    return np.random.default_rng(3).normal(mean, spread, n)


def test_same_sample_is_stable():
    """A sample compared with itself has not moved at all."""
    assert population_stability_index(_normal(0), _normal(0)) == 0


@pytest.mark.parametrize("shift", [0.1, 0.5, 1.0])
def test_index_of_shifted_normals(shift):
    """For two normals a shift apart the index comes near its closed form, the squared shift, from below."""
    found = population_stability_index(_normal(0), _normal(0) + shift)

    assert 0.6 * shift**2 < found <= 1.02 * shift**2


def test_a_wider_market_drifts():
    """Twice the spread is drift although the middle stayed where it was."""
    assert population_stability_index(_normal(0), _normal(0, 2.0)) > DRIFTED


def test_values_that_vanish_are_drift():
    """An input that is suddenly missing is seen: missing values are a bin of their own."""
    now = _normal(0).copy()
    now[: len(now) // 3] = np.nan

    assert population_stability_index(_normal(0), now) > DRIFTED


def test_nothing_to_compare_has_no_index():
    """Without rows there is no number, rather than a reassuring one."""
    assert math.isnan(population_stability_index(_normal(0), np.empty(0)))


@given(samples, samples)
def test_index_is_finite_and_never_negative(before, now):
    """Whatever the samples hold, the index is a finite number, zero or more."""
    found = population_stability_index(before, now)

    assert math.isfinite(found)
    assert found >= -1e-12


def test_least_stable_comes_first():
    """Inputs are listed by how far they moved, each with its reading."""
    before = np.stack([_normal(0), _normal(0), _normal(0)], axis=1)
    now = np.stack([_normal(0), _normal(1.0), _normal(0.4)], axis=1)

    found = stability(("still", "far", "near"), before, now)

    assert [(one.name, one.verdict) for one in found] == [("far", "drifted"), ("near", "moved"), ("still", "stable")]
    assert found[1].index > MOVED
