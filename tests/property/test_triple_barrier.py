"""Triple barriers: what the worker's own exit rules do, nothing before it is known, the same in every currency."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.candle import CandleBlock
from feature_store.errors import BadInputError
from flows.training.costs import Funding, TradingCosts
from flows.training.triple_barrier import BarrierRule, Touched, barrier_prices, triple_barrier
from inference.domain.policy import Policy
from inference.domain.signal import Direction
from inference.exits.barriers import barriers
from tests.label_support import STEP, average_range, driven_by_hand, instrument, market_on_ticks, without_rows

FREE = TradingCosts(taker_fee=0, half_spread=0, slippage=0)
USUAL = TradingCosts(taker_fee=0.0005, half_spread=0.0001, slippage=0.0002)
SIGNS = st.sampled_from([1, -1])
POLICIES = st.builds(
    Policy,
    stop_atr_multiple=st.sampled_from([Decimal("0.5"), Decimal("1.5"), Decimal(3)]),
    target_atr_multiple=st.sampled_from([Decimal("0.7"), Decimal(2), Decimal(4)]),
    max_holding_candles=st.integers(1, 12),
)


def _labels(block, atr, policy, direction, costs=USUAL, **more):
    rule = BarrierRule.of(policy, timeframe_ms=STEP, price_tick=0.01)
    return triple_barrier(block, atr, rule, direction=direction, costs=costs, timeframe_ms=STEP, **more)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), sign=SIGNS, policy=POLICIES, gaps=st.lists(st.integers(1, 148), max_size=4))
def test_labels_are_what_the_worker_does_candle_by_candle(seed, sign, policy, gaps):
    """Barrier, holding time, moment and exit price equal those of the worker's own rules, driven trade by trade."""
    block = without_rows(market_on_ticks(150, seed=seed), gaps)
    atr = average_range(block, seed)
    direction = Direction.LONG if sign > 0 else Direction.SHORT
    labels = _labels(block, atr, policy, sign)

    for at, slow in enumerate(driven_by_hand(block, atr, policy, direction=direction, half_spread=USUAL.half_spread)):
        if slow is None:
            assert labels.touched[at] == Touched.UNKNOWN
            assert np.isnan(labels.net_log_return[at])
            continue
        fast = (labels.touched[at], labels.held[at], labels.end_ms[at], labels.exit_price[at])
        assert fast == (slow.touched, slow.held, slow.end_ms, slow.exit_price)
        gross = sign * np.log(slow.exit_price / slow.entry)
        assert labels.gross_log_return[at] == pytest.approx(gross, rel=1e-12, abs=1e-15)
        net = gross + np.log1p(-USUAL.round_trip)
        assert labels.net_log_return[at] == pytest.approx(net, rel=1e-9, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), sign=SIGNS, cut=st.integers(1, 120), policy=POLICIES)
def test_a_beginning_gives_what_the_whole_gives(seed, sign, cut, policy):
    """A label is unknown until its last candle has closed, and from then on it stays as it is."""
    block = market_on_ticks(120, seed=seed)
    atr = average_range(block, seed)
    whole, early = _labels(block, atr, policy, sign), _labels(block[:cut], atr[:cut], policy, sign)
    now_ms = int(block.open_time_ms[cut - 1]) + STEP
    known = (whole.touched[:cut] != Touched.UNKNOWN) & (whole.end_ms[:cut] <= now_ms)

    assert ((early.touched != Touched.UNKNOWN) == known).all()
    np.testing.assert_array_equal(early.touched, np.where(known, whole.touched[:cut], 0))
    np.testing.assert_array_equal(early.held, np.where(known, whole.held[:cut], 0))
    np.testing.assert_array_equal(early.net_log_return, np.where(known, whole.net_log_return[:cut], np.nan))
    np.testing.assert_array_equal(early.result, np.where(known, whole.result[:cut], np.nan))


@given(seed=st.integers(0, 10_000), sign=SIGNS, power=st.integers(-20, 20))
def test_labels_are_the_same_in_every_currency(seed, sign, power):
    """Prices, range and tick multiplied by a power of two change no label: exactly."""
    factor = 2.0**power
    block = market_on_ticks(80, seed=seed)
    atr = average_range(block, seed)
    scaled = CandleBlock(block.open_time_ms, block.values * np.array([factor] * 4 + [1.0]))
    rule = BarrierRule(stop_atr_multiple=1.5, target_atr_multiple=2, holding_candles=6)
    ours = triple_barrier(block, atr, rule, direction=sign, costs=USUAL, timeframe_ms=STEP)
    theirs = triple_barrier(scaled, atr * factor, rule, direction=sign, costs=USUAL, timeframe_ms=STEP)

    np.testing.assert_array_equal(ours.touched, theirs.touched)
    np.testing.assert_array_equal(ours.held, theirs.held)
    np.testing.assert_array_equal(ours.net_log_return, theirs.net_log_return)
    np.testing.assert_array_equal(ours.exit_price * factor, theirs.exit_price)


