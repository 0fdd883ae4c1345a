"""Orders of spot: new, cancel, replace, query."""

from __future__ import annotations

from typing import Any

from infra.sandbox.engine.errors import VenueError
from infra.sandbox.engine.model import AlgoOrder, AlgoRequest, Order
from infra.sandbox.engine.spot import SpotExchange
from infra.sandbox.engine.spot_ledger import number
from infra.sandbox.handlers.call import Call
from infra.sandbox.handlers.retention import is_archived
from infra.sandbox.protocol.params import symbol_of
from infra.sandbox.spot import shapes
from infra.sandbox.spot.words import OF_REPLACEMENT, Asked, SpotType, order_asked

_ANSWERS = frozenset({"ACK", "RESULT", "FULL"})
_FULL = frozenset({SpotType.MARKET, SpotType.LIMIT})
_ARCHIVED = "Order was canceled or expired with no executed qty over 90 days ago and has been archived."
_DAY_MS = 86_400_000
_END_OF_TIME_MS = 1 << 62


def new_order(call: Call) -> Any:
    """Accept an order."""
    asked = order_asked(call.params)
    return _accepted(call, asked)


def test_order(call: Call) -> Any:
    """Check an order without accepting it."""
    asked = order_asked(call.params)
    spot = trading(call, asked.request.symbol)
    if isinstance(asked.request, AlgoRequest):
        spot.check_algo(asked.request, now_ms=call.now_ms)
    elif asked.money is None:
        spot.check(asked.request, now_ms=call.now_ms)
    return {}


def _accepted(call: Call, asked: Asked) -> Any:
    spot, now_ms = trading(call, asked.request.symbol), call.now_ms
    kind = call.params.text("newOrderRespType") or ("FULL" if asked.kind in _FULL else "ACK")
    if kind not in _ANSWERS:
        raise VenueError(-1130, "Data sent for parameter 'newOrderRespType' is not valid.")
    one: Order | AlgoOrder
    if isinstance(asked.request, AlgoRequest):
        one = spot.submit_algo(asked.request, now_ms=now_ms)
    elif asked.money is not None:
        one = spot.submit_for_quote(asked.request, asked.money, now_ms=now_ms)
    else:
        one = spot.submit(asked.request, now_ms=now_ms)
    return shapes.answered(spot, one, kind, now_ms)


def trading(call: Call, symbol: str) -> SpotExchange:
    """Return the account once its engine has seen the symbol's price; refuse one that does not trade now."""
    venue = call.venue
    venue.instrument(symbol)
    if symbol in venue.exchange.state.settled or not venue.is_trading(symbol, call.now_ms):
        raise VenueError(-1013, "Market is closed.")
    venue.touch(symbol, venue.spot)
    return venue.spot


def cancel_order(call: Call) -> Any:
    """Cancel an open order."""
    return _cancelled(call, *_named(call), call.params.text("newClientOrderId"))


def _cancelled(call: Call, order_id: int | None, client_id: str | None, own_id: str | None) -> Any:
    symbol = symbol_of(call.params)
    call.venue.instrument(symbol)
    spot = call.venue.spot
    one = spot.cancel_any(symbol, order_id=order_id, client_order_id=client_id, now_ms=call.now_ms)
    return shapes.cancelled(spot, one, call.now_ms, own_id or "")


def cancel_all(call: Call) -> Any:
    """Cancel the open orders of a symbol; that there are none is refused."""
    symbol = symbol_of(call.params)
    call.venue.instrument(symbol)
    spot = call.venue.spot
    ended = spot.cancel_every(symbol, now_ms=call.now_ms)
    if not ended:
        raise VenueError(-2011)
    return [shapes.cancelled(spot, one, call.now_ms) for one in ended]


