"""Bad input, case by case and door by door: refused with its reason, and the lake as it was, byte for byte."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from aiohttp import web

from feature_store.candle import COLUMNS, CandleBlock, Series, Timeframe
from feature_store.lake import CandleLake
from feature_store.sources.importing import Selection, import_candles
from feature_store.sources.ingest import ingest_series
from feature_store.sources.opening import open_source
from tests.feature_support import BTC, STEP, T0, market, python
from tests.feature_venue_double import venue_double
from tests.import_support import DAY, NOW_MS, archive, days, feather, klines, seal

SPOT = Series("binance", "BTC/USDT", Timeframe.M5)
GOOD = days(2)
CHOSEN = Selection(("BTC/USDT",), Timeframe.M5, "binance")
MAP = "ts=when,open=o,high=h,low=l,close=c,volume=v"


def changed(column: int, value: float) -> CandleBlock:
    """Return good candles of which one says something else."""
    values = GOOD.values.copy()
    values[7, column] = value
    return CandleBlock(GOOD.open_time_ms, values)


def reordered(order) -> CandleBlock:
    return CandleBlock(GOOD.open_time_ms[order], GOOD.values[order])


CASES = {
    "seconds for milliseconds": (CandleBlock(GOOD.open_time_ms // 1000, GOOD.values), "looks like seconds"),
    "microseconds for milliseconds": (CandleBlock(GOOD.open_time_ms * 1000, GOOD.values), "looks like microseconds"),
    "unsorted": (reordered(np.r_[0, 2, 1, 3:DAY]), "must rise"),
    "a candle twice": (reordered(np.r_[0, 1, 1, 2:DAY]), "must rise"),
    "a zero price": (changed(0, 0.0), "finite and positive"),
    "a negative price": (changed(2, -1.0), "finite and positive"),
    "no number": (changed(3, float("nan")), "finite and positive"),
    "high below low": (changed(1, 0.5), "low <= open, close <= high"),
    "a negative volume": (changed(4, -1.0), "volume >= 0"),
    "from the future": (days(1, NOW_MS - NOW_MS % STEP + STEP), "in the future"),
    "off the grid": (CandleBlock(GOOD.open_time_ms + 1000, GOOD.values), "multiples of 5m"),
}


def _mapped(path: Path, block: CandleBlock) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    names = ("when", "o", "h", "l", "c", "v")
    table = pa.table(dict(zip(names, (block.open_time_ms, *block.values.T), strict=True)))
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        rows = zip(block.open_time_ms.tolist(), *block.values.T.tolist(), strict=True)
        path.write_text("\n".join([",".join(names), *(",".join(map(repr, row)) for row in rows)]) + "\n")
    return path


def _freqtrade_parquet(path: Path, block: CandleBlock) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    dates = pa.array(block.open_time_ms, pa.timestamp("ms", tz="UTC"))
    pq.write_table(pa.table({"date": dates} | dict(zip(COLUMNS, block.values.T, strict=True))), path)
    return path


DOORS = {
    "mapped CSV": (lambda root, block: _mapped(root / "mine.csv", block), MAP),
    "mapped Parquet": (lambda root, block: _mapped(root / "mine.parquet", block), MAP),
    "freqtrade's parquet": (lambda root, block: _freqtrade_parquet(root / "binance/BTC_USDT-5m.parquet", block), None),
    "freqtrade's feather": (lambda root, block: feather(root / "binance/BTC_USDT-5m.feather", block), None),
    "an archive": (lambda root, block: archive(root, "BTCUSDT", "2024-01", klines(block)), None),
}
# Binance's archives have been in microseconds since 2025, so there they are no fault.
NO_FAULT = {("an archive", "microseconds for milliseconds")}


@pytest.fixture
def lake(tmp_path):
    """Return a lake that holds a day of other candles."""
    lake = CandleLake(tmp_path / "lake")
    lake.append(SPOT, days(1, seed=9))
    return lake


def snapshot(root: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file() and path.suffix != ".lock"}


def bring(lake, place, columns=None, selection=CHOSEN):
    source = open_source(str(place), selection=selection, now_ms=NOW_MS, days=3, columns=columns)
    return import_candles(lake, source, selection, now_ms=NOW_MS)


def refuses(lake, place, columns=None, selection=CHOSEN) -> str:
    """Import what must be refused, see that not a byte of the lake changed, and return the reason."""
    before = snapshot(lake.root)
    done = bring(lake, place, columns, selection)
    assert (done.appended, len(done.refused)) == (0, 1)
    assert snapshot(lake.root) == before
    return done.refused[0].reason


@pytest.mark.parametrize("door", DOORS)
def test_each_door_lets_good_candles_in(tmp_path, door):
    """What the cases below spoil is taken whole where it is not spoilt, and by each door to the same bits."""
    write, columns = DOORS[door]
    lake = CandleLake(tmp_path / "new")
    place = write(tmp_path / "files", GOOD)
    assert bring(lake, place, columns).appended == len(GOOD)
    assert lake.read(SPOT).equals(GOOD)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("door", DOORS)
def test_impossible_candles_are_refused(tmp_path, lake, door, case):
    """Whatever is wrong with a candle, in whatever form it comes: the file is refused and says why."""
    if (door, case) in NO_FAULT:
        case = "seconds for milliseconds"
    (write, columns), (block, reason) = DOORS[door], CASES[case]
    if door == "an archive" and case == "from the future":
        reason = "outside the period"
    assert reason in refuses(lake, write(tmp_path / "files", block), columns)


@pytest.mark.parametrize("door", DOORS)
def test_truncated_files_are_refused(tmp_path, lake, door):
    """Half a Parquet, feather or zip file is not read as far as it goes."""
    write, columns = DOORS[door]
    path = write(tmp_path / "files", GOOD)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 - 3])
    if path.suffix == ".zip":
        seal(path)
    assert "not a whole" in refuses(lake, path, columns)


def test_a_zip_whose_checksum_fails_is_refused(tmp_path, lake):
    """One changed bit, and the archive is not believed."""
    path = archive(tmp_path, "BTCUSDT", "2024-01", klines(GOOD))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert "its checksum is" in refuses(lake, path)


def test_files_that_overlap_and_disagree_are_refused(tmp_path):
    """Of two files that say different things of one candle only the first is stored; those that agree are one."""
    folder = tmp_path / "files"
    _mapped(folder / "1.csv", GOOD)
    _mapped(folder / "2.csv", CandleBlock(GOOD.open_time_ms[:9], GOOD.values[:9]))
    lake, alone = CandleLake(tmp_path / "both"), CandleLake(tmp_path / "alone")
    _mapped(folder / "3.csv", changed(4, 12345.0))
    done = bring(lake, folder, MAP)
    assert [Path(one.part).name for one in done.refused] == ["3.csv"]
    assert "contradicts" in done.refused[0].reason
    bring(alone, folder / "1.csv", MAP)
    assert [path.read_bytes() for path in lake.paths(SPOT)] == [path.read_bytes() for path in alone.paths(SPOT)]


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ([("binance", "BTC/USDT:USDT")], "trades spot"),
        ([("binanceusdm", "BTC/USDT")], "trades perpetuals"),
        ([("binance", "BTC/USDT"), ("binance", "BTC/USDT:USDT")], "trades spot"),
        ([("binance", "BTCUSDT"), ("kraken", "BTC/USDT")], "is there twice"),
        ([("binance", "BTCUSDT"), ("", "BTC/USDT")], "rows without"),
    ],
)
def test_symbols_of_two_venues_are_not_mixed(tmp_path, lake, names, reason):
    """A perpetual at a spot venue, or two venues' rows under one name: refused with the rows that are right."""
    rows = [
        f"{venue},{symbol},{time},{','.join(map(repr, row))}"
        for venue, symbol in names
        for time, row in zip(GOOD.open_time_ms.tolist(), GOOD.values.tolist(), strict=True)
    ]
    (tmp_path / "mine.csv").write_text("\n".join(["exchange,symbol,ts,open,high,low,close,volume", *rows]))
    chosen = Selection(timeframe=Timeframe.M5, venue="kucoin" if len({venue for venue, _ in names}) > 1 else None)
    assert reason in refuses(lake, tmp_path / "mine.csv", "exchange=exchange", chosen)


