from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from feature_store.candle import Timeframe
from feature_store.errors import BadInputError
from feature_store.kinds.definition import (
    AGGREGATE_TRADES,
    BOOK,
    FUNDING,
    INDEX,
    KINDS,
    MARK,
    OPEN_INTEREST,
    TRADES,
    Subject,
)
from feature_store.kinds.store import KindStore
from feature_store.sources import kind_archive
from feature_store.sources.importing import Advance
from feature_store.sources.kind_importing import KindSelection, import_kinds
from feature_store.sources.kind_opening import kinds_to_import, open_kinds
from inference.cli import run
from tests.feature_support import market, recorded
from tests.import_support import JAN_2024, NOW_MS, seal, served
from tests.kind_support import HOUR

BTC = Subject("binanceusdm", "BTC/USDT:USDT")
BTC_5M = Subject("binanceusdm", "BTC/USDT:USDT", Timeframe.M5)
ALL = KindSelection(kinds=KINDS)


def archive(
    root: Path, folder: str, period: str, text: str, *, market: str = "futures/um", timeframe: str = ""
) -> Path:
    """Write an archive of market data and its checksum in the layout of data.binance.vision."""
    every = "daily" if len(period) == 10 else "monthly"
    stem = f"BTCUSDT-{timeframe or folder}-{period}"
    path = root / "data" / market / every / folder / "BTCUSDT" / timeframe / f"{stem}.zip"
    path.parent.mkdir(parents=True, exist_ok=True)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(f"{stem}.csv", text)
    path.write_bytes(packed.getvalue())
    return seal(path)


def funding_csv(**spoilt: str) -> str:
    """Return a month of funding rates; a row may be given another rate or time."""
    rows = ["calc_time,funding_interval_hours,last_funding_rate"]
    for number in range(93):
        time, rate = str(JAN_2024 + number * 8 * HOUR + number % 7), f"{(number % 9 - 4) / 10_000:.8f}"
        if number == 5:
            time, rate = spoilt.get("time", time), spoilt.get("rate", rate)
        rows.append(f"{time},8,{rate}")
    return "\n".join(rows) + "\n"


def prices_csv() -> str:
    block = market(288, start_ms=JAN_2024)
    rows = [
        f"{time},{row[0]!r},{row[1]!r},{row[2]!r},{row[3]!r},0,{time + 299_999},0,300,0,0,0"
        for time, row in zip(block.open_time_ms.tolist(), block.values.tolist(), strict=True)
    ]
    return "open_time,open,high,low,close,volume,close_time,qv,count,tb,tbq,ignore\n" + "\n".join(rows) + "\n"


def trades_csv(unit: int = 1) -> str:
    rows = [
        f"{900 + number},{100 + number % 7},0.5,{number},{number},{(JAN_2024 + number * 9_000) * unit},"
        f"{'True' if number % 3 else 'False'}"
        for number in range(500)
    ]
    return "\n".join(rows) + "\n"


def whole_archive(root: Path) -> None:
    archive(root, "fundingRate", "2024-01", funding_csv())
    for folder in ("markPriceKlines", "indexPriceKlines"):
        archive(root, folder, "2024-01-01", prices_csv(), timeframe="5m")
    archive(root, "aggTrades", "2024-01-01", trades_csv())
    archive(root, "aggTrades", "2024-01-01", trades_csv(unit=1000), market="spot")
    counts = [
        f"2024-01-01 {minute // 60:02d}:{minute % 60:02d}:00,BTCUSDT,{1000 + minute}.5,{minute + 9}.25,1,1,1,1"
        for minute in range(5, 1440, 5)
    ]
    header = "create_time,symbol,sum_open_interest,sum_open_interest_value,a,b,c,d"
    archive(root, "metrics", "2024-01-01", "\n".join([header, *counts]) + "\n")


def imported(store: KindStore, place: Path | str, selection: KindSelection = ALL, *, days: int = 3, **how):
    source = open_kinds(str(place), None, selection, now_ms=NOW_MS, days=days)
    return import_kinds(store, source, selection, now_ms=NOW_MS, **how)


