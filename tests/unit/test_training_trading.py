"""The threshold rule over past rows."""

from __future__ import annotations

import numpy as np
import pytest

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
