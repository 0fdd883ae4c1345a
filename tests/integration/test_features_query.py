"""Features in SQL and as files: what a person asks of the whole lake is what the engine gives, to the bit."""

from __future__ import annotations

import json

import duckdb
import numpy as np
import pytest

from feature_store import feature_parts
from feature_store.candle import Series, Timeframe
from feature_store.errors import BadInputError, CorruptFileError
from feature_store.feature_query import FeatureTable, answer
from feature_store.features.definition import FEATURE_NAMES
from feature_store.features.engine import FeatureEngine
from feature_store.lake import CandleLake
from feature_store.store import FeatureStore
from feature_store.upkeep import retain
from inference.cli import run
from tests.feature_support import market, same

RSI = FEATURE_NAMES.index("rsi_14")
SERIES = [Series("sandbox", f"S{number}/USDT:USDT", Timeframe.M5) for number in range(3)]
BLOCKS = {one: market(400 + 100 * number, seed=number) for number, one in enumerate(SERIES)}


@pytest.fixture
def lake(tmp_path, monkeypatch):
    """Return the lake of a home of which the commands read."""
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path))
    lake = CandleLake(tmp_path / "lake")
    for one, block in BLOCKS.items():
        lake.append(one, block)
    return lake


def table(lake, store=None):
    store = store or FeatureStore(lake.root.parent / "features")
    return FeatureTable(lake, SERIES, store.warmed)


def column(found, name):
    return found[name].to_numpy()


def test_a_query_reads_what_the_engine_gives(lake):
    """All 49 of every series, with their times, to the bit; whatever DuckDB does with its threads."""
    found = answer("SELECT * FROM features ORDER BY symbol, open_time", table(lake))
    begin = 0
    for one, block in BLOCKS.items():
        part = found.slice(begin, len(block))
        begin += len(block)
        assert set(part["symbol"].to_pylist()) == {one.symbol}
        assert np.array_equal(column(part, "open_time").astype("datetime64[ms]").astype(np.int64), block.open_time_ms)
        features = np.column_stack([column(part, name) for name in FEATURE_NAMES])
        assert same(features, np.ascontiguousarray(FeatureEngine(Timeframe.M5).advance(block)))
    assert begin == len(found)


def test_a_long_series_is_read_in_parts(lake, monkeypatch):
    """Parts of a series join without a seam."""
    whole = answer("SELECT * FROM features ORDER BY symbol, open_time", table(lake))
    monkeypatch.setattr(feature_parts, "PART", 64)
    parts = answer("SELECT * FROM features ORDER BY symbol, open_time", table(lake))
    for name in FEATURE_NAMES:
        assert same(column(whole, name), column(parts, name))


def test_a_query_may_name_the_table_twice(lake):
    """Each scan begins anew: a join of the table with itself sees all of it on both sides."""
    sql = "SELECT count(*) AS n FROM features x JOIN features y USING (symbol, open_time) WHERE x.obv = y.obv"
    assert answer(sql, table(lake)).to_pylist() == [{"n": sum(map(len, BLOCKS.values()))}]


def test_what_is_absent_is_null(lake, capsys):
    """During warm-up a feature is NULL: averages pass over it, and it is larger than nothing."""
    engine = {one.symbol: FeatureEngine(Timeframe.M5).advance(block)[14:, RSI] for one, block in BLOCKS.items()}
    sql = "SELECT symbol, avg(rsi_14) AS mean, count(*) FILTER (rsi_14 > 70) AS high FROM features GROUP BY symbol"
    assert run(["features", "query", sql, "--json"]) == 0
    rows = {row["symbol"]: row for row in json.loads(capsys.readouterr().out)}
    for symbol, rsi in engine.items():
        assert rows[symbol]["mean"] == pytest.approx(rsi.mean())
        assert rows[symbol]["high"] == (rsi > 70).sum()


def test_columns_of_one_name_are_told_apart(lake):
    """A join has two columns of one name; none is lost, and none shows the other's values."""
    sql = "SELECT x.symbol, y.symbol, x.rsi_14 AS symbol_1 FROM features x JOIN features y USING (open_time) LIMIT 1"
    assert answer(sql, table(lake)).column_names == ["symbol", "symbol_1", "symbol_1_1"]


