"""Requests over a WebSocket: what REST answers, asked and answered in frames, of contracts and of spot."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec
from aiohttp import web

from feature_store import clock as wall
from feature_store.json_text import UNREADABLE
from infra.sandbox.admitting import check_time
from infra.sandbox.arrivals import Reply, latency_ms
from infra.sandbox.engine.errors import MESSAGES, VenueError
from infra.sandbox.faults import Fault
from infra.sandbox.protocol.params import Params
from infra.sandbox.protocol.signing import check_key, check_payload
from infra.sandbox.routes import ORDER_PATHS, ROUTES
from infra.sandbox.routing import Security
from infra.sandbox.sending import carried, send
from infra.sandbox.sockets import follow, opened
from infra.sandbox.spot import paths
from infra.sandbox.streams import Connection

if TYPE_CHECKING:
    from infra.sandbox.server import Sandbox

SPOT_ROOM, FUTURES_ROOM = "/ws-api/v3", "/ws-fapi/v1"
SUBSCRIBE, UNSUBSCRIBE = "userDataStream.subscribe.signature", "userDataStream.unsubscribe"
_SPOT: Final = {
    "ping": ("GET", "/api/v3/ping"),
    "time": ("GET", paths.TIME),
    "exchangeInfo": ("GET", "/api/v3/exchangeInfo"),
    "depth": ("GET", "/api/v3/depth"),
    "trades.recent": ("GET", "/api/v3/trades"),
    "trades.aggregate": ("GET", "/api/v3/aggTrades"),
    "klines": ("GET", "/api/v3/klines"),
    "uiKlines": ("GET", "/api/v3/uiKlines"),
    "avgPrice": ("GET", "/api/v3/avgPrice"),
    "ticker.24hr": ("GET", "/api/v3/ticker/24hr"),
    "ticker.price": ("GET", "/api/v3/ticker/price"),
    "ticker.book": ("GET", "/api/v3/ticker/bookTicker"),
    "order.place": ("POST", "/api/v3/order"),
    "order.test": ("POST", "/api/v3/order/test"),
    "order.status": ("GET", "/api/v3/order"),
    "order.cancel": ("DELETE", "/api/v3/order"),
    "order.cancelReplace": ("POST", "/api/v3/order/cancelReplace"),
    "openOrders.status": ("GET", "/api/v3/openOrders"),
    "openOrders.cancelAll": ("DELETE", "/api/v3/openOrders"),
    "orderList.place.oco": ("POST", "/api/v3/orderList/oco"),
    "orderList.status": ("GET", "/api/v3/orderList"),
    "orderList.cancel": ("DELETE", "/api/v3/orderList"),
    "openOrderLists.status": ("GET", "/api/v3/openOrderList"),
    "allOrderLists": ("GET", "/api/v3/allOrderList"),
    "allOrders": ("GET", "/api/v3/allOrders"),
    "myTrades": ("GET", "/api/v3/myTrades"),
    "account.status": ("GET", "/api/v3/account"),
    "account.commission": ("GET", "/api/v3/account/commission"),
}
_FUTURES: Final = {
    "ping": ("GET", "/fapi/v1/ping"),
    "time": ("GET", "/fapi/v1/time"),
    "depth": ("GET", "/fapi/v1/depth"),
    "ticker.price": ("GET", "/fapi/v2/ticker/price"),
    "ticker.book": ("GET", "/fapi/v1/ticker/bookTicker"),
    "order.place": ("POST", "/fapi/v1/order"),
    "order.modify": ("PUT", "/fapi/v1/order"),
    "order.cancel": ("DELETE", "/fapi/v1/order"),
    "order.status": ("GET", "/fapi/v1/order"),
    "algoOrder.place": ("POST", "/fapi/v1/algoOrder"),
    "algoOrder.cancel": ("DELETE", "/fapi/v1/algoOrder"),
    "account.balance": ("GET", "/fapi/v2/balance"),
    "v2/account.balance": ("GET", "/fapi/v3/balance"),
    "account.status": ("GET", "/fapi/v2/account"),
    "v2/account.status": ("GET", "/fapi/v3/account"),
    "account.position": ("GET", "/fapi/v2/positionRisk"),
    "v2/account.position": ("GET", "/fapi/v3/positionRisk"),
}
METHODS: Final[Mapping[str, Mapping[str, tuple[str, str]]]] = {SPOT_ROOM: _SPOT, FUTURES_ROOM: _FUTURES}
_TIMES = frozenset({"/fapi/v1/time", paths.TIME})
_encode = msgspec.json.encode


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: its own id, what it asks, and its parameters as they would stand in a query."""

    id: object
    method: str
    values: dict[str, str]

    @property
    def wants_limits(self) -> bool:
        """Whether the answer says what was used of the limits."""
        return self.values.get("returnRateLimits") != "false"


