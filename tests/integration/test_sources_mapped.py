"""Parquet and CSV files of anybody's making: told which column is which, they become the same candles."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.candle import COLUMNS, Series, Timeframe
from feature_store.errors import BadInputError
from feature_store.lake import CandleLake
from feature_store.sources.columns import FIELDS, UNITS, ColumnMap
from feature_store.sources.importing import Advance, Selection, import_candles
from feature_store.sources.opening import open_source
from flows.importing import Pace
from inference.cli import run
from tests.import_support import NOW_MS, archive, days, feather, klines

BLOCK = days(2)
SPOT = Series("kraken", "BTC/USDT", Timeframe.M5)
CHOSEN = Selection(("BTC/USDT",), Timeframe.M5, "kraken")
ISO = BLOCK.open_time_ms.astype("datetime64[ms]").astype("datetime64[s]").astype(str)


def bring(tmp_path, place, columns, selection=CHOSEN, **how):
    lake = CandleLake(tmp_path / "lake")
    source = open_source(str(place), selection=selection, now_ms=NOW_MS, days=3, columns=columns)
    return lake, import_candles(lake, source, selection, now_ms=NOW_MS, **how)


def refusal(tmp_path, place, columns, selection=CHOSEN) -> str:
    lake, done = bring(tmp_path, place, columns, selection)
    assert lake.series() == []
    assert len(done.refused) == 1
    return done.refused[0].reason


def parquet(path, times, **more):
    columns = {"when": times} | dict(zip(COLUMNS, BLOCK.values.T, strict=True)) | more
    pq.write_table(pa.table(columns), path)
    return path


TIMES = {
    "ts=when": BLOCK.open_time_ms,
    "ts=when:ms": BLOCK.open_time_ms.astype(np.float64),
    "ts=when:s": BLOCK.open_time_ms // 1000,
    "ts=when:us": BLOCK.open_time_ms * 1000,
    "ts=when:ns": BLOCK.open_time_ms * 1_000_000,
    "ts=when:iso": [f"{text}Z" for text in ISO],
    " ts = when:iso , ": [text.replace("T", " ") for text in ISO],
    "ts=when ": pa.array(BLOCK.open_time_ms, pa.timestamp("ms", tz="UTC")),
    "ts=when:s ": pa.array(BLOCK.open_time_ms * 1_000_000, pa.timestamp("ns")),
}


@pytest.mark.parametrize("columns", TIMES)
def test_times_in_every_unit_are_the_same_moments(tmp_path, columns):
    """Seconds, microseconds, written moments, Parquet's own: told or plain to see, the same candles to the bit."""
    lake, done = bring(tmp_path, parquet(tmp_path / "mine.parquet", TIMES[columns]), columns)
    assert (done.refused, done.appended) == ((), len(BLOCK))
    assert lake.read(SPOT).equals(BLOCK)


