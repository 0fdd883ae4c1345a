"""The ledger of one account: open orders at hand, ids given out, events kept until they are read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal

from infra.sandbox.engine.book import BookModel
from infra.sandbox.engine.errors import VenueError
from infra.sandbox.engine.fees import Clearance, Fees
from infra.sandbox.engine.instrument import Instrument
from infra.sandbox.engine.margin import Margin, margin
from infra.sandbox.engine.model import (
    ZERO,
    AccountEvent,
    AlgoEvent,
    AlgoOrder,
    AlgoStatus,
    Event,
    Income,
    Order,
    OrderEvent,
    OrderRequest,
    OrderStatus,
)
from infra.sandbox.engine.position import Position
from infra.sandbox.engine.state import EngineState


class Ledger:
    """What the exchange knows of the account, and how it writes it down."""

    def __init__(
        self,
        instruments: Iterable[Instrument],
        state: EngineState,
        *,
        fees: Fees | None = None,
        book: BookModel | None = None,
        clearance: Clearance | None = None,
    ) -> None:
        self.instruments = {one.symbol: one for one in instruments}
        self.state = state
        self.fees = fees or Fees()
        self.book = book or BookModel()
        self.clearance = clearance or Clearance()
        self._outbox: list[Event] = []
        self._open: dict[str, dict[int, Order]] = {}
        self._open_algos: dict[str, dict[int, AlgoOrder]] = {}
        # When orders end by themselves: the moment, whether it is a conditional one, its id; a heap.
        self._ends: list[tuple[int, bool, int]] = []
        for order in state.orders.values():
            self._index(order)
        for algo in state.algos.values():
            self._index_algo(algo)

    def drain(self) -> list[Event]:
        """Return what happened since the last call, oldest first."""
        events, self._outbox = self._outbox, []
        return events

    def active_symbols(self) -> set[str]:
        """Symbols whose price the account depends on."""
        held = {one.symbol for one in self.state.positions.values() if one.quantity}
        return held | {s for s, orders in self._open.items() if orders} | {s for s, a in self._open_algos.items() if a}

    def open_orders(self, symbol: str | None = None) -> list[Order]:
        """Open plain orders, oldest first."""
        chosen = [symbol] if symbol is not None else list(self._open)
        return sorted((o for s in chosen for o in self._open.get(s, {}).values()), key=lambda o: o.order_id)

    def open_algos(self, symbol: str | None = None) -> list[AlgoOrder]:
        """Working conditional orders, oldest first."""
        chosen = [symbol] if symbol is not None else list(self._open_algos)
        return sorted((a for s in chosen for a in self._open_algos.get(s, {}).values()), key=lambda a: a.algo_id)

    def margin(self) -> Margin:
        """Balances of the account at the last prices."""
        return margin(self.state, {s: list(orders.values()) for s, orders in self._open.items() if orders})

    def find_order(self, symbol: str, *, order_id: int | None = None, client_order_id: str | None = None) -> Order:
        """Return an order by id, or the newest of a client id."""
        if order_id is not None:
            order = self.state.orders.get(order_id)
            if order is not None and order.symbol == symbol:
                return order
        elif client_order_id:
            for order in reversed(self.state.orders.values()):
                if order.client_order_id == client_order_id and order.symbol == symbol:
                    return order
        raise VenueError(-2013)

    def find_algo(self, *, algo_id: int | None = None, client_algo_id: str | None = None) -> AlgoOrder:
        """Return a conditional order by id, or the newest of a client id."""
        if algo_id is not None:
            algo = self.state.algos.get(algo_id)
            if algo is not None:
                return algo
        elif client_algo_id:
            for algo in reversed(self.state.algos.values()):
                if algo.client_algo_id == client_algo_id:
                    return algo
        raise VenueError(-2013)

    def _instrument(self, symbol: str) -> Instrument:
        instrument = self.instruments.get(symbol)
        if instrument is None:
            raise VenueError(-1121)
        return instrument

    # -- bookkeeping ----------------------------------------------------------------------------------------------

    def _new_order(self, request: OrderRequest, *, now_ms: int) -> Order:
        order_id = self.state.next_order_id
        self.state.next_order_id += 1
        return Order(
            order_id=order_id,
            client_order_id=request.client_order_id or f"sandbox{order_id}",
            symbol=request.symbol,
            side=request.side,
            type=request.type,
            quantity=request.quantity,
            price=request.price or ZERO,
            time_in_force=request.time_in_force,
            reduce_only=request.reduce_only,
            position_side=request.position_side,
            status=OrderStatus.NEW,
            created_ms=now_ms,
            updated_ms=now_ms,
            queued=self._queue_number(),
            original_type=request.type,
            good_till_ms=request.good_till_ms,
            self_trade_prevention=request.self_trade_prevention,
            price_match=request.price_match,
        )

    def _queue_number(self) -> int:
        number = self.state.next_queue
        self.state.next_queue += 1
        return number

    def _store(self, order: Order) -> None:
        self.state.orders[order.order_id] = order
        self._index(order)

    def _index(self, order: Order) -> None:
        if order.is_open:
            self._open.setdefault(order.symbol, {})[order.order_id] = order
        else:
            self._open.get(order.symbol, {}).pop(order.order_id, None)

    def _store_algo(self, algo: AlgoOrder) -> None:
        self.state.algos[algo.algo_id] = algo
        self._index_algo(algo)

    def _index_algo(self, algo: AlgoOrder) -> None:
        if algo.is_open:
            self._open_algos.setdefault(algo.symbol, {})[algo.algo_id] = algo
        else:
            self._open_algos.get(algo.symbol, {}).pop(algo.algo_id, None)

    def _close_order(self, order: Order, status: OrderStatus, *, now_ms: int) -> Order:
        order = replace(order, status=status, updated_ms=now_ms)
        self._store(order)
        ended = OrderStatus.EXPIRED if status is OrderStatus.EXPIRED_IN_MATCH else status
        self._outbox.append(OrderEvent(order, ended.value, now_ms))
        return order

    def _close_algo(self, algo: AlgoOrder, status: AlgoStatus, *, now_ms: int) -> AlgoOrder:
        algo = replace(algo, status=status, updated_ms=now_ms)
        self._store_algo(algo)
        self._outbox.append(AlgoEvent(algo, now_ms))
        return algo

    def _income(self, symbol: str, kind: str, amount: Decimal, *, now_ms: int, trade_id: int = 0) -> None:
        income = Income(self.state.next_income_id, symbol, kind, amount, now_ms, trade_id)
        self.state.next_income_id += 1
        self.state.incomes.append(income)

    def _tell_account(
        self, reason: str, *positions: Position, now_ms: int, change: Decimal = ZERO, symbol: str = ""
    ) -> None:
        state = self.state
        self._outbox.append(
            AccountEvent(reason, now_ms, state.wallet, state.cross_wallet(), change, positions, symbol=symbol)
        )
