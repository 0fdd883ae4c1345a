"""The same matching engine for a spot account: assets are exchanged, and nothing is owed."""

from __future__ import annotations

from dataclasses import replace
from decimal import ROUND_FLOOR, Decimal

from infra.sandbox.engine import spot_checks
from infra.sandbox.engine.checks import check_client_id
from infra.sandbox.engine.errors import VenueError
from infra.sandbox.engine.exchange import Exchange
from infra.sandbox.engine.instrument import Instrument
from infra.sandbox.engine.liquidity import Fills
from infra.sandbox.engine.model import (
    ZERO,
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
)
from infra.sandbox.engine.spot_ledger import SpotLedger, client_id, insufficient, number
from infra.sandbox.engine.spot_state import Pair, new_spot_state


class SpotExchange(SpotLedger):
    """
    One spot account against the market that a contract's account trades in.

    Who buys locks what is to be paid, who sells what is to be given; nothing else can be sold, so that there are no
    shorts, no leverage, no funding and no liquidation. The commission is taken in what is received. An order that waits
    for a price keeps its number when it is triggered.
    """

    # -- orders ---------------------------------------------------------------------------------------------------

    def submit_for_quote(self, request: OrderRequest, money: Decimal, *, now_ms: int) -> Order:
        """Accept a market order that says what it spends, or brings in, instead of a quantity."""
        lot = self.lots.get(request.symbol)
        if lot is None:
            raise VenueError(-1121)
        if request.side is Side.BUY and money > self.free(lot.quote):
            raise insufficient()
        last = self._last(request.symbol)
        shown = self._shown(request, lot.max_market_quantity, last)
        quantity = sum((size for _, size in affordable(shown, money, lot)), ZERO)
        spot_checks.check_notional(lot, quantity * last, is_market=True)
        order_id = self.state.next_order_id
        # Its events name what it was to spend.
        self.state.quote_quantities[order_id] = money
        try:
            return self.submit(replace(request, quantity=quantity), now_ms=now_ms)
        except VenueError:
            del self.state.quote_quantities[order_id]
            raise

    def submit_algo(self, request: AlgoRequest, *, now_ms: int) -> AlgoOrder:
        """Accept an order that waits for a price; one counter numbers it with all others."""
        self.state.next_algo_id = self.state.next_order_id
        algo = super().submit_algo(request, now_ms=now_ms)
        self.state.next_order_id = self.state.next_algo_id
        return algo

    def submit_pair(self, limit: OrderRequest, stop: AlgoRequest, client_list_id: str, *, now_ms: int) -> Pair:
        """Accept a limit and an order that waits, of one side and quantity: one at most is executed."""
        lot, last = self._lot(limit.symbol), self._last(limit.symbol)
        spot_checks.check_order(limit, lot, last=last)
        spot_checks.check_algo(stop, lot, last=last)
        trigger = stop.trigger_price or ZERO
        spot_checks.check_pair(limit.side, limit.price or ZERO, trigger, last)
        # The one that waits locks for both, so that where they buy it has to be the dearer one.
        if limit.side is Side.BUY and (stop.price or trigger) < (limit.price or ZERO):
            raise VenueError(-2010, "The relationship of the prices for the orders is not correct.")
        check_client_id(client_list_id)
        known = self.state.pairs.values()
        if client_list_id and any(one.is_open and one.client_list_id == client_list_id for one in known):
            raise VenueError(-2010, "Duplicate order list sent.")
        if limit.client_order_id and limit.client_order_id == stop.client_algo_id:
            raise VenueError(-2010, "Duplicate order sent.")
        self.check_algo(stop, now_ms=now_ms)
        self._check_new(limit.symbol, limit.client_order_id)
        list_id, first = self.state.next_list_id, self.state.next_order_id
        pair = Pair(list_id, client_list_id or f"list{list_id}", limit.symbol, first + 1, first, now_ms, now_ms)
        self.state.next_list_id += 1
        self.state.pairs[list_id] = pair
        self.state.pair_of |= dict.fromkeys(pair.numbers, list_id)
        self._moved.append(pair)
        self.submit_algo(stop, now_ms=now_ms)
        order = self._new_order(limit, now_ms=now_ms)
        self._store(order)
        self._outbox.append(OrderEvent(order, "NEW", now_ms))
        self._match_arrival(order, reference=last, now_ms=now_ms)
        return self.state.pairs[list_id]

    def cancel_pair(
        self, symbol: str, *, list_id: int | None = None, client_list_id: str | None = None, now_ms: int
    ) -> Pair:
        """Cancel both orders of an open pair."""
        pair = self.find_pair(list_id=list_id, client_list_id=client_list_id)
        if not pair.is_open or pair.symbol != symbol:
            raise VenueError(-2011)
        self._close_order(self.state.orders[pair.limit_id], OrderStatus.CANCELED, now_ms=now_ms)
        return self.state.pairs[pair.list_id]

    def find_pair(self, *, list_id: int | None = None, client_list_id: str | None = None) -> Pair:
        """Return a pair by its number, or the newest of a client id."""
        if list_id is not None:
            found = self.state.pairs.get(list_id)
        else:
            known = reversed(self.state.pairs.values())
            found = next((one for one in known if one.client_list_id == client_list_id), None)
        if found is None:
            raise VenueError(-2013, "Order list does not exist.")
        return found

    def find(
        self, symbol: str, *, order_id: int | None = None, client_order_id: str | None = None
    ) -> Order | AlgoOrder:
        """Return an order by its number, or the newest of a client id."""
        state = self.state
        if order_id is not None:
            found: list[Order | AlgoOrder | None] = [state.orders.get(order_id) or state.algos.get(order_id)]
        else:
            # The newest first; what was triggered is found as what it became.
            found = [
                next((one for one in reversed(state.orders.values()) if _is(one, symbol, client_order_id)), None),
                next((one for one in reversed(state.algos.values()) if _is(one, symbol, client_order_id)), None),
            ]
        known = [one for one in found if one is not None and one.symbol == symbol]
        if not known:
            raise VenueError(-2013)
        newest = max(known, key=number)
        return state.orders.get(number(newest), newest)

    def all_orders(self, symbol: str | None = None) -> list[Order | AlgoOrder]:
        """Return every order there was, by number; one that was triggered is what it became."""
        state = self.state
        found: list[Order | AlgoOrder] = [one for one in state.orders.values() if symbol in {None, one.symbol}]
        found += [
            one for one in state.algos.values() if symbol in {None, one.symbol} and one.algo_id not in state.orders
        ]
        return sorted(found, key=number)

    def all_open(self, symbol: str | None = None) -> list[Order | AlgoOrder]:
        """Return what may still be executed, by number."""
        return sorted([*self.open_orders(symbol), *self.open_algos(symbol)], key=number)

    def cancel_any(
        self, symbol: str, *, order_id: int | None = None, client_order_id: str | None = None, now_ms: int
    ) -> Order | AlgoOrder:
        """Cancel an open order, whether it waits for a price or not."""
        self._instrument(symbol)
        for one in reversed(self.all_open(symbol)):
            if number(one) == order_id or (order_id is None and client_id(one) == client_order_id):
                return self._end(one, now_ms=now_ms)
        raise VenueError(-2011)

    def cancel_every(self, symbol: str, *, now_ms: int) -> list[Order | AlgoOrder]:
        """Cancel the open orders of a symbol and return them."""
        return [self._end(one, now_ms=now_ms) for one in self.all_open(symbol) if self._is_still_open(one)]

    def end_trading(self, symbol: str, *, now_ms: int) -> None:
        """Let the orders of a symbol expire that is delisted; what is held stays held."""
        for order in self.open_orders(symbol):
            self._close_order(order, OrderStatus.EXPIRED, now_ms=now_ms)
        for algo in self.open_algos(symbol):
            self._close_algo(algo, AlgoStatus.EXPIRED, now_ms=now_ms)

    def _close_order(self, order: Order, status: OrderStatus, *, now_ms: int) -> Order:
        self._part(order.order_id, status, now_ms=now_ms)
        return super()._close_order(order, status, now_ms=now_ms)

    def _close_algo(self, algo: AlgoOrder, status: AlgoStatus, *, now_ms: int) -> AlgoOrder:
        ended = OrderStatus.CANCELED if status is AlgoStatus.CANCELED else OrderStatus.EXPIRED
        self._part(algo.algo_id, ended, now_ms=now_ms)
        return super()._close_algo(algo, status, now_ms=now_ms)

    def _part(self, order_id: int, status: OrderStatus, *, now_ms: int) -> None:
        """End the other order of a pair; from here on each locks what it would give."""
        pair = self.state.pair(order_id)
        if pair is None or not pair.is_open:
            return
        limit = self._open[pair.symbol].get(pair.limit_id)
        before = None if limit is None else self._lock(limit)
        self.state.pairs[pair.list_id] = parted = replace(pair, is_open=False, updated_ms=now_ms)
        self._relock(before, None if limit is None else self._lock(limit))
        if limit is not None and order_id != pair.limit_id:
            super()._close_order(limit, status, now_ms=now_ms)
        stop = self._open_algos[pair.symbol].get(pair.stop_id)
        if stop is not None and order_id != pair.stop_id:
            ended = AlgoStatus.CANCELED if status is OrderStatus.CANCELED else AlgoStatus.EXPIRED
            super()._close_algo(stop, ended, now_ms=now_ms)
        self._moved.append(parted)

    def _end(self, one: Order | AlgoOrder, *, now_ms: int) -> Order | AlgoOrder:
        if isinstance(one, Order):
            return self._close_order(one, OrderStatus.CANCELED, now_ms=now_ms)
        return self._close_algo(one, AlgoStatus.CANCELED, now_ms=now_ms)

    def _is_still_open(self, one: Order | AlgoOrder) -> bool:
        if isinstance(one, Order):
            return one.order_id in self._open.get(one.symbol, {})
        return one.algo_id in self._open_algos.get(one.symbol, {})

    # -- checks ---------------------------------------------------------------------------------------------------

    def check(self, request: OrderRequest, *, now_ms: int) -> None:
        """Refuse an order as spot does, by the first of its rules that is broken."""
        del now_ms
        lot, last = self._lot(request.symbol), self._last(request.symbol)
        spot_checks.check_order(request, lot, last=last)
        self._check_new(request.symbol, request.client_order_id)
        if request.side is Side.SELL:
            self._check_free(lot.base, request.quantity)
        elif request.price is not None:
            self._check_free(lot.quote, request.quantity * request.price)
        else:
            shown = self._shown(request, request.quantity, last)
            self._check_free(lot.quote, sum((price * size for price, size in shown), ZERO))
        self._check_immediacy(request, last)

    def check_algo(self, request: AlgoRequest, *, now_ms: int, is_plain: bool = False) -> None:
        """Refuse an order that waits for a price as spot does."""
        del now_ms, is_plain
        lot = self._lot(request.symbol)
        spot_checks.check_algo(request, lot, last=self._last(request.symbol))
        self._check_new(request.symbol, request.client_algo_id)
        if len(self.open_algos(request.symbol)) >= spot_checks.MAX_OPEN_ALGOS:
            raise spot_checks.filter_failure("MAX_NUM_ALGO_ORDERS")
        price = request.price or request.trigger_price or ZERO
        wanted = (lot.base, request.quantity) if request.side is Side.SELL else (lot.quote, request.quantity * price)
        self._check_free(*wanted)

    def _lot(self, symbol: str) -> Instrument:
        lot = self.lots.get(symbol)
        if lot is None:
            raise VenueError(-1121)
        return lot

    def _check_new(self, symbol: str, own_id: str) -> None:
        if own_id and any(client_id(one) == own_id for one in self.all_open()):
            raise VenueError(-2010, "Duplicate order sent.")
        if len(self.all_open(symbol)) >= spot_checks.MAX_OPEN_ORDERS:
            raise spot_checks.filter_failure("MAX_NUM_ORDERS")

    def _check_free(self, asset: str, amount: Decimal) -> None:
        if amount > self.free(asset):
            raise insufficient()

    def _check_margin(self, request: OrderRequest, last: Decimal, *, replacing: Order | None = None) -> None:
        """Ask nothing: what a triggered order needs was locked for it."""

    def _check_immediacy(self, request: OrderRequest, reference: Decimal) -> None:
        if request.time_in_force is TimeInForce.GTX and self._crosses(request, reference):
            raise VenueError(-2010, "Order would immediately match and take.")

    # -- matching -------------------------------------------------------------------------------------------------

    def _fills_now(
        self, order: Order | OrderRequest, *, quantity: Decimal, limit: Decimal | None, reference: Decimal
    ) -> Fills:
        fills = super()._fills_now(order, quantity=quantity, limit=limit, reference=reference)
        if order.type is not OrderType.MARKET or order.side is Side.SELL:
            return fills
        # What a stop locked, or a sum of money, may not be enough at the price that it finds.
        lot = self.lots[order.symbol]
        money = self.free(lot.quote)
        if isinstance(order, Order):
            money = min(money, self.state.quote_quantities.get(order.order_id, money))
        return affordable(fills, money, lot)

    def _shown(self, request: OrderRequest, quantity: Decimal, last: Decimal) -> Fills:
        """Return what the book shows of a quantity, which asks for nothing."""
        shown: Fills = []
        for price, size in self.book.levels(self.instruments[request.symbol], last, request.side):
            if quantity <= ZERO:
                break
            shown.append((price, min(size, quantity)))
            quantity -= size
        return shown

    def _match_arrival(self, order: Order, *, reference: Decimal, now_ms: int) -> Order:
        if order.time_in_force is TimeInForce.FOK and not self._fills_whole(order, reference):
            # Taken and ended, where a contract's order would be refused.
            return self._close_order(order, OrderStatus.EXPIRED, now_ms=now_ms)
        return super()._match_arrival(order, reference=reference, now_ms=now_ms)

    def _trigger(self, algo: AlgoOrder, price: Decimal, *, now_ms: int) -> None:
        self._part(algo.algo_id, OrderStatus.EXPIRED, now_ms=now_ms)
        # What was locked for it is now what it becomes may use.
        self._relock(self._lock(algo), None)
        self._open_algos[algo.symbol].pop(algo.algo_id, None)
        super()._trigger(algo, price, now_ms=now_ms)

    def _child_of(self, algo: AlgoOrder, request: OrderRequest, *, now_ms: int) -> Order:
        child = super()._child_of(algo, request, now_ms=now_ms)
        return replace(child, order_id=algo.algo_id, created_ms=algo.created_ms)

    def _fill(self, order: Order, price: Decimal, quantity: Decimal, *, is_maker: bool, now_ms: int) -> Order:
        # Of a pair, the one that trades is the one that stays.
        self._part(order.order_id, OrderStatus.EXPIRED, now_ms=now_ms)
        instrument = self.instruments[order.symbol]
        bought, sold = (
            ((instrument.base, quantity), (instrument.quote, price * quantity))
            if order.side is Side.BUY
            else ((instrument.quote, price * quantity), (instrument.base, quantity))
        )
        fee = self.fees.of(bought[1], is_maker=is_maker)
        trade = self._trade_of(
            order, price, quantity, fee=fee, realized_pnl=ZERO, is_maker=is_maker, now_ms=now_ms
        )  # fmt: skip
        self._move(sold[0], -sold[1])
        self._move(bought[0], bought[1] - fee)
        order = self._after(order, trade)
        self._outbox.append(OrderEvent(order, "TRADE", now_ms, trade))
        return order


def _is(one: Order | AlgoOrder, symbol: str, own_id: str | None) -> bool:
    return one.symbol == symbol and client_id(one) == own_id


def affordable(fills: Fills, money: Decimal, lot: Instrument) -> Fills:
    """Return what of a taker's fills so much money pays, in whole steps."""
    paid: Fills = []
    for price, size in fills:
        quantity = min(size, (money / price).quantize(lot.step, rounding=ROUND_FLOOR))
        if quantity <= ZERO:
            break
        paid.append((price, quantity))
        money -= price * quantity
        if quantity < size:
            break
    return paid


def spot_beside(exchange: Exchange, balance: Decimal = ZERO) -> SpotExchange:
    """Return a spot account in the market of an account of contracts."""
    return SpotExchange(exchange.instruments.values(), new_spot_state(balance), book=exchange.book)
