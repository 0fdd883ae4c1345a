"""Candles that people already have: what is imported, once, and what a second run reads."""

from __future__ import annotations

import json

import numpy as np
import pytest

from feature_store.candle import CandleBlock, Series, Timeframe
from feature_store.errors import BadInputError, VenueUnavailableError
from feature_store.lake import CandleLake
from feature_store.sources.archive_files import Address
from feature_store.sources.binance_archive import BinanceArchive
from feature_store.sources.importing import Selection, import_candles
from feature_store.sources.ingest import REVERIFIED, _wanted
from feature_store.sources.opening import open_source
from inference.cli import run
from tests.import_support import (
    DAY,
    FEB_2024,
    JAN_2024,
    JAN_2025,
    NOW_MS,
    STEP,
    archive,
    days,
    feather,
    json_file,
    klines,
    recording,
    served,
)

ALL = Selection()
SPOT = Series("binance", "BTC/USDT", Timeframe.M5)
SWAP = Series("binanceusdm", "BTC/USDT:USDT", Timeframe.M5)
MONTH = days(31)


@pytest.fixture
def lake(tmp_path):
    return CandleLake(tmp_path / "lake")


def wanted_ranges(*arguments, **how) -> list[tuple[int, int]]:
    """Return the stretches that a venue would be asked for."""
    return [(one.span.start_ms, one.span.end_ms) for one in _wanted(*arguments, **how)]


def bring(lake, place, *, selection=ALL, kind=None, now_ms=NOW_MS, **how):
    source = open_source(str(place), kind, selection=selection, now_ms=now_ms, days=30)
    return import_candles(lake, source, selection, now_ms=now_ms, **how)


@pytest.mark.parametrize(
    ("unit", "header", "start"), [(1, False, JAN_2024), (1, True, JAN_2024), (1000, False, JAN_2025)]
)
def test_spot_archives_enter_the_lake(tmp_path, lake, unit, header, start):
    """Milliseconds, microseconds, with and without a header row: the same candles, to the bit."""
    block = days(31, start)
    archive(
        tmp_path / "files",
        "BTCUSDT",
        "2024-01" if start == JAN_2024 else "2025-01",
        klines(block, unit=unit, header=header),
    )
    done = bring(lake, tmp_path / "files")
    assert (done.parts, done.known, done.appended, done.refused) == (1, 0, len(block), ())
    assert lake.read(SPOT).equals(block)


def test_perpetuals_come_under_their_own_venue(tmp_path, lake):
    """What lies in futures/um is binanceusdm's, and its header row is skipped."""
    archive(tmp_path / "files", "BTCUSDT", "2024-01", klines(MONTH, header=True), market="futures/um")
    assert bring(lake, tmp_path / "files").series == (SWAP,)
    assert lake.read(SWAP).equals(MONTH)
    assert bring(lake, tmp_path / "files" / "data/futures/um/monthly", again=True).appended == 0


def test_a_second_run_reads_only_what_is_new(tmp_path, lake):
    """Known archives are not read again; a new day is, and an archive that Binance replaced comes as a correction."""
    root = tmp_path / "files"
    archive(root, "BTCUSDT", "2024-01", klines(MONTH))
    assert bring(lake, root).appended == len(MONTH)
    archive(root, "BTCUSDT", "2024-02-01", klines(days(1, FEB_2024, seed=2)))
    again = bring(lake, root)
    assert (again.parts, again.known, again.candles, again.appended) == (2, 1, DAY, DAY)

    values = MONTH.values.copy()
    values[5, 4] += 1
    archive(root, "BTCUSDT", "2024-01", klines(CandleBlock(MONTH.open_time_ms, values)))
    assert bring(lake, root).appended == 1
    coverage = lake.coverage(SPOT)
    assert (coverage.candles, coverage.corrections, coverage.missing) == (len(MONTH) + DAY, 1, 0)


def test_days_of_a_whole_month_are_not_read(tmp_path, lake):
    """Where a month is published, its days say nothing new and are left alone."""
    archive(tmp_path / "files", "BTCUSDT", "2024-01", klines(MONTH))
    archive(tmp_path / "files", "BTCUSDT", "2024-01-02", "not even candles")
    assert bring(lake, tmp_path / "files").refused == ()


