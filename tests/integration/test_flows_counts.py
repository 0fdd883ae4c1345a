"""The ingest flow counts: a series that fails stops no other, and fewer candles than were asked for fail the run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import numpy as np
import pytest
from aiohttp import web

from feature_store.candle import Series, Timeframe
from feature_store.kinds.definition import INDEX
from feature_store.kinds.store import KindStore
from feature_store.lake import CandleLake
from feature_store.sources.listings import listing_of
from tests.feature_support import STEP, T0, market, without
from tests.feature_venue_double import _instrument, venue_double
from tests.stack_fixtures import newest_artifacts, qtctl, sandbox_venue

CANDLES = 600
NOW = T0 + CANDLES * STEP + 1_000
HOUR_MS = 3_600_000
BLOCK = market(CANDLES + 100)
DAY = CANDLES - 288
NAMES = ("BTC", "ETH", "SOL", "ADA", "XRP", "DOT")


def series(name: str) -> Series:
    return Series("sandbox", f"{name}/USDT:USDT", Timeframe.M5)


@pytest.fixture
def env(prefect_server, tmp_path) -> Iterator[dict[str, str]]:
    return {**prefect_server.env, "QUANTUM_HOME": str(tmp_path)}


async def ingest(env, url: str, *options: str):
    """Run the command for a day of candles."""
    arguments = ("ingest", "--days", "1", "--json", *options)
    return await asyncio.to_thread(lambda: qtctl(*arguments, env={**env, "QT_VENUE_URL": url}))


def rows_of(server, key: str) -> dict[str, dict]:
    """Return the newest table of a kind, by symbol."""
    return {row["symbol"]: row for row in json.loads(newest_artifacts(server)[key]["data"])}


async def test_a_damaged_series_and_one_that_is_gone_stop_no_other(prefect_server, env, tmp_path):
    """Five of six are brought up to date, the torn one is told with its remedy, and what was delisted is left alone."""
    lake = CandleLake(tmp_path / "lake")
    for name in ("BTC", "GONE"):
        lake.append(series(name), BLOCK[:CANDLES])
    torn = lake.paths(series("BTC"))[0]
    torn.write_bytes(torn.read_bytes()[:-100])
    async with venue_double({f"{name}USDT": BLOCK for name in NAMES}, NOW) as (double, _):
        symbols = ",".join(series(name).symbol for name in (*NAMES, "GONE"))
        done = await ingest(env, double.url, "--symbols", symbols)

    assert done.returncode == 1
    assert str(torn) in json.loads(done.stdout)["error"]
    assert "ingest --repair" in done.stderr
    assert {name: lake.coverage(series(name)).candles for name in NAMES[1:]} == dict.fromkeys(NAMES[1:], 287)
    assert listing_of(lake, series("GONE")).is_over
    told = {symbol: row["came of it"] for symbol, row in rows_of(prefect_server, "coverage").items()}
    assert str(torn) in told[series("BTC").symbol]
    assert told[series("GONE").symbol] == "not traded at the venue any more"
    assert told[series("DOT").symbol] == "up to date"


async def test_fewer_candles_than_asked_for_fail_the_run_until_the_venue_confirms(prefect_server, env, tmp_path):
    """All is stored, the run fails with the counts; after three answers an hour apart the shortfall is the venue's."""
    candles = {"BTCUSDT": BLOCK, "ETHUSDT": without(BLOCK, np.r_[DAY + 50 : CANDLES + 100])}
    async with venue_double(candles, NOW) as (double, _):
        runs = []
        for _ in range(3):
            runs.append(await ingest(env, double.url))
            double.now_ms += HOUR_MS
    lake = CandleLake(tmp_path / "lake")

    assert [run.returncode for run in runs] == [1, 1, 0], runs[-1].stderr
    assert "ETH/USDT:USDT has 49 of 287 candles asked for" in json.loads(runs[0].stdout)["error"]
    assert "has not confirmed of 202" in runs[0].stderr
    assert "BTC" not in runs[0].stderr
    assert lake.coverage(series("BTC")).candles == 287 + 24
    row = rows_of(prefect_server, "quality")["ETH/USDT:USDT"]
    assert (row["candles"], row["expected"], row["verdict"]) == (25, 25, "sound")


