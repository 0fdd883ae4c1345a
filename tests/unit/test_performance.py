"""What a rule would have done to an account, on cases that can be computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.training.dataset import Rows
from flows.training.evaluate import STATISTICS, calibration_metrics, prediction_metrics, size_curve
from flows.training.moments import Sampling
from flows.training.paired import (
    calibration_difference,
    performance_difference,
    score_difference,
    steadiness_difference,
)
from flows.training.performance import (
    MOST_SORTINO,
    Account,
    DailyIC,
    capacity,
    capacity_interval,
    concentration,
    drawdown,
    moments_of,
    performance_metrics,
    quantile_coverage,
    steadiness,
)
from flows.training.trading import Trades

HOUR_MS = 3_600_000
SAMPLING = Sampling(block_ms=2 * HOUR_MS, samples=200, seed=1)
DAY = Account(start_ms=0, end_ms=24 * HOUR_MS, symbols=2, horizon_ms=HOUR_MS)


def _trades(*found: tuple[int, int, int, float]) -> Trades:
    """Return trades of (symbol, hour of entry, direction, net return)."""
    series, hours, directions, net = (np.array(column) for column in zip(*found, strict=True)) if found else ([],) * 4
    whole = np.asarray(net, np.float64)
    return Trades(
        np.asarray(series, np.int64), np.asarray(hours, np.int64) * HOUR_MS, np.asarray(directions, np.int64),
        whole + 0.0014, whole,
    )  # fmt: skip


def _rows(label: np.ndarray, per_day: int = 48) -> Rows:
    n = len(label)
    times = np.arange(n, dtype=np.int64) * (24 * HOUR_MS // per_day)
    return Rows(np.arange(n), np.zeros(n, np.int64), times, label)


def test_an_account_by_hand():
    """Four trades of two symbols in a day of twelve periods: return, drawdown, turnover, exposure, concentration."""
    trades = _trades((0, 0, 1, 0.02), (0, 3, 1, -0.04), (0, 10, -1, 0.01), (1, 10, 1, 0.03))
    found = performance_metrics(trades, DAY, SAMPLING)

    assert found["periods"] == 12
    assert found["return_on_capital"] == pytest.approx((0.02 - 0.04 + 0.04) / 2)
    assert found["drawdown_of_capital"] == pytest.approx(0.02)
    assert found["turnover_per_day"] == pytest.approx(2 * 4 / 2)
    assert found["exposure"] == pytest.approx(4 / 48)
    assert found["net_exposure"] == pytest.approx(2 / 48)
    assert found["concentration"] == pytest.approx((3 / 4 - 1 / 2) / (1 / 2))


def test_sharpe_ratios_are_annualised_as_stated():
    """Per day it is √12 of two-hour periods, per year √365 more; Sortino divides by the falls alone."""
    trades = _trades((0, 0, 1, 0.02), (0, 4, 1, -0.01), (1, 8, 1, 0.03))
    returns = DAY.returns(trades)
    found = performance_metrics(trades, DAY, SAMPLING)

    per_period = returns.mean() / returns.std()
    assert found["sharpe_per_period"] == pytest.approx(per_period)
    assert found["sharpe_per_day"] == pytest.approx(per_period * math.sqrt(12))
    assert found["sharpe_per_year"] == pytest.approx(found["sharpe_per_day"] * math.sqrt(365))
    falls = math.sqrt((np.minimum(returns, 0) ** 2).mean())
    assert found["sortino_per_day"] == pytest.approx(returns.mean() / falls * math.sqrt(12))
    assert found["sharpe_per_day_low"] <= found["sharpe_per_day"] <= found["sharpe_per_day_high"]


def test_a_rule_that_never_trades_has_no_ratios():
    """Nothing is invented: counts are nought, ratios are left out."""
    found = performance_metrics(_trades(), DAY, SAMPLING)

    assert found["return_on_capital"] == found["drawdown_of_capital"] == found["turnover_per_day"] == 0
    assert all(math.isnan(found[name]) for name in ("sharpe_per_period", "sharpe_per_day", "concentration"))
    assert math.isnan(found["probabilistic_sharpe"])


def test_a_rule_is_no_better_than_itself():
    """Differences are paired: of one and the same thing they are nought, and so are both ends."""
    trades = _trades((0, 0, 1, 0.02), (0, 4, 1, -0.01), (1, 8, 1, 0.03))
    rng = np.random.default_rng(2)
    rows = _rows(rng.standard_normal(400))
    predicted = 0.2 * rows.label + rng.standard_normal(400)

    chance = 1 / (1 + np.exp(-predicted))
    scores = score_difference(rows, predicted, predicted, SAMPLING)
    scores |= calibration_difference(rows, chance, chance, SAMPLING)
    scores |= steadiness_difference(rows, predicted, predicted, SAMPLING)
    assert set(performance_difference(trades, trades, DAY, SAMPLING).values()) == {0.0}
    assert len(scores) == 3 * 11
    assert max(map(abs, scores.values())) < 1e-12


def test_the_better_prediction_scores_better():
    """Positive is better for ours, of errors too; the point is the difference of both scores."""
    rng = np.random.default_rng(3)
    rows = _rows(0.001 * rng.standard_normal(600))
    ours, theirs = 0.3 * rows.label, 0.0003 * rng.standard_normal(600)
    found = score_difference(rows, ours, theirs, SAMPLING)
    a, b = (prediction_metrics(rows, one, SAMPLING) for one in (ours, theirs))

    assert found["ic_difference"] == pytest.approx(a["ic"] - b["ic"])
    assert found["rmse_difference"] == pytest.approx(b["rmse"] - a["rmse"])
    assert all(found[f"{name}_difference_low"] > 0 for name in ("ic", "rank_ic", "rmse", "mae", "rmse_skill"))


def test_the_ic_of_each_day():
    """Days with too few rows, or in which nothing varies, are left out; steadiness is mean over deviation."""
    rng = np.random.default_rng(4)
    label = rng.standard_normal(48 * 4 + 10)
    predicted = label + rng.standard_normal(len(label))
    predicted[48:96] = 1.0
    daily = DailyIC.of(_rows(label), predicted)

    assert daily.day_ms.tolist() == [0, 2 * 86_400_000, 3 * 86_400_000]
    assert daily.ic[0] == pytest.approx(np.corrcoef(label[:48], predicted[:48])[0, 1])
    assert daily.icir == pytest.approx(daily.ic.mean() / daily.ic.std(ddof=1))
    assert math.isnan(DailyIC.of(_rows(label[:60]), predicted[:60]).icir)


def test_the_rank_ic_of_each_day_survives_an_outlier():
    """One absurd prediction spoils a day's IC and hardly its rank IC; both kinds of steadiness are told."""
    rng = np.random.default_rng(6)
    label = rng.standard_normal(48 * 5)
    predicted = label + 0.3 * rng.standard_normal(len(label))
    predicted[::48] = -1e6 * np.sign(label[::48])
    daily, ranked = (DailyIC.of(_rows(label), predicted, by_rank=by_rank) for by_rank in (False, True))
    told = steadiness(_rows(label), predicted, SAMPLING)

    assert ranked.ic.min() > 0.7 > daily.ic.max()
    assert (told["icir_of_days"], told["rank_icir_of_days"]) == (daily.icir, ranked.icir)
    assert told["rank_icir_of_days_low"] <= told["rank_icir_of_days"] <= told["rank_icir_of_days_high"]
    assert math.isnan(steadiness(_rows(label), np.ones_like(label), SAMPLING)["rank_icir_of_days"])


