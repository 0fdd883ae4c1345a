"""The control plane: what a test or a person may ask of the venue itself."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web

from feature_store import clock as wall
from feature_store.json_text import UNREADABLE
from infra.sandbox import audit, disturbing, moments, order_rules, page
from infra.sandbox.faults import FaultError, flag
from infra.sandbox.market.equations import attainable_information_coefficient
from infra.sandbox.market.equations import oracle_information_coefficient as oracle
from infra.sandbox.market.synthetic import SyntheticMarket

if TYPE_CHECKING:
    from infra.sandbox.server import Sandbox

VERSION = "1"
SANDBOX: web.AppKey[Sandbox] = web.AppKey("sandbox")
# What an operation that cannot be done ends with; a FaultError is one. The venue's time goes on all the same.
_FAILURES = (ValueError, TypeError, LookupError, ArithmeticError)


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
        "held_ms": None if sandbox.clock.held_since is None else venue.ticked_ms,
        "halted": market.end_ms is not None and now_ms >= market.end_ms,
        "connections": len(sandbox.hub.sockets()),
        "requests": sandbox.requests,
        "taker_fee": str(venue.exchange.fees.taker),
        "maker_fee": str(venue.exchange.fees.maker),
        "spread_bps": str(venue.exchange.book.spread_bps),
        "version": VERSION,
    }


def truth(sandbox: Sandbox) -> dict[str, Any]:
    """What can be known about the market, and so about any model of it."""
    market = sandbox.venue.market.source
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
    return json_response(status(request.app[SANDBOX]))


async def handle_truth(request: web.Request) -> web.Response:
    """GET /sandbox/truth."""
    return json_response(truth(request.app[SANDBOX]))


async def handle_audit(request: web.Request) -> web.Response:
    """GET /sandbox/audit."""
    sandbox: Sandbox = request.app[SANDBOX]
    sandbox.advance()
    answer = audit.report(
        sandbox.venue.exchange, sandbox.venue.auditor, now_ms=sandbox.now_ms(), wall_ms=sandbox.monotonic_ms()
    )
    answer["spot"] = audit.spot_report(sandbox.venue.spot)
    if sandbox.venue.ambiguity is not None:
        answer["intrabar"] = sandbox.venue.ambiguity.report()
    return json_response(answer)


async def handle_page(request: web.Request) -> web.Response:
    """GET / : the page a person looks at."""
    sandbox: Sandbox = request.app[SANDBOX]
    sandbox.advance()
    text = page.render(status(sandbox), sandbox.venue, sandbox.hub)
    return web.Response(text=text, content_type="text/html")


async def handle_ctl(request: web.Request) -> web.Response:
    """POST /sandbox/ctl: inject a fault or undo it."""
    sandbox: Sandbox = request.app[SANDBOX]
    try:
        body = msgspec.json.decode(await request.read(), type=dict[str, Any])
    except UNREADABLE as error:
        return json_response({"error": f"Expected a JSON object with 'op': {error}"}, status=400)
    try:
        return json_response(await perform(sandbox, body))
    except _FAILURES as error:
        return json_response({"error": str(error)}, status=400)


async def perform(sandbox: Sandbox, body: dict[str, Any]) -> Any:
    """
    Carry out one operation of the control plane.

    Raises:
        FaultError: The operation or one of its fields is unknown.
    """
    operation = str(body.get("op"))
    if operation not in _QUIET:
        note = {"now_ms": sandbox.now_ms(), "wall_ms": sandbox.wall_ms()}
        sandbox.faults.note_operation(note | {name: str(value)[:200] for name, value in body.items()})
    if operation in _AWAITED:
        return {"ok": True} | await _AWAITED[operation](sandbox, body)
    handler = _OPERATIONS.get(operation)
    if handler is None:
        known = ", ".join(sorted(_OPERATIONS.keys() | _AWAITED.keys()))
        raise FaultError(f"Unknown op '{operation[:40]}', expected {known}")
    try:
        return {"ok": True} | handler(sandbox, body)
    except disturbing.Unfolded as several:
        return {"ok": True, "did": [await perform(sandbox, dict(one)) for one in several.operations]}


async def follow_script(sandbox: Sandbox) -> None:
    """Do what the script says is due, and undo what has lasted long enough; a step that fails is told on stderr."""
    monotonic = wall.monotonic()
    for step in sandbox.script.begun(sandbox.now_ms(), monotonic):
        body = dict(step.operation)
        before = len(sandbox.faults.rules)
        try:
            await perform(sandbox, body)
        except _FAILURES as error:
            _tell_failed("A step", error)
            continue
        if step.lasts is not None:
            for undo in disturbing.undoing(sandbox, body, before):
                sandbox.script.undo_later(monotonic + step.lasts, undo)
    for undo in sandbox.script.ended(monotonic):
        try:
            undo.perform()
        except _FAILURES as error:
            _tell_failed("The end of a step", error)


def _tell_failed(what: str, error: Exception) -> None:
    sys.stderr.write(f"{what} of the fault script failed: {type(error).__name__}: {error}\n")


async def _kill(sandbox: Sandbox, body: dict[str, Any]) -> dict[str, Any]:
    return {"killed": await sandbox.kill_sockets(hard=flag(body, "hard", default=False))}


def _log(sandbox: Sandbox, body: dict[str, Any]) -> dict[str, Any]:
    if "on" in body:
        sandbox.faults.is_logging = bool(body["on"])
    faults = sandbox.faults
    return {"log": faults.log, "met": faults.met, "operations": faults.operations, "refused": sandbox.limiter.refused}


def _lead(sandbox: Sandbox, body: dict[str, Any]) -> dict[str, Any]:
    sandbox.lockstep.led_by_hand = bool(body.get("on", True))
    sandbox.lockstep.each_tick = sandbox.lockstep.led_by_hand and bool(body.get("each_tick", False))
    return {"led_by_hand": sandbox.lockstep.led_by_hand, "each_tick": sandbox.lockstep.each_tick}


def _stand_still(sandbox: Sandbox, body: dict[str, Any]) -> dict[str, Any]:
    del body
    sandbox.advance()
    sandbox.lockstep.led_by_hand = sandbox.leading.stands = True
    sandbox.clock.hold(wall.monotonic(), sandbox.venue.ticked_ms)
    return {"held_ms": sandbox.venue.ticked_ms}


def _go_on(sandbox: Sandbox, body: dict[str, Any]) -> dict[str, Any]:
    del body
    sandbox.leading.stands = False
    return {"stood_still": sandbox.lockstep.go_on(wall.monotonic())}


def _clear(sandbox: Sandbox, body: dict[str, Any]) -> dict[str, Any]:
    del body
    sandbox.faults.rules.clear()
    sandbox.faults.log.clear()
    sandbox.faults.met.clear()
    sandbox.faults.is_logging = False
    sandbox.hub.frozen_market = sandbox.hub.frozen_user = False
    sandbox.hub.thaw()
    sandbox.clock.skew_ms = 0
    sandbox.legacy_conditionals = sandbox.lockstep.led_by_hand = sandbox.lockstep.each_tick = False
    order_rules.put_in_force(sandbox, order_rules.switched_off(sandbox.venue.exchange.state.rules))
    order_rules.apply_feed_latency(sandbox)
    disturbing.clear(sandbox)
    sandbox.leading.stands = False
    sandbox.lockstep.go_on(wall.monotonic())
    return {}


_OPERATIONS: dict[str, Callable[[Sandbox, dict[str, Any]], dict[str, Any]]] = {
    "log": _log,
    "lead": _lead,
    "stand_still": _stand_still,
    "go_on": _go_on,
    "rules": order_rules.rules,
    "clear": _clear,
    "snapshot": moments.snapshot,
} | disturbing.OPERATIONS
# Those during which others may be served.
_AWAITED: dict[str, Callable[[Sandbox, dict[str, Any]], Awaitable[dict[str, Any]]]] = {
    "kill_ws": _kill,
    "advance": moments.advance,
    "restore": moments.restore,
}
# Questions, and what is done at each turn of a lockstep: not worth a line.
_QUIET = frozenset({"log", "go_on"})


def json_response(data: Any, *, status: int = 200) -> web.Response:
    """Answer in JSON."""
    return web.Response(body=msgspec.json.encode(data), status=status, content_type="application/json")
