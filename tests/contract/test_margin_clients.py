"""Margin, liquidation and a market that stands still, as unmodified ccxt and the SDK's models see them."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal

import aiohttp
import ccxt
import ccxt.async_support as ccxt_rest
import ccxt.pro as ccxt_pro
import pytest
from binance_sdk_derivatives_trading_usds_futures.derivatives_trading_usds_futures import (
    ConfigurationRestAPI,
    DerivativesTradingUsdsFutures,
)
from binance_sdk_derivatives_trading_usds_futures.websocket_streams.models.account_update import AccountUpdate
from binance_sdk_derivatives_trading_usds_futures.websocket_streams.models.liquidation_order_streams_response import (
    LiquidationOrderStreamsResponse,
)
from binance_sdk_derivatives_trading_usds_futures.websocket_streams.models.margin_call import MarginCall
from binance_sdk_derivatives_trading_usds_futures.websocket_streams.models.order_trade_update import OrderTradeUpdate

from infra.sandbox.engine.exchange import Exchange
from infra.sandbox.engine.fees import Clearance
from infra.sandbox.engine.instrument import Instrument
from infra.sandbox.engine.model import OrderRequest, OrderType, Side
from infra.sandbox.engine.state import new_state
from infra.sandbox.protocol.force_orders import force_order_frames
from infra.sandbox.protocol.user_events import user_event
from tests.sandbox_support import API_KEY, API_SECRET, ccxt_options, point, running_sandbox

COIN = "SOL/USDT:USDT"
LONG = {"hedged": True, "positionSide": "LONG"}
SHORT = {"hedged": True, "positionSide": "SHORT"}


@asynccontextmanager
async def client(url, kind=ccxt_rest):
    exchange = point(kind.binanceusdm(ccxt_options()), url)
    try:
        await exchange.load_markets()
        yield exchange
    finally:
        await exchange.close()


async def until(ask, holds):
    """Ask until the answer is as it should be, and return it."""
    async with asyncio.timeout(200):
        while not holds(answer := await ask()):  # noqa: ASYNC110 - the venue is asked, it tells nobody.
            await asyncio.sleep(0.1)
        return answer


async def test_hedge_mode_through_ccxt():
    """Two legs are opened, shown and closed one by one; what the mode does not allow has the venue's code."""
    async with running_sandbox(symbols=3, history_days=1) as sandbox, client(sandbox.url) as exchange:
        await exchange.set_position_mode(hedged=True)
        assert (await exchange.fetch_position_mode(COIN))["hedged"] is True
        with pytest.raises(ccxt.OperationRejected, match="-4059"):
            await exchange.set_position_mode(hedged=True)
        with pytest.raises(ccxt.ExchangeError, match="-4061"):
            await exchange.create_order(COIN, "market", "buy", 3)
        await exchange.create_order(COIN, "market", "buy", 3, None, LONG)
        await exchange.create_order(COIN, "market", "sell", 2, None, SHORT)
        held = {one["side"]: one for one in await exchange.fetch_positions([COIN])}
        assert {side: one["contracts"] for side, one in held.items()} == {"long": 3.0, "short": 2.0}
        assert all(one["hedged"] for one in held.values())
        assert held["long"]["liquidationPrice"] == held["short"]["liquidationPrice"]
        with pytest.raises(ccxt.OperationRejected, match="-4068"):
            await exchange.set_position_mode(hedged=False)

        with pytest.raises(ccxt.BadRequest, match="-1106"):
            await exchange.fapiPrivatePostOrder(
                {"symbol": "SOLUSDT", "side": "SELL", "type": "MARKET", "quantity": "1", "positionSide": "LONG",
                 "reduceOnly": "true"}
            )  # fmt: skip
        last = (await exchange.fetch_ticker(COIN))["last"]
        stop = {"stopLossPrice": exchange.price_to_precision(COIN, last * 0.9), "closePosition": True}
        await exchange.create_order(COIN, "market", "sell", None, None, stop | {"positionSide": "LONG"})
        with pytest.raises(ccxt.ExchangeError, match="-4061"):
            await exchange.create_order(COIN, "market", "sell", None, None, stop | {"positionSide": "SHORT"})
        await exchange.create_order(COIN, "market", "sell", 3, None, LONG)
        (left,) = await exchange.fetch_positions([COIN])
        assert (left["side"], left["contracts"]) == ("short", 2.0)
        assert await exchange.fetch_open_orders(COIN, params={"trigger": True}) == []


