"""Every kind of order through an unmodified ccxt and through the official SDK."""

from __future__ import annotations

import asyncio
from urllib.parse import urlencode

import aiohttp
import ccxt
import pytest
from ccxt.base.errors import OrderNotFillable

from feature_store.clock import monotonic, utc_now_ms
from infra.sandbox.protocol.signing import Credentials
from tests.contract.test_sandbox_ccxt import client
from tests.contract.test_sandbox_sdk import sdk
from tests.sandbox_support import API_KEY, API_SECRET, running_sandbox

COIN = "SOL/USDT:USDT"
RAW = {"symbol": "SOLUSDT"}


async def last_price(exchange) -> float:
    return (await exchange.fetch_ticker(COIN))["last"]


async def code_of(call) -> str:
    """Return the code inside the error that ccxt raises."""
    with pytest.raises(ccxt.BaseError) as refusal:
        await call
    return str(refusal.value).split('"code":')[1].split(",")[0]


async def test_each_time_in_force_and_type_is_created_and_read_back():
    """Limits of every time in force and conditional orders of every type come back as they were asked for."""
    async with running_sandbox(symbols=3, history_days=1) as sandbox, client(sandbox.url) as exchange:
        last = await last_price(exchange)
        low, high = last * 0.95, last * 1.05
        await exchange.create_order(COIN, "market", "buy", 5)

        for params, force in (
            ({}, "GTC"),
            ({"postOnly": True}, "PO"),
            ({"timeInForce": "GTD", "goodTillDate": await exchange.fetch_time() + 90_000_000}, "GTD"),
        ):
            order = await exchange.create_order(COIN, "limit", "buy", 1, low, params)
            assert (order["status"], order["timeInForce"], order["amount"]) == ("open", force, 1.0)
        taken = await exchange.create_order(COIN, "limit", "buy", 1, high, {"timeInForce": "FOK"})
        assert (taken["status"], taken["filled"]) == ("closed", 1.0)
        missed = await exchange.create_order(COIN, "limit", "buy", 1, low, {"timeInForce": "IOC"})
        assert (missed["status"], missed["filled"]) == ("expired", 0.0)
        with pytest.raises(OrderNotFillable, match="-5021"):
            await exchange.create_order(COIN, "limit", "buy", 1, low, {"timeInForce": "FOK"})
        with pytest.raises(OrderNotFillable, match="-5022"):
            await exchange.create_order(COIN, "limit", "buy", 1, high, {"postOnly": True})
        assert len(await exchange.fetch_open_orders(COIN)) == 3

        asked = {
            "STOP_MARKET": ("market", None, {"stopLossPrice": low, "workingType": "MARK_PRICE"}),
            "STOP": ("limit", low * 0.99, {"stopLossPrice": low, "timeInForce": "GTC"}),
            "TAKE_PROFIT_MARKET": ("market", None, {"takeProfitPrice": high}),
            "TAKE_PROFIT": ("limit", high * 1.01, {"takeProfitPrice": high, "timeInForce": "GTC"}),
            "TRAILING_STOP_MARKET": ("market", None, {"trailingPercent": 1.5, "trailingTriggerPrice": high}),
        }
        for kind, (plain, price, params) in asked.items():
            made = await exchange.create_order(COIN, plain, "sell", 1, price, {"reduceOnly": True, **params})
            read = await exchange.fetch_order(made["id"], COIN, {"trigger": True})
            assert (read["status"], read["info"]["orderType"], read["reduceOnly"]) == ("open", kind, True)
            assert read["info"]["workingType"] == params.get("workingType", "CONTRACT_PRICE")
        assert len(await exchange.fetch_open_orders(COIN, params={"trigger": True})) == 5

        close = {"stopLossPrice": low, "closePosition": True}
        guard = await exchange.create_order(COIN, "market", "sell", None, None, close)
        assert guard["info"]["closePosition"] is True
        assert await code_of(exchange.create_order(COIN, "market", "sell", None, None, close)) == "-4130"
        await exchange.create_order(COIN, "market", "sell", 6, None, {"reduceOnly": True})
        gone = await exchange.fetch_order(guard["id"], COIN, {"trigger": True})
        assert gone["info"]["algoStatus"] == "EXPIRED"
        await exchange.cancel_all_orders(COIN)
        assert len(await exchange.fetch_open_orders(COIN, params={"trigger": True})) == 5
        await exchange.cancel_all_orders(COIN, {"trigger": True})
        assert await exchange.fetch_open_orders(COIN, params={"trigger": True}) == []


