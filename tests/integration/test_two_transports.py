"""One engine behind HTTP and WebSocket and in process: the same orders make the same answers, digit for digit."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import random
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from urllib.parse import urlencode

import aiohttp
import pytest

from infra.sandbox.engine.errors import VenueError
from infra.sandbox.in_process import InProcess
from infra.sandbox.protocol.signing import Credentials
from infra.sandbox.serve import Options, build
from tests.sandbox_support import API_KEY, API_SECRET, running_sandbox

START = "2026-01-05T07:55:00Z"
START_MS = 1_767_599_700_000
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
STEPS = 26
ORDER, ALGO = "/fapi/v1/order", "/fapi/v1/algoOrder"
ROWS = [
    *(("/fapi/v1/userTrades", {"symbol": one}) for one in SYMBOLS),
    *(("/fapi/v1/allOrders", {"symbol": one}) for one in SYMBOLS),
    *(("/fapi/v1/allAlgoOrders", {"symbol": one}) for one in SYMBOLS),
    ("/fapi/v1/income", {"limit": 1000}),
    ("/fapi/v3/account", {}),
    ("/fapi/v3/positionRisk", {}),
]


class OverTheWire:
    """Asks over HTTP and hears over WebSocket, of a venue in lockstep that is led by hand."""

    def __init__(self, sandbox, session, socket) -> None:
        self.sandbox, self.session, self.socket = sandbox, session, socket
        self.heard: list[dict] = []

    async def ask(self, method: str, path: str, **values: object) -> object:
        """Return the answer; refusals are raised as they are in process."""
        now_ms = await self.held_ms()
        query = urlencode({name: str(value) for name, value in values.items()} | {"timestamp": now_ms})
        signature = hmac.new(API_SECRET.encode(), query.encode(), hashlib.sha256).hexdigest()
        address = f"{self.sandbox.url}{path}?{query}&signature={signature}"
        async with self.session.request(method, address, headers={"X-MBX-APIKEY": API_KEY}) as answer:
            found = await answer.json()
        if answer.status != 200:
            raise VenueError(found["code"], found["msg"])
        return found

    async def held_ms(self) -> int:
        """Return the time at which the venue stands still, once it does."""
        while (held_ms := (await self.sandbox.get("/sandbox/status"))["held_ms"]) is None:  # noqa: ASYNC110 - HTTP tells nobody
            await asyncio.sleep(0.005)
        return held_ms

    async def go_on(self) -> int:
        """Let time pass until the venue stands still again, and return the time."""
        await self.sandbox.ctl(op="go_on")
        return await self.held_ms()

    async def listen(self) -> None:
        """Keep what the account's stream says."""
        async for message in self.socket:
            self.heard.append(json.loads(message.data))


class Here:
    """The same questions, asked in process."""

    def __init__(self, seed: int) -> None:
        self.inner = InProcess(build(options(seed)).venue)

    async def ask(self, method: str, path: str, **values: object) -> object:
        """Return the answer as a client reads it: JSON."""
        return json.loads(json.dumps(self.inner.ask(method, path, **values)))

    async def go_on(self) -> int:
        """Let time pass until something matters."""
        return self.inner.go_on()


def options(seed: int) -> Options:
    """Return the options of the venue that runs beside, but for its address."""
    return Options(
        host="127.0.0.1", port=0, symbols=SYMBOLS, symbol_count=3, seed=seed, edge=0.1, speed=900.0, start_ms=START_MS,
        history_days=1, balance=Decimal(10_000), taker_fee=Decimal("0.0005"), maker_fee=Decimal("0.0002"),
        spread_bps=Decimal(1), credentials=Credentials(API_KEY, API_SECRET),
    )  # fmt: skip


@asynccontextmanager
async def wire(seed: int):
    """Start a venue in lockstep and connect to its account."""
    given = {"symbols": ",".join(SYMBOLS), "seed": seed, "edge": 0.1, "start": START, "history_days": 1}
    async with running_sandbox(**given, speed=900, lockstep=True) as sandbox, aiohttp.ClientSession() as session:
        await sandbox.ctl(op="lead")
        headers = {"X-MBX-APIKEY": API_KEY}
        async with session.post(f"{sandbox.url}/fapi/v1/listenKey", headers=headers) as answer:
            key = (await answer.json())["listenKey"]
        async with session.ws_connect(f"{sandbox.ws_url}/private/ws?listenKey={key}") as socket:
            client = OverTheWire(sandbox, session, socket)
            listening = asyncio.create_task(client.listen())
            yield client
            listening.cancel()


