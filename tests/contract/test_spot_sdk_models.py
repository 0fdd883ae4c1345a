"""Every endpoint and stream of spot that the sandbox serves, held against the models of the official SDK."""

from __future__ import annotations

import asyncio
import importlib
import json
import re

import aiohttp
import pytest
from binance_sdk_spot.spot import ConfigurationRestAPI, Spot
from binance_sdk_spot.websocket_streams import models

from infra.sandbox.spot.routes import ROUTES
from tests.sandbox_support import API_KEY, API_SECRET, running_sandbox, signed_frame

COIN = {"symbol": "SOLUSDT"}
LIMIT = {**COIN, "side": "BUY", "type": "LIMIT", "time_in_force": "GTC", "quantity": 1.0}
CALLS = [
    ("ping", {}),
    ("exchange_info", {}),
    ("exchange_info", COIN),
    ("klines", {**COIN, "interval": "5m", "limit": 3}),
    ("ui_klines", {**COIN, "interval": "5m", "limit": 3}),
    ("avg_price", COIN),
    ("depth", {**COIN, "limit": 5}),
    ("get_trades", {**COIN, "limit": 3}),
    ("historical_trades", {**COIN, "limit": 3}),
    ("agg_trades", {**COIN, "limit": 3}),
    ("ticker", COIN),
    ("ticker24hr", {}),
    ("ticker_price", {}),
    ("ticker_book_ticker", {}),
    ("order_test", {**COIN, "side": "BUY", "type": "MARKET", "quantity": 1.0}),
    ("new_order", {**COIN, "side": "BUY", "type": "MARKET", "quantity": 5.0}),
    ("new_order", {**COIN, "side": "BUY", "type": "MARKET", "quote_order_qty": 50.0}),
    ("new_order", {**LIMIT, "price": 135.0, "new_client_order_id": "rest", "new_order_resp_type": "RESULT"}),
    ("new_order", {**COIN, "side": "SELL", "type": "STOP_LOSS", "quantity": 1.0, "stop_price": 130.0}),
    ("get_order", {**COIN, "orig_client_order_id": "rest"}),
    ("order_cancel_replace",
     {**LIMIT, "price": 134.0, "cancel_replace_mode": "STOP_ON_FAILURE", "cancel_orig_client_order_id": "rest",
      "new_client_order_id": "again"}),
    ("order_list_oco",
     {**COIN, "side": "SELL", "quantity": 1.0, "above_type": "LIMIT_MAKER", "above_price": 170.0,
      "below_type": "STOP_LOSS", "below_stop_price": 120.0, "list_client_order_id": "either"}),
    ("get_order_list", {"orig_client_order_id": "either"}),
    ("open_order_list", {}),
    ("delete_order_list", {**COIN, "list_client_order_id": "either"}),
    ("all_order_list", {}),
    ("get_open_orders", {}),
    ("delete_order", {**COIN, "orig_client_order_id": "again"}),
    ("delete_open_orders", COIN),
    ("all_orders", COIN),
    ("my_trades", COIN),
    ("get_account", {}),
    ("account_commission", COIN),
]  # fmt: skip
# Asked by ccxt beside spot's own paths; the SDK for spot has no models of them.
BESIDE = {
    ("GET", "/sapi/v1/asset/tradeFee"),
    ("GET", "/sapi/v1/margin/isolated/allPairs"),
    ("GET", "/dapi/v1/exchangeInfo"),
}
STREAMS = {
    "solusdt@kline_1m": "KlineResponse",
    "solusdt@aggTrade": "AggTradeResponse",
    "solusdt@trade": "TradeResponse",
    "solusdt@miniTicker": "MiniTickerResponse",
    "solusdt@ticker": "TickerResponse",
    "solusdt@bookTicker": "BookTickerResponse",
    "solusdt@depth": "DiffBookDepthResponse",
    "solusdt@depth@100ms": "DiffBookDepthResponse",
    "solusdt@depth5": "PartialBookDepthResponse",
    "!miniTicker@arr": "AllMiniTickerResponse",
}
ACCOUNT = {
    "executionReport": "ExecutionReport",
    "outboundAccountPosition": "OutboundAccountPosition",
    "balanceUpdate": "BalanceUpdate",
    "listStatus": "ListStatus",
    "eventStreamTerminated": "EventStreamTerminated",
}
# What an execution report says only of orders that are not made here: with a strategy, trailing, pegged, allocated or
# routed to others, and of trades that were prevented.
SOMETIMES = set("ABDJUabdjkuv") | {"Cs", "eR", "gOT", "gOV", "gP", "gp", "pL", "pY", "pl", "uS"}
# Since when it works, of one that waits for its price.
WAITS = {"W"}


