"""The exchange's control plane over HTTP: every fault can be brought about and undone, and nonsense does nothing."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from urllib.parse import urlencode

import aiohttp
import pytest

from feature_store.clock import monotonic
from infra.prove.desk import API_KEY, API_SECRET
from infra.prove.fault_story import until
from infra.prove.own_venue import own_venue
from infra.sandbox.faults import FaultError
from infra.sandbox.presets import PRESETS
from infra.sandbox.protocol.signing import Credentials

CREDENTIALS = Credentials(API_KEY, API_SECRET)
HEADERS = {"X-MBX-APIKEY": API_KEY}


@pytest.fixture
async def venue():
    """Return a running venue."""
    async with own_venue() as found:
        yield found


@pytest.fixture
async def session():
    """Return a client of HTTP."""
    async with aiohttp.ClientSession(headers=HEADERS, timeout=aiohttp.ClientTimeout(20)) as found:
        yield found


async def ask(session, venue, method, path, **params):
    """Make a signed request; return status, headers and what was answered."""
    query = urlencode(params | {"timestamp": venue.sandbox.clock.reported_ms(monotonic()), "recvWindow": 5000})
    url = f"{venue.url}{path}?{query}&signature={CREDENTIALS.sign(query)}"
    async with session.request(method, url) as answer:
        text = await answer.text()
        if answer.content_type == "application/json" and text.startswith(("{", "[")) and text.endswith(("}", "]")):
            return answer.status, answer.headers, await answer.json()
        return answer.status, answer.headers, text


async def order(session, venue, name, quantity="0.01", side="BUY", **more):
    """Send a market order."""
    given = {"symbol": "BTCUSDT", "side": side, "type": "MARKET", "quantity": quantity, "newClientOrderId": name}
    return await ask(session, venue, "POST", "/fapi/v1/order", **given, newOrderRespType="RESULT", **more)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"null", b"{", b'"fault"', b'{"op": 3}', b'{"op": "rm -rf"}', b'{"op": "__class__"}', b"\xff\xfe",
        b'{"op": "fault", "action": "explode"}', b'{"op": "fault", "status": 99}', b'{"op": "fault", "status": "x"}',
        b'{"op": "fault", "times": 0}', b'{"op": "fault", "times": 1.5}', b'{"op": "fault", "p": 2}',
        b'{"op": "fault", "p": "NaN"}', b'{"op": "fault", "secs": -1}', b'{"op": "fault", "secs": 1e99}',
        b'{"op": "fault", "headers": [1]}', b'{"op": "fault", "headers": {"a": "b\\r\\nc: d"}}',
        b'{"op": "fault", "retry_after": "soon"}', b'{"op": "fault", "spare_reduce_only": "yes"}',
        b'{"op": "skew", "ms": "x"}', b'{"op": "skew", "ms": 1e13}', b'{"op": "freeze_ws", "on": 1}',
        b'{"op": "partial", "frac": 2}', b'{"op": "partial", "frac": 0.5, "times": -1}',
        b'{"op": "stale_reads", "secs": "long"}', b'{"op": "limits", "weight": 0}',
        b'{"op": "limits", "streams": 0}', b'{"op": "freeze_ws", "symbol": "NOSUCH"}',
        b'{"op": "hold", "secs": null, "strikes": 0}',
        b'{"op": "halt", "symbol": "NOSUCH"}', b'{"op": "price", "factor": 0}', b'{"op": "price", "factor": 1e9}',
        b'{"op": "trade", "symbol": "BTCUSDT", "side": "UP", "quantity": 1}',
        b'{"op": "trade", "symbol": "BTCUSDT", "side": "BUY", "quantity": 0}',
        b'{"op": "trade", "symbol": "BTCUSDT", "side": "BUY", "quantity": 1e11}',
        b'{"op": "trade", "symbol": "../..", "side": "BUY", "quantity": 1}',
        b'{"op": "adl", "symbol": "BTCUSDT"}', b'{"op": "adl", "symbol": "BTCUSDT", "share": 2}',
        b'{"op": "push", "to": "nobody"}', b'{"op": "wsfault", "dup": "twice"}', b'{"op": "wsfault", "handshake": -1}',
        b'{"op": "key_life", "minutes": 0}', b'{"op": "expire_key", "silent": 0}', b'{"op": "preset"}',
        b'{"op": "preset", "name": "the end"}', b'{"op": "script"}', b'{"op": "script", "steps": [{"op": "kill_ws"}]}',
        b'{"op": "script", "steps": [{"op": "explode", "after": 1}]}',
        b'{"op": "script", "steps": [{"op": "kill_ws", "after": 1, "for": 5}]}',
    ],
)  # fmt: skip
async def test_nonsense_is_refused_and_changes_nothing(venue, session, body):
    """Status 400 and a sentence; the venue answers as before, and nothing is in force."""
    async with session.post(f"{venue.url}/sandbox/ctl", data=body) as answer:
        said = await answer.json()

    assert answer.status == 400, said
    assert said["error"]
    status, _, placed = await order(session, venue, "after-nonsense")
    assert (status, placed["status"], placed["executedQty"]) == (200, "FILLED", "0.01")
    assert venue.sandbox.faults.rules == []
    assert len(venue.sandbox.script) == 0


@pytest.mark.parametrize("name", PRESETS)
async def test_every_preset_can_be_brought_about_and_undone(venue, session, name):
    """By its name, noted in the log; after `clear` an order is filled as ever."""
    await venue.do(op="preset", name=name)
    await venue.do(op="clear")
    status, headers, placed = await order(session, venue, "well")

    assert (status, placed["status"]) == (200, "FILLED")
    assert headers["X-MBX-ORDER-COUNT-1M"] == "1"
    noted = [one["op"] for one in venue.sandbox.faults.operations]
    assert noted[0] == "preset"
    assert noted[-1] == "clear"
    assert set(noted[1:-1]) == {one["op"] for one in PRESETS[name]}


async def test_a_hold_answers_429_with_retry_after_and_then_bans(venue, session):
    """Who asks on is told 418 and until when, in the venue's time; a lifted ban lets in."""
    await venue.do(op="hold", secs=5, strikes=2, ban_secs=60)
    first = await ask(session, venue, "GET", "/fapi/v1/openOrders")
    second = await ask(session, venue, "GET", "/fapi/v1/openOrders")

    assert (first[0], first[1]["Retry-After"], first[2]["code"]) == (429, "5", -1003)
    assert (second[0], second[1]["Retry-After"]) == (418, "60")
    until_ms = int(second[2]["msg"].split("banned until ")[1].split(".")[0])
    assert 50_000 < until_ms - venue.sandbox.now_ms() <= 60_000


