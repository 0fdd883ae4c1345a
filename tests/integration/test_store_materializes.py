from __future__ import annotations

import numpy as np
import pytest

from feature_store.candle import CandleBlock, Series, Timeframe
from feature_store.errors import CorruptFileError
from feature_store.features.engine import FeatureEngine, model_inputs
from feature_store.features.state import state_path
from feature_store.lake import CandleLake
from feature_store.partitions import series_folder
from feature_store.sources.recorded import import_file
from feature_store.store import FeatureStore
from tests.feature_support import BTC, ETH, STEP, market, recorded, same, without

# Two months, and a gap in each of them.
BLOCK = without(market(9_000, flat=0.05), np.r_[1_000:1_010, 8_000:8_003])


@pytest.fixture
def lake(tmp_path):
    lake = CandleLake(tmp_path / "lake")
    lake.append(BTC, BLOCK)
    lake.append(ETH, market(500, seed=2))
    return lake


@pytest.fixture
def store(tmp_path):
    return FeatureStore(tmp_path / "features")


def test_what_is_materialized_is_what_live_computes(lake, store):
    """Files, stored state and candle-by-candle computation agree to the bit."""
    told = []
    done = store.materialize(lake, [BTC, ETH], lambda series, candles: told.append((series, candles)))
    assert told == [(BTC, len(BLOCK)), (ETH, 500)]
    assert done[BTC].months_written == len(lake.paths(BTC)) >= 2
    times, features = store.read(BTC)
    live = FeatureEngine(Timeframe.M5)
    rows = np.concatenate([live.advance(BLOCK[row : row + 1]) for row in range(len(BLOCK))])
    assert np.array_equal(times, BLOCK.open_time_ms)
    assert same(features, rows)
    stored = store.state(BTC)
    assert stored is not None
    assert all(same(array, live.state.arrays()[name]) for name, array in stored.arrays().items())
    assert store.verify(lake, BTC) == 0


def test_only_months_that_changed_are_written(lake, store):
    """A second run writes nothing; a new candle rewrites its own month; a correction also all later ones."""
    store.materialize(lake, [BTC])
    assert store.materialize(lake, [BTC])[BTC].months_written == 0
    last = BLOCK[-1:]
    lake.append(BTC, CandleBlock(last.open_time_ms + STEP, last.values))
    assert store.materialize(lake, [BTC])[BTC].months_written == 1
    values = BLOCK.values[:1].copy()
    values[0, 4] += 1
    lake.append(BTC, CandleBlock(BLOCK.open_time_ms[:1], values))
    assert store.verify(lake, BTC) > 0
    assert store.materialize(lake, [BTC])[BTC].months_written == len(lake.paths(BTC))
    assert store.verify(lake, BTC) == 0


def test_retention_changes_no_feature(lake, store):
    """Where the oldest month is gone from the lake, the stored state goes on, infinite memory included."""
    expected = FeatureEngine(Timeframe.M5).advance(BLOCK.concat(_next(BLOCK, 50)))
    store.materialize(lake, [BTC])
    lake.paths(BTC)[0].unlink()
    lake.append(BTC, _next(BLOCK, 50))
    done = store.materialize(lake, [BTC])[BTC]
    assert done.resumed
    times, features = store.read(BTC)
    assert len(times) == len(BLOCK) + 50
    assert same(features, expected)


def _next(block: CandleBlock, candles: int) -> CandleBlock:
    return market(candles, seed=3, start_ms=int(block.open_time_ms[-1]) + STEP)


@pytest.mark.parametrize("content", [b"", b"damaged"])
def test_a_damaged_state_is_made_again(lake, store, content):
    """The state is derived from candles, so a damaged one costs nothing but its recomputation."""
    store.materialize(lake, [BTC])
    path = state_path(store.root, BTC)
    whole = path.read_bytes()
    path.write_bytes(content)
    store.materialize(lake, [BTC])
    assert path.read_bytes() == whole


