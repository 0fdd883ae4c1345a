"""The threshold rule over past rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.errors import BadInputError
from flows.training.calibrate import THRESHOLDS, choose_threshold, thresholds_within
from flows.training.config import TrainingConfig
from flows.training.dataset import Rows
from flows.training.moments import Sampling
from flows.training.trading import net_difference, simulate, trade_metrics

MINUTE = 60_000
HORIZON = 3 * MINUTE
SAMPLING = Sampling(block_ms=2 * HORIZON, samples=200, seed=1)


def _rows(label: list[float], series: int = 0) -> Rows:
    n = len(label)
    return Rows(np.arange(n), np.full(n, series), MINUTE * np.arange(n), np.array(label))


def _trade(rows: Rows, probability_up: list[float], *, expected: float = 0.02, cost: float = 0.001):
    sign = np.where(np.array(probability_up) > 0.5, 1, -1)
    return simulate(rows, sign * expected, np.array(probability_up), threshold=0.6, cost=cost, horizon_ms=HORIZON)


def test_a_series_in_a_trade_takes_no_other():
    """Signals on every candle become one trade per horizon: outcomes that overlap are not counted twice."""
    trades = _trade(_rows([0.01] * 9), [0.9] * 9)

    assert trades.entry_ms.tolist() == [0, HORIZON, 2 * HORIZON]


def test_two_series_trade_beside_each_other():
    """One series' position does not block another's."""
    rows = _rows([0.01] * 3)
    both = Rows(np.arange(6), np.repeat([0, 1], 3), np.tile(rows.open_time_ms, 2), np.full(6, 0.01))
    trades = simulate(both, np.full(6, 0.02), np.full(6, 0.9), threshold=0.6, cost=0.0, horizon_ms=HORIZON)

    assert trades.series.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("probability_up", "label", "net"),
    [
        pytest.param(0.7, np.log(1.02), 0.019, id="long-gains-the-rise"),
        pytest.param(0.7, np.log(0.98), -0.021, id="long-loses-the-fall"),
        pytest.param(0.3, np.log(0.98), 0.019, id="short-gains-the-fall"),
        pytest.param(0.3, np.log(1.02), -0.021, id="short-loses-the-rise"),
    ],
)
def test_net_return_is_simple_and_pays_the_round_trip(probability_up, label, net):
    """A trade earns its direction's simple return less ten bps."""
    trades = _trade(_rows([label]), [probability_up])

    assert trades.net.tolist() == pytest.approx([net])


@pytest.mark.parametrize(
    ("probability_up", "expected"),
    [
        pytest.param([0.55], 0.02, id="not-confident"),
        pytest.param([0.5], 0.02, id="abstained"),
        pytest.param([0.9], 0.0005, id="expects-less-than-costs"),
        pytest.param([0.9], np.nan, id="expects-nothing-known"),
    ],
)
def test_what_is_not_worth_a_trade_is_none(probability_up, expected):
    """No trade without confidence, and none that expects less than it costs."""
    assert len(_trade(_rows([0.01]), probability_up, expected=expected)) == 0


def test_metrics_of_no_trades_claim_nothing():
    """A rule that never traded has a count of zero and no averages, so a gate on them refuses."""
    assert trade_metrics(_trade(_rows([0.01]), [0.5]), SAMPLING) == {"trades": 0.0, "net_return": 0.0}


def test_a_rule_does_not_differ_from_itself():
    """Paired comparison of equal rules is zero with an interval of zero."""
    trades = _trade(_rows([0.01, -0.02] * 30), [0.9] * 60)
    found = net_difference(trades, trades, start_ms=0, end_ms=60 * MINUTE, slots=20, sampling=SAMPLING)

    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


def test_a_share_of_another_rule_is_what_it_must_beat():
    """Against half of itself a rule earned half of what it earned, per slot."""
    trades = _trade(_rows([0.01, 0.02] * 30), [0.9] * 60)
    found = net_difference(trades, trades, start_ms=0, end_ms=60 * MINUTE, slots=20, sampling=SAMPLING, share=0.5)

    assert found.value == pytest.approx(trades.net.sum() / 2 / 20)
    assert found.low > 0


def _paid_by_confidence(net_of: dict[float, float]) -> tuple[Rows, np.ndarray, np.ndarray]:
    """Return rows of three hundred series whose outcome depends on the confidence with which they are told."""
    rng = np.random.default_rng(5)
    confidence = np.repeat(list(net_of), 300)
    label = np.repeat(list(net_of.values()), 300) + 0.001 * rng.standard_normal(len(confidence))
    count = len(confidence)
    rows = Rows(np.arange(count), np.arange(count), HORIZON * 2 * rng.integers(0, 80, count), label)
    return rows, np.full(count, 0.02), confidence


def test_a_threshold_stands_where_its_neighbours_paid_too():
    """One confidence that paid by itself, amid others that cost, is not what the rule stands on."""
    costly = dict.fromkeys((0.51, 0.53, 0.55, 0.57, 0.59), -0.02)
    stretch = dict.fromkeys((0.60, 0.61, 0.62, 0.63, 0.64, 0.65, 0.66), 0.011)
    peak = {0.73: -0.042, 0.74: -0.042, 0.75: 0.085}
    paid = costly | stretch | peak
    chosen = choose_threshold(*_paid_by_confidence(paid), cost=0.001, horizon_ms=HORIZON, min_trades=30)

    assert 0.57 < chosen < 0.67


def test_without_a_threshold_that_paid_the_most_cautious_stands():
    """A rule that lost at every confidence is left to the gates with hardly any trades."""
    lost = dict.fromkeys((0.52, 0.60, 0.70), -0.01)

    assert choose_threshold(*_paid_by_confidence(lost), cost=0.001, horizon_ms=HORIZON, min_trades=30) == max(
        THRESHOLDS
    )


def test_a_training_may_choose_from_all_thresholds_unless_told_otherwise():
    """Its bounds are the least and the most that is tried, so that nothing changed when they came."""
    config = TrainingConfig(created_at="", code_version="")
    assert thresholds_within(config.threshold_bounds) == THRESHOLDS


@pytest.mark.parametrize(("bounds", "chosen"), [((0.51, 0.56), 0.56), ((0.68, 0.70), 0.70), ((0.62, 0.62), 0.62)])
def test_a_threshold_keeps_to_its_bounds(bounds, chosen):
    """What paid beyond them is not chosen; where nothing within paid, the most cautious within is."""
    costly = dict.fromkeys((0.51, 0.53, 0.55, 0.57, 0.59), -0.02)
    stretch = dict.fromkeys((0.60, 0.61, 0.62, 0.63, 0.64), 0.011)
    late = dict.fromkeys((0.68, 0.70, 0.72), -0.03)
    rows = _paid_by_confidence(costly | stretch | late)
    assert choose_threshold(*rows, cost=0.001, horizon_ms=HORIZON, min_trades=30, bounds=bounds) == chosen


@given(st.floats(allow_nan=True), st.floats(allow_nan=True))
def test_bounds_are_a_stretch_of_what_is_tried(least, most):
    """Whatever bounds are given, what they hold is in order and inside them, or they are refused in a sentence."""
    held = [one for one in THRESHOLDS if least <= one <= most]
    if held:
        assert list(thresholds_within((least, most))) == sorted(held)
    else:
        with pytest.raises(BadInputError, match="threshold_bounds must hold a confidence"):
            thresholds_within((least, most))
