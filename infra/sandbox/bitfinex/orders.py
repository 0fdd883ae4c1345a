"""What changes orders: submit, update, cancel, and several of these at once."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

from infra.sandbox.bitfinex import shapes
from infra.sandbox.bitfinex.call import Call, date_of
from infra.sandbox.bitfinex.names import cut_amount, cut_price, instrument_named, plain
from infra.sandbox.bitfinex.refusals import GENERIC, Refusal, from_engine, invalid, order_not_found
from infra.sandbox.bitfinex.shapes import POST_ONLY, REDUCE_ONLY, Row, notification, order_row, stop_row, venue_id
from infra.sandbox.engine.errors import VenueError
from infra.sandbox.engine.instrument import Instrument
from infra.sandbox.engine.model import (
    AlgoOrder,
    AlgoRequest,
    Order,
    OrderEvent,
    OrderRequest,
    OrderStatus,
    OrderType,
    Side,
    TimeInForce,
)

USUAL_LEVERAGE = 10
MAX_OPERATIONS = 75
HEDGED = "Invalid order: position side: the account keeps long and short apart, and this venue nets them"
_KNOWN_FLAGS = REDUCE_ONLY | POST_ONLY
_PLAIN = {
    "MARKET": (OrderType.MARKET, TimeInForce.GTC),
    "LIMIT": (OrderType.LIMIT, TimeInForce.GTC),
    "IOC": (OrderType.LIMIT, TimeInForce.IOC),
    "FOK": (OrderType.LIMIT, TimeInForce.FOK),
}
_STOPS = {"STOP": OrderType.STOP_MARKET, "STOP LIMIT": OrderType.STOP}
# The venue takes these orders and cancels them; the engine, as the other front's venue does, never takes them.
_TAKEN_AND_CANCELED = {-5021, -5022}


def submit(call: Call) -> Row:
    """Take an order; it is answered as it arrived, and what became of it is told later."""
    return notification("on", call.now_ms, [_new(call)], "Submitting 1 orders.")


def update(call: Call) -> Row:
    """Change price or amount of a resting limit order."""
    return notification("ou", call.now_ms, _amended(call), "Submitting update to order.")


def cancel(call: Call) -> Row:
    """Cancel an open order by its number, or by the client's number and its day."""
    one = _open_order(call)
    shown = _close(call, one)
    text = f"Submitted for cancellation; waiting for confirmation (ID: {venue_id(one)})."
    return notification("oc", call.now_ms, shown, text)


def cancel_many(call: Call) -> Row:
    """Cancel the open orders that are named, or all of them; those that are not there are left out."""
    named = call.body.get("id")
    if call.body.get("all") not in (1, "1", True) and not isinstance(named, list):
        raise invalid("id")
    wanted = None if not isinstance(named, list) else {str(one) for one in named}
    found = [one for one in open_orders(call) if wanted is None or str(venue_id(one)) in wanted]
    rows = [_close(call, one) for one in found]
    return notification("oc_multi", call.now_ms, rows, f"Submitting {len(rows)} order cancellations.")


def many(call: Call) -> Row:
    """Up to 75 operations, each with an answer of its own."""
    operations = call.body.get("ops")
    if not isinstance(operations, list) or not 1 <= len(operations) <= MAX_OPERATIONS:
        raise invalid("ops")
    handlers = {"on": submit, "ou": update, "oc": cancel, "oc_multi": cancel_many}
    # All are looked at before the first is done, so that a refusal means that nothing was.
    for one in operations:
        if not isinstance(one, list) or len(one) != 2 or not isinstance(one[0], str) or not isinstance(one[1], dict):
            raise invalid("ops")
        if one[0] not in handlers:
            raise invalid("ops")
    answers = [_answered(handlers[kind], replace(call, body=body), kind=kind) for kind, body in operations]
    return notification("ox_multi", call.now_ms, answers, f"Submitting {len(answers)} order operations.")


def _answered(handler: Any, call: Call, *, kind: str) -> Row:
    try:
        row: Row = handler(call)
    except (Refusal, VenueError) as error:
        refusal = error if isinstance(error, Refusal) else from_engine(error)
        return [call.now_ms, f"{kind}-req", None, None, [None], refusal.code, "ERROR", refusal.text]
    return row


def open_orders(call: Call, symbol: str | None = None) -> list[Order | AlgoOrder]:
    """Return what may still be executed, oldest first; a stop that was triggered is the order it became."""
    exchange = call.venue.exchange
    found: list[Order | AlgoOrder] = [*exchange.open_orders(symbol), *exchange.open_algos(symbol)]
    bound = call.before_ms
    return sorted(
        (o for o in found if bound is None or o.created_ms < bound), key=lambda o: (o.created_ms, venue_id(o))
    )


# -- submit -----------------------------------------------------------------------------------------------------------