def test_a_damaged_feature_file_is_named(lake, store):
    """A feature file that cannot be read is refused with the remedy, and the next run replaces it."""
    store.materialize(lake, [BTC])
    path = min(series_folder(store.root, BTC).glob("*.parquet"))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CorruptFileError, match="qtctl features"):
        store.read(BTC)
    assert store.materialize(lake, [BTC])[BTC].months_written == 1
    assert store.verify(lake, BTC) == 0


def test_features_as_of_know_nothing_later(lake, store):
    """As of a moment: the features of the newest candle that was available then, in the revision of that time."""
    at = 700
    as_of_ms = int(BLOCK.open_time_ms[at]) + STEP + 1_000
    missing = Series("sandbox", "NO/USDT:USDT", Timeframe.M5)
    before = store.features_as_of(lake, [BTC, ETH, missing], as_of_ms)
    expected = FeatureEngine(Timeframe.M5).advance(BLOCK[: at + 1])
    assert before[missing] is None
    assert before[BTC].open_time_ms == BLOCK.open_time_ms[at]
    assert before[BTC].available_at_ms <= as_of_ms
    assert same(before[BTC].features, expected[-1])
    assert same(before[BTC].inputs, model_inputs(expected)[-1])
    values = BLOCK.values[at : at + 1].copy()
    values[0, 4] += 5
    lake.append(BTC, CandleBlock(BLOCK.open_time_ms[at : at + 1], values), available_at_ms=as_of_ms + 1)
    again = store.features_as_of(lake, [BTC], as_of_ms)[BTC]
    later = store.features_as_of(lake, [BTC], as_of_ms + 1)[BTC]
    assert same(again.features, before[BTC].features)
    assert not same(later.features, before[BTC].features)
    assert store.features_as_of(lake, [BTC], int(BLOCK.open_time_ms[0]))[BTC] is None


def test_training_frames_end_where_they_are_told(lake, store):
    """Frames are warm from the start, labels look exactly `horizon` candles ahead, and nothing past the end is used."""
    start_ms, end_ms = int(BLOCK.open_time_ms[500]), int(BLOCK.open_time_ms[2_000])
    frame = store.training_frame(lake, [BTC], start_ms, end_ms, 12)[BTC]
    assert (frame.open_time_ms[0], len(frame)) == (start_ms, 1_500)
    assert np.isfinite(frame.inputs).all()
    whole = FeatureEngine(Timeframe.M5).advance(BLOCK)[500:2_000]
    assert same(frame.features, whole)
    assert same(frame.inputs, model_inputs(whole))
    close_at = dict(zip(frame.open_time_ms.tolist(), frame.close.tolist(), strict=True))
    for time_ms, close, label in zip(frame.open_time_ms.tolist(), frame.close, frame.forward_log_return, strict=True):
        ahead = close_at.get(time_ms + 12 * STEP)
        assert np.isnan(label) if ahead is None else label == np.log(ahead / close)
    assert np.isnan(frame.forward_log_return[-12:]).all()
    assert np.isnan(frame.forward_log_return).sum() == 22


@pytest.mark.needs_market_data
def test_parity_on_real_candles(tmp_path, store):
    """Recorded months with outages, a delisting and a candle of +249 %: files and live agree, inputs stay bounded."""
    lake = CandleLake(tmp_path / "real")
    done = import_file(lake, recorded("binance_spot_5m_2022-01_2022-09.parquet"))
    assert done.rows == done.appended > 900_000
    assert import_file(lake, recorded("binance_spot_5m_2022-01_2022-09.parquet")).appended == 0
    chosen = list(done.series)[:2]
    store.materialize(lake, chosen)
    assert [store.verify(lake, one) for one in chosen] == [0, 0]
    frames = store.training_frame(lake, done.series, 0, 2**62, 12)
    for frame in frames.values():
        ready = frame.inputs[200:]
        assert np.abs(ready[np.isfinite(ready)]).max() <= 20
        assert np.isfinite(ready).mean() > 0.999
