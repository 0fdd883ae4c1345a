"""The Bitfinex front under faults: raw frames, freezes, lost answers and bodies that no client would send."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager, suppress
from email.utils import parsedate_to_datetime

import aiohttp
import pytest

from infra.prove.desk import API_KEY, API_SECRET
from infra.prove.fault_story import until
from infra.prove.own_venue import own_venue
from infra.sandbox.bitfinex.signing import signature
from infra.sandbox.bitfinex.socket import Session
from infra.sandbox.control import perform
from infra.sandbox.order_rules import changed
from infra.sandbox.script import Undo
from infra.sandbox.streams import Connection
from tests.unit.test_sandbox_latency import make_sandbox

BTC, ETH = "tBTCF0:USTF0", "tETHF0:USTF0"
SUBMIT = "/v2/auth/w/order/submit"


@pytest.fixture
async def venue():
    """Return a running venue."""
    async with own_venue() as found:
        yield found


@pytest.fixture
async def session():
    """Return a client of HTTP."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(20)) as found:
        yield found


class Client:
    """Signs requests, each with a nonce that is larger than the one before."""

    def __init__(self, session, url):
        self.session, self.url, self.nonce = session, url, 0

    async def ask(self, path, body):
        """Make a signed request; return the answer's status, headers and content."""
        self.nonce += 1
        text = body if isinstance(body, str) else json.dumps(body)
        headers = {"bfx-nonce": str(self.nonce), "bfx-apikey": API_KEY}
        headers["bfx-signature"] = signature(API_SECRET, f"/api{path}{self.nonce}{text}")
        async with self.session.post(f"{self.url}/bitfinex{path}", data=text, headers=headers) as answer:
            text = await answer.text()
            with suppress(json.JSONDecodeError):
                text = json.loads(text)
            return answer.status, answer.headers, text

    async def buy(self, **more):
        """Send a market order."""
        return await self.ask(SUBMIT, {"type": "MARKET", "symbol": BTC, "amount": "0.01"} | more)


@pytest.fixture
def client(venue, session):
    """Return one that signs."""
    return Client(session, venue.url)


@asynccontextmanager
async def followed(venue, session, *channels):
    """Open a socket with a channel for each pair of kind and contract."""
    async with session.ws_connect(f"{venue.url}/bitfinex/ws/2") as socket:
        assert (await socket.receive_json(timeout=10))["event"] == "info"
        for kind, symbol in channels:
            await socket.send_json({"event": "subscribe", "channel": kind, "symbol": symbol})
            await heard(socket, lambda one: isinstance(one, dict) and one["event"] == "subscribed")
        yield socket


async def heard(socket, wanted):
    """Return the first message of a socket that is wanted."""
    async with asyncio.timeout(20):
        while not wanted(found := json.loads(await socket.receive_str())):
            pass
    return found


@pytest.mark.parametrize("frame", ["{broken", '{"e":1}', "[]"])
async def test_a_raw_frame_comes_once_and_as_it_is(venue, session, frame):
    """A socket with two channels gets the very frame, and the control plane answers how many sockets did."""
    async with followed(venue, session, ("ticker", BTC), ("trades", ETH)) as socket:
        async with session.post(f"{venue.url}/sandbox/ctl", json={"op": "push", "frame": frame}) as answer:
            assert (answer.status, await answer.json()) == (200, {"ok": True, "pushed": 1})
        async with asyncio.timeout(20):
            while await socket.receive_str() != frame:
                pass


async def test_a_step_that_fails_in_any_way_is_told_and_time_goes_on(venue, session, capsys):
    """A step that breaks is a line on stderr; the step after it is done, and what it froze thaws."""
    sandbox = venue.sandbox
    async with followed(venue, session, ("ticker", BTC)):
        steps = [
            {"after": 0, "op": "key_life", "minutes": "x"},
            {"after": 0, "op": "push", "frame": "{broken"},
            {"after": 0, "op": "push", "to": ["nobody"]},
            {"after": 0.1, "op": "skew", "ms": 5, "for": 0.1},
        ]
        sandbox.script.undo_later(0.0, Undo(lambda: {}["gone"]))
        await venue.do(op="script", steps=steps)
        assert await until(lambda: sandbox.clock.skew_ms == 5, 10.0) is not None
        assert await until(lambda: sandbox.clock.skew_ms == 0, 10.0) is not None
    told = capsys.readouterr().err
    assert told.count("A step of the fault script failed: FaultError") == 2
    assert "The end of a step of the fault script failed: KeyError" in told