# Returns of less than 1e-12 are none: their squares are beyond what a float can hold.
SHIFTS = st.floats(-0.01, 0.01).map(lambda shift: shift if abs(shift) >= 1e-12 else 0.0)


@given(st.floats(0.05, 20), SHIFTS)
def test_the_calibration_slope_is_what_sizes_must_be_multiplied_by(scale, shift):
    """Predictions that are so many times too large, and shifted, have the inverse as slope; a constant one has none."""
    rng = np.random.default_rng(7)
    label = 0.001 * rng.standard_normal(400)
    found = prediction_metrics(_rows(label), label * scale + shift, SAMPLING)
    nothing = prediction_metrics(_rows(label), np.full(400, shift), SAMPLING)

    assert found["calibration_slope"] == pytest.approx(1 / scale, rel=1e-4)
    assert found["calibration_slope_low"] == pytest.approx(1 / scale, rel=1e-4)
    assert math.isnan(nothing["calibration_slope"])


def test_sizes_are_compared_bin_by_bin():
    """Bins of equally many predictions rise, and hold every outcome once; what never varies has no curve."""
    rng = np.random.default_rng(8)
    label = rng.standard_normal(95)
    predicted = 2 * label + rng.standard_normal(95)
    curve = size_curve(_rows(label), predicted)

    assert len(curve) == 10
    assert [one for one, _ in curve] == sorted(one for one, _ in curve)
    counts = [len(part) for part in np.array_split(np.arange(95), 10)]
    assert np.average([real for _, real in curve], weights=counts) == pytest.approx(label.mean())
    assert size_curve(_rows(label), np.zeros(95)) == size_curve(_rows(label[:0]), label[:0]) == ()


