"""Figures of a backtest against a library and against arithmetic, and what sweeps accept."""

from __future__ import annotations

import warnings
from decimal import Decimal
from itertools import pairwise

import numpy as np
import pytest

from feature_store.errors import BadInputError
from flows.backtest_asked import Asked
from flows.backtest_report import by_symbol, run_figures, trades_csv
from flows.replay.fast import FastEngine
from flows.replay.market import ScoredMarket, VenueCosts
from flows.replay.metrics import daily_returns, drawdown, sharpe, sortino
from flows.replay.sweep import by_word, compiled, lucky_sharpe, run_sweep, swept_policies
from flows.settings import FlowSettings
from flows.tear_sheet import tear_sheet
from inference.domain.policy import Policy
from infra.prove.backtest_market import START_MS, STEP_MS, make_market
from infra.sandbox.engine import path

DAY_MS = 86_400_000


def test_figures_agree_with_quantstats():
    """Sharpe, Sortino and drawdown are what a well-known library makes of the same daily returns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pandas as pd
        from quantstats import stats

    returns = np.random.default_rng(4).normal(0.001, 0.02, 200)
    series = pd.Series(returns, index=pd.date_range("2025-01-01", periods=200))
    equity = np.concatenate([[1.0], np.cumprod(1 + returns)])

    assert sharpe(returns) == pytest.approx(float(stats.sharpe(series, periods=365)), rel=1e-9)
    assert sortino(returns) == pytest.approx(float(stats.sortino(series, periods=365)), rel=1e-9)
    assert drawdown(equity)[0] == pytest.approx(-float(stats.max_drawdown(series)), rel=1e-9)


def test_days_end_at_midnight():
    """What is marked at midnight belongs to the day that ends there."""
    times = np.array([0, DAY_MS // 2, DAY_MS, DAY_MS + 1, 2 * DAY_MS])
    days, returns = daily_returns(times + 20_000 * DAY_MS, np.array([100.0, 90.0, 110.0, 111.0, 121.0]))

    assert days.tolist() == [20_000, 20_001]
    assert returns.tolist() == pytest.approx([0.1, 0.1])


def test_totals_are_the_sum_of_symbols():
    """The table per symbol adds up, and the CSV has a row for each trade."""
    run = FastEngine(make_market(candles=600)).run(Policy(), balance=Decimal(10_000))
    *rows, total = by_symbol(run)

    assert total["key"] == "TOTAL"
    assert sum(row["trades"] for row in rows) == total["trades"] == len(run.trades)
    assert sum(row["net_profit"] for row in rows) == pytest.approx(total["net_profit"])
    assert run_figures(run)["net_profit"] == pytest.approx(total["net_profit"])
    assert len(trades_csv(run).splitlines()) == len(run.trades) + 1


def test_a_run_without_trades_has_figures_too():
    """A model that is never sure leaves the account as it was, and no tear sheet."""
    run = FastEngine(make_market(confident=0.0)).run(Policy(confidence_threshold=0.99), balance=Decimal(500))
    found = run_figures(run)

    assert (found["trades"], found["net_profit"], found["max_drawdown"]) == (0, 0, 0)
    assert "win_rate" not in found
    assert tear_sheet(run, "nothing") is None


def test_sweeps_try_every_combination_and_put_the_best_first():
    """Each set changes just what it says, and is what a single run with these rules would be."""
    sets = swept_policies(Policy(), ["stop_atr_multiple=1,2.5", "max_holding_candles=3,12,24"])
    engine = FastEngine(make_market(candles=900))
    rows = run_sweep(compiled(engine, balance=Decimal(10_000), costs=VenueCosts()), sets)
    best = [row.figures["sharpe"] for row in rows]

    assert len(rows) == 6
    assert best == sorted(best, reverse=True)
    for row in rows:
        assert row.figures == pytest.approx(run_figures(engine.run(row.policy, balance=Decimal(10_000))))
    lucky = lucky_sharpe(rows)
    assert lucky is not None
    assert 0 < lucky < 3 * np.std(best)


def test_the_word_sweeps_rules_that_the_compiled_engine_refuses():
    """A pause after losses is tried by the worker's own decisions; without it a set is what the other engine says."""
    market = make_market(candles=300)
    terms = {"balance": Decimal(10_000), "costs": VenueCosts()}
    sets = swept_policies(Policy(confidence_threshold=0.55), ["breaker_losses=1,none"])

    rows = run_sweep(by_word(market, **terms), sets)

    trades = {row.changed["breaker_losses"]: row.figures["trades"] for row in rows}
    assert 0 < trades["1"] < trades["none"]
    with pytest.raises(BadInputError, match="breaker_losses"):
        run_sweep(compiled(FastEngine(market), **terms), sets)
    free = next(row for row in rows if row.changed["breaker_losses"] == "none")
    assert free.figures == pytest.approx(compiled(FastEngine(market), **terms)(free.policy))


