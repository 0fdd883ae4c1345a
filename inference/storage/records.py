"""A trade as the tables keep it: into rows and back without losing a digit."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import msgspec

from inference.domain.exact import product
from inference.domain.order import Fill, OrderIntent, OrderStatus, Side
from inference.domain.signal import Direction
from inference.domain.trade import ExitReason, TradePlan, TradeResult
from inference.execution.book import Trade
from inference.execution.lifecycle import Order
from inference.storage.errors import StorageError

Row = dict[str, Any]
OPEN, CLOSED, CANCELLED = "OPEN", "CLOSED", "CANCELLED"
_ROI_DIGITS = Decimal("0.0000000001")
_NAMESPACE = uuid.UUID("0d5a3f0e-6c1b-5e0c-9a53-2f4c8a7be125")


@dataclass(slots=True, kw_only=True)
class OrderMoments:
    """Where an order stands in the journal, and when it was intended and changed last."""

    seq: int
    intended_ms: int
    updated_ms: int


@dataclass(slots=True, kw_only=True)
class TradeRecord:
    """A trade with what the journal says around it; moments are UTC milliseconds, `seq` numbers of entries."""

    trade: Trade
    seq: int
    updated_ms: int
    leverage: Decimal | None = None
    closed_seq: int | None = None
    mark_price: Decimal | None = None
    # When its position was last moved or marked.
    touched_ms: int = 0
    moments: dict[str, OrderMoments] = field(default_factory=dict)

    @property
    def closed_on(self) -> date | None:
        """The day of UTC on which the trade's result counts."""
        result = self.trade.result
        return None if result is None else day_of(result.closed_at_ms)


def uuid_of(kind: str, key: str) -> str:
    """Return the UUID by which other systems may name a trade, position, decision or model; the same each time."""
    return str(uuid.uuid5(_NAMESPACE, f"{kind}:{key}"))


