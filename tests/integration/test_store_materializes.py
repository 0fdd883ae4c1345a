from __future__ import annotations

import numpy as np
import pytest

from feature_store.candle import CandleBlock, Series, Timeframe
from feature_store.errors import BadInputError, CorruptFileError
from feature_store.features.engine import FeatureEngine, model_inputs
from feature_store.features.state import state_path
from feature_store.lake import CandleLake
from feature_store.partitions import series_folder
from feature_store.sources.recorded import import_file
from feature_store.store import FeatureStore
from flows.training.dataset import Dataset, FrameSet
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
    before = store.features_as_of(lake, [BTC, ETH], as_of_ms)
    expected = FeatureEngine(Timeframe.M5).advance(BLOCK[: at + 1])
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


HOUR_AGO = int(BLOCK.open_time_ms[-1]) - 12 * STEP
UNKNOWN = Series("sandbox", "NO/USDT:USDT", Timeframe.M5)
UNUSABLE = {
    "horizon 0": ({"horizon": 0}, "horizon must be a whole number of candles from 1 on, was 0"),
    "horizon below 0": ({"horizon": -12}, "horizon must be .*, was -12"),
    "half a candle": ({"horizon": 1.5}, "horizon must be .*, was 1.5"),
    "a horizon in words": ({"horizon": "12"}, "horizon must be .*, was '12'"),
    "yes": ({"horizon": True}, "horizon must be .*, was True"),
    "an unknown symbol": ({"series": [BTC, UNKNOWN]}, "sandbox NO/USDT:USDT 5m is not stored in .*sandbox BTC/USDT"),
    "an unknown venue": ({"series": [Series("kraken", BTC.symbol, Timeframe.M5)]}, "kraken .* is not stored"),
    "an unknown timeframe": ({"series": [Series("sandbox", BTC.symbol, Timeframe.H1)]}, "1h is not stored"),
    "a symbol for a series": ({"series": ["BTC/USDT:USDT"]}, "Expected series, .* found 'BTC/USDT:USDT'"),
    "backwards": ({"start_ms": HOUR_AGO + 1, "end_ms": HOUR_AGO}, "exchange the two"),
    "seconds of a start": ({"start_ms": HOUR_AGO // 1000}, "start_ms .* looks like seconds"),
    "seconds of an end": ({"end_ms": HOUR_AGO // 1000}, "end_ms .* looks like seconds"),
    "a start before 1970": ({"start_ms": -1}, "start_ms .* from 0, was -1"),
    "fractions": ({"start_ms": HOUR_AGO + 0.5}, "start_ms must be whole milliseconds"),
    "seconds of a moment": ({"as_of_ms": HOUR_AGO // 1000}, "as_of_ms .* looks like seconds"),
    "a moment in words": ({"as_of_ms": "2024-01-01"}, "as_of_ms must be whole milliseconds"),
}


@pytest.mark.parametrize("what", UNUSABLE)
def test_what_cannot_be_asked_is_refused(lake, store, what):
    """Each of the three reads refuses what it would otherwise answer with nothing, and says what was expected."""
    wrong, reason = UNUSABLE[what]
    asked = {"series": [BTC], "start_ms": 0, "end_ms": HOUR_AGO, "horizon": 12, **wrong}
    with pytest.raises(BadInputError, match=reason):
        store.training_set(lake, **asked)
    if "as_of_ms" not in wrong:
        with pytest.raises(BadInputError, match=reason):
            store.training_frame(lake, **asked)
    if {"as_of_ms", "series"} & set(wrong):
        with pytest.raises(BadInputError, match=reason):
            store.features_as_of(lake, asked["series"], asked.get("as_of_ms", HOUR_AGO))


def test_what_can_be_asked_is_answered(lake, store):
    """Whole numbers of any kind, an iterator of series, an empty stretch, and a moment before all."""
    frames = store.training_frame(lake, iter([BTC, ETH]), np.int64(0), HOUR_AGO, np.int64(3))
    assert list(frames) == [BTC, ETH]
    assert len(store.training_set(lake, iter([BTC]), HOUR_AGO, HOUR_AGO, 1)[BTC]) == 0
    assert store.features_as_of(lake, iter([BTC]), 0)[BTC] is None


@pytest.mark.parametrize(
    "rows", [[1.0, 2.0], np.zeros(49), np.zeros((3, 48)), [["a"] * 49], None, [[0.0] * 49, [0.0] * 48]], ids=repr
)
def test_model_inputs_are_made_of_rows_of_features(rows):
    """What is no table of 49 numbers a row is refused in a sentence; a list of rows will do."""
    with pytest.raises(BadInputError, match=r"Expected rows of .*49"):
        model_inputs(rows)
    table = np.full((2, 49), 0.5)
    assert same(model_inputs(table.tolist()), model_inputs(table))


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
        way = [close_at.get(time_ms + ahead * STEP) for ahead in range(1, 13)]
        assert np.isnan(label) if None in way else label == np.log(way[-1] / close)
    assert np.isnan(frame.forward_log_return[-12:]).all()
    # The 12 candles before the gap have none either, though two of them have a candle 12 later.
    assert np.isnan(frame.forward_log_return).sum() == 24


def test_frames_and_training_share_one_label(lake, store):
    """The label that a stored frame shows is the one that members learn, gap and end included."""
    frame = store.training_frame(lake, [BTC], 0, 2**62, 12)[BTC]
    dataset = Dataset(FrameSet.of_store({BTC: frame}), horizon=12, window=64)
    assert np.isnan(frame.forward_log_return).sum() == 36
    np.testing.assert_array_equal(dataset.label, frame.forward_log_return)


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
