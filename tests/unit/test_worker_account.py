"""The account of a worker that had traded by a candidate: its figures, its interval, and hostile markets."""

from __future__ import annotations

import math
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from feature_store.candle import CandleBlock
from feature_store.errors import BadInputError
from flows.replay.market import Opinions, ScoredMarket
from flows.replay.word import replay
from flows.replay.worker_account import Terms, traded_market, worker_account
from flows.training.dataset import FrameSet, TrainingFrame
from flows.training.moments import Sampling
from flows.training.traded import TradedCandles
from inference.domain.errors import PolicyError
from inference.domain.exit_profile import BUILT_IN
from inference.domain.policy import Policy
from inference.models.manifest import TimeWindow
from infra.prove.backtest_market import make_market

HOUR_MS = 3_600_000
STEP_MS = 300_000
SAMPLING = Sampling(block_ms=2 * HOUR_MS, samples=300, seed=7)


def _account(market: ScoredMarket, terms: Terms | None = None):
    return worker_account(market, terms or Terms(), horizon_ms=HOUR_MS, sampling=SAMPLING)


def _foreseen(market: ScoredMarket, share: float, seed: int = 1) -> ScoredMarket:
    """Return a market in which a share of opinions know the next hour, and all others are chance."""
    rng = np.random.default_rng(seed)
    close = market.close.astype(np.float64)
    ahead = np.zeros(close.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        ahead[:-12] = np.log(close[12:] / close[:-12])
    ahead[~np.isfinite(ahead)] = 0
    up = np.where(rng.random(close.shape) < share, ahead > 0, rng.random(close.shape) > 0.5)
    expected = np.where(up, 0.01, -0.01)
    scored = np.isfinite(market.probability_up)
    return replace(
        market,
        expected_return=np.where(scored, expected, np.nan),
        probability_up=np.where(scored, np.where(up, 0.9, 0.1), np.nan),
    )


def test_a_policy_may_name_a_profile_of_the_home():
    """What a person wrote is traded by; without it the name is refused."""
    market = make_market(symbols=2, candles=150, seed=3, confident=0.5, missing=0.0)
    policy = Policy(exit_profile="PATIENT")
    profiles = {**BUILT_IN, "PATIENT": structs.replace(BUILT_IN["DEFAULT"], name="PATIENT")}

    _, told = _account(market, Terms(policy=policy, exits=profiles))
    _, same = _account(market, Terms(policy=Policy(exit_profile="DEFAULT")))

    assert told.equity == same.equity
    with pytest.raises(PolicyError, match="PATIENT"):
        _account(market, Terms(policy=policy))


@settings(max_examples=10)
@given(seed=st.integers(0, 10**6))
def test_the_account_is_what_the_worker_s_decisions_leave(seed):
    """Whatever market is drawn, equity at every candle is that of the worker's own code, and the figures follow it."""
    market = make_market(symbols=4, candles=150, seed=seed, confident=0.5, missing=0.03)
    word = replay(market, Policy(), balance=Decimal(10_000), costs=Terms().costs)

    found, told = _account(market)

    np.testing.assert_allclose(told.equity, word.equity, rtol=0, atol=1e-6)
    assert told.time_ms == tuple(word.time_ms.tolist())
    assert found["trades"] == len(word.trades)
    assert found["net_return"] == pytest.approx(word.equity[-1] / 10_000 - 1)
    days = len(market) * market.timeframe_ms / 86_400_000
    assert found["net_per_day_bps"] == pytest.approx(1e4 * found["net_return"] / days)
    assert found["net_per_day_bps_low"] <= found["net_per_day_bps"] <= found["net_per_day_bps_high"]
    assert 0 <= found["max_drawdown"] <= 1
    assert found["denied"] == sum(word.denied.values())


def test_who_knows_what_comes_is_above_flat_and_chance_is_not():
    """The lower end is above zero for opinions that know, and never for coins, which pay fees and spread."""
    markets = [make_market(symbols=6, candles=800, seed=seed) for seed in range(4)]

    assert all(_account(_foreseen(one, 0.8))[0]["net_per_day_bps_low"] > 0 for one in markets)
    assert all(_account(_foreseen(one, 0.0))[0]["net_per_day_bps_low"] < 0 for one in markets)


def test_a_model_that_says_nothing_earns_nothing():
    """Without opinions the account stays flat: a gain of exactly zero, which is not above zero."""
    market = make_market(symbols=3, candles=300, seed=2)
    silent = replace(market, probability_up=np.full_like(market.probability_up, np.nan))

    found, told = _account(silent)

    assert set(told.equity) == {10_000.0}
    assert [found[f"net_per_day_bps{end}"] for end in ("_low", "", "_high")] == [0, 0, 0]
    assert found["trades"] == found["max_drawdown"] == found["exposure"] == 0
    assert "sharpe_per_day" not in found
    assert all(map(math.isfinite, found.values()))


def test_rules_too_large_for_whole_numbers_are_walked_through_in_decimals():
    """What the compiled walk cannot count exactly is replayed by the worker's own code, with no figure lost."""
    market = make_market(symbols=2, candles=80, seed=4)
    policy = Policy(max_notional=Decimal(10) ** 13, leverage=1)

    found, told = _account(market, Terms(policy=policy))

    word = replay(market, policy, balance=Decimal(10_000), costs=Terms(policy=policy).costs)
    assert told.equity == tuple(word.equity.tolist())
    assert found["trades"] == len(word.trades)


def test_blocks_are_as_long_as_positions_may_be_held():
    """Longer holdings make longer blocks, so that neighbours do not share a position: the interval is another."""
    market = _foreseen(make_market(symbols=6, candles=800, seed=5), 0.5)
    policy = Policy(max_holding_candles=12)
    hour, day = (
        worker_account(market, Terms(policy=policy), horizon_ms=horizon, sampling=SAMPLING)[0]
        for horizon in (HOUR_MS, 24 * HOUR_MS)
    )

    assert hour["net_per_day_bps"] == pytest.approx(day["net_per_day_bps"])
    assert hour["net_per_day_bps_low"] != day["net_per_day_bps_low"]


def _frames(*, count: int = 40, priced: bool = True, **changed: np.ndarray) -> FrameSet:
    times = STEP_MS * np.arange(count, dtype=np.int64)
    close = changed.get("close", np.full(count, 100.0))
    block = CandleBlock(times, np.stack([close, close, close, close, np.ones(count)], axis=1))
    traded = TradedCandles(block=block, atr=changed.get("atr", np.full(count, 0.5)), tick=0.01)
    frame = TrainingFrame("A/USDT", times, np.zeros((count, 1), np.float32), np.zeros(count), close)
    return FrameSet((replace(frame, traded=traded if priced else None),), ("x",), "f" * 64, STEP_MS)


def _said(count: int = 40) -> dict[str, Opinions]:
    return {"A/USDT": Opinions(STEP_MS * np.arange(count, dtype=np.int64), np.full(count, 0.01), np.full(count, 0.9))}


def test_a_market_is_that_of_its_window():
    """Only candles of the window are there, each with its opinion and its range."""
    window = TimeWindow(start_ms=10 * STEP_MS, end_ms=30 * STEP_MS)
    market = traded_market(_frames(), _said(), window, threshold=0.6, version="1")

    assert (market.start_ms, market.end_ms) == (window.start_ms, window.end_ms)
    assert market.scored == len(market) == 20
    assert market.threshold == 0.6


@pytest.mark.parametrize(
    ("frames", "window", "said"),
    [
        pytest.param(_frames(priced=False), (0, 40), "A/USDT", id="no-prices"),
        pytest.param(_frames(), (100, 140), "not one candle", id="no-candle-in-the-window"),
        pytest.param(_frames(), (0, 1), "two candles", id="one-candle"),
    ],
)
def test_what_cannot_be_traded_is_refused(frames, window, said):
    """Without prices, or candles to trade in, there is no market, and the refusal says which."""
    start, end = (STEP_MS * place for place in window)
    with pytest.raises(BadInputError, match=said):
        traded_market(frames, _said(), TimeWindow(start_ms=start, end_ms=end), threshold=0.5, version="1")


def test_candles_without_a_range_are_not_decided_on():
    """Where no range is known no stop can be placed: there is no opinion, and no trade."""
    frames = _frames(atr=np.full(40, np.nan))
    market = traded_market(frames, _said(), TimeWindow(start_ms=0, end_ms=40 * STEP_MS), threshold=0.5, version="1")

    assert market.scored == 0
    assert _account(market)[0]["trades"] == 0


@pytest.mark.parametrize("column", ["atr", "funding_rate"])
def test_columns_of_unequal_lengths_are_refused(column):
    """A range for each candle, a rate for each moment, or nothing."""
    block = CandleBlock(np.arange(3, dtype=np.int64) * STEP_MS, np.ones((3, 5)))
    given = {"block": block, "atr": np.ones(3)} | {column: np.ones(2)}
    with pytest.raises(BadInputError, match="need"):
        TradedCandles(**given)
