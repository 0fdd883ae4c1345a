from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.sandbox.market.equations import (
    DEFAULT_EDGE,
    attainable_information_coefficient,
    oracle_information_coefficient,
)
from infra.sandbox.market.recording import Recorded, Recording
from infra.sandbox.market.replay import ReplayMarket
from infra.sandbox.market.series import (
    DAY_MS,
    INTERVALS,
    MINUTE_MS,
    TICK_MS,
    Market,
    candles_between,
    from_ticks,
    group,
    next_open,
    open_time,
    open_times,
)
from infra.sandbox.market.synthetic import SyntheticMarket

START = 1_767_571_200_000


@lru_cache
def synthetic(edge: float = 0.3, symbols: int = 3, days: int = 3, seed: int = 7) -> SyntheticMarket:
    return SyntheticMarket(symbols=symbols, seed=seed, edge=edge, start_ms=START, history_days=days)


@lru_cache
def replay() -> ReplayMarket:
    draw = np.random.default_rng(3)
    times = START - 3 * DAY_MS + np.arange(3 * 288, dtype=np.int64) * 5 * MINUTE_MS
    kept = draw.random(len(times)) > 0.05
    close = 50.0 + np.cumsum(draw.normal(0, 0.1, len(times))).round(2)
    opened = np.concatenate(([50.0], close[:-1]))
    high, low = np.maximum(opened, close) + 0.07, np.minimum(opened, close) - 0.05
    values = np.column_stack([opened, high, low, close, draw.integers(1, 900, len(times))]).round(2)
    recorded = Recorded("COINUSDT", "COIN", times[kept], values[kept])
    return ReplayMarket(Recording(5 * MINUTE_MS, (recorded,), 0), start_ms=START - DAY_MS, history_days=2)


def test_each_recorded_instrument_is_listed_when_its_candles_begin() -> None:
    """One that was recorded later than others says so, and a synthetic one is there from the beginning."""
    times = START - 3 * DAY_MS + np.arange(3 * 288, dtype=np.int64) * 5 * MINUTE_MS
    values = np.tile([50.0, 51.0, 49.0, 50.0, 10.0], (len(times), 1))
    recorded = (Recorded("AUSDT", "A", times, values), Recorded("BUSDT", "B", times[100:], values[100:]))
    market = ReplayMarket(Recording(5 * MINUTE_MS, recorded, 0), start_ms=START - DAY_MS, history_days=2)

    assert [market.listed_ms(index) for index in range(2)] == [times[0], times[100]]
    assert synthetic().listed_ms(0) == synthetic().first_ms


markets = st.sampled_from([synthetic, replay])
times = st.integers(START - 3 * DAY_MS, START - 1)


def check_same(left, right) -> None:
    for name in ("open_time", "open", "high", "low", "close", "volume"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name), err_msg=name)
    np.testing.assert_allclose(left.quote, right.quote, rtol=1e-9)


@settings(max_examples=60, deadline=None)
@given(markets, times, st.integers(1, 2 * 86_400_000), times, st.sampled_from(["15m", "1h", "4h", "1d", "3d", "1w"]))
def test_larger_candles_aggregate_smaller_ones(make, start, span, now, interval):
    """Whatever is asked, when and from where, a larger timeframe is the sum of the 5m candles inside it."""
    market: Market = make()
    larger = candles_between(market, 0, interval, start, start + span, now_ms=now)
    if not len(larger):
        return
    end = next_open(interval, int(larger.open_time[-1]))
    smaller = candles_between(market, 0, "5m", int(larger.open_time[0]), end, now_ms=now)

    check_same(group(smaller, open_times(interval, smaller.open_time)), larger)


