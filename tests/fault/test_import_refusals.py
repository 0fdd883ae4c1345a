"""Files that must not be imported: each is refused whole, with its reason, and the lake stays as it was."""

from __future__ import annotations

import io
import struct
import zipfile

import numpy as np
import pytest

from feature_store.candle import CandleBlock, Series, Timeframe
from feature_store.errors import CorruptFileError
from feature_store.lake import CandleLake
from feature_store.sources import archive_files, binance_archive, freqtrade
from feature_store.sources.importing import Selection, import_candles
from feature_store.sources.opening import open_source
from tests.feature_support import python
from tests.import_support import (
    DAY,
    JAN_2024,
    NOW_MS,
    archive,
    days,
    feather,
    json_file,
    klines,
    recording,
    refused,
    seal,
)

SPOT = Series("binance", "BTC/USDT", Timeframe.M5)
GOOD = days(31)


def rewritten(column: int, value: float, row: int = 7) -> CandleBlock:
    """Return candles of which one says something else."""
    values = days(2).values.copy()
    values[row, column] = value
    return CandleBlock(days(2).open_time_ms, values)


def shuffled() -> CandleBlock:
    """Return candles out of order."""
    order = np.r_[0, 2, 1, 3:DAY]
    return CandleBlock(days(1).open_time_ms[order], days(1).values[order])


def doubled() -> CandleBlock:
    """Return candles of which one is there twice."""
    order = np.r_[0, 1, 1, 2:DAY]
    return CandleBlock(days(1).open_time_ms[order], days(1).values[order])