def day_of(time_ms: int) -> date:
    """
    Return the day of a moment, of UTC.

    Raises:
        StorageError: No calendar has it.
    """
    try:
        return datetime.fromtimestamp(time_ms // 1000, tz=UTC).date()
    except (OverflowError, ValueError, OSError) as error:
        raise StorageError(f"The journal names the time {time_ms} ms, which no calendar has") from error


def plain(value: object) -> Any:
    """Return a value as JSON would hold it, decimals as text."""
    return msgspec.to_builtins(value)


def trade_row(record: TradeRecord) -> Row:
    """Return a trade's row."""
    trade, plan, result = record.trade, record.trade.plan, record.trade.result
    return {
        "id": plan.trade_id,
        "uuid": uuid_of("trade", plan.trade_id),
        "trace_id": plan.trace_id,
        "symbol": plan.symbol,
        "direction": plan.direction.value,
        "status": _status(result),
        "is_over": trade.is_over,
        "quantity": plan.quantity,
        "entered_quantity": trade.entered,
        "open_quantity": trade.open_quantity,
        "closed_quantity": None if result is None else result.quantity,
        "leverage": record.leverage,
        "reference_price": plan.reference_price,
        "entry_price": trade.entry_price if result is None else result.entry_price,
        "exit_price": None if result is None else result.exit_price,
        "stop_price": plan.stop_price,
        "target_price": plan.target_price,
        "risk": plan.risk,
        "confidence": plan.confidence,
        "model_version": plan.model_version,
        "pnl": None if result is None else result.pnl,
        "fees": None if result is None else result.fees,
        "roi": roi_of(result),
        "exit_requested": None if trade.exit_reason is None else trade.exit_reason.value,
        "exit_reason": None if result is None else result.reason.value,
        "fills_complete": None if result is None else result.fills_complete,
        "external_quantity": trade.external,
        "external_price": trade.external_price,
        "external_fees": trade.external_fees,
        "planned_at": plan.planned_at_ms,
        "candle_closed_at": plan.candle_close_ms,
        "opened_at": None if result is None else result.opened_at_ms,
        "closed_at": None if result is None else result.closed_at_ms,
        "closed_on": record.closed_on,
        "updated_at": record.updated_ms,
        "plan": plain(plan),
        "result": None if result is None else plain(result),
        "seq": record.seq,
        "closed_seq": record.closed_seq,
    }


def order_rows(record: TradeRecord) -> list[Row]:
    """Return the rows of a trade's orders."""
    return [_order_row(order, record.moments[key]) for key, order in record.trade.orders.items()]


def position_row(record: TradeRecord) -> Row | None:
    """Return the row of the position that a trade has or had; None for one that was never in the market."""
    trade, plan = record.trade, record.trade.plan
    entry, quantity = trade.entry_price, trade.open_quantity
    if entry is None or (trade.entered == 0 and trade.external >= 0):
        return None
    fills = [fill.event_time_ms for order in trade.orders.values() for fill in order.fills.values()]
    mark, leverage = record.mark_price, record.leverage
    sign = 1 if plan.direction is Direction.LONG else -1
    return {
        "trade_id": plan.trade_id,
        "uuid": uuid_of("position", plan.trade_id),
        "symbol": plan.symbol,
        "direction": plan.direction.value,
        "status": OPEN if quantity > 0 else CLOSED,
        "quantity": quantity,
        "entry_price": entry,
        "stop_price": plan.stop_price,
        "target_price": plan.target_price,
        "mark_price": mark,
        "unrealized_pnl": None if mark is None else product(mark - entry, sign * quantity),
        "leverage": leverage,
        "margin": quantity * entry / leverage if leverage else None,
        "opened_at": min(fills, default=plan.planned_at_ms),
        "updated_at": record.touched_ms,
        "seq": record.seq,
    }


def fill_row(fill: Fill, *, trade_id: str, seq: int, order_type: str | None, slippage: Decimal | None) -> Row:
    """Return the row of one execution."""
    return {
        "client_order_id": fill.client_order_id,
        "fill_id": fill.fill_id,
        "trade_id": trade_id,
        "venue_order_id": fill.venue_order_id,
        "symbol": fill.symbol,
        "side": fill.side.value,
        "quantity": fill.quantity,
        "price": fill.price,
        "fee": fill.fee,
        "is_maker": fill.is_maker,
        "order_type": order_type,
        "slippage": slippage,
        "executed_at": fill.event_time_ms,
        "seq": seq,
    }


def record_of(trade: Row, orders: Sequence[Row], fills: Sequence[Row], position: Row | None) -> TradeRecord:
    """Return a trade from its rows; orders and executions come in the order of the journal."""
    booked: dict[str, dict[str, Fill]] = {}
    for row in fills:
        booked.setdefault(row["client_order_id"], {})[row["fill_id"]] = _fill(row)
    reason = trade["exit_requested"]
    return TradeRecord(
        trade=Trade(
            plan=msgspec.convert(trade["plan"], TradePlan),
            orders={row["client_order_id"]: _order(row, booked.get(row["client_order_id"], {})) for row in orders},
            exit_reason=None if reason is None else ExitReason(reason),
            external=trade["external_quantity"],
            external_price=trade["external_price"],
            external_fees=trade["external_fees"],
            result=None if trade["result"] is None else msgspec.convert(trade["result"], TradeResult),
        ),
        seq=trade["seq"],
        updated_ms=trade["updated_at"],
        leverage=trade["leverage"],
        closed_seq=trade["closed_seq"],
        mark_price=None if position is None else position["mark_price"],
        touched_ms=trade["updated_at"] if position is None else position["updated_at"],
        moments={
            row["client_order_id"]: OrderMoments(
                seq=row["seq"], intended_ms=row["intended_at"], updated_ms=row["updated_at"]
            )
            for row in orders
        },
    )


def roi_of(result: TradeResult | None) -> Decimal | None:
    """Return profit over the notional that was entered, as a fraction of ten digits; None where nothing was."""
    if result is None or result.entry_price is None or result.entry_price * result.quantity <= 0:
        return None
    return (result.pnl / (result.entry_price * result.quantity)).quantize(_ROI_DIGITS)


def _status(result: TradeResult | None) -> str:
    if result is None:
        return OPEN
    return CANCELLED if result.reason is ExitReason.NOT_ENTERED else CLOSED


def _order_row(order: Order, moments: OrderMoments) -> Row:
    intent = order.intent
    return {
        "client_order_id": intent.client_order_id,
        "trade_id": intent.trade_id,
        "symbol": intent.symbol,
        "side": intent.side.value,
        "order_type": intent.order_type.value,
        "purpose": intent.purpose.value,
        "quantity": intent.quantity,
        "limit_price": intent.limit_price,
        "trigger_price": intent.trigger_price,
        "arrival_price": intent.arrival_price,
        "status": order.status.value,
        "filled": order.filled,
        "booked": order.booked,
        "average_price": order.average_price,
        "venue_order_id": order.venue_order_id,
        "child_order_id": order.child_order_id,
        "refusal": order.refusal,
        "intended_at": moments.intended_ms,
        "updated_at": moments.updated_ms,
        "intent": plain(intent),
        "seq": moments.seq,
    }


def _order(row: Mapping[str, Any], fills: Mapping[str, Fill]) -> Order:
    order = Order(intent=msgspec.convert(row["intent"], OrderIntent))
    return replace(
        order,
        status=OrderStatus(row["status"]),
        filled=row["filled"],
        average_price=row["average_price"],
        venue_order_id=row["venue_order_id"],
        child_order_id=row["child_order_id"],
        refusal=row["refusal"],
        fills=fills,
    )


def _fill(row: Mapping[str, Any]) -> Fill:
    return Fill(
        fill_id=row["fill_id"],
        client_order_id=row["client_order_id"],
        venue_order_id=row["venue_order_id"],
        symbol=row["symbol"],
        side=Side(row["side"]),
        quantity=row["quantity"],
        price=row["price"],
        fee=row["fee"],
        is_maker=row["is_maker"],
        event_time_ms=row["executed_at"],
    )