async def test_isolated_margin_through_ccxt():
    """Margin mode, leverage, tiers, added and reduced margin and its history, each as ccxt's own calls show it."""
    async with running_sandbox(symbols=3, history_days=1) as sandbox, client(sandbox.url) as exchange:
        await exchange.set_margin_mode("isolated", COIN)
        await exchange.set_leverage(10, COIN)
        assert (await exchange.fetch_leverage(COIN))["marginMode"] == "isolated"
        with pytest.raises(ccxt.BadRequest, match="-4028"):
            await exchange.fapiPrivatePostLeverage({"symbol": "SOLUSDT", "leverage": 51})
        with pytest.raises(ccxt.ExchangeError, match="-4054"):
            await exchange.add_margin(COIN, 10)
        await exchange.create_order(COIN, "market", "buy", 3)
        (position,) = await exchange.fetch_positions([COIN])
        assert position["marginMode"] == "isolated"
        info = position["info"]
        wallet = float(info["isolatedWallet"])
        assert wallet == pytest.approx(position["entryPrice"] * 3 / 10)
        assert (await exchange.add_margin(COIN, 25))["status"] == "ok"
        (more,) = await exchange.fetch_positions([COIN])
        assert float(more["info"]["isolatedWallet"]) == pytest.approx(wallet + 25)
        assert more["liquidationPrice"] < position["liquidationPrice"]
        await exchange.reduce_margin(COIN, 20)
        with pytest.raises(ccxt.ExchangeError, match="-4051"):
            await exchange.reduce_margin(COIN, 100)
        with pytest.raises(ccxt.ExchangeError, match="-4050"):
            await exchange.add_margin(COIN, 1_000_000)
        with pytest.raises(ccxt.ExchangeError, match="-4161"):
            await exchange.set_leverage(5, COIN)
        with pytest.raises(ccxt.ExchangeError, match="-4048"):
            await exchange.fapiPrivatePostMarginType({"symbol": "SOLUSDT", "marginType": "CROSSED"})
        moves = await exchange.fetch_margin_adjustment_history(COIN)
        assert [(one["type"], one["amount"]) for one in moves if one["info"]["deltaType"] == "USER_ADJUST"] == [
            ("add", 25.0),
            ("reduce", 20.0),
        ]
        balance = await exchange.fetch_balance()
        (asset,) = [one for one in balance["info"]["assets"] if one["asset"] == "USDT"]
        assert float(asset["crossWalletBalance"]) == pytest.approx(float(asset["walletBalance"]) - wallet - 5)
        tiers = (await exchange.fetch_leverage_tiers([COIN]))[COIN]
        assert [one["maxLeverage"] for one in tiers] == [50, 25, 20, 10, 5, 1]


async def test_a_liquidation_through_ccxt_and_back_again():
    """The user stream shows the venue's order, its fills and the flat position; incomes and force orders list them."""
    async with running_sandbox(symbols=3, history_days=1) as sandbox, client(sandbox.url, ccxt_pro) as exchange:
        orders: dict[str, dict] = {}
        seen, flat = asyncio.Event(), asyncio.Event()

        async def follow_orders() -> None:
            while True:
                for one in await exchange.watch_orders():
                    orders[one["clientOrderId"]] = one
                    seen.set()

        async def follow_positions() -> None:
            while True:
                for one in await exchange.watch_positions([COIN]):
                    if not one["contracts"] and any(name.startswith("autoclose-") for name in orders):
                        flat.set()

        following = [asyncio.create_task(follow_orders()), asyncio.create_task(follow_positions())]
        try:
            await until(
                exchange.fetch_time,
                lambda _: any("listenKey" in url and one.isConnected for url, one in exchange.clients.items()),
            )
            await exchange.create_order(COIN, "market", "buy", 3)
            async with asyncio.timeout(200):
                await seen.wait()
                told = asyncio.create_task(exchange.watch_balance())
                await asyncio.sleep(0)
                assert (await sandbox.ctl(op="liquidation"))["liquidated"] == 1
                await flat.wait()
                balance = await told
        finally:
            for task in following:
                task.cancel()
            await asyncio.gather(*following, return_exceptions=True)
        assert balance["USDT"]["total"] > 0
        assert await exchange.fetch_positions([COIN]) == []
        (forced,) = await exchange.fapiPrivateGetForceOrders({"symbol": "SOLUSDT"})
        assert (forced["status"], forced["timeInForce"], forced["executedQty"]) == ("FILLED", "IOC", "3")
        (row,) = await exchange.fapiPrivateGetIncome({"incomeType": "INSURANCE_CLEAR"})
        assert float(row["income"]) == pytest.approx(-0.0125 * float(forced["cumQuote"]), rel=1e-6)
        audit = await sandbox.get("/sandbox/audit")
        parts = [Decimal(audit[name]) for name in ("realized_pnl", "funding", "clearance")]
        assert Decimal(audit["wallet"]) == 10_000 + sum(parts) - Decimal(audit["fees"])


