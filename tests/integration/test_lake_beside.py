"""The lake's commands over what lies beside candles: market data of other kinds, and what other sources said."""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.candle import CandleBlock, Series, Timeframe
from feature_store.commands import lake as app
from feature_store.context.observation import Figure, Observation
from feature_store.context.store import ObservationStore
from feature_store.errors import CorruptFileError
from feature_store.kinds.definition import BOOK, FILTERS, FUNDING, KINDS, TRADES
from feature_store.kinds.partition import folder_of, names_in, path_of
from feature_store.kinds.store import KindStore
from feature_store.lake import CandleLake
from feature_store.sources.deriving import keep_derived
from feature_store.terminal import run
from tests.feature_support import T0, market
from tests.kind_support import BTC_PERP, NEVER, rows_of, subject_of

DAY_MS = 86_400_000
ARRIVED = 1_700_000_000_000
MINUTES = Series("sandbox", "BTC/USDT:USDT", Timeframe.M1)


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A lake with every kind of market data over two stretches, and a source that spoke on two days."""
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path))
    monkeypatch.delenv("QT_LAKE", raising=False)
    store = KindStore(tmp_path / "lake")
    for kind in KINDS:
        store.append(subject_of(kind), rows_of(kind, 40), arrived_ms=NEVER)
    said = ObservationStore(tmp_path / "lake")
    for at_ms in (ARRIVED, ARRIVED + 60_000, ARRIVED + DAY_MS, ARRIVED + DAY_MS + 60_000):
        observation = Observation(f"item-{at_ms}", None, (Figure("BTC", "sentiment", 0.5),))
        said.append("rss", [observation], at_ms, topic="texts_polled")
    return store


def told(capsys, *arguments):
    """Run a command; return its exit status and what it printed as JSON."""
    status = run(app, [*arguments, "--json"])
    return status, json.loads(capsys.readouterr().out)


def first_of(store, kind):
    """Return the oldest file of a kind."""
    folder = folder_of(store.root, kind, subject_of(kind))
    return path_of(folder, names_in(folder)[0])


def said_first(store):
    """Return the oldest file of the source."""
    return min((store.root / "observations" / "source=rss").glob("*.parquet"))


def changed(path, change):
    """Write the table of a file anew, as something else would have."""
    with pq.ParquetFile(path) as file:
        table = file.read()
    pq.write_table(change(table), path)


DAMAGE = {
    "zero bytes": (lambda path: path.write_bytes(b""), "unreadable"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-9]), "unreadable"),
    "other columns": (lambda path: pq.write_table(pa.table({"a": [1]}), path), "columns"),
    "no rows": (lambda path: changed(path, lambda table: table.slice(0, 0)), "empty"),
    "unsorted": (lambda path: changed(path, lambda table: table.take(list(range(len(table)))[::-1])), "unsorted"),
    "twice": (lambda path: changed(path, lambda t: t.take(np.repeat(np.arange(len(t)), 2))), "duplicates"),
}


@pytest.mark.parametrize("name", [*[kind.name for kind in KINDS], "observations"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_beside_candles_is_found_and_set_aside(store, capsys, name, damage):
    """Of each kind and of sources: check names the file, repair keeps it under a name that says why."""
    kind = next((one for one in KINDS if one.name == name), None)
    path = said_first(store) if kind is None else first_of(store, kind)
    spoil, why = DAMAGE[damage]
    assert told(capsys, "check") == (0, {"series": 0, "beside": 9, "whole": True, "findings": []})
    spoil(path)
    status, shown = told(capsys, "check", "--kinds", name)
    (finding,) = shown["findings"]
    assert (status, finding["path"], finding["of"], finding["kind"]) == (1, str(path), name, "damaged")
    status, (repaired,) = told(capsys, "repair")
    assert status == 0
    assert f".corrupt-{why}-" in repaired["set_aside"][0]["path"]
    forgotten = kind is None or kind in (FILTERS, BOOK)
    assert (repaired["lost"], len(repaired["to_fetch"])) == ([path.stem], 0) if forgotten else ([], 1)
    status, shown = told(capsys, "check")
    assert (status, [one["kind"] for one in shown["findings"]]) == (0, ["set-aside"])
    if kind is not None:
        store.append(subject_of(kind), rows_of(kind, 40), arrived_ms=NEVER)
        assert store.read(kind, subject_of(kind)).equals(rows_of(kind, 40))


def test_files_of_others_and_of_no_stretch_are_found(store, capsys):
    """A file copied from another subject or source, or to another stretch's name, is refused by name and set aside."""
    other = replace(BTC_PERP, symbol="ETH/USDT:USDT")
    store.append(other, rows_of(FUNDING, 40), arrived_ms=NEVER)
    path = first_of(store, FUNDING)
    shutil.copy(folder_of(store.root, FUNDING, other) / path.name, path)
    with pytest.raises(CorruptFileError, match="ETH"):
        store.read(FUNDING, BTC_PERP)
    trades = first_of(store, TRADES)
    shutil.copy(trades, trades.with_name("2024-01-01T00.parquet"))
    shutil.copy(trades, trades.with_name("copy of trades.parquet"))
    elsewhere = store.root / "observations" / "source=social"
    elsewhere.mkdir()
    shutil.copy(said_first(store), elsewhere)
    status, shown = told(capsys, "check")
    assert (status, len(shown["findings"])) == (1, 4)
    assert any("source" in one["path"] and "rss" in one["found"] for one in shown["findings"])
    asides = [one["path"] for done in told(capsys, "repair")[1] for one in done["set_aside"]]
    assert sorted(aside.split(".corrupt-")[1].split("-2")[0] for aside in asides) == [
        "name", "other-stretch", "other-subject", "other-subject",
    ]  # fmt: skip
    assert told(capsys, "check")[0] == 0
    assert store.read(TRADES, BTC_PERP).equals(rows_of(TRADES, 40))


