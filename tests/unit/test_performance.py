"""What a rule would have done to an account, on cases that can be computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.training.dataset import Rows
from flows.training.evaluate import prediction_metrics, size_curve
from flows.training.moments import Sampling
from flows.training.performance import (
    Account,
    DailyIC,
    capacity,
    concentration,
    moments_of,
    performance_difference,
    performance_metrics,
    quantile_coverage,
    score_difference,
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

    assert set(performance_difference(trades, trades, DAY, SAMPLING).values()) == {0.0}
    assert max(map(abs, score_difference(rows, predicted, predicted, SAMPLING).values())) < 1e-12


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
    told = steadiness(_rows(label), predicted)

    assert ranked.ic.min() > 0.7 > daily.ic.max()
    assert (told["icir_of_days"], told["rank_icir_of_days"]) == (daily.icir, ranked.icir)
    assert math.isnan(steadiness(_rows(label), np.ones_like(label))["rank_icir_of_days"])


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
    assert math.isnan(concentration(trades, 5)) if not found else 0 <= concentration(trades, 5) <= 1
    assert abs(told["net_exposure"]) <= told["exposure"] + 1e-12
    assert concentration(trades, 1) == 0 or not found


def test_moments_of_what_does_not_vary_are_unknown():
    """A constant return has no Sharpe ratio, however good it is."""
    assert math.isnan(moments_of(np.full(30, 0.001)).sharpe)
    assert math.isnan(moments_of(np.array([0.1, 0.2])).sharpe)
