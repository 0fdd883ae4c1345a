"""What is read of the account: orders open and past, executions, positions, wallets."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any, TypeVar

from infra.sandbox.bitfinex.call import Call
from infra.sandbox.bitfinex.names import CURRENCY, WALLET, instrument_named, number, pair_of
from infra.sandbox.bitfinex.orders import is_dated, open_orders
from infra.sandbox.bitfinex.refusals import invalid
from infra.sandbox.bitfinex.shapes import Row, order_row, position_row, stop_row, trade_row, venue_id, wallet_row
from infra.sandbox.engine.model import AlgoOrder, Income, Order, Trade

_USUAL, _MOST = 25, 2_500
_CATEGORIES = {"FUNDING_FEE": 29, "COMMISSION": 201, "REALIZED_PNL": 110}
_DESCRIPTIONS = {
    "FUNDING_FEE": "Derivatives funding event",
    "COMMISSION": "Trading fees",
    "REALIZED_PNL": "Position closed",
}
T = TypeVar("T")


def wallets(call: Call) -> list[Row]:
    """Return the wallet of derivatives; this venue has no other."""
    return [wallet_row(call.venue.exchange.margin())]


def positions(call: Call) -> list[Row]:
    """Return the positions that are not flat."""
    exchange = call.venue.exchange
    account = exchange.margin()
    return [position_row(exchange, one, account) for one in exchange.state.open_positions()]


def active_orders(call: Call) -> list[Row]:
    """Return open orders: all, those of a contract, those that are named, or the one of a client's number and day."""
    found = [one for one in open_orders(call, _symbol(call)) if _is_named(call, one)]
    return [_row(call, one) for one in found]


def past_orders(call: Call) -> list[Row]:
    """Return orders that have ended, newest first."""
    state, symbol = call.venue.exchange.state, _symbol(call)
    found: list[Order | AlgoOrder] = [o for o in state.orders.values() if not o.is_open]
    # A stop that became an order is that order.
    found += [a for a in state.algos.values() if not a.is_open and not a.order_id]
    bound = call.before_ms
    chosen = [
        one
        for one in found
        if (symbol is None or one.symbol == symbol)
        and (bound is None or one.created_ms < bound)
        and _is_named(call, one)
    ]
    return [_row(call, one) for one in _page(call, chosen, lambda o: (o.updated_ms, venue_id(o)))]


def trades(call: Call) -> list[Row]:
    """Return executions, newest first unless asked otherwise."""
    symbol, state = _symbol(call), call.venue.exchange.state
    found = [one for one in state.trades if symbol is None or one.symbol == symbol]
    return [trade_row(call.venue.exchange, one) for one in _page(call, found, _time_of_trade)]


def trades_of_order(call: Call) -> list[Row]:
    """Return the executions of one order."""
    symbol, wanted = _symbol(call), call.place[-1]
    exchange = call.venue.exchange
    found = [
        one
        for one in exchange.state.trades
        if one.symbol == symbol and str(venue_id(exchange.state.orders[one.order_id])) == wanted
    ]
    return [trade_row(exchange, one) for one in found]


def ledgers(call: Call) -> list[Row]:
    """Return what moved the wallet, newest first, each with the balance after it; `category` chooses a kind."""
    if call.place and call.place[0] != CURRENCY:
        raise invalid("currency")
    state, category = call.venue.exchange.state, call.whole("category")
    balance = state.opening_balance
    found: list[tuple[Income, Decimal]] = []
    for one in state.incomes:
        balance += one.amount
        if category is None or _CATEGORIES.get(one.kind) == category:
            found.append((one, balance))
    page = _page(call, found, lambda row: (row[0].time_ms, row[0].income_id))
    return [_ledger_row(call, one, after) for one, after in page]


def _ledger_row(call: Call, one: Income, balance: Decimal) -> Row:
    pair = pair_of(call.venue.exchange.instruments[one.symbol])
    text = f"{_DESCRIPTIONS.get(one.kind, 'Adjustment')} ({pair}) on wallet {WALLET}"
    return [one.income_id, CURRENCY, None, one.time_ms, None, number(one.amount), number(balance), None, text]


def _time_of_trade(one: Trade) -> tuple[int, int]:
    return one.time_ms, one.trade_id


def _symbol(call: Call) -> str | None:
    return instrument_named(call.venue, call.place[0]).symbol if call.place else None


def _is_named(call: Call, one: Order | AlgoOrder) -> bool:
    named = call.body.get("id")
    if named is not None:
        if not isinstance(named, list):
            raise invalid("id")
        return str(venue_id(one)) in {str(each) for each in named}
    own_id = call.client_id()
    return own_id is None or is_dated(one, own_id, call.body.get("cid_date"))


def _row(call: Call, one: Order | AlgoOrder) -> Row:
    exchange = call.venue.exchange
    return stop_row(exchange, one) if isinstance(one, AlgoOrder) else order_row(exchange, one)


def _page(call: Call, found: list[T], moment: Callable[[T], tuple[int, int]]) -> list[T]:
    start, end, limit = call.whole("start"), call.whole("end"), call.limit(_USUAL, _MOST)
    sort: Any = call.body.get("sort")
    chosen = [
        one for one in found if (start is None or moment(one)[0] >= start) and (end is None or moment(one)[0] <= end)
    ]
    chosen.sort(key=moment, reverse=str(sort) != "1")
    return chosen[:limit]
