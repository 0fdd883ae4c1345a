"""The venue on a port: REST, WebSocket and the loop that moves its time."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web

from feature_store import clock as wall
from infra.sandbox import control, in_flight
from infra.sandbox.admitting import admit, is_order, weight_of
from infra.sandbox.answers import WholeAnswer, answer
from infra.sandbox.bitfinex.front import Bitfinex
from infra.sandbox.clock import VirtualClock
from infra.sandbox.disturbed import Disturbed, too_many
from infra.sandbox.engine.errors import VenueError
from infra.sandbox.failing import asked_too_often, fail, lagging, reduces
from infra.sandbox.faults import Fault, FaultPlan
from infra.sandbox.feeds import Feeds
from infra.sandbox.handlers.call import Call
from infra.sandbox.limits import RateLimiter
from infra.sandbox.listen_keys import ListenKey
from infra.sandbox.lockstep import Lockstep
from infra.sandbox.market.series import DAY_MS, TICK_MS
from infra.sandbox.order_rules import apply_feed_latency
from infra.sandbox.persist import Identity, Saved, save
from infra.sandbox.protocol.force_orders import force_order_frames
from infra.sandbox.protocol.signing import Credentials, check_key
from infra.sandbox.protocol.user_events import listen_key_expired, user_event
from infra.sandbox.routes import ROUTES, Route, Security
from infra.sandbox.script import Script
from infra.sandbox.streams import Connection, Hub, reply_to, write_frames
from infra.sandbox.venue import Venue

SLOW_SECONDS = 0.5
SAVE_SECONDS = 1.0
IDLE_SAVE_SECONDS = 5.0
SHORTEST_SLEEP = 0.01
LONGEST_SLEEP = 0.25
# A loop may count in whole milliseconds, and wake so much too early.
_EARLY = 0.001


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
        lockstep: bool = False,
    ) -> None:
        self.venue = venue
        self.clock = clock
        self.credentials = credentials
        self.state_folder = state_folder
        self.identity = identity
        self.hub = Hub()
        self.feeds = Feeds(venue, self.hub)
        self.bitfinex = Bitfinex(self)
        self.faults = FaultPlan(venue.seed)
        self.legacy_conditionals = False
        self.requests = 0
        self.disturbed = Disturbed()
        self.limiter = RateLimiter()
        self.script = Script()
        self.listen_keys = ListenKey()
        self._said_halted = False
        self._saved_revision = -1
        self._ahead: asyncio.Task[None] | None = None
        self.lockstep = Lockstep(clock, lockstep)
        venue.arrivals.perform = partial(in_flight.carry_out, venue)
        apply_feed_latency(self)

    # -- time -----------------------------------------------------------------------------------------------------

    def now_ms(self) -> int:
        """Venue time; it stops where a recording ends, and in lockstep no tick is overtaken."""
        now = self.clock.now_ms(wall.monotonic())
        if self.lockstep.on:
            now = min(now, self.venue.ticked_ms + TICK_MS)
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
        now_ms, before = self.now_ms(), self.venue.ticked_ms
        self.venue.advance(now_ms, wall_ms=self.monotonic_ms())
        happened = self._flush()
        ticked_ms = self.venue.ticked_ms
        if self.lockstep.on and ticked_ms != before:
            self.feeds.on_wake(now_ms, slow=False)
            matters = happened or ticked_ms % self.venue.market.base_ms == 0
            self.lockstep.after_tick(wall.monotonic(), ticked_ms, matters=matters)
        return now_ms

    def settle(self) -> None:
        """Tell of what was done to the account outside a request."""
        self.venue.settle(wall_ms=self.monotonic_ms())
        self._flush()

    async def run(self) -> None:
        """Move time on until cancelled."""
        slow_at = saved_at = wall.monotonic()
        while True:
            now = wall.monotonic()
            until_tick = self.clock.seconds_until(self.venue.ticked_ms + TICK_MS, now)
            await asyncio.sleep(min(max(until_tick + _EARLY, SHORTEST_SLEEP), LONGEST_SLEEP))
            self.feeds.watch()
            self.lockstep.release_if_quiet(wall.monotonic())
            await control.follow_script(self)
            before = self.venue.ticked_ms
            now_ms = self.advance()
            now = wall.monotonic()
            slow = now - slow_at >= SLOW_SECONDS
            if slow or before != self.venue.ticked_ms or self.hub.fresh:
                self.feeds.on_wake(now_ms, slow=slow)
            if slow:
                slow_at = now
                if self.listen_keys.has_expired(now, now_ms):
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
            venue = self.venue
            under_way, endings = venue.arrivals.in_flight(), self.script.endings(wall.monotonic())
            save(
                self.state_folder,
                Saved(self.identity, venue.ticked_ms, venue.exchange.state, unprotected, under_way, endings),
            )
            self._saved_revision = self.venue.revision

    # -- user stream ----------------------------------------------------------------------------------------------

    def _flush(self) -> bool:
        if not self.venue.events:
            return False
        events, self.venue.events = self.venue.events, []
        self.bitfinex.tell(events)
        # Most of the time nobody listens, and then nothing is written for them.
        if self.hub.by_stream:
            for stream, frame in chain.from_iterable(map(force_order_frames, events)):
                self.hub.publish(stream, frame)
        key = self.listen_keys.key
        if key is not None and self.hub.hears_account(key):
            for event in events:
                self.hub.publish_user(key, user_event(event, self.venue.exchange.state))
        return True

    def listen_key(self) -> str:
        """Return the live key, or make one; either way it now lives another hour."""
        return self.listen_keys.renew(wall.monotonic(), self.now_ms())

    def expire_listen_key(self, *, silent: bool = False) -> bool:
        """End the user stream as the venue does when a key was not kept alive."""
        key = self.listen_keys.key
        if key is None:
            return False
        if not silent:
            self.hub.publish_user(key, listen_key_expired(key, self.now_ms()))
        self.listen_keys.key = None
        return True

    async def kill_sockets(self, *, hard: bool) -> int:
        """Close every socket: politely, or by cutting the wire."""
        connections = self.hub.sockets()
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
        if request.path != "/fapi/v1/time":
            self.lockstep.heard(wall.monotonic())
        # As a rule all of it came with the head.
        raw = request.content.read_nowait() if request.content.is_eof() else await request.read()
        body = raw.decode("utf-8", "replace")
        if self.disturbed.black_hole:
            await self.disturbed.answering.wait()
        refusal = self.limiter.admit(wall.monotonic(), weight_of(request), is_order=is_order(request))
        if refusal is not None:
            self._note(request, body, status=refusal.status)
            told = too_many(refusal, self.now_ms(), self.clock.speed)
            return asked_too_often(refusal, told, self.headers(request))
        fault = self._fault(request, body)
        if fault is not None:
            self._note(request, body, fault=fault.action)
            unheard = partial(in_flight.execute_unheard, self, request, body)
            return await fail(
                request, fault, execute=partial(in_flight.respond, self, request, body), execute_unheard=unheard
            )
        response = await in_flight.respond(self, request, body)
        self._note(request, body, status=response.status)
        return response

    def _fault(self, request: web.Request, body: str) -> Fault | None:
        # What a request wants is looked at only where a rule could ask about it.
        reducing = bool(self.faults.rules) and reduces(request.query_string, body)
        return self.faults.pick(request.method, request.path, reduces=reducing)

    def _note(self, request: web.Request, body: str, **came: object) -> None:
        if self.faults.is_logging:
            entry = {"method": request.method, "path": request.path, "query": request.query_string, "body": body}
            self.faults.note(entry | came)

    def respond(self, request: web.Request, body: str) -> web.Response | WholeAnswer:
        """Answer one request now."""
        route = ROUTES.get((request.method, request.path))
        headers = self.headers(request)
        try:
            data = self._answer(request, body, route)
            status = 200
        except VenueError as refusal:
            data = {"code": refusal.code, "msg": refusal.message}
            status = refusal.status
        return answer(request, data, status=status, headers=headers)

    def _answer(self, request: web.Request, body: str, route: Route | None) -> Any:
        if request.path == "/fapi/v1/time":
            # In lockstep nobody is told of a time whose prices are not out yet.
            now_ms = self.venue.ticked_ms if self.lockstep.on else self.clock.now_ms(wall.monotonic())
            return {"serverTime": now_ms + self.clock.skew_ms}
        if request.path == "/fapi/v1/listenKey":
            return self._answer_listen_key(request)
        if route is None:
            raise VenueError(-5000, f"Path {request.path}, Method {request.method} is invalid", status=404)
        params = admit(self.credentials, self.clock, request, body, route)
        now_ms = self.advance()
        if request.method != "GET":
            self.venue.check_open(now_ms)
        call = Call(self.venue, params, now_ms, self.legacy_conditionals)
        try:
            young_ms = self.disturbed.stale_seconds * 1000 * self.clock.speed
            return lagging(request.method, request.path, call, young_ms) if young_ms else route.handler(call)
        finally:
            if route.security is Security.SIGNED:
                self.venue.settle(wall_ms=self.monotonic_ms())
                self._flush()

    def _answer_listen_key(self, request: web.Request) -> dict[str, Any]:
        check_key(self.credentials, request.headers.get("X-MBX-APIKEY"))
        if request.method == "POST":
            return {"listenKey": self.listen_key()}
        if self.listen_keys.key is None:
            raise VenueError(-1125)
        if request.method == "PUT":
            return {"listenKey": self.listen_key()}
        self.expire_listen_key()
        return {}

    def headers(self, request: web.Request) -> dict[str, str]:
        """Return what an answer says of how much was asked so far."""
        return self.limiter.headers(is_order=is_order(request))

    # -- WebSocket ------------------------------------------------------------------------------------------------

    async def handle_socket(self, request: web.Request) -> web.StreamResponse:
        """Serve one WebSocket until either side closes it."""
        await self.disturbed.answering.wait()
        if request.transport is None:
            return web.Response(status=499)
        if self.disturbed.refuses_handshake():
            wait = f"{self.disturbed.handshake_retry_after:g}"
            return web.Response(status=self.disturbed.handshake_status, headers={"Retry-After": wait})
        # Pings are answered here, so that a black hole can leave them unanswered.
        socket = web.WebSocketResponse(heartbeat=180.0, autoping=False, compress=False)
        await socket.prepare(request)
        path = request.path.rstrip("/")
        connection = Connection(socket, combined="/stream" in path, transport=request.transport)
        names = [one for one in (request.query.get("streams") or "").split("/") if one]
        tail = path.rsplit("/ws/", 1)[1] if "/ws/" in path else ""
        if tail and not tail.isdigit():
            names.extend(tail.split("/"))
        key = request.query.get("listenKey") or next((n for n in names if n == self.listen_keys.key), None)
        connection.listen_key = key
        self.hub.add(connection, [name for name in names if name != key])
        self.feeds.watch()
        writer = asyncio.create_task(write_frames(connection, self.disturbed))
        try:
            async for message in socket:
                if self.disturbed.black_hole:
                    continue
                if message.type == WSMsgType.PING:
                    await socket.pong(message.data)
                elif message.type == WSMsgType.TEXT:
                    reply = reply_to(connection, self.hub, message.data)
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
        key = self.listen_keys.key
        if key is not None and key in connection.streams:
            connection.listen_key = key
            self.hub.unsubscribe(connection, [key])


async def _rest(request: web.Request) -> web.StreamResponse:
    sandbox: Sandbox = request.app[control.SANDBOX]
    return await sandbox.handle_rest(request)


async def _socket(request: web.Request) -> web.StreamResponse:
    sandbox: Sandbox = request.app[control.SANDBOX]
    return await sandbox.handle_socket(request)


def application(sandbox: Sandbox) -> web.Application:
    """Build the web application around a venue."""
    app = web.Application(client_max_size=4 * 1024 * 1024)
    app[control.SANDBOX] = sandbox
    for room in ("", "/market", "/public", "/private"):
        for path in ("/ws", "/ws/{stream:.*}", "/stream"):
            app.router.add_get(room + path, _socket)
    app.router.add_get("/", control.handle_page)
    app.router.add_get("/sandbox/status", control.handle_status)
    app.router.add_get("/sandbox/audit", control.handle_audit)
    app.router.add_get("/sandbox/truth", control.handle_truth)
    app.router.add_post("/sandbox/ctl", control.handle_ctl)
    # A path that the router knows by name is found at once; by a pattern it is searched for.
    for path in sorted({path for _, path in ROUTES}):
        app.router.add_route("*", path, _rest)
    sandbox.bitfinex.add_routes(app, write_frames)
    app.router.add_route("*", "/{path:.*}", _rest)
    app.cleanup_ctx.append(_running)
    return app


async def _running(app: web.Application) -> Any:
    sandbox: Sandbox = app[control.SANDBOX]
    loop = asyncio.create_task(sandbox.run())
    yield
    loop.cancel()
    with suppress(asyncio.CancelledError):
        await loop
    for connection in sandbox.hub.sockets():
        await connection.socket.close(code=WSCloseCode.GOING_AWAY)
    sandbox.advance()
    sandbox.save()
