"""REST: who may ask, what is answered, and how a request fails."""

from __future__ import annotations

import traceback
from contextlib import suppress
from dataclasses import replace
from email.utils import formatdate
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from feature_store import clock as wall
from feature_store.json_text import UNREADABLE
from infra.sandbox.arrivals import Arrival, Reply
from infra.sandbox.bitfinex.call import Call
from infra.sandbox.bitfinex.names import PREFIX
from infra.sandbox.bitfinex.refusals import MAINTENANCE, RATE_LIMIT, Refusal, from_engine, invalid
from infra.sandbox.bitfinex.routes import CANCELS, SUBMITS, Route, route_for
from infra.sandbox.bitfinex.signing import Doorkeeper
from infra.sandbox.engine.errors import VenueError
from infra.sandbox.failing import fail
from infra.sandbox.faults import Fault
from infra.sandbox.sending import carried, send
from infra.sandbox.venue import Venue

if TYPE_CHECKING:
    from infra.sandbox.server import Sandbox

_BROKEN = ["error", 10_000, "unknown error"]
_encode = msgspec.json.encode


class Rest:
    """One running front; its faults, limits and time are those of the venue it stands before."""

    def __init__(self, sandbox: Sandbox, doorkeeper: Doorkeeper) -> None:
        self._sandbox = sandbox
        self._doorkeeper = doorkeeper

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request, or fail it as the fault plan says."""
        response = await self._met(request)
        # The venue tells its time in no other way, so every answer is dated; a fault may bring a date of its own.
        response.headers.setdefault("Date", formatdate(self._sandbox.told_ms() / 1000, usegmt=True))
        return response

    async def _met(self, request: web.Request) -> web.StreamResponse:
        sandbox, path = self._sandbox, request.path.removeprefix(PREFIX)
        sandbox.requests += 1
        if path != "/v2/platform/status":
            sandbox.lockstep.heard(wall.monotonic())
        body = (await request.read()).decode("utf-8", "replace")
        await sandbox.disturbed.answering.wait()
        entry = {"method": request.method, "path": request.path, "query": request.query_string, "body": body}
        refusal = sandbox.limiter.admit(wall.monotonic(), 1, is_order=path in SUBMITS)
        if refusal is not None:
            sandbox.faults.note({**entry, "status": 429})
            wait = {"Retry-After": str(max(1, round(refusal.retry_after_seconds)))}
            return _response(429, ["error", RATE_LIMIT, "ratelimit: error"], wait)
        fault = sandbox.faults.pick(request.method, request.path, reduces=_reduces(body))
        if fault is not None:
            sandbox.faults.note({**entry, "fault": fault.action})
            unheard = partial(self._execute_unheard, request, body)
            return await fail(
                request, _worded(fault), execute=partial(self._executed, request, body), execute_unheard=unheard
            )
        response = await self._executed(request, body)
        sandbox.faults.note({**entry, "status": response.status})
        return response

    async def _executed(self, request: web.Request, body: str) -> web.Response:
        delay_ms = self._latency_ms(request.path.removeprefix(PREFIX))
        return await self._later(request, body, delay_ms) if delay_ms else self._respond(request, body)

    def _execute_unheard(self, request: web.Request, body: str) -> None:
        """Let a request reach the engine that nobody waits for any more."""
        delay_ms = self._latency_ms(request.path.removeprefix(PREFIX))
        if not delay_ms:
            self._respond(request, body)
            return
        with suppress(Refusal):
            self._admit(request, body)
            send(self._sandbox, request.method, request.path, {"body": body}, delay_ms=delay_ms)

    def _latency_ms(self, path: str) -> int:
        rules = self._sandbox.venue.exchange.state.rules
        if path in SUBMITS:
            return rules.insert_ms
        return rules.cancel_ms if path in CANCELS else 0

    def _respond(self, request: web.Request, body: str) -> web.Response:
        """Answer one request now."""
        try:
            route, place, values = self._admit(request, body)
            return _response(200, self._answer(route, place, values))
        except Refusal as refusal:
            return _response(refusal.status, refusal.body())
        except Exception:  # noqa: BLE001 - a defect in one answer is an answer of the venue too
            traceback.print_exc()
            return _response(500, _BROKEN)

    def _answer(self, route: Route, place: tuple[str, ...], values: dict[str, Any]) -> Any:
        sandbox = self._sandbox
        now_ms = sandbox.advance()
        young_ms = sandbox.disturbed.stale_seconds * 1000 * sandbox.clock.speed
        before_ms = now_ms - young_ms if young_ms else None
        try:
            if "/w/" in route.pattern.pattern:
                sandbox.venue.check_open(now_ms)
            return route.handler(Call(sandbox.venue, now_ms, values, place, before_ms))
        except VenueError as error:
            raise from_engine(error) from error
        finally:
            if route.is_private:
                sandbox.settle()

    def _admit(self, request: web.Request, body: str) -> tuple[Route, tuple[str, ...], dict[str, Any]]:
        path = request.path.removeprefix(PREFIX)
        found = route_for(request.method, path)
        if found is None:
            raise Refusal(10_020, "path: invalid", status=404)
        route, place = found
        if not route.is_private:
            return route, place, dict(request.query)
        self._doorkeeper.admit_request(request.headers, path, body)
        return route, place, _object(body)

    async def _later(self, request: web.Request, body: str, delay_ms: int) -> web.Response:
        """Admit a request now and answer it once it has reached the engine."""
        sandbox = self._sandbox
        try:
            self._admit(request, body)
        except Refusal as refusal:
            return _response(refusal.status, refusal.body())
        reply = await carried(sandbox, request.method, request.path, {"body": body}, delay_ms=delay_ms)
        return _response(reply.status, reply.data)


def carry_out(venue: Venue, arrival: Arrival) -> Reply:
    """Let a request that was admitted reach the engine at its moment."""
    try:
        return Reply(200, _carried_out(venue, arrival))
    except VenueError as error:
        refusal = from_engine(error)
    except Refusal as error:
        refusal = error
    except Exception:  # noqa: BLE001 - a defect in one answer may not stop the venue's time
        traceback.print_exc()
        return Reply(500, _BROKEN)
    return Reply(refusal.status, refusal.body())


def _carried_out(venue: Venue, arrival: Arrival) -> Any:
    found = route_for(arrival.method, arrival.path.removeprefix(PREFIX))
    if found is None:
        raise invalid("path")
    venue.check_open(arrival.due_ms)
    route, place = found
    return route.handler(Call(venue, arrival.due_ms, _object(arrival.values["body"]), place))


def _object(body: str) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(body or "{}", type=dict[str, Any] | list[Any])
    except UNREADABLE:
        raise Refusal(10_020, "body: invalid") from None
    # A client without parameters sends an empty array.
    return found if isinstance(found, dict) else {}


def _response(status: int, data: Any, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=_encode(data), status=status, content_type="application/json", headers=headers)


def _worded(fault: Fault) -> Fault:
    """Return a fault whose answer is in this venue's form."""
    if fault.body is not None:
        return fault
    told: list[object] = {
        429: ["error", RATE_LIMIT, "ratelimit: error"],
        503: ["error", MAINTENANCE, "maintenance"],
    }.get(fault.status, _BROKEN)
    if fault.code > 0:
        told = ["error", fault.code, "refused"]
    return replace(fault, body=_encode(told).decode())


def _reduces(body: str) -> bool:
    try:
        flags = msgspec.json.decode(body, type=dict[str, Any]).get("flags") if body else None
    except UNREADABLE:
        return False
    return isinstance(flags, int) and bool(flags & 1024)
