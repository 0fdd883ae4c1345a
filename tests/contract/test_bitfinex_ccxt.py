"""Unmodified ccxt trades on the Bitfinex front of the sandbox over real sockets."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import ccxt
import ccxt.async_support as ccxt_rest
import ccxt.pro as ccxt_pro
import pytest

from tests.sandbox_support import API_KEY, API_SECRET, point_bitfinex, running_sandbox

COIN = "SOL/USDT:USDT"
FIVE_MINUTES = 300_000


@asynccontextmanager
async def client(url, kind=ccxt_rest, **options):
    exchange = point_bitfinex(
        kind.bitfinex({"apiKey": API_KEY, "secret": API_SECRET, "enableRateLimit": False} | options), url
    )
    try:
        await exchange.load_markets()
        yield exchange
    finally:
        await exchange.close()


async def test_market_data_is_the_other_fronts_market_data():
    """Markets, candles, tickers, book, trades, funding: the same prices as the Binance front, candles without gaps."""
    async with (
        running_sandbox(symbols=3, history_days=3, speed=1) as sandbox,
        client(sandbox.url) as exchange,
    ):
        markets = await exchange.fetch_markets()
        assert {one["id"] for one in markets} == {"tBTCF0:USTF0", "tETHF0:USTF0", "tSOLF0:USTF0"}
        assert all(one["swap"] and one["linear"] and one["settle"] == "USDT" for one in markets)
        start = (await sandbox.get("/sandbox/status"))["first_ms"]
        rows, since = [], start
        while page := await exchange.fetch_ohlcv(COIN, "5m", since=since, limit=400):
            rows.extend(page)
            since = page[-1][0] + 1
        assert [row[0] for row in rows] == list(range(start, start + len(rows) * FIVE_MINUTES, FIVE_MINUTES))
        theirs = await sandbox.get(f"/fapi/v1/klines?symbol=SOLUSDT&interval=5m&startTime={start}&limit=500")
        assert [row[:6] for row in rows[:500]] == [[k[0], *map(float, k[1:6])] for k in theirs]
        assert (await exchange.fetch_ohlcv(COIN, "5m", limit=3))[:2] == rows[-3:-1]

        ticker = await exchange.fetch_ticker(COIN)
        assert ticker["bid"] < ticker["last"] < ticker["ask"]
        assert len(await exchange.fetch_tickers()) == 3
        assert list(await exchange.fetch_tickers([COIN])) == [COIN]
        book = await exchange.fetch_order_book(COIN, 25)
        assert (len(book["bids"]), len(book["asks"])) == (25, 25)
        assert (book["bids"][0][0], book["asks"][0][0]) == (ticker["bid"], ticker["ask"])
        assert len(await exchange.fetch_trades(COIN, limit=20)) == 20
        assert (await exchange.fetch_funding_rate(COIN))["fundingRate"] is not None
        assert (await exchange.fetch_status())["status"] == "ok"
        with pytest.raises(ccxt.BadSymbol):
            await exchange.publicGetTickerSymbol({"symbol": "tNOPEF0:USTF0"})


async def test_orders_of_every_kind_and_what_becomes_of_them():
    """Market, limit, post-only, IOC, FOK, stop and reduce-only orders; amend, cancel, batch; histories."""
    async with running_sandbox(symbols=3, history_days=2, speed=1) as sandbox, client(sandbox.url) as exchange:
        last = (await exchange.fetch_ticker(COIN))["last"]
        assert (await exchange.fetch_balance({"type": "swap"}))["USDT"]["total"] == 10_000

        bought = await exchange.create_order(COIN, "market", "buy", 3, None, {"clientOrderId": 101, "lev": 5})
        assert (bought["status"], bought["clientOrderId"]) == ("open", "101")
        (closed,) = await exchange.fetch_closed_orders(COIN)
        assert (closed["id"], closed["status"], closed["filled"]) == (bought["id"], "closed", 3.0)
        (fill,) = await exchange.fetch_my_trades(COIN)
        assert (fill["order"], fill["amount"], fill["takerOrMaker"]) == (bought["id"], 3.0, "taker")
        assert fill["fee"]["cost"] == pytest.approx(fill["cost"] * 0.0005)
        assert [t["id"] for t in await exchange.fetch_order_trades(bought["id"], COIN)] == [fill["id"]]
        (position,) = await exchange.fetch_positions()
        assert (position["side"], position["leverage"], position["entryPrice"]) == ("long", 5.0, closed["average"])

        resting = await exchange.create_order(COIN, "limit", "buy", 2, last * 0.95, {"clientOrderId": 102})
        with pytest.raises(ccxt.BaseError, match="duplicate cid"):
            await exchange.create_order(COIN, "limit", "buy", 2, last * 0.95, {"clientOrderId": 102})
        edited = await exchange.edit_order(resting["id"], COIN, "limit", "buy", 1, last * 0.94)
        assert edited["amount"] == 1.0
        assert (await exchange.fetch_order(resting["id"], COIN))["remaining"] == 1.0
        day = exchange.iso8601(resting["timestamp"])[:10]
        by_cid = {"cid": 102, "cid_date": day}
        assert [str(row[0]) for row in await exchange.privatePostAuthROrders(by_cid)] == [resting["id"]]
        assert await exchange.privatePostAuthROrders(by_cid | {"cid_date": "2020-01-01"}) == []

        taken = {"price": last * 1.05, "side": "buy", "type": "limit", "amount": 1}
        for params, status in (
            ({"postOnly": True}, "POSTONLY CANCELED"),
            ({"timeInForce": "IOC"}, "EXECUTED"),
            ({"timeInForce": "FOK"}, "EXECUTED"),
        ):
            one = await exchange.create_order(COIN, **taken, params=params)
            (found,) = await exchange.privatePostAuthROrdersHist({"id": [int(one["id"])]})
            assert found[13].startswith(status)

        stop = await exchange.create_order(
            COIN, "market", "sell", 5, None, {"triggerPrice": last * 0.9, "reduceOnly": True, "clientOrderId": 103}
        )
        assert {one["id"] for one in await exchange.fetch_open_orders(COIN)} == {resting["id"], stop["id"]}
        assert stop["info"][8] == "STOP"
        assert int(stop["info"][12]) == 1024
        await exchange.cancel_order(resting["id"])
        with pytest.raises(ccxt.OrderNotFound):
            await exchange.cancel_order(resting["id"])
        await exchange.privatePostAuthWOrderCancel({"cid": 103, "cid_date": day})
        assert await exchange.fetch_open_orders() == []

        out = await exchange.create_order(COIN, "market", "sell", 9, None, {"reduceOnly": True})
        assert (await exchange.fetch_closed_orders(COIN, limit=1))[0]["id"] == out["id"]
        assert await exchange.fetch_positions() == []
        with pytest.raises(ccxt.BaseError, match="nothing to reduce"):
            await exchange.create_order(COIN, "market", "sell", 9, None, {"reduceOnly": True})
        with pytest.raises(ccxt.BaseError, match="not enough tradable balance"):
            await exchange.create_order(COIN, "market", "buy", 15_000)

        several = await exchange.create_orders(
            [{"symbol": COIN, "type": "limit", "side": "buy", "amount": n, "price": last * 0.9} for n in (1, 2)]
        )
        assert [one["amount"] for one in several] == [1.0, 2.0]
        assert len(await exchange.cancel_all_orders()) == 2


async def test_the_ledger_explains_the_wallet():
    """Every fee and profit is a row, the newest first, and its balance is the wallet's."""
    async with running_sandbox(symbols=1, history_days=2, speed=1) as sandbox, client(sandbox.url) as exchange:
        for side in ("buy", "sell"):
            await exchange.create_order("BTC/USDT:USDT", "market", side, 0.01)
        wallet = (await exchange.fetch_balance({"type": "swap"}))["USDT"]["total"]
        rows = await exchange.privatePostAuthRLedgersHist()
        assert rows[0][6] == wallet
        assert 10_000 + sum(row[5] for row in rows) == pytest.approx(wallet)
        assert {one["type"] for one in await exchange.fetch_ledger()} == {"fee", "trade"}
        assert len(await exchange.privatePostAuthRLedgersCurrencyHist({"currency": "USTF0", "category": 201})) == 2


