"""What an auditor wants to know: protection in wall-clock time, duplicates, round trips."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from infra.sandbox.engine.clearing import is_venue_order
from infra.sandbox.engine.exchange import Exchange
from infra.sandbox.engine.model import STOPS, ZERO, RoundTrip
from infra.sandbox.engine.position import Position
from infra.sandbox.engine.spot import SpotExchange
from infra.sandbox.engine.spot_state import QUOTE
from infra.sandbox.engine.state import total_fees
from infra.sandbox.engine.trips import mean_price


@dataclass(slots=True)
class Interval:
    """A stretch in which a position was open without a stop for all of it."""

    symbol: str
    from_ms: int
    to_ms: int
    wall_ms: float


@dataclass(slots=True)
class Auditor:
    """
    Watch protection as the venue sees it, after every change.

    `wall_ms` is a monotonic wall clock in milliseconds, passed in; `now_ms` is venue time.
    """

    finished: list[Interval] = field(default_factory=list)
    _open: dict[str, tuple[float, int]] = field(default_factory=dict)

    def observe(self, exchange: Exchange, *, now_ms: int, wall_ms: float) -> None:
        """Note which positions are unprotected from here on."""
        naked = {one.key for one in exchange.state.open_positions() if not is_protected(exchange, one)}
        if naked == self._open.keys():
            return
        for key in list(self._open):
            if key not in naked:
                self.finished.append(self._interval(key, now_ms=now_ms, wall_ms=wall_ms))
                del self._open[key]
        for key in sorted(naked):
            self._open.setdefault(key, (wall_ms, now_ms))

    def intervals(self, *, now_ms: int, wall_ms: float) -> list[Interval]:
        """Every unprotected stretch, those that still last included."""
        lasting = [self._interval(key, now_ms=now_ms, wall_ms=wall_ms) for key in self._open]
        return [*self.finished, *lasting]

    def _interval(self, key: str, *, now_ms: int, wall_ms: float) -> Interval:
        began_wall, began = self._open[key]
        return Interval(key.split("|", maxsplit=1)[0], began, now_ms, round(wall_ms - began_wall, 3))


def is_protected(exchange: Exchange, position: Position) -> bool:
    """Whether working reduce-only or close-all stops cover the whole position."""
    covered = ZERO
    for algo in exchange.open_algos(position.symbol):
        if algo.type not in STOPS or algo.position_side is not position.position_side:
            continue
        if algo.side.sign * position.quantity >= 0:
            continue
        if algo.close_position:
            return True
        if algo.reduce_only or exchange.state.hedge_mode:
            covered += algo.quantity
    return covered >= abs(position.quantity)


def report(exchange: Exchange, auditor: Auditor, *, now_ms: int, wall_ms: float) -> dict[str, Any]:
    """Everything `GET /sandbox/audit` answers."""
    state = exchange.state
    intervals = auditor.intervals(now_ms=now_ms, wall_ms=wall_ms)
    funding = sum((one.amount for one in state.incomes if one.kind == "FUNDING_FEE"), ZERO)
    clearance = sum((one.amount for one in state.incomes if one.kind == "INSURANCE_CLEAR"), ZERO)
    realized = sum((one.realized_pnl for one in state.trades), ZERO)
    return {
        "now_ms": now_ms,
        "orders": len(state.orders),
        "algo_orders": len(state.algos),
        "fills": len(state.trades),
        "closed_trades": len(state.trips),
        "symbols_traded": sorted({trade.symbol for trade in state.trades}),
        "realized_pnl": _text(realized),
        "fees": _text(total_fees(state)),
        "funding": _text(funding),
        "clearance": _text(clearance),
        "opening_balance": _text(state.opening_balance),
        "wallet": _text(state.wallet),
        "equity": _text(exchange.margin().balance),
        "open_positions": [
            {
                "symbol": one.symbol,
                "position_side": one.position_side.value,
                "quantity": _text(one.quantity),
                "entry_price": f"{one.entry_price:.10g}",
                "protected": is_protected(exchange, one),
            }
            for one in state.open_positions()
        ],
        "open_orders": len(exchange.open_orders()),
        "open_algo_orders": len(exchange.open_algos()),
        "unprotected": {
            "max_wall_ms": max((one.wall_ms for one in intervals), default=0.0),
            "intervals": [
                {"symbol": i.symbol, "wall_ms": i.wall_ms, "from_ms": i.from_ms, "to_ms": i.to_ms} for i in intervals
            ],
        },
        "duplicate_client_ids": sorted(
            cid for cid, orders in state.executed.items() if len(orders) > 1 and not is_venue_order(cid)
        ),
        "trades": [_trip(one) for one in state.trips],
    }


def spot_report(spot: SpotExchange) -> dict[str, Any]:
    """What `GET /sandbox/audit` answers of the spot account: `expected` is what its executions make of what came."""
    state = spot.state
    expected = {QUOTE: state.opening_balance}
    for moved in state.transfers:
        expected[moved.asset] = expected.get(moved.asset, ZERO) + moved.amount
    for trade in state.trades:
        lot = spot.lots[trade.symbol]
        exchanged = ((lot.base, trade.side.sign * trade.quantity), (lot.quote, -trade.side.sign * trade.notional))
        received = lot.base if trade.side.sign > 0 else lot.quote
        for asset, amount in (*exchanged, (received, -trade.fee)):
            expected[asset] = expected.get(asset, ZERO) + amount
    return {
        "assets": {
            asset: {"free": _text(spot.free(asset)), "locked": _text(spot.locked(asset)), "expected": _text(amount)}
            for asset, amount in expected.items()
        },
        "orders": len(spot.all_orders()),
        "open_orders": len(spot.all_open()),
        "fills": len(state.trades),
        "duplicate_client_ids": sorted(own_id for own_id, orders in state.executed.items() if len(orders) > 1),
    }


def _trip(trip: RoundTrip) -> dict[str, Any]:
    return {
        "symbol": trip.symbol,
        "direction": trip.direction,
        "opened_ms": trip.opened_ms,
        "closed_ms": trip.closed_ms,
        "quantity": _text(trip.entry_quantity),
        "entry": mean_price(trip, entry=True),
        "exit": mean_price(trip, entry=False),
        "gross_pnl": _text(trip.realized_pnl),
        "fees": _text(trip.fees),
        "funding": _text(trip.funding),
        "pnl": _text(trip.realized_pnl - trip.fees + trip.funding),
        "entry_client_ids": list(trip.entry_client_ids),
        "exit_client_ids": list(trip.exit_client_ids),
    }


def _text(amount: Decimal) -> str:
    return f"{amount:f}"
