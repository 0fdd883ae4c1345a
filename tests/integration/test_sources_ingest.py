from __future__ import annotations

import json

import pytest
from aiohttp import web

from feature_store.candle import CandleBlock, Series, Timeframe
from feature_store.errors import BadInputError, CorruptFileError, UnknownSymbolError
from feature_store.lake import CandleLake
from feature_store.sources.ccxt_candles import PAGE, fetch_candles
from feature_store.sources.ingest import REVERIFIED, ingest_series
from feature_store.sources.recorded import import_file, import_files, read_file, unified_name
from feature_store.venue.async_time import venue_time_ms
from feature_store.venue.errors import VenueDownError
from feature_store.venue.factory import create_exchange
from tests.feature_support import BTC, ETH, STEP, T0, market, recorded, without
from tests.feature_venue_double import venue_double
from tests.sandbox_support import start_sandbox

CANDLES = 2_500
NOW = T0 + (CANDLES - 1) * STEP + 60_000
BLOCK = market(CANDLES)
CLOSED = BLOCK[:-1]


async def collected(exchange, series=BTC, start_ms=T0, end_ms=None) -> list[CandleBlock]:
    """All pages of a fetch."""
    return [page async for page in fetch_candles(exchange, series, start_ms, end_ms)]


async def test_pages_hold_each_closed_candle_once():
    """Pages follow each other without overlap, and the candle that is still open is left out."""
    async with venue_double({"BTCUSDT": BLOCK}, NOW) as (double, exchange):
        pages = await collected(exchange)
        assert [len(page) for page in pages] == [PAGE, PAGE, 499]
        assert pages[0].concat(*pages[1:]).equals(CLOSED)
        assert len(double.asked("/fapi/v1/klines")) == 3


async def test_a_range_ends_where_it_is_told():
    """Start is included, end is not, and a start off the grid begins at the next candle."""
    async with venue_double({"BTCUSDT": BLOCK}, NOW) as (_, exchange):
        pages = await collected(exchange, start_ms=T0 + 1, end_ms=T0 + 10 * STEP)
        assert pages[0].equals(BLOCK[1:10])
        assert await collected(exchange, start_ms=NOW) == []


async def test_damaged_pages_are_asked_for_again():
    """Truncated JSON, HTML, impossible candles and a hang-up in between cost attempts and no candle."""
    wrongs = [
        web.Response(text='[[1700000100000,"1'),
        web.Response(text="<html>busy</html>"),
        web.json_response([[T0 + 2_000 * STEP, "1", "0.5", "2", "1", "1", 0, "0", 1, "0", "0", "0"]]),
        web.Response(status=502),
    ]
    async with venue_double({"BTCUSDT": BLOCK}, NOW) as (double, exchange):
        await exchange.load_markets()
        double.misbehave = lambda request: wrongs.pop() if "klines" in request.path and wrongs else None
        pages = await collected(exchange, start_ms=T0 + 2_000 * STEP)
        assert pages[0].equals(CLOSED[2_000:])


async def test_a_page_out_of_order_is_put_in_order():
    """Candles that come shuffled or twice are taken once, in order."""
    async with venue_double({"BTCUSDT": BLOCK}, NOW) as (double, exchange):
        await exchange.load_markets()
        rows = double._klines

        def shuffled(request):
            if "klines" not in request.path:
                return None
            page = rows(request)
            return web.json_response(page[::-1] + page[:3])

        double.misbehave = shuffled
        pages = await collected(exchange)
        assert pages[0].concat(*pages[1:]).equals(CLOSED)