def test_a_bulk_archive_is_imported_once(tmp_path):
    """Funding, mark, index, open interest and trades of spot and perpetuals come whole, in our units; then nothing."""
    store = KindStore(tmp_path / "lake")
    whole_archive(tmp_path / "files")
    told: list[Advance] = []
    done = imported(store, tmp_path / "files", progress=told.append)
    assert (done.refused, done.parts) == ((), 6)
    assert done.rows == {"funding": 93, "mark": 288, "index": 288, "open-interest": 287, "aggregate-trades": 1000}
    assert [(one.done, one.total) for one in told] == [(number, 6) for number in range(7)]
    assert (told[0].rows, told[-1].rows) == (0, 93 + 2 * 288 + 287 + 1000)
    assert [one.rows for one in told] == sorted(one.rows for one in told)
    funding = store.read(FUNDING, BTC)
    assert funding.time_ms.tolist() == [JAN_2024 + number * 8 * HOUR for number in range(93)]
    assert funding["funding_rate"][:3].tolist() == [-0.0004, -0.0003, -0.0002]
    assert store.read(MARK, BTC_5M)["close"].tolist() == market(288, start_ms=JAN_2024).close.tolist()
    assert store.read(INDEX, BTC_5M).time_ms.tolist() == store.read(MARK, BTC_5M).time_ms.tolist()
    counts = store.read(OPEN_INTEREST, BTC_5M)
    assert (int(counts.time_ms[0]), float(counts["open_interest"][0])) == (JAN_2024 + 300_000, 1005.5)
    spot, perpetual = (store.read(AGGREGATE_TRADES, one) for one in (Subject("binance", "BTC/USDT"), BTC))
    assert spot.equals(perpetual)
    assert perpetual["is_buyer_maker"][:4].tolist() == [False, True, True, False]
    # Known as declared, not when it was imported.
    assert len(store.read(FUNDING, BTC, as_of_ms=JAN_2024 + FUNDING.delay_ms)) == 1
    again = imported(store, tmp_path / "files")
    assert (again.known, again.rows, again.subjects) == (6, {}, 0)
    mended = imported(store, tmp_path / "files", again=True)
    assert sum(mended.rows.values()) == 0


def test_an_archive_behind_an_address(tmp_path):
    """Whole months are asked for first, days where a month is not published; what is not there is left out."""
    store = KindStore(tmp_path / "lake")
    whole_archive(tmp_path / "files")
    selection = KindSelection(kinds=(FUNDING, MARK), symbols=("BTC/USDT:USDT",), timeframe=Timeframe.M5)
    with served(tmp_path / "files") as (url, _):
        days = (NOW_MS - JAN_2024) // 86_400_000 + 1
        done = imported(store, url, selection, days=days)
    assert done.refused == ()
    assert done.rows == {"funding": 93, "mark": 288}
    with pytest.raises(BadInputError, match="cannot be listed"):
        open_kinds("http://127.0.0.1:1", None, ALL, now_ms=NOW_MS, days=1)