async def test_a_stop_keeps_its_number_when_it_is_triggered():
    """A stop that the market reaches becomes a market order under the same id and cid, and its fill names it."""
    async with running_sandbox(symbols=3, history_days=2, speed=600) as sandbox, client(sandbox.url) as exchange:
        await exchange.create_order(COIN, "market", "buy", 3)
        last = (await exchange.fetch_ticker(COIN))["last"]
        params = {"triggerPrice": last * 0.9995, "reduceOnly": True, "clientOrderId": 7}
        stop = await exchange.create_order(COIN, "market", "sell", 3, None, params)
        async with asyncio.timeout(120):
            while await exchange.fetch_open_orders():  # noqa: ASYNC110 - the venue is asked, nothing here wakes us
                await asyncio.sleep(0.1)
        (found,) = await exchange.privatePostAuthROrdersHist({"id": [int(stop["id"])]})
        fills = await exchange.fetch_my_trades(COIN)
        assert found[8:10] == ["MARKET", "STOP"]
        assert found[13].startswith("EXECUTED")
        assert int(found[2]) == 7
        assert fills[-1]["order"] == stop["id"]
        assert await exchange.fetch_positions() == []


async def test_wrong_signatures_and_old_nonces_are_refused():
    """A wrong secret, a wrong key and a nonce that does not grow are refused by number, and nothing comes of them."""
    async with running_sandbox(symbols=1, history_days=2, speed=1) as sandbox:
        async with client(sandbox.url, secret="wrong") as exchange:
            with pytest.raises(ccxt.AuthenticationError, match="digest invalid"):
                await exchange.fetch_balance()
        async with client(sandbox.url, apiKey="wrong") as exchange:
            with pytest.raises(ccxt.AuthenticationError, match="apikey: invalid"):
                await exchange.fetch_balance()
        async with client(sandbox.url) as first, client(sandbox.url) as second:
            await first.fetch_balance()
            second.incrementing_nonce = lambda: first.options["lastNonce"]
            with pytest.raises(ccxt.InvalidNonce, match="nonce: small"):
                await second.create_order("BTC/USDT:USDT", "market", "buy", 0.01)
            second.incrementing_nonce = lambda: first.options["lastNonce"] + 1
            assert await second.fetch_positions() == []
        async with client(sandbox.url, ccxt_pro, secret="wrong") as exchange:
            with pytest.raises(ccxt.AuthenticationError, match="digest invalid"):
                await asyncio.wait_for(exchange.watch_orders(), 20)


