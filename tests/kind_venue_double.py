"""A local HTTP server that answers market data beside candles as Binance futures do, and misbehaves on request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from feature_store.venue.factory import create_exchange
from tests.feature_support import market
from tests.feature_venue_double import _instrument
from tests.kind_support import HOUR

NOW = 1_700_000_100_000 + 250
STEP = 300_000
BEGIN = NOW // STEP * STEP - 2_500 * STEP
FUNDED = 1_250
TRADES = 3_400
PATHS = {
    "funding": "/fapi/v1/fundingRate",
    "mark": "/fapi/v1/markPriceKlines",
    "index": "/fapi/v1/indexPriceKlines",
    "open-interest": "/futures/data/openInterestHist",
    "aggregate-trades": "/fapi/v1/aggTrades",
    "book": "/fapi/v1/depth",
    "filters": "/fapi/v1/exchangeInfo",
}
Misbehave = Callable[[str, dict[str, str], Any], Any]


class KindVenue:
    """Every answer is a function of what is asked; the newest candle has not closed."""

    def __init__(self) -> None:
        self.now_ms = NOW
        self.asked: list[tuple[str, dict[str, str]]] = []
        # Told path, query and honest answer; returns what is sent: an answer, a response of its own, or None.
        self.misbehave: Misbehave = lambda _path, _query, answer: answer
        self.instruments = [_instrument("BTCUSDT"), _instrument("ETHUSDT")]
        self.url = ""
        self._candles = market(2_501, start_ms=BEGIN)
        self._funding = [
            # As the venue does it: stamped some milliseconds late, differently each time.
            {"symbol": "BTCUSDT", "fundingRate": f"{(row % 7 - 3) / 10_000:.8f}", "fundingTime": time + row % 9}
            for row, time in enumerate(range(NOW // (8 * HOUR) * 8 * HOUR - (FUNDED - 1) * 8 * HOUR, NOW, 8 * HOUR))
        ]

    def honest(self, path: str, query: dict[str, str]) -> Any:
        """Return what a venue answers that does not misbehave."""
        since, limit = int(query.get("startTime", 0)), int(query.get("limit", 500))
        end = int(query.get("endTime", self.now_ms))
        answers: dict[str, Callable[[], Any]] = {
            "/fapi/v1/time": lambda: {"serverTime": self.now_ms},
            "/fapi/v1/exchangeInfo": lambda: {"symbols": self.instruments},
            PATHS["funding"]: lambda: [row for row in self._funding if row["fundingTime"] >= since][:limit],
            PATHS["mark"]: lambda: self._prices(since, limit),
            PATHS["index"]: lambda: self._prices(since, limit),
            PATHS["open-interest"]: lambda: _interests(since, min(end, self.now_ms), limit),
            PATHS["aggregate-trades"]: lambda: _trades(int(query.get("fromId", 0)), since, end, limit),
            PATHS["book"]: lambda: self._book(limit),
        }
        return answers[path]()

    def _prices(self, since: int, limit: int) -> list[list[Any]]:
        block = self._candles.since(since)[:limit]
        return [[one.open_time_ms, *map(str, (one.open, one.high, one.low, one.close)), "0"] for one in block.candles()]

    def _book(self, limit: int) -> dict[str, Any]:
        bids = [[f"{100 - level / 100:.2f}", "2.5"] for level in range(limit)]
        asks = [[f"{100.01 + level / 100:.2f}", "1.5"] for level in range(limit)]
        return {"lastUpdateId": 77, "E": self.now_ms, "T": self.now_ms - 3, "bids": bids, "asks": asks}

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        query = dict(request.query)
        self.asked.append((request.path, query))
        try:
            told = self.misbehave(request.path, query, self.honest(request.path, query))
        except KeyError:
            return web.json_response({"code": -1100, "msg": "no such path"}, status=400)
        if isinstance(told, web.StreamResponse):
            return told
        return web.Response(text=json.dumps(told), content_type="application/json")

    def pages(self, kind: str) -> list[dict[str, str]]:
        """Return the queries for pages of a kind so far."""
        return [query for path, query in self.asked if path == PATHS[kind]]


def _interests(since: int, end: int, limit: int) -> list[dict[str, Any]]:
    times = range(-(-max(since, BEGIN) // STEP) * STEP, end + 1, STEP)[:limit]
    return [
        {
            "symbol": "BTCUSDT",
            "sumOpenInterest": f"{1_000 + time_ms // STEP % 50}.500",
            "sumOpenInterestValue": f"{100_000 + time_ms // STEP % 50}.25",
            "timestamp": time_ms,
        }
        for time_ms in times
    ]


def _trades(first: int, since: int, end: int, limit: int) -> list[dict[str, Any]]:
    rows = [_trade(number) for number in range(first, TRADES)]
    return [row for row in rows if since <= row["T"] <= end][:limit]


def _trade(number: int) -> dict[str, Any]:
    # Three of each moment, and at times nothing for hours.
    time_ms = NOW - 30 * HOUR + number // 3 * 20_000 + (8 * HOUR if number > 900 else 0)
    return {
        "a": number, "p": f"{100 + number % 11 / 10}", "q": "0.25", "f": number, "l": number, "T": time_ms,
        "m": number % 2 == 0,
    }  # fmt: skip


@asynccontextmanager
async def kind_venue() -> AsyncIterator[tuple[KindVenue, Any]]:
    """Run the venue on a free port; give it and an unmodified ccxt client that is pointed at it."""
    venue = KindVenue()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", venue.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    venue.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    exchange = create_exchange("sandbox", url=venue.url, pro=False)
    try:
        yield venue, exchange
    finally:
        await exchange.close()
        await runner.cleanup()
        await asyncio.sleep(0)
