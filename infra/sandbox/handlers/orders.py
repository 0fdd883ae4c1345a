"""Plain orders: new, amend, cancel, query, and batches of them."""

from __future__ import annotations

from typing import Any

import msgspec

from feature_store.json_text import UNREADABLE
from infra.sandbox.engine.errors import VenueError
from infra.sandbox.engine.model import CONDITIONAL, OrderType, PriceMatch, Side
from infra.sandbox.handlers.call import Call, Handler, check_trading, window
from infra.sandbox.handlers.retention import is_kept
from infra.sandbox.protocol import shapes
from infra.sandbox.protocol.params import Params, algo_request, order_request, price_match, symbol_of

MAX_BATCH = 5
MAX_CANCELS = 10
_CONDITIONAL_WORDS = frozenset(one.value for one in CONDITIONAL)


def new_order(call: Call) -> Any:
    """Accept a plain order."""
    params = call.params
    check_trading(call, symbol_of(params))
    kind = params.text("type")
    if kind in _CONDITIONAL_WORDS:
        if not call.legacy_conditionals:
            call.venue.exchange.check_algo(algo_request(params), now_ms=call.now_ms, is_plain=True)
        return _legacy_conditional(call)
    order = call.venue.exchange.submit(order_request(params), now_ms=call.now_ms)
    return shapes.order(order, acknowledge_only=(params.text("newOrderRespType") or "ACK") == "ACK")


def _legacy_conditional(call: Call) -> Any:
    algo = call.venue.exchange.submit_algo(algo_request(call.params), now_ms=call.now_ms)
    return {
        "orderId": algo.algo_id,
        "clientOrderId": algo.client_algo_id,
        "symbol": algo.symbol,
        "status": algo.status.value,
        "type": algo.type.value,
        "origType": algo.type.value,
        "side": algo.side.value,
        "stopPrice": shapes.text(algo.trigger_price),
        "origQty": shapes.text(algo.quantity),
        "executedQty": "0",
        "avgPrice": "0",
        "price": shapes.text(algo.price),
        "reduceOnly": algo.reduce_only,
        "closePosition": algo.close_position,
        "positionSide": algo.position_side.value,
        "timeInForce": algo.time_in_force.value,
        "updateTime": algo.updated_ms,
    }


def test_order(call: Call) -> Any:
    """Check an order without accepting it."""
    check_trading(call, symbol_of(call.params))
    exchange = call.venue.exchange
    exchange.check(exchange.priced(order_request(call.params)), now_ms=call.now_ms)
    return {}


def amend_order(call: Call) -> Any:
    """Change price and quantity of a resting order."""
    params = call.params
    symbol = symbol_of(params)
    check_trading(call, symbol)
    side = params.choice(Side, "side", None, -1117)
    match = price_match(params, OrderType.LIMIT)
    quantity, price = params.decimal("quantity"), params.decimal("price")
    if match is not PriceMatch.NONE:
        price = call.venue.exchange.matched_price(symbol, side, match)
    if quantity is None or price is None:
        params.required("quantity" if quantity is None else "price")
    assert quantity is not None
    assert price is not None
    order = _find(call, symbol)
    if order.side is not side:
        raise VenueError(-1117, "Invalid side: an amendment cannot turn an order.")
    amended = call.venue.exchange.amend(
        symbol, order.order_id, quantity=quantity, price=price, price_match=match, now_ms=call.now_ms
    )
    return shapes.order(amended)


def _find(call: Call, symbol: str) -> Any:
    order_id = call.params.integer("orderId")
    client_id = call.params.text("origClientOrderId")
    if order_id is None and client_id is None:
        raise VenueError(-1102, "Param 'origClientOrderId' or 'orderId' must be sent, but both were empty/null!")
    order = call.venue.exchange.find_order(symbol, order_id=order_id, client_order_id=client_id)
    if not is_kept(order, call.now_ms):
        raise VenueError(-2013)
    return order