HOSTILE = {
    "seconds": ({"time": str(JAN_2024 // 1000)}, "looks like seconds"),
    "another month": ({"time": str(JAN_2024 + 40 * 24 * HOUR)}, "outside the period"),
    "a percentage": ({"rate": "7.5"}, "at most 1"),
    "text": ({"rate": "much"}, "expected numbers"),
    "no rate": ({"rate": ""}, "missing"),
    "half a millisecond": ({"time": f"{JAN_2024}.5"}, "whole numbers"),
}


@pytest.mark.parametrize("fault", HOSTILE)
def test_a_hostile_archive_is_refused_whole(tmp_path, fault):
    """One impossible row refuses the file with its reason, and the lake does not change."""
    spoilt, reason = HOSTILE[fault]
    store = KindStore(tmp_path / "lake")
    archive(tmp_path / "files", "fundingRate", "2024-01", funding_csv(**spoilt))
    for _ in range(2):
        done = imported(store, tmp_path / "files")
        assert [reason in one.reason for one in done.refused] == [True], done.refused
        assert done.rows == {}
    assert list((tmp_path / "lake").rglob("*.parquet")) == []


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:-30]), "its checksum is", id="truncated"),
        pytest.param(lambda path: Path(f"{path}.CHECKSUM").unlink(), "no usable", id="no-checksum"),
        pytest.param(lambda path: seal(_cut(path)), "not a whole zip", id="sealed-but-cut"),
        pytest.param(
            lambda path: path.rename(path.with_name("BTCUSDT-fundingRate-2024-13.zip")), "a month", id="month"
        ),
        pytest.param(
            lambda path: path.rename(path.with_name("ETHUSDT-fundingRate-2024-01.zip")), "expected", id="name"
        ),
    ],
)
def test_an_archive_that_is_not_whole_is_refused(tmp_path, spoil, reason):
    """A checksum that fails or is missing, a cut zip and a misleading name: nothing of it is stored."""
    store = KindStore(tmp_path / "lake")
    spoil(archive(tmp_path / "files", "fundingRate", "2024-01", funding_csv()))
    done = imported(store, tmp_path / "files")
    assert [reason in one.reason for one in done.refused] == [True], done.refused
    assert list((tmp_path / "lake").rglob("*.parquet")) == []


def _cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-30])
    return path


def test_other_refusals_of_archives(tmp_path, monkeypatch):
    """A month of trades, rows of too few columns, a foreign header, nothing at all, and a bomb are each named."""
    monkeypatch.setattr(kind_archive, "LARGEST_UNPACKED", 1_000_000)
    archive(tmp_path, "aggTrades", "2024-01", trades_csv())
    archive(tmp_path, "aggTrades", "2024-01-02", "1,2,3\n")
    archive(tmp_path, "fundingRate", "2024-01", "when,hours,rate\n1,8,0.1\n")
    archive(tmp_path, "markPriceKlines", "2024-01-01", "", timeframe="5m")
    archive(tmp_path, "indexPriceKlines", "2024-01-01", "0" * 2_000_000, timeframe="5m")
    done = imported(KindStore(tmp_path / "lake"), tmp_path / "data")
    reasons = " | ".join(one.reason for one in done.refused)
    assert len(done.refused) == 5
    for expected in ("get its days", "found 3 columns", "expected calc_time", "holds no row", "unpacks to more than"):
        assert expected in reasons


def test_freqtrade_funding_and_mark_files(tmp_path):
    """Funding rates and mark prices beside freqtrade's candles come; candles and odd timeframes are left out."""
    folder = tmp_path / "user_data/data/binance/futures"
    folder.mkdir(parents=True)
    times = JAN_2024 + np.arange(30) * 8 * HOUR + 3
    rates = np.linspace(-1e-4, 1e-4, 30)
    nothing = np.zeros(30)
    dates = pa.array(times, pa.timestamp("ms", tz="UTC"))
    columns = {"date": dates, "open": rates, "high": nothing, "low": nothing, "close": nothing, "volume": nothing}
    pyarrow.feather.write_feather(pa.table(columns), str(folder / "BTC_USDT_USDT-8h-funding_rate.feather"))
    prices = market(50, timeframe=Timeframe.H1, start_ms=JAN_2024)
    rows = [[time, *row] for time, row in zip(prices.open_time_ms.tolist(), prices.values.tolist(), strict=True)]
    for name in ("BTC_USDT_USDT-1h-mark", "BTC_USDT_USDT-8h-mark", "BTC_USDT_USDT-1h-futures"):
        (folder / f"{name}.json").write_text(json.dumps(rows))
    store = KindStore(tmp_path / "lake")
    done = imported(store, tmp_path / "user_data")
    assert (done.rows, done.refused, done.parts) == ({"funding": 30, "mark": 50}, (), 2)
    assert store.read(FUNDING, BTC)["funding_rate"].tolist() == rates.tolist()
    hourly = Subject("binanceusdm", "BTC/USDT:USDT", Timeframe.H1)
    assert store.read(MARK, hourly)["low"].tolist() == prices.values[:, 2].tolist()


