"""Events of the user-data stream."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from infra.sandbox.engine.margin import maintenance_margin, mark_of
from infra.sandbox.engine.model import (
    ZERO,
    AccountEvent,
    AlgoEvent,
    AlgoOrder,
    ConfigEvent,
    Event,
    MarginCallEvent,
    Order,
    OrderEvent,
    TriggerRejectEvent,
)
from infra.sandbox.engine.state import EngineState
from infra.sandbox.protocol.shapes import text

_TEN = Decimal("0.0000000001")


def user_event(event: Event, state: EngineState) -> dict[str, Any]:
    """Write an engine event in the words of the venue."""
    match event:
        case OrderEvent():
            return _order(event)
        case AlgoEvent():
            child = state.orders.get(event.algo.order_id)
            return {"e": "ALGO_UPDATE", "T": event.time_ms, "E": event.time_ms, "o": _algo(event.algo, child)}
        case AccountEvent():
            return _account(event, state)
        case MarginCallEvent():
            return _margin_call(event, state)
        case ConfigEvent():
            return {
                "e": "ACCOUNT_CONFIG_UPDATE",
                "E": event.time_ms,
                "T": event.time_ms,
                "ac": {"s": event.symbol, "l": event.leverage},
            }
        case TriggerRejectEvent():
            return {
                "e": "CONDITIONAL_ORDER_TRIGGER_REJECT",
                "E": event.time_ms,
                "T": event.time_ms,
                "or": {"s": event.algo.symbol, "i": event.algo.algo_id, "r": event.algo.reason},
            }


def listen_key_expired(key: str, now_ms: int) -> dict[str, Any]:
    """The last event of a stream whose key is gone."""
    return {"e": "listenKeyExpired", "E": now_ms, "listenKey": key}


def _order(event: OrderEvent) -> dict[str, Any]:
    one, trade = event.order, event.trade
    shape: dict[str, Any] = {
        "s": one.symbol,
        "c": one.client_order_id,
        "S": one.side.value,
        "o": one.type.value,
        "f": one.time_in_force.value,
        "q": text(one.quantity),
        "p": text(one.price),
        "ap": text(one.average_price.quantize(_TEN)),
        "sp": text(one.stop_price),
        "x": event.execution,
        "X": one.status.value,
        "i": one.order_id,
        "l": text(trade.quantity if trade else ZERO),
        "z": text(one.filled),
        "L": text(trade.price if trade else ZERO),
        "T": event.time_ms,
        "t": trade.trade_id if trade else 0,
        "b": "0",
        "a": "0",
        "m": trade.is_maker if trade else False,
        "R": one.reduce_only,
        "wt": one.working_type.value,
        "ot": one.original_type.value,
        "ps": one.position_side.value,
        "cp": one.close_position,
        "rp": text(trade.realized_pnl if trade else ZERO),
        "pP": one.price_protect,
        "si": 0,
        "ss": 0,
        "V": one.self_trade_prevention.value,
        "pm": one.price_match.value,
        "gtd": one.good_till_ms,
    }
    if trade:
        shape |= {"N": "USDT", "n": text(trade.fee)}
    return {"e": "ORDER_TRADE_UPDATE", "T": event.time_ms, "E": event.time_ms, "o": shape}


def _algo(one: AlgoOrder, child: Order | None) -> dict[str, Any]:
    return {
        "caid": one.client_algo_id,
        "aid": one.algo_id,
        "at": "CONDITIONAL",
        "o": one.type.value,
        "s": one.symbol,
        "S": one.side.value,
        "ps": one.position_side.value,
        "f": one.time_in_force.value,
        "q": text(one.quantity),
        "X": one.status.value,
        "ai": str(one.order_id) if one.order_id else "",
        "ap": text(child.average_price.quantize(_TEN)) if child else "0.00000",
        "aq": text(child.filled) if child else "0",
        "act": child.type.value if child else "0",
        "tp": text(one.trigger_price),
        "p": text(one.price),
        "V": "EXPIRE_MAKER",
        "wt": one.working_type.value,
        "pm": one.price_match.value,
        "cp": one.close_position,
        "pP": one.price_protect,
        "R": one.reduce_only,
        "tt": one.triggered_ms,
        "gtd": one.good_till_ms,
        "rm": one.reason,
    }


def _account(event: AccountEvent, state: EngineState) -> dict[str, Any]:
    positions = []
    for one in event.positions:
        mark = mark_of(state, one.symbol)
        positions.append(
            {
                "s": one.symbol,
                "pa": text(one.quantity),
                "ep": f"{one.entry_price:.10f}",
                "bep": f"{one.entry_price:.10f}",
                "cr": text(one.realized_pnl),
                "up": text(one.unrealized(mark)),
                "mt": "isolated" if one.symbol in state.isolated else "cross",
                "iw": text(one.isolated_wallet),
                "ps": one.position_side.value,
            }
        )
    content: dict[str, Any] = {
        "m": event.reason,
        "B": [
            {
                "a": "USDT",
                "wb": text(event.wallet),
                "cw": text(event.cross_wallet),
                "bc": text(event.balance_change),
            }
        ],
        "P": positions,
    }
    if event.symbol:
        content["S"] = event.symbol
    return {"e": "ACCOUNT_UPDATE", "T": event.time_ms, "E": event.time_ms, "a": content}


def _margin_call(event: MarginCallEvent, state: EngineState) -> dict[str, Any]:
    shape: dict[str, Any] = {"e": "MARGIN_CALL", "E": event.time_ms, "p": []}
    if event.cross_wallet is not None:
        shape["cw"] = text(event.cross_wallet)
    for one in event.positions:
        mark = mark_of(state, one.symbol)
        shape["p"].append(
            {
                "s": one.symbol,
                "ps": one.position_side.value,
                "pa": text(one.quantity),
                "mt": "ISOLATED" if one.symbol in state.isolated else "CROSSED",
                "iw": text(one.isolated_wallet),
                "mp": text(mark),
                "up": text(one.unrealized(mark)),
                "mm": text(maintenance_margin(one, mark)),
            }
        )
    return shape
