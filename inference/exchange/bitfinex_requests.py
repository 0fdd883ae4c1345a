"""An order in Bitfinex's words."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from inference.domain.order import OrderIntent, OrderType, Side
from inference.exchange.bitfinex_mapping import five_digits

REDUCE_ONLY, POST_ONLY = 1024, 4096
_TYPES = {OrderType.MARKET: "MARKET", OrderType.LIMIT: "LIMIT", OrderType.STOP_MARKET: "STOP"}


def order_request(intent: OrderIntent, native_symbol: str, *, client_id: int, leverage: int) -> dict[str, Any]:
    """
    Return what the venue is sent for an order; a sale has a negative amount, leverage is part of what opens.

    Raises:
        ValueError: It has no such order, or the order lacks its price; both are found before this.
    """
    kind = _TYPES.get(intent.order_type)
    if kind is None:
        raise ValueError(f"Bitfinex has no order of type {intent.order_type}, wanted by {intent.client_order_id}")
    sign = 1 if intent.side is Side.BUY else -1
    request: dict[str, Any] = {
        "type": kind,
        "symbol": native_symbol,
        "amount": _plain(sign * intent.quantity),
        "cid": client_id,
    }
    flags = REDUCE_ONLY * intent.reduce_only + POST_ONLY * intent.post_only
    if flags:
        request["flags"] = flags
    if not intent.reduce_only:
        request["lev"] = leverage
    price = {OrderType.LIMIT: intent.limit_price, OrderType.STOP_MARKET: intent.trigger_price}.get(intent.order_type)
    if price is None and intent.order_type is not OrderType.MARKET:
        raise ValueError(f"Order {intent.client_order_id} of type {kind} needs a price")
    if price is not None:
        request["price"] = _plain(five_digits(price))
    return request


def _plain(number: Decimal) -> str:
    """Return a number without exponent and trailing zeros."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