async def test_every_answer_is_dated_by_the_venue(venue, client):
    """A faulted answer, 429, half an answer and a refusal tell the venue's time; a fault may bring another."""
    answers = []
    fault = {"op": "fault", "path": SUBMIT, "method": "POST", "times": 1}
    for action in ({"status": 503}, {"action": "delay", "secs": 0.0}, {"action": "exec_then_truncate"}):
        await venue.do(**fault, **action)
        answers.append(await client.buy(type="NONE" if "secs" in action else "MARKET"))
    await venue.do(op="hold", secs=60)
    answers.append(await client.buy())
    await venue.do(op="hold", on=False)

    assert [status for status, _, _ in answers] == [503, 500, 200, 429]
    for _, headers, _ in answers:
        told_ms = parsedate_to_datetime(headers["Date"]).timestamp() * 1000
        assert abs(venue.sandbox.now_ms() - told_ms) < 60_000
    await venue.do(**fault, status=503, headers={"Date": "Thu, 01 Jan 1970 00:00:00 GMT"})
    assert (await client.buy())[1]["Date"] == "Thu, 01 Jan 1970 00:00:00 GMT"


@pytest.mark.parametrize("action", ["exec_then_status", "exec_then_drop", "delay", "late_exec"])
async def test_an_order_that_fails_takes_as_long_to_the_engine_as_any_other(venue, client, action):
    """Where latency is configured, an order that is executed and whose answer is spoilt arrives no sooner for that."""
    await venue.do(op="rules", insert_ms=300)
    await venue.do(op="fault", path=SUBMIT, method="POST", action=action, secs=0.0)
    orders, sent_ms = venue.sandbox.venue.exchange.state.orders, venue.sandbox.now_ms()
    with suppress(aiohttp.ServerDisconnectedError):
        await client.buy(cid=7)
    assert await until(lambda: bool(orders), 20.0) is not None

    assert [(one.client_order_id, one.status) for one in orders.values()] == [("7", "FILLED")]
    assert next(iter(orders.values())).created_ms >= sent_ms + 300


async def test_what_is_refused_at_the_door_is_not_executed_unheard(venue, client):
    """A late order that is signed wrongly reaches nothing."""
    await venue.do(op="rules", insert_ms=1)
    await venue.do(op="fault", path=SUBMIT, method="POST", action="late_exec", secs=0.0, times=1)
    client.nonce = -1
    assert (await client.buy())[0] == 503
    assert (await client.buy())[0] == 200
    assert len(venue.sandbox.venue.exchange.state.orders) == 1


HUGE = "9" * 5_000


@pytest.mark.parametrize(
    "body",
    [
        {"type": ["x"]}, {"type": {}}, {"type": None}, {"price": "1e-99999999", "type": "LIMIT"},
        {"price": "1e99999999", "type": "LIMIT"}, {"price": "NaN", "type": "STOP"}, {"amount": "1e-99999999"},
        {"amount": "0e-99999999"}, {"amount": []}, {"symbol": ["x"]}, {"symbol": {}}, {"flags": {}}, {"cid": [1]},
        {"lev": "x"}, {"flags": HUGE}, {"amount": HUGE}, {"tif": {}},
        f'{{"type": "MARKET", "symbol": "{BTC}", "amount": {HUGE}}}', "[" * 100_000, '{"amount":' * 100_000, "null",
        "3", '"x"', "{", "\U0001f600",
    ],
    ids=range(25),
)  # fmt: skip
@pytest.mark.parametrize("insert_ms", [0, 1])
async def test_an_order_that_cannot_be_read_is_refused_in_bitfinex_words(venue, client, body, insert_ms):
    """An array of error, number and words, whether it takes time to the engine or not, and no order comes of it."""
    await venue.do(op="rules", insert_ms=insert_ms)
    if isinstance(body, str):
        status, _, said = await client.ask(SUBMIT, body)
    else:
        status, _, said = await client.buy(**body)
    assert status == 500
    assert (said[0], type(said[1]), type(said[2])) == ("error", int, str)
    assert said[1] != 10_000
    assert not venue.sandbox.venue.exchange.state.orders


