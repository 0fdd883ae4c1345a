"""What ccxt makes of the venue where it surprises, seen at the sandbox: the worker is built around each of these."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import ccxt
import ccxt.pro
import pytest

from feature_store.clock import monotonic
from tests.contract.test_sandbox_ccxt import client
from tests.sandbox_support import ccxt_options, point, running_sandbox

COIN = "SOL/USDT:USDT"


@asynccontextmanager
async def streaming(**options: object):
    """Start a sandbox and a ccxt.pro client of it."""
    async with running_sandbox(symbols=3, history_days=1, **options) as sandbox:
        exchange = point(ccxt.pro.binanceusdm(ccxt_options()), sandbox.url)
        try:
            await exchange.load_markets()
            yield sandbox, exchange
        finally:
            await exchange.close()


async def forever(watch, symbol: str) -> None:
    """Watch until it fails."""
    while True:
        await watch(symbol)


async def test_a_client_id_protects_only_while_its_order_is_open():
    """While it rests a second one is -4116; once it has filled, the same id executes again (G4)."""
    async with running_sandbox(symbols=3, history_days=1) as sandbox, client(sandbox.url) as exchange:
        low = (await exchange.fetch_ticker(COIN))["last"] * 0.95
        await exchange.create_order(COIN, "limit", "buy", 1, low, {"clientOrderId": "same"})
        with pytest.raises(ccxt.InvalidOrder, match="-4116"):
            await exchange.create_order(COIN, "market", "buy", 1, None, {"clientOrderId": "same"})
        await exchange.cancel_all_orders(COIN)

        for _ in range(2):
            order = await exchange.create_order(COIN, "market", "buy", 1, None, {"clientOrderId": "same"})
            assert order["status"] == "closed"

        (position,) = await exchange.fetch_positions([COIN])
        assert position["contracts"] == 2.0


async def test_codes_of_futures_keep_their_class_only_where_they_were_merged():
    """An unmodified client at another address makes a plain error of -2022; with the merge it is InvalidOrder (G1)."""
    async with running_sandbox(symbols=3, history_days=1) as sandbox, client(sandbox.url) as exchange:
        with pytest.raises(ccxt.InvalidOrder, match="-2022"):
            await exchange.create_order(COIN, "market", "sell", 1, None, {"reduceOnly": True})
        exchange.exceptions["exact"].pop("-2022")
        with pytest.raises(ccxt.ExchangeError, match="-2022") as plain:
            await exchange.create_order(COIN, "market", "sell", 1, None, {"reduceOnly": True})
        assert type(plain.value) is ccxt.ExchangeError


@pytest.mark.parametrize(
    ("fault", "error", "is_network"),
    [
        ({"status": 503, "code": -1000}, ccxt.OperationFailed, False),
        ({"status": 408, "code": -1007}, ccxt.OperationFailed, True),
        ({"status": 503, "code": -1008}, ccxt.OperationFailed, False),
        ({"status": 400, "code": -1021}, ccxt.InvalidNonce, True),
        ({"status": 403, "body": "<html>"}, ccxt.ExchangeNotAvailable, True),
        ({"status": 451, "body": "<html>"}, ccxt.ExchangeNotAvailable, True),
        ({"status": 504, "body": ""}, ccxt.RequestTimeout, True),
        ({"status": 502, "body": ""}, ccxt.ExchangeNotAvailable, True),
        ({"status": 429, "body": ""}, ccxt.DDoSProtection, True),
        ({"status": 418, "body": ""}, ccxt.DDoSProtection, True),
    ],
    ids=lambda one: str(one.get("code", one.get("status"))) if isinstance(one, dict) else "",
)
async def test_retry_classes_are_not_what_they_look_like(fault, error, is_network):
    """What may have executed is not always a NetworkError, and what must not be retried sometimes is one (G2)."""
    async with running_sandbox(symbols=3, history_days=1) as sandbox, client(sandbox.url) as exchange:
        await sandbox.ctl(op="fault", method="POST", path="/fapi/v1/order", times=1, **fault)

        with pytest.raises(error) as raised:
            await exchange.create_order(COIN, "market", "buy", 1)

        assert isinstance(raised.value, ccxt.NetworkError) is is_network


async def test_an_older_candle_becomes_the_newest_of_the_cache():
    """One stale frame stands last in ccxt's cache: whoever reads [-1] reads the past (G11)."""
    async with streaming() as (sandbox, exchange):
        newest = (await exchange.watch_ohlcv(COIN, "1m"))[-1][0]
        stale = {"t": newest - 600_000, "T": newest - 540_001, "s": "SOLUSDT", "i": "1m", "f": 1, "L": 1, "o": "1",
                 "c": "1", "h": "1", "l": "1", "v": "1", "n": 1, "x": True, "q": "1", "V": "1", "Q": "1",
                 "B": "0"}  # fmt: skip
        frame = {"e": "kline", "E": newest, "s": "SOLUSDT", "k": stale}
        cache = exchange.ohlcvs[COIN]["1m"]
        await sandbox.ctl(op="push", frame=json.dumps(frame), to="market")

        async with asyncio.timeout(20):
            while cache[-1][0] != newest - 600_000:
                await exchange.watch_ohlcv(COIN, "1m")

        assert max(one[0] for one in cache) >= newest


