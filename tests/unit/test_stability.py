"""The population stability index tells whether a distribution moved."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from feature_store.stability import (
    DRIFTED,
    GRID_ERROR,
    MOVED,
    Sketch,
    bucket_middle,
    equal_width_index,
    stability,
    stability_index,
)

anything = arrays(np.float64, st.integers(0, 200), elements=st.floats(allow_nan=True, allow_infinity=True))
samples = arrays(np.float64, st.integers(1, 200), elements=st.floats(-1e6, 1e6) | st.just(math.nan))


def _normal(mean: float, spread: float = 1.0, n: int = 20_000) -> np.ndarray:
    return np.random.default_rng(3).normal(mean, spread, n)


def _index(before: np.ndarray, now: np.ndarray) -> float:
    return stability_index(Sketch.of(before), Sketch.of(now))


def test_same_sample_is_stable():
    """A sample compared with itself has not moved at all."""
    assert _index(_normal(0), _normal(0)) == 0
    assert equal_width_index(_normal(0), _normal(0)) == 0


@pytest.mark.parametrize("shift", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("index", [_index, equal_width_index])
def test_index_of_shifted_normals(index, shift):
    """For two normals a shift apart the index comes near its closed form, the squared shift, from below."""
    found = index(_normal(0), _normal(0) + shift)

    assert 0.6 * shift**2 < found <= 1.02 * shift**2


def test_a_wider_market_drifts():
    """Twice the spread is drift although the middle stayed where it was."""
    assert _index(_normal(0), _normal(0, 2.0)) > DRIFTED


def test_values_that_vanish_are_drift():
    """An input that is suddenly missing is seen: missing values are a bin of their own."""
    now = _normal(0).copy()
    now[: len(now) // 3] = np.nan

    assert _index(_normal(0), now) > DRIFTED


def test_one_far_value_hides_drift_from_equal_widths_only():
    """Bins of equal shares see a shift that a single far value hides from bins of equal width."""
    before, now = np.append(_normal(0), 1e6), _normal(0.5)

    assert _index(before, now) > MOVED
    assert equal_width_index(before, now) < MOVED


def test_nothing_to_compare_has_no_index():
    """Without rows there is no number, rather than a reassuring one."""
    assert math.isnan(_index(_normal(0), np.empty(0)))
    assert math.isnan(equal_width_index(_normal(0), np.full(3, math.nan)))


@given(samples, samples)
def test_index_is_finite_and_never_negative(before, now):
    """Whatever the samples hold, the index is a finite number, zero or more."""
    found = _index(before, now)

    assert math.isfinite(found)
    assert found >= -1e-12


@given(samples, samples)
def test_equal_width_index_is_a_number_wherever_both_hold_values(before, now):
    """Whatever the samples hold, the index over equal widths is a number, zero or more, or says that it has none."""
    found = equal_width_index(before, now)

    if np.isfinite(before).any() and np.isfinite(now).any():
        assert math.isfinite(found)
        assert found >= -1e-12
    else:
        assert math.isnan(found)


@given(anything, anything)
def test_sketches_add_up(first, second):
    """The sketch of two samples is the sum of theirs, whatever they hold."""
    together, whole = Sketch.merged([Sketch.of(first), Sketch.of(second)]), Sketch.of(np.concatenate([first, second]))

    assert np.array_equal(together.buckets, whole.buckets)
    assert np.array_equal(together.counts, whole.counts)
    assert together.missing == whole.missing
    assert whole.rows == len(first) + len(second)


@given(arrays(np.float64, st.integers(1, 200), elements=st.floats(allow_nan=False, allow_infinity=False)))
def test_buckets_keep_the_order_and_hold_their_values(values):
    """A greater value is never in a lesser bucket, and no value is farther from its bucket's middle than is said."""
    found = np.concatenate([np.repeat(Sketch.of(np.array([one])).buckets, 1) for one in values.tolist()])
    order = np.argsort(values, kind="stable")

    assert (np.diff(found[order]) >= 0).all()
    for value, bucket in zip(values.tolist(), found.tolist(), strict=True):
        # Below the least normal number there is one bucket, that of zero.
        assert abs(bucket_middle(bucket) - value) <= GRID_ERROR * abs(value) * (1 + 1e-12) + 2.3e-308


@given(
    arrays(np.float64, st.integers(1, 300), elements=st.floats(-1e6, 1e6)),
    arrays(np.float64, st.integers(1, 300), elements=st.floats(-1e6, 1e6)),
)
def test_bins_are_counted_as_numpy_counts_them(before, now):
    """The bins begin at values, and as many of both samples lie in each as a count of the values themselves finds."""
    old, new = Sketch.of(before), Sketch.of(now)
    cuts = old.cuts()
    # A bucket's place says where its values lie, so a value is put into a bin by its own bucket.
    for values, sketch in ((before, old), (now, new)):
        buckets = np.concatenate([Sketch.of(np.array([one])).buckets for one in values.tolist()])
        expected = np.bincount(np.searchsorted(cuts, buckets, side="right"), minlength=len(cuts) + 1)

        assert np.array_equal(sketch.binned(cuts)[:-1], expected)
    assert (old.binned(cuts)[:-1] > 0).all()


def test_bins_hold_nearly_equal_shares():
    """On a smooth sample the ten bins hold a tenth each, as near as the grid allows."""
    sketch = Sketch.of(_normal(5.0))
    shares = sketch.binned(sketch.cuts())[:-1] / sketch.rows

    assert len(shares) == 10
    assert np.abs(shares - 0.1).max() < 0.02


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.99, 1.0])
def test_quantiles_are_near(share):
    """A sketch's quantile is within the stated error of the value at that rank."""
    values = np.random.default_rng(1).lognormal(0, 3, 10_001)
    exact = np.quantile(values, share, method="lower")

    assert abs(Sketch.of(values).quantile(share) - exact) <= GRID_ERROR * exact


def test_least_stable_comes_first():
    """Inputs are listed by how far they moved, each with its reading."""
    before = [Sketch.of(_normal(0))] * 3
    now = [Sketch.of(_normal(0)), Sketch.of(_normal(1.0)), Sketch.of(_normal(0.4))]

    found = stability(("still", "far", "near"), before, now)

    assert [(one.name, one.verdict) for one in found] == [("far", "drifted"), ("near", "moved"), ("still", "stable")]
    assert found[1].index > MOVED
    assert found[0].median_now == pytest.approx(1.0, abs=0.05)
