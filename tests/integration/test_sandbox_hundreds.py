"""Three hundred symbols at once: listed, priced, and told candle by candle."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict

import aiohttp

from tests.sandbox_support import running_sandbox

COUNT = 300
MINUTE_MS = 60_000


async def _closed_candles(ws_url: str, symbols: list[str], minutes: int) -> dict[str, list[dict]]:
    """Return the closed candles of a minute that each symbol's stream tells, until every one has told so many."""
    heard: dict[str, list[dict]] = defaultdict(list)
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{ws_url}/stream") as socket:
        for number in range(0, len(symbols), 100):
            streams = [f"{one.lower()}@kline_1m" for one in symbols[number : number + 100]]
            await socket.send_json({"method": "SUBSCRIBE", "params": streams, "id": number + 1})
        async for message in socket:
            told = json.loads(message.data).get("data", {})
            if told.get("e") == "kline" and told["k"]["x"]:
                heard[told["s"]].append(told["k"])
                if len(heard) == len(symbols) and all(len(one) >= minutes for one in heard.values()):
                    return heard
    return heard


async def test_three_hundred_symbols_are_listed_priced_and_told(tmp_path):
    """Each has filters, candles and statistics of a day, and its stream closes each minute once, as REST says later."""
    async with running_sandbox(symbols=COUNT, seed=5, history_days=2, speed=12, state=tmp_path / "s") as sandbox:
        info = await sandbox.get("/fapi/v1/exchangeInfo")
        symbols = [one["symbol"] for one in info["symbols"]]
        async with asyncio.timeout(120):
            heard = await _closed_candles(sandbox.ws_url, symbols, 3)
        day = await sandbox.get("/fapi/v1/ticker/24hr")
        best = await sandbox.get("/fapi/v1/ticker/bookTicker")
        first_ms = min(candles[0]["t"] for candles in heard.values())
        asked = {
            symbol: await sandbox.get(f"/fapi/v1/klines?symbol={symbol}&interval=1m&startTime={first_ms}&limit=20")
            for symbol in symbols[:: COUNT // 30]
        }

    assert len(set(symbols)) == COUNT
    assert all(one["status"] == "TRADING" for one in info["symbols"])
    kinds = {"PRICE_FILTER", "LOT_SIZE", "MIN_NOTIONAL"}
    assert all(kinds <= {each["filterType"] for each in one["filters"]} for one in info["symbols"])
    assert {one["symbol"] for one in day} == {one["symbol"] for one in best} == set(symbols)
    assert all(float(one["lowPrice"]) <= float(one["lastPrice"]) <= float(one["highPrice"]) for one in day)
    assert all(0 < float(one["bidPrice"]) < float(one["askPrice"]) for one in best)
    for candles in heard.values():
        opens = [one["t"] for one in candles]
        assert opens == list(range(opens[0], opens[0] + len(opens) * MINUTE_MS, MINUTE_MS))
    for symbol, rows in asked.items():
        known = {row[0]: row[1:6] for row in rows}
        told = {one["t"]: [one[name] for name in "ohlcv"] for one in heard[symbol]}
        assert told == {opened: known[opened] for opened in told}, symbol