def held(name: str, event: object) -> None:
    """Hold an event against its model: strictly typed, each field that the model names present."""
    for one in event if isinstance(event, list) else [event]:
        called = name if not isinstance(event, list) else f"{name}Inner"
        file = re.sub(r"(?<!^)(?=[A-Z])", "_", called).lower()
        kind = getattr(importlib.import_module(f"{models.__name__}.{file}"), called)
        assert kind.from_dict(one) is not None
        known = {field.alias or key for key, field in kind.model_fields.items()} - {"additional_properties"}
        optional = SOMETIMES if name == "ExecutionReport" else set()
        optional = optional | WAITS if one.get("w") is False else optional
        lacks = known - one.keys() - optional
        assert not lacks, f"{name} lacks {sorted(lacks)}"


@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_each_endpoint_of_spot_passes_the_models_of_the_sdk():
    """No path answers what the SDK would refuse, and none is left out of this."""
    async with running_sandbox(symbols=3, history_days=2, speed=1) as sandbox:
        options = ConfigurationRestAPI(api_key=API_KEY, api_secret=API_SECRET, base_path=sandbox.url)
        rest = Spot(config_rest_api=options).rest_api
        await sandbox.ctl(op="log", on=True)
        for name, arguments in CALLS:
            answer = await asyncio.to_thread(lambda call=name, given=arguments: getattr(rest, call)(**given).data())
            assert answer is not None, name
        met = (await sandbox.ctl(op="log"))["met"]

    asked = {tuple(one.split(" ", 1)) for one in met}
    assert ROUTES.keys() - asked == BESIDE


async def test_each_stream_of_spot_passes_the_models_of_the_sdk():
    """Market data of every kind arrives in the form of the SDK's models."""
    heard: dict[str, object] = {}
    async with (
        running_sandbox(symbols=3, history_days=2, speed=60) as sandbox,
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{sandbox.ws_url}/stream.spot/stream?streams={'/'.join(STREAMS)}") as socket,
        asyncio.timeout(120),
    ):
        while len(heard) < len(STREAMS):
            frame = json.loads((await socket.receive()).data)
            heard[frame["stream"]] = frame["data"]
    assert heard.keys() == STREAMS.keys()
    for stream, name in STREAMS.items():
        held(name, heard[stream])


async def test_each_event_of_the_spot_account_passes_the_models_of_the_sdk():
    """Orders, executions, balances, transfers and the end of a subscription have the SDK's form."""
    heard: dict[str, list[dict]] = {}
    async with (
        running_sandbox(symbols=3, history_days=2, speed=1) as sandbox,
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{sandbox.ws_url}/ws-api/v3") as socket,
        asyncio.timeout(60),
    ):
        now_ms = (await sandbox.get("/sandbox/status"))["now_ms"]
        await socket.send_str(signed_frame("userDataStream.subscribe.signature", now_ms))
        answer = json.loads((await socket.receive()).data)
        assert (answer["status"], answer["result"]) == (200, {"subscriptionId": 0})
        buy = COIN | {"side": "BUY", "type": "MARKET", "quantity": "1"}
        stop = COIN | {"side": "SELL", "type": "STOP_LOSS", "quantity": "0.5", "stopPrice": "100"}
        for one in (buy, stop):
            await socket.send_str(signed_frame("order.place", now_ms, **one))
        either = {"aboveType": "LIMIT_MAKER", "abovePrice": "170", "belowType": "STOP_LOSS", "belowStopPrice": "110"}
        pair = COIN | {"side": "SELL", "quantity": "0.4"} | either
        await socket.send_str(signed_frame("orderList.place.oco", now_ms, **pair))
        await sandbox.ctl(op="deposit", asset="SOL", quantity=2.5)
        while ACCOUNT.keys() - heard.keys() - {"eventStreamTerminated"} or len(heard["executionReport"]) < 3:
            await hear(socket, heard)
        await sandbox.ctl(op="expire_key")
        while "eventStreamTerminated" not in heard:
            await hear(socket, heard)
    assert heard.keys() == ACCOUNT.keys()
    for kind, events in heard.items():
        for event in events:
            held(ACCOUNT[kind], event)


async def hear(socket, heard: dict[str, list[dict]]) -> None:
    """Take in one frame of the account, leaving out what is an answer."""
    frame = json.loads((await socket.receive()).data)
    if "event" in frame:
        assert frame["subscriptionId"] == 0
        heard.setdefault(frame["event"]["e"], []).append(frame["event"])