def test_moments_are_compared_in_utc(lake, monkeypatch):
    """A date in SQL means midnight UTC wherever the machine is."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    first = int(BLOCKS[SERIES[0]].open_time_ms[0])
    sql = f"SELECT count(*) AS n FROM features WHERE open_time >= to_timestamp({first / 1000 + 3600})::TIMESTAMPTZ"
    assert answer(sql, table(lake)).to_pylist() == [{"n": sum(len(block) - 12 for block in BLOCKS.values())}]


def test_what_retention_removed_is_remembered(tmp_path):
    """Where old months are gone, features with an infinite memory keep their values in SQL too."""
    one = SERIES[0]
    block, lake, store = market(20_000), CandleLake(tmp_path / "lake"), FeatureStore(tmp_path / "features")
    lake.append(one, block)
    whole = answer("SELECT obv FROM features ORDER BY open_time", FeatureTable(lake, [one], store.warmed))
    retain(lake, store, [one], 20)
    left = answer("SELECT obv FROM features ORDER BY open_time", FeatureTable(lake, [one], store.warmed))
    assert 0 < len(left) < len(whole)
    assert column(left, "obv").tolist() == column(whole, "obv")[-len(left) :].tolist()


def test_sql_that_cannot_run_is_told_in_duckdbs_words(lake):
    """A typing error names the column that was meant; an empty query is no answer."""
    with pytest.raises(BadInputError, match="rsi_14"):
        answer("SELECT rsi14 FROM features", table(lake))
    with pytest.raises(BadInputError, match="DuckDB cannot run this query"):
        answer("SELEC", table(lake))


def test_a_damaged_month_is_named(lake):
    """The error of the lake is told, and not what is left of it behind DuckDB."""
    path = lake.paths(SERIES[1])[0]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CorruptFileError, match=path.name):
        answer("SELECT count(*) FROM features", table(lake))


def test_the_command_prints_rows(lake, capsys):
    """As a table of the first rows, or all of them as JSON with moments in ISO 8601 and null for no number."""
    sql = "SELECT symbol, open_time, obv, sma_50 FROM features ORDER BY symbol, open_time"
    assert run(["features", "query", sql, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == sum(map(len, BLOCKS.values()))
    assert rows[0]["sma_50"] is None
    assert rows[0]["open_time"].endswith("+00:00")
    assert run(["features", "query", sql]) == 0
    shown = capsys.readouterr().out
    assert f"The first 40 of {len(rows)} rows" in shown
    assert "S0/USDT:USDT" in shown


def test_the_command_copies_into_a_file(lake, tmp_path, capsys):
    """COPY writes what the SQL says, of the chosen symbols."""
    target = tmp_path / "out.parquet"
    sql = f"COPY (SELECT * FROM features) TO '{target}'"
    assert run(["features", "query", sql, "--symbols", SERIES[2].symbol]) == 0
    with duckdb.connect() as connection:
        assert connection.sql(f"SELECT count(*), min(symbol) FROM '{target}'").fetchall() == [(600, SERIES[2].symbol)]


def test_the_command_exports_a_file_for_each_series(lake, tmp_path, capsys):
    """Any program reads the files; the numbers are the engine's, to the bit, and nothing half written stays."""
    target = tmp_path / "out"
    assert run(["features", "export", str(target), "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert done == {"folder": str(target), "files": 3, "candles": sum(map(len, BLOCKS.values()))}
    assert len(list(target.iterdir())) == 3
    with duckdb.connect() as connection:
        for path, block in zip(sorted(target.glob("*.parquet")), BLOCKS.values(), strict=True):
            found = connection.sql(f"SELECT * FROM '{path}' ORDER BY open_time").to_arrow_table()
            features = np.column_stack([column(found, name) for name in FEATURE_NAMES])
            assert same(features, np.ascontiguousarray(FeatureEngine(Timeframe.M5).advance(block)))


def test_a_folder_that_cannot_be_written_is_told(lake, tmp_path, capsys):
    """A file in the place of the folder ends in a sentence."""
    (tmp_path / "taken").write_text("")
    assert run(["features", "export", str(tmp_path / "taken")]) == 2
    assert "name another folder" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["query", "SELECT 1"], ["export", "/tmp/never"]])
def test_an_empty_lake_says_what_to_do(tmp_path, monkeypatch, capsys, command):
    """Nothing is stored: bad usage with the next step."""
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path))
    assert run(["features", *command]) == 2
    assert "qtctl ingest" in capsys.readouterr().err