def test_quantiles_cover_what_they_say():
    """The share of outcomes between two quantiles, with an interval around it."""
    rows = _rows(np.random.default_rng(5).standard_normal(2000))
    reach = np.full(2000, 1.2816)
    found = quantile_coverage(rows, -reach, reach, SAMPLING)

    assert found["quantile_coverage"] == pytest.approx(0.8, abs=0.03)
    assert found["quantile_coverage_low"] < 0.8 < found["quantile_coverage_high"]
    assert found["quantile_width"] == pytest.approx(2 * 1.2816)


def test_capacity_is_a_share_of_what_was_traded():
    """A hundredth of the median volume at entry; unknown volumes do not count."""
    trades = _trades((0, 0, 1, 0.0), (0, 4, 1, 0.0), (1, 8, 1, 0.0))

    assert capacity(trades, np.array([1000.0, 3000.0, np.nan])) == pytest.approx(20.0)
    assert math.isnan(capacity(trades, np.full(3, np.nan)))


def test_the_interval_of_a_capacity_is_that_of_drawn_medians():
    """A sample's median is of its entries, each as often as its block was drawn; one block gives no interval."""
    trades = _trades(*((0, hour, 1, 0.0) for hour in range(0, 24, 2)))
    volume = np.linspace(1000, 12_000, 12)
    found = capacity_interval(trades, volume, SAMPLING)
    rng = np.random.default_rng(SAMPLING.seed)
    drawn = rng.multinomial(12, np.full(12, 1 / 12), size=SAMPLING.samples)
    medians = [np.median(np.repeat(volume, times)) for times in drawn]

    assert found.value == capacity(trades, volume)
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(medians, [2.5, 97.5]) / 100))
    assert math.isnan(capacity_interval(_trades((0, 0, 1, 0.0)), np.ones(1), SAMPLING).low)
    assert math.isnan(capacity_interval(trades, np.full(12, np.nan), SAMPLING).value)
    assert math.isnan(capacity_interval(_trades(), np.empty(0), SAMPLING).value)


def test_a_rule_that_never_lost_is_not_unknown():
    """Without a fall to divide by, a gain has the largest Sortino ratio that is told, and so have both ends."""
    found = performance_metrics(_trades(*((0, hour, 1, 0.01) for hour in range(0, 24, 2))), DAY, SAMPLING)
    ends = [found[f"sortino_per_day{end}"] for end in ("", "_low", "_high")]

    assert ends == [MOST_SORTINO] * 3


def test_every_figure_of_an_account_has_an_interval():
    """Return, ratios, drawdown, turnover and exposure: the interval holds the figure where periods are alike."""
    rng = np.random.default_rng(9)
    net = 0.002 + 0.01 * rng.standard_normal(24)
    found = performance_metrics(_trades(*((0, hour, 1, net[hour]) for hour in range(24))), DAY, SAMPLING)

    for name in ("return_on_capital", "sharpe_per_day", "sortino_per_day", "drawdown_of_capital", "net_exposure"):
        assert found[f"{name}_low"] <= found[name] <= found[f"{name}_high"], name
    assert found["turnover_per_day_low"] == found["turnover_per_day"] == pytest.approx(24)
    assert found["exposure_high"] == pytest.approx(0.5)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=30))
def test_a_drawdown_is_the_worst_of_all_falls(returns):
    """It is the largest loss of any stretch in a row, nothing where none lost."""
    values = np.array(returns)
    stretches = [values[first:last].sum() for first in range(len(values)) for last in range(first, len(values) + 1)]

    assert drawdown(values) == pytest.approx(-min(stretches), abs=1e-12)


def test_the_better_account_is_better_by_every_figure():
    """Sortino, return and drawdown are compared in the same drawn periods: positive is better for ours."""
    rng = np.random.default_rng(10)
    noise = 0.01 * rng.standard_normal(24)
    ours, theirs = (
        _trades(*((0, hour, 1, noise[hour] + more) for hour in range(24))) for more in (0.004, -0.004)
    )  # fmt: skip
    found = performance_difference(ours, theirs, DAY, SAMPLING)
    a, b = (performance_metrics(one, DAY, SAMPLING) for one in (ours, theirs))

    assert found["sortino_per_day"] == pytest.approx(a["sortino_per_day"] - b["sortino_per_day"])
    assert found["drawdown_of_capital"] == pytest.approx(b["drawdown_of_capital"] - a["drawdown_of_capital"])
    for name in ("sortino_per_day", "sharpe_per_day", "return_on_capital", "drawdown_of_capital"):
        assert 0 < found[f"{name}_low"] <= found[f"{name}_high"], name
    assert found["turnover_per_day"] == found["exposure_high"] == 0


