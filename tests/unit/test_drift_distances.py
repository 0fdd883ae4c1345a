"""Distances between stretches agree with their textbooks, and the calibrated limit speaks as rarely as it says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp, wasserstein_distance

from feature_store.stability import Sketch, bucket_middle, stability_index
from flows.drifting.calibration import FEWEST_STRETCHES, calibrated, gumbel_prediction
from flows.drifting.distances import POWERS, STATISTICS, column_distances, middles


def _stretches(
    rng: np.random.Generator, count: int, rows: int, shift: float = 0.0
) -> tuple[list[np.ndarray], np.ndarray]:
    return [rng.normal(0, 1, rows) for _ in range(count)], rng.normal(shift, 1, rows)


def _measured(before: list[np.ndarray], now: np.ndarray) -> dict[str, float]:
    found = column_distances([Sketch.of(one) for one in before], Sketch.of(now))
    return dict(zip(STATISTICS, found.now.tolist(), strict=True))


def test_distances_agree_with_other_programs():
    """PSI is the store's, KS and Wasserstein are SciPy's on the same samples, up to the width of a bucket."""
    before, now = _stretches(np.random.default_rng(1), 12, 600, shift=0.5)
    whole = np.concatenate(before)

    found = _measured(before, now)

    assert found["psi"] == pytest.approx(stability_index(Sketch.of(whole), Sketch.of(now)), rel=1e-9)
    assert found["ks"] == pytest.approx(ks_2samp(whole, now).statistic, abs=0.01)
    assert found["wasserstein"] == pytest.approx(wasserstein_distance(whole, now) / whole.std(), rel=0.03)
    assert 0 < found["kl"] < found["psi"]
    assert 0 < found["jensen_shannon"] < 1


def test_each_stretch_is_held_against_the_others():
    """How far a reference stretch lies is measured without itself, as the newest is."""
    before, now = _stretches(np.random.default_rng(2), 11, 300)
    sketches = [Sketch.of(one) for one in before]

    every = column_distances(sketches, Sketch.of(now))
    alone = column_distances(sketches[1:], sketches[0])

    assert every.before.shape == (11, len(STATISTICS))
    # Cuts of equal shares move a little with the one that is left out; KS and Wasserstein have none.
    assert every.before[0, 3] == pytest.approx(alone.now[3], abs=1e-9)
    assert every.before[0, 4] == pytest.approx(alone.now[4], rel=0.02)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.floats(0, 1))
def test_distances_of_anything_are_numbers(seed, count, missing):
    """Ticks, gaps, constants and tails: every distance is finite and none is negative."""
    rng = np.random.default_rng(seed)
    samples = [np.round(rng.standard_t(2, 40) * rng.choice([0.0, 1.0, 1e6]), 1) for _ in range(count + 1)]
    for one in samples:
        one[rng.random(40) < missing] = rng.choice([np.nan, np.inf])

    found = column_distances([Sketch.of(one) for one in samples[:-1]], Sketch.of(samples[-1]))

    for values in (found.before, found.now):
        assert np.isfinite(values).all()
        assert (values >= 0).all()


def test_the_same_again_is_no_distance():
    """A stretch with the very values of the reference lies at 0, up to half a row that stands for an empty bin."""
    values = np.random.default_rng(3).normal(0, 1, 500)

    found = _measured([values, values], values)

    assert (found["ks"], found["wasserstein"]) == (0.0, 0.0)
    assert max(found.values()) < 0.01


def test_nothing_finite_is_far_off():
    """A column that is missing altogether is told by its missing bin, whatever its values were."""
    before, _ = _stretches(np.random.default_rng(4), 10, 200)
    found = _measured(before, np.full(200, np.nan))

    assert found["psi"] > 5
    assert (found["ks"], found["wasserstein"]) == (1.0, 0.0)


@given(st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=50))
def test_middles_are_those_of_the_store(values):
    """The middles of many buckets are the middle of each."""
    buckets = Sketch.of(np.array(values)).buckets

    assert middles(buckets).tolist() == [bucket_middle(int(one)) for one in buckets]


def test_the_prediction_limit_holds_what_it_says():
    """One further Gumbel value exceeds the limit as often as stated, for few and for many before it."""
    rng = np.random.default_rng(5)
    for count in (12, 30):
        values = 3 + 2 * rng.gumbel(size=(40_000, count + 1))
        known = values[:, :-1]
        limit = known.mean(axis=1) + gumbel_prediction(count, 0.02) * known.std(axis=1, ddof=1)
        assert (values[:, -1] > limit).mean() == pytest.approx(0.02, abs=0.003)


def test_a_shift_is_found_and_named():
    """Of twenty columns the shifted one exceeds its own limit, and every other stays below."""
    rng = np.random.default_rng(6)
    columns = [_stretches(rng, 20, 200, shift=1.0 if number == 7 else 0.0) for number in range(20)]
    found = [column_distances([Sketch.of(one) for one in before], Sketch.of(now)) for before, now in columns]
    before, now = np.stack([one.before for one in found], 1), np.stack([one.now for one in found])

    result = calibrated(before, now, POWERS, rate=0.005)
    beyond = (now > result.limits).any(axis=1)

    assert result.found
    assert np.flatnonzero(beyond).tolist() == [7]


def test_few_stretches_state_no_limit():
    """With less than it takes to say how far stretches lie apart, no limit is made up."""
    with pytest.raises(ValueError, match=str(FEWEST_STRETCHES)):
        calibrated(np.ones((FEWEST_STRETCHES - 1, 2, 5)), np.ones((2, 5)), POWERS, rate=0.01)
