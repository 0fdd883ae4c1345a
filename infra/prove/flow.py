"""How much the sandbox exchange carries on one core: orders in process, orders over HTTP, candles to many sockets."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from itertools import cycle
from urllib.parse import urlencode

import aiohttp
import numpy as np
import psutil

from feature_store.clock import monotonic
from infra.prove.desk import API_KEY, API_SECRET
from infra.prove.proof import Proof, Size
from infra.prove.servers import Servers, listener
from infra.prove.stage import Stage, get
from infra.sandbox.engine.exchange import Exchange
from infra.sandbox.engine.instrument import Instrument
from infra.sandbox.engine.model import OrderRequest, OrderType, Side
from infra.sandbox.engine.state import new_state
from infra.sandbox.protocol.signing import Credentials

IN_PROCESS, OVER_HTTP = 20_000, 4_000
"""Orders a second that one core has to carry."""
SYMBOLS, SOCKETS = 100, 50
_ORDERS = {Size.FULL: 60_000, Size.CI: 20_000}
_REQUESTS = {Size.FULL: 24_000, Size.CI: 8_000}
_STREAM_S = {Size.FULL: 20.0, Size.CI: 8.0}
# As many requests are on their way at once.
_CONNECTIONS = 16
# Rounds of which the best counts: what others do on the machine can only slow one down.
_ROUNDS = 3


def prove(size: Size) -> Proof:
    """Measure all three by the time that the exchange's own process was on a core, whatever else keeps the machine."""
    load = os.getloadavg()[0]
    engine = max(_in_process(_ORDERS[size] // _ROUNDS) for _ in range(_ROUNDS))
    with Stage("flow") as stage, Servers(stage) as servers:
        # At speed 10 a tick of the market is a second, and so is a candle's update.
        url = servers.sandbox(symbols=SYMBOLS, speed=10, balance=1_000_000_000, history_days=2)
        server = listener(url)
        http = max(
            (asyncio.run(_over_http(url, server, _REQUESTS[size] // _ROUNDS)) for _ in range(_ROUNDS)),
            key=lambda one: one.a_core,
        )
        stream = asyncio.run(_streamed(url, server, _STREAM_S[size]))
    whole = stream.least >= SYMBOLS * 1.0 and stream.cores <= 1.0
    return Proof(
        name="flow",
        figure=f"{engine:,.0f} orders/s in process, {http.a_core:,.0f} acknowledged a core over HTTP; "
        f"{SYMBOLS} symbols to {SOCKETS} sockets take {stream.cores:.0%} of one, {stream.messages:,.0f} messages/s",
        bar=f">= {IN_PROCESS:,}, >= {OVER_HTTP:,}, each symbol to each socket once a second on one core",
        is_speed=True,
        holds=engine >= IN_PROCESS and http.a_core >= OVER_HTTP and whole,
        details=(
            f"the machine's load was {load:.1f} on {os.cpu_count()} cores; figures are by time on a core",
            f"over HTTP {http.a_second:,.0f} orders/s of the wall on {_CONNECTIONS} connections",
            f"acknowledged after {http.p50_ms:.1f} ms in the median, {http.p99_ms:.1f} ms at the 99th percentile",
            f"the slowest socket had {stream.least:,.0f} messages/s",
            f"from first to last socket an event took {stream.p50_ms:.0f} ms, at most usually {stream.p99_ms:.0f} ms",
        ),
    )


def _in_process(orders: int) -> float:
    """Return market orders with all their events that the engine carries in a second of processor time."""
    coin = Instrument("COINUSDT", "COIN", 2, 1, Decimal(5), Decimal(10_000), Decimal(5_000), Decimal(50_000))
    exchange = Exchange([coin], new_state(Decimal(1_000_000_000)))
    exchange.tick({"COINUSDT": Decimal(100)}, now_ms=0)
    requests = [
        OrderRequest("COINUSDT", side, OrderType.MARKET, Decimal(10), client_order_id=f"flow-{number}")
        for number, side in zip(range(orders), cycle((Side.BUY, Side.SELL)), strict=False)
    ]
    began = time.process_time()
    for number, request in enumerate(requests):
        exchange.submit(request, now_ms=number)
        exchange.drain()
    seconds = time.process_time() - began
    assert len(exchange.state.trades) == orders
    return orders / seconds


@dataclass(frozen=True, slots=True)
class _Http:
    a_core: float
    a_second: float
    p50_ms: float
    p99_ms: float


async def _over_http(url: str, server: psutil.Process, requests: int) -> _Http:
    """Send signed market orders over kept connections; every one has to be acknowledged with an id."""
    host, port = url.removeprefix("http://").split(":")
    credentials = Credentials(API_KEY, API_SECRET)
    waits: list[float] = []

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        for place in range(requests // _CONNECTIONS):
            message = _order(
                credentials, get_time(), f"flow-{number}-{place}-{requests}", "BUY" if place % 2 else "SELL"
            )
            sent = monotonic()
            writer.write(message)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            body = await reader.readexactly(length)
            waits.append(monotonic() - sent)
            if b"200 OK" not in head or b'"orderId"' not in body:
                raise RuntimeError(f"An order was not acknowledged: {body[:300]!r}")
        writer.close()

    told, read_at = get(f"{url}/fapi/v1/time")["serverTime"], monotonic()
    get_time: Callable[[], int] = lambda: told + int((monotonic() - read_at) * 10_000)  # noqa: E731 - a clock
    cpu, began = _cpu(server), monotonic()
    await asyncio.gather(*(client(number) for number in range(_CONNECTIONS)))
    seconds, spent = monotonic() - began, _cpu(server) - cpu
    p50, p99 = np.percentile(waits, [50, 99]) * 1000
    return _Http(len(waits) / spent, len(waits) / seconds, float(p50), float(p99))


def _order(credentials: Credentials, now_ms: int, client_id: str, side: str) -> bytes:
    body = urlencode(
        {"symbol": "BTCUSDT", "side": side, "type": "MARKET", "quantity": "0.01", "newOrderRespType": "RESULT",
         "newClientOrderId": client_id, "recvWindow": 60_000, "timestamp": now_ms}
    )  # fmt: skip
    body += f"&signature={credentials.sign(body)}"
    return (
        f"POST /fapi/v1/order HTTP/1.1\r\nHost: venue\r\nX-MBX-APIKEY: {API_KEY}\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


@dataclass(frozen=True, slots=True)
class _Stream:
    cores: float
    messages: float
    least: float
    p50_ms: float
    p99_ms: float


async def _streamed(url: str, server: psutil.Process, seconds: float) -> _Stream:
    """Follow the candle of every symbol on every socket and count what comes, when, and what it costs the exchange."""
    names = [one["symbol"].lower() for one in get(f"{url}/fapi/v1/exchangeInfo")["symbols"]]
    streams = "/".join(f"{name}@kline_1m" for name in names)
    counts = [0] * SOCKETS
    arrived: dict[str, list[float]] = {}
    follows = True

    async def follow(number: int, socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            if follows and measuring.is_set():
                counts[number] += 1
                if number % 7 == 0:
                    arrived.setdefault(message.data, []).append(monotonic())

    measuring = asyncio.Event()
    async with aiohttp.ClientSession() as session:
        sockets = [
            await session.ws_connect(f"{url.replace('http', 'ws')}/market/stream?streams={streams}", max_msg_size=0)
            for _ in range(SOCKETS)
        ]
        tasks = [asyncio.create_task(follow(number, one)) for number, one in enumerate(sockets)]
        await asyncio.sleep(1.5)
        cpu, began = _cpu(server), monotonic()
        measuring.set()
        await asyncio.sleep(seconds)
        spent, took, follows = _cpu(server) - cpu, monotonic() - began, False
        for socket in sockets:
            await socket.close()
        await asyncio.gather(*tasks)
    spread = [1000 * (max(times) - min(times)) for times in arrived.values() if len(times) > 1]
    p50, p99 = np.percentile(spread, [50, 99])
    return _Stream(spent / took, sum(counts) / took, min(counts) / took, float(p50), float(p99))


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system