async def test_the_raw_streams_of_a_liquidation():
    """A client of the account hears the margin call first; one of the market hears of the forced order."""
    async with (
        running_sandbox(symbols=3, history_days=1) as sandbox,
        client(sandbox.url) as exchange,
        aiohttp.ClientSession() as session,
    ):
        key = (await exchange.fapiPrivatePostListenKey())["listenKey"]
        await exchange.create_order(COIN, "market", "buy", 3)
        async with (
            session.ws_connect(f"{sandbox.ws_url}/private/ws?listenKey={key}") as account,
            session.ws_connect(f"{sandbox.ws_url}/market/ws/solusdt@forceOrder") as market,
            asyncio.timeout(200),
        ):
            await sandbox.ctl(op="liquidation", symbol="SOLUSDT")
            forced = await market.receive_json()
            events = [await account.receive_json() for _ in range(5)]
    kinds = [one["e"] for one in events]

    assert kinds == ["MARGIN_CALL", "ORDER_TRADE_UPDATE", "ACCOUNT_UPDATE", "ORDER_TRADE_UPDATE", "ACCOUNT_UPDATE"]
    assert [one["o"]["x"] for one in events if "o" in one] == ["NEW", "TRADE"]
    assert [one["a"]["m"] for one in events if "a" in one] == ["ORDER", "INSURANCE_CLEAR"]
    assert (forced["e"], forced["o"]["s"], forced["o"]["S"], forced["o"]["X"]) == (
        "forceOrder", "SOLUSDT", "SELL", "FILLED",
    )  # fmt: skip


async def test_funding_is_paid_at_each_symbols_boundary():
    """An hour's symbol pays every hour, the others not yet; history, info and incomes agree."""
    options = {"symbols": "BTCUSDT,SOLUSDT", "history_days": 1, "speed": 3_000, "funding_hours": "8,SOLUSDT=1"}
    async with running_sandbox(**options) as sandbox, client(sandbox.url) as exchange:
        await exchange.create_order(COIN, "market", "buy", 3)
        await exchange.create_order("BTC/USDT:USDT", "market", "buy", 0.01)
        paid = await until(lambda: exchange.fetch_funding_history(COIN), bool)
        rates = {one["timestamp"]: one for one in await exchange.fetch_funding_rate_history(COIN, limit=200)}
        intervals = await exchange.fetch_funding_intervals()
        assert paid[0]["timestamp"] % 3_600_000 == 0
        assert rates[paid[0]["timestamp"]]["fundingRate"] > 0 > paid[0]["amount"]
        assert {name: one["interval"] for name, one in intervals.items()} == {COIN: "1h", "BTC/USDT:USDT": "8h"}
        assert (await exchange.fetch_funding_rate(COIN))["fundingTimestamp"] % 3_600_000 == 0


