"""What reaches the engine late, and is answered once it has."""

from __future__ import annotations

import asyncio
import traceback
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from feature_store import clock as wall
from infra.sandbox.arrivals import Arrival, Reply
from infra.sandbox.bitfinex import rest as bitfinex
from infra.sandbox.bitfinex.names import PREFIX
from infra.sandbox.engine.errors import VenueError
from infra.sandbox.handlers.call import Call
from infra.sandbox.protocol.params import Params
from infra.sandbox.routes import ROUTES
from infra.sandbox.venue import Venue

if TYPE_CHECKING:
    from infra.sandbox.server import Sandbox


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


async def respond(sandbox: Sandbox, request: web.Request, body: str, *, delay_ms: int) -> web.Response:
    """Admit a request now and answer it once it has reached the engine."""
    route = ROUTES[request.method, request.path]
    headers = sandbox.headers(request)
    try:
        params = sandbox.admit(request, body, route)
        reply = await _carried(sandbox, request, params, delay_ms=delay_ms)
    except VenueError as refusal:
        reply = Reply(refusal.status, {"code": refusal.code, "msg": refusal.message})
    return web.Response(
        body=msgspec.json.encode(reply.data), status=reply.status, content_type="application/json", headers=headers
    )


async def _carried(sandbox: Sandbox, request: web.Request, params: Params, *, delay_ms: int) -> Reply:
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Reply] = loop.create_future()

    def answered(reply: Reply) -> None:
        if not answer.done():
            answer.set_result(reply)

    due_ms = sandbox.advance() + delay_ms
    end_ms = sandbox.venue.market.end_ms
    if end_ms is not None:
        # Where a recording ends, time does; what would arrive later finds the market closed.
        due_ms = min(due_ms, end_ms)
    sandbox.venue.arrivals.send(
        request.method, request.path, params.values, due_ms=due_ms,
        legacy_conditionals=sandbox.legacy_conditionals, answered=answered,
    )  # fmt: skip
    # Time moves on with each tick; a request may arrive between two of them.
    loop.call_later(sandbox.clock.seconds_until(due_ms + 1, wall.monotonic()), sandbox.advance)
    return await answer
