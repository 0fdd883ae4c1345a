"""Figures and their intervals, against independent implementations and known truths."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import brier_score_loss, mean_absolute_error, r2_score, root_mean_squared_error

from flows.training.dataset import Rows
from flows.training.evaluate import (
    CalibrationCurve,
    calibration_metrics,
    independent_outcomes,
    prediction_metrics,
    prefixed,
)
from flows.training.moments import BlockSums, Sampling, ratio
from tests.training_support import FIVE_MINUTES_MS

HORIZON_MS = 12 * FIVE_MINUTES_MS
SAMPLING = Sampling(block_ms=2 * HORIZON_MS, samples=400, seed=3)


def _market(seed: int, *, times: int = 600, series: int = 3, signal: float = 0.3) -> tuple[Rows, np.ndarray]:
    rng = np.random.default_rng(seed)
    known = rng.standard_normal((times, series))
    label = 0.004 * (signal * known + np.sqrt(1 - signal**2) * rng.standard_normal((times, series)))
    clock = np.repeat(FIVE_MINUTES_MS * np.arange(times), series)
    rows = Rows(np.arange(times * series), np.tile(np.arange(series), times), clock, label.ravel())
    return rows, 0.001 * known.ravel()


def test_figures_agree_with_scikit_learn_and_scipy():
    """RMSE, MAE, R², correlations, directional accuracy and Brier score are what everybody calls by these names."""
    rows, predicted = _market(1)
    found = prediction_metrics(rows, predicted, SAMPLING)
    probability = 1 / (1 + np.exp(-predicted * 500))

    assert found["rmse"] == pytest.approx(root_mean_squared_error(rows.label, predicted))
    assert found["mae"] == pytest.approx(mean_absolute_error(rows.label, predicted))
    assert found["r2"] == pytest.approx(r2_score(rows.label, predicted))
    assert found["ic"] == pytest.approx(np.corrcoef(rows.label, predicted)[0, 1])
    assert found["rank_ic"] == pytest.approx(spearmanr(rows.label, predicted).statistic)
    assert found["hit_rate"] == pytest.approx((np.sign(rows.label) == np.sign(predicted)).mean())
    brier = calibration_metrics(rows, probability, SAMPLING)["brier"]
    assert brier == pytest.approx(brier_score_loss(rows.label > 0, probability))


def test_expecting_nothing_has_no_skill_and_no_correlation():
    """The zero baseline scores a skill of exactly zero; what it cannot have is absent, not zero."""
    rows, predicted = _market(2)
    found = prefixed("zero", prediction_metrics(rows, np.zeros_like(predicted), SAMPLING))

    assert found["zero/rmse_skill"] == 0
    assert "zero/ic" not in found
    assert "zero/hit_rate" not in found


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    """Of 100 intervals at 95 %, between 88 and 100 hold the true correlation."""
    held = 0
    for seed in range(100):
        rows, predicted = _market(seed, times=480, signal=0.2)
        found = prediction_metrics(rows, predicted, SAMPLING)
        held += found["ic_low"] <= 0.2 <= found["ic_high"]

    assert 88 <= held <= 100


def test_overlapping_outcomes_widen_the_interval():
    """Twelve copies of each outcome in a row are worth one: the interval must not shrink by the root of twelve."""
    rng = np.random.default_rng(5)
    few = rng.standard_normal(100)
    times = FIVE_MINUTES_MS * np.arange(1200)
    sums = BlockSums.of(times, SAMPLING.block_ms, {"n": np.ones(1200), "x": np.repeat(few, 12)})
    found = sums.interval(lambda s: ratio(s["x"], s["n"]), SAMPLING)
    honest = 1.96 * few.std() / np.sqrt(100)

    assert (found.high - found.low) / 2 == pytest.approx(honest, rel=0.3)


def test_series_that_move_as_one_count_as_one():
    """Twenty copies of a series are worth as many outcomes as the series alone; twenty strangers, twenty times that."""
    rng = np.random.default_rng(6)
    times, n = 100, 20
    clock = np.repeat(HORIZON_MS * np.arange(times), n)
    series = np.tile(np.arange(n), times)
    alike = np.repeat(rng.standard_normal(times), n)
    strangers = rng.standard_normal(times * n)

    def outcomes(label: np.ndarray) -> float:
        return independent_outcomes(Rows(np.arange(len(label)), series, clock, label), horizon_ms=HORIZON_MS)

    assert outcomes(alike) == pytest.approx(100, rel=0.01)
    assert outcomes(strangers) == pytest.approx(2000, rel=0.15)


def test_calibration_error_is_the_distance_of_stated_from_observed():
    """Saying 0.7 where 0.6 happens is an error of 0.1."""
    rose = np.tile(np.repeat([True, False], [6, 4]), 100)
    curve = CalibrationCurve(np.full(1000, 0.7), rose)

    assert curve.error == pytest.approx(0.1)