FULL = """
import os, resource, signal, sys
from pathlib import Path
from feature_store.lake import CandleLake
from feature_store.errors import LakeNotWritableError
from feature_store.sources.importing import Selection, import_candles
from feature_store.sources.opening import open_source
lake = CandleLake(Path(sys.argv[2]))
source = open_source(sys.argv[1], selection=Selection(), now_ms=int(sys.argv[3]), days=3)
if sys.argv[4] == "limit":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
try:
    import_candles(lake, source, Selection(), now_ms=int(sys.argv[3]))
except LakeNotWritableError as error:
    print(error)
"""


def _fills(tmp_path, lake_root: Path, how: str, code: str = FULL) -> str:
    folder = tmp_path / "binance"
    feather(folder / "ADA_USDT-5m.feather", days(1))
    feather(folder / "ETH_USDT-5m.feather", days(90))
    return python(code, str(folder), str(lake_root), str(NOW_MS), how)


def test_a_file_that_may_not_grow_leaves_what_was_there(tmp_path, lake):
    """Where a file cannot be written whole, one sentence says so; what was stored before is not touched."""
    before = snapshot(lake.root)
    told = _fills(tmp_path, lake.root, "limit")
    assert "Cannot write ETH/USDT" in told
    assert "run the same command again" in told
    after = snapshot(lake.root)
    assert {name: after[name] for name in before} == before
    assert not list(lake.root.rglob("*.tmp"))
    assert bring(lake, tmp_path / "binance", selection=Selection()).refused == ()


