"""The official SDK's own models judge the sandbox's answers."""

from __future__ import annotations

import asyncio

import pytest
from binance_sdk_derivatives_trading_usds_futures.derivatives_trading_usds_futures import (
    ConfigurationRestAPI,
    ConfigurationWebSocketStreams,
    DerivativesTradingUsdsFutures,
)

from feature_store.clock import monotonic
from tests.sandbox_support import API_KEY, API_SECRET, running_sandbox

COIN = {"symbol": "SOLUSDT"}
PUBLIC = [
    ("exchange_information", {}),
    ("check_server_time", {}),
    ("kline_candlestick_data", {**COIN, "interval": "5m", "limit": 3}),
    ("order_book", {**COIN, "limit": 5}),
    ("recent_trades_list", COIN),
    ("compressed_aggregate_trades_list", COIN),
    ("ticker24hr_price_change_statistics", {}),
    ("symbol_price_ticker_v2", {}),
    ("symbol_order_book_ticker", {}),
    ("mark_price", COIN),
    ("get_funding_rate_history", COIN),
    ("get_funding_rate_info", {}),
    ("open_interest", COIN),
    ("open_interest_statistics", {**COIN, "period": "5m"}),
    ("mark_price_kline_candlestick_data", {**COIN, "interval": "5m", "limit": 3}),
    ("index_price_kline_candlestick_data", {"pair": "SOLUSDT", "interval": "5m", "limit": 3}),
]
PRIVATE = [
    ("change_initial_leverage", {**COIN, "leverage": 5}),
    ("change_margin_type", {**COIN, "margin_type": "ISOLATED"}),
    ("account_information_v3", {}),
    ("account_information_v2", {}),
    ("futures_account_balance_v3", {}),
    ("new_order", {**COIN, "side": "BUY", "type": "MARKET", "quantity": 5.0, "new_order_resp_type": "RESULT"}),
    (
        "new_order",
        {
            **COIN, "side": "BUY", "type": "LIMIT", "time_in_force": "GTC", "quantity": 5.0, "price": 135.0,
            "new_client_order_id": "rest",
        },
    ),
    ("query_order", {**COIN, "orig_client_order_id": "rest"}),
    ("query_current_open_order", {**COIN, "orig_client_order_id": "rest"}),
    ("current_all_open_orders", {}),
    ("cancel_order", {**COIN, "orig_client_order_id": "rest"}),
    (
        "new_algo_order",
        {
            **COIN, "algo_type": "CONDITIONAL", "side": "SELL", "type": "STOP_MARKET", "quantity": 5.0,
            "trigger_price": 20.0, "reduce_only": "true", "client_algo_id": "guard",
        },
    ),
    ("query_algo_order", {"client_algo_id": "guard"}),
    ("current_all_algo_open_orders", {}),
    ("position_information_v3", {}),
    ("position_information_v2", {}),
    ("all_orders", COIN),
    ("account_trade_list", COIN),
    ("get_income_history", {}),
    ("cancel_algo_order", {"client_algo_id": "guard"}),
    ("query_all_algo_orders", COIN),
    ("cancel_all_open_orders", COIN),
    ("cancel_all_algo_open_orders", COIN),
    ("notional_and_leverage_brackets", {}),
    ("user_commission_rate", COIN),
    ("symbol_configuration", {}),
    ("futures_account_configuration", {}),
    ("get_current_position_mode", {}),
    ("get_current_multi_assets_mode", {}),
    (
        "place_multiple_orders",
        {"batch_orders": [{**COIN, "side": "SELL", "type": "MARKET", "quantity": "5", "reduceOnly": "true"}]},
    ),
    ("start_user_data_stream", {}),
    ("keepalive_user_data_stream", {}),
    ("close_user_data_stream", {}),
]  # fmt: skip


def sdk(sandbox) -> DerivativesTradingUsdsFutures:
    return DerivativesTradingUsdsFutures(
        config_rest_api=ConfigurationRestAPI(api_key=API_KEY, api_secret=API_SECRET, base_path=sandbox.url),
        config_ws_streams=ConfigurationWebSocketStreams(stream_url=sandbox.ws_url),
    )


@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_every_answer_passes_the_models_of_the_sdk():
    """Each REST answer of the trading day is accepted by the SDK's strict models, and says something."""
    async with running_sandbox(symbols=3, history_days=2) as sandbox:
        rest = sdk(sandbox).rest_api
        for name, arguments in [*PUBLIC, *PRIVATE]:
            answer = await asyncio.to_thread(lambda call=name, given=arguments: getattr(rest, call)(**given).data())
            assert answer is not None, name


@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_candles_page_without_a_gap():
    """Pages asked for one after the other hold each candle of two days once."""
    async with running_sandbox(symbols=1, history_days=2) as sandbox:
        rest, first = sdk(sandbox).rest_api, (await sandbox.get("/sandbox/status"))["first_ms"]

        def pages() -> list[int]:
            times: list[int] = []
            while True:
                since = times[-1] + 1 if times else first
                page = rest.kline_candlestick_data(symbol="BTCUSDT", interval="5m", start_time=since, limit=200).data()
                times.extend(int(row[0]) for row in page)
                if len(page) < 200:
                    return times

        times = await asyncio.to_thread(pages)

    assert len(times) > 2 * 288
    assert times == list(range(first, first + len(times) * 300_000, 300_000))


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("speed", [1, 600])
async def test_the_clock_runs_at_the_chosen_speed(speed):
    """Between two answers the server's time moves by what passed here, times the speed."""
    async with running_sandbox(symbols=1, history_days=1, speed=speed) as sandbox:
        rest = sdk(sandbox).rest_api

        def look() -> tuple[float, int, float]:
            before = monotonic()
            told = rest.check_server_time().data().server_time
            return before, told, monotonic()

        first = await asyncio.to_thread(look)
        await asyncio.sleep(2)
        second = await asyncio.to_thread(look)

    # The server's clock was read somewhere between question and answer, however long those took.
    assert (second[0] - first[2]) * speed - 2 <= (second[1] - first[1]) / 1000 <= (second[2] - first[0]) * speed + 2


@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_stream_events_pass_the_models_of_the_sdk():
    """Candle events and account events arrive as the SDK's own classes."""
    async with running_sandbox(symbols=3, history_days=2) as sandbox:
        official = sdk(sandbox)
        connection = await official.websocket_streams.create_connection()
        candles, account, enough = [], [], asyncio.Event()

        def take(events: list, event: object) -> None:
            events.append(event)
            if len(candles) > 2 and len(account) > 2:
                enough.set()

        stream = await connection.kline_candlestick_streams(symbol="solusdt", interval="1m")
        stream.on("message", lambda event: take(candles, event))
        key = (await asyncio.to_thread(official.rest_api.start_user_data_stream)).data().listen_key
        user = await connection.user_data(key)
        user.on("message", lambda event: take(account, event))
        order = {**COIN, "side": "BUY", "type": "MARKET", "quantity": 5.0}
        await asyncio.to_thread(lambda: official.rest_api.new_order(**order))
        async with asyncio.timeout(120):
            await enough.wait()
        await connection.close_connection()

    assert all(one.k.s == "SOLUSDT" for one in candles)
    assert any(getattr(one.actual_instance, "o", None) is not None for one in account)
