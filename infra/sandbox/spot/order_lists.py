"""Pairs of orders of which one at most is executed (OCO): new, cancel, query."""

from __future__ import annotations

from typing import Any

from infra.sandbox.engine.errors import VenueError
from infra.sandbox.engine.model import AlgoRequest, OrderRequest
from infra.sandbox.engine.spot import SpotExchange
from infra.sandbox.engine.spot_state import Pair
from infra.sandbox.handlers.call import Call
from infra.sandbox.protocol.params import Params, symbol_of
from infra.sandbox.spot import shapes
from infra.sandbox.spot.orders import trading
from infra.sandbox.spot.words import OF_REQUEST, SpotType, order_asked

_LEGS = ("above", "below")
_OF_LEG = ("Type", "ClientOrderId", "Price", "StopPrice", "TimeInForce")
_KNOWN = OF_REQUEST | {
    "symbol", "side", "quantity", "listClientOrderId", "newOrderRespType", "selfTradePreventionMode",
    *(leg + name for leg in _LEGS for name in _OF_LEG),
}  # fmt: skip
_WORDS = {"Type": "type", "ClientOrderId": "newClientOrderId", "Price": "price", "StopPrice": "stopPrice"}


def new_pair(call: Call) -> Any:
    """Accept a pair: a limit that only rests, and an order that waits for a price on the other side of the market."""
    params = call.params
    unread = params.values.keys() - _KNOWN
    if unread:
        told = f"read '{len(params.values) - len(unread)}' parameter(s) but was sent '{len(params.values)}'."
        raise VenueError(-1104, f"Not all sent parameters were read; {told}")
    legs = [order_asked(_leg(params, one)) for one in _LEGS]
    limits = [one.request for one in legs if isinstance(one.request, OrderRequest) and one.kind is SpotType.LIMIT_MAKER]
    stops = [one.request for one in legs if isinstance(one.request, AlgoRequest)]
    if len(limits) != 1 or len(stops) != 1:
        raise VenueError(-1130, "This venue takes a LIMIT_MAKER and one STOP_LOSS or TAKE_PROFIT of either kind.")
    spot = trading(call, symbol_of(params))
    pair = spot.submit_pair(limits[0], stops[0], params.text("listClientOrderId") or "", now_ms=call.now_ms)
    return reported(spot, pair, call.now_ms)


def _leg(params: Params, leg: str) -> Params:
    # The names of a leg begin with its own; what both share stands without.
    values: dict[str, str] = {
        name: params.values[name] for name in ("symbol", "side", "quantity") if name in params.values
    }
    for name in _OF_LEG:
        told = params.text(leg + name)
        if told is not None:
            values[_WORDS.get(name, "timeInForce")] = told
    return Params(values)


def reported(spot: SpotExchange, pair: Pair, now_ms: int) -> dict[str, Any]:
    """Return a pair with the reports of its orders."""
    reports = [shapes.answered(spot, spot.find(pair.symbol, order_id=one), "RESULT", now_ms) for one in pair.numbers]
    return shapes.pair(spot, pair, now_ms) | {"orderReports": reports}


def cancel_pair(call: Call) -> Any:
    """Cancel both orders of an open pair."""
    symbol = symbol_of(call.params)
    call.venue.instrument(symbol)
    spot = call.venue.spot
    list_id, own_id = _named(call, "listClientOrderId")
    try:
        pair = spot.cancel_pair(symbol, list_id=list_id, client_list_id=own_id, now_ms=call.now_ms)
    except VenueError as error:
        raise VenueError(-2011, "Unknown order list sent.") from error
    reports = [shapes.cancelled(spot, spot.find(symbol, order_id=one), call.now_ms) for one in pair.numbers]
    return shapes.pair(spot, pair, call.now_ms) | {"orderReports": reports}


def get_pair(call: Call) -> Any:
    """One pair, by its number or the client's id."""
    list_id, own_id = _named(call, "origClientOrderId")
    spot = call.venue.spot
    return shapes.pair(spot, spot.find_pair(list_id=list_id, client_list_id=own_id))


def open_pairs(call: Call) -> Any:
    """The pairs that are open."""
    spot = call.venue.spot
    return [shapes.pair(spot, one) for one in spot.state.pairs.values() if one.is_open]


def all_pairs(call: Call) -> Any:
    """Pairs from a number on, or the newest."""
    spot, limit, first = call.venue.spot, call.params.limit(500, 1000), call.params.integer("fromId")
    found = [one for one in spot.state.pairs.values() if first is None or one.list_id >= first]
    return [shapes.pair(spot, one) for one in (found[-limit:] if first is None else found[:limit])]


def _named(call: Call, own: str) -> tuple[int | None, str | None]:
    list_id, own_id = call.params.integer("orderListId"), call.params.text(own)
    if list_id is None and own_id is None:
        raise VenueError(-1102, f"Param 'orderListId' or '{own}' must be sent, but both were empty/null!")
    return list_id, own_id