def _new(call: Call) -> Row:
    instrument = instrument_named(call.venue, call.body.get("symbol"))
    _check_trading(call, instrument)
    kind = call.body.get("type")
    if isinstance(kind, str) and kind.startswith("EXCHANGE "):
        raise Refusal(GENERIC, "Invalid order: EXCHANGE types are for spot, and this venue trades derivatives only")
    if not isinstance(kind, str) or (kind not in _PLAIN and kind not in _STOPS):
        raise invalid("type")
    if call.body.get("tif") is not None or call.body.get("price_trailing") is not None:
        raise Refusal(GENERIC, "Invalid order: this venue takes neither tif nor price_trailing")
    flags = call.whole("flags") or 0
    if flags & ~_KNOWN_FLAGS:
        raise Refusal(GENERIC, f"Invalid order: of flags this venue takes {REDUCE_ONLY} and {POST_ONLY}")
    own_id = call.client_id()
    if own_id is not None:
        _check_unique(call, own_id)
    reduces = bool(flags & REDUCE_ONLY)
    with_leverage = _Leverage(call, instrument.symbol, reduces=reduces)
    try:
        if kind in _STOPS:
            return _new_stop(call, instrument, _STOPS[kind], reduces=reduces, own_id=own_id)
        return _new_plain(call, instrument, *_PLAIN[kind], flags=flags, own_id=own_id)
    except (VenueError, Refusal):
        with_leverage.undo()
        raise


def _new_plain(
    call: Call, instrument: Instrument, kind: OrderType, force: TimeInForce, *, flags: int, own_id: int | None
) -> Row:
    side, quantity = _amount(call, instrument)
    if flags & POST_ONLY and (kind, force) != (OrderType.LIMIT, TimeInForce.GTC):
        raise Refusal(GENERIC, "Invalid order: post-only is for limit orders")
    request = OrderRequest(
        symbol=instrument.symbol,
        side=side,
        type=kind,
        quantity=quantity,
        price=None if kind is OrderType.MARKET else _price(call, instrument, "price"),
        time_in_force=TimeInForce.GTX if flags & POST_ONLY else force,
        reduce_only=bool(flags & REDUCE_ONLY),
        client_order_id="" if own_id is None else str(own_id),
        # This venue bounds what only reduces when it executes, however much of that rests.
        beside_others=True,
    )
    exchange = call.venue.exchange
    try:
        order = exchange.submit(request, now_ms=call.now_ms)
    except VenueError as error:
        if error.code not in _TAKEN_AND_CANCELED:
            raise
        order = _taken_and_canceled(call, request)
    return order_row(exchange, order, as_arrived=True)


def _taken_and_canceled(call: Call, request: OrderRequest) -> Order:
    state = call.venue.exchange.state
    order = Order(
        order_id=state.next_order_id,
        client_order_id=request.client_order_id or f"sandbox{state.next_order_id}",
        symbol=request.symbol,
        side=request.side,
        type=request.type,
        quantity=request.quantity,
        price=request.price or Decimal(0),
        time_in_force=request.time_in_force,
        reduce_only=request.reduce_only,
        position_side=request.position_side,
        status=OrderStatus.NEW,
        created_ms=call.now_ms,
        updated_ms=call.now_ms,
        queued=0,
        original_type=request.type,
    )
    ended = replace(order, status=OrderStatus.EXPIRED)
    state.next_order_id += 1
    state.orders[order.order_id] = ended
    call.venue.revision += 1
    call.venue.events += [OrderEvent(order, "NEW", call.now_ms), OrderEvent(ended, "EXPIRED", call.now_ms)]
    return order


def _new_stop(call: Call, instrument: Instrument, kind: OrderType, *, reduces: bool, own_id: int | None) -> Row:
    side, quantity = _amount(call, instrument)
    exchange = call.venue.exchange
    request = AlgoRequest(
        symbol=instrument.symbol,
        side=side,
        type=kind,
        quantity=quantity,
        trigger_price=_price(call, instrument, "price"),
        price=_price(call, instrument, "price_aux_limit") if kind is OrderType.STOP else None,
        reduce_only=reduces,
        client_algo_id="" if own_id is None else str(own_id),
    )
    return stop_row(exchange, exchange.submit_algo(request, now_ms=call.now_ms))


