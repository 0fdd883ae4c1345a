"""The venue on a port: REST, WebSocket and the loop that moves its time."""

from __future__ import annotations

import asyncio
import secrets
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from feature_store import clock as wall
from infra.sandbox import control
from infra.sandbox.clock import VirtualClock
from infra.sandbox.engine.errors import VenueError
from infra.sandbox.faults import Fault, FaultPlan
from infra.sandbox.feeds import Feeds
from infra.sandbox.handlers.call import Call
from infra.sandbox.market.series import DAY_MS, TICK_MS
from infra.sandbox.persist import Identity, Saved, save
from infra.sandbox.protocol.params import Params
from infra.sandbox.protocol.signing import Credentials, RequestClock, check_age, check_key, check_signature
from infra.sandbox.protocol.user_events import listen_key_expired, user_event
from infra.sandbox.routes import ORDER_PATHS, ROUTES, Route, Security
from infra.sandbox.streams import Connection, Hub, answer
from infra.sandbox.venue import Venue

LISTEN_KEY_SECONDS = 3_600.0
SLOW_SECONDS = 0.5
SAVE_SECONDS = 1.0
IDLE_SAVE_SECONDS = 5.0
SHORTEST_SLEEP = 0.01
LONGEST_SLEEP = 0.25


class Sandbox:
    """One running venue."""

    def __init__(
        self,
        venue: Venue,
        clock: VirtualClock,
        *,
        credentials: Credentials,
        state_folder: Path | None = None,
        identity: Identity,
    ) -> None:
        self.venue = venue
        self.clock = clock
        self.credentials = credentials
        self.state_folder = state_folder
        self.identity = identity
        self.hub = Hub()
        self.feeds = Feeds(venue, self.hub)
        self.faults = FaultPlan(venue.seed)
        self.legacy_conditionals = False
        self.requests = 0
        self._listen_key: str | None = None
        self._listen_key_until = 0.0
        self._weight = (0, 0)
        self._orders: tuple[int, int, int, int] = (0, 0, 0, 0)
        self._said_halted = False
        self._saved_revision = -1
        self._ahead: asyncio.Task[None] | None = None

    # -- time -----------------------------------------------------------------------------------------------------

    def now_ms(self) -> int:
        """Venue time; it stops where a recording ends."""
        now = self.clock.now_ms(wall.monotonic())
        end = self.venue.market.end_ms
        return now if end is None else min(now, end)

    @staticmethod
    def wall_ms() -> int:
        """Wall-clock time."""
        return wall.utc_now_ms()

    @staticmethod
    def monotonic_ms() -> float:
        """A wall clock that never steps back."""
        return wall.monotonic() * 1000.0

    def advance(self) -> int:
        """Bring the venue to the present and return it."""
        now_ms = self.now_ms()
        self.venue.advance(now_ms, wall_ms=self.monotonic_ms())
        self._flush()
        return now_ms

    async def run(self) -> None:
        """Move time on until cancelled."""
        slow_at = saved_at = wall.monotonic()
        while True:
            now = wall.monotonic()
            until_tick = self.clock.seconds_until(self.venue.ticked_ms + TICK_MS, now)
            await asyncio.sleep(min(max(until_tick, SHORTEST_SLEEP), LONGEST_SLEEP))
            self.feeds.watch()
            before = self.venue.ticked_ms
            now_ms = self.advance()
            now = wall.monotonic()
            slow = now - slow_at >= SLOW_SECONDS
            if slow or before != self.venue.ticked_ms or self.hub.fresh:
                self.feeds.on_wake(now_ms, slow=slow)
            if slow:
                slow_at = now
                if self._listen_key is not None and now > self._listen_key_until:
                    self.expire_listen_key()
                self._prepare_tomorrow()
                self._say_halted(now_ms)
            changed = self.venue.revision != self._saved_revision
            if now - saved_at >= (SAVE_SECONDS if changed else IDLE_SAVE_SECONDS):
                saved_at = now
                self.save()

    def _say_halted(self, now_ms: int) -> None:
        end = self.venue.market.end_ms
        if end is not None and now_ms >= end and not self._said_halted:
            self._said_halted = True
            sys.stderr.write("The recording has ended: the market is halted and takes no more orders.\n")

    def _prepare_tomorrow(self) -> None:
        # Making a day of ticks takes long enough to be felt by an order; it is made beside the loop, ahead of time.
        if self._ahead is not None and not self._ahead.done():
            return
        ahead_ms = self.venue.ticked_ms + DAY_MS // 2
        end = self.venue.market.end_ms
        if end is not None and ahead_ms >= end:
            return
        self._ahead = asyncio.create_task(self._make_day(ahead_ms // DAY_MS))

    async def _make_day(self, day: int) -> None:
        await asyncio.to_thread(self.venue.market.ticks, day)

    # -- state ----------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write the account and the time."""
        if self.state_folder is not None:
            unprotected = self.venue.auditor.intervals(now_ms=self.venue.ticked_ms, wall_ms=self.monotonic_ms())
            saved = Saved(self.identity, self.venue.ticked_ms, self.venue.exchange.state, unprotected)
            save(self.state_folder, saved)
            self._saved_revision = self.venue.revision

    # -- user stream ----------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        events, self.venue.events = self.venue.events, []
        if self._listen_key is None:
            return
        for event in events:
            self.hub.publish_user(self._listen_key, user_event(event, self.venue.exchange.state))

    def listen_key(self) -> str:
        """Return the live key, or make one; either way it now lives another hour."""
        if self._listen_key is None:
            self._listen_key = secrets.token_hex(32)
        self._listen_key_until = wall.monotonic() + LISTEN_KEY_SECONDS
        return self._listen_key

    def expire_listen_key(self) -> bool:
        """End the user stream as the venue does when a key was not kept alive."""
        if self._listen_key is None:
            return False
        self.hub.publish_user(self._listen_key, listen_key_expired(self._listen_key, self.now_ms()))
        self._listen_key = None
        return True

    async def kill_sockets(self, *, hard: bool) -> int:
        """Close every socket: politely, or by cutting the wire."""
        connections = list(self.hub.connections)
        for connection in connections:
            if hard and connection.transport is not None:
                connection.transport.abort()
            else:
                await connection.socket.close(code=WSCloseCode.GOING_AWAY)
        return len(connections)

    # -- REST -----------------------------------------------------------------------------------------------------

    async def handle_rest(self, request: web.Request) -> web.StreamResponse:
        """Answer one REST request, or fail it as the fault plan says."""
        self.requests += 1
        body = (await request.read()).decode("utf-8", "replace")
        fault = self.faults.pick(request.method, request.path)
        entry = {"method": request.method, "path": request.path, "query": request.query_string, "body": body}
        if fault is not None:
            self.faults.note({**entry, "fault": fault.action})
            return await self._fail(request, body, fault)
        response = self.respond(request, body)
        self.faults.note({**entry, "status": response.status})
        return response

    async def _fail(self, request: web.Request, body: str, fault: Fault) -> web.StreamResponse:
        if fault.action.startswith("exec_then_"):
            self.respond(request, body)
        action = fault.action.removeprefix("exec_then_")
        if action == "late_exec":
            task = asyncio.get_running_loop().call_later(fault.seconds, self.respond, request, body)
            del task
            action = "status"
        if action == "delay":
            await asyncio.sleep(fault.seconds)
            return self.respond(request, body)
        if action == "hang":
            await asyncio.sleep(fault.seconds)
            action = "drop"
        if action == "drop":
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=499)
        text = fault.body
        if text is None:
            text = msgspec.json.encode({"code": fault.code, "msg": VenueError(fault.code).message}).decode()
        return web.Response(text=text, status=fault.status, headers=fault.headers, content_type="application/json")

    def respond(self, request: web.Request, body: str) -> web.Response:
        """Answer one request now."""
        route = ROUTES.get((request.method, request.path))
        headers = self._headers(request, route)
        try:
            data = self._answer(request, body, route)
            status = 200
        except VenueError as refusal:
            data = {"code": refusal.code, "msg": refusal.message}
            status = refusal.status
        return web.Response(
            body=msgspec.json.encode(data), status=status, content_type="application/json", headers=headers
        )

    def _answer(self, request: web.Request, body: str, route: Route | None) -> Any:
        query = request.rel_url.raw_query_string
        if request.path == "/fapi/v1/time":
            return {"serverTime": self.clock.reported_ms(wall.monotonic())}
        if request.path == "/fapi/v1/listenKey":
            return self._answer_listen_key(request)
        if route is None:
            raise VenueError(-5000, f"Path {request.path}, Method {request.method} is invalid", status=404)
        values = dict(parse_qsl(query, keep_blank_values=True))
        values.update(parse_qsl(body, keep_blank_values=True))
        params = Params(values)
        if route.security is not Security.NONE:
            check_key(self.credentials, request.headers.get("X-MBX-APIKEY"))
        if route.security is Security.SIGNED:
            self._check_signed(query, body, params)
        now_ms = self.advance()
        try:
            return route.handler(Call(self.venue, params, now_ms, self.legacy_conditionals))
        finally:
            if route.security is Security.SIGNED:
                self.venue.settle(wall_ms=self.monotonic_ms())
                self._flush()

    def _check_signed(self, query: str, body: str, params: Params) -> None:
        timestamp = params.integer("timestamp")
        if timestamp is None:
            params.required("timestamp")
        assert timestamp is not None
        check_signature(self.credentials, query, body)
        window = params.integer("recvWindow", 5_000) or 5_000
        venue_ms = self.clock.reported_ms(wall.monotonic())
        wall_ms = self.wall_ms()
        is_virtual = self.clock.speed != 1.0 or abs(venue_ms - wall_ms) > 60_000
        check_age(RequestClock(venue_ms, wall_ms, self.clock.speed, is_virtual), timestamp, window)

    def _answer_listen_key(self, request: web.Request) -> dict[str, Any]:
        check_key(self.credentials, request.headers.get("X-MBX-APIKEY"))
        if request.method == "POST":
            return {"listenKey": self.listen_key()}
        if self._listen_key is None:
            raise VenueError(-1125)
        if request.method == "PUT":
            return {"listenKey": self.listen_key()}
        self.expire_listen_key()
        return {}

    def _headers(self, request: web.Request, route: Route | None) -> dict[str, str]:
        minute = int(wall.monotonic() // 60)
        used = self._weight[1] if self._weight[0] == minute else 0
        used += route.weight if route is not None else 1
        self._weight = (minute, used)
        headers = {"X-MBX-USED-WEIGHT-1M": str(used)}
        if request.path in ORDER_PATHS and request.method in {"POST", "PUT"}:
            tens = int(wall.monotonic() // 10)
            ten, ten_count, one, one_count = self._orders
            ten_count = ten_count + 1 if ten == tens else 1
            one_count = one_count + 1 if one == minute else 1
            self._orders = (tens, ten_count, minute, one_count)
            headers |= {"X-MBX-ORDER-COUNT-10S": str(ten_count), "X-MBX-ORDER-COUNT-1M": str(one_count)}
        return headers

    # -- WebSocket ------------------------------------------------------------------------------------------------

    async def handle_socket(self, request: web.Request) -> web.StreamResponse:
        """Serve one WebSocket until either side closes it."""
        socket = web.WebSocketResponse(heartbeat=180.0, autoping=True, compress=False)
        await socket.prepare(request)
        path = request.path.rstrip("/")
        connection = Connection(socket, combined="/stream" in path, transport=request.transport)
        names = [one for one in (request.query.get("streams") or "").split("/") if one]
        tail = path.rsplit("/ws/", 1)[1] if "/ws/" in path else ""
        if tail and not tail.isdigit():
            names.extend(tail.split("/"))
        key = request.query.get("listenKey") or next((n for n in names if n == self._listen_key), None)
        connection.listen_key = key
        self.hub.add(connection, [name for name in names if name != key])
        self.feeds.watch()
        writer = asyncio.create_task(_write(connection))
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    reply = answer(connection, self.hub, message.data)
                    self._adopt_listen_key(connection)
                    self.feeds.watch()
                    if reply is not None:
                        connection.push(reply)
        finally:
            self.hub.remove(connection)
            writer.cancel()
            with suppress(asyncio.CancelledError):
                await writer
        return socket

    def _adopt_listen_key(self, connection: Connection) -> None:
        # Some clients subscribe the listen key as though it were a stream.
        if self._listen_key is not None and self._listen_key in connection.streams:
            connection.listen_key = self._listen_key
            self.hub.unsubscribe(connection, [self._listen_key])


async def _write(connection: Connection) -> None:
    while True:
        frame = await connection.queue.get()
        if frame is None:
            await connection.socket.close(code=WSCloseCode.POLICY_VIOLATION, message=b"client too slow")
            return
        with suppress(ConnectionError):
            await connection.socket.send_str(frame)


async def _rest(request: web.Request) -> web.StreamResponse:
    sandbox: Sandbox = request.app["sandbox"]
    return await sandbox.handle_rest(request)


async def _socket(request: web.Request) -> web.StreamResponse:
    sandbox: Sandbox = request.app["sandbox"]
    return await sandbox.handle_socket(request)


def application(sandbox: Sandbox) -> web.Application:
    """Build the web application around a venue."""
    app = web.Application(client_max_size=4 * 1024 * 1024)
    app["sandbox"] = sandbox
    for room in ("", "/market", "/public", "/private"):
        for path in ("/ws", "/ws/{stream:.*}", "/stream"):
            app.router.add_get(room + path, _socket)
    app.router.add_get("/", control.handle_page)
    app.router.add_get("/sandbox/status", control.handle_status)
    app.router.add_get("/sandbox/audit", control.handle_audit)
    app.router.add_get("/sandbox/truth", control.handle_truth)
    app.router.add_post("/sandbox/ctl", control.handle_ctl)
    app.router.add_route("*", "/{path:.*}", _rest)
    app.cleanup_ctx.append(_running)
    return app


async def _running(app: web.Application) -> Any:
    sandbox: Sandbox = app["sandbox"]
    loop = asyncio.create_task(sandbox.run())
    yield
    loop.cancel()
    with suppress(asyncio.CancelledError):
        await loop
    for connection in list(sandbox.hub.connections):
        await connection.socket.close(code=WSCloseCode.GOING_AWAY)
    sandbox.advance()
    sandbox.save()
