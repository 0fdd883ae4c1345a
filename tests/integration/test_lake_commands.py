from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.candle import Timeframe
from feature_store.commands import lake as app
from feature_store.errors import CorruptFileError
from feature_store.features.engine import FeatureEngine
from feature_store.inspection import inspect_month
from feature_store.lake import CandleLake
from feature_store.partitions import SCHEMA, Rows, read_partition, read_table, series_folder, write_partition
from feature_store.store import FeatureStore
from feature_store.terminal import run
from tests.feature_support import BTC, ETH, STEP, T0, market, same

START = T0 + 16 * 86_400_000 - 2 * 3_600_000
BLOCK = market(600, start_ms=START - 200 * STEP)


@pytest.fixture
def lake(tmp_path, monkeypatch):
    """A lake of two series over two months, in the home that commands look at."""
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path))
    monkeypatch.delenv("QT_LAKE", raising=False)
    lake = CandleLake(tmp_path / "lake")
    lake.append(BTC, BLOCK)
    lake.append(ETH, BLOCK)
    return lake


def told(capsys, *arguments):
    """Run a command; return its exit status and what it printed as JSON."""
    status = run(app, [*arguments, "--json"])
    return status, json.loads(capsys.readouterr().out)


def rewritten(path, change):
    """Change the rows of a month behind the lake's back."""
    write_partition(path, change(read_partition(path)))


def retyped(path, change):
    """Change the table of a month behind the lake's back."""
    pq.write_table(change(read_table(path)), path)


def _moved(rows, delta_ms):
    block = type(rows.block)(rows.block.open_time_ms + delta_ms, rows.block.values)
    return Rows(block, rows.available_at_ms + delta_ms, rows.revision)


def _priced(rows, row, column, value):
    values = rows.block.values.copy()
    values[row, column] = value
    return Rows(type(rows.block)(rows.block.open_time_ms, values), rows.available_at_ms, rows.revision)


def _directory(path):
    path.unlink()
    path.mkdir()