async def test_limits_maintenance_and_faults_speak_bitfinex():
    """A rate limit is 429 with 11010, maintenance 20060, and an order executed with its answer lost is there."""
    async with running_sandbox(symbols=1, history_days=2, speed=1) as sandbox, client(sandbox.url) as exchange:
        btc = "BTC/USDT:USDT"
        fault = {"op": "fault", "path": "/order/submit", "method": "POST", "times": 1}
        await sandbox.ctl(**fault, action="exec_then_drop")
        with pytest.raises(ccxt.NetworkError):
            await exchange.create_order(btc, "market", "buy", 0.01, None, {"clientOrderId": 11})
        assert [one["clientOrderId"] for one in await exchange.fetch_closed_orders(btc)] == ["11"]
        await sandbox.ctl(**fault, action="status", status=429)
        with pytest.raises(ccxt.RateLimitExceeded, match="11010"):
            await exchange.create_order(btc, "market", "buy", 0.01)
        await sandbox.ctl(op="maintenance", on=True)
        with pytest.raises(ccxt.OnMaintenance):
            await exchange.create_order(btc, "market", "buy", 0.01)
        assert (await exchange.fetch_status())["status"] == "maintenance"


async def test_streams_of_market_and_account():
    """Candles, ticker, checked book and trades stream; the account's channel tells order, execution and wallet."""
    async with (
        running_sandbox(symbols=3, history_days=2, speed=60) as sandbox,
        client(sandbox.url, ccxt_pro) as exchange,
    ):
        async with asyncio.timeout(60):
            orders = asyncio.create_task(exchange.watch_orders())
            fills = asyncio.create_task(exchange.watch_my_trades())
            wallet = asyncio.create_task(exchange.watch_balance({"wallet": "margin"}))
            await asyncio.sleep(0.5)
            sent = await exchange.create_order(COIN, "market", "buy", 3, None, {"clientOrderId": 5})
            assert (await orders)[-1]["id"] == sent["id"]
            (fill,) = await fills
            assert (fill["order"], fill["amount"], fill["symbol"]) == (sent["id"], 3.0, COIN)
            assert 9_990 < (await wallet)["USDT"]["total"] < 10_000
            while exchange.orders[-1]["status"] != "closed":
                await exchange.watch_orders()

            assert (await exchange.watch_ticker(COIN))["last"] > 0
            opened = set()
            while len(opened) < 4:
                opened |= {row[0] for row in await exchange.watch_ohlcv(COIN, "1m")}
            # Pages of a hundred checked books: a wrong checksum would raise.
            for _ in range(40):
                book = await exchange.watch_order_book(COIN)
            assert book["bids"][0][0] < book["asks"][0][0] or len(book["bids"]) < 25
            assert len(await exchange.watch_trades(COIN)) > 0
            assert exchange.clients[exchange.urls["api"]["ws"]["public"]].subscriptions["book:tSOLF0:USTF0"]["checksum"]


