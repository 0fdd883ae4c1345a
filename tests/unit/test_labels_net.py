"""The label net of what trading costs."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest

from feature_store.errors import BadInputError
from feature_store.labels import forward_log_return
from flows.training.costs import Funding, TradingCosts
from flows.training.labels import net_forward_log_return
from inference.decision import round_trip_costs
from inference.domain.market import Quote
from inference.domain.policy import Policy

STEP = 300_000
COSTS = TradingCosts(taker_fee=0.0005, half_spread=0.0001, slippage=0.0002)


def test_costs_are_those_that_the_decision_chain_counts():
    """Fees, slippage and spread of a round trip are one number in training and in trading."""
    quote = Quote(symbol="A", bid=Decimal("99.99"), ask=Decimal("100.01"), event_time_ms=0)

    costs = TradingCosts.of(Policy(), half_spread=0.0001)

    assert costs.round_trip == pytest.approx(float(round_trip_costs(quote, Policy())), rel=1e-12)


@pytest.mark.parametrize("direction", [1, -1])
def test_net_is_the_move_in_the_direction_less_costs(direction):
    """Long or short, the net label is the gross one in that direction, times what costs leave of the notional."""
    close = 100 * np.exp(np.cumsum(np.random.default_rng(1).standard_normal(50) * 0.003))
    times = STEP * np.arange(50)
    gross = forward_log_return(close, times, horizon=12, timeframe_ms=STEP)

    net = net_forward_log_return(close, times, horizon=12, timeframe_ms=STEP, direction=direction, costs=COSTS)

    np.testing.assert_allclose(net, direction * gross + np.log(1 - 0.0016), rtol=1e-12)
    assert np.isnan(net).sum() == 12


def test_funding_counts_once_where_the_horizon_crosses_a_boundary():
    """Of rows whose hour reaches over a boundary the long pays, of the others nothing is taken."""
    times = STEP * np.arange(40)
    funding = Funding(np.array([20 * STEP]), np.array([0.001]))
    free = TradingCosts(taker_fee=0, half_spread=0, slippage=0)

    def net(direction):
        return net_forward_log_return(
            np.ones(40), times, horizon=12, timeframe_ms=STEP, direction=direction, costs=free, funding=funding
        )

    # Row r enters at the close of its candle, (r + 1) steps in, and leaves 12 steps later.
    crossed = np.array([r + 1 < 20 <= r + 13 for r in range(28)])
    np.testing.assert_allclose(net(1)[:28], np.where(crossed, np.log(0.999), 0))
    np.testing.assert_allclose(net(-1)[:28], np.where(crossed, np.log(1.001), 0))


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: TradingCosts(taker_fee=5.0, half_spread=0, slippage=0), id="bps-for-a-fraction"),
        pytest.param(lambda: TradingCosts(taker_fee=0, half_spread=-0.1, slippage=0), id="negative"),
        pytest.param(lambda: TradingCosts(taker_fee=0, half_spread=0, slippage=float("nan")), id="nan"),
        pytest.param(lambda: Funding(np.array([2, 1]), np.zeros(2)), id="boundaries-fall"),
        pytest.param(lambda: Funding(np.array([1, 2]), np.zeros(3)), id="unequal-lengths"),
        pytest.param(lambda: Funding(np.array([1]), np.array([np.nan])), id="rate-is-nan"),
        pytest.param(lambda: Funding(np.array([1]), np.array([3.0])), id="percentage"),
    ],
)
def test_impossible_costs_are_refused(make):
    """Costs in the wrong unit would make every trade look ruinous or free: they are refused."""
    with pytest.raises(BadInputError):
        make()


def test_a_direction_is_long_or_short():
    """There is no label of a flat position."""
    with pytest.raises(BadInputError, match="Direction"):
        net_forward_log_return(
            np.ones(20), STEP * np.arange(20), horizon=2, timeframe_ms=STEP, direction=0, costs=COSTS
        )