def cancel_order(call: Call) -> Any:
    """Cancel an open order."""
    symbol = symbol_of(call.params)
    call.venue.instrument(symbol)
    order_id = call.params.integer("orderId")
    client_id = call.params.text("origClientOrderId")
    if order_id is None and client_id is None:
        raise VenueError(-1102, "Param 'origClientOrderId' or 'orderId' must be sent, but both were empty/null!")
    order = call.venue.exchange.cancel(symbol, order_id=order_id, client_order_id=client_id, now_ms=call.now_ms)
    return shapes.order(order)


def cancel_all(call: Call) -> Any:
    """Cancel the open orders of a symbol."""
    call.venue.exchange.cancel_all(symbol_of(call.params), now_ms=call.now_ms)
    return {"code": 200, "msg": "The operation of cancel all open order is done."}


def get_order(call: Call) -> Any:
    """One order."""
    symbol = symbol_of(call.params)
    call.venue.instrument(symbol)
    return shapes.order(_find(call, symbol))


def get_open_order(call: Call) -> Any:
    """One order, if it is open."""
    symbol = symbol_of(call.params)
    call.venue.instrument(symbol)
    order = _find(call, symbol)
    if not order.is_open:
        raise VenueError(-2013)
    return shapes.order(order)


def open_orders(call: Call) -> Any:
    """Open orders."""
    symbol = call.params.text("symbol")
    if symbol is not None:
        call.venue.instrument(symbol)
    return [shapes.order(one) for one in call.venue.exchange.open_orders(symbol)]


def all_orders(call: Call) -> Any:
    """Orders of a time range."""
    symbol = symbol_of(call.params)
    call.venue.instrument(symbol)
    limit = call.params.limit(500, 1000)
    first = call.params.integer("orderId")
    start, end = window(call)
    found = [
        one
        for one in call.venue.exchange.state.orders.values()
        if one.symbol == symbol
        and is_kept(one, call.now_ms)
        and (one.order_id >= first if first is not None else start <= one.created_ms <= end)
    ]
    chosen = found[:limit] if first is not None or call.params.text("startTime") else found[-limit:]
    return [shapes.order(one) for one in chosen]


def _batch(call: Call) -> list[dict[str, Any]]:
    raw = call.params.required("batchOrders")
    try:
        items = msgspec.json.decode(raw, type=list[dict[str, Any]])
    except UNREADABLE:
        raise VenueError(-1130, "Data sent for parameter 'batchOrders' is not valid.") from None
    if not 1 <= len(items) <= MAX_BATCH:
        raise VenueError(-4082)
    return items


def _each(call: Call, handler: Handler, items: list[dict[str, str]]) -> list[Any]:
    answers: list[Any] = []
    for item in items:
        try:
            answers.append(handler(Call(call.venue, Params(item), call.now_ms, call.legacy_conditionals)))
        except VenueError as refusal:
            answers.append({"code": refusal.code, "msg": refusal.message})
    return answers


def _texts(item: dict[str, Any]) -> dict[str, str]:
    return {key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in item.items()}


def new_batch(call: Call) -> Any:
    """Up to five orders, each with an answer of its own."""
    # The answer to a batch is always the result of each order.
    return _each(call, new_order, [{"newOrderRespType": "RESULT", **_texts(one)} for one in _batch(call)])


def amend_batch(call: Call) -> Any:
    """Up to five amendments."""
    return _each(call, amend_order, [_texts(one) for one in _batch(call)])


def cancel_batch(call: Call) -> Any:
    """Up to ten cancellations."""
    symbol = symbol_of(call.params)
    values = {name.lower(): value for name, value in call.params.values.items()}
    items: list[dict[str, str]] = []
    for name, key in (("orderidlist", "orderId"), ("origclientorderidlist", "origClientOrderId")):
        raw = values.get(name)
        if raw:
            try:
                ids = msgspec.json.decode(raw, type=list[str | int])
            except UNREADABLE:
                raise VenueError(-1130, f"Data sent for parameter '{name}' is not valid.") from None
            items.extend({"symbol": symbol, key: str(one)} for one in ids)
    if not items:
        raise VenueError(-1102, "Param 'origClientOrderIdList' or 'orderIdList' must be sent.")
    if len(items) > MAX_CANCELS:
        raise VenueError(-4082)
    return _each(call, cancel_order, items)
