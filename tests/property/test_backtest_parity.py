"""The compiled engine makes the trades that the worker's own decisions make, to the last digit."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.replay.fast import FastEngine
from flows.replay.market import Intrabar, VenueCosts
from flows.replay.outcome import END_OF_DATA
from flows.replay.word import replay
from inference.domain.policy import Policy
from infra.prove.backtest_market import make_market

BALANCE = Decimal(10_000)
POLICIES = {
    "usual": Policy(),
    "tight-exits": Policy(stop_atr_multiple=Decimal("0.5"), target_atr_multiple=Decimal("0.7")),
    "few-slots-and-cooldown": Policy(max_holding_candles=3, max_positions=2, cooldown_seconds=900),
    "through-the-book": Policy(
        max_notional=Decimal(200_000), risk_per_trade=Decimal("0.05"), max_portfolio_heat=Decimal("0.5"),
        max_exposure=Decimal(20), leverage=20, max_daily_drawdown=Decimal("0.15"),
    ),
    "stops-within-the-spread": Policy(stop_atr_multiple=Decimal("0.01"), target_atr_multiple=Decimal("0.02")),
    "margin-is-short": Policy(leverage=1, max_exposure=Decimal(4), max_notional=Decimal(9000)),
    "stops-for-the-day": Policy(max_daily_drawdown=Decimal("0.003"), confidence_threshold=0.55),
}  # fmt: skip


def assert_equal(word, fast):
    """Compare two runs: every trade exactly, every count, and the account at every candle to a cent of a cent."""
    assert fast.trades == word.trades
    assert dict(fast.denied) == dict(word.denied)
    assert fast.approved == word.approved
    np.testing.assert_allclose(fast.equity, word.equity, rtol=0, atol=1e-6)
    np.testing.assert_allclose(fast.exposure, word.exposure, rtol=1e-9)


@pytest.mark.parametrize("intrabar", list(Intrabar))
@pytest.mark.parametrize("name", POLICIES)
def test_both_engines_make_the_same_trades(name, intrabar):
    """Each rule that denies, sizes or ends a trade does the same in both, whatever path prices take in a candle."""
    market = make_market(symbols=6, candles=350, seed=3, missing=0.02)

    word = replay(market, POLICIES[name], balance=BALANCE, intrabar=intrabar)

    assert len(word.trades) > 5
    assert_equal(word, FastEngine(market).run(POLICIES[name], balance=BALANCE, intrabar=intrabar))


@settings(max_examples=12)
@given(
    seed=st.integers(0, 10**6),
    stop=st.decimals("0.05", "6", places=2),
    target=st.decimals("0.05", "6", places=2),
    holding=st.integers(1, 20),
    slots=st.integers(1, 6),
    risk=st.decimals("0.001", "0.05", places=3),
    spread=st.decimals(0, 20, places=1),
    intrabar=st.sampled_from(list(Intrabar)),
)
def test_any_rules_make_the_same_trades(seed, stop, target, holding, slots, risk, spread, intrabar):
    """Whatever market and rules are drawn, the two engines cannot be told apart by their trades."""
    market = make_market(symbols=4, candles=120, seed=seed, confident=0.5, missing=0.03)
    policy = Policy(
        stop_atr_multiple=stop, target_atr_multiple=target, max_holding_candles=holding, max_positions=slots,
        risk_per_trade=risk, max_portfolio_heat=Decimal("0.2"), max_daily_drawdown=Decimal("0.1"),
    )  # fmt: skip
    costs = VenueCosts(spread_bps=spread)

    word = replay(market, policy, balance=BALANCE, costs=costs, intrabar=intrabar)

    assert_equal(word, FastEngine(market).run(policy, balance=BALANCE, costs=costs, intrabar=intrabar))


def test_the_account_is_what_its_trades_left():
    """Money is neither made nor lost outside trades: fees, funding and profits add up to the change of equity."""
    market = make_market(symbols=5, candles=500, seed=8)
    run = FastEngine(market).run(Policy(), balance=BALANCE)

    assert float(sum(one.net for one in run.trades)) == pytest.approx(run.equity[-1] - float(BALANCE), abs=1e-6)
    assert any(one.funding for one in run.trades)
    assert {one.reason for one in run.trades} >= {"STOP", "TARGET", "TIME_BARRIER", END_OF_DATA}


def test_nothing_after_a_candle_changes_what_was_traded_before():
    """The no-lookahead property: what a prefix of the market ends, the whole market ends alike."""
    market = make_market(symbols=5, candles=400, seed=5)
    policy = Policy()
    whole = FastEngine(market).run(policy, balance=BALANCE)
    prefix_market = market.between(market.start_ms, market.start_ms + 250 * market.timeframe_ms)
    prefix = FastEngine(prefix_market).run(policy, balance=BALANCE)
    ended = [one for one in prefix.trades if one.reason != END_OF_DATA]

    assert len(ended) > 20
    assert ended == [one for one in whole.trades if one in set(ended)]
    assert [one for one in whole.trades if one.closed_ms < prefix_market.end_ms] == ended


@settings(max_examples=20)
@given(seed=st.integers(0, 10**6))
def test_the_bounds_of_one_trade_hold_it(seed):
    """With one position at a time and fixed size, a trade's result at the path lies between its two bounds."""
    market = make_market(symbols=1, candles=60, seed=seed, confident=0.05)
    policy = Policy(stop_atr_multiple=Decimal("0.8"), target_atr_multiple=Decimal("0.8"), max_holding_candles=4)
    low, path, high = (
        {one.opened_ms: one for one in FastEngine(market).run(policy, balance=BALANCE, intrabar=way).trades}
        for way in (Intrabar.PESSIMISTIC, Intrabar.PATH, Intrabar.OPTIMISTIC)
    )
    first = min(path, default=None)

    # Only the first trade surely starts alike in all three.
    if first is not None:
        assert low[first].net <= path[first].net <= high[first].net


def test_a_liquidated_account_trades_no_more():
    """Where the venue closes everything, both engines stop at the same candle."""
    market = make_market(symbols=1, candles=60, seed=2, confident=1.0)
    prices = market.prices.copy()
    prices[20:] = np.where(prices[20:] > 0, prices[20:] // 50, 0)
    policy = Policy(
        leverage=20, max_exposure=Decimal(15), max_notional=Decimal(100_000), risk_per_trade=Decimal("0.05"),
        max_portfolio_heat=Decimal(1), stop_atr_multiple=Decimal("0.2"),
    )  # fmt: skip
    rising = np.where(np.isfinite(market.probability_up), 0.9, np.nan)
    crash = replace(
        market, prices=np.maximum(prices, 1), probability_up=rising, expected_return=np.full(rising.shape, 0.01)
    )

    word, fast = replay(crash, policy, balance=Decimal(1000)), FastEngine(crash).run(policy, balance=Decimal(1000))

    assert word.liquidated_ms == fast.liquidated_ms
