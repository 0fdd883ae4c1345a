"""What reaches the engine late, and is answered once it has."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from aiohttp import web

from feature_store import clock as wall
from infra.sandbox.admitting import admit
from infra.sandbox.answers import WholeAnswer, answer
from infra.sandbox.arrivals import Arrival, Reply, latency_ms
from infra.sandbox.bitfinex import rest as bitfinex
from infra.sandbox.bitfinex.names import PREFIX
from infra.sandbox.engine.errors import VenueError
from infra.sandbox.handlers.call import Call
from infra.sandbox.protocol.params import Params
from infra.sandbox.routes import ROUTES
from infra.sandbox.venue import Venue

if TYPE_CHECKING:
    from infra.sandbox.server import Sandbox

_SHORTEST_S = 0.001


def carry_out(venue: Venue, arrival: Arrival) -> Reply:
    """Let a request reach the engine at its moment."""
    try:
        if arrival.path.startswith(PREFIX):
            return bitfinex.carry_out(venue, arrival)
        handler = ROUTES[arrival.method, arrival.path].handler
        venue.check_open(arrival.due_ms)
        call = Call(venue, Params(dict(arrival.values)), arrival.due_ms, arrival.legacy_conditionals)
        return Reply(200, handler(call))
    except VenueError as refusal:
        return Reply(refusal.status, {"code": refusal.code, "msg": refusal.message})
    except Exception:  # noqa: BLE001 - a defect in one answer may not stop the venue's time
        traceback.print_exc()
        return Reply(500, {"code": -1000, "msg": "An unknown error occurred while processing the request."})


def delay_ms(sandbox: Sandbox, request: web.Request) -> int:
    """Return how long a request takes to reach the engine, in milliseconds of the venue."""
    route = ROUTES.get((request.method, request.path))
    return 0 if route is None else latency_ms(sandbox.venue.exchange.state.rules, request.method, request.path)


async def respond(sandbox: Sandbox, request: web.Request, body: str) -> web.Response | WholeAnswer:
    """Answer a request once it has reached the engine; most do at once."""
    if not delay_ms(sandbox, request):
        return sandbox.respond(request, body)
    headers = sandbox.headers(request)
    try:
        reply = await _carried(sandbox, request, body)
    except VenueError as refusal:
        reply = Reply(refusal.status, {"code": refusal.code, "msg": refusal.message})
    return answer(request, reply.data, status=reply.status, headers=headers)


def execute_unheard(sandbox: Sandbox, request: web.Request, body: str) -> None:
    """Let a request reach the engine that nobody waits for any more."""
    if not delay_ms(sandbox, request):
        sandbox.respond(request, body)
        return
    with suppress(VenueError):
        _send(sandbox, request, body)


async def _carried(sandbox: Sandbox, request: web.Request, body: str) -> Reply:
    coming: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    def answered(reply: Reply) -> None:
        if not coming.done():
            coming.set_result(reply)

    _send(sandbox, request, body, answered=answered)
    return await coming


def _send(
    sandbox: Sandbox, request: web.Request, body: str, *, answered: Callable[[Reply], None] = lambda _: None
) -> None:
    params = admit(sandbox.credentials, sandbox.clock, request, body, ROUTES[request.method, request.path])
    loop = asyncio.get_running_loop()
    due_ms = sandbox.advance() + delay_ms(sandbox, request)
    end_ms = sandbox.venue.market.end_ms
    if end_ms is not None:
        # Where a recording ends, time does; what would arrive later finds the market closed.
        due_ms = min(due_ms, end_ms)
    arrived = False

    def told(reply: Reply) -> None:
        nonlocal arrived
        arrived = True
        answered(reply)

    sandbox.venue.arrivals.send(
        request.method, request.path, params.values, due_ms=due_ms,
        legacy_conditionals=sandbox.legacy_conditionals, answered=told,
    )  # fmt: skip

    def arrive() -> None:
        # Time moves on with each tick; a request may arrive between two of them.
        sandbox.advance()
        wait_on()

    def wait_on() -> None:
        # A loop may call a little too early; time that stands still is waited for by the ticks.
        if not arrived and sandbox.clock.held_since is None:
            seconds = sandbox.clock.seconds_until(due_ms + 1, wall.monotonic())
            loop.call_later(max(seconds, _SHORTEST_S), arrive)

    wait_on()