def replace_order(call: Call) -> Any:
    """Cancel an order and take another in its place; the answer says what became of each."""
    mode = call.params.required("cancelReplaceMode")
    if mode not in {"STOP_ON_FAILURE", "ALLOW_FAILURE"}:
        raise VenueError(-1130, "Data sent for parameter 'cancelReplaceMode' is not valid.")
    order_id, client_id = call.params.integer("cancelOrderId"), call.params.text("cancelOrigClientOrderId")
    if order_id is None and client_id is None:
        raise VenueError(-1102, "Param 'cancelOrigClientOrderId' or 'cancelOrderId' must be sent, but both were empty!")
    asked = order_asked(call.params, known=OF_REPLACEMENT)
    told: dict[str, Any] = {"cancelResult": "SUCCESS", "newOrderResult": "NOT_ATTEMPTED", "newOrderResponse": None}
    try:
        own_id = call.params.text("cancelNewClientOrderId")
        told["cancelResponse"] = _cancelled(call, order_id, client_id, own_id)
    except VenueError as error:
        told |= {"cancelResult": "FAILURE", "cancelResponse": error.body()}
    if told["cancelResult"] == "SUCCESS" or mode == "ALLOW_FAILURE":
        try:
            told |= {"newOrderResponse": _accepted(call, asked), "newOrderResult": "SUCCESS"}
        except VenueError as error:
            told |= {"newOrderResponse": error.body(), "newOrderResult": "FAILURE"}
    results = {told["cancelResult"], told["newOrderResult"]}
    if results == {"SUCCESS"}:
        return told
    if "SUCCESS" in results:
        raise VenueError(-2021, "Order cancel-replace partially failed.", status=409, data=told)
    raise VenueError(-2022, "Order cancel-replace failed.", data=told)


def _named(call: Call) -> tuple[int | None, str | None]:
    order_id, client_id = call.params.integer("orderId"), call.params.text("origClientOrderId")
    if order_id is None and client_id is None:
        raise VenueError(-1102, "Param 'origClientOrderId' or 'orderId' must be sent, but both were empty/null!")
    return order_id, client_id


def get_order(call: Call) -> Any:
    """One order."""
    symbol = symbol_of(call.params)
    call.venue.instrument(symbol)
    order_id, client_id = _named(call)
    spot = call.venue.spot
    order = spot.find(symbol, order_id=order_id, client_order_id=client_id)
    if is_archived(order, call.now_ms):
        raise VenueError(-2026, _ARCHIVED)
    return shapes.order(spot, order)


def open_orders(call: Call) -> Any:
    """Open orders: of a symbol, or all."""
    symbol = call.params.text("symbol")
    if symbol is not None:
        call.venue.instrument(symbol)
    spot = call.venue.spot
    return [shapes.order(spot, one) for one in spot.all_open(symbol)]


def all_orders(call: Call) -> Any:
    """Orders of a symbol: from a number on, of a stretch of time, or the newest."""
    symbol = symbol_of(call.params)
    call.venue.instrument(symbol)
    limit, first = call.params.limit(500, 1000), call.params.integer("orderId")
    start, end = stretch(call)
    found = [
        one
        for one in call.venue.spot.all_orders(symbol)
        if (number(one) >= first if first is not None else start <= one.created_ms <= end)
    ]
    chosen = found[:limit] if first is not None or call.params.text("startTime") else found[-limit:]
    return [shapes.order(call.venue.spot, one) for one in chosen]


def stretch(call: Call) -> tuple[int, int]:
    """
    Return the stretch of time that is asked for; without one, all of it.

    Raises:
        VenueError: It is longer than a day, or ends before it begins.
    """
    start, end = call.params.integer("startTime"), call.params.integer("endTime")
    if start is not None and end is not None and not 0 <= end - start <= _DAY_MS:
        raise VenueError(-1127, "More than 24 hours between startTime and endTime.")
    if start is None:
        start = 0 if end is None else end - _DAY_MS
    elif end is None:
        end = start + _DAY_MS
    # A venue that was restored may be a little younger than its last order.
    return start, _END_OF_TIME_MS if end is None else end
