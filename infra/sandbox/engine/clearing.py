"""What the venue does to an account of its own accord: funding, liquidation, deleveraging, settlement."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import ROUND_FLOOR, Decimal
from typing import Final

from infra.sandbox.engine import funding
from infra.sandbox.engine.entry import Entry
from infra.sandbox.engine.errors import VenueError
from infra.sandbox.engine.margin import maintenance_margin, mark_of
from infra.sandbox.engine.model import (
    ZERO,
    AlgoStatus,
    MarginCallEvent,
    Order,
    OrderEvent,
    OrderRequest,
    OrderStatus,
    OrderType,
    PositionSide,
    Side,
    TimeInForce,
)
from infra.sandbox.engine.position import Position, cents

LIQUIDATION: Final = "autoclose"
DELEVERAGE: Final = "adl_autoclose"
SETTLEMENT: Final = "settlement_autoclose"
CROSS: Final = "CROSS"
# The venue does not say at which ratio of maintenance to equity it warns.
WARNING_RATIO: Final = Decimal("0.8")


def is_venue_order(client_order_id: str) -> bool:
    """Whether a client id is one that only the venue gives."""
    return client_order_id.startswith((f"{LIQUIDATION}-", f"{SETTLEMENT}-")) or client_order_id == DELEVERAGE


class Clearing(Entry):
    """
    Money and positions that move without an order of the client.

    What the venue closes is matched like any order: by the two methods that the exchange, made of this, has.
    """

    def _match_arrival(self, order: Order, *, reference: Decimal, now_ms: int) -> Order:
        raise NotImplementedError

    def _fill(self, order: Order, price: Decimal, quantity: Decimal, *, is_maker: bool, now_ms: int) -> Order:
        raise NotImplementedError

    # -- funding --------------------------------------------------------------------------------------------------

    def settle_funding(self, rates: Mapping[str, Decimal], *, now_ms: int) -> None:
        """Pay or receive funding on every open position."""
        for position in self.state.open_positions():
            rate = rates.get(position.symbol)
            if rate is None:
                continue
            amount = funding.payment(position, mark_of(self.state, position.symbol), rate)
            told: tuple[Position, ...] = ()
            self.state.wallet += amount
            if position.symbol in self.state.isolated:
                paid = replace(position, isolated_wallet=position.isolated_wallet + amount)
                self.state.positions[position.key] = paid
                told = (paid,)
            self._income(position.symbol, "FUNDING_FEE", amount, now_ms=now_ms)
            trip = self.state.open_trips[position.key]
            self.state.open_trips[position.key] = replace(trip, funding=trip.funding + amount)
            self._tell_account("FUNDING_FEE", *told, now_ms=now_ms, change=amount, symbol=position.symbol)

    # -- liquidation ----------------------------------------------------------------------------------------------

    def liquidate_if_needed(self, *, now_ms: int) -> bool:
        """Close at market what its margin no longer maintains: each isolated position, or all that share the wallet."""
        held = self.state.open_positions()
        if not held:
            return False
        isolated = self.state.isolated
        gone = bool(isolated) and self._liquidate_isolated({one.symbol for one in held} & isolated, now_ms=now_ms)
        crossed = [one for one in held if one.symbol not in isolated]
        if not crossed:
            return gone
        account = self.margin()
        if self._must_go(CROSS, crossed, account.cross_balance, account.cross_maintenance, now_ms=now_ms):
            self._close_cross(crossed, now_ms=now_ms)
            return True
        return gone

    def liquidate(self, symbol: str | None = None, *, now_ms: int) -> int:
        """Liquidate positions whatever their margin, of one symbol or all, and return how many."""
        if symbol is not None:
            self._instrument(symbol)
        chosen = [one for one in self.state.open_positions() if symbol in {None, one.symbol}]
        crossed = [one for one in chosen if one.symbol not in self.state.isolated]
        for position in chosen:
            if position.symbol in self.state.isolated:
                self._call(position.key, [position], now_ms=now_ms)
                self._close_isolated(position, now_ms=now_ms)
        if crossed:
            self._call(CROSS, crossed, now_ms=now_ms)
            self._close_cross(crossed, now_ms=now_ms)
        return len(chosen)

    def _must_go(
        self, key: str, positions: list[Position], balance: Decimal, maintenance: Decimal, *, now_ms: int
    ) -> bool:
        if maintenance < balance * WARNING_RATIO:
            self.state.margin_called.discard(key)
            return False
        self._call(key, positions, now_ms=now_ms)
        return balance <= maintenance

    def _call(self, key: str, positions: list[Position], *, now_ms: int) -> None:
        if key in self.state.margin_called:
            return
        self.state.margin_called.add(key)
        wallet = self.state.cross_wallet() if key == CROSS else None
        self._outbox.append(MarginCallEvent(tuple(positions), now_ms, wallet))

    def _liquidate_isolated(self, symbols: set[str], *, now_ms: int) -> bool:
        gone = False
        for position in [one for one in self.state.open_positions() if one.symbol in symbols]:
            mark = mark_of(self.state, position.symbol)
            balance = position.isolated_wallet + position.unrealized(mark)
            maintenance = maintenance_margin(position, mark)
            if self._must_go(position.key, [position], balance, maintenance, now_ms=now_ms):
                self._close_isolated(position, now_ms=now_ms)
                gone = True
        return gone

    def _close_isolated(self, position: Position, *, now_ms: int) -> None:
        for order in self.open_orders(position.symbol):
            if order.position_side is position.position_side:
                self._close_order(order, OrderStatus.CANCELED, now_ms=now_ms)
        before = self.state.wallet
        notional = self._close_at_market(position, insured=True, now_ms=now_ms)
        left = position.isolated_wallet + self.state.wallet - before
        # The margin of an isolated position is all that it may lose, insured or not.
        self._clear(position.symbol, notional, left, insured=True, now_ms=now_ms)
        self.state.margin_called.discard(position.key)

    def _close_cross(self, positions: list[Position], *, now_ms: int) -> None:
        for order in self.open_orders():
            if order.symbol not in self.state.isolated:
                self._close_order(order, OrderStatus.CANCELED, now_ms=now_ms)
        insured = self.clearance.insured
        closed = [(one.symbol, self._close_at_market(one, insured=insured, now_ms=now_ms)) for one in positions]
        for symbol, notional in closed:
            self._clear(symbol, notional, self.state.cross_wallet(), insured=insured, now_ms=now_ms)
        self.state.margin_called.discard(CROSS)

    def _close_at_market(self, position: Position, *, insured: bool, now_ms: int) -> Decimal:
        mark = mark_of(self.state, position.symbol)
        order = self._venue_order(position, abs(position.quantity), self._venue_id(LIQUIDATION, now_ms), now_ms=now_ms)
        notional = self._match_arrival(order, reference=mark, now_ms=now_ms).filled_notional
        left = self.state.position(position.symbol, position.position_side)
        if left.quantity and insured:
            # What the book did not take goes to the accounts on the other side, at the mark price.
            notional += self._close_at(left, abs(left.quantity), mark, DELEVERAGE, now_ms=now_ms).filled_notional
        return notional

    def _clear(self, symbol: str, notional: Decimal, left: Decimal, *, insured: bool, now_ms: int) -> None:
        missing = max(ZERO, -left) if insured else ZERO
        change = missing - min(max(left, ZERO), cents(notional * self.clearance.fee))
        if change:
            self.state.wallet += change
            self._income(symbol, "INSURANCE_CLEAR", change, now_ms=now_ms)
            self._tell_account("INSURANCE_CLEAR", now_ms=now_ms, change=change, symbol=symbol)

    # -- deleveraging and settlement ------------------------------------------------------------------------------

    def deleverage(self, symbol: str, position_side: PositionSide, share: Decimal, *, now_ms: int) -> Order:
        """Close a share of a position at the mark price, as when the other side could not be liquidated."""
        instrument = self._instrument(symbol)
        if not ZERO < share <= 1:
            raise VenueError(-1130, f"Data sent for parameter 'share' is not valid: {share} is not above 0, at most 1.")
        position = self.state.position(symbol, position_side)
        quantity = (abs(position.quantity) * share).quantize(instrument.step, rounding=ROUND_FLOOR)
        if not quantity:
            raise VenueError(-2022)
        return self._close_at(position, quantity, mark_of(self.state, symbol), DELEVERAGE, now_ms=now_ms)

    def settle(self, symbol: str, price: Decimal, *, now_ms: int) -> None:
        """End a symbol that is delisted: cancel what waits, and close what is held at the settlement price."""
        self._instrument(symbol)
        for order in self.open_orders(symbol):
            self._close_order(order, OrderStatus.EXPIRED, now_ms=now_ms)
        for algo in self.open_algos(symbol):
            self._close_algo(algo, AlgoStatus.EXPIRED, now_ms=now_ms)
        for position in [one for one in self.state.open_positions() if one.symbol == symbol]:
            self._close_at(position, abs(position.quantity), price, self._venue_id(SETTLEMENT, now_ms), now_ms=now_ms)
        self.state.settled.add(symbol)

    def _close_at(self, position: Position, quantity: Decimal, price: Decimal, client_id: str, *, now_ms: int) -> Order:
        order = self._venue_order(position, quantity, client_id, now_ms=now_ms)
        return self._fill(order, price, quantity, is_maker=False, now_ms=now_ms)

    def _venue_order(self, position: Position, quantity: Decimal, client_id: str, *, now_ms: int) -> Order:
        request = OrderRequest(
            position.symbol,
            Side.SELL if position.quantity > 0 else Side.BUY,
            OrderType.MARKET,
            quantity,
            time_in_force=TimeInForce.IOC,
            reduce_only=True,
            position_side=position.position_side,
            client_order_id=client_id,
        )
        order = self._new_order(request, now_ms=now_ms)
        self._store(order)
        self._outbox.append(OrderEvent(order, "NEW", now_ms))
        return order

    def _venue_id(self, kind: str, now_ms: int) -> str:
        # Several positions may go in the same millisecond; each of their orders has an id of its own all the same.
        first = f"{kind}-{now_ms}"
        return first if first not in self.state.executed else f"{first}{self.state.next_order_id:07d}"