def recording(path: Path, **columns) -> Path:
    """Write a recording as Parquet or CSV."""
    path.parent.mkdir(exist_ok=True)
    table = pa.table(columns)
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        pyarrow.csv.write_csv(table, path)
    return path


def rates(**changed):
    columns = {
        "exchange": ["binance_usdm"] * 4,
        "symbol": ["BTCUSDT", "ETHUSDT"] * 2,
        "ts": [JAN_2024, JAN_2024, JAN_2024 + 8 * HOUR, JAN_2024 + 8 * HOUR],
        "funding_rate": [1e-4, 2e-4, 3e-4, 4e-4],
    }
    return columns | changed


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_recordings_tell_their_kind_by_their_columns(tmp_path, ending):
    """Funding rates, trades and book snapshots of several instruments; a snapshot is known when it arrived."""
    recording(tmp_path / f"rates.{ending}", **rates())
    trades = {"exchange": ["binance"] * 3, "symbol": ["BTCUSDT"] * 3, "ts": [JAN_2024, JAN_2024, JAN_2024 + 1]}
    numbers = {"trade_id": ["7", "8", "9"], "price": [1.0, 2.0, 3.0], "qty": [1.0, 1.0, 1.0]}
    recording(tmp_path / f"trades.{ending}", **trades, **numbers, side=["sell", "buy", "sell"])
    arrival = (JAN_2024 + 40) * 1_000_000 + 1
    levels = {
        "exchange": ["binance"] * 4, "symbol": ["BTCUSDT"] * 4, "ts": [JAN_2024] * 4, "ts_local_ns": [arrival] * 4,
        "last_update_id": [5] * 4, "side": ["b", "a", "b", "a"], "price": [9.0, 11.0, 9.5, 10.0], "qty": [1.0] * 4,
    }  # fmt: skip
    recording(tmp_path / f"book.{ending}", **levels)
    recording(tmp_path / f"other.{ending}", a=[1])
    store = KindStore(tmp_path / "lake")
    done = imported(store, tmp_path)
    assert (done.rows, done.refused, done.parts) == ({"book": 4, "funding": 4, "trades": 3}, (), 3)
    assert store.read(FUNDING, Subject("binanceusdm", "ETH/USDT:USDT"))["funding_rate"].tolist() == [2e-4, 4e-4]
    spot = Subject("binance", "BTC/USDT")
    assert store.read(TRADES, spot)["is_buyer_maker"].tolist() == [True, False, True]
    book = store.read(BOOK, spot)
    assert book["price"].tolist() == [10.0, 11.0, 9.5, 9.0]
    assert book["level"].tolist() == [0, 1, 0, 1]
    assert [len(store.read(BOOK, spot, as_of_ms=JAN_2024 + later)) for later in (40, 41)] == [0, 4]


def book_changes(numbers: list[tuple[int, int, int]], side: str = "b", price: float = 9.6) -> dict[str, list]:
    """Return a change of one level for each of some numbers: first, last, and the one before."""
    count = len(numbers)
    times = [JAN_2024 + 400 * place for place in range(count)]
    first, last, before = (list(column) for column in zip(*numbers, strict=True))
    return {
        "exchange": ["binance"] * count, "symbol": ["BTCUSDT"] * count, "ts": times,
        "ts_local_ns": [time * 1_000_000 for time in times], "first_update_id": first, "last_update_id": last,
        "prev_update_id": before, "side": [side] * count, "price": [price] * count,
        "qty": [float(place) for place in range(count)],
    }  # fmt: skip