IMPOSSIBLE = {
    "zero price": (rewritten(0, 0.0), "finite and positive"),
    "negative price": (rewritten(2, -1.0), "finite and positive"),
    "not a number": (rewritten(3, float("nan")), "finite and positive"),
    "negative volume": (rewritten(4, -1.0), "volume >= 0"),
    "high below low": (rewritten(1, 0.5), "low <= open, close <= high"),
    "unsorted": (shuffled(), "must rise"),
    "twice the same candle": (doubled(), "must rise"),
    "off the grid": (CandleBlock(days(1).open_time_ms + 1000, days(1).values), "multiples of 5m"),
    "seconds": (CandleBlock(days(1).open_time_ms // 1000, days(1).values), "looks like seconds"),
    "microseconds": (CandleBlock(days(1).open_time_ms * 1000, days(1).values), "looks like microseconds"),
    "the future": (days(1, start_ms=NOW_MS - NOW_MS % 86_400_000 + 86_400_000), "in the future"),
    "nothing": (CandleBlock.empty(), "holds no candle"),
}


@pytest.fixture
def lake(tmp_path):
    """Return a lake that holds a month already."""
    lake = CandleLake(tmp_path / "lake")
    lake.append(SPOT, GOOD)
    return lake


@pytest.mark.parametrize("fault", IMPOSSIBLE)
@pytest.mark.parametrize("ending", ["feather", "json.gz"])
def test_impossible_candles_of_freqtrade_are_refused(tmp_path, lake, fault, ending):
    """Candles that no market made, or in another unit or order, are named and refused with their whole file."""
    block, reason = IMPOSSIBLE[fault]
    path = tmp_path / f"binance/BTC_USDT-5m.{ending}"
    if ending == "feather":
        feather(path, block)
    else:
        json_file(path, block)
        reason = "JSON" if fault == "not a number" else reason
    assert reason in refused(lake, tmp_path / "binance")


@pytest.mark.parametrize("fault", [fault for fault in IMPOSSIBLE if fault != "microseconds"])
def test_impossible_candles_of_an_archive_are_refused(tmp_path, lake, fault):
    """The same holds for archives, whose checksum says nothing of what they hold."""
    block, reason = IMPOSSIBLE[fault]
    period = "2025-02-20" if fault == "the future" else "2024-01"
    archive(tmp_path / "files", "BTCUSDT", period, klines(block))
    assert reason in refused(lake, tmp_path / "files")


@pytest.mark.parametrize("fault", ["zero price", "high below low", "twice the same candle", "seconds", "the future"])
def test_impossible_candles_of_a_recording_are_refused(tmp_path, lake, fault):
    """A recording with one bad series is refused with its good ones."""
    block, reason = IMPOSSIBLE[fault]
    recording(tmp_path / "recorded.csv", ("binance", "ETHUSDT", days(1)), ("binance", "BTCUSDT", block))
    assert reason in refused(lake, tmp_path / "recorded.csv")
    assert lake.series() == [SPOT]


def test_instruments_of_two_venues_are_not_mixed(tmp_path, lake):
    """A perpetual under a spot venue, or the other way round, is refused."""
    recording(tmp_path / "a.csv", ("binance", "ETH/USDT:USDT", days(1)))
    assert "trades spot" in refused(lake, tmp_path / "a.csv")
    recording(tmp_path / "b.csv", ("binanceusdm", "ETH/USDT", days(1)))
    assert "trades perpetuals" in refused(lake, tmp_path / "b.csv")
    recording(tmp_path / "d.csv", ("binance_usdm", "ETHUSDT", days(1)))
    renamed = Selection(venue="binance")
    assert "binance trades spot" in refused(lake, tmp_path / "d.csv", selection=renamed), "Renaming let it in"
    recording(tmp_path / "c.csv", ("binance", "ETHUSDT", days(1)), ("binance", "ETH/USDT", days(1, seed=2)))
    assert "twice" in refused(lake, tmp_path / "c.csv")


def test_recordings_of_another_form_are_refused(tmp_path, lake):
    """Text for a price, a row without a symbol, a truncated Parquet file: refused, not half read."""
    path = tmp_path / "recorded.csv"
    header = "exchange,symbol,timeframe,ts,open,high,low,close,volume\n"
    path.write_text(f"{header}binance,BTCUSDT,5m,1704067200000,much,1,1,1,1\n")
    assert "something else than numbers" in refused(lake, path)
    path.write_text(f"{header}binance,,5m,1704067200000,1,1,1,1,1\nbinance,BTCUSDT,5m,1704067500000,1,1,1,1,1\n")
    assert "rows without symbol" in refused(lake, path)
    path.write_text(f"{header}binance,BTCUSDT,7m,1704067200000,1,1,1,1,1\n")
    assert "Unknown timeframe" in refused(lake, path)
    content = next(lake.root.rglob("*.parquet")).read_bytes()
    (tmp_path / "recorded.parquet").write_bytes(content[: len(content) // 2])
    assert "Get the file again" in refused(lake, tmp_path / "recorded.parquet")


def test_a_checksum_that_fails_or_is_missing_is_refused(tmp_path, lake):
    """An archive is believed only with the checksum that Binance published."""
    path = archive(tmp_path / "files", "BTCUSDT", "2024-01", klines(GOOD))
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert "its checksum is" in refused(lake, tmp_path / "files")
    path.with_name(f"{path.name}.CHECKSUM").write_text("no digest")
    assert "no usable" in refused(lake, tmp_path / "files")
    path.with_name(f"{path.name}.CHECKSUM").unlink()
    assert "no usable" in refused(lake, tmp_path / "files")


def test_zip_files_that_are_not_whole_are_refused(tmp_path, lake):
    """A truncated zip, one that is none, and one that is encrypted, even where their checksum holds."""
    path = archive(tmp_path / "files", "BTCUSDT", "2024-01", klines(GOOD))
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"<html>blocked</html>", _encrypted(content), _torn(content)):
        path.write_bytes(damaged)
        seal(path)
        assert "not a whole zip file" in refused(lake, tmp_path / "files")


@pytest.mark.parametrize(
    "member", ["../../../../etc/cron.d/x", "/etc/passwd", "..\\evil.csv", "ETHUSDT-5m-2024-01.csv", "data/"]
)
def test_other_names_in_a_zip_are_refused(tmp_path, lake, member):
    """Nothing is unpacked but the one name an archive must hold; no name leads out of it, none to another symbol."""
    archive(tmp_path / "files", "BTCUSDT", "2024-01", klines(GOOD), member=member)
    assert "and nothing else" in refused(lake, tmp_path / "files")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["files", "lake"]


def test_a_second_file_in_a_zip_is_refused(tmp_path, lake):
    """An archive holds one file."""
    path = archive(tmp_path / "files", "BTCUSDT", "2024-01", klines(GOOD))
    with zipfile.ZipFile(path, "a") as packed:
        packed.writestr("more.csv", "1")
    seal(path)
    assert "and nothing else" in refused(lake, tmp_path / "files")


def test_bombs_are_refused_without_unpacking_them_whole(tmp_path, lake, monkeypatch):
    """What unpacks to more than any candles take is refused, also where the zip states a smaller size."""
    monkeypatch.setattr(binance_archive, "LARGEST_BYTES", 1_000_000)
    path = archive(tmp_path / "files", "BTCUSDT", "2024-01", "0" * 5_000_000)
    assert "unpacks to more than" in refused(lake, tmp_path / "files")
    content = path.read_bytes()
    path.write_bytes(content.replace(struct.pack("<I", 5_000_000), struct.pack("<I", 500)))
    seal(path)
    assert "not a whole zip file" in refused(lake, tmp_path / "files")
    monkeypatch.setattr(freqtrade, "_LARGEST_BYTES", 1_000_000)
    json_file(tmp_path / "binance/BTC_USDT-5m.json.gz", days(60))
    assert "unpacks to more than" in refused(lake, tmp_path / "binance")
    monkeypatch.setattr(archive_files, "LARGEST_BYTES", 1000)
    archive(tmp_path / "large", "BTCUSDT", "2024-01", klines(GOOD))
    assert "is larger than" in refused(lake, tmp_path / "large")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("time,open\n1,2\n", "rows of 12 numbers"),
        ("1704067200000,1,1,1,1,1\n", "rows of 12 numbers"),
        ("open_time,open\n", "holds no candle"),
        ("inf,1,1,1,1,1,1,1,1,1,1,0\n", "no times"),
        ("1704067200000.5,1,1,1,1,1,1704067499999,1,1,1,1,0\n", "no whole milliseconds"),
        (klines(days(1)).replace("\n", ",1\n"), "expected 12 columns, found 13"),
        (klines(days(1)) + "1704153600000,1,1\n", "rows of 12 numbers"),
        (klines(days(1)).replace("1704067200000,", "yesterday,"), "rows of 12 numbers"),
        (klines(days(1), step_ms=60_000), "last 60 s, expected 5m"),
        (klines(days(1, JAN_2024 - 86_400_000)), "outside the period"),
        (klines(days(1)).encode("utf-16").decode("latin-1"), "rows of 12 numbers"),
    ],
)
def test_archives_with_other_content_are_refused(tmp_path, lake, text, reason):
    """Other columns, another timeframe, another month: the name of an archive binds what it holds."""
    archive(tmp_path / "files", "BTCUSDT", "2024-01", text)
    assert reason in refused(lake, tmp_path / "files")


def test_an_archive_in_the_folder_of_another_symbol_is_refused(tmp_path, lake):
    """Folder and file must name the same series."""
    path = archive(tmp_path / "files", "ETHUSDT", "2024-01", klines(GOOD))
    other = path.parents[2] / "BTCUSDT/5m" / path.name
    other.parent.mkdir(parents=True)
    path.with_name(f"{path.name}.CHECKSUM").rename(other.with_name(f"{path.name}.CHECKSUM"))
    path.rename(other)
    assert "expected a file of BTCUSDT" in refused(lake, tmp_path / "files")


def test_freqtrade_files_of_another_form_are_refused(tmp_path, lake):
    """Wrong columns, text for numbers, an object for rows, half a file: each in its own words."""
    path = tmp_path / "binance/BTC_USDT-5m.feather"
    feather(path, days(1), pair=["BTC/USDT"] * (DAY - 1) + ["ETH/USDT"])
    assert "has the columns" in refused(lake, path)
    feather(path, days(1), close=["much"] * DAY)
    assert "something else than times and numbers" in refused(lake, path)
    content = feather(path, days(1)).read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert "not a whole feather file" in refused(lake, path)
    path.unlink()

    path = tmp_path / "binance/BTC_USDT-5m.json"
    for text, reason in (
        ('{"BTC/USDT": []}', "expected rows"),
        ("[[1704067200000, 1, 1, 1, 1]]", "expected rows"),
        ('[["2024-01-01", 1, 1, 1, 1, 1]]', "expected rows"),
        ("[[1704067200000, 1, 1", "not whole JSON"),
        (f"[[{10**30}, 1, 1, 1, 1, 1]]", "expected rows"),
        ("[[1704067200000, 1, null, 1, 1, 1]]", "expected rows"),
    ):
        path.write_text(text)
        assert reason in refused(lake, path)
    path.unlink()

    path = tmp_path / "binance/BTC_USDT-5m.json.gz"
    content = json_file(path, days(1)).read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert "not a whole file" in refused(lake, path)


@pytest.mark.parametrize("name", ["BTC_USDT-5m-futures", "BTC_USDT_USDT-5m", "BTC_USDT_USDT_210625-5m"])
def test_freqtrade_names_that_mix_spot_and_futures_are_refused(tmp_path, lake, name):
    """A name that does not tell its instrument is not guessed at."""
    feather(tmp_path / f"binance/{name}.feather", days(1))
    assert "expected BASE_QUOTE" in refused(lake, tmp_path / "binance")


def test_files_that_overlap_must_agree(tmp_path, lake):
    """Two files of one source may repeat each other; where they contradict each other, the second is refused."""
    folder = tmp_path / "binance"
    feather(folder / "ETH_USDT-5m.feather", days(2))
    json_file(folder / "ETH_USDT-5m.json", days(2)[:DAY])
    source = open_source(str(folder), selection=Selection(), now_ms=NOW_MS, days=3)
    done = import_candles(lake, source, Selection(), now_ms=NOW_MS)
    assert (done.refused, done.appended) == ((), 2 * DAY)

    feather(folder / "LTC_USDT-5m.feather", days(2))
    json_file(folder / "LTC_USDT-5m.json", rewritten(4, 12345.0, row=9))
    done = import_candles(lake, source, Selection(), now_ms=NOW_MS)
    assert [one.part.endswith("LTC_USDT-5m.json") for one in done.refused] == [True]
    assert "contradicts" in done.refused[0].reason
    assert lake.coverage(Series("binance", "LTC/USDT", Timeframe.M5)).corrections == 0


def test_good_files_beside_a_bad_one_are_imported(tmp_path, lake):
    """One bad file costs nothing but itself."""
    feather(tmp_path / "binance/ADA_USDT-5m.feather", rewritten(0, 0.0))
    feather(tmp_path / "binance/ETH_USDT-5m.feather", days(2))
    source = open_source(str(tmp_path / "binance"), selection=Selection(), now_ms=NOW_MS, days=3)
    done = import_candles(lake, source, Selection(), now_ms=NOW_MS)
    assert (len(done.refused), done.appended) == (1, 2 * DAY)
    assert Series("binance", "ADA/USDT", Timeframe.M5) not in lake.series()


def test_a_disk_that_fills_stops_the_import_and_the_next_one_goes_on(tmp_path, lake):
    """Where nothing more can be written, one sentence says so; no file is torn, and the rest comes later."""
    folder = tmp_path / "binance"
    feather(folder / "ADA_USDT-5m.feather", days(1))
    feather(folder / "ETH_USDT-5m.feather", days(60))
    code = """
import resource, sys
from pathlib import Path
from feature_store.errors import CorruptFileError
from feature_store.lake import CandleLake
from feature_store.errors import LakeNotWritableError
from feature_store.sources.importing import Selection, import_candles
from feature_store.sources.opening import open_source
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
source = open_source(sys.argv[1], selection=Selection(), now_ms=int(sys.argv[3]), days=3)
try:
    import_candles(CandleLake(Path(sys.argv[2])), source, Selection(), now_ms=int(sys.argv[3]))
except LakeNotWritableError as error:
    print(error)
"""
    told = python(code, str(folder), str(lake.root), str(NOW_MS))
    assert "Cannot write ETH/USDT" in told
    assert "run the same command again" in told
    assert not list(lake.root.rglob("*.tmp"))
    source = open_source(str(folder), selection=Selection(), now_ms=NOW_MS, days=3)
    done = import_candles(lake, source, Selection(), now_ms=NOW_MS)
    assert (done.known, done.refused, done.appended) == (1, (), 60 * DAY)

    # Of a file with several months those stay that were written: whole, and the next import completes it.
    feather(folder / "LTC_USDT-5m.feather", days(20, JAN_2024 + 30 * DAY * 300_000))
    assert "also of a file or series that is not yet whole" in python(code, str(folder), str(lake.root), str(NOW_MS))
    ltc = Series("binance", "LTC/USDT", Timeframe.M5)
    assert lake.read(ltc).equals(days(20, JAN_2024 + 30 * DAY * 300_000)[:DAY])
    done = import_candles(lake, source, Selection(), now_ms=NOW_MS)
    assert (done.known, done.refused, done.appended, done.corrections) == (2, (), 19 * DAY, 0)


def test_a_damaged_file_of_the_lake_is_left_until_repair_is_asked_for(tmp_path, lake):
    """An import never writes over a damaged month; read again with repair, it sets the month aside and fills it."""
    archive(tmp_path / "files", "BTCUSDT", "2024-01", klines(GOOD))
    stored = lake.paths(SPOT)[0]
    stored.write_bytes(b"torn")
    source = open_source(str(tmp_path / "files"), selection=Selection(), now_ms=NOW_MS, days=3)
    with pytest.raises(CorruptFileError, match="--repair"):
        import_candles(lake, source, Selection(), now_ms=NOW_MS)
    assert stored.read_bytes() == b"torn"
    assert import_candles(lake, source, Selection(), now_ms=NOW_MS, again=True).appended == len(GOOD)
    assert lake.read(SPOT).equals(GOOD)


def _encrypted(content: bytes) -> bytes:
    """Return a zip whose flags say that it is encrypted."""
    local, central = content.index(b"PK\x03\x04"), content.index(b"PK\x01\x02")
    changed = bytearray(content)
    changed[local + 6] |= 1
    changed[central + 8] |= 1
    return bytes(changed)


def _torn(content: bytes) -> bytes:
    """Return a zip in which some packed bytes were lost to zeros."""
    assert zipfile.is_zipfile(io.BytesIO(content))
    changed = bytearray(content)
    changed[2000:4000] = bytes(2000)
    return bytes(changed)
