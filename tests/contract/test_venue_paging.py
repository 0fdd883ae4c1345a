"""Paging of the real venues: unmodified ccxt against servers on loopback that answer as each venue does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from aiohttp import web

from feature_store.candle import CandleBlock, Series, Timeframe
from feature_store.clock import utc_now_ms
from feature_store.lake import CandleLake
from feature_store.sources.ingest import REVERIFIED, ingest_series
from feature_store.venue.factory import create_exchange
from infra.prove.markets import market, without

STEP = Timeframe.M5.milliseconds
COUNT = 12_500
SPOT_INSTRUMENT = {
    "symbol": "BTCUSDT",
    "status": "TRADING",
    "baseAsset": "BTC",
    "quoteAsset": "USDT",
    "isSpotTradingAllowed": True,
    "permissions": ["SPOT"],
    "filters": [{"filterType": "PRICE_FILTER", "tickSize": "0.01"}],
}
PERPETUAL = SPOT_INSTRUMENT | {
    "contractType": "PERPETUAL",
    "deliveryDate": 4_133_404_800_000,
    "onboardDate": 1_500_000_000_000,
    "marginAsset": "USDT",
    "pair": "BTCUSDT",
}


class Venue:
    """Candles up to now, the last one open, with two gaps; it keeps count of what it was asked."""

    most = 0
    paths: tuple[str, ...] = ()

    def __init__(self) -> None:
        now_ms = utc_now_ms()
        self.now_ms = now_ms - now_ms % STEP + STEP // 2
        whole = market(COUNT)
        shift = self.now_ms - self.now_ms % STEP - int(whole.open_time_ms[-1])
        self.block = without(CandleBlock(whole.open_time_ms + shift, whole.values), np.r_[100:103, 7_000:9_500])
        self.asked: list[dict[str, str]] = []

    @property
    def closed(self) -> CandleBlock:
        """What a client should end up with."""
        return self.block[:-1]

    async def answer(self, request: web.Request) -> web.Response:
        """Answer one request of ccxt, or refuse the path."""
        if "klines" in request.path or "candles" in request.path:
            self.asked.append({"path": request.path, **request.query})
            return self.candles(request)
        known: dict[str, Any] = self.facts()
        for path, answer in known.items():
            if request.path.endswith(path):
                return web.json_response(answer)
        return web.json_response({"code": -1121, "msg": f"Unknown path {request.path}"}, status=400)

    def facts(self) -> dict[str, Any]:
        """What else the venue tells, by the end of the path."""
        return {}

    def candles(self, request: web.Request) -> web.Response:
        """One page of candles."""
        raise NotImplementedError


class BinanceSpot(Venue):
    """Oldest first from startTime, at most 1000; without a start the newest. Twelve columns, prices as text."""

    most = 1_000
    facts_path = "/api/v3"
    instrument = SPOT_INSTRUMENT

    def facts(self) -> dict[str, Any]:
        """Time and instruments; ccxt asks the other markets of Binance too."""
        return {
            f"{self.facts_path}/time": {"serverTime": self.now_ms},
            f"{self.facts_path}/exchangeInfo": {"symbols": [self.instrument]},
            "/exchangeInfo": {"symbols": []},
        }

    def candles(self, request: web.Request) -> web.Response:
        """A page as the venue cuts it: it refuses more than its limit."""
        limit = int(request.query.get("limit", 500))
        if limit > self.most or request.query["interval"] != "5m" or request.query["symbol"] != "BTCUSDT":
            return web.json_response({"code": -1130, "msg": "Data sent for parameter is not valid."}, status=400)
        page = self.block
        if "endTime" in request.query:
            page = page.until(int(request.query["endTime"]) + 1)
        page = page.since(int(request.query["startTime"]))[:limit] if "startTime" in request.query else page[-limit:]
        rows = [
            [one.open_time_ms, *map(repr, row), one.open_time_ms + STEP - 1, "0", 1, "0", "0", "0"]
            for one, row in zip(page.candles(), page.values.tolist(), strict=True)
        ]
        return web.json_response(rows, headers={"X-MBX-USED-WEIGHT-1M": "2"})


class BinancePerpetuals(BinanceSpot):
    """The same under another path, with up to 1500 candles a page."""

    most = 1_500
    facts_path = "/fapi/v1"
    instrument = PERPETUAL


class Bitfinex(Venue):
    """
    Newest first unless sort=1, up to 10000; open, close, high, low in that order, and never a column by name.

    A page that is asked for newest first from a start holds the newest of all, not the oldest from there: a client
    that pages forward without sort=1 would skip all between.
    """

    most = 10_000

    async def answer(self, request: web.Request) -> web.Response:
        """Bitfinex names what it tells in the path."""
        if "conf/" in request.path and "candles" not in request.path:
            pair = ["BTCUST", [None, None, None, "0.00004", "2000.0", None, None, None, 0.2, 0.1, None]]
            known = {"info:pair": [pair]}
            names = request.path.rpartition("conf/")[2].split(",")
            return web.json_response([known.get(name.removeprefix("pub:"), []) for name in names])
        return await super().answer(request)

    def candles(self, request: web.Request) -> web.Response:
        """A page in the order that was asked for."""
        limit = int(request.query.get("limit", 100))
        if limit > self.most or "trade:5m:tBTCUST/hist" not in request.path:
            return web.json_response(["error", 10020, "limit: invalid"], status=500)
        page = self.block.since(int(request.query.get("start", 0)))
        if "end" in request.query:
            page = page.until(int(request.query["end"]) + 1)
        oldest_first = request.query.get("sort") == "1"
        page = page[:limit] if oldest_first else page[-limit:]
        rows = [
            [time_ms, opened, close, high, low, volume]
            for time_ms, (opened, high, low, close, volume) in zip(
                page.open_time_ms.tolist(), page.values.tolist(), strict=True
            )
        ]
        return web.json_response(rows if oldest_first else rows[::-1])


@asynccontextmanager
async def served(venue: Venue, name: str) -> AsyncIterator[Any]:
    """Serve a venue on a free port, and give ccxt's own client, pointed at it and otherwise as it is."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", venue.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    exchange = create_exchange(name, pro=False)
    exchange.enableRateLimit = False
    for key, address in exchange.urls["api"].items():
        if isinstance(address, str):
            exchange.urls["api"][key] = base + urlsplit(address).path
    try:
        yield exchange
    finally:
        await exchange.close()
        await runner.cleanup()