async def test_a_second_run_fetches_only_what_is_new(tmp_path):
    """The first run fills the lake, the second asks for nothing, the third for the newest candle and a few before."""
    lake, told = CandleLake(tmp_path), []
    blocks = {"BTCUSDT": BLOCK, "ETHUSDT": without(market(CANDLES, seed=2), slice(700, 750))}
    async with venue_double(blocks, NOW) as (double, exchange):
        done = await ingest_series(exchange, lake, [BTC, ETH], T0, progress=lambda *page: told.append(page))
        assert {one: result.appended for one, result in done.items()} == {BTC: CANDLES - 1, ETH: CANDLES - 51}
        assert lake.read(BTC).equals(CLOSED)
        assert done[BTC].report.is_clean
        assert [gap.candles for gap in done[ETH].report.gaps] == [50]
        assert sum(candles for series, candles, _ in told if series == BTC) == CANDLES - 1
        asked = len(double.asked("/fapi/v1/klines"))
        again = await ingest_series(exchange, lake, [BTC, ETH], T0)
        assert all(result.fetched == 0 and result.error is None for result in again.values())
        assert len(double.asked("/fapi/v1/klines")) == asked
        double.now_ms += STEP
        third = await ingest_series(exchange, lake, [BTC, ETH], T0)
        assert [result.fetched for result in third.values()] == [REVERIFIED + 1] * 2
        assert [result.appended for result in third.values()] == [1, 1]


async def test_an_interrupted_run_resumes_where_it_was(tmp_path):
    """What was stored before the venue went down stays, and is not fetched again."""
    lake = CandleLake(tmp_path)
    async with venue_double({"BTCUSDT": BLOCK}, NOW) as (double, exchange):
        await exchange.load_markets()
        late = str(T0 + PAGE * STEP)
        double.misbehave = lambda request: web.Response(status=502) if request.query.get("startTime") == late else None
        broken = await ingest_series(exchange, lake, [BTC], T0)
        assert isinstance(broken[BTC].error, VenueDownError)
        assert broken[BTC].appended == PAGE
        double.misbehave = lambda _: None
        asked = len(double.asked("/fapi/v1/klines"))
        done = await ingest_series(exchange, lake, [BTC], T0)
        assert done[BTC].appended == CANDLES - 1 - PAGE
        assert double.asked("/fapi/v1/klines")[asked]["startTime"] == str(int(late) - REVERIFIED * STEP)
        assert lake.read(BTC).equals(CLOSED)


async def test_an_earlier_start_fetches_what_is_before(tmp_path):
    """Asking for more of the past brings the past once, even where the venue has none."""
    lake = CandleLake(tmp_path)
    async with venue_double({"BTCUSDT": BLOCK}, NOW) as (double, exchange):
        await ingest_series(exchange, lake, [BTC], T0 + 2_000 * STEP)
        assert (await ingest_series(exchange, lake, [BTC], T0))[BTC].fetched == 2_000
        await ingest_series(exchange, lake, [BTC], T0 - 100 * STEP)
        asked = len(double.asked("/fapi/v1/klines"))
        await ingest_series(exchange, lake, [BTC], T0 - 100 * STEP)
        assert len(double.asked("/fapi/v1/klines")) == asked
        assert lake.read(BTC).equals(CLOSED)


@pytest.mark.parametrize("first_run", ["whole", "interrupted"])
async def test_an_interrupted_fetch_of_the_past_leaves_no_hole(tmp_path, first_run):
    """The past that a broken run did not reach is fetched by the next one, and nothing else is fetched again."""
    lake = CandleLake(tmp_path)
    async with venue_double({"BTCUSDT": BLOCK}, NOW) as (double, exchange):
        later_ms = T0 + 1_400 * STEP
        breaks_at(double, later_ms + PAGE * STEP if first_run == "interrupted" else None)
        await ingest_series(exchange, lake, [BTC], later_ms)
        breaks_at(double, T0 + PAGE * STEP)
        broken = await ingest_series(exchange, lake, [BTC], T0)
        assert isinstance(broken[BTC].error, VenueDownError)
        breaks_at(double, None)
        done = await ingest_series(exchange, lake, [BTC], T0)
        assert done[BTC].report.is_clean
        assert done[BTC].appended == (400 if first_run == "whole" else 499)
        assert lake.read(BTC).equals(CLOSED)


