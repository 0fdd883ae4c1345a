"""Unmodified ccxt trades on the sandbox's spot over real sockets, and contracts by orders over a WebSocket."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from decimal import Decimal

import aiohttp
import ccxt
import ccxt.async_support as ccxt_rest
import ccxt.pro as ccxt_pro
import pytest

from tests.sandbox_support import API_KEY, API_SECRET, ccxt_options, point, point_spot, running_sandbox

COIN = "SOL/USDT"
FIVE_MINUTES = 300_000
ORDER = {"op": "fault", "method": "POST", "path": "/api/v3/order", "times": 1}


@asynccontextmanager
async def client(url, kind=ccxt_rest, *, types=("spot",), **changes):
    """Yield a client of ccxt's class `binance`, of spot unless told otherwise."""
    options = {"fetchCurrencies": False, "adjustForTimeDifference": True, "fetchMarkets": {"types": list(types)}}
    keys = {"apiKey": API_KEY, "secret": API_SECRET, "enableRateLimit": False, "options": options}
    exchange = point_spot(kind.binance(keys | changes), url)
    try:
        await exchange.load_markets()
        yield exchange
    finally:
        await exchange.close()


async def test_market_data_is_that_of_the_contracts():
    """Markets with spot's filters; candles, tickers, book and trades are the contracts' own, page by page."""
    async with (
        running_sandbox(symbols=3, history_days=3, speed=1) as sandbox,
        client(sandbox.url, types=("spot", "linear", "inverse")) as exchange,
    ):
        market = exchange.markets[COIN]
        assert (market["spot"], market["contract"]) == (True, False)
        assert market["limits"]["cost"]["min"] == 5.0
        kinds = {one["filterType"] for one in market["info"]["filters"]}
        assert kinds >= {"PRICE_FILTER", "LOT_SIZE", "MARKET_LOT_SIZE", "NOTIONAL", "PERCENT_PRICE_BY_SIDE"}
        assert f"{COIN}:USDT" in exchange.markets
        start = (await sandbox.get("/sandbox/status"))["first_ms"]
        rows, since = [], start
        while page := await exchange.fetch_ohlcv(COIN, "5m", since=since, limit=400):
            rows.extend(page)
            since = page[-1][0] + 1
        assert [row[0] for row in rows] == list(range(start, start + len(rows) * FIVE_MINUTES, FIVE_MINUTES))
        theirs = await exchange.fetch_ohlcv(f"{COIN}:USDT", "5m", since=start, limit=400)
        assert rows[:400] == theirs
        ticker = await exchange.fetch_ticker(COIN)
        book = await exchange.fetch_order_book(COIN, 5)
        assert (book["bids"][0][0], book["asks"][0][0]) == (ticker["bid"], ticker["ask"])
        assert len(await exchange.fetch_tickers(["BTC/USDT", COIN])) == 2
        assert len(await exchange.fetch_trades(COIN, limit=20)) == 20
        assert (await exchange.fetch_last_prices())[COIN]["price"] == ticker["last"]
        assert (await exchange.fetch_trading_fee(COIN))["taker"] == 0.001
        assert (await exchange.fetch_status())["status"] == "ok"
        with pytest.raises(ccxt.BadSymbol):
            await exchange.publicGetDepth({"symbol": "NOPEUSDT"})