async def test_candles_of_the_stream_are_those_of_rest():
    """Every candle that the stream finished equals what REST says of it afterwards."""
    async with (
        running_sandbox(symbols=3, history_days=2, speed=120) as sandbox,
        client(sandbox.url, ccxt_pro) as exchange,
    ):
        heard = {}
        async with asyncio.timeout(60):
            while len(heard) < 5:
                for row in await exchange.watch_ohlcv(COIN, "1m"):
                    heard[row[0]] = row
                    heard = {opened: heard[opened] for opened in sorted(heard)[-8:]}
        first, *finished, _ = sorted(heard)
        rest = {row[0]: row for row in await exchange.fetch_ohlcv(COIN, "1m", since=first, limit=20)}
        assert [heard[opened] for opened in finished] == [rest[opened] for opened in finished]


async def test_latency_and_stale_reads_hold_for_this_front_too():
    """An order takes as long to arrive as the rules say, and a copy that lags denies it for a while."""
    async with running_sandbox(symbols=1, history_days=2, speed=1) as sandbox, client(sandbox.url) as exchange:
        btc = "BTC/USDT:USDT"
        await sandbox.ctl(op="rules", insert_ms=300)
        before = (await sandbox.get("/sandbox/status"))["now_ms"]
        one = await exchange.create_order(btc, "market", "buy", 0.01, None, {"clientOrderId": 3})
        assert one["timestamp"] >= before + 300
        with pytest.raises(ccxt.BaseError, match="duplicate cid"):
            await exchange.create_order(btc, "market", "buy", 0.01, None, {"clientOrderId": 3})
        await sandbox.ctl(op="rules", insert_ms=0)
        await sandbox.ctl(op="stale_reads", secs=60)
        assert await exchange.fetch_closed_orders(btc) == []
        assert len(await exchange.fetch_positions()) == 1
        await sandbox.ctl(op="stale_reads", on=False)
        assert [found["id"] for found in await exchange.fetch_closed_orders(btc)] == [one["id"]]


async def test_an_account_outlives_its_venue(tmp_path):
    """Stopped and started again, the venue knows orders by their numbers, and a number of today stays taken."""
    btc, stop = "BTC/USDT:USDT", {"triggerPrice": 1000, "clientOrderId": 9, "reduceOnly": True}
    options = {"symbols": 1, "history_days": 2, "speed": 1, "state": tmp_path}
    async with running_sandbox(**options) as sandbox, client(sandbox.url) as exchange:
        await exchange.create_order(btc, "market", "buy", 0.01, None, {"clientOrderId": 8})
        stop["triggerPrice"] = (await exchange.fetch_ticker(btc))["last"] * 0.9
        held = await exchange.create_order(btc, "market", "sell", 0.01, None, stop)
    async with running_sandbox(**options) as sandbox, client(sandbox.url) as exchange:
        (found,) = await exchange.fetch_open_orders(btc)
        assert (found["id"], found["clientOrderId"]) == (held["id"], "9")
        with pytest.raises(ccxt.BaseError, match="duplicate cid"):
            await exchange.create_order(btc, "market", "buy", 0.01, None, {"clientOrderId": 8})


async def test_the_account_s_channel_tells_each_turn_of_a_position():
    """Snapshots first; then a position is new, updated and closed, beside its orders, executions and the wallet."""
    async with (
        running_sandbox(symbols=1, history_days=2, speed=1) as sandbox,
        client(sandbox.url, ccxt_pro) as exchange,
    ):
        btc, heard = "BTC/USDT:USDT", []
        pass_on = exchange.handle_message

        def take(receiver, message):
            if isinstance(message, list):
                heard.append(message[1])
            pass_on(receiver, message)

        exchange.handle_message = take
        async with asyncio.timeout(30):
            await exchange.authenticate()
            for side in ("buy", "buy", "sell"):
                amount = 0.02 if side == "sell" else 0.01
                await exchange.create_order(btc, "market", side, amount)
            while heard.count("tu") < 3:  # noqa: ASYNC110 - the stream is waited for
                await asyncio.sleep(0.02)
    turn = ["on", "te", "oc", "tu", "wu"]
    assert heard[:3] == ["ps", "ws", "os"]
    assert [kind for kind in heard if kind in ("pn", "pu", "pc")] == ["pn", "pu", "pc"]
    assert sorted(kind for kind in heard[3:] if kind not in ("pn", "pu", "pc")) == sorted(turn * 3)
