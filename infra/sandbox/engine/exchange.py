"""The matching engine: what happens when an order arrives or a price moves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal

from infra.sandbox.engine import checks, conditional, funding, trips
from infra.sandbox.engine.admission import Admission
from infra.sandbox.engine.errors import VenueError
from infra.sandbox.engine.margin import mark_of
from infra.sandbox.engine.model import (
    TARGETS,
    AccountEvent,
    AlgoEvent,
    AlgoOrder,
    AlgoRequest,
    AlgoStatus,
    Order,
    OrderEvent,
    OrderRequest,
    OrderStatus,
    OrderType,
    Side,
    TimeInForce,
    Trade,
    TriggerRejectEvent,
)
from infra.sandbox.engine.position import Position, apply_fill


class Exchange(Admission):
    """
    One account against one market.

    Pure in the sense that matters: the same calls with the same times and prices give the same state and
    events. Prices arrive through `tick`; everything that happened since the last `drain` waits in the outbox.
    """

    # -- what clients ask for -------------------------------------------------------------------------------------

    def submit(self, request: OrderRequest, *, now_ms: int) -> Order:
        """Accept a plain order and match what can be matched now."""
        instrument = self._instrument(request.symbol)
        last = mark_of(self.state, request.symbol)
        checks.check_order(request, instrument, mark=last, hedge_mode=self.state.hedge_mode)
        checks.check_time_in_force(request)
        working = self.open_orders(request.symbol)
        if request.client_order_id and any(
            o.client_order_id == request.client_order_id for s in self._open.values() for o in s.values()
        ):
            raise VenueError(-4116)
        if len(working) >= checks.MAX_OPEN_ORDERS:
            raise VenueError(-2025)
        self._check_reduce(request, working)
        crosses = self._crosses(request, last)
        if request.time_in_force is TimeInForce.GTX and crosses:
            raise VenueError(-5022)
        if request.time_in_force is TimeInForce.FOK:
            self._check_fill_or_kill(request, instrument, last)
        self._check_margin(request, last)
        order = self._new_order(request, now_ms=now_ms)
        self._store(order)
        self._outbox.append(OrderEvent(order, "NEW", now_ms))
        return self._match_arrival(order, reference=last, now_ms=now_ms)

    def submit_algo(self, request: AlgoRequest, *, now_ms: int) -> AlgoOrder:
        """Accept a conditional order; it waits at the venue until its price comes."""
        instrument = self._instrument(request.symbol)
        last = mark_of(self.state, request.symbol)
        checks.check_algo(request, instrument, last=last, hedge_mode=self.state.hedge_mode)
        working = self.open_algos(request.symbol)
        if request.client_algo_id and any(
            a.client_algo_id == request.client_algo_id for s in self._open_algos.values() for a in s.values()
        ):
            raise VenueError(-4116)
        if len(working) >= checks.MAX_OPEN_ALGOS:
            raise VenueError(-4045)
        if request.close_position:
            self._check_close_position(request, working)
        algo_id = self.state.next_algo_id
        self.state.next_algo_id += 1
        algo = conditional.new_algo(request, algo_id=algo_id, last=last, now_ms=now_ms)
        self._store_algo(algo)
        self._outbox.append(AlgoEvent(algo, now_ms))
        return algo

    def amend(self, symbol: str, order_id: int, *, quantity: Decimal, price: Decimal, now_ms: int) -> Order:
        """Change price and quantity of a resting limit order; it loses its place in the queue."""
        order = self.state.orders.get(order_id)
        if order is None or order.symbol != symbol or not order.is_open:
            raise VenueError(-2013)
        instrument = self._instrument(symbol)
        last = mark_of(self.state, symbol)
        checks.check_quantity(instrument, quantity, is_market=False)
        checks.check_price(instrument, price)
        checks.check_band(price, last)
        if not order.reduce_only:
            checks.check_notional(instrument, quantity * price)
        if quantity == order.quantity and price == order.price:
            raise VenueError(-5027)
        request = _request_of(order, quantity=quantity, price=price)
        if quantity <= order.filled or (order.time_in_force is TimeInForce.GTX and self._crosses(request, last)):
            return self._close_order(order, OrderStatus.CANCELED, now_ms=now_ms)
        self._check_margin(replace(request, quantity=quantity - order.filled), last, replacing=order)
        order = replace(order, quantity=quantity, price=price, queued=self._queue_number(), updated_ms=now_ms)
        self._store(order)
        self._outbox.append(OrderEvent(order, "AMENDMENT", now_ms))
        return self._match_arrival(order, reference=last, now_ms=now_ms)

    def cancel(
        self, symbol: str, *, order_id: int | None = None, client_order_id: str | None = None, now_ms: int
    ) -> Order:
        """Cancel an open plain order."""
        for order in reversed(self.open_orders(symbol)):
            if order.order_id == order_id or (order_id is None and order.client_order_id == client_order_id):
                return self._close_order(order, OrderStatus.CANCELED, now_ms=now_ms)
        raise VenueError(-2011)

    def cancel_all(self, symbol: str, *, now_ms: int) -> int:
        """Cancel the open plain orders of a symbol; conditional orders stay."""
        self._instrument(symbol)
        orders = self.open_orders(symbol)
        for order in orders:
            self._close_order(order, OrderStatus.CANCELED, now_ms=now_ms)
        return len(orders)

    def cancel_algo(self, *, algo_id: int | None = None, client_algo_id: str | None = None, now_ms: int) -> AlgoOrder:
        """Cancel a working conditional order."""
        for algo in reversed(self.open_algos()):
            if algo.algo_id == algo_id or (algo_id is None and algo.client_algo_id == client_algo_id):
                return self._close_algo(algo, AlgoStatus.CANCELED, now_ms=now_ms)
        raise VenueError(-2011)

    def cancel_all_algos(self, symbol: str, *, now_ms: int) -> int:
        """Cancel the working conditional orders of a symbol."""
        self._instrument(symbol)
        algos = self.open_algos(symbol)
        for algo in algos:
            self._close_algo(algo, AlgoStatus.CANCELED, now_ms=now_ms)
        return len(algos)

    # -- what the market does -------------------------------------------------------------------------------------

    def tick(self, prices: Mapping[str, Decimal], *, now_ms: int) -> None:
        """Take new last prices: conditional orders trigger, resting orders that were traded through fill."""
        for symbol, price in prices.items():
            self.state.last_prices[symbol] = price
            if self._open_algos.get(symbol):
                self._run_conditionals(symbol, price, now_ms=now_ms)
            if self._open.get(symbol):
                self._run_resting(symbol, price, now_ms=now_ms)

    def settle_funding(self, rates: Mapping[str, Decimal], *, now_ms: int) -> None:
        """Pay or receive funding on every open position."""
        for position in self.state.open_positions():
            rate = rates.get(position.symbol)
            if rate is None:
                continue
            amount = funding.payment(position, mark_of(self.state, position.symbol), rate)
            self.state.wallet += amount
            self._income(position.symbol, "FUNDING_FEE", amount, now_ms=now_ms)
            trip = self.state.open_trips[position.key]
            self.state.open_trips[position.key] = replace(trip, funding=trip.funding + amount)
            self._outbox.append(AccountEvent("FUNDING_FEE", now_ms, amount, (position.key,), symbol=position.symbol))

    def liquidate_if_needed(self, *, now_ms: int) -> bool:
        """Close everything at market when equity no longer covers maintenance."""
        held = self.state.open_positions()
        if not held:
            return False
        account = self.margin()
        if account.balance > account.maintenance:
            return False
        for order in self.open_orders():
            self._close_order(order, OrderStatus.CANCELED, now_ms=now_ms)
        for position in held:
            side = Side.SELL if position.quantity > 0 else Side.BUY
            order = self._new_order(
                OrderRequest(
                    position.symbol,
                    side,
                    OrderType.MARKET,
                    abs(position.quantity),
                    time_in_force=TimeInForce.IOC,
                    reduce_only=True,
                    position_side=position.position_side,
                    client_order_id=f"autoclose-{now_ms}",
                ),
                now_ms=now_ms,
            )
            self._store(order)
            self._outbox.append(OrderEvent(order, "NEW", now_ms))
            self._match_arrival(order, reference=mark_of(self.state, position.symbol), now_ms=now_ms)
        return True

    # -- matching -------------------------------------------------------------------------------------------------

    def _match_arrival(self, order: Order, *, reference: Decimal, now_ms: int) -> Order:
        instrument = self.instruments[order.symbol]
        is_market = order.type is OrderType.MARKET
        wanted = self._reducible(order)
        limit = None if is_market else order.price
        for price, quantity in self.book.walk(instrument, reference, order.side, quantity=wanted, limit=limit):
            order = self._fill(order, price, quantity, is_maker=False, now_ms=now_ms)
        if not order.is_open:
            return order
        if is_market or order.time_in_force in {TimeInForce.IOC, TimeInForce.FOK}:
            return self._close_order(order, OrderStatus.EXPIRED, now_ms=now_ms)
        return order

    def _run_resting(self, symbol: str, price: Decimal, *, now_ms: int) -> None:
        # Price priority, then place in the queue. Traded through means beyond the limit, not at it.
        resting = sorted(self._open[symbol].values(), key=lambda o: (-o.side.sign * o.price, o.queued))
        for known in resting:
            order = self._open[symbol].get(known.order_id)
            if order is None:
                continue
            if order.good_till_ms and now_ms >= order.good_till_ms:
                self._close_order(order, OrderStatus.EXPIRED, now_ms=now_ms)
            elif (order.price - price) * order.side.sign > 0:
                quantity = self._reducible(order)
                if quantity:
                    order = self._fill(order, order.price, quantity, is_maker=True, now_ms=now_ms)
                if order.is_open:
                    self._close_order(order, OrderStatus.EXPIRED, now_ms=now_ms)

    def _run_conditionals(self, symbol: str, price: Decimal, *, now_ms: int) -> None:
        # Stops before targets: inside one tick the order of prices is unknown, and the stop wins ties.
        waiting = sorted(self._open_algos[symbol].values(), key=lambda a: (a.type in TARGETS, a.algo_id))
        for known in waiting:
            algo = self._open_algos[symbol].get(known.algo_id)
            if algo is None:
                continue
            if algo.good_till_ms and now_ms >= algo.good_till_ms:
                self._close_algo(algo, AlgoStatus.EXPIRED, now_ms=now_ms)
                continue
            algo, triggered = conditional.observe(algo, price)
            self._store_algo(algo)
            if triggered:
                self._trigger(algo, price, now_ms=now_ms)

    def _trigger(self, algo: AlgoOrder, price: Decimal, *, now_ms: int) -> None:
        position = self.state.position(algo.symbol, algo.position_side)
        quantity = abs(position.quantity) if algo.close_position else algo.quantity
        closes = algo.close_position or algo.reduce_only
        opposite = position.quantity * algo.side.sign < 0
        if closes and not opposite:
            self._reject_trigger(algo, "ReduceOnly Order is rejected.", now_ms=now_ms)
            return
        if closes:
            quantity = min(quantity, abs(position.quantity))
        request = conditional.child_request(algo, quantity)
        try:
            self._check_margin(request, price)
        except VenueError as refusal:
            self._reject_trigger(algo, refusal.message, now_ms=now_ms)
            return
        order = replace(
            self._new_order(request, now_ms=now_ms),
            close_position=algo.close_position,
            original_type=algo.type,
            stop_price=algo.trigger_price,
            algo_id=algo.algo_id,
        )
        self._store(order)
        algo = replace(
            algo, status=AlgoStatus.TRIGGERED, order_id=order.order_id, triggered_ms=now_ms, updated_ms=now_ms
        )
        self._store_algo(algo)
        self._outbox.append(OrderEvent(order, "NEW", now_ms))
        # The child's fills overtake the news of its trigger, as on the live venue.
        self._match_arrival(order, reference=conditional.fill_reference(algo, price), now_ms=now_ms)
        self._outbox.append(AlgoEvent(algo, now_ms))
        algo = replace(algo, status=AlgoStatus.FINISHED)
        self._store_algo(algo)
        self._outbox.append(AlgoEvent(algo, now_ms))

    def _reject_trigger(self, algo: AlgoOrder, reason: str, *, now_ms: int) -> None:
        algo = self._close_algo(replace(algo, reason=reason), AlgoStatus.REJECTED, now_ms=now_ms)
        self._outbox.append(TriggerRejectEvent(algo, now_ms))

    def _fill(self, order: Order, price: Decimal, quantity: Decimal, *, is_maker: bool, now_ms: int) -> Order:
        state = self.state
        before = state.position(order.symbol, order.position_side)
        change = apply_fill(before, order.side.sign * quantity, price, now_ms=now_ms)
        fee = self.fees.of(price * quantity, is_maker=is_maker)
        trade = Trade(
            trade_id=state.next_trade_id,
            order_id=order.order_id,
            client_order_id=order.client_order_id,
            symbol=order.symbol,
            side=order.side,
            position_side=order.position_side,
            price=price,
            quantity=quantity,
            fee=fee,
            realized_pnl=change.realized_pnl,
            is_maker=is_maker,
            time_ms=now_ms,
        )
        state.next_trade_id += 1
        state.trades.append(trade)
        state.positions[before.key] = change.position
        state.wallet += change.realized_pnl - fee
        executed = state.executed.setdefault(order.client_order_id, [])
        if order.order_id not in executed:
            executed.append(order.order_id)
        if change.realized_pnl:
            self._income(order.symbol, "REALIZED_PNL", change.realized_pnl, now_ms=now_ms, trade_id=trade.trade_id)
        self._income(order.symbol, "COMMISSION", -fee, now_ms=now_ms, trade_id=trade.trade_id)
        trips.book(state, trade, change)

        filled = order.filled + quantity
        order = replace(
            order,
            filled=filled,
            filled_notional=order.filled_notional + price * quantity,
            status=OrderStatus.FILLED if filled == order.quantity else OrderStatus.PARTIALLY_FILLED,
            updated_ms=now_ms,
        )
        self._store(order)
        self._outbox.append(AccountEvent("ORDER", now_ms, positions=(before.key,)))
        self._outbox.append(OrderEvent(order, "TRADE", now_ms, trade))
        if change.closed and not change.position.quantity:
            self._drop_close_position(change.position, now_ms=now_ms)
        return order

    def _drop_close_position(self, position: Position, *, now_ms: int) -> None:
        for algo in self.open_algos(position.symbol):
            if algo.close_position and algo.position_side is position.position_side:
                self._close_algo(algo, AlgoStatus.EXPIRED, now_ms=now_ms)


def _request_of(order: Order, *, quantity: Decimal, price: Decimal) -> OrderRequest:
    return OrderRequest(
        symbol=order.symbol,
        side=order.side,
        type=order.type,
        quantity=quantity,
        price=price,
        time_in_force=order.time_in_force,
        reduce_only=order.reduce_only,
        position_side=order.position_side,
    )
