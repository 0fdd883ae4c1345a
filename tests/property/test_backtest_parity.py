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
from inference.domain.policy import EntryStyle, Policy
from infra.prove.backtest_market import make_market

BALANCE = Decimal(10_000)
POLICIES = {
    "usual": Policy(),
    "tight-exits": Policy(stop_atr_multiple=Decimal("0.5"), target_atr_multiple=Decimal("0.7")),
    "few-slots-and-cooldown": Policy(max_holding_candles=3, max_positions=2, cooldown_seconds=900),
    "through-the-book": Policy(
        max_notional=Decimal(200_000), risk_per_trade=Decimal("0.03"), max_portfolio_heat=Decimal("0.5"),
        max_exposure=Decimal(20), leverage=20, max_daily_drawdown=Decimal("0.15"), max_weekly_drawdown=Decimal("0.25"),
    ),
    "stops-within-the-spread": Policy(stop_atr_multiple=Decimal("0.01"), target_atr_multiple=Decimal("0.02")),
    "margin-is-short": Policy(leverage=1, max_exposure=Decimal(4), max_notional=Decimal(9000)),
    "stops-for-the-day": Policy(max_daily_drawdown=Decimal("0.003"), confidence_threshold=0.55),
    "stops-for-the-week": Policy(max_weekly_drawdown=Decimal("0.006"), confidence_threshold=0.55),
    "kelly-and-multipliers": Policy(
        kelly_fraction=Decimal("0.05"), min_size_multiplier=Decimal("0.5"), max_size_multiplier=Decimal("1.5"),
        min_risk_per_trade=Decimal("0.004"), target_atr_multiple=Decimal(2), max_notional=Decimal(4000),
    ),
    "calm-markets-only": Policy(
        target_volatility=Decimal("0.002"), governor_max_volatility=Decimal("0.004"),
        unknown_regime_size=Decimal("0.6"), max_notional=Decimal(9000),
    ),
    "governed": Policy(
        governor_min_confidence=0.65, governor_drawdown_share=Decimal("0.2"), confidence_threshold=0.55,
    ),
    "concentrated": Policy(
        max_concentration=Decimal("0.15"), risk_per_trade=Decimal("0.002"), max_notional=Decimal(5000),
    ),
    "liquidation-near": Policy(leverage=15, min_liquidation_stops=Decimal(4)),
}  # fmt: skip


RESTING = (EntryStyle.LIMIT, EntryStyle.POST_ONLY)


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


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("stops-for-the-day", "DAILY_DRAWDOWN"), ("stops-for-the-week", "WEEKLY_DRAWDOWN"),
        ("kelly-and-multipliers", "NO_EDGE_TO_BET"), ("calm-markets-only", "VETO_VOLATILITY"),
        ("governed", "VETO_CONFIDENCE"), ("governed", "VETO_DRAWDOWN"), ("concentrated", "CONCENTRATION_ABOVE_MAXIMUM"),
        ("liquidation-near", "LIQUIDATION_TOO_NEAR"),
    ],
)  # fmt: skip
def test_each_limit_shows_in_what_is_compared(name, code):
    """What the two engines agree on is no empty set: each of these limits refuses something there."""
    market = make_market(symbols=6, candles=350, seed=3, missing=0.02)

    run = FastEngine(market).run(POLICIES[name], balance=BALANCE)

    assert run.denied[code] > 0
    assert run.approved > 0


@pytest.mark.parametrize("intrabar", list(Intrabar))
@pytest.mark.parametrize("share", ["0.1", "0.5", "1"])
def test_a_wall_ends_all_entries_and_closes_the_same(share, intrabar):
    """The emergency stop by drawdown: losers go, of the rest the riskiest until the share is gone, and none enters."""
    market = make_market(symbols=6, candles=350, seed=3)
    policy = Policy(
        max_daily_drawdown=Decimal("0.01"), wall_daily_drawdown=Decimal("0.01"), confidence_threshold=0.55,
        emergency_reduce_share=Decimal(share), max_notional=Decimal(3000), max_holding_candles=40,
        stop_atr_multiple=Decimal(6), target_atr_multiple=Decimal(8),
    )  # fmt: skip

    word = replay(market, policy, balance=BALANCE, intrabar=intrabar)
    fast = FastEngine(market).run(policy, balance=BALANCE, intrabar=intrabar)

    assert_equal(word, fast)
    assert word.stopped_ms is not None
    assert word.stopped_ms == fast.stopped_ms
    closed = [one for one in word.trades if one.reason == "EMERGENCY"]
    assert closed
    assert {one.closed_ms for one in closed} == {word.stopped_ms}
    assert all(one.opened_ms < word.stopped_ms for one in word.trades)
    assert word.denied["EMERGENCY_STOP"] > 0


