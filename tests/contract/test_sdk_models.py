"""Every endpoint and every stream that the sandbox serves, held against the models of the official SDK."""

from __future__ import annotations

import asyncio
import importlib
import json
import re

import aiohttp
import pytest
from binance_sdk_derivatives_trading_usds_futures.websocket_streams import models

from infra.sandbox.routes import FUTURES
from tests.contract.test_sandbox_sdk import COIN, PRIVATE, PUBLIC, sdk
from tests.sandbox_support import running_sandbox

OTHER = {"symbol": "ETHUSDT"}
FURTHER = [
    ("test_connectivity", {}),
    ("continuous_contract_kline_candlestick_data",
     {"pair": "SOLUSDT", "contract_type": "PERPETUAL", "interval": "5m", "limit": 3}),
    ("premium_index_kline_data", {**COIN, "interval": "5m", "limit": 3}),
    ("symbol_price_ticker", {}),
    ("old_trades_lookup", {**COIN, "limit": 3}),
    ("test_order", {**COIN, "side": "BUY", "type": "MARKET", "quantity": 5.0}),
    ("change_position_mode", {"dual_side_position": "true"}),
    ("change_position_mode", {"dual_side_position": "false"}),
    ("new_order", {**COIN, "side": "BUY", "type": "LIMIT", "time_in_force": "GTC", "quantity": 5.0, "price": 135.0,
                   "new_client_order_id": "moves"}),
    ("modify_order", {**COIN, "side": "BUY", "orig_client_order_id": "moves", "quantity": 6.0, "price": 134.0}),
    ("modify_multiple_orders",
     {"batch_orders": [{**COIN, "side": "BUY", "origClientOrderId": "moves", "quantity": "7", "price": "133"}]}),
    ("cancel_multiple_orders", {**COIN, "orig_client_order_id_list": ["moves"]}),
    ("futures_account_balance_v2", {}),
    ("users_force_orders", {}),
    ("position_adl_quantile_estimation", {}),
    ("auto_cancel_all_open_orders", {**COIN, "countdown_time": 60_000}),
    ("auto_cancel_all_open_orders", {**COIN, "countdown_time": 0}),
    ("change_margin_type", {**OTHER, "margin_type": "ISOLATED"}),
    ("new_order", {**OTHER, "side": "BUY", "type": "MARKET", "quantity": 1.0}),
    ("modify_isolated_position_margin", {**OTHER, "amount": 10.0, "type": 1}),
    ("get_position_margin_change_history", OTHER),
    ("new_order", {**OTHER, "side": "SELL", "type": "MARKET", "quantity": 1.0, "reduce_only": "true"}),
]  # fmt: skip
# Served for clients that ask of spot what a futures client needs not; the SDK for futures has no models of it.
SPOT = {
    ("GET", "/sapi/v1/capital/config/getall"),
    ("GET", "/sapi/v1/margin/allPairs"),
    ("GET", "/sapi/v1/system/status"),
}

STREAMS = {
    "solusdt@kline_1m": "KlineCandlestickStreamsResponse",
    "solusdt@aggTrade": "AggregateTradeStreamsResponse",
    "solusdt@markPrice": "MarkPriceStreamResponse",
    "solusdt@markPrice@1s": "MarkPriceStreamResponse",
    "solusdt@miniTicker": "IndividualSymbolMiniTickerStreamResponse",
    "solusdt@ticker": "IndividualSymbolTickerStreamsResponse",
    "solusdt@bookTicker": "IndividualSymbolBookTickerStreamsResponse",
    "solusdt@depth": "DiffBookDepthStreamsResponse",
    "solusdt@depth@100ms": "DiffBookDepthStreamsResponse",
    "solusdt@depth5": "PartialBookDepthStreamsResponse",
    "solusdt@depth10@100ms": "PartialBookDepthStreamsResponse",
    "!bookTicker": "AllBookTickersStreamResponse",
    "!miniTicker@arr": "AllMarketMiniTickersStreamResponse",
    "!ticker@arr": "AllMarketTickersStreamsResponse",
    "!markPrice@arr": "MarkPriceStreamForAllMarketResponse",
    "!markPrice@arr@1s": "MarkPriceStreamForAllMarketResponse",
}
ACCOUNT = {
    "ORDER_TRADE_UPDATE": "OrderTradeUpdate",
    "ACCOUNT_UPDATE": "AccountUpdate",
    "ACCOUNT_CONFIG_UPDATE": "AccountConfigUpdate",
    "ALGO_UPDATE": "AlgoUpdate",
    "CONDITIONAL_ORDER_TRIGGER_REJECT": "ConditionalOrderTriggerReject",
    "listenKeyExpired": "ListenKeyExpired",
}


