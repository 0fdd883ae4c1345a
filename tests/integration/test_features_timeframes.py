"""The one definition of the 49 on 15m and 1h: lake, store, training frames and live."""

from __future__ import annotations

import numpy as np
import pytest

from feature_store.candle import Series, Timeframe
from feature_store.features.definition import FEATURE_NAMES, WARM_UP, fingerprint
from feature_store.features.engine import FeatureEngine
from feature_store.features.live import LiveFeatures
from feature_store.features.state import state_path
from feature_store.lake import CandleLake
from feature_store.store import FeatureStore
from flows.training.dataset import FrameSet
from infra.prove.reference_talib import TALIB
from tests.feature_support import market, same


@pytest.mark.parametrize("timeframe", [Timeframe.M15, Timeframe.H1])
def test_lake_store_and_live_agree_on_other_timeframes(tmp_path, timeframe):
    """Stored, materialized, framed, as of a moment, restored from its state, and live: the same 49, to the bit."""
    series = Series("sandbox", "BTC/USDT:USDT", timeframe)
    block = market(700, seed=11, timeframe=timeframe)
    lake, store = CandleLake(tmp_path / "lake"), FeatureStore(tmp_path / "features")
    lake.append(series, block[:600])
    store.materialize(lake, [series])
    live = LiveFeatures([series.symbol], timeframe)
    assert live.load(state_path(store.root, series), series)
    later = np.concatenate([live.advance(series.symbol, block[at : at + 1]) for at in range(600, 700)])
    lake.append(series, block[600:])
    store.materialize(lake, [series])

    whole = FeatureEngine(timeframe).advance(block)
    times, stored = store.read(series)
    frame = store.training_frame(lake, [series], 0, int(block.open_time_ms[-1]) + 1, 12)[series]
    newest = store.features_as_of(lake, [series], int(block.open_time_ms[-1]) + 10**9)[series]
    assert same(later, whole[600:])
    assert same(stored, whole)
    assert times.tolist() == block.open_time_ms.tolist()
    assert same(frame.features, whole)
    assert same(newest.features, whole[-1])
    assert store.verify(lake, series) == 0
    assert np.isfinite(whole[max(WARM_UP) :]).all()
    assert FrameSet.of_store({series: frame}).timeframe_ms == timeframe.milliseconds
    assert FrameSet.of_store({series: frame}).feature_fingerprint == fingerprint()


@pytest.mark.parametrize("timeframe", [Timeframe.M15, Timeframe.H1])
def test_windows_count_candles_whatever_their_length(timeframe):
    """The same prices on another timeframe give the same features: nothing in the definition knows of minutes."""
    fast, slow = market(400, seed=12), market(400, seed=12, timeframe=timeframe)

    assert fast.values.tolist() == slow.values.tolist()
    assert same(FeatureEngine(Timeframe.M5).advance(fast), FeatureEngine(timeframe).advance(slow))
    assert set(TALIB) <= set(FEATURE_NAMES)