def test_leftovers_beside_candles_are_swept(store, capsys):
    """What killed writers left half written is told of and removed, of kinds, their notes and sources."""
    for path in (first_of(store, BOOK), first_of(store, FUNDING).with_name("asked.json"), said_first(store)):
        path.with_name(f".{path.name}.abc123.tmp").write_bytes(b"half")
    status, shown = told(capsys, "check")
    assert (status, [one["kind"] for one in shown["findings"]]) == (1, ["leftover"] * 3)
    assert sum(one["leftovers_removed"] for one in told(capsys, "repair")[1]) == 3
    assert told(capsys, "check")[0] == 0


def test_ls_lists_kinds_and_sources(store, capsys):
    """One line for each, with files, rows and times; --kinds chooses, and a damaged file is said."""
    CandleLake(store.root).append(MINUTES, market(5, start_ms=T0 - T0 % 60_000)[:1])
    status, shown = told(capsys, "ls")
    assert status == 0
    assert [one["kind"] for one in shown] == ["candles", *[kind.name for kind in KINDS], "observations"]
    status, (funding, said) = told(capsys, "ls", "--kinds", "funding,observations")
    assert (funding["files"], funding["rows"], funding["missing"]) == (2, 40, None)
    assert funding["first_ms"] == rows_of(FUNDING, 40).time_ms[0]
    assert (said["venue"], said["files"], said["rows"], said["last_ms"]) == ("rss", 2, 8, ARRIVED + DAY_MS + 60_000)
    said_first(store).write_bytes(b"")
    assert run(app, ["ls"]) == 1
    assert "1 damaged" in capsys.readouterr().out
    assert told(capsys, "ls", "--kinds", "candles")[1][0]["symbol"] == MINUTES.symbol
    for wrong in (["--kinds", "prices"], ["--kinds", ","], ["--kinds", "book", "--timeframe", "1h"]):
        assert run(app, ["ls", *wrong]) == 2


def test_retain_lets_trades_and_books_go_and_nothing_else(store, capsys):
    """Hours and days before the last ones go where their kind is named; filters and sources are refused."""
    late = rows_of(TRADES, 40)
    late = type(late)(late.kind, late.time_ms + 5 * DAY_MS, {**late.columns, "trade_id": late["trade_id"] + 100})
    store.append(BTC_PERP, late, arrived_ms=NEVER)
    before = told(capsys, "ls")[1]
    status, (gone,) = told(capsys, "retain", "--keep-days", "2", "--kinds", "trades,book")
    assert (status, gone["kind"], gone["rows"]) == (0, "trades", 40)
    assert store.read(TRADES, BTC_PERP).equals(late)
    after = told(capsys, "ls")[1]
    assert [one for one in before if one["kind"] != "trades"] == [one for one in after if one["kind"] != "trades"]
    for name in ("filters", "observations"):
        assert run(app, ["retain", "--keep-days", "2", "--kinds", name]) == 2
    assert run(app, ["retain", "--keep-days", "2", "--kinds", "trades"]) == 0
    assert "Removed 0 files" in capsys.readouterr().out


def test_people_are_told_how_to_fetch_again(store, capsys):
    """Repair ends with the command that fetches a kind again, or says that nobody tells it."""
    first_of(store, FUNDING).write_bytes(b"")
    first_of(store, BOOK).write_bytes(b"")
    assert run(app, ["check"]) == 1
    assert "run: qtctl lake repair" in capsys.readouterr().out
    assert run(app, ["repair"]) == 0
    shown = capsys.readouterr().out
    assert "qtctl ingest --repair --kinds funding --venue sandbox --symbols BTC/USDT:USDT" in shown
    assert "nobody tells again what was known of: 2023-11-30" in shown


def test_check_derives_again_and_compares(tmp_path, capsys, monkeypatch):
    """A derived candle that is not what its minutes add up to is told; others, and those of removed ones, are not."""
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path))
    monkeypatch.delenv("QT_LAKE", raising=False)
    lake, shape = CandleLake(tmp_path / "lake"), market(1_500, seed=5)
    begin = int(np.datetime64("2023-11-30T12:00", "ms").astype(np.int64))
    lake.append(MINUTES, CandleBlock(begin + np.arange(1_500) * 60_000, shape.values))
    asyncio.run(keep_derived(lake, MINUTES, [Timeframe.M5, Timeframe.H1]))
    assert told(capsys, "check", "--derived")[0] == 0
    five = replace(MINUTES, timeframe=Timeframe.M5)
    wrong = lake.read(five)[200:202]
    lake.append(five, CandleBlock(wrong.open_time_ms, wrong.values + 1), available_at_ms=NEVER)
    assert told(capsys, "check")[0] == 0
    status, shown = told(capsys, "check", "--derived")
    (finding,) = shown["findings"]
    assert (status, finding["kind"], finding["timeframe"]) == (1, "differs", "5m")
    assert finding["found"].startswith("2 candles differ from the 300 ")
    assert "--derive 5m" in finding["remedy"]
    lake.remove(lake.paths(MINUTES)[0])
    assert told(capsys, "check", "--derived", "--timeframe", "1h")[0] == 0