async def test_orders_of_every_kind_and_what_they_do_to_the_balance():
    """Market, for money, limit, post-only, IOC, FOK, stop and target orders; replaced, cancelled, and in histories."""
    async with running_sandbox(symbols=3, history_days=2, speed=1) as sandbox, client(sandbox.url) as exchange:
        assert (await exchange.fetch_balance())["USDT"]["free"] == 10_000
        last = (await exchange.fetch_ticker(COIN))["last"]
        bought = await exchange.create_order(COIN, "market", "buy", 3.1234, None, {"clientOrderId": "one"})
        assert (bought["status"], bought["filled"], bought["clientOrderId"]) == ("closed", 3.1234, "one")
        (fill,) = await exchange.fetch_my_trades(COIN)
        assert (fill["order"], fill["fee"]["currency"]) == (bought["id"], "SOL")
        assert fill["fee"]["cost"] == pytest.approx(0.0031234)
        assert (await exchange.fetch_balance())["SOL"]["free"] == pytest.approx(3.1202766)
        spent = await exchange.create_order(COIN, "market", "buy", None, None, {"cost": 100})
        assert 99 < spent["cost"] <= 100

        resting = await exchange.create_order(COIN, "limit", "buy", 2, last * 0.95, {"clientOrderId": "rest"})
        with pytest.raises(ccxt.InvalidOrder, match="Duplicate order sent"):
            await exchange.create_order(COIN, "limit", "buy", 2, last * 0.95, {"clientOrderId": "rest"})
        replaced = await exchange.edit_order(resting["id"], COIN, "limit", "buy", 1, last * 0.94)
        assert (replaced["amount"], (await exchange.fetch_order(resting["id"], COIN))["status"]) == (1.0, "canceled")
        used = (await exchange.fetch_balance())["USDT"]["used"]
        assert used == pytest.approx(replaced["price"])
        with pytest.raises(ccxt.ExchangeError, match="-2022"):
            await exchange.edit_order(resting["id"], COIN, "limit", "buy", 1, last * 0.94)
        with pytest.raises(ccxt.OrderImmediatelyFillable):
            await exchange.create_order(COIN, "limit", "buy", 1, last * 1.02, {"postOnly": True})
        for force, price, status in (("IOC", 1.02, "closed"), ("FOK", 1.02, "closed"), ("FOK", 0.98, "expired")):
            one = await exchange.create_order(COIN, "limit", "buy", 1, last * price, {"timeInForce": force})
            assert one["status"] == status

        stop = await exchange.create_order(COIN, "market", "sell", 3, None, {"stopLossPrice": last * 0.9})
        shown = await exchange.fetch_order(stop["id"], COIN)
        assert (shown["info"]["type"], shown["status"], shown["info"]["isWorking"]) == ("STOP_LOSS", "open", False)
        target = await exchange.create_order(COIN, "limit", "sell", 1, last * 1.2, {"takeProfitPrice": last * 1.19})
        assert (await exchange.fetch_balance())["SOL"]["used"] == 4.0
        opened = {one["id"] for one in await exchange.fetch_open_orders(COIN)}
        assert opened == {replaced["id"], stop["id"], target["id"]}
        for refused, kind in (
            (exchange.create_order(COIN, "market", "sell", 4), ccxt.InsufficientFunds),
            (exchange.create_order(COIN, "market", "sell", 1, None, {"reduceOnly": True}), ccxt.BadRequest),
            (exchange.create_order(COIN, "market", "buy", 0.001), ccxt.BadRequest),
            (exchange.create_order(COIN, "market", "buy", 5_000), ccxt.InsufficientFunds),
            (exchange.create_order(COIN, "market", "sell", 1, None, {"stopLossPrice": last * 1.1}), ccxt.InvalidOrder),
        ):
            with pytest.raises(kind):
                await refused
        await exchange.cancel_order(stop["id"], COIN)
        with pytest.raises(ccxt.OrderNotFound):
            await exchange.cancel_order(stop["id"], COIN)
        with pytest.raises(ccxt.OrderNotFound):
            await exchange.fetch_order("7", COIN)
        assert len(await exchange.cancel_all_orders(COIN)) == 2
        balance = await exchange.fetch_balance()
        assert balance["USDT"]["used"] == balance["SOL"]["used"] == 0
        assert len(await exchange.fetch_orders(COIN)) == 9
        headers = {name.lower() for name in exchange.last_response_headers}
        assert "x-mbx-used-weight-1m" in headers
        await exchange.create_order(COIN, "market", "sell", 1)
        headers = {name.lower() for name in exchange.last_response_headers}
        assert {"x-mbx-order-count-10s", "x-mbx-order-count-1d"} <= headers
        await check_audit(sandbox, orders=10, fills=5)


async def check_audit(sandbox, *, orders: int, fills: int) -> None:
    """The venue's own books: contracts were not touched, and of spot each asset is what its executions make it."""
    audit = await sandbox.get("/sandbox/audit")
    assert (audit["orders"], audit["wallet"]) == (0, "10000")
    spot = audit["spot"]
    assert (spot["orders"], spot["fills"], spot["duplicate_client_ids"]) == (orders, fills, [])
    for one in spot["assets"].values():
        assert Decimal(one["free"]) + Decimal(one["locked"]) == Decimal(one["expected"])