def test_an_archive_is_read_from_an_address(tmp_path, lake):
    """Months first, then days of the month that is not published; a second run asks for checksums only."""
    root = tmp_path / "files"
    archive(root, "BTCUSDT", "2024-01", klines(MONTH))
    for day in (1, 2, 3):
        archive(root, "BTCUSDT", f"2024-02-0{day}", klines(days(1, FEB_2024 + (day - 1) * DAY * STEP, seed=day)))
    now_ms = FEB_2024 + 3 * DAY * STEP + 1
    wanted = Selection(("BTC/USDT",), Timeframe.M5)
    with served(root, fail_once=frozenset({"BTCUSDT-5m-2024-02-02.zip"})) as (url, asked):
        files = Address(url, pause=lambda _: None)
        source = BinanceArchive(files, BinanceArchive.at_address(url, wanted, now_ms=now_ms, days=20).paths)
        done = import_candles(lake, source, wanted, now_ms=now_ms)
        assert (done.parts, done.refused, done.appended) == (4, (), 34 * DAY)
        assert asked["BTCUSDT-5m-2024-02-02.zip"] == 2
        assert not any(name.startswith("BTCUSDT-5m-2024-01-") for name in asked)
        asked.clear()
        assert bring(lake, url, selection=wanted, now_ms=now_ms).known == 4
        assert not [name for name in asked if name.endswith(".zip")]
    assert lake.coverage(SPOT).missing == 0


def test_an_address_that_fails_keeps_what_came_and_goes_on_later(tmp_path, lake):
    """A server that goes away is told in one sentence; the next run reads the rest, and no file twice."""
    root = tmp_path / "files"
    first = archive(root, "BTCUSDT", "2024-01", klines(MONTH))
    archive(root, "BTCUSDT", "2024-02-01", klines(days(1, FEB_2024)))
    wanted = Selection(("BTC/USDT",), Timeframe.M5)
    now_ms = FEB_2024 + DAY * STEP + 1
    with served(root) as (url, asked):
        files = Address(url, pause=lambda _: None)
        source = BinanceArchive(files, BinanceArchive.at_address(url, wanted, now_ms=now_ms, days=20).paths)

        def stop(how_far):
            if how_far.done == 1:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            import_candles(lake, source, wanted, now_ms=now_ms, progress=stop)
        assert lake.coverage(SPOT).candles == len(MONTH)
        done = import_candles(lake, source, wanted, now_ms=now_ms)
        assert (done.known, done.appended, asked[first.name]) == (1, DAY, 1)
    with pytest.raises(VenueUnavailableError, match="run the same command again"):
        import_candles(lake, source, wanted, now_ms=now_ms)


def test_an_address_needs_symbols_and_http(tmp_path):
    """An address that cannot be used is refused before anything is asked."""
    with pytest.raises(BadInputError, match="--symbols"):
        open_source("http://127.0.0.1:9", selection=ALL, now_ms=NOW_MS, days=3)
    wanted = Selection(("BTC/USDT",), Timeframe.M5)
    with pytest.raises(BadInputError, match="http"):
        open_source("file:///etc", selection=wanted, now_ms=NOW_MS, days=3)
    with pytest.raises(BadInputError, match="binance-archive"):
        open_source("http://127.0.0.1:9", "freqtrade", selection=wanted, now_ms=NOW_MS, days=3)


@pytest.mark.parametrize("ending", ["feather", "json", "json.gz"])
def test_freqtrade_folders_enter_the_lake(tmp_path, lake, ending):
    """Spot and futures files of user_data/data become series; mark prices, funding and trades are left out."""
    write = feather if ending == "feather" else json_file
    data = tmp_path / "user_data/data"
    write(data / f"binance/BTC_USDT-5m.{ending}", MONTH)
    write(data / f"binance/futures/BTC_USDT_USDT-5m-futures.{ending}", days(2, seed=4))
    write(data / f"kraken/ETH_EUR-5m.{ending}", days(1, seed=5))
    for name in ("BTC_USDT_USDT-5m-mark", "BTC_USDT_USDT-1h-funding_rate", "BTC_USDT-trades", "BTC_USDT-3m"):
        write(data / f"binance/futures/{name}.{ending}", days(1))
    done = bring(lake, tmp_path / "user_data")
    assert done.refused == ()
    assert done.series == (SPOT, SWAP, Series("kraken", "ETH/EUR", Timeframe.M5))
    assert lake.read(SPOT).equals(MONTH)
    assert lake.read(SWAP).equals(days(2, seed=4))
    assert bring(lake, tmp_path / "user_data").known == 3


