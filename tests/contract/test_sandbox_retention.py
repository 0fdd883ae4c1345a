"""The venue forgets orders: what nobody filled after three days, all else after ninety, as ccxt sees it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from decimal import Decimal

import ccxt.async_support as ccxt
import pytest

from infra.prove.own_venue import own_venue
from infra.sandbox.engine.model import (
    AlgoOrder,
    AlgoStatus,
    Order,
    OrderStatus,
    OrderType,
    PositionSide,
    Side,
    TimeInForce,
    WorkingType,
)
from infra.sandbox.handlers.retention import DAY_MS, is_algo_kept, is_archived, is_kept
from tests.sandbox_support import ccxt_options, point, point_spot

COIN, SPOT_COIN = "SOL/USDT:USDT", "SOL/USDT"
DAY_S = DAY_MS // 1000


@asynccontextmanager
async def client(kind: str):
    """Start a venue and a client of its futures or its spot."""
    async with own_venue(symbols=("BTCUSDT", "SOLUSDT")) as venue:
        make, lead = (ccxt.binanceusdm, point) if kind == "futures" else (ccxt.binance, point_spot)
        exchange = lead(make(ccxt_options() | {"enableRateLimit": False}), venue.url)
        try:
            await exchange.load_markets()
            await venue.do(op="stand_still")
            yield venue, exchange
        finally:
            await exchange.close()


async def resting(exchange, symbol: str, client_id: str, factor: float = 0.97):
    """Place a limit order that does not trade."""
    price = exchange.price_to_precision(symbol, (await exchange.fetch_ticker(symbol))["last"] * factor)
    return await exchange.create_order(symbol, "limit", "buy", 1, price, {"clientOrderId": client_id})


async def of_client(exchange, symbol: str, client_id: str, **params: object):
    """Ask for an order by the id that its client gave it."""
    return await exchange.fetch_order(None, symbol, {"clientOrderId": client_id, **params})


async def test_a_cancelled_order_is_gone_after_three_days_and_one_that_rests_stays():
    """By id, by client id and in lists; what fills and what rests is found as before."""
    async with client("futures") as (venue, exchange):
        await exchange.create_order(COIN, "market", "buy", 1, None, {"clientOrderId": "filled"})
        gone = await resting(exchange, COIN, "cancelled")
        rests = await resting(exchange, COIN, "rests", 0.96)
        stop = await exchange.create_order(
            COIN, "market", "sell", 1, None, {"stopLossPrice": 1.0, "reduceOnly": True, "clientOrderId": "stop"}
        )
        await exchange.cancel_order(gone["id"], COIN)
        await exchange.cancel_order(stop["id"], COIN, {"trigger": True})
        await venue.do(op="advance", for_s=3 * DAY_S - 60)
        assert (await of_client(exchange, COIN, "cancelled"))["status"] == "canceled"
        assert (await of_client(exchange, COIN, "stop", trigger=True))["status"] == "canceled"

        await venue.do(op="advance", for_s=120)

        for ask in (
            exchange.fetch_order(gone["id"], COIN),
            of_client(exchange, COIN, "cancelled"),
            of_client(exchange, COIN, "stop", trigger=True),
        ):
            with pytest.raises(ccxt.OrderNotFound, match="-2013"):
                await ask
        assert (await of_client(exchange, COIN, "filled"))["status"] == "closed"
        assert {one["clientOrderId"] for one in await exchange.fetch_orders(COIN)} == {"filled", "rests"}
        assert [one["id"] for one in await exchange.fetch_open_orders(COIN)] == [rests["id"]]


async def test_spot_says_that_it_put_a_cancelled_order_away():
    """After ninety days, by a code of its own; what was filled is found."""
    async with client("spot") as (venue, exchange):
        await exchange.create_order(SPOT_COIN, "market", "buy", 1, None, {"newClientOrderId": "filled"})
        gone = await resting(exchange, SPOT_COIN, "cancelled")
        await exchange.cancel_order(gone["id"], SPOT_COIN)
        assert (await exchange.fetch_order(gone["id"], SPOT_COIN))["status"] == "canceled"

        for _ in range(13):
            await venue.do(op="advance", for_s=7 * DAY_S)
        with pytest.raises(ccxt.BaseError, match="-2026"):
            await exchange.fetch_order(gone["id"], SPOT_COIN)

        (filled,) = [one for one in await exchange.fetch_orders(SPOT_COIN) if one["status"] == "closed"]
        assert (await exchange.fetch_order(filled["id"], SPOT_COIN))["filled"] == 1


@pytest.mark.parametrize(
    ("status", "filled", "days"),
    [
        (OrderStatus.CANCELED, 0, 3),
        (OrderStatus.EXPIRED, 0, 3),
        (OrderStatus.CANCELED, 1, 90),
        (OrderStatus.FILLED, 2, 90),
        (OrderStatus.NEW, 0, None),
        (OrderStatus.PARTIALLY_FILLED, 1, None),
    ],
)
def test_how_long_an_order_is_kept(status, filled, days):
    """To the millisecond of its age; what is open, always."""
    order = made(Order, status, type=OrderType.LIMIT, filled=Decimal(filled), queued=1, order_id=1, client_order_id="a")

    for age in AGES:
        assert is_kept(order, age) is (days is None or age <= days * DAY_MS)
        assert is_archived(order, age) is (days == 3 and age > 90 * DAY_MS)


@pytest.mark.parametrize(
    ("status", "days"),
    [
        (AlgoStatus.CANCELED, 3),
        (AlgoStatus.EXPIRED, 3),
        (AlgoStatus.REJECTED, 3),
        (AlgoStatus.TRIGGERED, 90),
        (AlgoStatus.FINISHED, 90),
        (AlgoStatus.NEW, None),
    ],
)
def test_how_long_a_conditional_order_is_kept(status, days):
    """What has triggered is kept as what has filled; what waits, always."""
    algo = made(
        AlgoOrder,
        status,
        type=OrderType.STOP_MARKET,
        algo_id=1,
        client_algo_id="a",
        trigger_price=Decimal(9),
        close_position=False,
        working_type=WorkingType.CONTRACT_PRICE,
    )

    for age in AGES:
        assert is_algo_kept(algo, age) is (days is None or age <= days * DAY_MS)
        assert is_archived(algo, age) is (days == 3 and age > 90 * DAY_MS)


AGES = (0, 3 * DAY_MS, 3 * DAY_MS + 1, 90 * DAY_MS, 90 * DAY_MS + 1)


def made(kind, status, **fields):
    """Return an order of the first millisecond."""
    return kind(
        symbol="SOLUSDT",
        side=Side.BUY,
        quantity=Decimal(2),
        price=Decimal(10),
        time_in_force=TimeInForce.GTC,
        reduce_only=False,
        position_side=PositionSide.BOTH,
        status=status,
        created_ms=0,
        updated_ms=0,
        **fields,
    )