async def test_halt_restriction_and_delisting_through_ccxt():
    """Status, refusals and settlement arrive in ccxt's words; other symbols trade on."""
    async with running_sandbox(symbols=3, history_days=1) as sandbox, client(sandbox.url) as exchange:
        await exchange.create_order(COIN, "market", "buy", 3)
        await sandbox.ctl(op="restrict", symbol="SOLUSDT")
        with pytest.raises(ccxt.PermissionDenied, match="-4400"):
            await exchange.create_order(COIN, "market", "buy", 1)
        await exchange.create_order(COIN, "market", "sell", 1, None, {"reduceOnly": True})
        await sandbox.ctl(op="restrict", symbol="SOLUSDT", on=False)
        await sandbox.ctl(op="halt", symbol="SOLUSDT")
        with pytest.raises(ccxt.ExchangeError, match="-4108"):
            await exchange.create_order(COIN, "market", "buy", 1)
        assert (await exchange.load_markets(reload=True))[COIN]["active"] is False
        assert (await exchange.create_order("BTC/USDT:USDT", "market", "buy", 0.01))["status"] == "closed"
        assert (await sandbox.ctl(op="halt", symbol="SOLUSDT", on=False))["ended"] == 1
        assert (await exchange.create_order(COIN, "market", "buy", 1))["status"] == "closed"

        await sandbox.ctl(op="delist", symbol="SOLUSDT", after_s=120)
        with pytest.raises(ccxt.BadRequest, match="-4140"):
            await exchange.create_order(COIN, "market", "buy", 1)
        await until(lambda: exchange.fetch_positions([COIN]), lambda held: not held)
        with pytest.raises(ccxt.OperationRejected, match="-4141"):
            await exchange.create_order(COIN, "market", "sell", 1)
        markets = await exchange.load_markets(reload=True)
        assert (markets[COIN]["active"], markets[COIN]["info"]["status"]) == (False, "CLOSE")
        last = (await exchange.fetch_my_trades(COIN))[-1]
        order = await exchange.fetch_order(last["order"], COIN)
        assert order["clientOrderId"].startswith("settlement_autoclose-")


async def test_maintenance_through_ccxt():
    """Orders and cancels are refused as under maintenance, questions are answered, and candles have a hole."""
    async with running_sandbox(symbols=3, history_days=1, speed=300) as sandbox, client(sandbox.url) as exchange:
        order = await exchange.create_order(COIN, "limit", "buy", 3, (await exchange.fetch_ticker(COIN))["last"] * 0.9)
        began = (await sandbox.ctl(op="maintenance", for_s=600))["from_ms"]
        with pytest.raises(ccxt.OnMaintenance):
            await exchange.create_order(COIN, "market", "buy", 3)
        with pytest.raises(ccxt.OnMaintenance):
            await exchange.cancel_order(order["id"], COIN)
        assert (await exchange.fetch_status())["status"] == "maintenance"
        assert (await exchange.fetch_order(order["id"], COIN))["status"] == "open"
        await until(exchange.fetch_status, lambda told: told["status"] == "ok")
        assert (await exchange.cancel_order(order["id"], COIN))["status"] == "canceled"
        rows = await until(
            lambda: exchange.fetch_ohlcv(COIN, "1m", limit=60), lambda rows: rows[-1][0] >= began + 720_000
        )
        hole = [row[0] for row in rows if began <= row[0] and row[0] + 60_000 <= began + 600_000]
        assert hole == []
        assert [row[0] for row in rows] == sorted({row[0] for row in rows})


NONSENSE = [
    {"op": "halt"},
    {"op": "halt", "symbol": "NOUSDT"},
    {"op": "halt", "symbol": "BTCUSDT", "for_s": -1},
    {"op": "halt", "symbol": "BTCUSDT", "on": "yes"},
    {"op": "maintenance", "for_s": "long"},
    {"op": "maintenance", "for_s": True},
    {"op": "delist", "symbol": "BTCUSDT", "after_s": 1e12},
    {"op": "restrict", "symbol": ""},
    {"op": "adl", "symbol": "BTCUSDT"},
    {"op": "adl", "symbol": "BTCUSDT", "share": "NaN"},
    {"op": "adl", "symbol": "BTCUSDT", "share": [1]},
    {"op": "adl", "symbol": "BTCUSDT", "position_side": "MIDDLE"},
    {"op": "liquidation", "symbol": ["BTCUSDT"]},
]


async def test_operations_that_make_no_sense_are_refused():
    """Each is answered with a sentence and changes nothing; the venue goes on."""
    async with running_sandbox(symbols=1, history_days=1) as sandbox:
        for operation in NONSENSE:
            assert set(await sandbox.ctl(**operation)) == {"error"}, operation
        info = await sandbox.get("/fapi/v1/exchangeInfo")
        assert {one["status"] for one in info["symbols"]} == {"TRADING"}


