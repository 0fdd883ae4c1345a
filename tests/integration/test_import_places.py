"""Where candles that people have may lie, what a place lacks, and what the command makes of it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from feature_store import clock
from feature_store.candle import CandleBlock, Series, Timeframe
from feature_store.errors import BadInputError
from feature_store.lake import CandleLake
from feature_store.sources.importing import Selection, import_candles
from feature_store.sources.opening import open_source
from inference.cli import run
from tests.feature_support import market
from tests.import_support import (
    DAY,
    FEB_2024,
    JAN_2024,
    NOW_MS,
    STEP,
    archive,
    days,
    json_file,
    klines,
    recording,
    served,
)

SPOT = Series("binance", "BTC/USDT", Timeframe.M5)
SWAP = Series("binanceusdm", "BTC/USDT:USDT", Timeframe.M5)
MONTH = days(31)


@pytest.fixture
def lake(tmp_path):
    return CandleLake(tmp_path / "lake")


def bring(lake, place, *, selection, now_ms=NOW_MS):
    source = open_source(str(place), selection=selection, now_ms=now_ms, days=30)
    return import_candles(lake, source, selection, now_ms=now_ms)


def test_short_names_with_their_venue(tmp_path, lake):
    """`price_history/BTCUSDT_1m.json` is read under the venue that is told, as spot or as perpetuals."""
    block = market(500, start_ms=JAN_2024, timeframe=Timeframe.M1)
    json_file(tmp_path / "price_history/BTCUSDT_1m.json", block)
    json_file(tmp_path / "price_history/ETHUSDT_1m.json.gz", block)
    done = bring(lake, tmp_path / "price_history", selection=Selection(venue="binanceusdm"))
    assert done.refused == ()
    assert [one.key for one in done.series] == ["binanceusdm|BTC/USDT:USDT|1m", "binanceusdm|ETH/USDT:USDT|1m"]
    assert lake.read(done.series[0]).equals(block)
    spot = Selection(("BTC/USDT",), venue="binance")
    assert bring(lake, tmp_path / "price_history", selection=spot).series == (replace(SPOT, timeframe=Timeframe.M1),)


def test_archives_outside_of_their_tree(tmp_path, lake):
    """Flat files with their checksums are read under the venue that is told; a month still stands for its days."""
    source = tmp_path / "tree"
    archive(source, "BTCUSDT", "2024-01", klines(MONTH))
    archive(source, "BTCUSDT", "2024-01-02", "not even candles")
    archive(source, "BTCUSDT", "2024-02-01", klines(days(1, FEB_2024)))
    (tmp_path / "flat").mkdir()
    for path in source.rglob("*.zip*"):
        path.rename(tmp_path / "flat" / path.name)
    done = bring(lake, tmp_path / "flat", selection=Selection(venue="binance"))
    assert (done.parts, done.refused, done.appended) == (2, (), 32 * DAY)
    assert done.series == (SPOT,)
    one = tmp_path / "flat/BTCUSDT-5m-2024-02-01.zip"
    assert bring(lake, one, selection=Selection(venue="binanceusdm")).series == (SWAP,)


def test_an_address_tells_the_days_that_it_lacks(tmp_path, lake):
    """Days that are due and not there are told, stretch by stretch; the newest, which come late, are not."""
    root, now_ms = tmp_path / "files", FEB_2024 + 12 * DAY * STEP + 1
    archive(root, "BTCUSDT", "2024-01", klines(MONTH))
    for day in (1, 2, 6):
        archive(root, "BTCUSDT", f"2024-02-0{day}", klines(days(1, FEB_2024 + (day - 1) * DAY * STEP, seed=day)))
    wanted = Selection(("BTC/USDT", "TYPO/USDT"), Timeframe.M5)
    with served(root) as (url, _):
        done = bring(lake, url, selection=wanted, now_ms=now_ms)
        assert done.missing == (
            "BTC/USDT 5m: 7 days, 2024-02-03 to 2024-02-05, 2024-02-07 to 2024-02-10",
            "TYPO/USDT 5m: none of 28 days; is this a symbol of binance?",
        )
        again = bring(lake, url, selection=wanted, now_ms=now_ms)
        assert (again.known, again.missing) == (4, done.missing)
        with pytest.raises(BadInputError, match=r"TYPO/USDT 5m is in none of 0 files.*symbols of the venue"):
            bring(lake, url, selection=Selection(("TYPO/USDT",), Timeframe.M5), now_ms=now_ms)


def test_the_command_ends_with_3_where_days_are_missing(tmp_path, capsys, monkeypatch):
    """What an address lacks is said, and the exit status is not that of a whole import."""
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path / "home"))
    now = clock.utc_now().replace(hour=0, minute=0, second=0, microsecond=0)
    day = now - timedelta(days=4)
    archive(tmp_path / "files", "BTCUSDT", f"{day:%Y-%m-%d}", klines(days(1, int(day.timestamp()) * 1000)))
    with served(tmp_path / "files") as (url, _):
        place = ["ingest", "--from", url, "--symbols", "BTC/USDT", "--timeframe", "5m"]
        assert run([*place, "--days", "4"]) == 3
        assert f"{now - timedelta(days=3):%Y-%m-%d}" in capsys.readouterr().out
        assert run([*place, "--days", "4", "--json"]) == 3
        assert len(json.loads(capsys.readouterr().out)["missing"]) == 1


def test_the_command_derives_of_imported_minutes(tmp_path, capsys, monkeypatch):
    """`--from … --derive` makes longer candles without a venue, also of minutes that were imported before."""
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path / "home"))
    block = market(600, start_ms=JAN_2024, timeframe=Timeframe.M1)
    place = [
        "ingest",
        "--from",
        str(recording(tmp_path / "minutes.csv", ("binance", "BTC/USDT", block), timeframe="1m")),
    ]
    assert run([*place, "--timeframe", "1m"]) == 0
    assert run([*place, "--derive", "5m,1h", "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (told["known"], told["derived"]) == (1, 120 + 10)
    lake = CandleLake(tmp_path / "home/lake")
    five = lake.read(SPOT)
    assert len(five) == 120
    assert np.array_equal(five.values[:, 1], block.values[:, 1].reshape(-1, 5).max(axis=1))
    assert run([*place, "--derive", "5m", "--timeframe", "5m"]) == 2
    assert run([*place, "--derive", "2m"]) == 2
    assert run([*place, "--derive", "5m", "--kinds", "funding"]) == 2
    monkeypatch.setenv("QT_DERIVE", "15m")
    assert run([*place, "--timeframe", "1m"]) == 0
    assert len(lake.read(replace(SPOT, timeframe=Timeframe.M15))) == 40


def test_deriving_does_not_name_the_timeframe_of_a_file(tmp_path, capsys, monkeypatch):
    """Candles whose file names no timeframe become minutes by --timeframe 1m only, not because some are derived."""
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path / "home"))
    path = tmp_path / "mine.csv"

    def write(block):
        rows = zip(block.open_time_ms.tolist(), *block.values.T.tolist(), strict=True)
        path.write_text("\n".join(["ts,open,high,low,close,volume", *(",".join(map(repr, row)) for row in rows)]))

    write(MONTH[:3])
    place = ["ingest", "--from", str(path), "--venue", "binance", "--symbols", "BTC/USDT", "--derive", "15m"]
    columns = ["--columns", "ts=ts:ms"]
    for command in (place, [*place, *columns]):
        assert run(command) == 3
        assert "does not say its timeframe" in capsys.readouterr().out
    assert CandleLake(tmp_path / "home/lake").series() == []
    write(market(60, start_ms=JAN_2024, timeframe=Timeframe.M1))
    for command in (place, [*place, *columns]):
        assert run([*command, "--timeframe", "1m"]) == 0
    lake = CandleLake(tmp_path / "home/lake")
    assert len(lake.read(replace(SPOT, timeframe=Timeframe.M1))) == 60
    assert len(lake.read(replace(SPOT, timeframe=Timeframe.M15))) == 4


def test_candles_that_were_imported_are_not_derived_over(tmp_path, capsys, monkeypatch):
    """Where longer candles were imported before, the minutes come, the others stay, and it is said why."""
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path / "home"))
    assert run(["ingest", "--from", str(recording(tmp_path / "five.csv", ("binance", "BTC/USDT", MONTH)))]) == 0
    block = market(600, start_ms=JAN_2024, timeframe=Timeframe.M1)
    minutes = recording(tmp_path / "minutes.csv", ("binance", "BTC/USDT", block), timeframe="1m")
    assert run(["ingest", "--from", str(minutes), "--derive", "5m,1h"]) == 3
    shown = capsys.readouterr().out
    assert "Imported 600 new candles" in shown
    assert "not mixed into it" in shown
    lake = CandleLake(tmp_path / "home/lake")
    assert lake.read(SPOT).equals(MONTH)
    assert len(lake.read(replace(SPOT, timeframe=Timeframe.H1))) == 10


def test_the_sentence_tells_corrections_apart_and_names_a_file_once(tmp_path, capsys, monkeypatch):
    """New candles are counted without corrections; a refusal begins with the path of its file, and has it once."""
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path / "home"))
    path = recording(tmp_path / "a.csv", ("binance", "BTC/USDT", MONTH[: 2 * DAY]))
    assert run(["ingest", "--from", str(path)]) == 0
    values = MONTH.values.copy()
    values[2 * DAY - 1, 4] += 1
    recording(path, ("binance", "BTC/USDT", CandleBlock(MONTH.open_time_ms, values)))
    assert run(["ingest", "--from", str(path)]) == 0
    assert f"Imported {29 * DAY} new candles and 1 corrections of stored ones of 1 series" in capsys.readouterr().out
    torn = archive(tmp_path / "files", "ETHUSDT", "2024-01", klines(MONTH))
    torn.with_name(f"{torn.name}.CHECKSUM").unlink()
    assert run(["ingest", "--from", str(tmp_path / "files")]) == 3
    assert capsys.readouterr().out.count(str(torn.parent)) == 1