@pytest.mark.parametrize(
    ("sweep", "words"),
    [
        (["nonsense=1"], "stop_atr_multiple"),
        (["stop_atr_multiple"], "rule=a,b,c"),
        (["stop_atr_multiple="], "names no value"),
        (["stop_atr_multiple=nan"], "numbers"),
        (["stop_atr_multiple=-1"], r"must lie in \(0, inf\)"),
        (["max_positions=1.5"], "whole numbers"),
        (["stale_after_candles=1,2"], "no effect"),
        (["emergency_errors=1,2"], "no effect"),
        (["max_symbols=5"], "no effect"),
        (["breaker_losses=1.5"], "whole numbers"),
        (["leverage=1", "leverage=2"], "swept once"),
        ([f"{rule}={','.join(map(str, range(1, 400)))}" for rule in ("cooldown_seconds", "max_holding_candles")],
         "at most 100,000"),
    ],
)  # fmt: skip
def test_unusable_sweeps_say_what_is_usable(sweep, words):
    """A rule that does not exist is answered with those that do."""
    with pytest.raises(BadInputError, match=words):
        swept_policies(Policy(), sweep)


def test_what_fits_no_engine_is_refused():
    """Windows, balances and notionals that cannot be are told before anything is computed."""
    with pytest.raises(BadInputError, match="ends after its start"):
        Asked.of(FlowSettings.of(), start="2026-01-02", end="2026-01-01")
    with pytest.raises(BadInputError, match="finer than the venue counts"):
        FastEngine(make_market()).run(Policy(), balance=Decimal("0.123456789"))
    with pytest.raises(BadInputError, match="choose less"):
        FastEngine(make_market()).run(Policy(max_notional=Decimal(10**9)), balance=Decimal(1000))
    with pytest.raises(BadInputError, match="at least two candles"):
        make_market().between(START_MS, START_MS + STEP_MS)
    with pytest.raises(BadInputError, match="not one candle"):
        ScoredMarket.of({}, atr={}, opinions={}, timeframe_ms=STEP_MS, threshold=0.6, model_version="1")


@pytest.mark.parametrize("seed", range(5))
def test_the_path_inside_a_candle_touches_all_four_prices(seed):
    """It starts at the open, ends at the close, reaches both extremes and never leaves them."""
    rng = np.random.default_rng(seed)
    opened, close = (int(one) for one in rng.integers(900, 1100, 2))
    high, low = max(opened, close) + int(rng.integers(0, 50)), min(opened, close) - int(rng.integers(0, 50))
    first, second = (high, low) if path.up_first(opened, high, low) else (low, high)
    corners = ((0, opened), *zip(path.corners(30), (first, second, close), strict=True))
    prices = [opened]
    for (begins, start), (ends, end) in pairwise(corners):
        prices += [path.between(start, end, step - begins, ends - begins) for step in range(begins + 1, ends + 1)]

    assert len(prices) == 30
    assert (prices[0], max(prices), min(prices), prices[-1]) == (opened, high, low, close)