async def test_limits_are_off_unless_asked_for(venue, session):
    """The same requests are let in without limits and refused with them."""
    free = [await ask(session, venue, "GET", "/fapi/v1/income") for _ in range(3)]
    await venue.do(op="limits", weight=1)
    bound = await ask(session, venue, "GET", "/fapi/v1/income")

    assert [one[0] for one in free] == [200, 200, 200]
    assert int(free[-1][1]["X-MBX-USED-WEIGHT-1M"]) >= 30
    assert bound[0] == 429


async def test_stale_reads_deny_what_is_young(venue, session):
    """An order just sent is neither found, listed nor cancelled, though it rests; when it is older, it is there."""
    rest = {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.01"}
    price = str(round(float(venue.sandbox.venue.last_price("BTCUSDT")) * 0.97, 1))
    await venue.do(op="stale_reads", secs=60)
    placed = await ask(session, venue, "POST", "/fapi/v1/order", **rest, price=price, newClientOrderId="young")
    named = {"symbol": "BTCUSDT", "origClientOrderId": "young"}
    query = await ask(session, venue, "GET", "/fapi/v1/order", **named)
    listed = await ask(session, venue, "GET", "/fapi/v1/openOrders")
    cancel = await ask(session, venue, "DELETE", "/fapi/v1/order", **named)
    await venue.do(op="stale_reads", on=False)
    later = await ask(session, venue, "GET", "/fapi/v1/order", **named)

    assert placed[0] == 200
    assert (query[2]["code"], listed[2], cancel[2]["code"]) == (-2013, [], -2011)
    assert later[2]["status"] == "NEW"


async def test_an_overloaded_venue_still_takes_reductions(venue, session):
    """-1008 for what opens, nothing for what closes."""
    await order(session, venue, "in")
    await venue.do(op="preset", name="overload")
    more = await order(session, venue, "more")
    out = await order(session, venue, "out", side="SELL", reduceOnly="true")

    assert (more[0], more[2]["code"]) == (503, -1008)
    assert (out[0], out[2]["status"]) == (200, "FILLED")


async def test_a_taker_gets_a_part_and_the_rest_expires(venue, session):
    """A quarter of a market order, once; the next is filled whole."""
    await venue.do(op="partial", frac=0.25, times=1)
    part = await order(session, venue, "part", quantity="0.04")
    whole = await order(session, venue, "whole", quantity="0.04")

    assert (part[2]["status"], float(part[2]["executedQty"])) == ("EXPIRED", 0.01)
    assert (whole[2]["status"], float(whole[2]["executedQty"])) == ("FILLED", 0.04)


@pytest.mark.parametrize(
    ("preset", "said"), [("page", "<html>"), ("empty", ""), ("truncated", '{"')], ids=["page", "empty", "truncated"]
)
async def test_a_success_that_cannot_be_read_was_executed(venue, session, preset, said):
    """Status 200 with a page, nothing or half an answer; the order is filled all the same."""
    await venue.do(op="preset", name=preset)
    status, _, text = await order(session, venue, "unread")
    shown = await ask(session, venue, "GET", "/fapi/v1/order", symbol="BTCUSDT", origClientOrderId="unread")

    assert status == 200
    assert isinstance(text, str)
    assert text.startswith(said)
    assert shown[2]["status"] == "FILLED"


async def test_a_halted_symbol_takes_no_orders_and_says_so(venue, session):
    """-4108 there and not elsewhere, and exchangeInfo shows it."""
    await venue.do(op="halt", symbol="BTCUSDT")
    there = await order(session, venue, "there")
    _, _, info = await ask(session, venue, "GET", "/fapi/v1/exchangeInfo")

    assert there[2]["code"] == -4108
    shown = {one["symbol"]: one["status"] for one in info["symbols"]}
    assert shown["BTCUSDT"] != "TRADING"
    assert shown["ETHUSDT"] == "TRADING"


@pytest.mark.parametrize(("kind", "name"), [("liquidation", "autoclose-"), ("adl", "adl_autoclose")])
async def test_a_position_is_closed_by_force(venue, session, kind, name):
    """All of it, by an order whose id says by whom."""
    await order(session, venue, "mine", quantity="0.03")
    await venue.do(op=kind, symbol="BTCUSDT")
    _, _, trades = await ask(session, venue, "GET", "/fapi/v1/allOrders", symbol="BTCUSDT")

    assert venue.audit()["open_positions"] == []
    assert trades[-1]["clientOrderId"].startswith(name)


async def test_a_lost_listen_key_is_denied(venue, session):
    """PUT says -1125 once the key is gone, POST makes another."""
    async with session.post(f"{venue.url}/fapi/v1/listenKey") as answer:
        first = (await answer.json())["listenKey"]
    await venue.do(op="expire_key", silent=True)
    async with session.put(f"{venue.url}/fapi/v1/listenKey") as answer:
        refused = await answer.json()
    async with session.post(f"{venue.url}/fapi/v1/listenKey") as answer:
        second = (await answer.json())["listenKey"]

    assert refused["code"] == -1125
    assert second != first


async def test_refused_handshakes_say_how_long_to_wait(venue, session):
    """As many as were asked for, then sockets open again."""
    await venue.do(op="wsfault", handshake=429, times=1, secs=7)
    with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
        await session.ws_connect(f"{venue.url}/market/ws")
    async with session.ws_connect(f"{venue.url}/market/ws") as socket:
        await socket.send_json({"method": "LIST_SUBSCRIPTIONS", "params": [], "id": 1})
        said = await socket.receive_json(timeout=10)

    assert refusal.value.status == 429
    assert refusal.value.headers["Retry-After"] == "7"
    assert said == {"result": [], "id": 1}


@pytest.mark.parametrize(
    "path", ["/ws", "/market/ws/1", "/public/ws/2", "/stream?streams=btcusdt@bookTicker", "/ws/btcusdt@bookTicker",
             "/market/stream?streams=btcusdt@bookTicker"],
)  # fmt: skip
async def test_sockets_open_at_the_split_paths_and_the_older_ones(venue, session, path):
    """Each path serves; on /stream what comes is wrapped."""
    async with session.ws_connect(venue.url + path) as socket:
        if "@" not in path:
            await socket.send_json({"method": "SUBSCRIBE", "params": ["btcusdt@bookTicker"], "id": 1})
            await socket.receive_json(timeout=10)
        event = await socket.receive_json(timeout=10)

    assert ("data" in event) is ("stream" in path)
    assert event.get("data", event)["s"] == "BTCUSDT"


async def test_a_black_hole_answers_neither_requests_nor_pings(venue, session):
    """Nothing comes while it lasts; what was asked before it ends is answered then."""
    async with session.ws_connect(f"{venue.url}/market/ws", autoping=False) as socket:
        await venue.do(op="black_hole")
        await socket.ping()
        asked = asyncio.ensure_future(ask(session, venue, "GET", "/fapi/v1/openOrders"))
        with pytest.raises(asyncio.TimeoutError):
            await socket.receive(timeout=0.3)
        assert not asked.done()
        await venue.do(op="black_hole", on=False)

        assert (await asked)[0] == 200


async def test_doubled_and_overtaking_events(venue, session):
    """Each event twice, each second one before the first."""
    async with session.post(f"{venue.url}/fapi/v1/listenKey") as answer:
        key = (await answer.json())["listenKey"]
    await venue.do(op="wsfault", dup=True, reverse=True)
    async with session.ws_connect(f"{venue.url}/private/ws?listenKey={key}") as socket:
        await order(session, venue, "twice")
        events = [await socket.receive_json(timeout=10) for _ in range(4)]

    assert events[0] == events[1]
    assert events[2] == events[3]
    assert events[0] != events[2]
    assert events[2].get("o", {}).get("x") == "NEW"


async def test_a_script_does_a_thing_for_its_time(venue, session):
    """A freeze planned for now lasts as long as it says, and is over then."""
    await venue.do(op="script", steps=[{"after": 0, "for": 0.4, "op": "freeze_ws"},
                                       {"after": 0, "for": 0.4, "op": "fault", "status": 500, "p": 1.0}])  # fmt: skip
    hub, faults = venue.sandbox.hub, venue.sandbox.faults
    assert await until(lambda: hub.frozen_market and bool(faults.rules), 10.0) is not None
    during = await order(session, venue, "during")
    assert await until(lambda: not hub.frozen_market and not faults.rules, 10.0) is not None
    after = await order(session, venue, "after")

    assert during[0] == 500
    assert (after[0], after[2]["status"]) == (200, "FILLED")


@pytest.mark.parametrize(
    "action", ["exec_then_status", "exec_then_truncate", "exec_then_drop", "exec_then_hang", "delay", "late_exec"]
)
async def test_a_request_that_fails_takes_as_long_to_the_engine_as_any_other(venue, session, action):
    """Where latency is configured, an order that is executed and whose answer is spoilt arrives no sooner for that."""
    await venue.do(op="rules", insert_ms=300)
    await venue.do(op="fault", path="/fapi/v1/order", method="POST", action=action, secs=0.0)
    orders, sent_ms = venue.sandbox.venue.exchange.state.orders, venue.sandbox.now_ms()
    with suppress(aiohttp.ServerDisconnectedError):
        await order(session, venue, "spoilt")
    assert await until(lambda: bool(orders), 20.0) is not None

    assert [(one.client_order_id, one.status) for one in orders.values()] == [("spoilt", "FILLED")]
    assert next(iter(orders.values())).created_ms >= sent_ms + 300


async def test_there_is_a_limit_to_how_many_faults_wait(venue):
    """Rules without end would make each request slower than the last."""
    for _ in range(10_000):
        await venue.do(op="fault", path="/never")
    with pytest.raises(FaultError, match="At most"):
        await venue.do(op="fault", path="/never")
