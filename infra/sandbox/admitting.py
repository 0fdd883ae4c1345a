"""Who may ask: what a request weighs, whether it is an order, and its parameters once it is let in."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from feature_store import clock as wall
from infra.sandbox.clock import VirtualClock
from infra.sandbox.protocol.params import Params, form_values
from infra.sandbox.protocol.signing import Credentials, RequestClock, check_age, check_key, check_signature
from infra.sandbox.routes import ORDER_PATHS, ROUTES
from infra.sandbox.routing import Route, Security

_USUAL_LIMIT = 500


def is_order(request: web.Request) -> bool:
    """Whether a request counts as an order."""
    return request.path in ORDER_PATHS and request.method in {"POST", "PUT"}


def weight_of(request: web.Request) -> int:
    """Return what a request weighs."""
    route = ROUTES.get((request.method, request.path))
    if route is None:
        return 1
    names_symbol = bool(request.query.get("symbol"))
    if not route.weight_up_to:
        return route.weighs(_USUAL_LIMIT, names_symbol=names_symbol)
    told = request.query.get("limit", "")
    return route.weighs(int(told) if told.isdecimal() and len(told) < 10 else _USUAL_LIMIT)


def admit(credentials: Credentials, clock: VirtualClock, request: web.Request, body: str, route: Route) -> Params:
    """
    Read the parameters of one who may ask.

    Raises:
        VenueError: The key, the signature or the age of the request is wrong.
    """
    query = request.rel_url.raw_query_string
    params = Params(form_values(query) | form_values(body))
    if route.security is not Security.NONE:
        check_key(credentials, request.headers.get("X-MBX-APIKEY"))
    if route.security is Security.SIGNED:
        check_time(clock, params, lambda: check_signature(credentials, query, body))
    return params


def check_time(clock: VirtualClock, params: Params, check_signed: Callable[[], None]) -> None:
    """
    Refuse a request that says no time, is not signed as it should be, or is too old, in this order.

    Raises:
        VenueError: It is one of these.
    """
    timestamp = params.integer("timestamp")
    if timestamp is None:
        params.required("timestamp")
    assert timestamp is not None
    check_signed()
    window = params.integer("recvWindow", 5_000) or 5_000
    venue_ms, wall_ms = clock.reported_ms(wall.monotonic()), wall.utc_now_ms()
    is_virtual = clock.speed != 1.0 or abs(venue_ms - wall_ms) > 60_000
    check_age(RequestClock(venue_ms, wall_ms, clock.speed, is_virtual), timestamp, window)
