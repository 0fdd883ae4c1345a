"""Cross margin: what the account has, what is bound, what is free."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from infra.sandbox.engine.instrument import bracket_for
from infra.sandbox.engine.model import OPEN, ZERO, Order, Side
from infra.sandbox.engine.position import Position, cents
from infra.sandbox.engine.state import EngineState


@dataclass(frozen=True, slots=True)
class Margin:
    """The account's balances in the settlement currency."""

    wallet: Decimal
    unrealized: Decimal
    position_initial: Decimal
    order_initial: Decimal
    maintenance: Decimal

    @property
    def balance(self) -> Decimal:
        """Equity: wallet and unrealized profit."""
        return self.wallet + self.unrealized

    @property
    def initial(self) -> Decimal:
        """Margin bound by positions and open orders."""
        return self.position_initial + self.order_initial

    @property
    def available(self) -> Decimal:
        """What a new order may bind, never below zero."""
        return max(ZERO, self.balance - self.initial)


def mark_of(state: EngineState, symbol: str) -> Decimal:
    """Mark price; in this venue it is the last price."""
    return state.last_prices.get(symbol, ZERO)


def maintenance_margin(position: Position, mark: Decimal) -> Decimal:
    """Equity below which the position is liquidated."""
    notional = abs(position.quantity) * mark
    tier = bracket_for(notional)
    return cents(notional * tier.maintenance_rate - tier.cumulative)


def initial_margin(state: EngineState, position: Position) -> Decimal:
    """Margin one position binds."""
    mark = mark_of(state, position.symbol)
    return cents(abs(position.quantity) * mark / state.leverage_of(position.symbol))


def order_margin(state: EngineState, symbol: str, open_orders: list[Order]) -> Decimal:
    """Margin the open orders of a symbol bind: the dearer side counts, what only reduces is free."""
    totals = {Side.BUY: ZERO, Side.SELL: ZERO}
    for order in open_orders:
        if not order.reduce_only:
            totals[order.side] += order.remaining * order.price
    held = sum((p.quantity for p in state.positions.values() if p.symbol == symbol), ZERO) * mark_of(state, symbol)
    buys = max(ZERO, totals[Side.BUY] + min(held, ZERO))
    sells = max(ZERO, totals[Side.SELL] - max(held, ZERO))
    return cents(max(buys, sells) / state.leverage_of(symbol))


def margin(state: EngineState, open_orders: dict[str, list[Order]]) -> Margin:
    """Balances of the account at the last prices."""
    held = state.open_positions()
    return Margin(
        wallet=state.wallet,
        unrealized=sum((p.unrealized(mark_of(state, p.symbol)) for p in held), ZERO),
        position_initial=sum((initial_margin(state, p) for p in held), ZERO),
        order_initial=sum((order_margin(state, symbol, orders) for symbol, orders in open_orders.items()), ZERO),
        maintenance=sum((maintenance_margin(p, mark_of(state, p.symbol)) for p in held), ZERO),
    )


def liquidation_price(state: EngineState, position: Position, account: Margin) -> Decimal:
    """Price of this symbol at which equity meets maintenance, others unchanged; zero when there is none."""
    mark = mark_of(state, position.symbol)
    notional = abs(position.quantity) * mark
    tier = bracket_for(notional)
    own = maintenance_margin(position, mark)
    others = account.maintenance - own
    cushion = account.wallet + account.unrealized - position.unrealized(mark) - others
    denominator = abs(position.quantity) * tier.maintenance_rate - position.quantity
    if not denominator:
        return ZERO
    return max(ZERO, (cushion + tier.cumulative - position.cost) / denominator)


def open_orders_by_symbol(state: EngineState) -> dict[str, list[Order]]:
    """Group the open plain orders; for tests and restore, the engine keeps its own index."""
    grouped: dict[str, list[Order]] = {}
    for order in state.orders.values():
        if order.status in OPEN:
            grouped.setdefault(order.symbol, []).append(order)
    return grouped
