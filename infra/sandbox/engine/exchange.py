"""The matching engine: what happens when an order arrives or a price moves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal

from infra.sandbox.engine import checks, conditional, self_trades, trips
from infra.sandbox.engine.clearing import Clearing
from infra.sandbox.engine.errors import VenueError
from infra.sandbox.engine.liquidity import fills_at_touch
from infra.sandbox.engine.margin import mark_of
from infra.sandbox.engine.model import (
    TARGETS,
    ZERO,
    AlgoEvent,
    AlgoOrder,
    AlgoRequest,
    AlgoStatus,
    Order,
    OrderEvent,
    OrderRequest,
    OrderStatus,
    OrderType,
    PriceMatch,
    Side,
    TimeInForce,
    Trade,
    TriggerRejectEvent,
)
from infra.sandbox.engine.position import Position, apply_fill


class Exchange(Clearing):
    """
    One account against one market.

    Pure in the sense that matters: the same calls with the same times and prices give the same state and
    events. Prices arrive through `tick`; everything that happened since the last `drain` waits in the outbox.
    """

    # -- what clients ask for -------------------------------------------------------------------------------------

    def submit(self, request: OrderRequest, *, now_ms: int) -> Order:
        """Accept a plain order and match what can be matched now."""
        request = self.priced(request)
        self.check(request, now_ms=now_ms)
        order = self._new_order(request, now_ms=now_ms)
        self._store(order)
        self._outbox.append(OrderEvent(order, "NEW", now_ms))
        return self._match_arrival(order, reference=self._last(request.symbol), now_ms=now_ms)

    def submit_algo(self, request: AlgoRequest, *, now_ms: int) -> AlgoOrder:
        """Accept a conditional order; it waits at the venue until its price comes."""
        self.check_algo(request, now_ms=now_ms)
        last = self._watched(request.symbol, request.working_type)
        algo_id = self.state.next_algo_id
        self.state.next_algo_id += 1
        algo = conditional.new_algo(request, algo_id=algo_id, last=last, now_ms=now_ms)
        self._store_algo(algo)
        self._outbox.append(AlgoEvent(algo, now_ms))
        return algo

    def amend(
        self,
        symbol: str,
        order_id: int,
        *,
        quantity: Decimal,
        price: Decimal,
        now_ms: int,
        price_match: PriceMatch = PriceMatch.NONE,
    ) -> Order:
        """Change price and quantity of a resting limit order; it loses its place in the queue."""
        order = self.state.orders.get(order_id)
        if order is None or order.symbol != symbol or not order.is_open:
            raise VenueError(-2013)
        instrument = self._instrument(symbol)
        last = self._last(symbol)
        checks.check_quantity(instrument, quantity, is_market=False)
        checks.check_price(instrument, price)
        checks.check_band(price, mark_of(self.state, symbol))
        if not order.reduce_only:
            checks.check_notional(instrument, quantity * price)
        if quantity == order.quantity and price == order.price:
            raise VenueError(-5027)
        request = _request_of(order, quantity=quantity, price=price)
        if quantity <= order.filled or (order.time_in_force is TimeInForce.GTX and self._crosses(request, last)):
            return self._close_order(order, OrderStatus.CANCELED, now_ms=now_ms)
        self._check_margin(replace(request, quantity=quantity - order.filled), last, replacing=order)
        queued = self._queue_number()
        order = replace(
            order, quantity=quantity, price=price, price_match=price_match, queued=queued, updated_ms=now_ms
        )
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

    def tick(
        self,
        prices: Mapping[str, Decimal],
        *,
        now_ms: int,
        volumes: Mapping[str, Decimal] | None = None,
        marks: Mapping[str, Decimal] | None = None,
        made_ms: int | None = None,
    ) -> None:
        """
        Take new last prices: conditional orders trigger, resting orders that were traded through fill.

        `volumes` is what everybody trades until the next tick; `marks` are mark prices that differ from the last ones.
        Prices that were made at `made_ms` and are told only now mean nothing to an order that came after them.
        """
        self.elapse(now_ms)
        self._see_bars(volumes or {}, now_ms=now_ms)
        self.state.mark_prices.update(marks or {})
        for symbol, price in prices.items():
            self.state.last_prices[symbol] = price
            # An isolated position that its margin no longer maintains is gone before its own stop can be reached.
            if symbol in self.state.isolated:
                self._liquidate_isolated({symbol}, now_ms=now_ms)
            if self._open_algos.get(symbol):
                self._run_conditionals(symbol, now_ms=now_ms, made_ms=made_ms)
            if self._open.get(symbol):
                self._run_resting(symbol, price, now_ms=now_ms, made_ms=made_ms)

    def trade(
        self,
        symbol: str,
        price: Decimal,
        quantity: Decimal,
        aggressor: Side,
        *,
        now_ms: int,
        made_ms: int | None = None,
    ) -> None:
        """
        Take a trade of somebody else: it serves the queue at its price, and then our orders that wait in it.

        One that was made at `made_ms` and is told only now serves no order that came after it.
        """
        if not self.state.rules.queue:
            return
        ours = ZERO
        for order in self._by_priority(symbol):
            beyond = (order.price - price) * order.side.sign
            if order.side is aggressor or beyond < 0 or _came_after(order, made_ms):
                continue
            served = order.remaining if beyond else max(ZERO, self._reached(order, quantity) - ours)
            ours += self._make(order, served, now_ms=now_ms)

    # -- matching -------------------------------------------------------------------------------------------------

    def _match_arrival(self, order: Order, *, reference: Decimal, now_ms: int) -> Order:
        is_market = order.type is OrderType.MARKET
        wanted = self._reducible(order, order.remaining)
        limit = None if is_market else order.price
        fills = self._fills_now(order, quantity=wanted, limit=limit, reference=reference)
        resting = self._open[order.symbol]
        # Alone, the order is the only one at rest.
        reached = self_trades.met(order, fills, resting.values()) if len(resting) > 1 else []
        for price, quantity in self_trades.before_meeting(order, fills, reached):
            order = self._fill(order, price, quantity, is_maker=False, now_ms=now_ms)
        for maker in self_trades.makers_that_end(order, reached):
            self._close_order(maker, OrderStatus.EXPIRED_IN_MATCH, now_ms=now_ms)
        if not order.is_open:
            return order
        if self_trades.taker_ends(order, reached):
            return self._close_order(order, OrderStatus.EXPIRED_IN_MATCH, now_ms=now_ms)
        if is_market or order.time_in_force in {TimeInForce.IOC, TimeInForce.FOK}:
            return self._close_order(order, OrderStatus.EXPIRED, now_ms=now_ms)
        self._queue_up(order)
        return order

    def _run_resting(self, symbol: str, price: Decimal, *, now_ms: int, made_ms: int | None) -> None:
        for order in self._by_priority(symbol):
            if _came_after(order, made_ms):
                continue
            # Traded through means beyond the limit, not at it.
            beyond = (order.price - price) * order.side.sign
            if beyond > 0 or (not beyond and fills_at_touch(self.state.rules, order.order_id, now_ms)):
                self._make(order, order.remaining, now_ms=now_ms)

    def _by_priority(self, symbol: str) -> Iterator[Order]:
        """Walk through the resting orders by price, then by place in the queue; what a fill closes is left out."""
        for known in sorted(self._open.get(symbol, {}).values(), key=lambda o: (-o.side.sign * o.price, o.queued)):
            order = self._open[symbol].get(known.order_id)
            if order is not None:
                yield order

    def _make(self, order: Order, quantity: Decimal, *, now_ms: int) -> Decimal:
        """Fill up to `quantity` of a resting order at its own price and return how much it was."""
        reducible = self._reducible(order, order.remaining)
        filled = self._makes_now(order, min(quantity, reducible))
        if filled:
            order = self._fill(order, order.price, filled, is_maker=True, now_ms=now_ms)
        if order.is_open and filled == reducible:
            # What only reduces has nothing more to reduce.
            self._close_order(order, OrderStatus.EXPIRED, now_ms=now_ms)
        return filled

    def _run_conditionals(self, symbol: str, *, now_ms: int, made_ms: int | None) -> None:
        # Stops before targets: inside one tick the order of prices is unknown, and the stop wins ties.
        waiting = sorted(self._open_algos[symbol].values(), key=lambda a: (a.type in TARGETS, a.algo_id))
        for known in waiting:
            algo = self._open_algos[symbol].get(known.algo_id)
            if algo is None or _came_after(algo, made_ms):
                continue
            algo, triggered = conditional.observe(algo, self._watched(symbol, algo.working_type))
            self._store_algo(algo)
            if triggered:
                self._trigger(algo, self._last(symbol), now_ms=now_ms)

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
        reference = conditional.fill_reference(algo, price)
        try:
            request = self.priced(request)
            self._check_margin(request, price)
            self._check_immediacy(request, reference)
        except VenueError as refusal:
            self._reject_trigger(algo, refusal.message, now_ms=now_ms)
            return
        order = self._child_of(algo, request, now_ms=now_ms)
        self._store(order)
        algo = replace(
            algo, status=AlgoStatus.TRIGGERED, order_id=order.order_id, triggered_ms=now_ms, updated_ms=now_ms
        )
        self._store_algo(algo)
        self._outbox.append(OrderEvent(order, "NEW", now_ms))
        # The child's fills overtake the news of its trigger, as on the live venue.
        self._match_arrival(order, reference=reference, now_ms=now_ms)
        self._outbox.append(AlgoEvent(algo, now_ms))
        algo = replace(algo, status=AlgoStatus.FINISHED)
        self._store_algo(algo)
        self._outbox.append(AlgoEvent(algo, now_ms))

    def _child_of(self, algo: AlgoOrder, request: OrderRequest, *, now_ms: int) -> Order:
        return replace(
            self._new_order(request, now_ms=now_ms),
            close_position=algo.close_position,
            original_type=algo.type,
            stop_price=algo.trigger_price,
            algo_id=algo.algo_id,
            working_type=algo.working_type,
            price_protect=algo.price_protect,
        )

    def _reject_trigger(self, algo: AlgoOrder, reason: str, *, now_ms: int) -> None:
        algo = self._close_algo(replace(algo, reason=reason), AlgoStatus.REJECTED, now_ms=now_ms)
        self._outbox.append(TriggerRejectEvent(algo, now_ms))

    def _fill(self, order: Order, price: Decimal, quantity: Decimal, *, is_maker: bool, now_ms: int) -> Order:
        state = self.state
        before = state.position(order.symbol, order.position_side)
        change = apply_fill(before, order.side.sign * quantity, price, now_ms=now_ms)
        fee = self.fees.of(price * quantity, is_maker=is_maker)
        trade = self._trade_of(
            order, price, quantity, fee=fee, realized_pnl=change.realized_pnl, is_maker=is_maker, now_ms=now_ms
        )
        state.wallet += change.realized_pnl - fee
        after = state.positions[before.key] = self._bind_margin(before, change, price, now_ms=now_ms)
        if change.realized_pnl:
            self._income(order.symbol, "REALIZED_PNL", change.realized_pnl, now_ms=now_ms, trade_id=trade.trade_id)
        self._income(order.symbol, "COMMISSION", -fee, now_ms=now_ms, trade_id=trade.trade_id)
        trips.book(state, trade, change)
        order = self._after(order, trade)
        self._tell_account("ORDER", after, now_ms=now_ms)
        self._outbox.append(OrderEvent(order, "TRADE", now_ms, trade))
        if change.closed and change.position.quantity * before.quantity <= 0:
            self._drop_close_position(change.position, now_ms=now_ms)
        return order

    def _trade_of(
        self,
        order: Order,
        price: Decimal,
        quantity: Decimal,
        *,
        fee: Decimal,
        realized_pnl: Decimal,
        is_maker: bool,
        now_ms: int,
    ) -> Trade:
        state = self.state
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
            realized_pnl=realized_pnl,
            is_maker=is_maker,
            time_ms=now_ms,
        )
        state.next_trade_id += 1
        state.trades.append(trade)
        self._note_taken(order.symbol, quantity)
        executed = state.executed.setdefault(order.client_order_id, [])
        if order.order_id not in executed:
            executed.append(order.order_id)
        return trade

    def _after(self, order: Order, trade: Trade) -> Order:
        filled = order.filled + trade.quantity
        order = replace(
            order,
            filled=filled,
            filled_notional=order.filled_notional + trade.price * trade.quantity,
            status=OrderStatus.FILLED if filled == order.quantity else OrderStatus.PARTIALLY_FILLED,
            updated_ms=trade.time_ms,
        )
        self._store(order)
        return order

    def _drop_close_position(self, position: Position, *, now_ms: int) -> None:
        for algo in self.open_algos(position.symbol):
            if algo.close_position and algo.position_side is position.position_side:
                self._close_algo(algo, AlgoStatus.EXPIRED, now_ms=now_ms)


def _came_after(order: Order | AlgoOrder, made_ms: int | None) -> bool:
    return made_ms is not None and order.created_ms > made_ms


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
        self_trade_prevention=order.self_trade_prevention,
    )