@given(
    price=st.integers(1, 10**7), atr=st.floats(1e-6, 1e3), sign=SIGNS,
    tick=st.sampled_from(["0.01", "0.0001", "0.05", "0.5", "1"]),
)  # fmt: skip
def test_barrier_prices_are_those_of_the_worker(price, atr, sign, tick):
    """Floats and decimals place the same barriers, to the tick, and refuse the same trades."""
    reference = Decimal(price) * Decimal(tick)
    policy = Policy()
    exact = barriers(
        direction=Direction.LONG if sign > 0 else Direction.SHORT, reference_price=reference,
        atr=Decimal(repr(atr)), policy=policy, instrument=instrument(tick),
    )  # fmt: skip
    rule = BarrierRule.of(policy, timeframe_ms=STEP, price_tick=float(tick))
    stop, target = barrier_prices(np.array([float(reference)]), np.array([atr]), rule, sign)

    for fast, multiple, slow in (
        (stop[0], -sign * policy.stop_atr_multiple, None if exact is None else exact.stop_price),
        (target[0], sign * policy.target_atr_multiple, None if exact is None else exact.target_price),
    ):
        halves = (reference + multiple * Decimal(repr(atr))) / Decimal(tick) % 1
        if slow is not None and abs(halves - Decimal("0.5")) > Decimal("1e-6"):
            assert fast == float(slow)


def test_of_a_candle_that_touches_both_the_stop_counts():
    """Inside a candle the order of prices is unknown, so the worse is taken to have come first."""
    block = _block([(100, 100, 100, 100), (100, 110, 90, 105)])
    labels = _simple(block, atr=2.0)

    assert labels.touched[0] == Touched.STOP
    assert labels.exit_price[0] == 98.0
    assert labels.result[0] == -1


def test_a_gap_over_a_barrier_fills_at_the_open():
    """A candle that opens beyond the stop fills there, which is worse, and beyond the target there, which is better."""
    below = _block([(100, 100, 100, 100), (100, 101, 99.5, 100), (90, 99, 89, 99)])
    above = _block([(100, 100, 100, 100), (100, 101, 99.5, 100), (111, 112, 90, 99)])

    assert (_simple(below, atr=2.0).touched[0], _simple(below, atr=2.0).exit_price[0]) == (Touched.STOP, 90.0)
    assert (_simple(above, atr=2.0).touched[0], _simple(above, atr=2.0).exit_price[0]) == (Touched.TARGET, 111.0)


def test_funding_is_paid_where_a_boundary_is_crossed():
    """A long held over a boundary pays its rate, a short receives it; a boundary at the entry is not crossed."""
    block = _block([(100, 100, 100, 100)] * 5)
    times = block.open_time_ms
    rule = BarrierRule(stop_atr_multiple=1, target_atr_multiple=1, holding_candles=2)

    def net(direction, boundary):
        funding = Funding(np.array([boundary]), np.array([0.01]))
        return triple_barrier(
            block, np.ones(5), rule, direction=direction, costs=FREE, timeframe_ms=STEP, funding=funding
        ).net_log_return[0]

    assert net(1, times[1]) == 0
    assert net(1, times[2]) == pytest.approx(np.log(0.99))
    assert net(-1, times[2]) == pytest.approx(np.log(1.01))
    assert net(1, times[3]) == pytest.approx(np.log(0.99))
    assert net(1, times[3] + 1) == 0


def test_a_trade_that_could_not_be_entered_has_no_label():
    """Without a range, or with a stop below zero, the worker enters nothing, so nothing is learned."""
    block = _block([(100, 100, 100, 100)] * 4)

    for atr in (np.nan, 0.0, 101.0):
        labels = _simple(block, atr=atr)
        assert (labels.touched == Touched.UNKNOWN).all()
        assert (labels.end_ms == -1).all()
        assert np.isnan(labels.result).all()


@pytest.mark.parametrize("candles", [0, 1])
def test_too_few_candles_have_no_label(candles):
    """Of no candle, or one, nothing is known."""
    assert (_simple(market_on_ticks(3, seed=1)[:candles], atr=1.0).touched == Touched.UNKNOWN).all()


@pytest.mark.parametrize(
    "fields",
    [
        {"stop_atr_multiple": 0.0}, {"target_atr_multiple": -1.0}, {"holding_candles": 0}, {"price_tick": -0.1},
        {"stop_atr_multiple": float("nan")},
    ],
)  # fmt: skip
def test_barriers_that_lie_nowhere_are_refused(fields):
    """A rule that could never end a trade, or always does, is refused."""
    with pytest.raises(BadInputError, match="Barriers need"):
        BarrierRule(**({"stop_atr_multiple": 1.0, "target_atr_multiple": 1.0, "holding_candles": 1} | fields))


def _block(rows):
    values = np.array([[*row, 1.0] for row in rows])
    return CandleBlock(1_700_000_100_000 + STEP * np.arange(len(rows), dtype=np.int64), values)


def _simple(block, atr):
    rule = BarrierRule(stop_atr_multiple=1, target_atr_multiple=1, holding_candles=3)
    return triple_barrier(block, np.full(len(block), atr), rule, direction=1, costs=FREE, timeframe_ms=STEP)