class _Leverage:
    """
    The leverage an order brings with it; taken back where the order is refused.

    Positions of derivatives have margin of their own at this venue; one that the other front holds with the wallet
    goes on as it is.
    """

    def __init__(self, call: Call, symbol: str, *, reduces: bool) -> None:
        self._call = call
        self._symbol = symbol
        self._before = call.venue.exchange.state.leverage.get(symbol)
        self._is_set = False
        self._is_apart = False
        told = call.whole("lev")
        if reduces and told is None:
            return
        leverage = USUAL_LEVERAGE if told is None else told
        if not 1 <= leverage <= 100:
            raise invalid("lev")
        if leverage != call.venue.exchange.state.leverage_of(symbol):
            call.venue.exchange.set_leverage(symbol, leverage, now_ms=call.now_ms)
            self._is_set = True
        if not reduces:
            self._set_apart()

    def _set_apart(self) -> None:
        exchange, symbol = self._call.venue.exchange, self._symbol
        is_held = any(one.symbol == symbol for one in exchange.state.open_positions())
        if symbol in exchange.state.isolated or is_held or exchange.open_orders(symbol) or exchange.open_algos(symbol):
            return
        exchange.set_isolated(symbol, isolated=True, now_ms=self._call.now_ms)
        self._is_apart = True

    def undo(self) -> None:
        """Set it to what it was."""
        state = self._call.venue.exchange.state
        if self._is_apart:
            state.isolated.discard(self._symbol)
        if self._is_set and self._before is None:
            del state.leverage[self._symbol]
        elif self._is_set and self._before is not None:
            state.leverage[self._symbol] = self._before


def _check_trading(call: Call, instrument: Instrument) -> None:
    venue = call.venue
    if venue.exchange.state.hedge_mode:
        raise Refusal(GENERIC, HEDGED)
    if instrument.symbol in venue.exchange.state.settled or not venue.is_trading(instrument.symbol, call.now_ms):
        raise Refusal(GENERIC, f"Invalid order: trading of {instrument.base}F0 is paused")
    venue.touch(instrument.symbol)


def _check_unique(call: Call, own_id: int) -> None:
    # A client's number names one order of one UTC day.
    text, today = str(own_id), date_of(call.now_ms)
    state = call.venue.exchange.state
    plain_ones = (o.created_ms for o in reversed(state.orders.values()) if o.client_order_id == text and not o.algo_id)
    stops = (a.created_ms for a in reversed(state.algos.values()) if a.client_algo_id == text)
    if any(date_of(created) == today for some in (plain_ones, stops) for created in some):
        raise Refusal(GENERIC, "Invalid order: duplicate cid")


def _amount(call: Call, instrument: Instrument) -> tuple[Side, Decimal]:
    amount = call.decimal("amount")
    if not amount:
        raise invalid("amount")
    quantity = cut_amount(abs(amount), instrument)
    if not quantity:
        least = plain(instrument.step)
        raise Refusal(GENERIC, f"Invalid order: minimum size for {instrument.base}F0 is {least}")
    return Side.BUY if amount > 0 else Side.SELL, quantity


def _price(call: Call, instrument: Instrument, name: str) -> Decimal:
    price = call.decimal(name)
    if price is None:
        raise invalid(name)
    return cut_price(price, instrument)


# -- what is open -----------------------------------------------------------------------------------------------------


def _open_order(call: Call) -> Order | AlgoOrder:
    wanted, own_id = call.whole("id"), call.client_id()
    if wanted is None and (own_id is None or not isinstance(call.body.get("cid_date"), str)):
        raise invalid("id")
    for one in reversed(open_orders(call)):
        if wanted is not None and venue_id(one) == wanted:
            return one
        if wanted is None and is_dated(one, own_id, call.body["cid_date"]):
            return one
    raise order_not_found()


def is_dated(one: Order | AlgoOrder, own_id: int | None, day: object) -> bool:
    """Whether an order has this number of a client, given to it on this day."""
    known = one.client_algo_id if isinstance(one, AlgoOrder) else one.client_order_id
    return shapes.client_id(known, one.created_ms) == own_id and date_of(one.created_ms) == day


def _close(call: Call, one: Order | AlgoOrder) -> Row:
    exchange = call.venue.exchange
    # Told as it was: the cancellation is confirmed by the stream, and by whoever asks again.
    if isinstance(one, AlgoOrder):
        shown = stop_row(exchange, one)
        exchange.cancel_algo(algo_id=one.algo_id, now_ms=call.now_ms)
    else:
        shown = order_row(exchange, one)
        exchange.cancel(one.symbol, order_id=one.order_id, now_ms=call.now_ms)
    return shown


def _amended(call: Call) -> Row:
    one = _open_order(call)
    if isinstance(one, AlgoOrder) or one.algo_id:
        raise Refusal(GENERIC, "Invalid order: this venue changes limit orders only; cancel the stop and place another")
    exchange = call.venue.exchange
    instrument = exchange.instruments[one.symbol]
    quantity, price = one.quantity, one.price
    if call.body.get("amount") is not None:
        side, quantity = _amount(call, instrument)
        if side is not one.side:
            raise invalid("amount")
    if call.body.get("price") is not None:
        price = _price(call, instrument, "price")
    changed = exchange.amend(one.symbol, one.order_id, quantity=quantity, price=price, now_ms=call.now_ms)
    return order_row(exchange, changed)