async def test_a_hole_in_the_book_is_an_error_and_a_fresh_start():
    """A depth update that follows on nothing raises ChecksumError; after a sleep the book is there again (G13, 18)."""
    async with streaming() as (sandbox, exchange):
        book = await exchange.watch_order_book(COIN)
        lost = int(book["nonce"]) + 1000
        frame = {"e": "depthUpdate", "E": 1, "T": 1, "s": "SOLUSDT", "U": lost, "u": lost + 1, "pu": lost - 1,
                 "b": [], "a": []}  # fmt: skip
        await sandbox.ctl(op="push", frame=json.dumps(frame), to="market")
        async with asyncio.timeout(30):
            with pytest.raises(ccxt.ChecksumError):
                await forever(exchange.watch_order_book, COIN)
            again = None
            while again is None:
                await asyncio.sleep(0.05)
                try:
                    again = await exchange.watch_order_book(COIN)
                except ccxt.ChecksumError:
                    continue

        assert again["bids"][0][0] < again["asks"][0][0]


async def test_the_stream_of_balances_knows_the_total_alone():
    """A balance that was watched has no free and no used part; one that was asked for has (G14)."""
    async with streaming() as (sandbox, exchange):
        del sandbox
        watching = asyncio.create_task(exchange.watch_balance())
        await asyncio.sleep(0.5)
        await exchange.create_order(COIN, "market", "buy", 1)

        watched = await asyncio.wait_for(watching, 20)
        asked = await exchange.fetch_balance()

        assert watched["USDT"]["total"] > 0
        assert watched["USDT"]["free"] is None
        assert asked["USDT"]["free"] > 0


async def test_a_quantity_below_its_step_does_not_leave_the_client():
    """Such a quantity ccxt refuses by itself; only the implicit call shows what the venue says of it (G16)."""
    async with running_sandbox(symbols=3, history_days=1) as sandbox, client(sandbox.url) as exchange:
        await sandbox.ctl(op="log", on=True)
        with pytest.raises(ccxt.InvalidOrder, match="precision"):
            await exchange.create_order(COIN, "market", "buy", 0.0001)
        with pytest.raises(ccxt.BadRequest, match="-1111"):
            await exchange.fapiPrivatePostOrder(
                {"symbol": "SOLUSDT", "side": "BUY", "type": "MARKET", "quantity": "0.0001"}
            )


async def test_open_orders_of_all_symbols_are_a_warning_that_is_raised():
    """Asked without a symbol ccxt raises, unless it was told not to (G17)."""
    async with running_sandbox(symbols=3, history_days=1) as sandbox, client(sandbox.url) as exchange:
        assert await exchange.fetch_open_orders() == []
        exchange.options["fetchOpenOrders"]["warnWithoutSymbol"] = True
        with pytest.raises(ccxt.ExchangeError, match="without specifying a symbol"):
            await exchange.fetch_open_orders()


async def test_the_clients_own_limiter_slows_orders_down():
    """With ccxt's limiter on, five orders take longer than half a second; the venue asks for no such thing (G18)."""
    async with running_sandbox(symbols=3, history_days=1) as sandbox:
        exchange = point(ccxt.pro.binanceusdm(ccxt_options() | {"enableRateLimit": True}), sandbox.url)
        try:
            await exchange.load_markets()
            began = monotonic()
            for _ in range(5):
                await exchange.create_order(COIN, "market", "buy", 1)
            assert monotonic() - began > 0.5
        finally:
            await exchange.close()