def test_freqtrade_times_may_be_finer_than_milliseconds(tmp_path, lake):
    """Nanoseconds, as pandas wrote them for years, are the same moments."""
    feather(tmp_path / "binance/BTC_USDT-5m.feather", MONTH, unit="ns")
    assert bring(lake, tmp_path / "binance").appended == len(MONTH)
    assert lake.read(SPOT).equals(MONTH)


def test_only_what_is_selected_is_imported(tmp_path, lake):
    """Symbols and timeframes that were not asked for stay out; a venue may be chosen for the rest."""
    data = tmp_path / "binance"
    feather(data / "BTC_USDT-5m.feather", MONTH)
    feather(data / "ETH_USDT-5m.feather", days(1))
    feather(data / "BTC_USDT-1d.feather", CandleBlock(MONTH.open_time_ms[::DAY], MONTH.values[::DAY]))
    wanted = Selection(("BTC/USDT",), Timeframe.M5, venue="bitfinex")
    assert bring(lake, data, selection=wanted).series == (Series("bitfinex", "BTC/USDT", Timeframe.M5),)


def test_recordings_enter_the_lake(tmp_path, lake):
    """A CSV recording of several series is imported once."""
    rows = ["exchange,symbol,timeframe,ts,open,high,low,close,volume"]
    for symbol, seed in (("BTCUSDT", 1), ("ETHUSDT", 2)):
        block = days(1, seed=seed)
        for time, row in zip(block.open_time_ms.tolist(), block.values.tolist(), strict=True):
            rows.append(f"binance_usdm,{symbol},5m,{time},{','.join(map(repr, row))}")
    (tmp_path / "recorded.csv").write_text("\n".join(rows))
    assert bring(lake, tmp_path / "recorded.csv").appended == 2 * DAY
    assert bring(lake, tmp_path / "recorded.csv").known == 1
    assert np.array_equal(lake.read(SWAP).open_time_ms, days(1).open_time_ms)


def test_a_file_that_grows_is_imported_again(tmp_path, lake):
    """The same rows and new ones after and before them: only those are new, in every form, and no file is refused."""
    path = tmp_path / "binance/BTC_USDT-5m.feather"
    for block in (MONTH[2 * DAY : 10 * DAY], MONTH[2 * DAY : 20 * DAY], MONTH):
        stored = lake.coverage(SPOT).candles
        feather(path, block)
        done = bring(lake, path.parent)
        assert (done.refused, done.appended, done.corrections) == ((), len(block) - stored, 0)
    assert lake.read(SPOT).equals(MONTH)


def opened(block, row):
    """Return candles of which one was written before it had closed: half of its way, half of its volume."""
    values = block.values.copy()
    values[row] = [values[row, 0], values[row, 0], values[row, 0], values[row, 0], values[row, 4] / 2]
    return CandleBlock(block.open_time_ms, values)


def test_the_last_candle_of_a_download_may_have_been_open(tmp_path, lake):
    """Downloaded again, it is corrected; and an older download does not put it in the place of a closed one."""
    path = tmp_path / "binance/BTC_USDT-5m.feather"
    feather(path, opened(MONTH[: 5 * DAY], -1))
    bring(lake, path.parent)
    feather(path, MONTH)
    done = bring(lake, path.parent)
    assert (done.refused, done.appended, done.corrections) == ((), 26 * DAY + 1, 1)
    assert lake.read(SPOT).equals(MONTH)

    feather(tmp_path / "other/binance/BTC_USDT-5m.feather", opened(MONTH[: 3 * DAY], -1))
    done = bring(lake, tmp_path / "other")
    assert (done.refused, done.appended, done.corrections) == ((), 0, 0)
    assert lake.read(SPOT).equals(MONTH)


def test_newest_candles_may_be_restated(tmp_path, lake):
    """What a venue restates of its newest candles comes as corrections; one candle further back is a contradiction."""
    lake.append(SPOT, MONTH)
    values = MONTH.values.copy()
    values[-REVERIFIED:, 4] += 1
    done = bring(
        lake, recording(tmp_path / "new.csv", ("binance", "BTC/USDT", CandleBlock(MONTH.open_time_ms, values)))
    )
    assert (done.refused, done.appended, done.corrections) == ((), REVERIFIED, REVERIFIED)
    values[-REVERIFIED - 1, 4] += 1
    done = bring(
        lake, recording(tmp_path / "new.csv", ("binance", "BTC/USDT", CandleBlock(MONTH.open_time_ms, values)))
    )
    assert "1 candles differ" in done.refused[0].reason


