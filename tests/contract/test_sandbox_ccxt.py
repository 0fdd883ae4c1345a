"""Unmodified ccxt trades on the sandbox over real sockets."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress

import ccxt
import ccxt.async_support as ccxt_rest
import ccxt.pro as ccxt_pro
import pytest

from tests.sandbox_support import ccxt_options, point, running_sandbox

COIN = "SOL/USDT:USDT"
FIVE_MINUTES = 300_000


@asynccontextmanager
async def client(url, kind=ccxt_rest, **options):
    exchange = point(kind.binanceusdm(ccxt_options() | options), url)
    try:
        await exchange.load_markets()
        yield exchange
    finally:
        await exchange.close()


async def test_market_data_has_no_gaps_and_one_truth():
    """Klines page without gap or overlap, a larger timeframe agrees, and tickers, book and trades are there."""
    async with running_sandbox(symbols=3, history_days=5) as sandbox, client(sandbox.url) as exchange:
        start = (await sandbox.get("/sandbox/status"))["first_ms"]
        rows, since = [], start
        while True:
            page = await exchange.fetch_ohlcv(COIN, "5m", since=since, limit=400)
            rows.extend(page)
            if len(page) < 400:
                break
            since = page[-1][0] + 1
        times = [row[0] for row in rows]
        assert times == list(range(start, start + len(times) * FIVE_MINUTES, FIVE_MINUTES))
        assert len(times) > 5 * 288

        hours = await exchange.fetch_ohlcv(COIN, "1h", since=start, limit=10)
        for number, hour in enumerate(hours):
            part = rows[number * 12 : number * 12 + 12]
            assert hour[1:5] == [part[0][1], max(r[2] for r in part), min(r[3] for r in part), part[-1][4]]
            assert hour[5] == pytest.approx(sum(r[5] for r in part))

        book = await exchange.fetch_order_book(COIN, 20)
        assert book["bids"][0][0] < book["asks"][0][0]
        assert len(await exchange.fetch_tickers()) == 3
        assert len(await exchange.fetch_trades(COIN, limit=50)) == 50
        assert (await exchange.fetch_funding_rate(COIN))["fundingRate"] is not None
        assert (await exchange.fetch_leverage_tiers([COIN]))[COIN][0]["maxLeverage"] == 50


async def test_account_orders_and_positions():
    """Leverage, margin mode, every plain order type, amendment, batch, cancel and their histories work."""
    async with running_sandbox(symbols=3, history_days=2) as sandbox, client(sandbox.url) as exchange:
        await exchange.set_leverage(5, COIN)
        assert (await exchange.fetch_leverage(COIN))["longLeverage"] == 5
        await exchange.set_margin_mode("isolated", COIN)
        with pytest.raises(ccxt.MarginModeAlreadySet):
            await exchange.set_margin_mode("isolated", COIN)
        await exchange.set_margin_mode("cross", COIN)
        with pytest.raises(ccxt.OperationRejected):
            await exchange.set_position_mode(hedged=False)

        last = (await exchange.fetch_ticker(COIN))["last"]
        far = exchange.price_to_precision(COIN, last * 0.95)
        bought = await exchange.create_order(COIN, "market", "buy", 3, None, {"clientOrderId": "entry-1"})
        assert (bought["status"], bought["filled"]) == ("closed", 3.0)
        resting = await exchange.create_order(COIN, "limit", "buy", 2, far, {"clientOrderId": "rest-1"})
        with pytest.raises(ccxt.InvalidOrder, match="-4116"):
            await exchange.create_order(COIN, "limit", "buy", 2, far, {"clientOrderId": "rest-1"})
        edited = await exchange.edit_order(resting["id"], COIN, "limit", "buy", 1, far)
        assert edited["amount"] == 1.0
        assert [one["id"] for one in await exchange.fetch_open_orders(COIN)] == [resting["id"]]
        assert (await exchange.fetch_order(None, COIN, {"clientOrderId": "rest-1"}))["id"] == resting["id"]
        await exchange.cancel_order(resting["id"], COIN)
        with pytest.raises(ccxt.OrderNotFound):
            await exchange.cancel_order(resting["id"], COIN)

        batch = await exchange.create_orders(
            [
                {"symbol": COIN, "type": "limit", "side": "buy", "amount": 1, "price": float(far)},
                {"symbol": COIN, "type": "limit", "side": "buy", "amount": 1, "price": float(far) * 0.5},
            ]
        )
        assert {one["status"] for one in batch} >= {"open"}
        await exchange.cancel_all_orders(COIN)
        assert await exchange.fetch_open_orders(COIN) == []

        (position,) = await exchange.fetch_positions([COIN])
        assert (position["contracts"], position["side"]) == (3.0, "long")
        (trade,) = await exchange.fetch_my_trades(COIN)
        assert trade["fee"]["cost"] == pytest.approx(trade["cost"] * 0.0005)
        await exchange.create_order(COIN, "market", "sell", 3, None, {"reduceOnly": True})
        assert await exchange.fetch_positions([COIN]) == []
        balance = await exchange.fetch_balance()
        assert balance["USDT"]["free"] == balance["USDT"]["total"] < 10_000
        audit = await sandbox.get("/sandbox/audit")
        assert (audit["closed_trades"], audit["fills"], audit["duplicate_client_ids"]) == (1, 2, [])


@pytest.mark.parametrize(
    ("order", "error"),
    [
        pytest.param((COIN, "market", "sell", 3, None, {"reduceOnly": True}), ccxt.InvalidOrder, id="2022"),
        pytest.param((COIN, "market", "buy", 3_000, None, {}), ccxt.InsufficientFunds, id="2019"),
        pytest.param(
            (COIN, "market", "sell", 3, None, {"stopLossPrice": 100_000, "reduceOnly": True}),
            ccxt.OrderImmediatelyFillable,
            id="2021",
        ),
    ],
)
async def test_errors_arrive_as_the_classes_of_the_live_venue(order, error):
    """The worker learns the right exceptions: codes map to ccxt's classes."""
    async with running_sandbox(symbols=3, history_days=1) as sandbox, client(sandbox.url) as exchange:
        with pytest.raises(error):
            await exchange.create_order(*order)