async def test_what_was_halted_stays_halted_after_a_restart(tmp_path):
    """Halts, delistings and isolated margin are part of what is saved."""
    options = {"symbols": 3, "history_days": 1, "state": tmp_path}
    async with running_sandbox(**options) as sandbox, client(sandbox.url) as exchange:
        await exchange.set_margin_mode("isolated", COIN)
        await exchange.create_order(COIN, "market", "buy", 3)
        await exchange.add_margin(COIN, 7)
        (before,) = await exchange.fetch_positions([COIN])
        await sandbox.ctl(op="halt", symbol="SOLUSDT")
    async with running_sandbox(**options) as sandbox, client(sandbox.url) as exchange:
        (after,) = await exchange.fetch_positions([COIN])
        assert after["info"]["isolatedWallet"] == before["info"]["isolatedWallet"]
        with pytest.raises(ccxt.ExchangeError, match="-4108"):
            await exchange.create_order(COIN, "market", "buy", 1)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_margin_answers_pass_the_models_of_the_sdk():
    """What the official SDK asks of margin, modes and liquidations is answered in its models' words."""
    coin = {"symbol": "SOLUSDT"}
    calls = [
        ("change_position_mode", {"dual_side_position": "true"}),
        ("change_position_mode", {"dual_side_position": "false"}),
        ("change_margin_type", {**coin, "margin_type": "ISOLATED"}),
        ("change_initial_leverage", {**coin, "leverage": 5}),
        ("new_order", {**coin, "side": "BUY", "type": "MARKET", "quantity": 5.0, "new_order_resp_type": "RESULT"}),
        ("modify_isolated_position_margin", {**coin, "amount": 10.0, "type": 1}),
        ("get_position_margin_change_history", coin),
        ("position_information_v3", {}),
        ("account_information_v3", {}),
        ("position_adl_quantile_estimation", {}),
        ("get_funding_rate_info", {}),
    ]
    async with running_sandbox(symbols=3, history_days=1, funding_hours="4") as sandbox:
        rest = DerivativesTradingUsdsFutures(
            config_rest_api=ConfigurationRestAPI(api_key=API_KEY, api_secret=API_SECRET, base_path=sandbox.url)
        ).rest_api
        for name, arguments in calls:
            answer = await asyncio.to_thread(lambda call=name, given=arguments: getattr(rest, call)(**given).data())
            assert answer is not None, name
        await sandbox.ctl(op="adl", symbol="SOLUSDT", share=0.4)
        await sandbox.ctl(op="liquidation", symbol="SOLUSDT")
        forced = await asyncio.to_thread(lambda: rest.users_force_orders(**coin).data())
        income = await asyncio.to_thread(lambda: rest.get_income_history().data())
        assert [one.client_order_id.split("-")[0] for one in forced] == ["adl_autoclose", "autoclose"]
        assert "INSURANCE_CLEAR" in {one.income_type for one in income}


@pytest.mark.parametrize("isolated", [False, True])
def test_events_of_a_liquidation_pass_the_models_of_the_sdk(isolated):
    """Margin call, account and order updates and the public force order are what the SDK's stream models expect."""
    coin = Instrument("COINUSDT", "COIN", 2, 1, Decimal(5), Decimal(10_000), Decimal(5_000), Decimal(50_000))
    exchange = Exchange([coin], new_state(Decimal(700)), clearance=Clearance(Decimal("0.0125"), insured=True))
    exchange.tick({"COINUSDT": Decimal(100)}, now_ms=1)
    if isolated:
        exchange.set_isolated("COINUSDT", isolated=True)
    order = OrderRequest("COINUSDT", Side.BUY, OrderType.MARKET, Decimal(100))
    exchange.submit(replace(order, client_order_id="mine"), now_ms=2)
    exchange.drain()
    exchange.tick({"COINUSDT": Decimal(94)}, now_ms=3)
    exchange.liquidate_if_needed(now_ms=3)
    events = exchange.drain()
    models = {"MARGIN_CALL": MarginCall, "ACCOUNT_UPDATE": AccountUpdate, "ORDER_TRADE_UPDATE": OrderTradeUpdate}
    written = [user_event(one, exchange.state) for one in events]
    frames = [frame for one in events for _, frame in force_order_frames(one)]

    assert {one["e"] for one in written} == set(models)
    for one in written:
        known = models[one["e"]].model_validate(one).to_dict()
        assert set(one) - {"e"} <= set(known), one["e"]
    assert frames
    assert all(LiquidationOrderStreamsResponse.model_validate(frame).e == "forceOrder" for frame in frames)