def test_a_book_is_rebuilt_from_its_changes(tmp_path):
    """From the snapshot beside them on, each second's last state is stored; a missing change refuses the recording."""
    store, spot = KindStore(tmp_path / "lake"), Subject("binance", "BTC/USDT")
    level = {"exchange": ["binance"] * 2, "symbol": ["BTCUSDT"] * 2, "ts": [JAN_2024 - 9] * 2, "ts_local_ns": [0] * 2}
    sides = {"last_update_id": [5, 5], "side": ["b", "a"], "price": [9.5, 10.0], "qty": [1.0, 1.0]}
    changes = recording(
        tmp_path / "changes.parquet", **book_changes([(4, 5, -1), (6, 8, -1), (9, 9, -1), (10, 12, -1)])
    )
    (lonely,) = imported(store, changes).refused
    assert "no snapshot of the book of BTCUSDT at binance" in lonely.reason
    recording(tmp_path / "book.parquet", **level, **sides)
    done = imported(store, changes)
    # Two seconds; the change with quantity zero is older than the snapshot.
    assert (done.rows, done.refused) == ({"book": 6}, ())
    book = store.read(BOOK, spot)
    assert book.time_ms.tolist() == [JAN_2024 + 800] * 3 + [JAN_2024 + 1200] * 3
    assert book["price"].tolist() == [10.0, 9.6, 9.5] * 2
    assert book["quantity"].tolist() == [1.0, 2.0, 1.0, 1.0, 3.0, 1.0]
    for columns, reason in (
        (book_changes([(6, 8, -1), (10, 12, -1)]), "after 8 and up to 9 are missing"),
        (book_changes([(70, 80, 7)]), "after 5 and up to 7 are missing"),
        (book_changes([(6, 8, -1), (9, 9, -1)], price=11.0), "crosses"),
        (book_changes([(6, 8, -1)], side="x"), "side has to be one of"),
    ):
        recording(changes, **columns)
        (refused,) = imported(store, changes).refused
        assert reason in refused.reason
    assert store.read(BOOK, spot).equals(book)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        pytest.param({"ts": [JAN_2024 // 1000] * 4}, "looks like seconds", id="seconds"),
        pytest.param({"ts": [NOW_MS + HOUR] * 4}, "in the future", id="future"),
        pytest.param({"ts": [float(JAN_2024)] * 4}, "whole milliseconds", id="float-times"),
        pytest.param({"funding_rate": ["a"] * 4}, "funding_rate", id="text"),
        pytest.param({"symbol": ["BTCUSDT", None, "BTCUSDT", "BTCUSDT"]}, "rows without symbol", id="no-symbol"),
        pytest.param(
            {"exchange": ["binanceusdm"] * 4, "symbol": ["BTC/USDT", "ETH/USDT"] * 2}, "trades perpetuals", id="spot"
        ),
        pytest.param({"symbol": ["BTCUSDT"] * 4}, "must say the same", id="contradiction"),
    ],
)
def test_a_hostile_recording_is_refused_whole(tmp_path, changed, reason):
    """One impossible row, or one that nobody can place, refuses the recording; the lake does not change."""
    store = KindStore(tmp_path / "lake")
    recording(tmp_path / "rates.parquet", **rates(**changed))
    done = imported(store, tmp_path / "rates.parquet")
    assert [reason in one.reason for one in done.refused] == [True], done.refused
    assert list((tmp_path / "lake").rglob("*.parquet")) == []


def test_recordings_that_contradict_each_other(tmp_path):
    """Of two files that overlap and disagree the second is refused; one that agrees adds nothing."""
    store = KindStore(tmp_path / "lake")
    recording(tmp_path / "1.parquet", **rates())
    recording(tmp_path / "2.parquet", **rates())
    recording(tmp_path / "3.parquet", **rates(funding_rate=[1e-4, 2e-4, 3e-4, 5e-4]))
    (tmp_path / "4.parquet").write_bytes(b"PAR1 not whole")
    done = imported(store, tmp_path)
    assert done.rows == {"funding": 4}
    assert len(done.refused) == 1
    assert "contradicts" in done.refused[0].reason
    assert "1.parquet" in done.refused[0].reason


def test_a_recording_that_contradicts_the_lake(tmp_path):
    """What another run stored is not corrected by a file unless that is asked for; then both are kept and counted."""
    store = KindStore(tmp_path / "lake")
    recording(tmp_path / "1/1.parquet", **rates())
    recording(tmp_path / "2/2.parquet", **rates(funding_rate=[1e-4, 9e-4, 3e-4, 5e-4]))
    imported(store, tmp_path / "1")
    before = store.read(FUNDING, BTC)
    for _ in range(2):
        (refused,) = imported(store, tmp_path / "2").refused
        assert "2 rows differ" in refused.reason
        assert "--repair" in refused.reason
    assert store.coverage(FUNDING, BTC).corrections == 0
    done = imported(store, tmp_path / "2", again=True)
    assert (done.refused, done.rows, done.corrections) == ((), {"funding": 2}, 2)
    assert store.read(FUNDING, BTC, as_of_ms=NOW_MS - 1)["funding_rate"].tolist() == before["funding_rate"].tolist()


def test_renaming_the_venue_does_not_mix_markets(tmp_path):
    """Funding of a perpetual is not stored under a spot venue, whoever says so."""
    recording(tmp_path / "1.parquet", **rates())
    done = imported(KindStore(tmp_path / "lake"), tmp_path, KindSelection(KINDS, venue="binance"))
    assert done.rows == {}
    assert "binance trades spot" in done.refused[0].reason


def test_kinds_are_chosen_by_name():
    """`trades` means single and aggregated ones; what is unknown is answered with what there is."""
    assert kinds_to_import("all") == KINDS
    assert kinds_to_import("trades, funding") == (FUNDING, TRADES, AGGREGATE_TRADES)
    for text in ("", "candles"):
        with pytest.raises(BadInputError, match="use some of: funding"):
            kinds_to_import(text)


def test_the_command_imports_kinds(tmp_path, monkeypatch, capsys):
    """`qtctl ingest --from --kinds` fills the lake: 0 when all came, 3 when a file was refused, 2 for bad usage."""
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path / "home"))
    whole_archive(tmp_path / "files")
    place = ["ingest", "--from", str(tmp_path / "files")]
    assert run([*place, "--kinds", "funding,mark"]) == 0
    assert "93 new rows of funding, 288 new rows of mark" in capsys.readouterr().out
    next((tmp_path / "files").rglob("*indexPrice*/**/*.CHECKSUM")).unlink()
    assert run([*place, "--kinds", "all", "--json"]) == 3
    told = json.loads(capsys.readouterr().out)
    assert told["rows"] == {"funding": 0, "mark": 0, "open-interest": 287, "aggregate-trades": 1000}
    assert "CHECKSUM" in told["refused"][0]["reason"]
    assert run([*place, "--kinds", "candles"]) == 2


