from __future__ import annotations

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.absences import Cause, absences, joined, span_of
from feature_store.audit import RowsApart, absent_rows, candle_files, rows_apart
from feature_store.candle import COLUMNS, CandleBlock, Series, Timeframe
from feature_store.lake import CandleLake
from feature_store.sources.recorded import import_file, read_file, unified_name
from infra.prove.proof import Size
from infra.prove.quality import KNOWN, judged
from tests.feature_support import STEP, T0, market, without


def record(path, blocks):
    """Write blocks of 5m candles under their recorded symbols as one Parquet file."""
    parts = [
        pa.table(
            {"exchange": ["kraken"] * len(block), "symbol": [symbol] * len(block), "timeframe": ["5m"] * len(block)}
            | {"ts": block.open_time_ms}
            | {name: np.ascontiguousarray(block.values[:, place]) for place, name in enumerate(COLUMNS)}
        )
        for symbol, block in blocks.items()
    ]
    pq.write_table(pa.concat_tables(parts), path)


@pytest.fixture
def folder(tmp_path):
    """Return recordings with holes at random, of three symbols of which one leaves, in files that overlap."""
    rng = np.random.default_rng(5)
    whole = market(400, seed=3)
    holes = {name: rng.choice(400, 60, replace=False) for name in ("BTCUSD", "ETHUSD", "XRPUSD")}
    shared = np.r_[120:131]
    sparse = {name: without(whole, np.union1d(rows, shared)) for name, rows in holes.items()}
    first, second = T0 + 200 * STEP, T0 + 180 * STEP
    path = tmp_path / "recordings"
    path.mkdir()
    record(path / "a.parquet", {"BTCUSD": sparse["BTCUSD"].until(first), "XRPUSD": sparse["XRPUSD"].until(second)})
    record(path / "b.parquet", {"BTCUSD": sparse["BTCUSD"].since(second), "ETHUSD": sparse["ETHUSD"]})
    record(path / "c.parquet", {"ETHUSD": CandleBlock(whole.open_time_ms + 900 * STEP, whole.values)})
    pq.write_table(pa.table({"price": [1.0]}), path / "trades.parquet")
    (path / "torn.parquet").write_bytes(b"PAR1 and no more")
    return path


def imported(folder, lake):
    """Import all recordings of a folder; return when each series was recorded."""
    spans = {}
    for path in candle_files(folder):
        import_file(lake, path)
        for recorded, block in read_file(path):
            one = Series(*unified_name(recorded.venue, recorded.symbol), recorded.timeframe)
            spans[one] = joined((*spans.get(one, ()), *span_of(one, block)))
    return spans


def test_absent_rows_and_outages_equal_sql(folder, tmp_path):
    """Two ways that share no code find the same absent candles and the same outages, by series."""
    lake = CandleLake(tmp_path / "lake")
    spans = imported(folder, lake)
    found = absences(lake.read_many(spans), spans)
    expected = absent_rows(candle_files(folder))

    told = {
        one: (
            tuple(t for part in every for t in range(part.start_ms, part.end_ms, STEP)),
            tuple(t for part in every if part.cause is Cause.OUTAGE for t in range(part.start_ms, part.end_ms, STEP)),
        )
        for one, every in found.items()
        if every
    }
    assert told == {one: (rows.open_time_ms, rows.outage_ms) for one, rows in expected.items()}
    assert all(len(rows.outage_ms) >= 11 for one, rows in expected.items() if one.symbol != "XRP/USD")


def test_only_recorded_rows_are_in_the_lake(folder, tmp_path):
    """Nothing is invented and nothing lost; one candle too many, and one too few, are each counted."""
    lake = CandleLake(tmp_path / "lake")
    spans = imported(folder, lake)
    paths = candle_files(folder)
    assert [path.name for path in paths] == ["a.parquet", "b.parquet", "c.parquet"]
    assert rows_apart(lake, paths) == RowsApart(0, 0)

    one = next(iter(spans))
    lake.append(one, market(1, start_ms=T0 + 5000 * STEP))
    assert rows_apart(lake, paths) == RowsApart(1, 0)
    lake.append(Series("kraken", "DOGE/USD", Timeframe.M5), market(3))
    assert rows_apart(lake, paths) == RowsApart(4, 0)
    shutil.rmtree(lake.paths(one)[0].parents[1])
    assert rows_apart(lake, paths).lost > 300


def test_the_proof_holds_and_bites(folder, tmp_path, monkeypatch):
    """The proof passes on sound recordings, and fails where a report says less than is absent."""
    sound = judged(candle_files(folder), tmp_path / "sound", size=Size.CI)
    assert sound.holds, sound
    assert "0 differ from SQL" in sound.figure
    assert len(KNOWN) == 3

    monkeypatch.setattr("infra.prove.quality.absences", lambda blocks, _: dict.fromkeys(blocks, ()))
    silent = judged(candle_files(folder), tmp_path / "silent", size=Size.CI)
    assert not silent.holds
    assert " 0 differ" not in silent.figure


def test_a_full_proof_needs_something_known_to_find(folder, tmp_path):
    """Recordings without a known bad tick and without a known outage prove no finding of either: full size fails."""
    proof = judged(candle_files(folder), tmp_path / "full", size=Size.FULL)
    assert not proof.holds
    assert "known outages found 0 of 0, known bad ticks flagged 0 of 0" in proof.figure
    for what in ("no known bad tick", "no known outage"):
        assert f"{what} is among the recordings: that it is found is not proved here" in proof.details