VENUES = [
    pytest.param("binanceusdm", "BTC/USDT:USDT", BinancePerpetuals, id="binance-perpetuals"),
    pytest.param("binance", "BTC/USDT", BinanceSpot, id="binance-spot"),
    pytest.param("bitfinex", "BTC/USDT", Bitfinex, id="bitfinex"),
]


@pytest.mark.parametrize(("name", "symbol", "kind"), VENUES)
async def test_every_candle_arrives_once_whatever_the_venue_s_paging(tmp_path, name, symbol, kind: Callable[[], Venue]):
    """Gaps longer than a page, limits, sort order and columns: the lake holds what the venue has, to the bit."""
    venue, lake = kind(), CandleLake(tmp_path)
    series = Series(name, symbol, Timeframe.M5)
    start_ms = int(venue.block.open_time_ms[0])
    async with served(venue, name) as exchange:
        done = await ingest_series(exchange, lake, [series], start_ms, venue.now_ms)
        assert done[series].error is None
        assert lake.read(series).equals(venue.closed)
        first_run = len(venue.asked)
        assert first_run <= COUNT // min(venue.most, 1_000 if name.startswith("binance") else venue.most) + 2
        starts = [asked.get("startTime") or asked.get("start") for asked in venue.asked]
        assert len(set(starts)) == len(starts)
        again = await ingest_series(exchange, lake, [series], start_ms, venue.now_ms)
        assert again[series].fetched == 0
        assert len(venue.asked) == first_run


@pytest.mark.parametrize(("name", "symbol", "kind"), VENUES)
async def test_a_second_run_begins_where_the_first_ended(tmp_path, name, symbol, kind: Callable[[], Venue]):
    """Later candles come with one small page, which is cheap by the venue's own count."""
    venue, lake = kind(), CandleLake(tmp_path)
    series = Series(name, symbol, Timeframe.M5)
    begin_ms, start_ms = venue.now_ms - 100 * STEP, int(venue.block.open_time_ms[-2_000])
    async with served(venue, name) as exchange:
        await ingest_series(exchange, lake, [series], start_ms, begin_ms)
        before = len(venue.asked)
        await ingest_series(exchange, lake, [series], start_ms, venue.now_ms - 50 * STEP)
        assert len(venue.asked) == before + 1
        assert int(venue.asked[-1]["limit"]) <= 50 + REVERIFIED + 1
        assert lake.read(series).equals(venue.block.since(start_ms).until(venue.now_ms - 50 * STEP - STEP // 2))
