"""Many series at once, on threads, from the lake to files: the same numbers as one engine gives."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from feature_store import feature_parts
from feature_store.candle import CandleBlock, Series, Timeframe
from feature_store.errors import BadInputError, CorruptFileError, FingerprintMismatchError
from feature_store.feature_files import read_features
from feature_store.feature_stream import FeatureStream
from feature_store.features import state_files
from feature_store.features.batch import features_of
from feature_store.features.engine import FeatureEngine
from feature_store.features.kernel import LONG
from feature_store.features.live import LiveFeatures
from feature_store.lake import CandleLake
from infra.prove.markets import gapped
from tests.feature_support import BTC, ETH, market, same

BLOCKS = [gapped(market(700, seed=1), 1), market(300, seed=2), CandleBlock.empty(), market(1, seed=3)]
EXPECTED = np.concatenate([FeatureEngine(Timeframe.M5).advance(block) for block in BLOCKS])


@pytest.mark.parametrize("threads", [1, 3])
def test_a_table_of_many_series_is_each_by_itself(threads):
    """Threads, gaps and empty series change no bit."""
    assert same(features_of(BLOCKS, Timeframe.M5, threads=threads), EXPECTED.T)


def test_room_is_used_again():
    """What stood in the room before is gone, and the answer stands in it."""
    out = np.full(EXPECTED.T.shape, 7.0)

    assert features_of(BLOCKS, Timeframe.M5, threads=2, out=out) is out
    assert same(out, EXPECTED.T)


def test_room_of_another_size_is_refused():
    """A table that does not fit is no place to write to."""
    with pytest.raises(BadInputError, match=r"need room \[49, 1002\]|need room"):
        features_of(BLOCKS, Timeframe.M5, out=np.empty((49, 7)))


def test_one_bad_series_fails_the_whole():
    """A candle that no market could have made is told, not skipped."""
    block = market(50)
    bad = CandleBlock(block.open_time_ms, -block.values)

    with pytest.raises(BadInputError, match="Unusable candle"):
        features_of([market(100), bad], Timeframe.M5, threads=2)


def test_a_streamed_lake_is_each_series_by_itself(tmp_path):
    """Each file holds what one engine gives, although threads use their room again."""
    lake = CandleLake(tmp_path / "lake")
    truths = {Series("v", f"S{seed}/USDT:USDT", Timeframe.M5): market(900 - 100 * seed, seed=seed) for seed in range(5)}
    for series, block in truths.items():
        lake.append(series, block)
    stream = FeatureStream(lake, tmp_path / "out", threads=2)

    assert stream.run(list(truths)) == sum(map(len, truths.values()))

    for series, block in truths.items():
        times, _, features = read_features(stream.path(series))
        assert np.array_equal(times, block.open_time_ms)
        assert same(np.ascontiguousarray(features), np.ascontiguousarray(FeatureEngine(Timeframe.M5).advance(block)))


def test_a_long_series_is_streamed_in_parts(tmp_path, monkeypatch):
    """More candles than fit into the memory of one part are written part by part, to the same bits."""
    monkeypatch.setattr(feature_parts, "PART", 256)
    lake, block = CandleLake(tmp_path / "lake"), market(1_000)
    lake.append(BTC, block)
    stream = FeatureStream(lake, tmp_path / "out")
    stream.run([BTC])

    assert pq.ParquetFile(stream.path(BTC)).num_row_groups == 4
    times, _, features = read_features(stream.path(BTC))
    assert np.array_equal(times, block.open_time_ms)
    assert same(np.ascontiguousarray(features), np.ascontiguousarray(FeatureEngine(Timeframe.M5).advance(block)))


def test_a_streamed_lake_names_a_damaged_month(tmp_path):
    """A partition that cannot be read stops the run with its name, and leaves no half file."""
    lake = CandleLake(tmp_path / "lake")
    lake.append(BTC, market(300))
    path = lake.paths(BTC)[0]
    path.write_bytes(path.read_bytes()[:-20])
    stream = FeatureStream(lake, tmp_path / "out")

    with pytest.raises(CorruptFileError, match=path.name):
        stream.run([BTC])

    assert not list((tmp_path / "out").glob("*"))


def test_streamed_files_keep_checksums_and_digest(tmp_path):
    """A streamed file says of which feature set it is, as the audit files do."""
    lake = CandleLake(tmp_path / "lake")
    lake.append(ETH, market(300))
    stream = FeatureStream(lake, tmp_path / "out")
    stream.run([ETH])

    assert b"feature_fingerprint" in pq.read_schema(stream.path(ETH)).metadata


def _two() -> LiveFeatures:
    live = LiveFeatures([BTC.symbol, ETH.symbol, "NEW/USDT:USDT"])
    live.advance(BTC.symbol, market(300))
    live.advance(ETH.symbol, market(200, seed=2))
    return live


def test_states_of_all_come_back_from_one_file(tmp_path):
    """Any other set of symbols, in any order, goes on from where the file ends, to the bit."""
    live, path = _two(), tmp_path / "all.states"
    live.save_all(path, "v")
    other = LiveFeatures(["X/USDT:USDT", ETH.symbol, BTC.symbol])

    assert other.load_all(path, "v") == {BTC.symbol, ETH.symbol}

    for symbol in (BTC.symbol, ETH.symbol):
        ours, theirs = (one._engines[symbol].state.arrays() for one in (live, other))
        assert all(same(ours[name], theirs[name]) for name in ours)
    later = market(301)[300:]
    assert same(live.advance(BTC.symbol, later), other.advance(BTC.symbol, later))


def test_no_file_is_no_state(tmp_path):
    """A first start finds nothing and changes nothing."""
    assert LiveFeatures([BTC.symbol]).load_all(tmp_path / "absent", "v") == frozenset()


def test_every_cut_and_flip_of_a_states_file_is_refused(tmp_path):
    """No damaged byte becomes a feature."""
    path = tmp_path / "all.states"
    _two().save_all(path, "v")
    whole = path.read_bytes()
    for at in [0, 5, 12, 45, 60, 200, len(whole) // 2, len(whole) - 1]:
        for content in (whole[:at], whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :], whole + b"x"):
            path.write_bytes(content)
            live = LiveFeatures([BTC.symbol])
            with pytest.raises(CorruptFileError):
                live.load_all(path, "v")
            assert live.last_open_time_ms(BTC.symbol) is None


def test_states_of_another_venue_or_feature_set_are_refused(tmp_path, monkeypatch):
    """A state is of one venue and one feature set."""
    path = tmp_path / "all.states"
    _two().save_all(path, "v")

    with pytest.raises(CorruptFileError, match="it holds v 5m, not w 5m"):
        _two().load_all(path, "w")
    monkeypatch.setattr(state_files, "fingerprint", lambda: "f" * 64)
    with pytest.raises(FingerprintMismatchError):
        _two().load_all(path, "v")


@pytest.mark.parametrize("rows", [LONG - 1, LONG, LONG + 5])
@pytest.mark.parametrize("offset", range(8))
def test_long_results_are_written_where_they_belong(rows, offset):
    """Wherever the result lies in a line of the cache, each number is where a short run puts it, and none beyond."""
    block = market(rows, seed=offset)
    apart = rows + 3
    memory = np.full(offset + 49 * apart + 8, 7.0)
    out = memory[offset : offset + 49 * apart].reshape(49, apart)
    FeatureEngine(Timeframe.M5).advance(block, out[:, :rows].T)

    engine = FeatureEngine(Timeframe.M5)
    parts = [engine.advance(block[begin : begin + 1_000]) for begin in range(0, rows, 1_000)]
    assert same(np.ascontiguousarray(out[:, :rows].T), np.ascontiguousarray(np.concatenate(parts)))
    assert (out[:, rows:] == 7.0).all()
    assert (memory[:offset] == 7.0).all()
    assert (memory[offset + 49 * apart :] == 7.0).all()
