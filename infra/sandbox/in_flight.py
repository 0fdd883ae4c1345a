"""What reaches the engine late, and is answered once it has."""

from __future__ import annotations

import traceback
from contextlib import suppress
from typing import TYPE_CHECKING

from aiohttp import web

from infra.sandbox.admitting import admit
from infra.sandbox.answers import WholeAnswer, answer
from infra.sandbox.arrivals import Arrival, Reply, latency_ms
from infra.sandbox.bitfinex import rest as bitfinex
from infra.sandbox.bitfinex.names import PREFIX
from infra.sandbox.engine.errors import VenueError
from infra.sandbox.handlers.call import Call
from infra.sandbox.protocol.params import Params
from infra.sandbox.routes import ROUTES
from infra.sandbox.sending import carried, send
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
        return Reply(refusal.status, refusal.body())
    except Exception:  # noqa: BLE001 - a defect in one answer may not stop the venue's time
        traceback.print_exc()
        return Reply(500, {"code": -1000, "msg": "An unknown error occurred while processing the request."})


def delay_ms(sandbox: Sandbox, request: web.Request) -> int:
    """Return how long a request takes to reach the engine, in milliseconds of the venue."""
    route = ROUTES.get((request.method, request.path))
    return 0 if route is None else latency_ms(sandbox.venue.exchange.state.rules, request.method, request.path)


async def respond(sandbox: Sandbox, request: web.Request, body: str) -> web.Response | WholeAnswer:
    """Answer a request once it has reached the engine; most do at once."""
    late_ms = delay_ms(sandbox, request)
    if not late_ms:
        return sandbox.respond(request, body)
    headers = sandbox.headers(request)
    try:
        values = _admitted(sandbox, request, body)
        reply = await carried(sandbox, request.method, request.path, values, delay_ms=late_ms)
    except VenueError as refusal:
        reply = Reply(refusal.status, refusal.body())
    return answer(request, reply.data, status=reply.status, headers=headers)


def execute_unheard(sandbox: Sandbox, request: web.Request, body: str) -> None:
    """Let a request reach the engine that nobody waits for any more."""
    late_ms = delay_ms(sandbox, request)
    if not late_ms:
        sandbox.respond(request, body)
        return
    with suppress(VenueError):
        send(sandbox, request.method, request.path, _admitted(sandbox, request, body), delay_ms=late_ms)


def _admitted(sandbox: Sandbox, request: web.Request, body: str) -> dict[str, str]:
    return admit(sandbox.credentials, sandbox.clock, request, body, ROUTES[request.method, request.path]).values
