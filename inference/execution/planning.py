"""From an approval to the plan of its trade."""

from __future__ import annotations

from decimal import Decimal

from inference.domain.decision import Approved
from inference.domain.policy import EntryStyle
from inference.domain.trade import TradePlan
from inference.execution.client_order_id import trade_id_of


def trade_plan(
    approved: Approved,
    *,
    candle_close_ms: int,
    now_ms: int,
    style: EntryStyle,
    patience_ms: int,
    arrival_price: Decimal | None,
) -> TradePlan:
    """Return the trade that an approval becomes; an entry that rests may do so for `patience_ms`."""
    signal = approved.signal
    return TradePlan(
        trade_id=trade_id_of(signal.trace_id),
        trace_id=signal.trace_id,
        symbol=approved.symbol,
        direction=approved.direction,
        quantity=approved.quantity,
        reference_price=approved.reference_price,
        stop_price=approved.stop_price,
        target_price=approved.target_price,
        risk=approved.risk,
        confidence=signal.confidence,
        model_version=signal.model_version,
        candle_close_ms=candle_close_ms,
        planned_at_ms=now_ms,
        entry_style=style,
        entry_until_ms=0 if style is EntryStyle.MARKET else now_ms + patience_ms,
        arrival_price=arrival_price,
        exits=approved.exits,
    )
