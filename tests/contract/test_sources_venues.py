"""Candles of the real venues, in the shapes they answer in, through unmodified ccxt."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from feature_store.candle import Series, Timeframe
from feature_store.clock import utc_now_ms
from feature_store.sources.ccxt_candles import fetch_candles
from feature_store.venue.factory import create_exchange

STEP = Timeframe.M5.milliseconds
COUNT = 1_300
BINANCE_SPOT = {
    "symbol": "BTCUSDT",
    "status": "TRADING",
    "baseAsset": "BTC",
    "quoteAsset": "USDT",
    "isSpotTradingAllowed": True,
    "permissions": ["SPOT"],
    "filters": [{"filterType": "PRICE_FILTER", "tickSize": "0.01"}],
}
BINANCE_PERPETUAL = BINANCE_SPOT | {
    "contractType": "PERPETUAL",
    "deliveryDate": 4_133_404_800_000,
    "marginAsset": "USDT",
    "pair": "BTCUSDT",
}
BITFINEX_PAIR = ["BTCUST", [None, None, None, "0.00004", "2000.0", None, None, None, 0.2, 0.1, None]]


class Wire:
    """
    Answers the requests that ccxt makes for markets, time and candles; the last candle is not closed yet.

    Bitfinex tells no time of its own, so what is closed there is judged by this machine's clock; the last candle may
    close while a test runs.
    """

    def __init__(self, now_ms: int) -> None:
        self.now_ms = now_ms
        self.first = (now_ms // STEP - COUNT) * STEP
        self.pages: list[int] = []

    async def fetch(self, url, method="GET", headers=None, body=None):
        """Take the place of the transport below ccxt."""
        parts = urlsplit(url)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if "candles" in parts.path:
            return self._page(int(query["start"]), int(query["limit"]), bitfinex=True)
        if "klines" in parts.path:
            return self._page(int(query["startTime"]), int(query["limit"]), bitfinex=False)
        if parts.path.endswith("/time"):
            return {"serverTime": self.now_ms}
        if "exchangeInfo" in parts.path:
            perpetual = parts.path.startswith("/fapi")
            return {"symbols": [BINANCE_PERPETUAL if perpetual else BINANCE_SPOT] if "dapi" not in parts.path else []}
        if "info:pair" in parts.path:
            return [[BITFINEX_PAIR], [], [], []]
        return [[] for _ in range(12)]

    def _page(self, since_ms, limit, *, bitfinex):
        times = [self.first + row * STEP for row in range(COUNT + 1)]
        wanted = [time for time in times if time >= since_ms][:limit]
        self.pages.append(len(wanted))
        if bitfinex:
            # Open, close, high, low: the order is Bitfinex's own.
            return [[time, 100, 101, 102, 99, 5] for time in wanted]
        return json.loads(json.dumps([[time, "100", "102", "99", "101", "5", time + STEP - 1] for time in wanted]))


@pytest.mark.parametrize(
    ("venue", "symbol"),
    [
        pytest.param("binanceusdm", "BTC/USDT:USDT", id="binance-perpetuals"),
        pytest.param("binance", "BTC/USDT", id="binance-spot"),
        pytest.param("bitfinex", "BTC/USDT", id="bitfinex"),
    ],
)
async def test_one_setting_changes_the_venue(venue, symbol):
    """Every venue's closed candles arrive whole, in pages, in our order of columns, and without a key."""
    wire = Wire(utc_now_ms())
    exchange = create_exchange(venue, pro=False)
    exchange.fetch = wire.fetch
    try:
        pages = [page async for page in fetch_candles(exchange, Series(venue, symbol, Timeframe.M5), wire.first)]
    finally:
        await exchange.close()

    assert len(wire.pages) == (1 if venue == "bitfinex" else 2)
    times = [int(time) for page in pages for time in page.open_time_ms]
    assert times[:COUNT] == [wire.first + row * STEP for row in range(COUNT)]
    just_closed = venue == "bitfinex" and utc_now_ms() >= wire.first + (COUNT + 1) * STEP
    assert len(times) - COUNT in ((0, 1) if just_closed else (0,))
    assert all((page.values == [100.0, 102.0, 99.0, 101.0, 5.0]).all() for page in pages)


CANDLE = {"o": "100", "c": "101", "h": "102", "l": "99", "v": "5", "x": False, "i": "5m"}


def streamed(asked: dict, open_ms: int) -> list:
    """Return what a venue sends once a candle stream is asked for, in its own shape."""
    if "key" in asked:
        accepted = {"event": "subscribed", "channel": "candles", "chanId": 7, "key": asked["key"]}
        # Bitfinex first sends the candles so far, then each change.
        return [accepted, [7, [[open_ms, 100, 101, 102, 99, 5]]], [7, [open_ms, 100, 101, 102, 99, 5]]]
    candle = CANDLE | {"t": open_ms, "T": open_ms + STEP - 1, "s": "BTCUSDT"}
    return [
        {"result": None, "id": asked["id"]},
        {"e": "kline", "E": open_ms + 1, "s": "BTCUSDT", "k": candle, "stream": asked["params"][0]},
    ]


@asynccontextmanager
async def stream_of(open_ms: int):
    """Serve candle streams on a free port, and say where."""

    async def serve(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            for answer in streamed(json.loads(message.data), open_ms):
                await socket.send_json(answer)
        return socket

    application = web.Application()
    application.router.add_get("/{path:.*}", serve)
    async with TestServer(application) as server:
        yield f"ws://{server.host}:{server.port}"


@pytest.mark.parametrize(
    ("venue", "symbol", "address"),
    [
        pytest.param("binanceusdm", "BTC/USDT:USDT", {"linear": "/ws"}, id="binance-perpetuals"),
        pytest.param("binance", "BTC/USDT", {"spot": "/stream/ws"}, id="binance-spot"),
        pytest.param("bitfinex", "BTC/USDT", {"public": "/ws/1"}, id="bitfinex"),
    ],
)
async def test_the_streaming_client_of_every_venue_follows_candles(venue, symbol, address):
    """Each venue's WebSocket client connects, subscribes and reads a candle in the venue's own shape."""
    wire = Wire(utc_now_ms())
    exchange = create_exchange(venue)
    exchange.fetch = wire.fetch
    async with stream_of(wire.first) as url:
        exchange.urls["api"]["ws"] = {name: url + path for name, path in address.items()}
        try:
            async with asyncio.timeout(100):
                candles = await exchange.watch_ohlcv(symbol, "5m")
        finally:
            await exchange.close()

    assert candles[-1] == [wire.first, 100.0, 102.0, 99.0, 101.0, 5.0]
