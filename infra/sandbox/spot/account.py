"""The spot account: balances, executions, fees."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from infra.sandbox.handlers.call import Call, symbols
from infra.sandbox.protocol.params import symbol_of
from infra.sandbox.protocol.shapes import text
from infra.sandbox.spot import shapes
from infra.sandbox.spot.orders import stretch

_TEN_THOUSANDTHS = Decimal(10_000)
_NONE = "0.00000000"


def account(call: Call) -> Any:
    """Balances of every asset, and what the account pays and may do."""
    spot = call.venue.spot
    assets = [*dict.fromkeys([*spot.state.assets, *(one.base for one in call.venue.market.instruments)])]
    rows = shapes.balances(spot, assets)
    if call.params.flag("omitZeroBalances"):
        rows = [one for one in rows if Decimal(one["free"]) or Decimal(one["locked"])]
    fees = spot.fees
    return {
        "makerCommission": int(fees.maker * _TEN_THOUSANDTHS),
        "takerCommission": int(fees.taker * _TEN_THOUSANDTHS),
        "buyerCommission": 0,
        "sellerCommission": 0,
        "commissionRates": _rates(call),
        "canTrade": True,
        "canWithdraw": False,
        "canDeposit": False,
        "brokered": False,
        "requireSelfTradePrevention": False,
        "preventSor": False,
        "updateTime": call.now_ms,
        "accountType": "SPOT",
        "balances": rows,
        "permissions": ["SPOT"],
        "uid": 1,
    }


def _rates(call: Call) -> dict[str, str]:
    fees = call.venue.spot.fees
    return {"maker": text(fees.maker), "taker": text(fees.taker), "buyer": _NONE, "seller": _NONE}


def my_trades(call: Call) -> Any:
    """The account's executions in a symbol: from a number on, of an order, of a stretch of time, or the newest."""
    symbol = symbol_of(call.params)
    call.venue.instrument(symbol)
    limit, spot = call.params.limit(500, 1000), call.venue.spot
    first, order_id = call.params.integer("fromId"), call.params.integer("orderId")
    start, end = stretch(call)
    found = [
        one
        for one in spot.state.trades
        if one.symbol == symbol
        and (order_id is None or one.order_id == order_id)
        and (one.trade_id >= first if first is not None else start <= one.time_ms <= end)
    ]
    chosen = found[:limit] if first is not None or call.params.text("startTime") else found[-limit:]
    return [shapes.trade(spot, one) for one in chosen]


def commission(call: Call) -> Any:
    """What the account pays in a symbol."""
    symbol = symbol_of(call.params)
    call.venue.instrument(symbol)
    nothing = {"maker": _NONE, "taker": _NONE, "buyer": _NONE, "seller": _NONE}
    return {
        "symbol": symbol,
        "standardCommission": _rates(call),
        "specialCommission": nothing,
        "taxCommission": nothing,
        "discount": {"enabledForAccount": False, "enabledForSymbol": False, "discountAsset": "BNB", "discount": _NONE},
    }


def trade_fee(call: Call) -> Any:
    """Maker and taker fee of a symbol, or of all."""
    fees = call.venue.spot.fees
    return [
        {"symbol": one, "makerCommission": text(fees.maker), "takerCommission": text(fees.taker)}
        for one in symbols(call)
    ]