async def test_a_stop_sells_what_it_locked_when_its_price_comes():
    """The market reaches a stop: under its own number it has sold, and the account's stream told of it."""
    async with (
        running_sandbox(symbols=3, history_days=2, speed=1) as sandbox,
        client(sandbox.url, ccxt_pro) as exchange,
        asyncio.timeout(60),
    ):
        await exchange.create_order(COIN, "market", "buy", 3)
        last = (await exchange.fetch_ticker(COIN))["last"]
        watching = asyncio.create_task(exchange.watch_orders())
        await until_subscribed(exchange)
        stop = await exchange.create_order(COIN, "market", "sell", 2.5, None, {"stopLossPrice": last * 0.97})
        await watching
        await sandbox.ctl(op="price", symbol="SOLUSDT", factor=0.96)
        while exchange.orders[-1]["status"] != "closed":
            await exchange.watch_orders()
        told = exchange.orders[-1]
        assert (told["id"], told["filled"], told["info"]["o"]) == (stop["id"], 2.5, "STOP_LOSS")
        found = await exchange.fetch_order(stop["id"], COIN)
        assert (found["status"], found["filled"], found["clientOrderId"]) == ("closed", 2.5, stop["clientOrderId"])
        fills = await exchange.fetch_my_trades(COIN)
        assert (fills[-1]["order"], fills[-1]["fee"]["currency"]) == (stop["id"], "USDT")


async def until_subscribed(exchange) -> None:
    """Wait until the account is followed."""
    url = exchange.urls["api"]["ws"]["ws-api"]["spot"]
    while not (url in exchange.clients and exchange.clients[url].subscriptions.get("spot")):  # noqa: ASYNC110 - ccxt tells nobody
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.2)


async def test_streams_of_market_and_account():
    """Candles, trades, tickers, best prices and a checked book stream; the account's stream tells all there is."""
    async with (
        running_sandbox(symbols=3, history_days=2, speed=60) as sandbox,
        client(sandbox.url, ccxt_pro) as exchange,
        asyncio.timeout(120),
    ):
        heard = {}
        while len(heard) < 4:
            for row in await exchange.watch_ohlcv(COIN, "1m"):
                heard[row[0]] = row
        first, *finished, _ = sorted(heard)
        rest = {row[0]: row for row in await exchange.fetch_ohlcv(COIN, "1m", since=first, limit=20)}
        assert [heard[opened] for opened in finished] == [rest[opened] for opened in finished]
        assert f"{COIN}:USDT" not in exchange.ohlcvs
        assert len(await exchange.watch_trades(COIN)) > 0
        assert (await exchange.watch_ticker(COIN))["last"] > 0
        assert (await exchange.watch_bids_asks([COIN]))[COIN]["bid"] > 0
        # A gap between two changes would raise.
        for _ in range(30):
            book = await exchange.watch_order_book(COIN)
        assert book["bids"][0][0] < book["asks"][0][0]

        following = [
            asyncio.create_task(call())
            for call in (exchange.watch_orders, exchange.watch_my_trades, exchange.watch_balance)
        ]
        await until_subscribed(exchange)
        sent = await exchange.create_order(COIN, "market", "buy", 3)
        orders, fills, balance = await asyncio.gather(*following)
        assert orders[-1]["id"] == sent["id"]
        assert (fills[-1]["order"], fills[-1]["amount"], fills[-1]["symbol"]) == (sent["id"], 3.0, COIN)
        assert balance["SOL"]["free"] == pytest.approx(2.997)