def test_every_score_of_a_prediction_has_an_interval():
    """Errors and explained variance, too, have both ends around them."""
    rng = np.random.default_rng(11)
    rows = _rows(0.001 * rng.standard_normal(600))
    found = prediction_metrics(rows, 0.3 * rows.label + 0.0005 * rng.standard_normal(600), SAMPLING)

    assert set(found) == {f"{name}{end}" for name in STATISTICS for end in ("", "_low", "_high")}
    assert all(found[f"{name}_low"] < found[name] < found[f"{name}_high"] for name in STATISTICS)


def test_the_surer_model_is_no_better_calibrated():
    """Of two with the same opinions the one that overstates them has the larger Brier score and calibration error."""
    rng = np.random.default_rng(12)
    expected = rng.standard_normal(3000)
    chance = 1 / (1 + np.exp(-expected))
    rows = _rows(np.where(rng.random(3000) < chance, 1.0, -1.0))
    surer = 1 / (1 + np.exp(-4 * expected))
    honest, boastful = (calibration_metrics(rows, one, SAMPLING) for one in (chance, surer))
    found = calibration_difference(rows, chance, surer, SAMPLING)

    assert found["brier_difference"] == pytest.approx(boastful["brier"] - honest["brier"])
    error = boastful["calibration_error"] - honest["calibration_error"]
    assert found["calibration_error_difference"] == pytest.approx(error)
    assert min(found["brier_difference_low"], found["calibration_error_difference_low"]) > 0
    for told in (honest, boastful):
        for name in ("brier", "calibration_error"):
            assert 0 <= told[f"{name}_low"] <= told[name] <= told[f"{name}_high"], name
    assert calibration_difference(_rows(np.zeros(50)), np.full(50, 0.5), np.full(50, 0.6), SAMPLING) == {}


def test_the_steadier_prediction_is_told_by_days_that_both_have():
    """ICIR and rank ICIR are compared on the same days; a prediction that never varies has none to compare."""
    rng = np.random.default_rng(13)
    rows = _rows(rng.standard_normal(48 * 8))
    steady = rows.label + 0.5 * rng.standard_normal(len(rows))
    noise = rng.standard_normal(len(rows))
    found = steadiness_difference(rows, steady, noise, SAMPLING)
    a, b = (DailyIC.of(rows, one).icir for one in (steady, noise))

    assert found["icir_of_days_difference"] == pytest.approx(a - b)
    assert found["rank_icir_of_days_difference_low"] > 0
    assert steadiness_difference(rows, steady, np.ones(len(rows)), SAMPLING) == {}


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 23), st.sampled_from([-1, 1]), st.floats(-0.1, 0.1))))
def test_an_account_is_bounded_whatever_is_traded(found):
    """Concentration lies in [0, 1], drawdown is never negative nor larger than all losses, figures add up."""
    trades = _trades(*found)
    account = Account(start_ms=0, end_ms=24 * HOUR_MS, symbols=5, horizon_ms=HOUR_MS)
    told = performance_metrics(trades, account, SAMPLING)
    losses = -np.minimum(account.returns(trades), 0).sum()

    assert told["return_on_capital"] == pytest.approx(trades.net.sum() / 5)
    assert -1e-12 <= told["drawdown_of_capital"] <= losses + 1e-12
    assert told["drawdown_of_capital_low"] <= told["drawdown_of_capital_high"]
    assert told["turnover_per_day_low"] <= told["turnover_per_day"] + 1e-12
    assert not told["sortino_per_day"] > MOST_SORTINO
    assert math.isnan(concentration(trades, 5)) if not found else 0 <= concentration(trades, 5) <= 1
    assert abs(told["net_exposure"]) <= told["exposure"] + 1e-12
    assert concentration(trades, 1) == 0 or not found


def test_moments_of_what_does_not_vary_are_unknown():
    """A constant return has no Sharpe ratio, however good it is."""
    assert math.isnan(moments_of(np.full(30, 0.001)).sharpe)
    assert math.isnan(moments_of(np.array([0.1, 0.2])).sharpe)
