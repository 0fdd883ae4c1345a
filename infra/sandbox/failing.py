"""How a request fails once it was chosen to: before it is executed, after that, or by a copy that lags."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from infra.sandbox.answers import WholeAnswer
from infra.sandbox.disturbed import without_young
from infra.sandbox.engine.errors import MESSAGES, VenueError
from infra.sandbox.faults import Fault
from infra.sandbox.handlers.call import Call
from infra.sandbox.limits import TooMany
from infra.sandbox.routes import ROUTES


async def fail(
    request: web.Request,
    fault: Fault,
    *,
    execute: Callable[[], Awaitable[web.Response | WholeAnswer]],
    execute_unheard: Callable[[], object],
) -> web.StreamResponse:
    """Let a request meet its fault; where it is executed at all, it takes as long to the engine as any other."""
    executed = await execute() if fault.action.startswith("exec_then_") else None
    action = fault.action.removeprefix("exec_then_")
    if executed is not None and action == "truncate":
        whole = executed.body if isinstance(executed.body, bytes) else b""
        return web.Response(body=whole[: len(whole) // 2], status=200, content_type="application/json")
    if action == "late_exec":
        asyncio.get_running_loop().call_later(fault.seconds, execute_unheard)
        action = "status"
    if action == "delay":
        await asyncio.sleep(fault.seconds)
        return await execute()
    if action == "hang":
        await asyncio.sleep(fault.seconds)
        action = "drop"
    if action == "drop":
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=499)
    text = fault.body
    if text is None:
        told = {"code": fault.code, "msg": MESSAGES.get(fault.code, "Refused.")}
        text = msgspec.json.encode(told).decode()
    return web.Response(text=text, status=fault.status, headers=fault.headers, content_type="application/json")


def asked_too_often(refusal: TooMany, told: dict[str, Any], headers: dict[str, str]) -> web.Response:
    """Answer a request that was one too many."""
    headers = headers | {"Retry-After": str(max(1, round(refusal.retry_after_seconds)))}
    body = msgspec.json.encode(told)
    return web.Response(body=body, status=refusal.status, headers=headers, content_type="application/json")


def lagging(method: str, path: str, call: Call, young_ms: float) -> Any:
    """
    Answer from a copy of the venue that does not have its youngest orders yet; orders themselves are taken as ever.

    Raises:
        VenueError: The request is about one of them, or refused for another reason.
    """
    since_ms = call.now_ms - young_ms
    if method == "GET":
        return without_young(path, ROUTES[method, path].handler(call), since_ms)
    shown = ROUTES.get(("GET", path))
    if method == "DELETE" and shown is not None:
        try:
            without_young(path, shown.handler(call), since_ms)
        except VenueError:
            raise VenueError(-2011) from None
    return ROUTES[method, path].handler(call)


def reduces(query: str, body: str) -> bool:
    """Whether an order can only make a position smaller, by its own words."""
    return any(f"{name}=true" in f"{query}&{body}" for name in ("reduceOnly", "closePosition"))
