"""The public stream of liquidations; on this venue there is one account that can be liquidated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from infra.sandbox.engine.clearing import LIQUIDATION
from infra.sandbox.engine.model import Event, OrderEvent
from infra.sandbox.protocol.shapes import text


def force_order_frames(event: Event) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what the market is told of an event: stream and frame, for fills of liquidations."""
    if not isinstance(event, OrderEvent) or event.trade is None:
        return
    one = event.order
    if not one.client_order_id.startswith(f"{LIQUIDATION}-"):
        return
    frame = {
        "e": "forceOrder",
        "E": event.time_ms,
        "o": {
            "s": one.symbol,
            "S": one.side.value,
            "o": one.type.value,
            "f": one.time_in_force.value,
            "q": text(one.quantity),
            "p": text(event.trade.price),
            "ap": text(one.average_price.quantize(event.trade.price)),
            "X": one.status.value,
            "l": text(event.trade.quantity),
            "z": text(one.filled),
            "T": event.time_ms,
        },
    }
    yield f"{one.symbol.lower()}@forceOrder", frame
    yield "!forceOrder@arr", frame
