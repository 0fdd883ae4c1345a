"""Which ways of sending an order double it, at the sandbox over the real ccxt: only one of three executes each once."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress

import ccxt.async_support as ccxt
import pytest

from feature_store.clock import monotonic
from infra.prove.own_venue import own_venue
from tests.sandbox_support import ccxt_options, point

COIN = "BTC/USDT:USDT"
WINDOW_MS = 1_000
EXECUTED = {"action": "exec_then_drop"}
LATE = {"action": "late_exec", "secs": 0.5, "status": 503, "code": -1007}
PAGE = {"action": "exec_then_status", "status": 200, "body": "<html>"}
NEVER = {"action": "drop"}


@asynccontextmanager
async def trading(*, fault):
    """Start a venue at which the first order meets a fault, and a client of it."""
    async with own_venue() as venue:
        exchange = point(ccxt.binanceusdm(ccxt_options()), venue.url)
        try:
            await exchange.load_markets()
            await exchange.load_time_difference()
            await venue.do(op="fault", method="POST", path="/fapi/v1/order", times=1, **fault)
            yield venue, exchange
        finally:
            await exchange.close()


async def send(exchange) -> bool:
    """Send the order once and say whether its answer is one."""
    given = {"clientOrderId": "one", "recvWindow": WINDOW_MS, "timestamp": exchange.nonce()}
    order = await exchange.create_order(COIN, "market", "buy", 0.01, None, given)
    return bool(order["id"] and order["status"])


async def retrying(exchange) -> None:
    """Send again under the same id until an answer comes."""
    while True:
        with suppress(ccxt.OperationFailed):
            if await send(exchange):
                return


async def asking_first(exchange) -> None:
    """Send again under the same id as soon as the venue says that it knows of none."""
    while True:
        with suppress(ccxt.OperationFailed):
            if await send(exchange):
                return
        with suppress(ccxt.OrderNotFound):
            await exchange.fetch_order(None, COIN, {"clientOrderId": "one"})
            return


async def outwaiting(exchange) -> None:
    """Send again only once the venue knows of none and the request before can no longer be executed."""
    while True:
        sent = monotonic()
        with suppress(ccxt.OperationFailed):
            if await send(exchange):
                return
        while True:
            is_void = monotonic() - sent > WINDOW_MS / 1000 + 0.5
            try:
                await exchange.fetch_order(None, COIN, {"clientOrderId": "one"})
            except ccxt.OrderNotFound:
                if is_void:
                    break
            else:
                return
            await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    ("policy", "fault", "executions"),
    [
        pytest.param(retrying, NEVER, 1, id="retry-what-never-was"),
        pytest.param(retrying, EXECUTED, 2, id="retry-doubles-what-was-executed"),
        pytest.param(retrying, PAGE, 2, id="retry-doubles-behind-a-page"),
        pytest.param(retrying, LATE, 2, id="retry-doubles-what-comes-late"),
        pytest.param(asking_first, EXECUTED, 1, id="asking-finds-what-was-executed"),
        pytest.param(asking_first, LATE, 2, id="asking-doubles-what-comes-late"),
        pytest.param(outwaiting, NEVER, 1, id="outwait-what-never-was"),
        pytest.param(outwaiting, EXECUTED, 1, id="outwait-what-was-executed"),
        pytest.param(outwaiting, PAGE, 1, id="outwait-a-page"),
        pytest.param(outwaiting, LATE, 1, id="outwait-what-comes-late"),
    ],
)
async def test_only_asking_and_outwaiting_executes_each_order_once(policy, fault, executions):
    """An id protects from nothing once its order has filled, and a no from the venue is none while a request lives."""
    async with trading(fault=fault) as (venue, exchange):
        await asyncio.wait_for(policy(exchange), 60)
        # What comes late has come by then.
        await asyncio.sleep(0.7)
        (position,) = await exchange.fetch_positions([COIN])

        assert position["contracts"] == pytest.approx(0.01 * executions)
        assert len(venue.audit()["duplicate_client_ids"]) == executions - 1


async def test_a_request_that_reaches_the_venue_after_its_window_is_void():
    """What comes later than its window lets it is refused, so that outwaiting it is enough."""
    async with trading(fault=LATE | {"secs": 2.0}) as (venue, exchange):
        with pytest.raises(ccxt.OperationFailed):
            await send(exchange)
        await asyncio.sleep(2.5)

        assert venue.audit()["fills"] == 0
