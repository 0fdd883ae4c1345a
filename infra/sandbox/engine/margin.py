"""What the account has, what is bound, what is free: shared in cross margin, per position in isolated margin."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal

from infra.sandbox.engine.instrument import bracket_for
from infra.sandbox.engine.model import OPEN, ZERO, Order, PositionSide, Side
from infra.sandbox.engine.position import Position, cents
from infra.sandbox.engine.state import EngineState

_ADL_STEPS = (ZERO, Decimal("0.25"), Decimal("0.5"), Decimal(1))


@dataclass(frozen=True, slots=True)
class Margin:
    """The account's balances in the settlement currency; `isolated_` is the part of isolated positions in each."""

    wallet: Decimal
    unrealized: Decimal
    position_initial: Decimal
    order_initial: Decimal
    maintenance: Decimal
    isolated_wallet: Decimal = ZERO
    isolated_unrealized: Decimal = ZERO
    isolated_initial: Decimal = ZERO
    isolated_maintenance: Decimal = ZERO

    @property
    def balance(self) -> Decimal:
        """Equity: wallet and unrealized profit."""
        return self.wallet + self.unrealized

    @property
    def initial(self) -> Decimal:
        """Margin bound by positions and open orders."""
        return self.position_initial + self.order_initial

    @property
    def cross_wallet(self) -> Decimal:
        """The wallet that cross positions share."""
        return self.wallet - self.isolated_wallet

    @property
    def cross_unrealized(self) -> Decimal:
        """Unrealized profit of cross positions."""
        return self.unrealized - self.isolated_unrealized

    @property
    def cross_balance(self) -> Decimal:
        """Equity that cross positions share."""
        return self.cross_wallet + self.cross_unrealized

    @property
    def cross_initial(self) -> Decimal:
        """What is bound of the equity that cross positions share: by them, and by every open order."""
        return self.initial - self.isolated_initial

    @property
    def cross_maintenance(self) -> Decimal:
        """Equity below which all cross positions are liquidated."""
        return self.maintenance - self.isolated_maintenance

    @property
    def available(self) -> Decimal:
        """What a new order may bind, never below zero."""
        return max(ZERO, self.cross_balance - self.cross_initial)


def mark_of(state: EngineState, symbol: str) -> Decimal:
    """Mark price; the last price where the market knows no other."""
    mark = state.mark_prices.get(symbol)
    if mark is not None:
        return mark
    last = state.last_prices.get(symbol, ZERO)
    return last * state.mark_factors[symbol] if symbol in state.mark_factors else last


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
    """
    Margin the open orders of a symbol bind; what only reduces is free.

    In one-way mode the dearer side counts, since what one side opens the other closes; in hedge mode both do.
    """
    totals = {Side.BUY: ZERO, Side.SELL: ZERO}
    hedged = ZERO
    for order in open_orders:
        if order.position_side is not PositionSide.BOTH:
            adds = (order.position_side is PositionSide.LONG) == (order.side is Side.BUY)
            hedged += order.remaining * order.price if adds else ZERO
        elif not order.reduce_only:
            totals[order.side] += order.remaining * order.price
    held = state.position(symbol, PositionSide.BOTH).quantity * mark_of(state, symbol)
    buys = max(ZERO, totals[Side.BUY] + min(held, ZERO))
    sells = max(ZERO, totals[Side.SELL] - max(held, ZERO))
    return cents((max(buys, sells) + hedged) / state.leverage_of(symbol))


def margin(state: EngineState, open_orders: dict[str, list[Order]]) -> Margin:
    """Balances of the account at the last prices."""
    held = state.open_positions()
    account = Margin(
        wallet=state.wallet,
        unrealized=_unrealized(state, held),
        position_initial=_initial(state, held),
        order_initial=sum((order_margin(state, symbol, orders) for symbol, orders in open_orders.items()), ZERO),
        maintenance=_maintenance(state, held),
    )
    # Asked for at every price: who has no isolated positions does not wait for their sums.
    isolated = [one for one in held if one.symbol in state.isolated] if state.isolated else []
    if not isolated:
        return account
    return replace(
        account,
        isolated_wallet=state.wallet - state.cross_wallet(),
        isolated_unrealized=_unrealized(state, isolated),
        isolated_initial=_initial(state, isolated),
        isolated_maintenance=_maintenance(state, isolated),
    )


def _unrealized(state: EngineState, positions: list[Position]) -> Decimal:
    return sum((one.unrealized(mark_of(state, one.symbol)) for one in positions), ZERO)


def _initial(state: EngineState, positions: list[Position]) -> Decimal:
    return sum((initial_margin(state, one) for one in positions), ZERO)


def _maintenance(state: EngineState, positions: list[Position]) -> Decimal:
    return sum((maintenance_margin(one, mark_of(state, one.symbol)) for one in positions), ZERO)


def liquidation_price(state: EngineState, position: Position, account: Margin) -> Decimal:
    """
    Price of this symbol at which equity meets maintenance, others unchanged; zero when there is none.

    (wallet - others' maintenance + others' profit + cum - side x quantity x entry) / (quantity x rate - side x
    quantity), at the tier of today's notional. An isolated position has a wallet of its own and no others; a long
    and a short in cross margin share their price.
    """
    mark = mark_of(state, position.symbol)
    if position.symbol in state.isolated:
        legs, cushion = [position], position.isolated_wallet
    else:
        legs = [one for one in state.open_positions() if one.symbol == position.symbol] or [position]
        others = account.cross_maintenance - sum((maintenance_margin(one, mark) for one in legs), ZERO)
        cushion = account.cross_balance - sum((one.unrealized(mark) for one in legs), ZERO) - others
    tiers = [(abs(one.quantity), bracket_for(abs(one.quantity) * mark)) for one in legs]
    denominator = sum((size * tier.maintenance_rate for size, tier in tiers), ZERO)
    denominator -= sum((one.quantity for one in legs), ZERO)
    if not position.quantity or not denominator:
        return ZERO
    numerator = cushion + sum((tier.cumulative for _, tier in tiers), ZERO) - sum((one.cost for one in legs), ZERO)
    return max(ZERO, numerator / denominator)


def adl_quantile(state: EngineState, position: Position) -> int:
    """
    Return how soon the position would be deleveraged, from 0 to 4.

    The venue ranks by profit and leverage; alone on this venue, an account is ranked by its return on margin.
    """
    initial = initial_margin(state, position)
    if not initial:
        return 0
    gain = position.unrealized(mark_of(state, position.symbol)) / initial
    return sum(1 for step in _ADL_STEPS if gain > step)


def open_orders_by_symbol(state: EngineState) -> dict[str, list[Order]]:
    """Group the open plain orders; for tests and restore, the engine keeps its own index."""
    grouped: dict[str, list[Order]] = {}
    for order in state.orders.values():
        if order.status in OPEN:
            grouped.setdefault(order.symbol, []).append(order)
    return grouped