async def test_refusals_reach_the_client_with_their_codes():
    """Each check has its code, and ccxt's class for it is the one of the live venue."""
    async with running_sandbox(symbols=3, history_days=1) as sandbox, client(sandbox.url) as exchange:
        last = await last_price(exchange)
        price = exchange.price_to_precision(COIN, last * 0.95)
        good = {**RAW, "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "3", "price": price}
        conditional = {**RAW, "side": "SELL", "type": "STOP_MARKET", "quantity": "3", "stopPrice": price}
        refusals = [
            ("-1121", {**good, "symbol": "NOUSDT", "side": "UP"}),
            ("-1117", {**good, "side": "UP", "type": "ODD", "quantity": ""}),
            ("-1116", {**good, "type": "ODD", "timeInForce": "EVER", "quantity": ""}),
            ("-1115", {**good, "timeInForce": "EVER", "quantity": ""}),
            ("-1102", {**good, "quantity": ""}),
            ("-1102", {**good, "price": ""}),
            ("-1102", {**good, "timeInForce": "GTD"}),
            ("-5040", {**good, "timeInForce": "GTD", "goodTillDate": "1000000"}),
            ("-1100", {**good, "quantity": "NaN"}),
            ("-1100", {**good, "quantity": "1_0"}),
            ("-1111", {**good, "quantity": "1e40"}),
            ("-1111", {**good, "quantity": "3.0001"}),
            ("-4003", {**good, "quantity": "0"}),
            ("-4005", {**good, "quantity": "100000000"}),
            ("-4014", {**good, "price": f"{float(price):.3f}5"}),
            ("-4016", {**good, "price": exchange.price_to_precision(COIN, last * 1.3)}),
            ("-4024", {**good, "price": exchange.price_to_precision(COIN, last * 0.7)}),
            ("-4164", {**good, "quantity": "0.01"}),
            ("-4061", {**good, "positionSide": "LONG"}),
            ("-4015", {**good, "newClientOrderId": "a b"}),
            ("-2027", {**good, "quantity": "9000"}),
            ("-2019", {**good, "quantity": "3000"}),
            ("-2022", {**good, "reduceOnly": "true"}),
            ("-5039", {**good, "selfTradePreventionMode": "ODD"}),
            ("-4136", {**good, "closePosition": "true"}),
            ("-4120", conditional),
            ("-2021", {**conditional, "stopPrice": exchange.price_to_precision(COIN, last * 1.1)}),
        ]
        for code, params in refusals:
            assert await code_of(exchange.fapiPrivatePostOrder(params)) == code, params
        algo = {**conditional, "algoType": "CONDITIONAL", "triggerPrice": price}
        for code, params in (
            ("-2021", {**algo, "triggerPrice": exchange.price_to_precision(COIN, last * 1.1)}),
            ("-1102", {**algo, "type": "TRAILING_STOP_MARKET"}),
            ("-1106", {**algo, "closePosition": "true"}),
            ("-1116", {**algo, "type": "LIMIT"}),
        ):
            assert await code_of(exchange.fapiPrivatePostAlgoOrder(params)) == code, params
        assert await exchange.fetch_open_orders(COIN) == []
        assert await exchange.fapiPrivatePostOrderTest(good) == {}
        assert await code_of(exchange.fapiPrivatePostOrderTest({**good, "reduceOnly": "true"})) == "-2022"
        await exchange.create_order(COIN, "limit", "buy", 3, float(price), {"clientOrderId": "once"})
        assert await code_of(exchange.fapiPrivatePostOrder({**good, "newClientOrderId": "once"})) == "-4116"
        await exchange.create_order(COIN, "market", "buy", 3)
        await exchange.create_order(COIN, "limit", "sell", 3, last * 1.1, {"reduceOnly": True})
        assert await code_of(exchange.create_order(COIN, "market", "sell", 3, None, {"reduceOnly": True})) == "-4118"


async def test_prices_are_taken_over_from_the_book():
    """By priceMatch of ccxt an order takes over a price, and its answer, its query and its amendment say whose."""
    async with running_sandbox(symbols=3, history_days=1, speed=0.05) as sandbox, client(sandbox.url) as exchange:
        book = await exchange.fetch_order_book(COIN, 20)
        for match, side, price in (
            ("QUEUE", "buy", book["bids"][0][0]), ("QUEUE_5", "buy", book["bids"][4][0]),
            ("QUEUE_10", "sell", book["asks"][9][0]), ("QUEUE_20", "sell", book["asks"][19][0]),
        ):  # fmt: skip
            order = await exchange.create_order(COIN, "limit", side, 1, None, {"priceMatch": match, "postOnly": True})
            read = await exchange.fetch_order(order["id"], COIN)
            assert (order["status"], order["price"], read["price"]) == ("open", price, price), match
            assert (order["info"]["priceMatch"], read["info"]["priceMatch"]) == (match, match)
        edited = await exchange.edit_order(order["id"], COIN, "limit", "sell", 1, None, {"priceMatch": "QUEUE"})
        assert (edited["price"], edited["info"]["priceMatch"]) == (book["asks"][0][0], "QUEUE")
        await exchange.cancel_all_orders(COIN)

        for match, level in (("OPPONENT", 0), ("OPPONENT_5", 4), ("OPPONENT_10", 9), ("OPPONENT_20", 19)):
            taken = await exchange.create_order(COIN, "limit", "buy", 1, None, {"priceMatch": match})
            assert (taken["status"], taken["price"], taken["average"]) == (
                "closed", book["asks"][level][0], book["asks"][0][0],
            )  # fmt: skip
        low = exchange.price_to_precision(COIN, book["bids"][0][0] * 0.95)
        guard = {"stopLossPrice": low, "reduceOnly": True, "priceMatch": "OPPONENT_20"}
        stop = await exchange.create_order(COIN, "limit", "sell", 4, None, guard)
        assert stop["info"]["priceMatch"] == "OPPONENT_20"

        good = {**RAW, "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "1", "priceMatch": "QUEUE"}
        for code, params in (
            ("-5037", {**good, "priceMatch": "BEST"}),
            ("-5038", {**good, "type": "MARKET"}),
            ("-1106", {**good, "price": str(book["bids"][0][0])}),
            ("-5022", {**good, "priceMatch": "OPPONENT", "timeInForce": "GTX"}),
        ):
            assert await code_of(exchange.fapiPrivatePostOrder(params)) == code, params
        assert await exchange.fapiPrivatePostOrderTest(good) == {}


async def test_orders_are_edited_in_place():
    """An edited order keeps its id; what cannot be edited is refused, and a crossing post-only order is cancelled."""
    async with running_sandbox(symbols=3, history_days=1) as sandbox, client(sandbox.url) as exchange:
        last = await last_price(exchange)
        low, lower, high = (float(exchange.price_to_precision(COIN, last * f)) for f in (0.95, 0.94, 1.05))
        order = await exchange.create_order(COIN, "limit", "buy", 2, low)
        edited = await exchange.edit_order(order["id"], COIN, "limit", "buy", 3, lower)
        assert (edited["id"], edited["amount"], edited["price"]) == (order["id"], 3.0, lower)
        with pytest.raises(ccxt.OperationRejected, match="-5027"):
            await exchange.edit_order(order["id"], COIN, "limit", "buy", 3, lower)
        assert await code_of(exchange.fapiPrivatePutOrder({**RAW, "orderId": order["id"], "side": "SELL",
                                                           "quantity": "3", "price": str(low)})) == "-1117"  # fmt: skip
        crossed = await exchange.edit_order(order["id"], COIN, "limit", "buy", 3, high)
        assert (crossed["status"], crossed["filled"]) == ("closed", 3.0)
        with pytest.raises(ccxt.OrderNotFound):
            await exchange.edit_order(order["id"], COIN, "limit", "buy", 3, low)

        maker = await exchange.create_order(COIN, "limit", "buy", 2, low, {"postOnly": True})
        moved = await exchange.edit_order(maker["id"], COIN, "limit", "buy", 2, high)
        assert (moved["status"], moved["filled"]) == ("canceled", 0.0)


async def test_batches_answer_leg_by_leg():
    """A refused leg says why and has no id, wherever ccxt puts it (G5); the others live, are edited and cancelled."""
    async with running_sandbox(symbols=3, history_days=1) as sandbox, client(sandbox.url) as exchange:
        last = await last_price(exchange)
        low, lower = (float(exchange.price_to_precision(COIN, last * f)) for f in (0.95, 0.94))

        def leg(price: float, name: str, amount: float = 1) -> dict:
            return {
                "symbol": COIN, "type": "limit", "side": "buy", "amount": amount, "price": price,
                "params": {"clientOrderId": name},
            }  # fmt: skip

        asked = [leg(low, "one"), leg(last * 0.5, "two"), leg(low, "three"), leg(low, "one")]
        made = await exchange.create_orders(asked)
        refused = [one for one in made if one["id"] is None]
        assert {one["clientOrderId"] for one in made if one["id"]} == {"one", "three"}
        assert sorted(one["info"]["code"] for one in refused) == [-4116, -4024]
        # The order of answers is not that of the request.
        assert [one["clientOrderId"] for one in made] != ["one", None, "three", None]

        ids = {one["clientOrderId"]: one["id"] for one in made if one["id"]}
        edited = await exchange.edit_orders(
            [
                {"id": ids["one"], "symbol": COIN, "type": "limit", "side": "buy", "amount": 2, "price": lower},
                {"id": "77", "symbol": COIN, "type": "limit", "side": "buy", "amount": 2, "price": lower},
            ]
        )
        assert {one["amount"] for one in edited if one["id"]} == {2.0}
        assert [one["info"]["code"] for one in edited if not one["id"]] == [-2013]
        assert {one["clientOrderId"]: one["amount"] for one in await exchange.fetch_open_orders(COIN)} == {
            "one": 2.0, "three": 1.0,
        }  # fmt: skip

        ended = await exchange.cancel_orders([ids["one"], "77"], COIN)
        # Of what could not be cancelled ccxt says nothing; the venue does.
        assert [(one["clientOrderId"], one["status"]) for one in ended] == [("one", "canceled")]
        again = {**RAW, "orderidlist": [ids["one"], "77"]}
        said = await exchange.fapiPrivateDeleteBatchOrders(again)
        assert [one["code"] for one in said] == [-2011, -2011]
        await exchange.cancel_orders(None, COIN, {"clientOrderIds": ["three"]})
        assert await exchange.fetch_open_orders(COIN) == []


@pytest.mark.parametrize(
    ("batch", "code"),
    [
        ("[]", -4082),
        ("[" + ",".join(["{}"] * 6) + "]", -4082),
        ("{}", -1130),
        ("[1]", -1130),
        ("nonsense", -1130),
        ("[{}]", None),
        ('[{"symbol":[1],"side":{"a":1},"quantity":null,"type":false}]', None),
    ],
)
async def test_hostile_batches_are_refused_whole_or_leg_by_leg(batch, code):
    """What is no list of orders is refused; a leg that is no order is refused alone."""
    async with running_sandbox(symbols=1, history_days=1) as sandbox, aiohttp.ClientSession() as session:
        body = urlencode({"batchOrders": batch, "recvWindow": 30_000, "timestamp": utc_now_ms()})
        body += f"&signature={Credentials(API_KEY, API_SECRET).sign(body)}"
        headers = {"X-MBX-APIKEY": API_KEY, "Content-Type": "application/x-www-form-urlencoded"}
        async with session.post(sandbox.url + "/fapi/v1/batchOrders", data=body, headers=headers) as answer:
            said = await answer.json()
    if code is None:
        assert [one["code"] for one in said] == [-1102 if batch == "[{}]" else -1121]
    else:
        assert said["code"] == code


async def test_cancellation_that_loses_the_race_finds_the_order_filled():
    """With a slow cancellation and a market that takes the order first, the client is told -2011 and finds a fill."""
    async with running_sandbox(symbols=3, history_days=1, speed=60) as sandbox, client(sandbox.url) as exchange:
        told = await sandbox.ctl(op="rules", cancel_ms=240_000, touch_probability=1)
        assert (told["cancel_ms"], told["touch_probability"]) == (240_000, "1")
        # Four minutes of venue time go by while the cancellation is under way; a limit near the market is reached.
        losses: list[str] = []
        async with asyncio.timeout(240):
            while not losses:
                price = float(exchange.price_to_precision(COIN, await last_price(exchange)))
                order = await exchange.create_order(COIN, "limit", "buy", 1, price)
                try:
                    await exchange.cancel_order(order["id"], COIN)
                except ccxt.OrderNotFound as refusal:
                    losses.append(str(refusal))
        found = await exchange.fetch_order(order["id"], COIN)

    assert "-2011" in losses[0]
    assert (found["status"], found["filled"]) == ("closed", 1.0)


async def test_participation_fills_in_parts_that_the_client_sees():
    """With a bound on volume a market order expires with what it got, and its trades add up to it."""
    async with running_sandbox(symbols=3, history_days=1) as sandbox, client(sandbox.url) as exchange:
        told = await sandbox.ctl(op="rules", participation="0.0001")
        assert told["participation"] == "0.0001"
        order = await exchange.create_order(COIN, "market", "buy", 500)
        trades = await exchange.fetch_my_trades(COIN)

        assert order["status"] == "expired"
        assert 0 <= order["filled"] < 500
        assert sum(one["amount"] for one in trades) == pytest.approx(order["filled"])
        await sandbox.ctl(op="clear")
        whole = await exchange.create_order(COIN, "market", "buy", 500)
        assert (whole["status"], whole["filled"]) == ("closed", 500.0)


async def test_news_of_an_order_comes_as_late_as_was_said():
    """With a slow feed the account's stream tells of a fill after the answer, and not before its time."""
    async with running_sandbox(symbols=1, history_days=1, speed=1) as sandbox, client(sandbox.url) as exchange:
        key = (await exchange.fapiPrivatePostListenKey())["listenKey"]
        await sandbox.ctl(op="rules", feed_ms=1_500)
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{sandbox.ws_url}/private/ws?listenKey={key}") as stream,
        ):
            asked = monotonic()
            await exchange.create_order("BTC/USDT:USDT", "market", "buy", 0.01)
            answered = monotonic()
            async with asyncio.timeout(120):
                heard = [(await stream.receive_json())["e"] for _ in range(3)]
            told = monotonic()

    assert heard == ["ORDER_TRADE_UPDATE", "ACCOUNT_UPDATE", "ORDER_TRADE_UPDATE"]
    assert asked < answered < told
    assert told - asked >= 1.5


@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_answers_to_every_kind_of_order_pass_the_models_of_the_sdk():
    """Amendments, batches, every type and time in force are what the SDK's models expect."""
    async with running_sandbox(symbols=3, history_days=1) as sandbox:
        rest = sdk(sandbox).rest_api
        ticker = await asyncio.to_thread(lambda: rest.symbol_price_ticker_v2(symbol="SOLUSDT").data())
        last = float((ticker.actual_instance if hasattr(ticker, "actual_instance") else ticker).price)
        low, lower, high = round(last * 0.95, 2), round(last * 0.94, 2), round(last * 1.05, 2)
        order = {**RAW, "side": "BUY", "type": "LIMIT", "quantity": 3.0, "new_order_resp_type": "RESULT"}
        algo = {**RAW, "algo_type": "CONDITIONAL", "side": "SELL", "quantity": 1.0, "reduce_only": "true"}
        leg = {**RAW, "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "1", "price": str(low)}
        calls = [
            ("new_order", {**RAW, "side": "BUY", "type": "MARKET", "quantity": 5.0, "new_order_resp_type": "RESULT"}),
            ("new_order", {**order, "time_in_force": "GTC", "price": low, "new_client_order_id": "rest"}),
            ("new_order", {**order, "time_in_force": "GTX", "price": low}),
            ("new_order", {**order, "time_in_force": "GTX", "price_match": "QUEUE_5"}),
            ("new_order", {**order, "time_in_force": "IOC", "price": low}),
            ("new_order", {**order, "time_in_force": "FOK", "price": high, "self_trade_prevention_mode": "NONE"}),
            ("test_order", {**order, "time_in_force": "GTC", "price": low}),
            ("modify_order", {**RAW, "side": "BUY", "orig_client_order_id": "rest", "quantity": 2.0, "price": lower}),
            ("place_multiple_orders", {"batch_orders": [
                {**leg, "newClientOrderId": "leg"}, {**leg, "price": "1"}]}),
            ("modify_multiple_orders", {"batch_orders": [
                {**RAW, "side": "BUY", "origClientOrderId": "leg", "quantity": "2", "price": str(lower)}]}),
            ("new_algo_order", {**algo, "type": "STOP", "trigger_price": low, "price": lower, "time_in_force": "GTC"}),
            ("new_algo_order", {**algo, "type": "TAKE_PROFIT", "trigger_price": high, "price_match": "OPPONENT_5",
                                "time_in_force": "GTC"}),
            ("new_algo_order", {**algo, "type": "TAKE_PROFIT_MARKET", "trigger_price": high,
                                "working_type": "MARK_PRICE"}),
            ("new_algo_order", {**algo, "type": "TRAILING_STOP_MARKET", "callback_rate": 1.0,
                                "activate_price": high}),
            ("current_all_algo_open_orders", {}),
            ("all_orders", RAW),
            ("cancel_multiple_orders", {**RAW, "orig_client_order_id_list": ["leg"]}),
        ]  # fmt: skip
        for name, given in calls:
            answer = await asyncio.to_thread(lambda call=name, given=given: getattr(rest, call)(**given).data())
            assert answer is not None, name
