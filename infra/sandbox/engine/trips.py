"""Round trips: a position followed from flat to flat."""

from __future__ import annotations

from dataclasses import replace

from infra.sandbox.engine.model import ZERO, RoundTrip, Trade
from infra.sandbox.engine.position import Change
from infra.sandbox.engine.state import EngineState


def book(state: EngineState, trade: Trade, change: Change) -> None:
    """Add one fill to the round trip of its position; a fill that turns the position closes one and opens another."""
    key = change.position.key
    closing, opening = change.closed, change.opened
    share = trade.fee * closing / trade.quantity
    if closing:
        trip = state.open_trips[key]
        trip = replace(
            trip,
            exit_quantity=trip.exit_quantity + closing,
            exit_notional=trip.exit_notional + closing * trade.price,
            fees=trip.fees + share,
            realized_pnl=trip.realized_pnl + change.realized_pnl,
            exit_client_ids=_with(trip.exit_client_ids, trade.client_order_id),
        )
        if trip.exit_quantity == trip.entry_quantity:
            state.trips.append(replace(trip, closed_ms=trade.time_ms))
            del state.open_trips[key]
        else:
            state.open_trips[key] = trip
    if opening:
        trip = state.open_trips.get(key) or RoundTrip(
            symbol=trade.symbol,
            position_side=trade.position_side,
            direction="long" if trade.side.sign > 0 else "short",
            opened_ms=trade.time_ms,
        )
        state.open_trips[key] = replace(
            trip,
            entry_quantity=trip.entry_quantity + opening,
            entry_notional=trip.entry_notional + opening * trade.price,
            fees=trip.fees + (trade.fee - share if closing else trade.fee),
            entry_client_ids=_with(trip.entry_client_ids, trade.client_order_id),
        )


def mean_price(trip: RoundTrip, *, entry: bool) -> str:
    """Average entry or exit price as text, empty when there is none."""
    quantity = trip.entry_quantity if entry else trip.exit_quantity
    notional = trip.entry_notional if entry else trip.exit_notional
    return f"{notional / quantity:.10g}" if quantity > ZERO else ""


def _with(known: tuple[str, ...], client_id: str) -> tuple[str, ...]:
    return known if client_id in known else (*known, client_id)
