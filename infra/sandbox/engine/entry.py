"""How an order enters: the venue's checks in the venue's order, and what the market gives it on arrival."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from heapq import heappop, heappush
from itertools import islice

from infra.sandbox.engine import checks, liquidity, self_trades
from infra.sandbox.engine.admission import Admission
from infra.sandbox.engine.errors import VenueError
from infra.sandbox.engine.liquidity import Bar, Fills
from infra.sandbox.engine.margin import mark_of
from infra.sandbox.engine.model import (
    CONDITIONAL,
    ZERO,
    AlgoOrder,
    AlgoRequest,
    AlgoStatus,
    Order,
    OrderRequest,
    OrderStatus,
    OrderType,
    PriceMatch,
    Side,
    TimeInForce,
    WorkingType,
)

_NO_BAR = Bar(-1, ZERO)
_WIDE_SPREAD_BPS = 1_000


class Entry(Admission):
    """Between a client's request and the first fill: what is refused, and how much can be had now."""

    # -- checks ---------------------------------------------------------------------------------------------------

    def check(self, request: OrderRequest, *, now_ms: int) -> None:
        """Refuse a plain order as the venue does, by the first of its rules that is broken."""
        instrument = self._instrument(request.symbol)
        last, mark = self._last(request.symbol), mark_of(self.state, request.symbol)
        checks.check_time_in_force(request, now_ms=now_ms)
        checks.check_order(request, instrument, mark=mark, hedge_mode=self.state.hedge_mode)
        # Around a mark that is the last price, only a spread as wide as the band could be out of it.
        if request.type is OrderType.MARKET and (mark != last or self.book.spread_bps > _WIDE_SPREAD_BPS):
            checks.check_counterparty(self.book.best(instrument, last, request.side), mark)
        working = self.open_orders(request.symbol)
        if request.client_order_id and any(
            o.client_order_id == request.client_order_id for s in self._open.values() for o in s.values()
        ):
            raise VenueError(-4116)
        if len(working) >= checks.MAX_OPEN_ORDERS:
            raise VenueError(-2025)
        self._check_margin(request, last)
        self._check_reduce(request, working)
        if request.type in CONDITIONAL:
            raise VenueError(-4120)
        self._check_immediacy(request, last)

    def priced(self, request: OrderRequest) -> OrderRequest:
        """Return an order with the price that it takes over from the book as it is now, if it does."""
        if request.price_match is PriceMatch.NONE:
            return request
        return replace(request, price=self.matched_price(request.symbol, request.side, request.price_match))

    def matched_price(self, symbol: str, side: Side, match: PriceMatch) -> Decimal:
        """Return the price that an order of a side takes over: of those it would meet, or of those it joins."""
        met = side if match.is_opponent else side.opposite
        levels = self.book.levels(self._instrument(symbol), self._last(symbol), met)
        found = next(islice(levels, match.level - 1, None), None)
        if found is None:
            raise VenueError(-5041)
        return found[0]

    def check_algo(self, request: AlgoRequest, *, now_ms: int, is_plain: bool = False) -> None:
        """Refuse a conditional order as the venue does; one sent to the plain endpoint is refused in any case."""
        instrument = self._instrument(request.symbol)
        watched = self._watched(request.symbol, request.working_type)
        checks.check_time_in_force(request, now_ms=now_ms)
        checks.check_algo(request, instrument, last=watched, hedge_mode=self.state.hedge_mode)
        working = self.open_algos(request.symbol)
        if request.client_algo_id and any(
            a.client_algo_id == request.client_algo_id for s in self._open_algos.values() for a in s.values()
        ):
            raise VenueError(-4116)
        if len(working) >= checks.MAX_OPEN_ALGOS:
            raise VenueError(-4045)
        checks.check_trigger(request, watched)
        if is_plain:
            raise VenueError(-4120)
        if request.close_position:
            self._check_close_position(request, working)

    def _check_immediacy(self, request: OrderRequest, reference: Decimal) -> None:
        if request.time_in_force is TimeInForce.GTX and self._crosses(request, reference):
            raise VenueError(-5022)
        if request.time_in_force is TimeInForce.FOK and not self._fills_whole(request, reference):
            raise VenueError(-5021)

    def _fills_whole(self, request: OrderRequest | Order, reference: Decimal) -> bool:
        wanted = self._reducible(request, request.quantity)
        fills = self._fills_now(request, quantity=wanted, limit=request.price, reference=reference)
        reached = self_trades.met(request, fills, self._open.get(request.symbol, {}).values())
        fills = self_trades.before_meeting(request, fills, reached)
        return sum((quantity for _, quantity in fills), ZERO) >= request.quantity

    # -- prices ---------------------------------------------------------------------------------------------------

    def _last(self, symbol: str) -> Decimal:
        return self.state.last_prices.get(symbol, ZERO)

    def _watched(self, symbol: str, working_type: WorkingType) -> Decimal:
        return mark_of(self.state, symbol) if working_type is WorkingType.MARK_PRICE else self._last(symbol)

    def see_bar(self, symbol: str, volume: Decimal, *, start_ms: int) -> None:
        """Take in how much everybody trades in the bar that begins at a moment; what was taken from it stays taken."""
        bar = self.state.bars.get(symbol)
        if bar is None or bar.start_ms != start_ms:
            self.state.bars[symbol] = Bar(start_ms, volume)

    def _see_bars(self, volumes: Mapping[str, Decimal], *, now_ms: int) -> None:
        if self.state.rules.bounds_volume:
            for symbol, volume in volumes.items():
                self.see_bar(symbol, volume, start_ms=now_ms)

    # -- liquidity ------------------------------------------------------------------------------------------------

    def _fills_now(
        self, order: Order | OrderRequest, *, quantity: Decimal, limit: Decimal | None, reference: Decimal
    ) -> Fills:
        rules, instrument = self.state.rules, self.instruments[order.symbol]
        if limit is None and rules.take_bound:
            limit = mark_of(self.state, order.symbol) * (1 + order.side.sign * rules.take_bound)
        fills = self.book.walk(instrument, reference, order.side, quantity=quantity, limit=limit)
        if not rules.bounds_volume:
            return fills
        bar = self.state.bars.get(order.symbol, _NO_BAR)
        return liquidity.taken_from(bar, rules, instrument, order.side, fills=fills, limit=limit)

    def _makes_now(self, order: Order, quantity: Decimal) -> Decimal:
        """Return how much of a resting order can fill, where it may fill `quantity`."""
        if not self.state.rules.bounds_volume:
            return quantity
        bar = self.state.bars.get(order.symbol, _NO_BAR)
        room = liquidity.room(bar, self.state.rules, self.instruments[order.symbol])
        return quantity if room is None else min(room, quantity)

    def _note_taken(self, symbol: str, quantity: Decimal) -> None:
        bar = self.state.bars.get(symbol)
        if bar is not None:
            self.state.bars[symbol] = replace(bar, taken=bar.taken + quantity)

    # -- place in the queue ---------------------------------------------------------------------------------------

    def _queue_up(self, order: Order) -> None:
        """Remember what is displayed before an order that comes to rest, at its price and side."""
        if not self.state.rules.queue or not order.is_open:
            return
        instrument, last = self.instruments[order.symbol], self._last(order.symbol)
        shown = self.book.displayed(instrument, last, order.side.opposite, order.price)
        self.state.ahead[order.order_id] = shown

    def _reached(self, order: Order, quantity: Decimal) -> Decimal:
        """Return how much of a trade at an order's price is left once all before it have been served."""
        ahead = self.state.ahead.get(order.order_id, ZERO)
        self.state.ahead[order.order_id] = max(ZERO, ahead - quantity)
        return max(ZERO, quantity - ahead)

    def see_level(self, symbol: str, side: Side, price: Decimal, size: Decimal) -> None:
        """Take in a change of the recorded book: nobody can be further back than all that is displayed."""
        for order in self._open.get(symbol, {}).values():
            if order.side is side and order.price == price and order.order_id in self.state.ahead:
                self.state.ahead[order.order_id] = min(self.state.ahead[order.order_id], size)

    # -- time -----------------------------------------------------------------------------------------------------

    def _index(self, order: Order) -> None:
        super()._index(order)
        if not order.is_open:
            self.state.ahead.pop(order.order_id, None)
        elif order.good_till_ms:
            heappush(self._ends, (order.good_till_ms, False, order.order_id))

    def _index_algo(self, algo: AlgoOrder) -> None:
        super()._index_algo(algo)
        if algo.is_open and algo.good_till_ms:
            heappush(self._ends, (algo.good_till_ms, True, algo.algo_id))

    def elapse(self, now_ms: int) -> None:
        """Let orders expire whose time has come, each at its second."""
        while self._ends and self._ends[0][0] <= now_ms:
            at_ms, is_algo, number = heappop(self._ends)
            if is_algo:
                algo = self.state.algos[number]
                if algo.is_open:
                    self._close_algo(algo, AlgoStatus.EXPIRED, now_ms=at_ms)
            else:
                order = self.state.orders[number]
                if order.is_open:
                    self._close_order(order, OrderStatus.EXPIRED, now_ms=at_ms)