DAMAGE = {
    "empty file": (lambda path: path.write_bytes(b""), "unreadable"),
    "text": (lambda path: path.write_bytes(b"hello"), "unreadable"),
    "a folder": (_directory, "unreadable"),
    "no candles": (lambda path: rewritten(path, lambda rows: rows.take(np.arange(0))), "empty"),
    "other columns": (lambda path: pq.write_table(pa.table({"a": [1]}), path), "columns"),
    "a column less": (lambda path: retyped(path, lambda table: table.drop_columns(["volume"])), "columns"),
    "other types": (
        lambda path: retyped(path, lambda table: table.set_column(1, "open", table["open"].cast(pa.float32()))),
        "columns",
    ),
    "other zone": (
        lambda path: retyped(path, lambda t: t.set_column(0, "open_time", t["open_time"].cast(pa.timestamp("ms")))),
        "columns",
    ),
    "unsorted": (lambda path: rewritten(path, lambda rows: rows.take(np.arange(len(rows))[::-1])), "unsorted"),
    "twice": (lambda path: rewritten(path, lambda rows: rows.take(np.repeat(np.arange(len(rows)), 2))), "duplicates"),
    "off the grid": (lambda path: rewritten(path, lambda rows: _moved(rows, 1)), "impossible"),
    "another month": (lambda path: rewritten(path, lambda rows: _moved(rows, 40 * 86_400_000)), "other-month"),
    "known too early": (
        lambda path: rewritten(path, lambda r: Rows(r.block, r.block.open_time_ms, r.revision)),
        "available",
    ),
    "high below low": (lambda path: rewritten(path, lambda rows: _priced(rows, 3, 1, 0.01)), "impossible"),
    "no number": (lambda path: rewritten(path, lambda rows: _priced(rows, 3, 3, np.nan)), "impossible"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found_named_and_set_aside(lake, capsys, damage):
    """Check names the file and exits with 1, repair sets it aside under a name that says why, then check is content."""
    spoil, why = DAMAGE[damage]
    path = lake.paths(BTC)[0]
    assert told(capsys, "check") == (0, {"series": 2, "beside": 0, "whole": True, "findings": []})
    spoil(path)
    status, shown = told(capsys, "check")
    assert status == 1
    assert [(one["path"], one["kind"]) for one in shown["findings"]] == [(str(path), "damaged")]
    assert "qtctl lake repair" in shown["findings"][0]["remedy"]
    status, (repaired,) = told(capsys, "repair")
    assert status == 0
    (aside,) = repaired["set_aside"]
    assert f".corrupt-{why}-" in aside["path"]
    assert Path(aside["path"]).exists()
    (again,) = repaired["to_fetch"]
    assert again["start_ms"] <= BLOCK.open_time_ms[0] < again["end_ms"] <= BLOCK.open_time_ms[-1]
    status, shown = told(capsys, "check")
    assert (status, shown["whole"]) == (0, True)
    assert [one["kind"] for one in shown["findings"]] == ["set-aside"]
    lake.append(BTC, BLOCK)
    assert lake.read(BTC).equals(BLOCK)


def test_a_file_cut_anywhere_is_never_read_as_candles(lake):
    """Truncated at every few bytes, and at every one of its last and first: refused each time, by name."""
    path = lake.paths(BTC)[0]
    content = path.read_bytes()
    cuts = {*range(0, len(content), 97), *range(12), *range(len(content) - 40, len(content))}
    for cut in sorted(cuts):
        path.write_bytes(content[:cut])
        with pytest.raises(CorruptFileError, match=r"2023-11\.parquet"):
            read_partition(path)


def test_a_flipped_bit_is_refused_or_changes_nothing(lake):
    """Any one byte of the file changed: the month is refused by read or check, or its candles are what they were."""
    path = lake.paths(BTC)[0]
    content, whole = path.read_bytes(), read_partition(path)
    for at in range(0, len(content), max(len(content) // 400, 1)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :])
        if inspect_month(path, BTC) is None:
            rows = read_partition(path)
            assert rows.block.equals(whole.block)
            assert np.array_equal(rows.available_at_ms, whole.available_at_ms)


def test_a_footer_that_points_at_another_column_is_refused(lake):
    """A page read in place of another has a checksum of its own that is right; the digest of all rows is not."""
    path = lake.paths(BTC)[0]
    table = read_table(path)
    with pq.ParquetFile(path) as file:
        metadata = file.schema_arrow.metadata
    pq.write_table(table.set_column(5, table.schema.field(5), table["close"]).replace_schema_metadata(metadata), path)
    with pytest.raises(CorruptFileError, match="digest differs"):
        read_partition(path)


def test_a_month_of_another_symbol_is_found(lake, capsys):
    """A file copied from another symbol's folder names where it came from."""
    shutil.copy(lake.paths(ETH)[0], lake.paths(BTC)[0])
    status, shown = told(capsys, "check", "--symbols", BTC.symbol)
    assert status == 1
    assert "ETH" in shown["findings"][0]["found"]
    assert ".corrupt-other-series-" in told(capsys, "repair")[1][0]["set_aside"][0]["path"]


def test_a_file_that_may_not_be_read_is_not_called_damaged(capsys, monkeypatch):
    """Missing permission is told as such, and repair leaves the file where it is."""
    root = Path(tempfile.mkdtemp(prefix="lake-permission-"))
    monkeypatch.setenv("QUANTUM_HOME", str(root))
    lake = CandleLake(root / "lake")
    lake.append(BTC, BLOCK)
    path = lake.paths(BTC)[0]
    for folder in (root, *path.parents[: len(path.parents) - len(root.parents) - 1]):
        folder.chmod(0o755)
    path.chmod(0)
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65_534)  # Whom file permissions concern.
        status, shown = told(capsys, "check")
        assert [one["kind"] for one in shown["findings"]] == ["not-allowed"]
        assert status == 1
        assert told(capsys, "ls")[0] == 1
    finally:
        os.seteuid(user)
        shutil.rmtree(root)


def test_what_killed_writers_left_is_found_and_removed(lake, capsys):
    """A half-written file is reported and removed; one whose writer is at work is left alone."""
    path = lake.paths(BTC)[0]
    left = path.with_name(f".{path.name}.abc123.tmp")
    left.write_bytes(b"half")
    orphan = path.with_name(".2020-01.parquet.abc124.tmp")
    orphan.write_bytes(b"half")
    status, shown = told(capsys, "check")
    assert status == 1
    assert {one["path"] for one in shown["findings"]} == {str(left), str(orphan)}
    assert told(capsys, "repair")[1][0]["leftovers_removed"] == 2
    assert told(capsys, "check")[0] == 0
    left.write_bytes(b"half")
    lake.append(BTC, market(5, start_ms=START))
    assert not left.exists()


def test_ls_shows_what_is_stored(lake, capsys):
    """One line for each series, with gaps and corrections; a damaged month is said, and the others are counted."""
    lake.append(BTC, market(3, start_ms=START - 210 * STEP), available_at_ms=10**13)
    status, shown = told(capsys, "ls")
    assert status == 0
    assert [(one["symbol"], one["files"], one["rows"], one["missing"]) for one in shown] == [
        (BTC.symbol, 2, 603, 7),
        (ETH.symbol, 2, 600, 0),
    ]
    assert shown[1]["bytes"] == sum(path.stat().st_size for path in lake.paths(ETH))
    assert run(app, ["ls"]) == 0
    assert "2023-12-0" in capsys.readouterr().out
    lake.paths(BTC)[0].write_bytes(b"")
    assert run(app, ["ls"]) == 1
    assert "1 damaged" in capsys.readouterr().out


def test_an_empty_lake_and_unknown_series_are_told(tmp_path, capsys, monkeypatch):
    """Nothing stored is an answer; a series that is not stored is bad usage, and says how to see what is."""
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path))
    monkeypatch.delenv("QT_LAKE", raising=False)
    assert run(app, ["ls"]) == 0
    assert "run: qtctl ingest" in capsys.readouterr().out
    assert told(capsys, "check")[1]["whole"]
    assert told(capsys, "retain", "--keep-days", "3") == (0, [])
    for options in (["--symbols", "NO/USDT"], ["--venue", "nowhere"], ["--timeframe", "7m"]):
        for command in (["ls"], ["check"], ["compact"], ["repair"], ["retain", "--keep-days", "3"]):
            assert run(app, [*command, *options]) == 2
            assert options[1] in capsys.readouterr().err
    assert run(app, ["retain", "--keep-days", "0"]) == 2
    assert run(app, ["retain"]) == 2
    assert run(app, ["compact", "--drop-revisions-older-than", "-1"]) == 2
    monkeypatch.setenv("QT_LAKE", "ftp://somewhere")
    assert run(app, ["ls"]) == 2


def test_compact_makes_one_piece_and_loses_nothing(lake, capsys):
    """A month in many row groups and files beside it become one; every revision stays unless it is told to go."""
    path, other = lake.paths(BTC)
    lake.append(BTC, _priced(read_partition(path).take(np.arange(3)), 1, 4, 5.0).block, available_at_ms=10**12 * 2)
    rows = lake.read_rows(BTC)
    pq.write_table(read_table(path), path, row_group_size=50, compression="snappy")
    late = read_table(other)
    pq.write_table(late.slice(300), path.with_name("2023-12 (copy).parquet"))
    pq.write_table(late.slice(0, 310), other)
    assert told(capsys, "check")[1]["findings"][0]["kind"] == "stray"
    status, shown = told(capsys, "compact")
    assert (status, shown["months"], shown["revisions_dropped"], shown["refused"]) == (0, 1, 0, [])
    assert shown["rows_taken_in"] == len(late) - 310
    found = lake.read_rows(BTC)
    assert found.block.equals(rows.block)
    assert np.array_equal(found.revision, rows.revision)
    assert np.array_equal(found.available_at_ms, rows.available_at_ms)
    with pq.ParquetFile(path) as file:
        column = file.metadata.row_group(0).column(0)
        assert (file.num_row_groups, column.compression, column.is_stats_set) == (1, "ZSTD", True)
    assert told(capsys, "compact")[1]["months"] == 0
    assert told(capsys, "check")[1]["whole"]
    assert told(capsys, "compact", "--drop-revisions-older-than", "0")[1]["revisions_dropped"] == 0
    lake.append(BTC, BLOCK[1:2])
    assert told(capsys, "compact", "--drop-revisions-older-than", "36500")[1]["revisions_dropped"] == 0


def test_a_file_that_contradicts_the_lake_stays_where_it_is(lake, capsys):
    """What says something else of a stored candle is not taken in, and the reason says what to do."""
    path = lake.paths(BTC)[0]
    stray = path.with_name("2023-11-old.parquet")
    rows = read_partition(path)
    write_partition(stray, _priced(rows, 2, 4, 77.0))
    status, shown = told(capsys, "compact")
    assert status == 1
    assert "contradicts the lake" in shown["refused"][0]
    assert stray.exists()
    stray.write_bytes(b"damaged")
    assert told(capsys, "compact")[0] == 1
    assert lake.read(BTC).equals(BLOCK)


def test_retain_keeps_features_with_an_infinite_memory(lake, tmp_path, capsys):
    """After the oldest month is gone, features of old and new candles are what they would be with all of them."""
    store, more = FeatureStore(tmp_path / "features"), market(60, seed=3, start_ms=int(BLOCK.open_time_ms[-1]) + STEP)
    whole = BLOCK.concat(more)
    expected = FeatureEngine(Timeframe.M5).advance(whole)
    status, shown = told(capsys, "retain", "--keep-days", "1")
    assert status == 0
    assert [(one["symbol"], one["months"]) for one in shown] == [(BTC.symbol, ["2023-11"]), (ETH.symbol, ["2023-11"])]
    assert [path.stem for path in lake.paths(BTC)] == ["2023-12"]
    lake.append(BTC, more)
    assert store.materialize(lake, [BTC])[BTC].resumed
    assert same(store.read(BTC)[1], expected)
    assert store.verify(lake, BTC) == 0
    left = len(lake.read(BTC))
    frame = store.training_frame(lake, [BTC], 0, 2**62, 12)[BTC]
    assert same(frame.features, expected[-left:])
    assert same(store.features_as_of(lake, [BTC], 2**53)[BTC].features, expected[-1])
    assert told(capsys, "retain", "--keep-days", "1") == (0, [])
    # A second month goes, and then all of them are fetched again.
    later = market(9_000, seed=4, start_ms=int(more.open_time_ms[-1]) + STEP)
    lake.append(BTC, later)
    assert told(capsys, "retain", "--keep-days", "1")[1][0]["months"] == ["2023-12"]
    longer = FeatureEngine(Timeframe.M5).advance(whole.concat(later))
    frame = store.training_frame(lake, [BTC], 0, 2**62, 12)[BTC]
    assert same(frame.features, longer[-len(lake.read(BTC)) :])
    lake.append(BTC, whole.concat(later))
    assert same(store.training_frame(lake, [BTC], 0, 2**62, 12)[BTC].features, longer)


def test_retention_that_is_killed_between_its_steps_is_finished_by_the_next(lake, tmp_path, capsys):
    """The memory is stored and the month is still there: features are the same before, and after the next run."""
    store, expected = FeatureStore(tmp_path / "features"), FeatureEngine(Timeframe.M5).advance(BLOCK)
    store.keep_memory(BTC, read_partition(lake.paths(BTC)[0]).block)
    assert same(store.training_frame(lake, [BTC], 0, 2**62, 12)[BTC].features, expected)
    assert told(capsys, "retain", "--keep-days", "1")[0] == 0
    frame = store.training_frame(lake, [BTC], 0, 2**62, 12)[BTC]
    assert same(frame.features, expected[-len(frame) :])
    (kept,) = (store.root / "removed").rglob("*BTC*.npz")
    kept.write_bytes(b"damaged")
    with pytest.raises(CorruptFileError, match="removed"):
        store.training_frame(lake, [BTC], 0, 2**62, 12)
    assert str(kept) in [one["path"] for one in told(capsys, "check")[1]["findings"]]


def test_damaged_features_are_found_and_made_again(lake, tmp_path, capsys):
    """A feature file or a state that cannot be read is reported; repair removes it, and it is made anew."""
    store = FeatureStore(tmp_path / "features")
    store.materialize(lake, [BTC])
    path = min(series_folder(store.root, BTC).glob("*.parquet"))
    path.write_bytes(path.read_bytes()[:500])
    state = next((store.root / "state").rglob("*.npz"))
    state.write_bytes(b"damaged")
    status, shown = told(capsys, "check")
    assert status == 1
    assert {one["path"] for one in shown["findings"]} == {str(path), str(state)}
    assert all("qtctl features" in one["remedy"] for one in shown["findings"])
    assert told(capsys, "repair")[0] == 0
    assert told(capsys, "check")[0] == 0
    store.materialize(lake, [BTC])
    assert store.verify(lake, BTC) == 0


def test_people_are_told_in_sentences(lake, capsys):
    """Without --json each command says what it did, and what to run next."""
    lake.paths(BTC)[0].write_bytes(b"")
    assert run(app, ["check"]) == 1
    assert "run: qtctl lake repair" in capsys.readouterr().out
    assert run(app, ["repair"]) == 0
    shown = capsys.readouterr().out
    assert "fetch again 2023-11-01 to 2023-12-01" in shown
    assert "qtctl ingest --repair --venue sandbox --symbols BTC/USDT:USDT --timeframe 5m" in shown
    assert run(app, ["compact", "--all"]) == 0
    assert "Wrote 3 months anew" in capsys.readouterr().out
    assert run(app, ["retain", "--keep-days", "1"]) == 0
    assert "Removed 1 months" in capsys.readouterr().out


def test_the_schema_is_what_is_written(lake):
    """A month read back has the columns that the lake promises."""
    table = read_table(lake.paths(BTC)[0])
    assert table.schema.equals(SCHEMA)