@pytest.mark.parametrize(
    "second", [[["on"], {}], [{}, {}], ["on", []], ["on"], [None, {}], "on", {}, None, ["nothing", {}], [["on", {}]]]
)
async def test_several_operations_of_which_one_is_none_do_nothing(venue, client, second):
    """The refusal names the parameter, and the operation before it was not done either."""
    first = ["on", {"type": "MARKET", "symbol": BTC, "amount": "0.01"}]
    status, _, said = await client.ask("/v2/auth/w/order/multi", {"ops": [first, second]})

    assert (status, said) == (500, ["error", 10_020, "ops: invalid"])
    assert not venue.sandbox.venue.exchange.state.orders


async def test_a_defect_of_the_venue_is_answered_in_its_words(venue, client, capsys):
    """Whatever breaks behind a request is 10000, at once or under way, and stderr shows where it broke."""
    exchange = venue.sandbox.venue.exchange
    exchange.state.leverage = None
    for insert_ms in (0, 1):
        exchange.state.rules = changed(exchange.state.rules, {"insert_ms": insert_ms})
        assert (await client.buy())[::2] == (500, ["error", 10_000, "unknown error"])
    assert "AttributeError" in capsys.readouterr().err


@pytest.mark.parametrize(
    "frame",
    [
        {"event": "unsubscribe", "chanId": HUGE}, {"event": "unsubscribe", "chanId": "\u00b2"},
        {"event": "unsubscribe", "chanId": [1]}, {"event": "unsubscribe", "chanId": True}, {"event": "unsubscribe"},
        f'{{"event": "unsubscribe", "chanId": {HUGE}}}', f'{{"event": {HUGE}}}', {"event": ["auth"]}, {"event": {}},
        "[" * 100_000, "{", "null", {"event": "subscribe", "channel": ["book"], "symbol": [BTC]},
        {"event": "subscribe", "channel": "book", "symbol": BTC, "len": HUGE, "prec": {}},
        {"event": "subscribe", "channel": "candles", "key": {"a": 1}},
    ],
    ids=range(15),
)  # fmt: skip
async def test_a_frame_that_cannot_be_read_leaves_the_socket_open(venue, session, frame):
    """It is answered with an error, and what is asked next is done."""
    async with followed(venue, session, ("trades", ETH)) as socket:
        await socket.send_str(frame if isinstance(frame, str) else json.dumps(frame))
        said = await heard(socket, lambda one: isinstance(one, dict))
        await socket.send_json({"event": "ping", "cid": 5})
        after = await heard(socket, lambda one: isinstance(one, dict))
    assert said["event"] == "error"
    assert (after["event"], after["cid"]) == ("pong", 5)


@pytest.mark.parametrize("kind", [int, str])
async def test_a_channel_ends_by_its_number(venue, session, kind):
    """Written as a number or as text."""
    async with session.ws_connect(f"{venue.url}/bitfinex/ws/2") as socket:
        await socket.send_json({"event": "subscribe", "channel": "trades", "symbol": ETH})
        number = (await heard(socket, lambda one: isinstance(one, dict) and "chanId" in one))["chanId"]
        await socket.send_json({"event": "unsubscribe", "chanId": kind(number)})
        said = await heard(socket, lambda one: isinstance(one, dict))
    assert said == {"event": "unsubscribed", "status": "OK", "chanId": number}


class Written:
    """Keeps what a session says."""

    def __init__(self, sandbox):
        self.connection = Connection(None, combined=False)
        sandbox.hub.add(self.connection)
        account = sandbox.bitfinex.account
        self.session = Session(sandbox, sandbox.bitfinex.doorkeeper, account, self.connection)
        account.join(self.connection)

    def follow(self, channel, symbol):
        """Open a channel."""
        self.session.take(json.dumps({"event": "subscribe", "channel": channel, "symbol": symbol}))

    def said(self):
        """Return what was said since the last time."""
        return [json.loads(self.connection.queue.get_nowait()) for _ in range(self.connection.queue.qsize())]

    def beats(self):
        """Return how many channels say that they are alive, where all were quiet for long."""
        for channel in self.session._channels.values():
            channel.told_at = -1e9
        self.session._account.listeners[self.connection] = -1e9
        self.said()
        self.session.beat()
        return sorted(number for number, word in self.said() if word == "hb")


