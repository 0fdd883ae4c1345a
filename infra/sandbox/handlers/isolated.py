"""Margin of isolated positions, and what the venue closed on its own."""

from __future__ import annotations

from typing import Any

from infra.sandbox.engine.clearing import DELEVERAGE, LIQUIDATION
from infra.sandbox.engine.errors import VenueError
from infra.sandbox.engine.margin import adl_quantile
from infra.sandbox.engine.model import ZERO, PositionSide
from infra.sandbox.handlers.call import Call, window
from infra.sandbox.protocol import shapes
from infra.sandbox.protocol.params import symbol_of

_ADD, _REDUCE = 1, 2


def move_margin(call: Call) -> Any:
    """Add margin to an isolated position, or take some back."""
    symbol = symbol_of(call.params)
    call.params.required("amount")
    call.params.required("type")
    amount, kind = call.params.decimal("amount"), call.params.integer("type")
    side = call.params.choice(PositionSide, "positionSide", PositionSide.BOTH, -4061)
    if kind not in {_ADD, _REDUCE}:
        raise VenueError(-1130, "Data sent for parameter 'type' is not valid.")
    if amount is None or amount <= ZERO:
        raise VenueError(-4055)
    if amount.normalize().as_tuple().exponent < -shapes.MONEY_DECIMALS:  # type: ignore[operator]
        raise VenueError(-1111)
    call.venue.exchange.move_margin(symbol, side, amount if kind == _ADD else -amount, now_ms=call.now_ms)
    return {"amount": float(amount), "code": 200, "msg": "Successfully modify position margin.", "type": kind}


def margin_history(call: Call) -> Any:
    """Margin that went to and from isolated positions, by hand and by trading."""
    symbol = symbol_of(call.params)
    call.venue.instrument(symbol)
    kind = call.params.integer("type")
    limit = call.params.limit(500, 1500)
    start, end = window(call)
    found = [
        {
            "symbol": one.symbol,
            "type": _ADD if one.amount > ZERO else _REDUCE,
            "deltaType": "USER_ADJUST" if one.by_user else "TRADE",
            "amount": shapes.text(abs(one.amount)),
            "asset": "USDT",
            "time": one.time_ms,
            "positionSide": one.position_side.value,
            "clientTranId": "",
        }
        for one in call.venue.exchange.state.margin_moves
        if one.symbol == symbol and start <= one.time_ms <= end
    ]
    return [one for one in found if kind in {None, one["type"]}][-limit:]


def adl_quantiles(call: Call) -> Any:
    """How soon each position would be deleveraged; both modes' fields, as the venue has them."""
    state = call.venue.exchange.state
    wanted = call.params.text("symbol")
    if wanted is not None:
        call.venue.instrument(wanted)
    symbols = [wanted] if wanted is not None else sorted({one.symbol for one in state.open_positions()})
    answer = []
    for symbol in symbols:
        quantiles = {side.value: adl_quantile(state, state.position(symbol, side)) for side in PositionSide}
        if state.hedge_mode:
            # In cross margin the two legs are ranked together, which the venue writes as HEDGE.
            quantiles.pop("BOTH")
            if symbol not in state.isolated:
                quantiles["HEDGE"] = max(quantiles.values())
        answer.append({"symbol": symbol, "adlQuantile": quantiles})
    return answer[0] if wanted is not None else answer


def force_orders(call: Call) -> Any:
    """The account's liquidations and deleveragings."""
    symbol, kind = call.params.text("symbol"), call.params.text("autoCloseType")
    prefixes = {None: (f"{LIQUIDATION}-", DELEVERAGE), "LIQUIDATION": (f"{LIQUIDATION}-",), "ADL": (DELEVERAGE,)}
    if kind not in prefixes:
        raise VenueError(-1130, "Data sent for parameter 'autoCloseType' is not valid.")
    if symbol is not None:
        call.venue.instrument(symbol)
    limit = call.params.limit(50, 100)
    start, end = window(call)
    found = [
        shapes.order(one)
        for one in call.venue.exchange.state.orders.values()
        if one.client_order_id.startswith(prefixes[kind])
        and symbol in {None, one.symbol}
        and start <= one.created_ms <= end
    ]
    return found[-limit:]
