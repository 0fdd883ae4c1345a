"""A local HTTP server that answers market data as Binance futures do, and misbehaves on request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from feature_store.candle import CandleBlock
from feature_store.venue.factory import create_exchange

Misbehave = Callable[[web.Request], web.StreamResponse | None]


class VenueDouble:
    """Serves exchangeInfo, time and klines of given candles; the last candle is still open."""

    def __init__(self, candles: dict[str, CandleBlock], now_ms: int) -> None:
        self.candles = candles
        self.now_ms = now_ms
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.misbehave: Misbehave = lambda _: None
        self.url = ""

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.path, dict(request.query)))
        wrong = self.misbehave(request)
        if wrong is not None:
            return wrong
        answers: dict[str, Callable[[web.Request], Any]] = {
            "/fapi/v1/time": lambda _: {"serverTime": self.now_ms},
            "/fapi/v1/exchangeInfo": lambda _: {"symbols": [_instrument(symbol) for symbol in self.candles]},
            "/fapi/v1/klines": self._klines,
        }
        if request.path not in answers:
            return web.json_response({"code": -1100, "msg": "no such path"}, status=400)
        return web.json_response(answers[request.path](request))

    def _klines(self, request: web.Request) -> list[list[object]]:
        block = self.candles[request.query["symbol"]].until(self.now_ms)
        limit = int(request.query["limit"])
        since = request.query.get("startTime")
        block = block[-limit:] if since is None else block.since(int(since))[:limit]
        return [
            [candle.open_time_ms, *map(str, row), candle.open_time_ms + 299_999, "0", 1, "0", "0", "0"]
            for candle, row in zip(block.candles(), block.values.tolist(), strict=True)
        ]

    def asked(self, path: str) -> list[dict[str, str]]:
        """Return the queries of one path so far."""
        return [query for asked, query in self.requests if asked == path]


def _instrument(symbol: str) -> dict[str, Any]:
    base = symbol.removesuffix("USDT")
    return {
        "symbol": symbol,
        "pair": symbol,
        "contractType": "PERPETUAL",
        "deliveryDate": 4_133_404_800_000,
        "onboardDate": 0,
        "status": "TRADING",
        "baseAsset": base,
        "quoteAsset": "USDT",
        "marginAsset": "USDT",
        "pricePrecision": 2,
        "quantityPrecision": 3,
        "orderTypes": ["LIMIT", "MARKET"],
        "timeInForce": ["GTC"],
        "filters": [{"filterType": "PRICE_FILTER", "tickSize": "0.01", "minPrice": "0.01", "maxPrice": "1000000"}],
    }


@asynccontextmanager
async def venue_double(candles: dict[str, CandleBlock], now_ms: int) -> AsyncIterator[tuple[VenueDouble, Any]]:
    """Run the double on a free port; give it and an unmodified ccxt client that is pointed at it."""
    double = VenueDouble(candles, now_ms)
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", double._answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    double.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    exchange = create_exchange("sandbox", url=double.url, api_key="key", api_secret="secret", pro=False)
    try:
        yield double, exchange
    finally:
        await exchange.close()
        await runner.cleanup()
        await asyncio.sleep(0)
