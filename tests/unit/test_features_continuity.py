from __future__ import annotations

import numpy as np
import pytest

from feature_store.candle import CandleBlock, Timeframe
from feature_store.errors import BadInputError, UnknownSymbolError
from feature_store.features.definition import TAIL, WARM_UP
from feature_store.features.engine import READY_AFTER, FeatureEngine
from feature_store.features.live import LiveFeatures
from tests.feature_support import STEP, market, same, without


def test_a_short_gap_is_bridged_and_counted():
    """Up to 64 missing candles, features go on, and the state says what was missing."""
    block = without(market(300), slice(100, 100 + TAIL))
    engine = FeatureEngine(Timeframe.M5)
    features = engine.advance(block)
    assert np.isfinite(features[max(WARM_UP) :]).all()
    state = engine.continuity
    assert (state.gaps_bridged, state.candles_missing, state.restarts) == (1, TAIL, 0)
    assert state.candles_since_gap == len(block) - 100
    assert state.candles == len(block)


def test_a_long_gap_begins_the_series_afresh_and_says_so():
    """After more than 64 missing candles nothing that is remembered is recent."""
    block = without(market(400), slice(100, 101 + TAIL))
    engine = FeatureEngine(Timeframe.M5)
    features = engine.advance(block)
    alone = FeatureEngine(Timeframe.M5).advance(block[100:])
    assert same(features[100:], alone)
    state = engine.continuity
    assert (state.gaps_bridged, state.candles_missing, state.restarts) == (0, TAIL + 1, 1)
    assert state.first_open_time_ms == block.open_time_ms[100]


def test_an_impossible_candle_changes_nothing():
    """A block that is refused leaves the state as it was."""
    block = market(100)
    engine = FeatureEngine(Timeframe.M5)
    engine.advance(block[:50])
    before = {name: array.copy() for name, array in engine.state.arrays().items()}
    values = block.values[50:].copy()
    values[30, 3] = np.nan
    with pytest.raises(BadInputError):
        engine.advance(CandleBlock(block.open_time_ms[50:], values))
    assert all(same(before[name], array) for name, array in engine.state.arrays().items())


def test_an_empty_block_changes_nothing():
    """No candles, no rows."""
    engine = FeatureEngine(Timeframe.M5)
    assert engine.advance(CandleBlock.empty()).shape == (0, 49)
    assert engine.last_open_time_ms is None


def test_live_features_are_ready_after_warm_up_and_a_full_window():
    """A symbol is ready with the very candle that completes its window, and not before."""
    live = LiveFeatures(["BTC/USDT:USDT"])
    block = market(READY_AFTER)
    live.advance("BTC/USDT:USDT", block[:-1])
    assert not live.latest().ready[0]
    live.advance("BTC/USDT:USDT", block[-1:])
    assert live.latest().ready[0]


def test_latest_is_a_copy():
    """What was handed out does not move when the next candle comes."""
    live = LiveFeatures(["BTC/USDT:USDT"])
    block = market(READY_AFTER + 1)
    live.advance("BTC/USDT:USDT", block[:-1])
    latest = live.latest()
    kept = [array.copy() for array in latest[1:]]
    live.advance("BTC/USDT:USDT", block[-1:])
    assert all(same(array, copy) for array, copy in zip(latest[1:], kept, strict=True))
    assert same(latest.windows[:, 1:], live.latest().windows[:, :-1])


def test_rebuild_takes_in_a_late_candle():
    """After a late candle was stored, rebuilding gives what batch gives."""
    block = market(300)
    live = LiveFeatures(["BTC/USDT:USDT"])
    live.advance("BTC/USDT:USDT", without(block, slice(200, 201)))
    live.rebuild("BTC/USDT:USDT", block)
    fresh = LiveFeatures(["BTC/USDT:USDT"])
    fresh.advance("BTC/USDT:USDT", block)
    assert same(live.latest().windows, fresh.latest().windows)
    assert live.continuity("BTC/USDT:USDT").gaps_bridged == 0


def test_symbols_are_checked():
    """An unknown symbol and a symbol named twice are each refused with a word."""
    live = LiveFeatures(["BTC/USDT:USDT"])
    with pytest.raises(UnknownSymbolError, match="no symbol 'X'"):
        live.advance("X", market(1))
    with pytest.raises(BadInputError, match="once"):
        LiveFeatures(["A", "A"])


def test_a_hundred_symbols_take_little_memory():
    """States and windows of 100 symbols stay far below the worker's budget."""
    live = LiveFeatures([f"S{number}" for number in range(100)])
    arrays = [array for engine in live._engines.values() for array in engine.state.arrays().values()]
    assert sum(array.nbytes for array in arrays) < 2_000_000


def test_steps_are_those_of_the_timeframe():
    """A candle off the grid of the timeframe is refused."""
    engine = FeatureEngine(Timeframe.H1)
    with pytest.raises(BadInputError, match="multiples of 1h"):
        engine.advance(market(3, start_ms=STEP))
