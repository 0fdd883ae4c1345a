"""The control plane: what a test or a person may ask of the venue itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from infra.sandbox import audit, page
from infra.sandbox.faults import FaultError, parse_fault
from infra.sandbox.market.synthetic import SyntheticMarket, attainable_information_coefficient
from infra.sandbox.market.synthetic import oracle_information_coefficient as oracle

if TYPE_CHECKING:
    from infra.sandbox.server import Sandbox

VERSION = "1"


def status(sandbox: Sandbox) -> dict[str, Any]:
    """Time, market and load."""
    venue = sandbox.venue
    market = venue.market
    now_ms = sandbox.now_ms()
    return {
        "now_ms": now_ms,
        "wall_ms": sandbox.wall_ms(),
        "speed": sandbox.clock.speed,
        "seed": venue.seed,
        "edge": market.edge,
        "market": market.kind,
        "symbols": [one.symbol for one in market.instruments],
        "start_ms": market.start_ms,
        "first_ms": market.first_ms,
        "end_ms": market.end_ms,
        "halted": market.end_ms is not None and now_ms >= market.end_ms,
        "connections": len(sandbox.hub.connections),
        "requests": sandbox.requests,
        "taker_fee": str(venue.exchange.fees.taker),
        "maker_fee": str(venue.exchange.fees.maker),
        "spread_bps": str(venue.exchange.book.spread_bps),
        "version": VERSION,
    }


def truth(sandbox: Sandbox) -> dict[str, Any]:
    """What can be known about the market, and so about any model of it."""
    market = sandbox.venue.market
    if not isinstance(market, SyntheticMarket):
        return {"market": market.kind, "edge": None, "note": "Recorded candles: nobody knows what can be predicted."}
    return {
        "market": market.kind,
        "edge": market.edge,
        "horizon_minutes": 60,
        "oracle_information_coefficient": oracle(market.edge),
        "attainable_information_coefficient": attainable_information_coefficient(market.edge),
        "note": "Correlation with the next hour's return in units of volatility; the oracle knows the latent itself.",
    }


async def handle_status(request: web.Request) -> web.Response:
    """GET /sandbox/status."""
    return json_response(status(request.app["sandbox"]))


async def handle_truth(request: web.Request) -> web.Response:
    """GET /sandbox/truth."""
    return json_response(truth(request.app["sandbox"]))


async def handle_audit(request: web.Request) -> web.Response:
    """GET /sandbox/audit."""
    sandbox: Sandbox = request.app["sandbox"]
    sandbox.advance()
    answer = audit.report(
        sandbox.venue.exchange, sandbox.venue.auditor, now_ms=sandbox.now_ms(), wall_ms=sandbox.monotonic_ms()
    )
    return json_response(answer)


async def handle_page(request: web.Request) -> web.Response:
    """GET / : the page a person looks at."""
    sandbox: Sandbox = request.app["sandbox"]
    sandbox.advance()
    text = page.render(status(sandbox), sandbox.venue, sandbox.hub)
    return web.Response(text=text, content_type="text/html")


async def handle_ctl(request: web.Request) -> web.Response:
    """POST /sandbox/ctl: inject a fault or undo it."""
    sandbox: Sandbox = request.app["sandbox"]
    try:
        body = msgspec.json.decode(await request.read(), type=dict[str, Any])
    except msgspec.DecodeError as error:
        return json_response({"error": f"Expected a JSON object with 'op': {error}"}, status=400)
    try:
        return json_response(await perform(sandbox, body))
    except (FaultError, ValueError, TypeError) as error:
        return json_response({"error": str(error)}, status=400)


async def perform(sandbox: Sandbox, body: dict[str, Any]) -> Any:
    """
    Carry out one operation of the control plane.

    Raises:
        FaultError: The operation or one of its fields is unknown.
    """
    operation = str(body.get("op"))
    if operation == "kill_ws":
        return {"ok": True, "killed": await sandbox.kill_sockets(hard=bool(body.get("hard", False)))}
    handler = _OPERATIONS.get(operation)
    if handler is None:
        raise FaultError(f"Unknown op '{operation}', expected kill_ws, {', '.join(sorted(_OPERATIONS))}")
    return {"ok": True} | handler(sandbox, body)


def _fault(sandbox: Sandbox, body: dict[str, Any]) -> dict[str, Any]:
    sandbox.faults.rules.append(parse_fault(body))
    return {"faults": len(sandbox.faults.rules)}


def _freeze(sandbox: Sandbox, body: dict[str, Any]) -> dict[str, Any]:
    frozen = bool(body.get("on", True))
    sandbox.hub.frozen_market = frozen and bool(body.get("market", True))
    sandbox.hub.frozen_user = frozen and bool(body.get("user", True))
    return {}


def _skew(sandbox: Sandbox, body: dict[str, Any]) -> dict[str, Any]:
    sandbox.clock.skew_ms = int(body.get("ms", 0))
    return {"skew_ms": sandbox.clock.skew_ms}


def _expire_key(sandbox: Sandbox, body: dict[str, Any]) -> dict[str, Any]:
    del body
    return {"expired": sandbox.expire_listen_key()}


def _legacy(sandbox: Sandbox, body: dict[str, Any]) -> dict[str, Any]:
    sandbox.legacy_conditionals = body.get("mode", "accept") == "accept"
    return {}


def _push(sandbox: Sandbox, body: dict[str, Any]) -> dict[str, Any]:
    for connection in list(sandbox.hub.connections):
        connection.push(str(body.get("frame", "")))
    return {}


def _log(sandbox: Sandbox, body: dict[str, Any]) -> dict[str, Any]:
    if "on" in body:
        sandbox.faults.is_logging = bool(body["on"])
    return {"log": sandbox.faults.log}


def _clear(sandbox: Sandbox, body: dict[str, Any]) -> dict[str, Any]:
    del body
    sandbox.faults.rules.clear()
    sandbox.faults.log.clear()
    sandbox.faults.is_logging = False
    sandbox.hub.frozen_market = sandbox.hub.frozen_user = False
    sandbox.clock.skew_ms = 0
    sandbox.legacy_conditionals = False
    return {}


_OPERATIONS: dict[str, Callable[[Sandbox, dict[str, Any]], dict[str, Any]]] = {
    "fault": _fault,
    "freeze_ws": _freeze,
    "skew": _skew,
    "expire_key": _expire_key,
    "legacy": _legacy,
    "push": _push,
    "log": _log,
    "clear": _clear,
}


def json_response(data: Any, *, status: int = 200) -> web.Response:
    """Answer in JSON."""
    return web.Response(body=msgspec.json.encode(data), status=status, content_type="application/json")