async def test_what_a_short_run_left_out_is_fetched_once_it_is_asked_for(tmp_path):
    """A run that began after the newest candle stored leaves a hole; one that begins before it fills it."""
    lake = CandleLake(tmp_path)
    async with venue_double({"BTCUSDT": BLOCK}, T0 + 500 * STEP) as (double, exchange):
        await ingest_series(exchange, lake, [BTC], T0)
        double.now_ms = NOW
        short = await ingest_series(exchange, lake, [BTC], T0 + 2_000 * STEP)
        assert short[BTC].fetched == 499
        assert (await ingest_series(exchange, lake, [BTC], T0))[BTC].fetched == 1_500
        assert (await ingest_series(exchange, lake, [BTC], T0))[BTC].fetched == 0
        assert lake.read(BTC).equals(CLOSED)


def breaks_at(double, start_ms: int | None) -> None:
    """Let the venue answer candles, but not those of the page that starts here."""
    broken = str(start_ms)
    double.misbehave = lambda request: web.Response(status=502) if request.query.get("startTime") == broken else None


async def test_nothing_is_believed_only_when_it_is_repeated():
    """An empty answer may be a damaged one: it is asked for again, then the newest candles are, and it is believed."""
    async with venue_double({"BTCUSDT": BLOCK[:10]}, NOW) as (double, exchange):
        assert await collected(exchange, start_ms=T0 + 20 * STEP) == []
        asked = double.asked("/fapi/v1/klines")
        assert ["startTime" in query for query in asked] == [True, True, True, False]


async def test_one_series_that_fails_does_not_stop_the_others(tmp_path):
    """A symbol the venue does not list is an error of its own, and names what is listed."""
    lake = CandleLake(tmp_path)
    unknown = Series("sandbox", "NOPE/USDT:USDT", Timeframe.M5)
    async with venue_double({"BTCUSDT": BLOCK}, NOW) as (_, exchange):
        done = await ingest_series(exchange, lake, [unknown, BTC], T0)
        assert isinstance(done[unknown].error, UnknownSymbolError)
        assert "BTC/USDT:USDT" in str(done[unknown].error)
        assert done[BTC].appended == CANDLES - 1


async def test_repair_sets_a_damaged_month_aside_and_fetches_it_again(tmp_path):
    """A damaged file stops its series with the remedy; the remedy works and keeps the damaged bytes."""
    lake = CandleLake(tmp_path)
    async with venue_double({"BTCUSDT": BLOCK}, NOW) as (_, exchange):
        await ingest_series(exchange, lake, [BTC], T0)
        lake.append(BTC, CLOSED)
        path = lake.paths(BTC)[0]
        path.write_bytes(path.read_bytes()[:-100])
        broken = await ingest_series(exchange, lake, [BTC], T0)
        assert isinstance(broken[BTC].error, CorruptFileError)
        assert "qtctl ingest --repair" in str(broken[BTC].error)
        mended = await ingest_series(exchange, lake, [BTC], T0, repair=True)
        assert mended[BTC].error is None
        assert len(mended[BTC].repaired) == 1
        assert lake.read(BTC).equals(CLOSED)


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_recorded_files_enter_the_lake(tmp_path, kind):
    """Recorded candles are stored under unified names; a second import changes nothing."""
    path = _recorded_file(tmp_path, kind)
    lake = CandleLake(tmp_path / "lake")
    done = import_file(lake, path)
    assert (done.rows, done.appended) == (200, 200)
    series = Series("binanceusdm", "BTC/USDT:USDT", Timeframe.M5)
    assert lake.read(series).equals(market(100))
    assert import_files(lake, [path])[0].appended == 0
    assert import_file(lake, path, venue="sandbox").series[0].venue == "sandbox"