@settings(max_examples=60, deadline=None)
@given(markets, times, st.integers(1, 6 * 3_600_000), st.sampled_from(["1m", "3m", "5m", "15m", "1h"]))
def test_candles_are_made_of_the_ticks(make, start, span, interval):
    """Candles, closed or not, are exactly what the ticks say: streams, trades and klines cannot disagree."""
    market: Market = make()
    start = open_time(interval, max(start, market.first_ms))
    now = start + span
    candles = candles_between(market, 0, interval, start, now + 1, now_ms=now)
    ticks = from_ticks(market, 0, start, now + 1)
    by_ticks = group(ticks, open_times(interval, ticks.open_time))
    for name in ("open_time", "open", "high", "low", "close", "volume"):
        np.testing.assert_array_equal(getattr(candles, name), getattr(by_ticks, name), err_msg=name)


@settings(max_examples=40, deadline=None)
@given(markets, times, st.integers(0, 86_400_000), st.sampled_from(["1m", "5m", "1h"]))
def test_nothing_later_than_now_is_told(make, now, back, interval):
    """Asking again later changes no closed candle; the future is not in any answer."""
    market: Market = make()
    early = candles_between(market, 0, interval, now - back, now + DAY_MS, now_ms=now)
    late = candles_between(market, 0, interval, now - back, now + 1, now_ms=START)
    closed = early.open_time + INTERVALS[interval] <= now
    count = int(closed.sum())

    assert (early.open_time <= now).all()
    check_same(early.slice(0, count), late.slice(0, count))


