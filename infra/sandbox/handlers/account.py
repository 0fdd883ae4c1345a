"""The account: balances, positions, settings and what it paid."""

from __future__ import annotations

from typing import Any

from infra.sandbox.engine.errors import VenueError
from infra.sandbox.engine.instrument import BRACKETS
from infra.sandbox.engine.position import Position
from infra.sandbox.handlers.call import Call, symbols, window
from infra.sandbox.protocol import shapes
from infra.sandbox.protocol.params import symbol_of


def account(call: Call) -> Any:
    """Balances and open positions."""
    return shapes.account_v3(call.venue.exchange, call.now_ms)


def account_v2(call: Call) -> Any:
    """Like v3, with a row for every symbol."""
    answer = shapes.account_v3(call.venue.exchange, call.now_ms)
    state = call.venue.exchange.state
    held = {row["symbol"] for row in answer["positions"]}
    for one in call.venue.market.instruments:
        if one.symbol not in held:
            shown = {"leverage": str(state.leverage_of(one.symbol)), "isolated": one.symbol in state.isolated}
            answer["positions"].extend(empty | shown for empty in _empty_positions(call, one.symbol))
    return answer


def balance(call: Call) -> Any:
    """The balance of each asset; there is one."""
    account = call.venue.exchange.margin()
    return [
        {
            "accountAlias": "sandbox",
            "asset": "USDT",
            "balance": shapes.text(account.wallet),
            "crossWalletBalance": shapes.text(account.cross_wallet),
            "crossUnPnl": shapes.text(account.cross_unrealized),
            "availableBalance": shapes.text(account.available),
            "maxWithdrawAmount": shapes.text(account.available),
            "marginAvailable": True,
            "updateTime": call.now_ms,
        }
    ]


def _empty_positions(call: Call, symbol: str) -> list[dict[str, Any]]:
    exchange = call.venue.exchange
    account = exchange.margin()
    call.venue.touch(symbol)
    return [shapes.position_risk(exchange, Position(symbol, side), account) for side in exchange.position_sides()]


def position_risk(call: Call) -> Any:
    """Open positions, and symbols with open orders."""
    exchange = call.venue.exchange
    wanted = call.params.text("symbol")
    if wanted is not None:
        call.venue.instrument(wanted)
    account = exchange.margin()
    held = [one for one in exchange.state.open_positions() if wanted is None or one.symbol == wanted]
    answer = [shapes.position_risk(exchange, one, account) for one in held]
    shown = {one.symbol for one in held}
    for order in exchange.open_orders(wanted):
        if order.symbol not in shown:
            shown.add(order.symbol)
            answer.extend(_empty_positions(call, order.symbol))
    return answer


def position_risk_v2(call: Call) -> Any:
    """A row for every symbol, with leverage and margin type."""
    exchange = call.venue.exchange
    account = exchange.margin()
    answer = []
    for symbol in symbols(call):
        held = [one for one in exchange.state.open_positions() if one.symbol == symbol]
        table = [shapes.position_risk(exchange, one, account) for one in held] or _empty_positions(call, symbol)
        for row in table:
            row["leverage"] = str(exchange.state.leverage_of(symbol))
            row["marginType"] = "isolated" if symbol in exchange.state.isolated else "cross"
            row["maxNotionalValue"] = _max_notional(exchange.state.leverage_of(symbol))
            answer.append(row)
    return answer


def set_leverage(call: Call) -> Any:
    """Set the leverage of a symbol."""
    symbol = symbol_of(call.params)
    leverage = call.params.integer("leverage")
    if leverage is None:
        call.params.required("leverage")
    assert leverage is not None
    call.venue.instrument(symbol)
    call.venue.touch(symbol)
    call.venue.exchange.set_leverage(symbol, leverage, now_ms=call.now_ms)
    return {"leverage": leverage, "maxNotionalValue": _max_notional(leverage), "symbol": symbol}


def _max_notional(leverage: int) -> str:
    tiers = BRACKETS
    return str(max((t.notional_cap for t in tiers if t.initial_leverage >= leverage), default=tiers[0].notional_cap))


def set_margin_type(call: Call) -> Any:
    """Choose cross or isolated margin for a symbol."""
    kind = call.params.required("marginType").upper()
    if kind not in {"ISOLATED", "CROSSED"}:
        raise VenueError(-1130, "Data sent for parameter 'marginType' is not valid.")
    call.venue.exchange.set_isolated(symbol_of(call.params), isolated=kind == "ISOLATED", now_ms=call.now_ms)
    return {"code": 200, "msg": "success"}


def set_position_mode(call: Call) -> Any:
    """Choose one-way or hedge mode."""
    if call.params.required("dualSidePosition").lower() not in {"true", "false"}:
        raise VenueError(-1130, "Data sent for parameter 'dualSidePosition' is not valid.")
    call.venue.exchange.set_hedge_mode(hedge=call.params.flag("dualSidePosition"))
    return {"code": 200, "msg": "success"}


def symbol_config(call: Call) -> Any:
    """Leverage and margin type per symbol."""
    state = call.venue.exchange.state
    return [
        {
            "symbol": symbol,
            "marginType": "ISOLATED" if symbol in state.isolated else "CROSSED",
            "isAutoAddMargin": False,
            "leverage": state.leverage_of(symbol),
            "maxNotionalValue": _max_notional(state.leverage_of(symbol)),
        }
        for symbol in symbols(call)
    ]


def account_config(call: Call) -> Any:
    """What the account may do."""
    return {
        "feeTier": 0,
        "canTrade": True,
        "canDeposit": False,
        "canWithdraw": False,
        "dualSidePosition": call.venue.exchange.state.hedge_mode,
        "updateTime": call.now_ms,
        "multiAssetsMargin": False,
        "tradeGroupId": -1,
    }


def commission_rate(call: Call) -> Any:
    """Maker and taker fee."""
    symbol = symbol_of(call.params)
    call.venue.instrument(symbol)
    fees = call.venue.exchange.fees
    return {
        "symbol": symbol,
        "makerCommissionRate": shapes.text(fees.maker),
        "takerCommissionRate": shapes.text(fees.taker),
        "rpiCommissionRate": "0",
    }


def brackets(call: Call) -> Any:
    """Leverage tiers."""
    return [shapes.brackets(symbol) for symbol in symbols(call)]


def user_trades(call: Call) -> Any:
    """The account's fills."""
    symbol = symbol_of(call.params)
    call.venue.instrument(symbol)
    limit = call.params.limit(500, 1000)
    first, order_id = call.params.integer("fromId"), call.params.integer("orderId")
    start, end = window(call)
    found = [
        one
        for one in call.venue.exchange.state.trades
        if one.symbol == symbol
        and (order_id is None or one.order_id == order_id)
        and (one.trade_id >= first if first is not None else (order_id is not None or start <= one.time_ms <= end))
    ]
    chosen = found[:limit] if first is not None or call.params.text("startTime") else found[-limit:]
    return [shapes.trade(one) for one in chosen]


def income(call: Call) -> Any:
    """Movements of the wallet."""
    symbol, kind = call.params.text("symbol"), call.params.text("incomeType")
    limit = call.params.limit(100, 1000)
    start, end = window(call)
    found = [
        one
        for one in call.venue.exchange.state.incomes
        if symbol in {None, one.symbol} and kind in {None, one.kind} and start <= one.time_ms <= end
    ]
    chosen = found[:limit] if call.params.text("startTime") else found[-limit:]
    return [shapes.income(one) for one in chosen]