class Session:
    """One connection that asks."""

    def __init__(self, sandbox: Sandbox, room: str, connection: Connection) -> None:
        self._sandbox = sandbox
        self._room = room
        self._methods = METHODS[room]
        self.connection = connection
        self._under_way: set[asyncio.Task[None]] = set()

    def take(self, text: str) -> None:
        """Begin to answer one frame; those that nothing holds up are answered in their order."""
        task = asyncio.get_running_loop().create_task(self._answer(text))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    def leave(self) -> None:
        """Answer nothing more."""
        self._sandbox.spot_stream.leave(self.connection)
        for task in self._under_way:
            task.cancel()

    async def _answer(self, text: str) -> None:
        sandbox = self._sandbox
        sandbox.requests += 1
        asked = _read(text)
        if asked is None:
            self._say(None, Reply(400, {"code": -1100, "msg": "Illegal characters found in a parameter."}))
            return
        method, path = self._methods.get(asked.method, ("POST", ""))
        if path not in _TIMES:
            sandbox.lockstep.heard(wall.monotonic())
        is_order = path in ORDER_PATHS and method in {"POST", "PUT"}
        route = ROUTES.get((method, path))
        weight = 1 if route is None else route.weighs(500)
        refusal = sandbox.limiter.admit(wall.monotonic(), weight, is_order=is_order)
        place = f"{self._room}/{asked.method[:60]}"
        entry = {"method": method, "path": place, "query": "", "body": text[:2_000]}
        if refusal is not None:
            sandbox.faults.note({**entry, "status": refusal.status})
            told = {"code": -1003, "msg": MESSAGES[-1003], "data": {"retryAfter": sandbox.told_ms() + 1_000}}
            self._say(asked, Reply(refusal.status, told))
            return
        reduces = any(asked.values.get(name) == "true" for name in ("reduceOnly", "closePosition"))
        fault = sandbox.faults.pick(method, place, reduces=reduces)
        sandbox.faults.note({**entry, **({} if fault is None else {"fault": fault.action})})
        if fault is not None:
            await self._fail(asked, fault)
            return
        self._say(asked, await self._executed(asked))

    async def _fail(self, asked: Asked, fault: Fault) -> None:
        """Let a request meet its fault, as it would over REST."""
        executed = await self._executed(asked) if fault.action.startswith("exec_then_") else None
        action = fault.action.removeprefix("exec_then_")
        if executed is not None and action == "truncate":
            whole = self._frame(asked, executed)
            self.connection.push(whole[: len(whole) // 2])
            return
        if action == "late_exec":
            asyncio.get_running_loop().call_later(fault.seconds, partial(self._execute_unheard, asked))
            action = "status"
        if action in {"delay", "hang"}:
            await asyncio.sleep(fault.seconds)
        if action == "delay":
            self._say(asked, await self._executed(asked))
        elif action in {"drop", "hang"}:
            if self.connection.transport is not None:
                self.connection.transport.abort()
        elif fault.body is not None:
            self.connection.push(fault.body)
        else:
            self._say(asked, Reply(fault.status, {"code": fault.code, "msg": MESSAGES.get(fault.code, "Refused.")}))

    async def _executed(self, asked: Asked) -> Reply:
        try:
            return await self._done(asked)
        except VenueError as refusal:
            return Reply(refusal.status, refusal.body())
        except Exception:  # noqa: BLE001 - a defect in one answer is an answer of the venue too
            traceback.print_exc()
            return Reply(500, {"code": -1000, "msg": MESSAGES[-1000]})

    async def _done(self, asked: Asked) -> Reply:
        sandbox = self._sandbox
        if asked.method in {SUBSCRIBE, UNSUBSCRIBE} and self._room == SPOT_ROOM:
            return Reply(200, self._subscription(asked))
        found = self._admit(asked)
        method, path, params = found
        if path in _TIMES:
            return Reply(200, {"serverTime": sandbox.told_ms()})
        late_ms = latency_ms(sandbox.venue.exchange.state.rules, method, path)
        if late_ms:
            return await carried(sandbox, method, path, params.values, delay_ms=late_ms)
        return Reply(200, sandbox.execute(method, path, ROUTES[method, path], params))

    def _execute_unheard(self, asked: Asked) -> None:
        sandbox = self._sandbox
        with suppress(VenueError):
            method, path, params = self._admit(asked)
            late_ms = latency_ms(sandbox.venue.exchange.state.rules, method, path)
            if late_ms:
                send(sandbox, method, path, params.values, delay_ms=late_ms)
            else:
                sandbox.execute(method, path, ROUTES[method, path], params)

    def _admit(self, asked: Asked) -> tuple[str, str, Params]:
        known = self._methods.get(asked.method)
        if known is None:
            raise VenueError(-1130, f"Unknown method '{asked.method[:60]}'.")
        route = ROUTES.get(known)
        params = Params(asked.values)
        if route is not None and route.security is not Security.NONE:
            check_key(self._sandbox.credentials, params.text("apiKey"))
        if route is not None and route.security is Security.SIGNED:
            self._check_signed(params)
        return *known, params

    def _check_signed(self, params: Params) -> None:
        sandbox = self._sandbox
        check_time(sandbox.clock, params, lambda: check_payload(sandbox.credentials, params.values))

    def _subscription(self, asked: Asked) -> dict[str, Any]:
        sandbox, params = self._sandbox, Params(asked.values)
        if asked.method == UNSUBSCRIBE:
            sandbox.spot_stream.leave(self.connection, params.integer("subscriptionId"))
            return {}
        check_key(sandbox.credentials, params.text("apiKey"))
        self._check_signed(params)
        # The stream of an account, for those who push frames to all of these.
        self.connection.listen_key = SPOT_ROOM
        return {"subscriptionId": sandbox.spot_stream.join(self.connection)}

    def _say(self, asked: Asked | None, reply: Reply) -> None:
        self.connection.push(self._frame(asked, reply))

    def _frame(self, asked: Asked | None, reply: Reply) -> str:
        told: dict[str, Any] = {"id": None if asked is None else asked.id, "status": reply.status}
        told["result" if reply.status == 200 else "error"] = reply.data
        if asked is not None and asked.wants_limits:
            told["rateLimits"] = self._sandbox.limiter.told(by_day=self._room == SPOT_ROOM)
        return _encode(told).decode()


def _read(text: str) -> Asked | None:
    try:
        said = msgspec.json.decode(text, type=dict[str, Any])
    except UNREADABLE:
        return None
    method, params = said.get("method"), said.get("params") or {}
    if not isinstance(method, str) or not isinstance(params, dict):
        return None
    return Asked(said.get("id"), method, {name: _text(value) for name, value in params.items()})


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else _encode(value).decode()


async def serve(sandbox: Sandbox, request: web.Request) -> web.StreamResponse:
    """Serve one connection until either side closes it."""
    socket = await opened(sandbox, request)
    if not isinstance(socket, web.WebSocketResponse):
        return socket
    connection = Connection(socket, combined=False, transport=request.transport)
    sandbox.hub.add(connection)
    session = Session(sandbox, request.path.rstrip("/"), connection)
    try:
        await follow(sandbox, connection, session.take)
    finally:
        session.leave()
    return socket
