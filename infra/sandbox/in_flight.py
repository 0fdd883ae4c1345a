"""What reaches the engine late, and is answered once it has."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from feature_store import clock as wall
from infra.sandbox.arrivals import Arrival, Reply, latency_ms
from infra.sandbox.engine.errors import VenueError
from infra.sandbox.handlers.call import Call
from infra.sandbox.protocol.params import Params
from infra.sandbox.routes import ROUTES
from infra.sandbox.venue import Venue

if TYPE_CHECKING:
    from infra.sandbox.server import Sandbox


def carry_out(venue: Venue, arrival: Arrival) -> Reply:
    """Let a request reach the engine at its moment."""
    handler = ROUTES[arrival.method, arrival.path].handler
    try:
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


async def respond(sandbox: Sandbox, request: web.Request, body: str) -> web.Response:
    """Answer a request once it has reached the engine; most do at once."""
    if not delay_ms(sandbox, request):
        return sandbox.respond(request, body)
    headers = sandbox.headers(request)
    try:
        reply = await _carried(sandbox, request, body)
    except VenueError as refusal:
        reply = Reply(refusal.status, {"code": refusal.code, "msg": refusal.message})
    return web.Response(
        body=msgspec.json.encode(reply.data), status=reply.status, content_type="application/json", headers=headers
    )


def execute_unheard(sandbox: Sandbox, request: web.Request, body: str) -> None:
    """Let a request reach the engine that nobody waits for any more."""
    if not delay_ms(sandbox, request):
        sandbox.respond(request, body)
        return
    with suppress(VenueError):
        _send(sandbox, request, body)


async def _carried(sandbox: Sandbox, request: web.Request, body: str) -> Reply:
    answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    def answered(reply: Reply) -> None:
        if not answer.done():
            answer.set_result(reply)

    _send(sandbox, request, body, answered=answered)
    return await answer


def _send(
    sandbox: Sandbox, request: web.Request, body: str, *, answered: Callable[[Reply], None] | None = None
) -> None:
    params = sandbox.admit(request, body, ROUTES[request.method, request.path])
    due_ms = sandbox.advance() + delay_ms(sandbox, request)
    end_ms = sandbox.venue.market.end_ms
    if end_ms is not None:
        # Where a recording ends, time does; what would arrive later finds the market closed.
        due_ms = min(due_ms, end_ms)
    sandbox.venue.arrivals.send(
        request.method, request.path, params.values, due_ms=due_ms,
        legacy_conditionals=sandbox.legacy_conditionals, answered=answered,
    )  # fmt: skip
    # Time moves on with each tick; a request may arrive between two of them.
    seconds = sandbox.clock.seconds_until(due_ms + 1, wall.monotonic())
    asyncio.get_running_loop().call_later(seconds, sandbox.advance)