async def test_orders_over_a_websocket_of_spot():
    """Placed, replaced, asked for and cancelled in frames; refusals come as what REST says."""
    async with (
        running_sandbox(symbols=3, history_days=2, speed=1) as sandbox,
        client(sandbox.url, ccxt_pro) as exchange,
        asyncio.timeout(60),
    ):
        last = (await exchange.fetch_ticker(COIN))["last"]
        bought = await exchange.create_order_ws(COIN, "market", "buy", 3)
        assert (bought["status"], bought["filled"]) == ("closed", 3.0)
        resting = await exchange.create_order_ws(COIN, "limit", "buy", 1, last * 0.9)
        replaced = await exchange.edit_order_ws(resting["id"], COIN, "limit", "buy", 2, last * 0.9)
        assert (await exchange.fetch_order_ws(replaced["id"], COIN))["amount"] == 2.0
        assert [one["id"] for one in await exchange.fetch_open_orders_ws(COIN)] == [replaced["id"]]
        assert (await exchange.cancel_order_ws(replaced["id"], COIN))["status"] == "canceled"
        with pytest.raises(ccxt.OrderNotFound):
            await exchange.cancel_order_ws(replaced["id"], COIN)
        with pytest.raises(ccxt.InsufficientFunds):
            await exchange.create_order_ws(COIN, "market", "sell", 30)
        # ccxt takes what it is told here for the balance of contracts; the venue's own words are whole.
        told = {one["asset"]: one["free"] for one in (await exchange.fetch_balance_ws())["info"]["balances"]}
        assert Decimal(told["SOL"]) == Decimal("2.997")
        assert [one["order"] for one in await exchange.fetch_my_trades_ws(COIN)] == [bought["id"]]
        assert len(await exchange.fetch_ohlcv_ws(COIN, "1m", limit=5)) == 5
        exchange.secret = "wrong"
        with pytest.raises(ccxt.BaseError, match="-1022"):
            await exchange.create_order_ws(COIN, "market", "buy", 1)


async def test_orders_over_a_websocket_of_contracts():
    """The same for contracts, with their amendments and their orders that wait for a price."""
    async with running_sandbox(symbols=3, history_days=2, speed=1) as sandbox, asyncio.timeout(60):
        exchange = point(ccxt_pro.binanceusdm(ccxt_options()), sandbox.url)
        coin = f"{COIN}:USDT"
        try:
            await exchange.load_markets()
            last = (await exchange.fetch_ticker(coin))["last"]
            assert (await exchange.create_order_ws(coin, "market", "buy", 3))["status"] == "closed"
            resting = await exchange.create_order_ws(coin, "limit", "buy", 1, last * 0.9)
            amended = await exchange.edit_order_ws(resting["id"], coin, "limit", "buy", 2, last * 0.89)
            assert (amended["id"], amended["amount"]) == (resting["id"], 2.0)
            assert (await exchange.fetch_order_ws(resting["id"], coin))["status"] == "open"
            assert (await exchange.cancel_order_ws(resting["id"], coin))["status"] == "canceled"
            with pytest.raises(ccxt.OrderNotFound):
                await exchange.cancel_order_ws(resting["id"], coin)
            guard = {"stopLossPrice": last * 0.9, "reduceOnly": True}
            stop = await exchange.create_order_ws(coin, "market", "sell", 3, None, guard)
            assert [one["id"] for one in await exchange.fetch_open_orders(coin, params={"trigger": True})] == [
                stop["id"]
            ]
            await exchange.cancel_order_ws(stop["id"], coin, {"trigger": True})
            assert (await exchange.fetch_positions_ws([coin]))[0]["contracts"] == 3.0
            assert (await exchange.fetch_balance_ws())["USDT"]["total"] == pytest.approx(10_000, abs=5)
        finally:
            await exchange.close()