@pytest.mark.parametrize(
    ("times", "columns", "reason"),
    [
        (BLOCK.open_time_ms // 1000, "ts=when", "looks like seconds"),
        (BLOCK.open_time_ms, "ts=when:s", "looks like microseconds"),
        (BLOCK.open_time_ms * 1000, "ts=when", "looks like microseconds"),
        (BLOCK.open_time_ms + 0.5, "ts=when", "no whole milliseconds"),
        (BLOCK.open_time_ms + 1, "ts=when:ns", "no whole milliseconds"),
        (BLOCK.open_time_ms / 1000 + 0.0004, "ts=when:s", "no whole milliseconds"),
        (np.full(len(BLOCK), np.inf), "ts=when", "no whole milliseconds"),
        (np.full(len(BLOCK), 2**62), "ts=when:s", "no whole milliseconds"),
        (["soon"] * len(BLOCK), "ts=when:iso", "not all written as"),
        (["soon"] * len(BLOCK), "ts=when", "say their unit"),
        ([None] * len(BLOCK), "ts=when", "without a time"),
        ([*[f"{text}Z" for text in ISO[1:]], ISO[0]], "ts=when:iso", "not all written as"),
        (BLOCK.open_time_ms, "ts=When", "does not have the columns When"),
        (BLOCK.open_time_ms, "ts=when,open=Open", "does not have the columns Open"),
        (BLOCK.open_time_ms, "ts=when,symbol=pair", "does not have the columns pair"),
    ],
)
def test_times_that_cannot_be_told_are_refused(tmp_path, times, columns, reason):
    """A wrong unit, half a millisecond, words, a column that is not there: refused, not guessed."""
    assert reason in refusal(tmp_path, parquet(tmp_path / "mine.parquet", times), columns)


def test_rows_of_many_series_may_alternate(tmp_path):
    """A table by time with a row for each symbol, as many are, gives each symbol its own candles in its own order."""
    other = days(2, seed=5)
    rows = ["pair,tf,date,open,high,low,close,volume"]
    for at, time in enumerate(BLOCK.open_time_ms.tolist()):
        for pair, block in (("BTCUSDT", BLOCK), ("ETHUSDT", other)):
            rows.append(f"{pair},5m,{time},{','.join(map(repr, block.values[at].tolist()))}")
    (tmp_path / "mine.csv").write_text("\n".join(rows))
    chosen = Selection(venue="kraken")
    lake, done = bring(tmp_path, tmp_path / "mine.csv", "ts=date,symbol=pair,timeframe=tf", chosen)
    assert done.refused == ()
    assert lake.read(SPOT).equals(BLOCK)
    assert lake.read(Series("kraken", "ETH/USDT", Timeframe.M5)).equals(other)


def test_a_symbol_may_stand_in_the_name_of_its_file(tmp_path):
    """A folder with a file for each symbol needs no list of them."""
    folder = tmp_path / "files"
    folder.mkdir()
    for name in ("BTCUSDT", "ETHUSDT"):
        parquet(folder / f"{name}.parquet", BLOCK.open_time_ms)
    lake, done = bring(tmp_path, folder, "ts=when,symbol=@name", Selection(None, Timeframe.M5, "kraken"))
    assert done.refused == ()
    assert [one.symbol for one in lake.series()] == ["BTC/USDT", "ETH/USDT"]
    lake, done = bring(tmp_path, folder, "ts=when,symbol=@name", Selection(None, Timeframe.M5, "kraken"))
    assert done.known == 2


@pytest.mark.parametrize(
    ("selection", "option"),
    [
        (Selection(("BTC/USDT",), Timeframe.M5), "--venue"),
        (Selection(("BTC/USDT",), None, "kraken"), "--timeframe"),
        (Selection(None, Timeframe.M5, "kraken"), "--symbols"),
        (Selection(("BTC/USDT", "ETH/USDT"), Timeframe.M5, "kraken"), "--symbols"),
    ],
)
def test_what_a_file_does_not_say_is_asked_for(tmp_path, selection, option):
    """Venue, symbol and timeframe are never guessed: the option that tells them is named."""
    assert option in refusal(tmp_path, parquet(tmp_path / "mine.parquet", BLOCK.open_time_ms), "ts=when", selection)


def test_text_for_a_price_is_refused(tmp_path):
    """A column of words, absent prices, an empty file, two columns of one name: nothing of the file is stored."""
    words = parquet(tmp_path / "mine.parquet", BLOCK.open_time_ms, close=["much"] * len(BLOCK))
    assert "something else than numbers for close" in refusal(tmp_path, words, "ts=when")
    absent = parquet(tmp_path / "mine.parquet", BLOCK.open_time_ms, close=[None, *BLOCK.values[1:, 3]])
    assert "finite and positive" in refusal(tmp_path, absent, "ts=when")
    (tmp_path / "mine.csv").write_text("when,open,high,low,close,volume\n")
    assert refusal(tmp_path, tmp_path / "mine.csv", "ts=when") != ""
    (tmp_path / "mine.csv").write_text("when,open,open,high,low,close,volume\n1704067200000,1,1,1,1,1,1\n")
    assert "once each" in refusal(tmp_path, tmp_path / "mine.csv", "ts=when")
    (tmp_path / "mine.csv").write_text("when,open,high,low,close,volume\n1704067200000,1,1,1,1,1\n1704067500000,1,1\n")
    assert "not a whole file" in refusal(tmp_path, tmp_path / "mine.csv", "ts=when")
    (tmp_path / "mine.csv").write_bytes(b"\xff\xfe\x00bin")
    assert refusal(tmp_path, tmp_path / "mine.csv", "ts=when") != ""


@pytest.mark.parametrize("text", ["price=p", "open", "open=", "=p", "open=a,open=b", "ts=a:hours", "ts=a,,x"])
def test_a_map_that_is_none_is_refused(text):
    """A column that we do not have, an unknown unit, the same twice: told before any file is read."""
    with pytest.raises(BadInputError, match=r"--columns|unit of time"):
        ColumnMap.parse(text)


@given(st.dictionaries(st.sampled_from(FIELDS), st.text("abcXYZ_ 9.", min_size=1).map(str.strip).filter(bool)))
def test_a_map_says_what_it_was_told(theirs):
    """Whatever columns are called, the map gives them back, and ours where none was told."""
    found = ColumnMap.parse(",".join(f"{ours}={name}" for ours, name in theirs.items()))
    assert all(found.of(ours) == theirs.get(ours, ours) for ours in FIELDS)
    assert found.unit in UNITS


def test_columns_are_told_of_recordings_only(tmp_path):
    """An archive, an address or freqtrade's folder has its own columns."""
    archive(tmp_path / "files", "BTCUSDT", "2024-01", klines(BLOCK))
    for place, kind in ((tmp_path, "binance-archive"), (tmp_path, "freqtrade"), ("http://127.0.0.1:9", None)):
        with pytest.raises(BadInputError, match="recordings only"):
            open_source(str(place), kind, selection=CHOSEN, now_ms=NOW_MS, days=3, columns="ts=when")


def test_the_command_takes_columns(tmp_path, capsys, monkeypatch):
    """`qtctl ingest --from FILE --columns …` imports; without --from it is bad usage."""
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path / "home"))
    path = parquet(tmp_path / "mine.parquet", BLOCK.open_time_ms // 1000)
    chosen = ["--venue", "binance", "--symbols", "BTC/USDT", "--timeframe", "5m"]
    assert run(["ingest", "--from", str(path), "--columns", "ts=when:s", *chosen, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["appended"] == len(BLOCK)
    assert run(["ingest", "--columns", "ts=when"]) == 2


def test_freqtrade_and_recordings_are_told_apart_by_name(tmp_path):
    """A Parquet file called as freqtrade calls its candles is freqtrade's; any other is a recording."""
    feather(tmp_path / "binance/BTC_USDT-5m.feather", BLOCK)
    parquet(tmp_path / "binance/ETH_USDT-5m.parquet", BLOCK.open_time_ms)
    assert type(open_source(str(tmp_path), selection=CHOSEN, now_ms=NOW_MS, days=3)).__name__ == "FreqtradeFolder"
    parquet(tmp_path / "binance/recorded_2024-01.parquet", BLOCK.open_time_ms)
    with pytest.raises(BadInputError, match="freqtrade and recording"):
        open_source(str(tmp_path), selection=CHOSEN, now_ms=NOW_MS, days=3)


def test_a_pace_tells_rate_and_time_left():
    """Half of the files in ten seconds: as many candles a second, and ten seconds left."""
    moments = iter([100.0, 110.0, 110.0, 120.0, 100.0])
    pace = Pace(lambda: next(moments))
    assert pace.described(Advance(2, 4, "x", 5_000)) == "2 of 4 files, 5,000 candles, 500 candles/s, 0:10 left"
    assert pace.described(Advance(4, 4, "", 10_000)) == "4 of 4 files, 10,000 candles, 500 candles/s"
    assert pace.rate(Advance(0, 4, "", 0)) == "0 candles/s"
    moments = iter([0.0, 2.0])
    assert Pace(lambda: next(moments), unit="rows").rate(Advance(1, 4, "x", 500)) == "250 rows/s"
