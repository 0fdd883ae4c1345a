"""Orders, trades, positions and balances as Bitfinex writes them: arrays whose places have a meaning."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from infra.sandbox.bitfinex.names import CURRENCY, WALLET, name_of, number, plain
from infra.sandbox.engine import margin as margins
from infra.sandbox.engine.exchange import Exchange
from infra.sandbox.engine.margin import Margin
from infra.sandbox.engine.model import ZERO, AlgoOrder, AlgoStatus, Order, OrderStatus, OrderType, TimeInForce, Trade
from infra.sandbox.engine.position import Position

Row = list[Any]

REDUCE_ONLY, POST_ONLY, CLOSE = 1024, 4096, 512
_PRICE = Decimal("0.0000000001")
_PLAIN_TYPES = {TimeInForce.IOC: "IOC", TimeInForce.FOK: "FOK"}
_STOP_TYPES = {OrderType.STOP_MARKET: "STOP", OrderType.STOP: "STOP LIMIT"}
_ENDED_BY = {
    TimeInForce.IOC: "IOC CANCELED",
    TimeInForce.FOK: "FILLORKILL CANCELED",
    TimeInForce.GTX: "POSTONLY CANCELED",
}


def venue_id(one: Order | AlgoOrder) -> int:
    """Return the number of an order; a stop keeps its own when it is triggered."""
    if isinstance(one, AlgoOrder):
        return 2 * one.algo_id + 1
    return 2 * one.algo_id + 1 if one.algo_id else 2 * one.order_id


def client_id(client_order_id: str, created_ms: int) -> int:
    """Return the client's number of an order; one that was given none has the moment it was made."""
    return int(client_order_id) if client_order_id.isascii() and client_order_id.isdigit() else created_ms


def order_type(one: Order | AlgoOrder) -> str:
    """Return what an order is called."""
    if isinstance(one, AlgoOrder):
        return _STOP_TYPES.get(one.type, one.type.value.replace("_", " "))
    if one.type is OrderType.MARKET:
        return "MARKET"
    return _PLAIN_TYPES.get(one.time_in_force, "LIMIT")


def order_row(exchange: Exchange, one: Order, *, as_arrived: bool = False) -> Row:
    """Return a plain order, or the stop that it was before it was triggered."""
    stop = exchange.state.algos.get(one.algo_id) if one.algo_id else None
    filled = ZERO if as_arrived else one.filled
    created = one.created_ms if stop is None else stop.created_ms
    return _row(
        exchange,
        one,
        mts=(created, one.updated_ms),
        kind=(order_type(one), None if stop is None else order_type(stop)),
        filled=filled,
        status="ACTIVE" if as_arrived else _status(one),
        prices=(one.price or one.stop_price, ZERO if as_arrived else one.average_price, ZERO),
        tif=one.good_till_ms,
    )


def stop_row(exchange: Exchange, one: AlgoOrder) -> Row:
    """Return a stop; once triggered it is the order that it became."""
    child = exchange.state.orders.get(one.order_id) if one.order_id else None
    if child is not None:
        return order_row(exchange, child)
    status = "ACTIVE" if one.status is AlgoStatus.NEW else "CANCELED"
    return _row(
        exchange,
        one,
        mts=(one.created_ms, one.updated_ms),
        kind=(order_type(one), None),
        filled=ZERO,
        status=status,
        prices=(one.trigger_price, ZERO, one.price),
        tif=one.good_till_ms,
    )


def _row(
    exchange: Exchange,
    one: Order | AlgoOrder,
    *,
    mts: tuple[int, int],
    kind: tuple[str, str | None],
    filled: Decimal,
    status: str,
    prices: tuple[Decimal, Decimal, Decimal],
    tif: int,
) -> Row:
    is_post_only = one.time_in_force is TimeInForce.GTX
    flags = REDUCE_ONLY * one.reduce_only + POST_ONLY * is_post_only + CLOSE * one.close_position
    price, average, limit = prices
    leverage = exchange.state.leverage_of(one.symbol)
    own_id = one.client_algo_id if isinstance(one, AlgoOrder) else one.client_order_id
    return [
        venue_id(one),
        None,
        client_id(own_id, mts[0]),
        name_of(exchange.instruments[one.symbol]),
        mts[0],
        mts[1],
        number(one.side.sign * (one.quantity - filled)),
        number(one.side.sign * one.quantity),
        kind[0],
        kind[1],
        tif or None,
        None,
        flags,
        status,
        None,
        None,
        number(price),
        number(average.quantize(_PRICE)),
        0,
        number(limit),
        None,
        None,
        None,
        0,
        0,
        None,
        None,
        None,
        "API>BFX",
        None,
        None,
        {"$F33": leverage, "lev": leverage, "$F7": int(is_post_only)},
    ]


def _status(one: Order) -> str:
    done = f"@ {plain(one.average_price.quantize(_PRICE))}({plain(one.side.sign * one.filled)})"
    partly = f"PARTIALLY FILLED {done}"
    if one.is_open:
        return partly if one.filled else "ACTIVE"
    if one.status is OrderStatus.FILLED:
        return f"EXECUTED {done}"
    ended = _ENDED_BY.get(one.time_in_force, "CANCELED") if one.status is OrderStatus.EXPIRED else "CANCELED"
    return f"{ended} was: {partly}" if one.filled else ended


def trade_row(exchange: Exchange, one: Trade, *, with_fee: bool = True) -> Row:
    """Return one of the account's executions; what is told first of one does not know its fee."""
    order = exchange.state.orders[one.order_id]
    sign = one.side.sign
    return [
        one.trade_id,
        name_of(exchange.instruments[one.symbol]),
        one.time_ms,
        venue_id(order),
        number(sign * one.quantity),
        number(one.price),
        order_type(order),
        number(order.price or one.price),
        1 if one.is_maker else -1,
        number(-one.fee) if with_fee else None,
        CURRENCY if with_fee else None,
        client_id(one.client_order_id, order.created_ms),
    ]


def wallet_row(account: Margin) -> Row:
    """Return the one wallet: margin of derivatives in USDt."""
    return [WALLET, CURRENCY, number(account.wallet), 0, number(account.available), None, None]


def position_row(exchange: Exchange, one: Position, account: Margin) -> Row:
    """Return a position; the sign of its amount is its direction."""
    state = exchange.state
    mark = margins.mark_of(state, one.symbol)
    initial = margins.initial_margin(state, one)
    profit = one.unrealized(mark)
    share = profit / initial * 100 if initial else ZERO
    liquidation = margins.liquidation_price(state, one, account)
    place = list(exchange.instruments).index(one.symbol)
    return [
        name_of(exchange.instruments[one.symbol]),
        "ACTIVE" if one.quantity else "CLOSED",
        number(one.quantity),
        number(one.entry_price.quantize(_PRICE)),
        0,
        0,
        number(profit),
        number(share.quantize(_PRICE)),
        number(liquidation.quantize(_PRICE)),
        state.leverage_of(one.symbol),
        None,
        1_000 + place,
        one.updated_ms,
        one.updated_ms,
        None,
        1,
        None,
        number(one.isolated_wallet if one.symbol in state.isolated else initial),
        number(margins.maintenance_margin(one, mark)),
        {"reason": "TRADE", "order_id": None, "liq_stage": None, "trade_price": None, "trade_amount": None},
    ]


def notification(kind: str, now_ms: int, data: object, text: str) -> Row:
    """Return what a request that changes something is answered."""
    return [now_ms, f"{kind}-req", None, None, data, None, "SUCCESS", text]
