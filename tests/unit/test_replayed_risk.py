"""What a backtest knows of the limits that need memory: breaker, clusters, beta, and who has to refuse them."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from itertools import pairwise

import numpy as np
import pytest

from feature_store.errors import BadInputError
from flows.replay.fast import FastEngine
from flows.replay.risk import ReplayedRisk
from flows.replay.word import replay
from inference.domain.events import AccountMarked
from inference.domain.policy import Policy
from inference.portfolio.correlation import co_movement
from infra.prove.backtest_market import make_market

BALANCE = Decimal(10_000)
SURE = 0.55


def test_losses_in_a_row_pause_entries_as_they_pause_a_worker():
    """The breaker opens at the loss that fills its row, nothing enters until its pause is over, then one is tried."""
    market = make_market(symbols=6, candles=350, seed=3)
    policy = Policy(breaker_losses=2, breaker_pause_seconds=3600, confidence_threshold=SURE)

    paused, free = (replay(market, one, balance=BALANCE) for one in (policy, Policy(confidence_threshold=SURE)))

    assert paused.denied["BREAKER_OPEN"] > 0
    assert "BREAKER_OPEN" not in free.denied
    assert 0 < len(paused.trades) < len(free.trades)
    # Two closed trades lost one after the other: for an hour nothing is opened.
    ended = sorted(paused.trades, key=lambda one: one.closed_ms)
    at = next(two.closed_ms for one, two in pairwise(ended) if one.pnl < 0 and two.pnl < 0)
    assert not [one for one in paused.trades if at < one.opened_ms < at + 3_600_000]


def test_a_cluster_has_room_for_so_much_and_beta_too():
    """Symbols that move as one share a limit; each limit refuses entries that it lets pass elsewhere."""
    market = make_market(symbols=6, candles=350, seed=3)
    # All of them are one market: each follows the first.
    prices = market.prices.copy()
    prices[:, 1:] = prices[:, :1]
    alike = replace(market, prices=np.ascontiguousarray(prices))
    free = Policy(confidence_threshold=SURE, max_notional=Decimal(800))
    tight = replace(free, max_correlated_exposure=Decimal("0.17"))

    # Before there are candles enough nothing is entered; then two of a cluster and no more.
    held = replay(alike, tight, balance=BALANCE)
    assert held.denied["RISK_INPUT_MISSING"] > 0
    assert held.denied["CORRELATED_ABOVE_MAXIMUM"] > 0
    assert held.exposure.max() < 0.2 * float(BALANCE) < replay(alike, free, balance=BALANCE).exposure.max()
    neutral = replay(alike, replace(free, max_btc_beta=Decimal("0.09")), balance=BALANCE)
    assert neutral.denied["BETA_ABOVE_MAXIMUM"] > 0


def test_what_moves_together_is_told_of_candles_that_had_closed():
    """The no-lookahead property of clusters: later candles change nothing, and the last closed one is left out."""
    market = make_market(symbols=4, candles=80, seed=6)
    policy = Policy(max_btc_beta=Decimal(1), correlation_window_candles=40)
    row = 60
    now_ms = int(market.open_time_ms[row])
    view = ReplayedRisk(market, policy).view(row, now_ms)
    prices = market.prices.copy()
    prices[row - 1 :] *= 3
    changed = ReplayedRisk(replace(market, prices=prices), policy).view(row, now_ms)

    assert view.betas
    assert (dict(view.betas), dict(view.clusters)) == (dict(changed.betas), dict(changed.clusters))
    units = [float(one.tick) for one in market.instruments]
    closes = {
        symbol: (market.open_time_ms[: row - 1], market.close[: row - 1, place] * units[place])
        for place, symbol in enumerate(market.symbols)
    }
    told = co_movement(
        closes, last_open_ms=now_ms - 2 * market.timeframe_ms, step_ms=market.timeframe_ms, window=40, threshold=0.7
    )
    assert dict(view.betas) == pytest.approx(dict(told.betas))


def test_a_stop_is_set_off_once():
    """A wall that stays reached is one stop; it stands until the walk ends."""
    market = make_market(symbols=2, candles=10, seed=1)
    risk = ReplayedRisk(market, Policy())
    start = AccountMarked(
        equity=Decimal(100), day_start_equity=Decimal(100), peak_equity=Decimal(100), week_start_equity=Decimal(100)
    )

    assert risk.trip(start, 1) is None
    assert risk.view(2, 1).emergency == ""
    fallen = replace(start, equity=Decimal(80))
    assert risk.trip(fallen, 2) is not None
    assert risk.trip(fallen, 3) is None
    assert risk.stopped_ms == 2
    assert "the wall is" in risk.view(2, 3).emergency
    assert risk.view(2, 3).breaker is None


def test_the_breaker_of_a_walk_is_seen_while_it_is_open():
    """Its view is the worker's: open with a reason, gone once nothing pauses entries any more."""
    market = make_market(symbols=6, candles=350, seed=3)
    policy = Policy(breaker_loss_share=Decimal("0.0001"), breaker_pause_seconds=600, confidence_threshold=SURE)

    run = replay(market, policy, balance=BALANCE)

    assert run.denied["BREAKER_OPEN"] > 0
    assert ReplayedRisk(market, policy).view(2, 0).breaker is None


@pytest.mark.parametrize(
    "policy",
    [
        Policy(breaker_losses=3), Policy(breaker_loss_share=Decimal("0.1")), Policy(breaker_errors=2),
        Policy(max_correlated_exposure=Decimal(1)), Policy(max_btc_beta=Decimal(1)), Policy(governor_max_companions=2),
    ],
)  # fmt: skip
def test_the_sweep_engine_refuses_what_it_does_not_know(policy):
    """A limit that is passed over would be a backtest of another policy."""
    with pytest.raises(BadInputError, match="--engine word"):
        FastEngine(make_market(symbols=2, candles=20, seed=1)).run(policy, balance=BALANCE)