async def test_requests_are_authenticated():
    """A wrong secret, a wrong key and a stale timestamp are refused as the live venue refuses them."""
    async with running_sandbox(symbols=1, history_days=1) as sandbox:
        async with client(sandbox.url, secret="wrong") as exchange:
            with pytest.raises(ccxt.AuthenticationError, match="-1022"):
                await exchange.fetch_balance()
        async with client(sandbox.url, apiKey="wrong") as exchange:
            with pytest.raises(ccxt.AuthenticationError, match="-2015"):
                await exchange.fetch_balance()
        async with client(sandbox.url) as exchange:
            exchange.nonce = lambda: exchange.milliseconds() - 60_000
            with pytest.raises(ccxt.InvalidNonce):
                await exchange.fetch_balance()


async def test_venue_time_and_wall_time_are_both_good_stamps():
    """A client that stamps with the venue's time and one that stamps with its own clock are both let in."""
    async with running_sandbox(symbols=1, history_days=1, speed=60) as sandbox, client(sandbox.url) as exchange:
        assert await exchange.fetch_balance()
        await exchange.load_time_difference()
        assert await exchange.fetch_balance()
        await asyncio.sleep(1)
        assert await exchange.fetch_balance()


async def test_stop_triggers_and_the_user_stream_tells():
    """A stop that is reached sends a child under the same client id; the stream reports it and the position is flat."""
    async with (
        running_sandbox(symbols=3, history_days=2, speed=600) as sandbox,
        client(sandbox.url, ccxt_pro) as exchange,
    ):
        # What watch_orders returns leaves out what came between two calls; what ccxt has kept is whole.
        following = asyncio.create_task(follow(exchange))
        try:
            await until(lambda: any("listenKey" in url and one.isConnected for url, one in exchange.clients.items()))
            await exchange.create_order(COIN, "market", "buy", 3)
            stop = await guarded(exchange, "stopLossPrice", 0.997, "guard")
            target = await guarded(exchange, "takeProfitPrice", 1.003, "goal")
            ids = {stop["clientOrderId"]: stop, target["clientOrderId"]: target}
            await until(lambda: filled(exchange) & ids.keys())
            winner = ids[(filled(exchange) & ids.keys()).pop()]
            loser = target if winner is stop else stop
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        algo = await exchange.fetch_order(winner["id"], COIN, {"trigger": True})
        child = await exchange.fetch_order(algo["info"]["actualOrderId"], COIN)

        assert (child["status"], child["filled"]) == ("closed", 3.0)
        assert child["clientOrderId"] == winner["clientOrderId"]
        assert await exchange.fetch_positions([COIN]) == []
        # The venue does not cancel the other one. By now the market may have reached it too, in vain.
        orphans = await exchange.fetch_open_orders(COIN, params={"trigger": True})
        other = await exchange.fetch_order(loser["id"], COIN, {"trigger": True})
        assert [one["id"] for one in orphans] in ([loser["id"]], [])
        assert other["info"]["algoStatus"] != "CANCELED"
        await exchange.cancel_all_orders(COIN, {"trigger": True})
        audit = await sandbox.get("/sandbox/audit")
        assert audit["closed_trades"] == 1
        assert audit["open_positions"] == []


async def follow(exchange) -> None:
    """Keep the account's stream open."""
    while True:
        await exchange.watch_orders()


async def guarded(exchange, kind: str, factor: float, name: str) -> dict:
    """Place a conditional order a little off the market, again where the market was there first."""
    for attempt in range(50):
        price = exchange.price_to_precision(COIN, (await exchange.fetch_ticker(COIN))["last"] * factor)
        settings = {kind: price, "reduceOnly": True, "clientOrderId": f"{name}-{attempt}"}
        with suppress(ccxt.OrderImmediatelyFillable):
            return await exchange.create_order(COIN, "market", "sell", 3, None, settings)
    raise AssertionError("The market was always faster")


def filled(exchange) -> set[str]:
    """Return the client ids of executed orders; a conditional order is not its child, and says nothing of fills."""
    return {one["clientOrderId"] for one in exchange.orders or () if "x" in one["info"] and one["filled"] == 3.0}


async def until(holds) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(200):
        while not holds():  # noqa: ASYNC110 - ccxt tells nobody
            await asyncio.sleep(0.02)


async def test_streams_of_market_data_reach_ccxt_pro():
    """Candles, tickers, trades, book and mark price arrive through ccxt.pro's own subscriptions."""
    async with running_sandbox(symbols=3, history_days=2) as sandbox, client(sandbox.url, ccxt_pro) as exchange:
        async with asyncio.timeout(200):
            candles = await exchange.watch_ohlcv_for_symbols([[COIN, "1m"], ["BTC/USDT:USDT", "1m"]])
            assert set(candles) <= {COIN, "BTC/USDT:USDT"}
            assert (await exchange.watch_ticker(COIN))["last"] > 0
            assert (await exchange.watch_trades(COIN))[-1]["price"] > 0
            for _ in range(3):
                book = await exchange.watch_order_book(COIN)
            assert book["bids"][0][0] < book["asks"][0][0]
            assert (await exchange.watch_mark_price(COIN))["markPrice"] > 0