@pytest.mark.parametrize("intrabar", list(Intrabar))
@pytest.mark.parametrize("style", RESTING)
@pytest.mark.parametrize("name", POLICIES)
def test_both_engines_work_entries_alike(name, style, intrabar):
    """An entry that rests, follows, fills, takes in the end or is given up is the same entry in both."""
    market = make_market(symbols=6, candles=160, seed=4, missing=0.02)
    policy = replace(POLICIES[name], entry_style=style, entry_patience_seconds=120)

    word = replay(market, policy, balance=BALANCE, intrabar=intrabar)

    assert len(word.trades) > 3
    assert any(one.opened_ms % market.timeframe_ms for one in word.trades)
    assert_equal(word, FastEngine(market).run(policy, balance=BALANCE, intrabar=intrabar))


@settings(max_examples=16)
@given(
    seed=st.integers(0, 10**6),
    stop=st.decimals("0.05", "6", places=2),
    target=st.decimals("0.05", "6", places=2),
    holding=st.integers(1, 20),
    slots=st.integers(1, 6),
    risk=st.decimals("0.001", "0.05", places=3),
    spread=st.decimals("0.1", 20, places=1),
    intrabar=st.sampled_from(list(Intrabar)),
    style=st.sampled_from(list(EntryStyle)),
    drawn=st.data(),
)
def test_any_rules_make_the_same_trades(seed, stop, target, holding, slots, risk, spread, intrabar, style, drawn):
    """Whatever market and rules are drawn, the two engines cannot be told apart by their trades."""
    market = make_market(symbols=4, candles=120, seed=seed, confident=0.5, missing=0.03)
    policy = Policy(
        stop_atr_multiple=stop, target_atr_multiple=target, max_holding_candles=holding, max_positions=slots,
        risk_per_trade=risk, max_portfolio_heat=Decimal("0.2"), max_daily_drawdown=Decimal("0.1"),
        entry_style=style, entry_patience_seconds=drawn.draw(st.integers(1, 290)),
        max_weekly_drawdown=drawn.draw(st.decimals("0.01", "0.25", places=3)),
        wall_daily_drawdown=drawn.draw(st.decimals("0.1", "0.15", places=3)),
        wall_peak_drawdown=drawn.draw(st.decimals("0.02", "0.2", places=3)),
        emergency_reduce_share=drawn.draw(st.decimals("0.05", 1, places=2)),
        min_size_multiplier=drawn.draw(st.decimals("0.1", 1, places=2)),
        max_size_multiplier=drawn.draw(st.decimals(1, "1.5", places=2)),
        kelly_fraction=drawn.draw(st.none() | st.decimals("0.01", "0.5", places=3)),
        target_volatility=drawn.draw(st.none() | st.decimals("0.001", "0.02", places=4)),
        max_concentration=drawn.draw(st.none() | st.decimals("0.05", 1, places=2)),
        governor_max_volatility=drawn.draw(st.none() | st.decimals("0.001", "0.02", places=4)),
        governor_drawdown_share=drawn.draw(st.none() | st.decimals("0.05", 1, places=2)),
        governor_min_confidence=drawn.draw(st.floats(0.5, 0.7)),
        min_liquidation_stops=drawn.draw(st.decimals(1, 40, places=1)),
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


def test_without_a_spread_market_entries_agree_too():
    """A book whose two sides meet is no special case for those who take."""
    market = make_market(symbols=4, candles=120, seed=9, confident=0.5)
    costs = VenueCosts(spread_bps=Decimal(0))

    word = replay(market, Policy(), balance=BALANCE, costs=costs)

    assert len(word.trades) > 5
    assert_equal(word, FastEngine(market).run(Policy(), balance=BALANCE, costs=costs))


@pytest.mark.parametrize("style", list(EntryStyle))
def test_nothing_after_a_candle_changes_what_was_traded_before(style):
    """The no-lookahead property: what a prefix of the market ends, the whole market ends alike."""
    market = make_market(symbols=5, candles=400, seed=5)
    policy = Policy(entry_style=style, entry_patience_seconds=90)
    whole = FastEngine(market).run(policy, balance=BALANCE)
    prefix_market = market.between(market.start_ms, market.start_ms + 250 * market.timeframe_ms)
    prefix = FastEngine(prefix_market).run(policy, balance=BALANCE)
    ended = [one for one in prefix.trades if one.reason != END_OF_DATA]

    assert len(ended) > 20
    assert ended == [one for one in whole.trades if one in set(ended)]
    assert [one for one in whole.trades if one.closed_ms < prefix_market.end_ms] == ended


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), style=st.sampled_from(list(EntryStyle)), patience=st.integers(1, 290))
def test_the_bounds_of_one_trade_hold_it(seed, style, patience):
    """With one position at a time and fixed size, a trade's result at the path lies between its two bounds."""
    market = make_market(symbols=1, candles=60, seed=seed, confident=0.05)
    policy = Policy(
        stop_atr_multiple=Decimal("0.8"), target_atr_multiple=Decimal("0.8"), max_holding_candles=4, entry_style=style,
        entry_patience_seconds=patience,
    )  # fmt: skip
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