@pytest.fixture
def quiet():
    """Return a venue that nobody moves, and a socket with three channels beside that of the account."""
    sandbox = make_sandbox()
    written = Written(sandbox)
    for channel in ("ticker", "trades", "book"):
        written.follow(channel, "tSOLF0:USTF0")
    yield sandbox, written
    written.session.leave()


@pytest.mark.parametrize(
    ("operation", "channels", "account"),
    [({}, 0, 0), ({"symbol": "SOLUSDT"}, 0, 0), ({"user": False}, 0, 1), ({"market": False}, 3, 0)],
    ids=["all", "symbol", "market", "user"],
)
async def test_what_is_frozen_does_not_even_beat(quiet, operation, channels, account):
    """No heartbeat of what is frozen, all of them once it thaws."""
    sandbox, written = quiet
    assert len(written.beats()) == 4
    await perform(sandbox, {"op": "freeze_ws", **operation})
    beats = written.beats()
    assert (sum(one > 0 for one in beats), beats.count(0)) == (channels, account)
    await perform(sandbox, {"op": "freeze_ws", **operation, "on": False})
    assert len(written.beats()) == 4


async def test_a_frozen_socket_is_one_however_many_channels_it_carries(venue, session, client):
    """One symbol freezes the whole of its socket, the other socket hears of its own, and a new channel stays mute."""
    hub = venue.sandbox.hub
    async with (
        followed(venue, session, ("ticker", BTC), ("ticker", ETH), ("trades", BTC)) as mute,
        followed(venue, session, ("ticker", ETH)) as well,
    ):
        assert await venue.do(op="freeze_ws", symbol="BTCUSDT") == {"ok": True, "frozen": 1}
        await mute.send_json({"event": "subscribe", "channel": "book", "symbol": ETH})
        await mute.send_json({"event": "ping", "cid": 1})
        await heard(mute, lambda one: isinstance(one, dict) and one["event"] == "pong")
        for _ in range(3):
            await heard(well, lambda one: isinstance(one, list) and len(one) == 2)
        await mute.send_json({"event": "ping", "cid": 2})
        assert (await heard(mute, lambda _: True)).get("cid") == 2
        assert await venue.do(op="freeze_ws", symbol="BTCUSDT", on=False) == {"ok": True, "thawed": 1}
        await heard(mute, lambda one: isinstance(one, list) and one[1] != "hb")
    assert await until(lambda: not hub.connections, 10.0) is not None


async def test_a_thaw_of_one_symbol_leaves_the_others_frozen(venue, session):
    """Sockets of another symbol stay mute, and so does one that carries both until both thaw."""
    names = ("btcusdt@bookTicker", "ethusdt@bookTicker")
    async with (
        session.ws_connect(f"{venue.url}/ws/{names[0]}") as btc,
        session.ws_connect(f"{venue.url}/ws/{names[1]}") as eth,
        session.ws_connect(f"{venue.url}/stream?streams={'/'.join(names)}") as both,
    ):
        assert (await venue.do(op="freeze_ws", symbol="BTCUSDT"))["frozen"] == 2
        assert (await venue.do(op="freeze_ws", symbol="ETHUSDT"))["frozen"] == 2
        assert await venue.do(op="freeze_ws", symbol="BTCUSDT", on=False) == {"ok": True, "thawed": 1}
        for socket in (eth, both):
            await socket.send_json({"method": "LIST_SUBSCRIPTIONS", "id": 1})
            await heard(socket, lambda one: one.get("id") == 1)
        for _ in range(3):
            await btc.receive_json(timeout=10)
        for socket in (eth, both):
            await socket.send_json({"method": "LIST_SUBSCRIPTIONS", "id": 2})
            assert (await socket.receive_json(timeout=10)).get("id") == 2
        assert (await venue.do(op="freeze_ws", symbol="ETHUSDT", on=False))["thawed"] == 2
        await eth.receive_json(timeout=10)
        await both.receive_json(timeout=10)


async def test_sockets_are_counted_once_however_many_channels_they_carry(venue, session):
    """Status, the page and what kills sockets say one."""
    async with followed(venue, session, ("ticker", BTC), ("trades", BTC), ("book", ETH)):
        async with session.get(f"{venue.url}/sandbox/status") as answer:
            assert (await answer.json())["connections"] == 1
        async with session.get(venue.url) as answer:
            assert "<span>sockets <b>1</b></span>" in await answer.text()
        assert (await venue.do(op="kill_ws", hard=True))["killed"] == 1
