"""An order in the venue's words."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from inference.domain.order import OrderIntent, OrderType


def order_request(intent: OrderIntent, native_symbol: str) -> dict[str, Any]:
    """Return what the venue is sent for an order; conditional orders have an endpoint of their own."""
    request: dict[str, Any] = {
        "symbol": native_symbol,
        "side": intent.side.value,
        "type": intent.order_type.value,
        "quantity": _plain(intent.quantity),
        "newOrderRespType": "RESULT",
    }
    if intent.reduce_only:
        request["reduceOnly"] = "true"
    if intent.is_conditional:
        if intent.trigger_price is None:
            raise ValueError(f"Conditional order {intent.client_order_id} needs a trigger price")
        request.update(
            algoType="CONDITIONAL",
            clientAlgoId=intent.client_order_id,
            triggerPrice=_plain(intent.trigger_price),
            workingType="CONTRACT_PRICE",
        )
        return request
    request["newClientOrderId"] = intent.client_order_id
    if intent.order_type is OrderType.LIMIT:
        if intent.limit_price is None:
            raise ValueError(f"Limit order {intent.client_order_id} needs a limit price")
        force = "GTX" if intent.post_only else "GTC"
        request.update(price=_plain(intent.limit_price), timeInForce=force)
    return request


def _plain(number: Decimal) -> str:
    """Return a number without exponent and trailing zeros, as the venue reads it."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