async def test_faults_latency_limits_and_lag_hold_for_spot():
    """What the control plane does to contracts it does to spot: by REST and by frames."""
    async with (
        running_sandbox(symbols=3, history_days=2, speed=1) as sandbox,
        client(sandbox.url, ccxt_pro) as exchange,
        asyncio.timeout(90),
    ):
        await sandbox.ctl(**ORDER, action="exec_then_drop")
        with pytest.raises(ccxt.NetworkError):
            await exchange.create_order(COIN, "market", "buy", 1, None, {"clientOrderId": "lost"})
        found = await exchange.fetch_order(None, COIN, {"clientOrderId": "lost"})
        assert found["status"] == "closed"
        await sandbox.ctl(**ORDER, action="status", status=503, code=-1008)
        with pytest.raises(ccxt.BaseError, match="-1008"):
            await exchange.create_order(COIN, "market", "buy", 1)
        frames = ORDER | {"path": "/ws-api/v3/order.place"}
        await sandbox.ctl(**frames, action="status", status=400, code=-1007)
        with pytest.raises(ccxt.BaseError, match="-1007"):
            await exchange.create_order_ws(COIN, "market", "buy", 1)
        await sandbox.ctl(**frames, action="exec_then_drop")
        with pytest.raises(ccxt.NetworkError):
            await exchange.create_order_ws(COIN, "market", "buy", 1, None, {"clientOrderId": "gone"})
        assert (await exchange.fetch_order(None, COIN, {"clientOrderId": "gone"}))["status"] == "closed"

        await sandbox.ctl(op="rules", insert_ms=300)
        for create in (exchange.create_order, exchange.create_order_ws):
            before = (await sandbox.get("/sandbox/status"))["now_ms"]
            late = await create(COIN, "market", "buy", 1)
            assert late["timestamp"] >= before + 300
        await sandbox.ctl(op="rules", insert_ms=0)
        await sandbox.ctl(op="stale_reads", secs=60)
        for fetch in (exchange.fetch_order, exchange.fetch_order_ws):
            with pytest.raises(ccxt.OrderNotFound):
                await fetch(late["id"], COIN)
        await sandbox.ctl(op="stale_reads", on=False)
        assert (await exchange.fetch_order(late["id"], COIN))["status"] == "closed"

        await sandbox.ctl(op="partial", frac=0.5, times=1)
        half = await exchange.create_order(COIN, "market", "buy", 1)
        assert (half["filled"], half["status"]) == (0.5, "expired")
        await sandbox.ctl(op="halt", symbol="SOLUSDT")
        with pytest.raises(ccxt.BaseError, match="Market is closed"):
            await exchange.create_order(COIN, "market", "buy", 1)
        await sandbox.ctl(op="halt", symbol="SOLUSDT", on=False)
        await sandbox.ctl(op="limits", weight=1)
        with pytest.raises(ccxt.DDoSProtection):
            await exchange.fetch_balance()
        with pytest.raises(ccxt.BaseError, match="-1003"):
            await exchange.create_order_ws(COIN, "market", "buy", 1)
        await sandbox.ctl(op="clear")
        await sandbox.ctl(op="maintenance")
        with pytest.raises(ccxt.BaseError):
            await exchange.create_order(COIN, "market", "buy", 1)


async def test_a_restart_finds_balances_orders_and_what_was_under_way(tmp_path):
    """Both accounts of a saved venue go on; spot's beginning balance is its own, and so is its fee."""
    options = {"symbols": 3, "history_days": 2, "speed": 1, "state": tmp_path, "spot_balance": 700, "spot_fee": "0.002"}
    async with running_sandbox(**options) as sandbox, client(sandbox.url) as exchange:
        last = (await exchange.fetch_ticker(COIN))["last"]
        bought = await exchange.create_order(COIN, "market", "buy", 3)
        assert bought["fee"]["cost"] == pytest.approx(0.006)
        await exchange.create_order(COIN, "limit", "buy", 1, last * 0.9, {"clientOrderId": "rest"})
        await exchange.create_order(COIN, "market", "sell", 2, None, {"stopLossPrice": last * 0.9})
        before, opened = await exchange.fetch_balance(), await exchange.fetch_open_orders(COIN)
    async with running_sandbox(**options) as sandbox, client(sandbox.url) as exchange:
        after = await exchange.fetch_balance()
        assert {one: after[one] for one in ("USDT", "SOL")} == {one: before[one] for one in ("USDT", "SOL")}
        assert [one["id"] for one in await exchange.fetch_open_orders(COIN)] == [one["id"] for one in opened]
        assert (await exchange.fetch_order(None, COIN, {"clientOrderId": "rest"}))["status"] == "open"
        assert (await exchange.fetch_my_trades(COIN))[0]["order"] == bought["id"]
        contracts = await sandbox.get("/sandbox/audit")
        assert contracts["opening_balance"] == "10000"


@pytest.mark.parametrize(
    "frame", ["", "{", "[]", "1", '{"method":7}', '{"method":"order.place","params":[]}', '{"method":"nope"}', "\x00"]
)
async def test_a_frame_that_asks_nothing_is_answered_and_harms_nobody(frame):
    """Whatever arrives, one refusal comes back, and the next request on the same connection is served."""
    async with (
        running_sandbox(symbols=1, history_days=1, speed=1) as sandbox,
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{sandbox.ws_url}/ws-api/v3") as socket,
        asyncio.timeout(60),
    ):
        await socket.send_str(frame)
        refused = await socket.receive_json()
        assert refused["status"] in {400, 401}
        assert refused["error"]["code"] < 0
        await socket.send_json({"id": 1, "method": "ping"})
        assert (await socket.receive_json())["status"] == 200