def _recorded_file(folder, kind: str):
    import duckdb
    import pyarrow as pa

    parts = []
    for symbol, block in (("BTCUSDT", market(100)), ("ETHUSDT", market(100, seed=2))):
        names = {"exchange": "binance_usdm", "symbol": symbol, "timeframe": "5m"}
        columns = {"ts": block.open_time_ms.tolist()} | dict(
            zip(("open", "high", "low", "close", "volume"), block.values.T.tolist(), strict=True)
        )
        parts.append(pa.table({name: [value] * 100 for name, value in names.items()} | columns))
    path = folder / f"recorded.{kind}"
    with duckdb.connect() as connection:
        connection.register("rows", pa.concat_tables(parts))
        connection.execute(f"COPY (SELECT * FROM rows) TO '{path}' (FORMAT {kind})")
    return path


def test_unusable_recorded_files_say_what_is_wrong(tmp_path):
    """Missing, damaged and misshapen files each get one clear sentence."""
    lake = CandleLake(tmp_path / "lake")
    with pytest.raises(BadInputError, match="no file"):
        import_file(lake, tmp_path / "none.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(CorruptFileError, match=r"bad\.parquet"):
        import_file(lake, tmp_path / "bad.parquet")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(BadInputError, match=r"lacks a column.*--columns"):
        import_file(lake, tmp_path / "other.csv")
    with pytest.raises(BadInputError, match=r"\.parquet or \.csv"):
        list(read_file(tmp_path / "other.txt"))


@pytest.mark.parametrize(
    ("exchange", "symbol", "expected"),
    [
        ("binance_usdm", "BTCUSDT", ("binanceusdm", "BTC/USDT:USDT")),
        ("binance", "ETHBTC", ("binance", "ETH/BTC")),
        ("bitfinex", "BTCUSD", ("bitfinex", "BTC/USD")),
        ("kraken", "XBT/EUR", ("kraken", "XBT/EUR")),
        ("binance_usdm", "BTC/USDT:USDT", ("binanceusdm", "BTC/USDT:USDT")),
    ],
)
def test_recorded_names_become_unified(exchange, symbol, expected):
    """Recorded venue-native names are read as base, quote and settlement."""
    assert unified_name(exchange, symbol) == expected


def test_a_name_without_a_known_quote_is_not_guessed():
    """What cannot be told apart is refused."""
    with pytest.raises(BadInputError, match="BASE/QUOTE"):
        unified_name("binance", "ABCDEF")


async def test_the_sandbox_is_ingested_through_unmodified_ccxt(tmp_path):
    """Two weeks of two symbols from the real sandbox exchange, then only what is new."""
    lake = CandleLake(tmp_path / "lake")
    sandbox = await start_sandbox(symbols=3, seed=5, state=tmp_path / "sandbox")
    exchange = create_exchange("sandbox", url=sandbox.url, pro=False)
    try:
        now_ms = await venue_time_ms(exchange)
        await exchange.load_markets()
        series = [Series("sandbox", symbol, Timeframe.M5) for symbol in sorted(exchange.markets)[:2]]
        start_ms = now_ms - 14 * 86_400_000
        done = await ingest_series(exchange, lake, series, start_ms, now_ms)
        for one in series:
            assert done[one].error is None
            assert done[one].report.is_clean, done[one].report.describe()
            assert 14 * 288 - 1 <= done[one].appended <= 14 * 288 + 1
            assert lake.last_open_time_ms(one) == Timeframe.M5.last_closed_open_ms(now_ms)
        again = await ingest_series(exchange, lake, series, start_ms, now_ms)
        assert [result.fetched for result in again.values()] == [0, 0]
    finally:
        await exchange.close()
        await sandbox.stop()


@pytest.mark.needs_market_data
def test_every_recorded_candle_file_is_readable():
    """All recorded candle files are read as they are, with their bad ticks, and pass the checks of storage."""
    files = [path for path in recorded(".").glob("*_1h_*.parquet") if "quotes" not in path.name]
    counts = {path.name: sum(len(block) for _, block in read_file(path)) for path in files}
    assert counts
    assert min(counts.values()) > 5_000
    assert json.dumps(counts)