def test_the_path_depends_on_seed_and_time_only():
    """The same seed gives the same prices again, whatever was asked before and however many symbols there are."""
    first, second = synthetic(), SyntheticMarket(symbols=5, seed=7, edge=0.3, start_ms=START, history_days=3)
    later = second.ticks(START // DAY_MS + 2)
    np.testing.assert_array_equal(first.ticks(START // DAY_MS + 2).price, later.price[:, :3])
    np.testing.assert_array_equal(
        SyntheticMarket(symbols=5, seed=7, edge=0.3, start_ms=START, history_days=3, names=("SOLUSDT",))
        .ticks(START // DAY_MS)
        .volume[:, 0],
        first.ticks(START // DAY_MS).volume[:, 2],
    )
    assert (synthetic(seed=8).ticks(START // DAY_MS).price != first.ticks(START // DAY_MS).price).mean() > 0.9


def _returns_and_volumes(market: SyntheticMarket) -> tuple[np.ndarray, np.ndarray]:
    minutes = [candles_between(market, i, "5m", market.first_ms, START, now_ms=START) for i in range(8)]
    prices = np.log(np.array([one.close for one in minutes], float))
    return np.diff(prices, axis=1), np.log(np.array([one.volume for one in minutes], float))[:, 1:]


def _hour_ahead(returns: np.ndarray) -> np.ndarray:
    path = np.cumsum(returns, axis=1)
    return path[:, 12:] - path[:, :-12]


def _correlation(signal: np.ndarray, target: np.ndarray) -> float:
    """Pooled over symbols, each standardised."""
    left = (signal - signal.mean(1, keepdims=True)) / signal.std(1, keepdims=True)
    right = (target - target.mean(1, keepdims=True)) / target.std(1, keepdims=True)
    return float((left * right).mean())


@pytest.mark.parametrize("seed", [1, 2])
def test_without_edge_nothing_can_be_found(seed):
    """With edge 0 neither recent returns nor volume say anything about the next hour; five sigma bounds."""
    returns, volumes = _returns_and_volumes(synthetic(0.0, 8, 30, seed))
    target = _hour_ahead(returns)
    # Overlapping hours and a common factor leave about one independent value per symbol pair and hour.
    bound = 5.0 / np.sqrt(target.shape[1] / 12 * 4)
    momentum = np.array([np.convolve(row, np.ones(24), "full")[: len(row)] for row in returns])
    quiet = np.array([np.convolve(row, np.ones(12) / 12, "full")[: len(row)] for row in volumes])

    assert abs(_correlation(momentum[:, 24:-12], target[:, 24:])) < bound
    assert abs(_correlation(quiet[:, 24:-12], target[:, 24:])) < bound
    assert abs(_correlation(returns[:, 1:], returns[:, :-1])) < 5.0 / np.sqrt(returns.shape[1] * 4)


@pytest.mark.parametrize("edge", [0.3, DEFAULT_EDGE])
def test_with_edge_the_latent_predicts_as_documented(edge):
    """The hidden component correlates with the next hour's return as `edge` says, and volume carries part of it."""
    market = synthetic(edge, 8, 30, 1)
    returns, volumes = _returns_and_volumes(market)
    days = range(market.first_ms // DAY_MS, START // DAY_MS)
    latent = np.concatenate([market.latent(day) for day in days], axis=1)[:, 4::5][:, 1:]
    target = _hour_ahead(returns)
    found = _correlation(latent[:, :-12], target)
    leaked = _correlation(
        np.array([np.convolve(row, np.ones(12) / 12, "full")[: len(row)] for row in volumes])[:, 24:-12], target[:, 24:]
    )

    assert found == pytest.approx(oracle_information_coefficient(edge), abs=0.06)
    assert leaked > 0.08
    assert 0.8 * edge < attainable_information_coefficient(edge) < oracle_information_coefficient(edge)
    assert attainable_information_coefficient(0.0) == 0.0


def test_volatility_clusters_and_jumps():
    """Size is predictable even where sign is not: absolute returns are autocorrelated and tails are heavy."""
    returns, _ = _returns_and_volumes(synthetic(0.0, 8, 30, 1))
    size = np.abs(returns)
    standard = returns / returns.std(1, keepdims=True)

    assert _correlation(size[:, 1:], size[:, :-1]) > 0.08
    assert float((standard**4).mean()) > 4.0
    assert np.corrcoef(returns)[0, 1] > 0.3


def test_the_day_has_its_hours():
    """Candles move most in the early American afternoon and least before the European morning, by half as much more."""
    market = synthetic(0.0, 8, 30, 1)
    returns, _ = _returns_and_volumes(market)
    size = np.abs(np.concatenate([returns, returns[:, -1:]], axis=1))
    days = size[:, : size.shape[1] // 288 * 288].reshape(8, -1, 24, 12)
    hours = days.mean(axis=(0, 1, 3)) / days.mean()

    assert hours[12:18].mean() > 1.4 * hours[1:7].mean()
    assert 10 <= int(hours.argmax()) <= 19


def test_jumps_go_either_way():
    """Now and then a minute moves far beyond what the half hour before it would allow, up as often as down."""
    market = synthetic(0.0, 8, 30, 1)
    minutes = [candles_between(market, i, "1m", market.first_ms, START, now_ms=START) for i in range(8)]
    returns = np.diff(np.log(np.array([one.close for one in minutes], float)), axis=1)
    before = np.sqrt(np.array([np.convolve(row**2, np.ones(30) / 30, "full")[: len(row)] for row in returns]))
    moves = returns[:, 30:] / before[:, 29:-1]
    far = moves[np.abs(moves) > 6.0]

    assert 20 < len(far) < 8 * 30
    assert 0.25 < float((far > 0).mean()) < 0.75


def test_replay_tells_what_was_recorded():
    """Recorded candles come back as recorded, missing ones stay missing, and volume is shared out without loss."""
    market = replay()
    recorded = market._series[0]
    candles = candles_between(market, 0, "5m", market.first_ms, START, now_ms=START)

    np.testing.assert_array_equal(candles.open_time, recorded.open_time)
    scale = 10.0 ** market.instruments[0].price_decimals
    np.testing.assert_allclose(candles.close / scale, recorded.values[:, 3])
    ticks = from_ticks(market, 0, market.first_ms, START)
    assert ticks.volume.sum() == candles.volume.sum()
    assert len(ticks) == len(candles) * 5 * MINUTE_MS // TICK_MS
