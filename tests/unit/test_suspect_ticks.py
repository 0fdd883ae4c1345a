from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.candle import CLOSE, HIGH, LOW, OPEN, VOLUME, CandleBlock, Timeframe
from feature_store.ticks import TickFault, suspect_ticks
from tests.feature_support import STEP, T0, market, without

quick = settings(max_examples=40, deadline=None)


def changed(block: CandleBlock, row: int, **values: float) -> CandleBlock:
    """Return a block with some values of one candle multiplied."""
    copy = block.values.copy()
    for column, factor in values.items():
        copy[row, {"open_": OPEN, "high": HIGH, "low": LOW, "close": CLOSE, "volume": VOLUME}[column]] *= factor
    return CandleBlock(block.open_time_ms, copy)


def faults(block: CandleBlock) -> list[tuple[int, TickFault]]:
    """Return the rows and faults that are found."""
    return [((tick.open_time_ms - T0) // STEP, tick.fault) for tick in suspect_ticks(block, Timeframe.M5)]


@quick
@given(seed=st.integers(0, 10_000), flat=st.sampled_from([0.0, 0.1, 0.9, 1.0]), tick=st.sampled_from([0.0001, 0.01, 1]))
def test_markets_with_fat_tails_have_no_suspect_tick(seed, flat, tick):
    """Jumps of a fat-tailed market, stillness, and coarse price steps are ordinary."""
    assert faults(market(600, seed=seed, flat=flat, tick=tick)) == []


@quick
@given(seed=st.integers(0, 100), row=st.integers(1, 598), factor=st.floats(2, 1000), falls=st.booleans())
def test_a_wick_is_found_wherever_it_is(seed, row, factor, falls):
    """One far low or high is flagged, and no other candle is because of it."""
    change = {"low": 1 / factor} if falls else {"high": factor}
    assert faults(changed(market(600, seed=seed, flat=0.0), row, **change)) == [(row, TickFault.WICK)]


@quick
@given(row=st.integers(1, 598), factor=st.floats(1.5, 100))
def test_a_close_that_reverts_at_once_is_a_spike(row, factor):
    """The candle that left is the spike; the way back is told as a wick or jump of the next candle at most."""
    block = changed(market(600, flat=0.0), row, close=factor, high=factor)
    found = faults(block)
    assert found[0] == (row, TickFault.SPIKE)
    assert {at for at, _ in found} <= {row, row + 1}


def test_a_price_that_stays_is_a_jump():
    """A candle that rises by 249 % is flagged also where the price does not come back."""
    block = market(400)
    values = block.values.copy()
    values[200:, :VOLUME] *= 3.49
    values[200, OPEN] /= 3.49
    values[200, LOW] /= 3.49

    assert faults(CandleBlock(block.open_time_ms, values)) == [(200, TickFault.JUMP)]


def test_a_move_without_volume_is_found():
    """Where nothing traded, no price can have changed."""
    block = market(200, flat=0.0)
    assert faults(changed(block, 50, volume=0.0)) == [(50, TickFault.SILENT_MOVE)]


def test_a_move_across_a_gap_is_not_judged():
    """After an outage the market may open anywhere."""
    block = market(400)
    values = block.values.copy()
    values[200:, :VOLUME] *= 3.49
    moved = CandleBlock(block.open_time_ms, values)
    assert faults(moved) != []
    assert faults(without(moved, np.r_[190:200])) == []


@pytest.mark.parametrize("candles", [0, 1, 2, 96, 97])
def test_short_blocks_are_judged_too(candles):
    """Few candles are no error."""
    assert faults(market(100)[:candles]) == []


def test_what_is_found_is_measured():
    """A flag tells the size of the move, and how unusual it is."""
    (tick,) = suspect_ticks(changed(market(300), 100, low=0.001), Timeframe.M5)
    assert 6.5 < tick.move < 7.5
    assert tick.usual_ranges > 200