def test_a_file_in_our_words_needs_only_what_it_does_not_say(tmp_path, lake):
    """Our names of columns without venue, symbol and timeframe: the options say those; what is missing is named."""
    path = tmp_path / "mine.csv"
    rows = zip(MONTH.open_time_ms.tolist(), *MONTH.values.T.tolist(), strict=True)
    path.write_text("\n".join(["ts,open,high,low,close,volume", *(",".join(map(repr, row)) for row in rows)]))
    chosen = Selection(("BTC/USDT",), Timeframe.M5, "binance")
    assert bring(lake, path, selection=chosen).refused == ()
    assert lake.read(SPOT).equals(MONTH)
    assert "--venue" in bring(lake, path).refused[0].reason
    path.write_text(path.read_text().replace("volume", "amount", 1))
    reason = bring(lake, path, selection=chosen).refused[0].reason
    assert "does not have the columns volume" in reason
    assert "amount" in reason


def test_a_candle_that_has_not_closed_is_left_out(tmp_path, lake):
    """The newest candle of a download may still be open: it is not stored until it comes closed."""
    feather(tmp_path / "binance/BTC_USDT-5m.feather", MONTH)
    now_ms = int(MONTH.open_time_ms[-1]) + 1
    assert bring(lake, tmp_path / "binance", now_ms=now_ms).appended == len(MONTH) - 1


def test_the_venue_fills_what_an_import_left_out(tmp_path, lake):
    """Imported candles do not hide a hole: what lies between them and later ones is still to be fetched."""
    later = days(2, FEB_2024 + 3 * DAY * STEP)
    lake.append(SPOT, later)
    feather(tmp_path / "binance/BTC_USDT-5m.feather", MONTH)
    bring(lake, tmp_path / "binance")
    end_ms = FEB_2024 + 5 * DAY * STEP
    assert wanted_ranges(lake, SPOT, JAN_2024, end_ms, repair=False) == [(FEB_2024, FEB_2024 + 3 * DAY * STEP)]

    feather(
        tmp_path / "binance/ETH_USDT-5m.feather",
        CandleBlock(*(np.delete(a, slice(5, 9), 0) for a in (MONTH.open_time_ms, MONTH.values))),
    )
    bring(lake, tmp_path / "binance")
    hole = (JAN_2024 + 5 * STEP, JAN_2024 + 9 * STEP)
    eth = Series("binance", "ETH/USDT", Timeframe.M5)
    assert wanted_ranges(lake, eth, JAN_2024, FEB_2024, repair=False) == [hole]


def test_the_kind_is_recognised_or_asked_for(tmp_path):
    """A folder with two kinds, or with none, names the option that helps."""
    with pytest.raises(BadInputError, match="no candle file"):
        open_source(str(tmp_path), selection=ALL, now_ms=NOW_MS, days=3)
    feather(tmp_path / "BTC_USDT-5m.feather", days(1))
    (tmp_path / "recorded.csv").write_text("")
    with pytest.raises(BadInputError, match=r"freqtrade and recording.*--kind"):
        open_source(str(tmp_path), selection=ALL, now_ms=NOW_MS, days=3)
    with pytest.raises(BadInputError, match="no file or folder"):
        open_source(str(tmp_path / "none"), selection=ALL, now_ms=NOW_MS, days=3)


def test_the_command_imports_without_a_stack(tmp_path, capsys, monkeypatch):
    """`qtctl ingest --from` fills the lake; 0 when all came, 3 when a file was refused, with its reason."""
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path / "home"))
    data = tmp_path / "user_data/data/binance"
    feather(data / "BTC_USDT-5m.feather", MONTH)
    assert run(["ingest", "--from", str(tmp_path / "user_data")]) == 0
    assert f"Imported {len(MONTH)} new candles of 1 series from 1 files" in capsys.readouterr().out
    feather(data / "ETH_USDT-5m.feather", days(1)).write_bytes(b"torn")
    assert run(["ingest", "--from", str(data), "--json"]) == 3
    told = json.loads(capsys.readouterr().out)
    assert told["appended"] == 0
    assert "ETH_USDT-5m.feather" in told["refused"][0]["part"]
    assert run(["ingest", "--kind", "freqtrade"]) == 2