def test_a_disk_that_fills(tmp_path):
    """A file system of 200 KB, where one may be mounted, fills for real: the same sentence, and it can be gone on."""
    unshare = shutil.which("unshare")
    root = tmp_path / "disk"
    root.mkdir()
    program = f"""
import subprocess, sys
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", {str(root)!r}], check=True)
{FULL}
free = os.statvfs({str(root)!r})
found = sorted(path.name for path in Path({str(root)!r}).rglob("*.parquet"))
print("left", len(lake.series()), sorted(len(lake.read(one)) for one in lake.series()), found)
print("litter", [str(path) for path in Path({str(root)!r}).rglob("*.tmp")])
"""
    namespaces = ["--mount"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--mount"]
    folder = tmp_path / "binance"
    feather(folder / "ADA_USDT-5m.feather", days(1))
    feather(folder / "ETH_USDT-5m.feather", days(90))
    told = _in_namespace(unshare, namespaces, program, str(folder), str(root / "lake"))
    if told is None:
        # No privilege to mount here: the limit of a file's size is the nearest thing.
        told = _fills(tmp_path, tmp_path / "lake", "limit")
        assert "Cannot write ETH/USDT" in told
        return
    assert "No space left on device" in told
    assert "run the same command again" in told
    assert "left" in told
    assert "litter []" in told


FETCH = """
import asyncio, resource, signal, sys
from pathlib import Path
from feature_store.lake import CandleLake
from feature_store.sources.ingest import ingest_series
from tests.feature_support import BTC, ETH, T0, market
from tests.feature_venue_double import venue_double

async def main():
    block = market(3000)
    now_ms = int(block.open_time_ms[-1]) + 1
    async with venue_double({"BTCUSDT": block, "ETHUSDT": block[:20]}, now_ms) as (_, exchange):
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        done = await ingest_series(exchange, CandleLake(Path(sys.argv[1])), [BTC, ETH], T0)
        print(done[BTC].error, done[ETH].error, done[ETH].appended, sep="|")

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
asyncio.run(main())
"""


def test_a_disk_that_fills_while_a_venue_is_asked(tmp_path, lake):
    """What cannot be stored ends its series in one sentence, the others are stored, and nothing there is touched."""
    before = snapshot(lake.root)
    failed, fine, new = python(FETCH, str(lake.root)).strip().split("|")
    assert "Cannot write BTC/USDT:USDT" in failed
    assert "run the same command again" in failed
    assert (fine, int(new)) == ("None", 20)
    after = snapshot(lake.root)
    assert {name: after[name] for name in before} == before
    assert not list(lake.root.rglob("*.tmp"))


def _in_namespace(unshare: str | None, namespaces: list[str], program: str, *arguments: str) -> str | None:
    """Run a program where it may mount; None where that is not allowed."""
    import subprocess
    import sys

    if unshare is None:
        return None
    probe = [unshare, *namespaces, "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    if subprocess.run(probe, capture_output=True, check=False).returncode != 0:
        return None
    done = subprocess.run(
        [unshare, *namespaces, sys.executable, "-c", program, *arguments, str(NOW_MS), "disk"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


REST_CASES = {
    "seconds": lambda row: [row[0] // 1000, *row[1:]],
    "microseconds": lambda row: [row[0] * 1000, *row[1:]],
    "zero price": lambda row: [row[0], "0", *row[2:]],
    "negative price": lambda row: [*row[:3], "-1", *row[4:]],
    "high below low": lambda row: [*row[:2], "0.5", *row[3:]],
    "no number": lambda row: [*row[:4], None, *row[5:]],
    "negative volume": lambda row: [*row[:5], "-1", *row[6:]],
    "off the grid": lambda row: [row[0] + 1000, *row[1:]],
    "from the future": lambda row: [row[0] + 10 * 365 * 86_400_000, *row[1:]],
}
REASONS = {
    "seconds": "looks like seconds",
    "HTML": "not even its newest candles could be read",
    "truncated JSON": "not even its newest candles could be read",
    "microseconds": "looks like microseconds",
    "off the grid": "multiples of 5m",
    "from the future": "in the future",
    "no such symbol": "has no symbol",
}


async def test_a_venue_that_answers_nonsense_changes_nothing(tmp_path):
    """Each kind of bad page, five times in a row: an error that says why, and not a byte of the lake changed."""
    block = market(300)
    now_ms = int(block.open_time_ms[-1]) + 1

    async def asked(case: str) -> tuple[str, str, bool]:
        lake = CandleLake(tmp_path / case.replace(" ", "-"))
        lake.append(BTC, block[:50])
        before = snapshot(lake.root)
        async with venue_double({"BTCUSDT": block}, now_ms) as (double, exchange):
            await exchange.load_markets()
            rows = double._klines

            def spoilt(request):
                if "klines" not in request.path:
                    return None
                if case == "HTML":
                    return web.Response(text="<html>busy</html>", status=200)
                if case == "truncated JSON":
                    return web.Response(text='[[1700000100000,"1', status=200)
                page = rows(request)
                spoilt_from = 0 if case == "seconds" else 3
                page[spoilt_from:] = map(REST_CASES[case], page[spoilt_from:])
                return web.json_response(page)

            series = BTC
            if case == "no such symbol":
                series = Series("sandbox", "BTC/USDT", Timeframe.M5)
            else:
                double.misbehave = spoilt
            done = await ingest_series(exchange, lake, [series], T0)
        return case, str(done[series].error or ""), candles(before) == candles(snapshot(lake.root))

    def candles(files: dict[str, bytes]) -> dict[str, bytes]:
        return {name: content for name, content in files.items() if name.endswith(".parquet")}

    found = await asyncio.gather(*[asked(case) for case in [*REST_CASES, "HTML", "truncated JSON", "no such symbol"]])
    for case, reason, unchanged in found:
        assert unchanged, case
        assert REASONS.get(case, "prices must be finite and positive") in reason or "six numbers" in reason, case