@pytest.mark.needs_market_data
def test_recorded_market_data_enters_the_lake_whole(tmp_path):
    """Every recorded funding rate, trade and book level is in the lake, as an independent SQL scan counts them."""
    store = KindStore(tmp_path / "lake")
    files = [path for path in recorded(".").glob("*.parquet") if "funding" in path.name or "trades" in path.name]
    files += recorded(".").glob("*depth_snapshot*")
    for path in files:
        done = imported(store, path)
        assert done.refused == ()
        (rows,) = done.rows.values()
        assert rows == scanned([path])
    # Changes of the same books, second by second; each is known no earlier than it was.
    before = sum(store.coverage(BOOK, subject).rows for subject in store.subjects(BOOK))
    (path,) = recorded(".").glob("*depth_diff*")
    rebuilt = imported(store, path)
    assert rebuilt.refused == ()
    for subject in store.subjects(BOOK):
        known = store.read_known(BOOK, subject)
        assert (known.available_at_ms >= known.records.time_ms).all()
        seconds = np.unique(known.records.time_ms // 1000)
        assert len(seconds) > 60
        assert (np.diff(seconds) == 1).mean() > 0.99
    after = sum(store.coverage(BOOK, subject).rows for subject in store.subjects(BOOK))
    assert after - before == rebuilt.rows["book"] > 0
    stored = before + sum(
        store.coverage(kind, subject).rows for kind in (FUNDING, TRADES) for subject in store.subjects(kind)
    )
    assert files
    assert stored == scanned(files)


def scanned(files: list[Path]) -> int:
    """Count the rows of files with SQL."""
    with duckdb.connect() as connection:
        counts = [connection.execute(f"SELECT count(*) FROM '{path}'").fetchall()[0][0] for path in files]
    return sum(counts)
