"""The venue on a port: REST, WebSocket and the loop that moves its time."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from aiohttp import WSCloseCode, web

from feature_store import clock as wall
from infra.sandbox import control, in_flight, moments, sockets, ws_api
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
from infra.sandbox.persist import Identity, save
from infra.sandbox.protocol.force_orders import force_order_frames
from infra.sandbox.protocol.params import Params
from infra.sandbox.protocol.signing import Credentials, check_key
from infra.sandbox.protocol.user_events import listen_key_expired, user_event
from infra.sandbox.routes import ROUTES
from infra.sandbox.routing import Route, Security
from infra.sandbox.script import Script
from infra.sandbox.spot import paths
from infra.sandbox.spot.account_stream import AccountStream
from infra.sandbox.spot.streams import ROOM
from infra.sandbox.streams import Hub, write_frames
from infra.sandbox.venue import Venue

SLOW_SECONDS = 0.5
SAVE_SECONDS = 1.0
IDLE_SAVE_SECONDS = 5.0
SHORTEST_SLEEP = 0.01
LONGEST_SLEEP = 0.25
TIMES = frozenset({"/fapi/v1/time", paths.TIME})
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
        self.spot_stream = AccountStream(venue, self.hub)
        self.faults = FaultPlan(venue.seed)
        self.legacy_conditionals = False
        self.requests = 0
        self.disturbed = Disturbed()
        self.limiter = RateLimiter()
        self.script = Script()
        self.listen_keys = ListenKey()
        # The venue as it was at moments that somebody may want to come back to, by name.
        self.snapshots: dict[str, moments.Snapshot] = {}
        self.leading = moments.Leading()
        self._said_halted = False
        self._saved: tuple[int, int] = (-1, 0)
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

    def told_ms(self) -> int:
        """Return the time that clients are told; in lockstep nobody is told of one whose prices are not out yet."""
        now_ms = self.venue.ticked_ms if self.lockstep.on else self.clock.now_ms(wall.monotonic())
        return now_ms + self.clock.skew_ms

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
            if now - saved_at >= (IDLE_SAVE_SECONDS if self.is_saved else SAVE_SECONDS):
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

    @property
    def is_saved(self) -> bool:
        """Whether nothing has changed since the account was written, but the time."""
        return self._saved == self._version

    @property
    def _version(self) -> tuple[int, int]:
        return self.venue.revision, self.bitfinex.doorkeeper.admitted

    def save(self) -> None:
        """Write the account and the time."""
        if self.state_folder is not None:
            save(self.state_folder, moments.saved(self))
            self._saved = self._version

    # -- user stream ----------------------------------------------------------------------------------------------

    def _flush(self) -> bool:
        news, self.venue.spot_events = self.venue.spot_events, []
        if news:
            self.spot_stream.tell(news)
        if not self.venue.events:
            return bool(news)
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
        key, ended = self.listen_keys.key, self.spot_stream.terminate(self.now_ms(), silent=silent)
        if key is None:
            return ended
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
        if request.path not in TIMES:
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
            data = refusal.body()
            status = refusal.status
        return answer(request, data, status=status, headers=headers)

    def _answer(self, request: web.Request, body: str, route: Route | None) -> Any:
        if request.path in TIMES:
            return {"serverTime": self.told_ms()}
        if request.path == "/fapi/v1/listenKey":
            return self._answer_listen_key(request)
        if route is None:
            raise VenueError(-5000, f"Path {request.path}, Method {request.method} is invalid", status=404)
        params = admit(self.credentials, self.clock, request, body, route)
        return self.execute(request.method, request.path, route, params)

    def execute(self, method: str, path: str, route: Route, params: Params) -> Any:
        """
        Do what an admitted request asks, now.

        Raises:
            VenueError: The venue refuses.
        """
        now_ms = self.advance()
        if method != "GET":
            self.venue.check_open(now_ms)
        call = Call(self.venue, params, now_ms, self.legacy_conditionals)
        try:
            young_ms = self.disturbed.stale_seconds * 1000 * self.clock.speed
            return lagging(method, path, call, young_ms) if young_ms else route.handler(call)
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
        by_day = request.path.startswith(paths.PREFIX)
        return self.limiter.headers(is_order=is_order(request), by_day=by_day)


async def _rest(request: web.Request) -> web.StreamResponse:
    sandbox: Sandbox = request.app[control.SANDBOX]
    return await sandbox.handle_rest(request)


async def _socket(request: web.Request) -> web.StreamResponse:
    return await sockets.serve(request.app[control.SANDBOX], request)


async def _asking_socket(request: web.Request) -> web.StreamResponse:
    return await ws_api.serve(request.app[control.SANDBOX], request)


def application(sandbox: Sandbox) -> web.Application:
    """Build the web application around a venue."""
    app = web.Application(client_max_size=4 * 1024 * 1024)
    app[control.SANDBOX] = sandbox
    for room in ("", "/market", "/public", "/private", ROOM):
        for path in ("/ws", "/ws/{stream:.*}", "/stream"):
            app.router.add_get(room + path, _socket)
    for room in ws_api.METHODS:
        app.router.add_get(room, _asking_socket)
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
