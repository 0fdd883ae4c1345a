"""Exits are scored by the worker's own decisions, on the fold's candles and on none after them."""

from __future__ import annotations

from dataclasses import replace as with_fields
from decimal import Decimal

import numpy as np
import pytest

from feature_store.candle import CandleBlock
from feature_store.errors import BadInputError
from flows.replay.market import Opinions, ScoredMarket, VenueCosts
from flows.replay.word import replay
from flows.training.config import BarrierSizes, TrainingConfig
from flows.training.dataset import Rows
from flows.tuning.exits import BALANCE, Said, TradedMarket, base_policy, policy_with, traded_net
from flows.tuning.search import Task, search
from flows.tuning.space import Space
from flows.tuning.studies import Place, open_study, tried
from inference.domain.errors import PolicyError
from inference.domain.policy import Policy
from inference.models.manifest import TimeWindow
from tests.training_support import make_frames

STEP_MS, START_MS, CANDLES = 300_000, 1_735_689_600_000, 400
SYMBOLS = ("A/USDT:USDT", "B/USDT:USDT")
SIZES = BarrierSizes(stop_atr_multiple=1.37, target_atr_multiple=2.5, holding_candles=7)
POLICY = Policy(max_positions=5)
WINDOW = TimeWindow(start_ms=START_MS + 100 * STEP_MS, end_ms=START_MS + 300 * STEP_MS)


@pytest.fixture(scope="module")
def market() -> ScoredMarket:
    """Return two walks of prices, of which nobody has an opinion."""
    rng = np.random.default_rng(5)
    times = START_MS + STEP_MS * np.arange(CANDLES, dtype=np.int64)
    blocks = {}
    for symbol in SYMBOLS:
        close = np.round(100 * np.exp(np.cumsum(0.002 * rng.standard_normal(CANDLES))), 2)
        opened = np.concatenate([[100.0], close[:-1]])
        wick = np.round(0.2 * rng.random(CANDLES), 2)
        high, low = np.maximum(opened, close) + wick, np.minimum(opened, close) - wick
        blocks[symbol] = CandleBlock(times, np.stack([opened, high, low, close, np.full(CANDLES, 1e6)], axis=1))
    return ScoredMarket.of(
        blocks,
        atr=dict.fromkeys(SYMBOLS, np.full(CANDLES, 0.3)),
        opinions={},
        timeframe_ms=STEP_MS,
        threshold=1.0,
        model_version="test",
    )


@pytest.fixture(scope="module")
def rows() -> Rows:
    """Return all rows of both symbols in the window."""
    times = np.arange(WINDOW.start_ms, WINDOW.end_ms, STEP_MS, dtype=np.int64)
    series = np.repeat([0, 1], len(times))
    return Rows(np.arange(len(series)), series, np.tile(times, 2), np.zeros(len(series)))


@pytest.fixture(scope="module")
def said(rows: Rows) -> Said:
    """Return opinions that trade now and then."""
    expected = 0.01 * np.random.default_rng(6).standard_normal(len(rows))
    return Said(expected, np.clip(0.5 + 20 * expected, 0.02, 0.98), 0.6)


def test_a_market_without_opinions_trades_nothing(market: ScoredMarket) -> None:
    """Candles alone are silent, and no confidence is enough for them."""
    assert market.scored == 0
    assert replay(market, POLICY, balance=BALANCE).trades == ()


def test_a_score_is_of_the_trades_that_the_worker_makes(market: ScoredMarket, rows: Rows, said: Said) -> None:
    """The net of each trade is what the worker's own decisions leave, fees and spread paid."""
    net = traded_net(TradedMarket(market, POLICY), SIZES, said, rows, SYMBOLS, WINDOW)

    opinions = {
        symbol: Opinions(rows.open_time_ms[mine], said.expected[mine], said.probability_up[mine])
        for number, symbol in enumerate(SYMBOLS)
        if (mine := rows.series == number).any()
    }
    cut = market.between(WINDOW.start_ms, WINDOW.end_ms).with_opinions(opinions, threshold=said.threshold)
    costs = VenueCosts(taker_fee=POLICY.taker_fee)
    word = replay(cut, policy_with(POLICY, SIZES), balance=BALANCE, costs=costs)
    expected = [float(one.net / (one.quantity * one.entry_price)) for one in word.trades]
    assert len(net) > 20
    np.testing.assert_allclose(np.sort(net), np.sort(expected), rtol=0, atol=1e-9)
    assert {one.reason for one in word.trades} >= {"STOP", "TARGET"}


def test_other_exits_make_other_trades(market: ScoredMarket, rows: Rows, said: Said) -> None:
    """A score depends on what is searched."""
    traded = TradedMarket(market, POLICY)
    wide = BarrierSizes(stop_atr_multiple=6.0, target_atr_multiple=9.0, holding_candles=40)
    scores = [traded_net(traded, sizes, said, rows, SYMBOLS, WINDOW).sum() for sizes in (None, SIZES, wide)]
    assert len(set(scores)) == 3


def test_candles_after_the_window_change_no_score(market: ScoredMarket, rows: Rows, said: Said) -> None:
    """A trade that is open at its end is closed there."""
    prices = market.prices.copy()
    prices[300:] *= 3
    late = with_fields(market, prices=prices)
    found = [traded_net(TradedMarket(one, POLICY), SIZES, said, rows, SYMBOLS, WINDOW) for one in (market, late)]
    np.testing.assert_array_equal(found[0], found[1])


def test_no_exits_leave_a_policy_as_it_is() -> None:
    """Sizes are taken to the digit, and only where there are some."""
    assert policy_with(POLICY, None) is POLICY
    assert policy_with(POLICY, SIZES).stop_atr_multiple == Decimal("1.37")
    assert policy_with(POLICY, SIZES).max_holding_candles == 7


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        pytest.param({"breaker_losses": 3}, "does not know breaker_losses; leave it out$", id="unknown-rule"),
        pytest.param({"max_notional": Decimal(10**9)}, "exactly; choose less$", id="too-large"),
    ],
)
def test_rules_that_no_trial_could_trade_by_are_refused(tmp_path, market: ScoredMarket, rules, words) -> None:
    """Before there is a trial, with the rule's name, and without an engine that a search does not have."""
    base = TrainingConfig(created_at="2026-01-01T00:00:00+00:00", code_version="test")
    traded, place = TradedMarket(market, Policy(**rules)), Place(name="a", folder=tmp_path)
    task = Task(base=base, space=Space(parts=("exits",)), frames={"forward": make_frames(series=2)}, traded=traded)

    with pytest.raises(BadInputError, match=rf"Part exits cannot trade by this policy\. .*{words}"):
        search(place, task, trials=2, processes=2, progress=lambda *_told: None)

    assert tried(open_study(place)) == []


def test_exits_are_not_searched_by_a_profile_that_has_its_own(tmp_path) -> None:
    """The policy's file is refused as it is read, before anything is loaded."""
    path = tmp_path / "policy.toml"
    path.write_text('[policy]\nexit_profile = "DEFAULT"\n')
    with pytest.raises(PolicyError, match="goes by exit_profile DEFAULT; leave that rule out"):
        base_policy("members, exits", str(path))
