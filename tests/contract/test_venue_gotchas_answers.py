"""What ccxt makes of the venue's answers to orders where it surprises, seen at the sandbox."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import ccxt
import ccxt.pro
import pytest

from infra.prove.own_venue import own_venue
from tests.sandbox_support import ccxt_options, point

COIN = "SOL/USDT:USDT"
PAGE = "<html>busy</html>"


@asynccontextmanager
async def trading():
    """Start a venue and a client of it."""
    async with own_venue(symbols=("BTCUSDT", "SOLUSDT")) as venue:
        exchange = point(ccxt.pro.binanceusdm(ccxt_options()), venue.url)
        try:
            await exchange.load_markets()
            yield venue, exchange
        finally:
            await exchange.close()


async def guarded(exchange, name: str) -> dict:
    """Place a stop four per cent below the market."""
    trigger = exchange.price_to_precision(COIN, (await exchange.fetch_ticker(COIN))["last"] * 0.96)
    return await exchange.create_order(
        COIN, "market", "sell", 1, None, {"stopLossPrice": trigger, "reduceOnly": True, "clientOrderId": name}
    )


@pytest.mark.parametrize(
    "spoilt",
    [
        {"action": "exec_then_status", "status": 200, "body": PAGE},
        {"action": "exec_then_status", "status": 200, "body": ""},
        {"action": "exec_then_truncate"},
    ],
    ids=["page", "empty", "truncated"],
)
async def test_a_success_without_an_order_in_it_is_handed_on_as_one(spoilt):
    """A page, nothing and half an answer become an order without id and status, and yet it was executed (G3)."""
    async with trading() as (venue, exchange):
        await venue.do(op="fault", path="/fapi/v1/order", method="POST", times=1, **spoilt)
        order = await exchange.create_order(COIN, "market", "buy", 1)

        assert (order["id"], order["status"]) == (None, None)
        (position,) = await exchange.fetch_positions([COIN])
        assert position["contracts"] == 1.0


async def test_an_empty_account_and_no_candles_are_no_errors():
    """An account of `{}` has no currency at all, and candles of `[]` are none: neither raises (G3)."""
    async with trading() as (venue, exchange):
        await venue.do(op="fault", path="/fapi/v3/account", times=1, status=200, body="{}")
        await venue.do(op="fault", path="/fapi/v1/klines", times=1, status=200, body="[]")

        assert (await exchange.fetch_balance())["total"] == {}
        assert await exchange.fetch_ohlcv(COIN, "1m") == []
        assert (await exchange.fetch_balance())["total"]["USDT"] > 0


async def test_a_conditional_order_is_found_only_by_those_who_say_so():
    """Without `trigger` it is not found, not listed and not cancelled, with it it is; its end has no status (G6)."""
    async with trading() as (_, exchange):
        await exchange.create_order(COIN, "market", "buy", 1)
        stop, conditional = await guarded(exchange, "guard"), {"trigger": True}

        with pytest.raises(ccxt.OrderNotFound, match="-2013"):
            await exchange.fetch_order(stop["id"], COIN)
        with pytest.raises(ccxt.OrderNotFound, match="-2011"):
            await exchange.cancel_order(stop["id"], COIN)
        await exchange.cancel_all_orders(COIN)
        assert await exchange.fetch_open_orders(COIN) == []
        assert [one["id"] for one in await exchange.fetch_open_orders(COIN, params=conditional)] == [stop["id"]]
        assert (await exchange.cancel_order(stop["id"], COIN, conditional))["status"] is None
        assert await exchange.fetch_open_orders(COIN, params=conditional) == []


async def test_a_conditional_order_that_fired_says_nothing_true_of_its_fill():
    """By REST it is closed with nothing filled, by the stream all filled; its child under the same id knows (G6)."""
    async with trading() as (venue, exchange):
        following = asyncio.create_task(_follow(exchange.watch_orders))
        await _until(lambda: any("listenKey" in url and one.isConnected for url, one in exchange.clients.items()))
        await exchange.create_order(COIN, "market", "buy", 1)
        stop = await guarded(exchange, "guard")
        # Into a book that takes only half of it.
        await venue.do(op="partial", frac=0.5, times=1)
        await venue.do(op="price", symbol="SOLUSDT", factor=0.94)
        fired = await exchange.fetch_order(stop["id"], COIN, {"trigger": True})
        child = await exchange.fetch_order(fired["info"]["actualOrderId"], COIN)
        await _until(lambda: any(one["info"].get("X") == "FINISHED" for one in exchange.orders or ()))
        streamed = next(one for one in exchange.orders if one["info"].get("X") == "FINISHED")
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)

        assert (fired["status"], fired["filled"]) == ("closed", 0.0)
        assert (streamed["id"], streamed["filled"]) == (stop["id"], 1.0)
        assert child["clientOrderId"] == "guard"
        assert (child["status"], child["filled"]) == ("expired", 0.5)


async def test_a_market_order_can_expire_with_a_part_of_it_filled():
    """Its status says expired, and half of it was bought all the same (G15)."""
    async with trading() as (venue, exchange):
        await venue.do(op="partial", frac=0.5, times=1)
        order = await exchange.create_order(COIN, "market", "buy", 2)

        assert (order["status"], order["filled"], order["amount"]) == ("expired", 1.0, 2.0)
        (position,) = await exchange.fetch_positions([COIN])
        assert position["contracts"] == 1.0


async def test_a_second_client_need_not_ask_for_the_markets():
    """Given the markets of the first it trades without having asked for them (G20)."""
    async with trading() as (venue, exchange):
        second = point(ccxt.pro.binanceusdm(ccxt_options()), venue.url)
        asked = venue.sandbox.faults.met["GET /fapi/v1/exchangeInfo"][0]
        try:
            second.set_markets(exchange.markets)
            order = await second.create_order(COIN, "market", "buy", 1)
        finally:
            await second.close()

        assert order["status"] == "closed"
        assert venue.sandbox.faults.met["GET /fapi/v1/exchangeInfo"][0] == asked


async def test_a_price_of_a_market_order_goes_nowhere():
    """Whatever price stands beside it, it is filled at the market's (G21)."""
    async with trading() as (_, exchange):
        order = await exchange.create_order(COIN, "market", "buy", 1, 1.0)

        assert order["status"] == "closed"
        assert order["average"] == pytest.approx((await exchange.fetch_ticker(COIN))["last"], rel=0.01)


async def test_conditional_orders_are_taken_at_the_plain_endpoint_only_as_they_once_were():
    """-4120, unless the venue is told to be that of before; switched off, it is today's again (VENUE 2, 13)."""
    async with trading() as (venue, exchange):
        trigger = exchange.price_to_precision(COIN, (await exchange.fetch_ticker(COIN))["last"] * 0.96)
        stop = {"symbol": "SOLUSDT", "side": "SELL", "type": "STOP_MARKET", "quantity": "1", "stopPrice": trigger}
        with pytest.raises(ccxt.BaseError, match="-4120"):
            await exchange.fapiPrivatePostOrder(stop)
        await venue.do(op="legacy")
        taken = await exchange.fapiPrivatePostOrder(stop)
        await venue.do(op="legacy", on=False)
        with pytest.raises(ccxt.BaseError, match="-4120"):
            await exchange.fapiPrivatePostOrder(stop)

        assert (taken["type"], taken["status"]) == ("STOP_MARKET", "NEW")


async def _follow(watch) -> None:
    while True:
        await watch()


async def _until(holds) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 - ccxt tells nobody
            await asyncio.sleep(0.02)
