"""Where the journal and the venue disagree, and what makes them agree again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from inference.domain.order import OrderIntent, OrderReport, OrderType, Purpose, Side
from inference.execution.book import Book, Trade
from inference.execution.client_order_id import order_key
from inference.execution.next_step import next_step
from inference.execution.ports import VenuePosition


@dataclass(frozen=True, slots=True, kw_only=True)
class VenueView:
    """What the venue holds, read at about one moment."""

    positions: Mapping[str, VenuePosition]
    open_orders: Sequence[OrderReport]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryOrder:
    """Ask for an order whose fate is open, or that the venue should list and does not."""

    symbol: str
    client_order_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settle:
    """Take the trade's next steps: a stop is missing or has the wrong size, an exit is due, an order is left over."""

    symbol: str
    trade_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptPosition:
    """The venue is right about the quantity of a trade: somebody else traded."""

    symbol: str
    trade_id: str
    open_quantity: Decimal
    price: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class FlattenPosition:
    """No trade of ours explains this position, so it must go; `is_ours` where orders with our ids stand beside it."""

    symbol: str
    signed_quantity: Decimal
    price: Decimal
    is_ours: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelOrphan:
    """An order with an id of ours that no open trade wants."""

    symbol: str
    intent: OrderIntent


@dataclass(frozen=True, slots=True, kw_only=True)
class Recheck:
    """Look again: what disagrees may be a report that is still on its way."""

    symbol: str


Action = Recheck | QueryOrder | Settle | AdoptPosition | FlattenPosition | CancelOrphan


def _is_unfinished(trade: Trade) -> bool:
    return next_step(trade) is not None


def reconcile(
    book: Book, venue: VenueView, *, confirmed: bool, is_due: Callable[[Trade], bool] = _is_unfinished
) -> list[Action]:
    """
    Return what makes book and venue agree; an empty list means that they do.

    `is_due` tells of a trade that needs a step; who still wishes for an entry knows better than the trade alone.

    A first look only asks: what looks lost may be a report that is still on its way. With `confirmed`, after every
    open question has been put to the venue, the venue is right about positions and orphans go.
    """
    actions: list[Action] = list(_open_questions(book, venue))
    symbols = sorted({trade.symbol for trade in book.active()} | set(venue.positions))
    for symbol in symbols:
        actions.extend(_position_actions(book, symbol, venue, confirmed=confirmed))
    actions.extend(
        Settle(symbol=trade.symbol, trade_id=trade.plan.trade_id) for trade in book.active() if is_due(trade)
    )
    actions.extend(_orphans(book, venue, confirmed=confirmed))

    return list(dict.fromkeys(actions))


def _open_questions(book: Book, venue: VenueView) -> Iterator[Action]:
    listed = {report.client_order_id for report in venue.open_orders}
    for trade in book.active():
        for key, order in trade.orders.items():
            if order.may_exist or (order.is_live and key not in listed):
                yield QueryOrder(symbol=trade.symbol, client_order_id=key)


def _position_actions(book: Book, symbol: str, venue: VenueView, *, confirmed: bool) -> Iterator[Action]:
    trades = book.active_in(symbol)
    recent = [trade for trade in book.trades.values() if trade.symbol == symbol][-3:]
    position = venue.positions.get(symbol)
    held = position.signed_quantity if position else Decimal(0)
    expected = sum((trade.signed_quantity for trade in trades), Decimal(0))
    if held == expected:
        return
    unresolved = any(order.may_exist for trade in trades for order in trade.orders.values())
    if not confirmed or unresolved:
        yield Recheck(symbol=symbol)
        # An order that was believed lost may have executed after all.
        for trade in trades or recent:
            for key in trade.orders:
                yield QueryOrder(symbol=symbol, client_order_id=key)
        return

    price = position.mark_price if position else Decimal(0)
    if not trades:
        # Of a worker with another journal, whose lease is ours now; or of our own life that a backup knows nothing of.
        ours = any(one.symbol == symbol and order_key(one.client_order_id) for one in venue.open_orders)
        ours = ours or any(one.plan.trade_id in book.older for one in recent)
        yield FlattenPosition(symbol=symbol, signed_quantity=held, price=price, is_ours=ours)
        return

    # The youngest trade takes the difference; what points the other way is not its position at all.
    trade = trades[-1]
    others = expected - trade.signed_quantity
    rest = held - others
    long = Side.opening(trade.plan.direction) is Side.BUY
    own = max(Decimal(0), rest if long else -rest)
    yield AdoptPosition(
        symbol=symbol, trade_id=trade.plan.trade_id, open_quantity=own, price=price or trade.plan.reference_price
    )
    if own == 0 and rest != 0:
        yield FlattenPosition(symbol=symbol, signed_quantity=rest, price=price)


def _orphans(book: Book, venue: VenueView, *, confirmed: bool) -> Iterator[Action]:
    for report in venue.open_orders:
        key = order_key(report.client_order_id)
        if key is None:
            continue
        order = book.order(report.client_order_id)
        if order is not None and not order.status.is_terminal:
            continue
        if order is not None and not confirmed:
            yield QueryOrder(symbol=report.symbol, client_order_id=report.client_order_id)
            continue
        if order is None and key.purpose is Purpose.STOP and _is_needed(book, venue, report.symbol):
            continue
        yield CancelOrphan(symbol=report.symbol, intent=order.intent if order else _named(report))


def _is_needed(book: Book, venue: VenueView, symbol: str) -> bool:
    """Whether a stop of another journal of ours is all that protects a position until it is flattened."""
    position = venue.positions.get(symbol)
    # A stop that the journal believes in and the venue does not list protects nothing.
    listed = {report.client_order_id for report in venue.open_orders}
    stops = (stop for trade in book.active_in(symbol) for stop in trade.of(Purpose.STOP))
    own = any(stop.is_live and stop.intent.client_order_id in listed for stop in stops)
    return position is not None and position.signed_quantity != 0 and not own


def _named(report: OrderReport) -> OrderIntent:
    key = order_key(report.client_order_id)
    if key is None:
        raise ValueError(f"Expected an order id of ours, found {report.client_order_id!r}")
    kinds = {Purpose.STOP: OrderType.STOP_MARKET, Purpose.TARGET: OrderType.TAKE_PROFIT_MARKET}
    # Enough to name the order at the venue; side and quantity are not known and not needed for that.
    return OrderIntent(
        client_order_id=report.client_order_id,
        trade_id=key.trade_id,
        trace_id="",
        symbol=report.symbol,
        side=Side.SELL,
        order_type=kinds.get(key.purpose, OrderType.MARKET),
        purpose=key.purpose,
        quantity=Decimal(0),
    )
