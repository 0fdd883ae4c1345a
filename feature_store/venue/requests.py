"""What kind of request a client is about to make: how urgent, and whether the venue counts it as an order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any


class Urgency(IntEnum):
    """Who goes first where room is short."""

    # Flows that fill a lake: they can wait.
    BULK = 0
    # What a worker reads, and entries.
    USUAL = 1
    # What protects a position, or finds out about one: stops, reduce-only orders, cancels, questions about an order.
    URGENT = 2


class Endpoint(StrEnum):
    """Types of endpoint, each with a limit of its own on how many requests are under way at once."""

    MARKET = "market"
    ACCOUNT = "account"
    ORDER = "order"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True)
class Kind:
    """What a request is; `orders` is how many of an account's orders it counts as."""

    endpoint: Endpoint
    urgency: Urgency
    orders: int = 0


_PRIVATE_WORDS, _SPOT = ("private", "sapi", "papi"), "private"
# Binance's paths, as ccxt names them.
_ORDERS = frozenset({"order", "algoOrder", "batchOrders"})
_CANCELS = frozenset({"order", "algoOrder", "batchOrders", "allOpenOrders", "algoOpenOrders", "openOrders"})
_QUESTIONS = frozenset({"order", "algoOrder", "positionRisk", "userTrades", "openOrders", "openAlgoOrders", "myTrades"})
_KEPT_ALIVE = frozenset({"listenKey", "countdownCancelAll"})
# Bitfinex's: everything private is a POST.
_SUBMIT, _REDUCE_ONLY_FLAG, _CLOSE_FLAG = "auth/w/order/submit", 1024, 512
_BITFINEX_CANCELS = ("auth/w/order/cancel",)
_BITFINEX_QUESTIONS = ("auth/r/orders", "auth/r/positions", "auth/r/trades")


def kind_of(path: str, api: object, method: str, params: object) -> Kind:
    """Return what a request is, from what ccxt is asked for."""
    said = params if isinstance(params, Mapping) else {}
    if path.startswith("auth/"):
        return _bitfinex(path, said)
    private = any(word in str(api).lower() for word in _PRIVATE_WORDS)
    if not private:
        # Without the venue's time nothing can be signed, stops included.
        return Kind(Endpoint.MARKET, Urgency.URGENT if path == "time" else Urgency.USUAL)
    if method == "DELETE" and path in _CANCELS:
        return Kind(Endpoint.CANCEL, Urgency.URGENT)
    if method in ("POST", "PUT") and path in _ORDERS:
        # On spot what sells gives up something that is held.
        urgent = _reduces(said) or (api in (_SPOT, [_SPOT]) and said.get("side") == "SELL")
        return Kind(Endpoint.ORDER, Urgency.URGENT if urgent else Urgency.USUAL, _count(said))
    asks = method == "GET" and path in _QUESTIONS
    return Kind(Endpoint.ACCOUNT, Urgency.URGENT if asks or path in _KEPT_ALIVE else Urgency.USUAL)


def _reduces(params: Mapping[str, Any]) -> bool:
    return any(str(params.get(name)).lower() == "true" for name in ("reduceOnly", "closePosition"))


def _count(params: Mapping[str, Any]) -> int:
    batch = params.get("batchOrders")
    return max(1, len(batch)) if isinstance(batch, list) else 1


def _bitfinex(path: str, params: Mapping[str, Any]) -> Kind:
    if path == _SUBMIT:
        flags = params.get("flags")
        reduces = isinstance(flags, int) and bool(flags & (_REDUCE_ONLY_FLAG | _CLOSE_FLAG))
        return Kind(Endpoint.ORDER, Urgency.URGENT if reduces else Urgency.USUAL, 1)
    if path.startswith(_BITFINEX_CANCELS):
        return Kind(Endpoint.CANCEL, Urgency.URGENT)
    return Kind(Endpoint.ACCOUNT, Urgency.URGENT if path.startswith(_BITFINEX_QUESTIONS) else Urgency.USUAL)