async def trade(client, seed: int) -> tuple[list[int], list[object]]:
    """Send orders of every kind, chosen by chance and by the venue's own answers; return times and all answers."""
    rng, times, answers = random.Random(seed), [], []

    async def ask(method: str, path: str, **values: object) -> dict:
        try:
            found = await client.ask(method, path, **values)
        except VenueError as refusal:
            found = {"code": refusal.code, "msg": refusal.message}
        answers.append(found)
        return found

    for step in range(STEPS):
        times.append(await client.go_on())
        symbol = rng.choice(SYMBOLS)
        last = Decimal((await ask("GET", "/fapi/v2/ticker/price", symbol=symbol))["price"])
        tick = last.as_tuple().exponent
        quantity = {"BTCUSDT": "0.01", "ETHUSDT": "0.2", "SOLUSDT": "3"}[symbol]
        side, other = rng.choice([("BUY", "SELL"), ("SELL", "BUY")])
        sign = 1 if side == "BUY" else -1

        def off(share: str, last: Decimal = last, tick: int = tick) -> str:
            return str((last * Decimal(share)).quantize(Decimal(1).scaleb(tick)))

        given = {"symbol": symbol, "side": side, "quantity": quantity, "newOrderRespType": "RESULT"}
        near = off("0.9995" if sign > 0 else "1.0005")
        await ask("POST", ORDER, **given, type="MARKET", newClientOrderId=f"market-{step}")
        stop = {"symbol": symbol, "side": other, "quantity": quantity, "algoType": "CONDITIONAL", "reduceOnly": "true"}
        losing, winning = (off("0.9985"), off("1.002")) if sign > 0 else (off("1.0015"), off("0.998"))
        await ask("POST", ALGO, **stop, type="STOP_MARKET", triggerPrice=losing, clientAlgoId=f"stop-{step}")
        await ask("POST", ALGO, **stop, type="TAKE_PROFIT_MARKET", triggerPrice=winning, clientAlgoId=f"goal-{step}")
        rests = {"type": "LIMIT", "price": near, "newClientOrderId": f"limit-{step}"}
        kind = rng.choice(["GTC", "GTX", "IOC", "FOK"])
        resting = await ask("POST", ORDER, **given, **rests, timeInForce=kind)
        if resting.get("status") == "NEW" and rng.random() < 0.3:
            further = off("0.999" if sign > 0 else "1.001")
            amended = {"orderId": resting["orderId"], "symbol": symbol, "side": side, "quantity": quantity}
            await ask("PUT", ORDER, **amended, price=further)
        if rng.random() < 0.3:
            await ask("DELETE", ORDER, symbol=symbol, origClientOrderId=f"limit-{rng.randrange(step + 1)}")
        if rng.random() < 0.2:
            await ask("DELETE", "/fapi/v1/algoOpenOrders", symbol=symbol)
    for path, values in ROWS:
        await ask("GET", path, **values)
    return times, answers


@pytest.mark.parametrize("seed", [3, 5, 21])
async def test_both_transports_tell_the_same_story(seed):
    """Times, answers, refusals, fills, funding and events of the account are equal in every digit."""
    async with wire(seed) as client, asyncio.timeout(240):
        times, answers = await trade(client, seed)
        here = Here(seed)
        assert (times, answers) == await trade(here, seed)
        while len(client.heard) < len(here.inner.heard):  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.01)
    assert client.heard == json.loads(json.dumps(here.inner.heard))

    fills = [one for rows in answers[-len(ROWS) :][:3] for one in rows]
    kinds = {one["incomeType"] for one in answers[-3]}
    assert len(fills) >= 30
    assert {one["maker"] for one in fills} == {True, False}
    assert {"FUNDING_FEE", "REALIZED_PNL", "COMMISSION"} <= kinds
    assert any("code" in one for one in answers if isinstance(one, dict))


async def test_another_seed_is_another_story():
    """What is equal above is not equal for want of anything to differ."""
    first, second = [await trade(Here(seed), 3) for seed in (3, 4)]
    assert first != second


def test_what_the_venue_refuses_over_the_wire_it_refuses_in_process():
    """Unknown paths, unknown symbols, missing and broken values are refusals with the venue's codes."""
    client = Here(3).inner
    for method, path, values, code in (
        ("GET", "/fapi/v9/nothing", {}, -5000),
        ("PATCH", ORDER, {}, -5000),
        ("POST", ORDER, {"symbol": "NOUSDT"}, -1121),
        ("POST", ORDER, {}, -1102),
        ("POST", ORDER, {"symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quantity": "NaN"}, -1100),
        ("GET", "/fapi/v1/userTrades", {"symbol": "BTCUSDT", "limit": "ten"}, -1130),
    ):
        with pytest.raises(VenueError) as refusal:
            client.ask(method, path, **values)
        assert refusal.value.code == code, path


def test_time_ends_with_the_recording():
    """Where a recording ends nobody can lead time on."""
    sandbox = build(replace(options(3), symbols=("BTCUSDT",)))
    client = InProcess(sandbox.venue)
    sandbox.venue.market.end_ms = client.now_ms
    with pytest.raises(VenueError) as refusal:
        client.go_on()
    assert refusal.value.code == -4108
