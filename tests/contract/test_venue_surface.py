"""What ccxt asks of the venue for each of its unified calls, what it subscribes to, and that each is answered."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import ccxt
import ccxt.pro
import pytest

from infra.prove.own_venue import own_venue
from tests.sandbox_support import ccxt_options, point

COIN = "SOL/USDT:USDT"
FIRES = {"trigger": True}


def _limit(exchange: Any, number: int = 0) -> dict[str, Any]:
    price = exchange.price_to_precision(COIN, exchange.kept["last"] * (0.95 - number / 1000))
    return {"symbol": COIN, "type": "limit", "side": "buy", "amount": 1, "price": float(price)}


async def _stop(exchange: Any, create: Any = None) -> Any:
    trigger = exchange.price_to_precision(COIN, exchange.kept["last"] * 0.94)
    given = {"stopLossPrice": trigger, "reduceOnly": True}
    return await (create or exchange.create_order)(COIN, "market", "sell", 1, None, given)


async def _rest(exchange: Any) -> Any:
    exchange.kept["order"] = order = await exchange.create_order(**_limit(exchange))
    return order


async def _wait(exchange: Any) -> Any:
    exchange.kept["stop"] = stop = await _stop(exchange)
    return stop


async def _batch(exchange: Any) -> Any:
    exchange.kept["batch"] = orders = await exchange.create_orders([_limit(exchange, 1), _limit(exchange, 2)])
    return orders


def _amended(exchange: Any) -> Any:
    return [{"id": one["id"], **_limit(exchange, 5 + number)} for number, one in enumerate(exchange.kept["batch"])]


# Call by call, in an order in which each finds what it needs, with the requests that VENUE.md 2 names.
REQUESTS: tuple[tuple[str, Any, tuple[str, ...]], ...] = (
    ("load_markets", lambda e: e.load_markets(reload=True), ("GET /fapi/v1/exchangeInfo",)),
    ("fetch_time", lambda e: e.fetch_time(), ("GET /fapi/v1/time",)),
    ("load_time_difference", lambda e: e.load_time_difference(), ("GET /fapi/v1/time",)),
    ("fetch_ohlcv", lambda e: e.fetch_ohlcv(COIN, "1m"), ("GET /fapi/v1/klines",)),
    ("mark", lambda e: e.fetch_ohlcv(COIN, "1m", params={"price": "mark"}), ("GET /fapi/v1/markPriceKlines",)),
    ("index", lambda e: e.fetch_ohlcv(COIN, "1m", params={"price": "index"}), ("GET /fapi/v1/indexPriceKlines",)),
    ("premium", lambda e: e.fetch_ohlcv(COIN, "1m", params={"price": "premiumIndex"}),
     ("GET /fapi/v1/premiumIndexKlines",)),
    ("fetch_ticker", lambda e: e.fetch_ticker(COIN), ("GET /fapi/v1/ticker/24hr",)),
    ("fetch_tickers", lambda e: e.fetch_tickers(), ("GET /fapi/v1/ticker/24hr",)),
    ("fetch_bids_asks", lambda e: e.fetch_bids_asks(), ("GET /fapi/v1/ticker/bookTicker",)),
    ("fetch_last_prices", lambda e: e.fetch_last_prices(), ("GET /fapi/v2/ticker/price",)),
    ("fetch_order_book", lambda e: e.fetch_order_book(COIN, 100), ("GET /fapi/v1/depth",)),
    ("fetch_trades", lambda e: e.fetch_trades(COIN), ("GET /fapi/v1/aggTrades",)),
    ("fetch_balance", lambda e: e.fetch_balance(), ("GET /fapi/v3/account",)),
    ("fetch_balance, older", lambda e: e.fetch_balance({"useV2": True}), ("GET /fapi/v2/account",)),
    ("market", lambda e: e.create_order(COIN, "market", "buy", 2), ("POST /fapi/v1/order",)),
    ("fetch_positions", lambda e: e.fetch_positions([COIN]),
     ("GET /fapi/v1/leverageBracket", "GET /fapi/v3/positionRisk")),
    ("fetch_leverage", lambda e: e.fetch_leverage(COIN), ("GET /fapi/v1/symbolConfig",)),
    ("fetch_margin_mode", lambda e: e.fetch_margin_mode(COIN), ("GET /fapi/v1/symbolConfig",)),
    ("set_leverage", lambda e: e.set_leverage(7, COIN), ("POST /fapi/v1/leverage",)),
    ("set_margin_mode", lambda e: e.set_margin_mode("isolated", "BTC/USDT:USDT"), ("POST /fapi/v1/marginType",)),
    ("fetch_position_mode", lambda e: e.fetch_position_mode(), ("GET /fapi/v1/positionSide/dual",)),
    ("multi-assets margin", lambda e: e.fapiPrivateGetMultiAssetsMargin(), ("GET /fapi/v1/multiAssetsMargin",)),
    ("limit", _rest, ("POST /fapi/v1/order",)),
    ("edit_order", lambda e: e.edit_order(e.kept["order"]["id"], **_limit(e, 3)), ("PUT /fapi/v1/order",)),
    ("fetch_order", lambda e: e.fetch_order(e.kept["order"]["id"], COIN), ("GET /fapi/v1/order",)),
    ("fetch_open_orders", lambda e: e.fetch_open_orders(COIN), ("GET /fapi/v1/openOrders",)),
    ("fetch_orders", lambda e: e.fetch_orders(COIN), ("GET /fapi/v1/allOrders",)),
    ("cancel_order", lambda e: e.cancel_order(e.kept["order"]["id"], COIN), ("DELETE /fapi/v1/order",)),
    ("stop", _wait, ("POST /fapi/v1/algoOrder",)),
    ("fetch_order, stop", lambda e: e.fetch_order(e.kept["stop"]["id"], COIN, FIRES), ("GET /fapi/v1/algoOrder",)),
    ("fetch_open_orders, stops", lambda e: e.fetch_open_orders(COIN, params=FIRES), ("GET /fapi/v1/openAlgoOrders",)),
    ("fetch_orders, stops", lambda e: e.fetch_orders(COIN, params=FIRES), ("GET /fapi/v1/allAlgoOrders",)),
    ("cancel_order, stop", lambda e: e.cancel_order(e.kept["stop"]["id"], COIN, FIRES),
     ("DELETE /fapi/v1/algoOrder",)),
    ("cancel_all_orders, stops", lambda e: e.cancel_all_orders(COIN, FIRES), ("DELETE /fapi/v1/algoOpenOrders",)),
    ("create_orders", _batch, ("POST /fapi/v1/batchOrders",)),
    ("edit_orders", lambda e: e.edit_orders(_amended(e)), ("PUT /fapi/v1/batchOrders",)),
    ("cancel_orders", lambda e: e.cancel_orders([one["id"] for one in e.kept["batch"]], COIN),
     ("DELETE /fapi/v1/batchOrders",)),
    ("cancel_all_orders", lambda e: e.cancel_all_orders(COIN), ("DELETE /fapi/v1/allOpenOrders",)),
    ("fetch_my_trades", lambda e: e.fetch_my_trades(COIN), ("GET /fapi/v1/userTrades",)),
    ("fetch_funding_rate", lambda e: e.fetch_funding_rate(COIN), ("GET /fapi/v1/premiumIndex",)),
    ("fetch_funding_rate_history", lambda e: e.fetch_funding_rate_history(COIN), ("GET /fapi/v1/fundingRate",)),
    ("fetch_funding_intervals", lambda e: e.fetch_funding_intervals(), ("GET /fapi/v1/fundingInfo",)),
    ("fetch_funding_history", lambda e: e.fetch_funding_history(COIN), ("GET /fapi/v1/income",)),
    ("fetch_leverage_tiers", lambda e: e.fetch_leverage_tiers([COIN]), ("GET /fapi/v1/leverageBracket",)),
    ("fetch_trading_fee", lambda e: e.fetch_trading_fee(COIN), ("GET /fapi/v1/commissionRate",)),
    ("fee tier", lambda e: e.fapiPrivateGetAccountConfig(), ("GET /fapi/v1/accountConfig",)),
    ("dead-man switch", lambda e: e.fapiPrivatePostCountdownCancelAll({"symbol": "SOLUSDT", "countdownTime": 120_000}),
     ("POST /fapi/v1/countdownCancelAll",)),
    ("listen key", lambda e: e.fapiPrivatePostListenKey(), ("POST /fapi/v1/listenKey",)),
    ("listen key, renewed", lambda e: e.fapiPrivatePutListenKey(), ("PUT /fapi/v1/listenKey",)),
)  # fmt: skip
# Call by call with the stream of VENUE.md 3.
STREAMS: tuple[tuple[str, Any, str], ...] = (
    ("watch_ohlcv", lambda e: e.watch_ohlcv(COIN, "1m"), "solusdt@kline_1m"),
    ("watch_ohlcv_for_symbols", lambda e: e.watch_ohlcv_for_symbols([["BTC/USDT:USDT", "5m"]]), "btcusdt@kline_5m"),
    # The client's default is the smaller one, whatever its options say of one symbol.
    ("watch_ticker", lambda e: e.watch_ticker(COIN), "solusdt@miniTicker"),
    ("watch_ticker, whole", lambda e: e.watch_ticker("BTC/USDT:USDT", {"name": "ticker"}), "btcusdt@ticker"),
    ("watch_tickers", lambda e: e.watch_tickers(None, {"name": "miniTicker"}), "!miniTicker@arr"),
    ("watch_mark_prices", lambda e: e.watch_mark_prices(), "!markPrice@arr@1s"),
    ("watch_mark_price", lambda e: e.watch_mark_price(COIN), "solusdt@markPrice@1s"),
    ("watch_bids_asks", lambda e: e.watch_bids_asks([COIN]), "solusdt@bookTicker"),
    ("watch_trades", lambda e: e.watch_trades(COIN), "solusdt@trade"),
    ("watch_trades, aggregated", lambda e: e.watch_trades("BTC/USDT:USDT", params={"name": "aggTrade"}),
     "btcusdt@aggTrade"),
    ("watch_order_book", lambda e: e.watch_order_book(COIN), "solusdt@depth@100ms"),
)  # fmt: skip
ACCOUNT = ("watch_orders", "watch_my_trades", "watch_balance", "watch_positions")
# Sent as frames, with the method of the venue.
FRAMES: tuple[tuple[str, Any, str], ...] = (
    ("create_order_ws", lambda e: _kept(e, e.create_order_ws(**_limit(e))), "order.place"),
    ("edit_order_ws", lambda e: e.edit_order_ws(e.kept["frame"]["id"], **_limit(e, 4)), "order.modify"),
    ("cancel_order_ws", lambda e: e.cancel_order_ws(e.kept["frame"]["id"], COIN), "order.cancel"),
    ("create_order_ws, stop", lambda e: _kept(e, _stop(e, e.create_order_ws)), "algoOrder.place"),
    ("cancel_order_ws, stop", lambda e: e.cancel_order_ws(e.kept["frame"]["id"], COIN, FIRES), "algoOrder.cancel"),
    ("fetch_balance_ws", lambda e: e.fetch_balance_ws({"type": "future"}), "account.status"),
    ("balance", lambda e: e.fetch_balance_ws({"method": "v2/account.balance"}), "v2/account.balance"),
    ("fetch_positions_ws", lambda e: e.fetch_positions_ws([COIN]), "account.position"),
    ("positions", lambda e: e.fetch_positions_ws([COIN], {"method": "v2/account.position"}), "v2/account.position"),
)


async def _kept(exchange: Any, sending: Any) -> Any:
    exchange.kept["frame"] = order = await sending
    return order


@dataclass
class Seen:
    """What was asked for each call, and what came of it."""

    asked: dict[str, list[str]] = field(default_factory=dict)
    came: dict[str, Any] = field(default_factory=dict)
    subscribed: set[str] = field(default_factory=set)
    met: set[str] = field(default_factory=set)


async def _live() -> Seen:
    seen, requests = Seen(), []
    async with own_venue(
        symbols=("BTCUSDT", "SOLUSDT"), speed=60, heard=lambda method, path: requests.append(f"{method} {path}")
    ) as venue:
        exchange = point(ccxt.pro.binanceusdm(ccxt_options()), venue.url)
        await exchange.load_markets()
        exchange.kept = {"last": (await exchange.fetch_ticker(COIN))["last"]}
        try:
            for name, call, _ in REQUESTS:
                requests.clear()
                seen.came[name] = await _tried(call(exchange))
                seen.asked[name] = list(requests)
            for name, call, _ in STREAMS:
                seen.came[name] = await _tried(call(exchange))
                seen.subscribed |= venue.sandbox.hub.by_stream.keys()
            for name, call, _ in FRAMES:
                requests.clear()
                seen.came[name] = await _tried(call(exchange))
                seen.asked[name] = list(requests)
            seen.met = set(venue.sandbox.faults.met)
            watching = {name: asyncio.create_task(_tried(getattr(exchange, name)())) for name in ACCOUNT}
            for _ in range(60):
                await exchange.create_order(COIN, "market", "buy", 1)
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.5):
                        await asyncio.wait(watching.values())
                if all(task.done() for task in watching.values()):
                    break
            seen.came |= {name: task.result() if task.done() else TimeoutError() for name, task in watching.items()}
        finally:
            await exchange.close()
    return seen


async def _tried(call: Any) -> Any:
    try:
        return await asyncio.wait_for(call, 60)
    except (ccxt.BaseError, TimeoutError) as error:
        return error


@pytest.fixture(scope="module")
def seen() -> Seen:
    """Return what one client asked of one venue."""
    return asyncio.run(_live())


@pytest.mark.parametrize(("name", "expected"), [(name, paths) for name, _, paths in REQUESTS],
                         ids=[name for name, _, _ in REQUESTS])  # fmt: skip
def test_each_unified_call_asks_what_the_venue_answers(seen, name, expected):
    """The path is the one that is known, and what comes back is no error and not nothing (VENUE 2)."""
    assert not isinstance(seen.came[name], BaseException), seen.came[name]
    assert seen.came[name] is not None
    assert set(expected) <= set(seen.asked[name])


@pytest.mark.parametrize(("name", "stream"), [(name, stream) for name, _, stream in STREAMS],
                         ids=[name for name, _, _ in STREAMS])  # fmt: skip
def test_each_watch_subscribes_to_a_stream_that_speaks(seen, name, stream):
    """The stream is the one that is known, and an event of it was read (VENUE 3)."""
    assert not isinstance(seen.came[name], BaseException), seen.came[name]
    assert seen.came[name]
    assert stream in seen.subscribed


@pytest.mark.parametrize("name", ACCOUNT)
def test_each_watch_of_the_account_hears_of_an_order(seen, name):
    """A market order is told to each of them (VENUE 3)."""
    assert not isinstance(seen.came[name], BaseException), seen.came[name]
    assert seen.came[name]


@pytest.mark.parametrize(("name", "method"), [(name, method) for name, _, method in FRAMES],
                         ids=[name for name, _, _ in FRAMES])  # fmt: skip
def test_each_call_over_a_websocket_is_answered_there(seen, name, method):
    """Placed, amended, cancelled, balance and positions, without a request by REST (VENUE 3)."""
    assert not isinstance(seen.came[name], BaseException), seen.came[name]
    assert seen.came[name]
    assert any(one.endswith(f"/ws-fapi/v1/{method}") for one in seen.met)
    assert [one for one in seen.asked[name] if "/fapi/v" in one] == []
