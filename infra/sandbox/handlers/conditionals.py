"""Conditional orders through the algo endpoints."""

from __future__ import annotations

from typing import Any

from infra.sandbox.engine.errors import VenueError
from infra.sandbox.handlers.call import Call, check_trading, window
from infra.sandbox.handlers.retention import is_algo_kept
from infra.sandbox.protocol import shapes
from infra.sandbox.protocol.params import algo_request, symbol_of


def _algo_shape(call: Call, algo: Any) -> dict[str, Any]:
    return shapes.algo(algo, call.venue.exchange.state.orders.get(algo.order_id))


def new_algo(call: Call) -> Any:
    """Accept a conditional order."""
    check_trading(call, symbol_of(call.params))
    return _algo_shape(call, call.venue.exchange.submit_algo(algo_request(call.params), now_ms=call.now_ms))


def _algo_ids(call: Call) -> tuple[int | None, str | None]:
    algo_id, client_id = call.params.integer("algoId"), call.params.text("clientAlgoId")
    if algo_id is None and client_id is None:
        raise VenueError(-1102, "Param 'algoId' or 'clientAlgoId' must be sent, but both were empty/null!")
    return algo_id, client_id


def get_algo(call: Call) -> Any:
    """One conditional order."""
    algo_id, client_id = _algo_ids(call)
    algo = call.venue.exchange.find_algo(algo_id=algo_id, client_algo_id=client_id)
    if not is_algo_kept(algo, call.now_ms):
        raise VenueError(-2013)
    return _algo_shape(call, algo)


def cancel_algo(call: Call) -> Any:
    """Cancel a conditional order."""
    algo_id, client_id = _algo_ids(call)
    algo = call.venue.exchange.cancel_algo(algo_id=algo_id, client_algo_id=client_id, now_ms=call.now_ms)
    return {"algoId": algo.algo_id, "clientAlgoId": algo.client_algo_id, "code": "200", "msg": "success"}


def cancel_all_algos(call: Call) -> Any:
    """Cancel the conditional orders of a symbol."""
    call.venue.exchange.cancel_all_algos(symbol_of(call.params), now_ms=call.now_ms)
    return {"code": 200, "msg": "The operation of cancel all open order is done."}


def open_algos(call: Call) -> Any:
    """Working conditional orders."""
    symbol = call.params.text("symbol")
    if symbol is not None:
        call.venue.instrument(symbol)
    return [_algo_shape(call, one) for one in call.venue.exchange.open_algos(symbol)]


def all_algos(call: Call) -> Any:
    """Conditional orders of a time range."""
    symbol = symbol_of(call.params)
    limit = call.params.limit(500, 1000)
    start, end = window(call)
    found = [
        one
        for one in call.venue.exchange.state.algos.values()
        if one.symbol == symbol and is_algo_kept(one, call.now_ms) and start <= one.created_ms <= end
    ]
    return [_algo_shape(call, one) for one in found[-limit:]]