async def test_thin_trading_fails_no_run(prefect_server, env):
    """A venue that leaves out two candles of five, each between others, has answered for them at the first run."""
    thin = without(BLOCK, np.flatnonzero(np.arange(len(BLOCK)) % 5 < 2))
    async with venue_double({"BTCUSDT": BLOCK, "ETHUSDT": thin}, NOW) as (double, _):
        done = await ingest(env, double.url)
    assert done.returncode == 0, done.stderr
    assert rows_of(prefect_server, "quality")["ETH/USDT:USDT"]["candles"] < 180


async def test_what_trades_no_more_is_fetched_as_far_as_the_venue_serves_it(prefect_server, env, tmp_path):
    """Following the universe, a settled symbol's candles are kept; one that is not served fails nothing."""
    candles = {"BTCUSDT": BLOCK, "ETHUSDT": BLOCK[: CANDLES - 100], "SOLUSDT": BLOCK}

    def settled(request: web.Request) -> web.Response | None:
        if request.path.endswith("exchangeInfo"):
            said = [_instrument(name) | ({} if name == "BTCUSDT" else {"status": "SETTLING"}) for name in candles]
            return web.json_response({"symbols": said})
        if request.query.get("symbol") == "SOLUSDT":
            return web.json_response({"code": -1122, "msg": "Invalid symbol status."}, status=400)
        return None

    async with venue_double(candles, NOW) as (double, _):
        double.misbehave = settled
        done = await ingest(env, double.url, "--symbols", "universe")
        await ingest(env, double.url)
    lake = CandleLake(tmp_path / "lake")

    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) == {series("BTC").symbol, series("ETH").symbol}
    assert lake.coverage(series("ETH")).candles == 187
    assert listing_of(lake, series("ETH")).is_over
    told = rows_of(prefect_server, "coverage")
    assert told[series("ETH").symbol]["came of it"] == "not traded at the venue any more"


async def test_one_kind_that_fails_stops_no_other(prefect_server, env, tmp_path):
    """Of two symbols one has a torn file: what is whole is fetched, then the run fails for it."""
    with sandbox_venue(tmp_path / "venue", symbols=2, history_days=3, speed=1) as url:
        assert (await ingest(env, url, "--kinds", "mark")).returncode == 0
        torn = max((tmp_path / "lake" / "mark").rglob("*BTC*/*.parquet"))
        torn.write_bytes(torn.read_bytes()[:-50])
        (torn.parent / "asked.json").unlink()
        done = await ingest(env, url, "--kinds", "mark,index")

    assert done.returncode == 1
    assert str(torn) in done.stderr
    kinds = KindStore(tmp_path / "lake")
    assert [one.symbol for one in kinds.subjects(INDEX)] == ["BTC/USDT:USDT", "ETH/USDT:USDT"]
    rows = json.loads(newest_artifacts(prefect_server)["market-data"]["data"])
    told = [row["came of it"] for row in rows if str(torn) in row["came of it"]]
    assert len(told) == 1


async def test_retraining_goes_on_without_one_series_that_failed(prefect_server, env, tmp_path):
    """The others are up to date: features are made of them, and training judges what there is."""

    def refusing(request: web.Request) -> web.Response | None:
        if request.path.endswith("klines") and request.query.get("symbol") == "ADAUSDT":
            return web.json_response({"code": -1122, "msg": "Invalid symbol status."}, status=400)
        return None

    async with venue_double({f"{name}USDT": BLOCK for name in NAMES[:4]}, NOW) as (double, _):
        double.misbehave = refusing
        arguments = ("retrain", "--days", "1", "--size", "tiny", "--json")
        done = await asyncio.to_thread(lambda: qtctl(*arguments, env={**env, "QT_VENUE_URL": double.url}))

    assert done.returncode != 0, "A day is too little to train on"
    assert "Invalid symbol status" not in json.loads(done.stdout)["error"]
    assert set(rows_of(prefect_server, "features")) == {series(name).symbol for name in NAMES[:3]}