# Pair and kind of a symbol, which come once coin-margined contracts share the streams; quantity without retail orders;
# the mark price's average. (`ai` tells of an account's several assets, in place of `ac`.)
OPTIONAL = {"ps", "st", "nq", "ap"}


def model(name: str):
    """Return a model of the SDK."""
    file = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
    return getattr(importlib.import_module(f"{models.__name__}.{file}"), name)


def held(name: str, event: object) -> None:
    """
    Hold an event against its model: strictly typed, each field that the model names present, and nothing lost.

    The SDK's models take a missing field for None, so that presence is asked for here.
    """
    for one in event if isinstance(event, list) else [event]:
        kind = model(name if not isinstance(event, list) else f"{name}Inner")
        read = kind.from_dict(one)
        assert read is not None
        known = {field.alias or key for key, field in kind.model_fields.items()} - {"additional_properties"}
        lacks = known - one.keys() - OPTIONAL - ({"ai"} if name == "AccountConfigUpdate" else set())
        assert not lacks, f"{name} lacks {sorted(lacks)}"


@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_each_endpoint_served_passes_the_models_of_the_sdk():
    """No path answers what the SDK would refuse, and none is left out of this."""
    async with running_sandbox(symbols=3, history_days=2) as sandbox:
        rest = sdk(sandbox).rest_api
        await sandbox.ctl(op="log", on=True)
        for name, arguments in [*PUBLIC, *PRIVATE[:-3], *FURTHER, *PRIVATE[-3:]]:
            answer = await asyncio.to_thread(lambda call=name, given=arguments: getattr(rest, call)(**given).data())
            assert answer is not None, name
        met = (await sandbox.ctl(op="log"))["met"]

    asked = {tuple(one.split(" ", 1)) for one in met}
    assert FUTURES.keys() - asked == SPOT


async def test_each_stream_served_passes_the_models_of_the_sdk():
    """Market data of every kind arrives in the form of the SDK's models."""
    heard: dict[str, object] = {}
    async with (
        running_sandbox(symbols=3, history_days=2, speed=60) as sandbox,
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{sandbox.ws_url}/stream?streams={'/'.join(STREAMS)}") as socket,
        asyncio.timeout(120),
    ):
        while len(heard) < len(STREAMS):
            frame = json.loads((await socket.receive()).data)
            heard[frame["stream"]] = frame["data"]
    assert heard.keys() == STREAMS.keys()
    for stream, name in STREAMS.items():
        held(name, heard[stream])


async def test_each_account_event_passes_the_models_of_the_sdk():
    """Orders, fills, funding, configuration, triggers, their refusals and the end of a stream have the SDK's form."""
    heard: dict[str, list[dict]] = {}
    async with running_sandbox(symbols=3, history_days=2, speed=600) as sandbox, aiohttp.ClientSession() as session:
        rest = sdk(sandbox).rest_api
        key = (await asyncio.to_thread(rest.start_user_data_stream)).data().listen_key

        async def call(name: str, **values: object) -> None:
            await asyncio.to_thread(lambda: getattr(rest, name)(**values))

        async with session.ws_connect(f"{sandbox.ws_url}/private/ws?listenKey={key}") as socket, asyncio.timeout(240):
            await call("change_initial_leverage", **COIN, leverage=7)
            await call("new_order", **COIN, side="BUY", type="MARKET", quantity=5.0)
            price = float((await sandbox.get("/fapi/v2/ticker/price?symbol=SOLUSDT"))["price"])
            stop = {**COIN, "algo_type": "CONDITIONAL", "side": "SELL", "quantity": 5.0, "reduce_only": "true"}
            # Whichever is reached first closes the position; the other one is then refused.
            for kind, far in (("STOP_MARKET", 0.998), ("STOP_MARKET", 0.9975), ("TAKE_PROFIT_MARKET", 1.002),
                              ("TAKE_PROFIT_MARKET", 1.0025)):  # fmt: skip
                await call("new_algo_order", **stop, type=kind, trigger_price=round(price * far, 3))
            while ACCOUNT.keys() - heard.keys() - {"listenKeyExpired"}:
                event = json.loads((await socket.receive()).data)
                heard.setdefault(event["e"], []).append(event)
            await sandbox.ctl(op="expire_key")
            while "listenKeyExpired" not in heard:
                event = json.loads((await socket.receive()).data)
                heard.setdefault(event["e"], []).append(event)
    assert heard.keys() == ACCOUNT.keys()
    for kind, events in heard.items():
        for event in events:
            held(ACCOUNT[kind], event)
