"""Which path answers what, who may ask, and what it weighs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import msgspec

from infra.sandbox.engine import funding
from infra.sandbox.engine.errors import VenueError
from infra.sandbox.engine.instrument import BRACKETS
from infra.sandbox.engine.model import CONDITIONAL, PositionSide
from infra.sandbox.engine.position import Position
from infra.sandbox.protocol import market_data, shapes
from infra.sandbox.protocol.params import Params, algo_request, order_request, symbol_of
from infra.sandbox.venue import Venue

WEEK_MS = 7 * 86_400_000
MAX_BATCH = 5


class Security(Enum):
    """Who may ask."""

    NONE = "none"
    KEY = "key"
    SIGNED = "signed"


@dataclass(slots=True)
class Call:
    """One request, parsed and let in."""

    venue: Venue
    params: Params
    now_ms: int
    legacy_conditionals: bool = False


Handler = Callable[[Call], Any]


@dataclass(frozen=True, slots=True)
class Route:
    """A handler with its admission and weight."""

    handler: Handler
    security: Security = Security.NONE
    weight: int = 1


def _symbols(call: Call) -> list[str]:
    symbol = call.params.text("symbol")
    if symbol is not None:
        call.venue.instrument(symbol.upper())
        return [symbol.upper()]
    return [one.symbol for one in call.venue.market.instruments if call.venue.last[call.venue.index[one.symbol]]]


def _per_symbol(write: Callable[[Venue, str, int], dict[str, Any]]) -> Handler:
    def handler(call: Call) -> Any:
        found = [write(call.venue, symbol, call.now_ms) for symbol in _symbols(call)]
        return found[0] if call.params.text("symbol") else found

    return handler


def _index_klines(call: Call) -> Any:
    pair = (call.params.text("pair") or call.params.required("symbol")).upper()
    return market_data.flat_rows(market_data.klines(call.venue, call.params, call.now_ms, symbol=pair))


def _premium_klines(call: Call) -> Any:
    table = market_data.flat_rows(market_data.klines(call.venue, call.params, call.now_ms))
    return [[row[0], "0", "0", "0", "0", *row[5:]] for row in table]


def _continuous_klines(call: Call) -> Any:
    return market_data.klines(call.venue, call.params, call.now_ms, symbol=call.params.required("pair").upper())


def _funding_info(call: Call) -> Any:
    return [
        {
            "symbol": one.symbol,
            "adjustedFundingRateCap": "0.02000000",
            "adjustedFundingRateFloor": "-0.02000000",
            "fundingIntervalHours": funding.INTERVAL_MS // 3_600_000,
            "disclaimer": False,
        }
        for one in call.venue.market.instruments
    ]


# -- orders -----------------------------------------------------------------------------------------------------------


def _check_trading(call: Call, symbol: str) -> None:
    call.venue.instrument(symbol)
    if not call.venue.is_trading(symbol, call.now_ms):
        raise VenueError(-4108)
    call.venue.touch(symbol)


def _new_order(call: Call) -> Any:
    params = call.params
    _check_trading(call, symbol_of(params))
    kind = params.text("type")
    if kind in {one.value for one in CONDITIONAL}:
        if not call.legacy_conditionals:
            raise VenueError(-4120)
        return _legacy_conditional(call)
    order = call.venue.exchange.submit(order_request(params), now_ms=call.now_ms)
    return shapes.order(order, acknowledge_only=(params.text("newOrderRespType") or "ACK") == "ACK")


def _legacy_conditional(call: Call) -> Any:
    algo = call.venue.exchange.submit_algo(algo_request(call.params), now_ms=call.now_ms)
    return {
        "orderId": algo.algo_id,
        "clientOrderId": algo.client_algo_id,
        "symbol": algo.symbol,
        "status": algo.status.value,
        "type": algo.type.value,
        "origType": algo.type.value,
        "side": algo.side.value,
        "stopPrice": shapes.text(algo.trigger_price),
        "origQty": shapes.text(algo.quantity),
        "executedQty": "0",
        "avgPrice": "0",
        "price": shapes.text(algo.price),
        "reduceOnly": algo.reduce_only,
        "closePosition": algo.close_position,
        "positionSide": algo.position_side.value,
        "timeInForce": algo.time_in_force.value,
        "updateTime": algo.updated_ms,
    }


def _test_order(call: Call) -> Any:
    _check_trading(call, symbol_of(call.params))
    order_request(call.params)
    return {}


def _amend_order(call: Call) -> Any:
    params = call.params
    symbol = symbol_of(params)
    _check_trading(call, symbol)
    quantity, price = params.decimal("quantity"), params.decimal("price")
    if quantity is None or price is None:
        params.required("quantity" if quantity is None else "price")
    assert quantity is not None
    assert price is not None
    order = _find(call, symbol)
    return shapes.order(
        call.venue.exchange.amend(symbol, order.order_id, quantity=quantity, price=price, now_ms=call.now_ms)
    )


def _find(call: Call, symbol: str) -> Any:
    order_id = call.params.integer("orderId")
    client_id = call.params.text("origClientOrderId")
    if order_id is None and client_id is None:
        raise VenueError(-1102, "Param 'origClientOrderId' or 'orderId' must be sent, but both were empty/null!")
    return call.venue.exchange.find_order(symbol, order_id=order_id, client_order_id=client_id)


def _cancel_order(call: Call) -> Any:
    symbol = symbol_of(call.params)
    call.venue.instrument(symbol)
    order_id = call.params.integer("orderId")
    client_id = call.params.text("origClientOrderId")
    if order_id is None and client_id is None:
        raise VenueError(-1102, "Param 'origClientOrderId' or 'orderId' must be sent, but both were empty/null!")
    order = call.venue.exchange.cancel(symbol, order_id=order_id, client_order_id=client_id, now_ms=call.now_ms)
    return shapes.order(order)


def _cancel_all(call: Call) -> Any:
    call.venue.exchange.cancel_all(symbol_of(call.params), now_ms=call.now_ms)
    return {"code": 200, "msg": "The operation of cancel all open order is done."}


def _get_order(call: Call) -> Any:
    symbol = symbol_of(call.params)
    call.venue.instrument(symbol)
    return shapes.order(_find(call, symbol))


def _get_open_order(call: Call) -> Any:
    symbol = symbol_of(call.params)
    call.venue.instrument(symbol)
    order = _find(call, symbol)
    if not order.is_open:
        raise VenueError(-2013)
    return shapes.order(order)


def _open_orders(call: Call) -> Any:
    symbol = call.params.text("symbol")
    if symbol is not None:
        call.venue.instrument(symbol)
    return [shapes.order(one) for one in call.venue.exchange.open_orders(symbol)]


def _window(call: Call, default_ms: int = WEEK_MS) -> tuple[int, int]:
    start, end = call.params.integer("startTime"), call.params.integer("endTime")
    if start is None:
        start = (end if end is not None else call.now_ms) - default_ms
    return start, end if end is not None else start + default_ms + 1


def _all_orders(call: Call) -> Any:
    symbol = symbol_of(call.params)
    call.venue.instrument(symbol)
    limit = call.params.limit(500, 1000)
    first = call.params.integer("orderId")
    start, end = _window(call)
    found = [
        one
        for one in call.venue.exchange.state.orders.values()
        if one.symbol == symbol and (one.order_id >= first if first is not None else start <= one.created_ms <= end)
    ]
    chosen = found[:limit] if first is not None or call.params.text("startTime") else found[-limit:]
    return [shapes.order(one) for one in chosen]


def _batch(call: Call) -> list[dict[str, Any]]:
    raw = call.params.required("batchOrders")
    try:
        items = msgspec.json.decode(raw, type=list[dict[str, Any]])
    except msgspec.DecodeError:
        raise VenueError(-1130, "Data sent for parameter 'batchOrders' is not valid.") from None
    if not 1 <= len(items) <= MAX_BATCH:
        raise VenueError(-4082, "Invalid number of batch place orders.")
    return items


def _each(call: Call, handler: Handler, items: list[dict[str, str]]) -> list[Any]:
    answers: list[Any] = []
    for item in items:
        try:
            answers.append(handler(Call(call.venue, Params(item), call.now_ms, call.legacy_conditionals)))
        except VenueError as refusal:
            answers.append({"code": refusal.code, "msg": refusal.message})
    return answers


def _texts(item: dict[str, Any]) -> dict[str, str]:
    return {key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in item.items()}


def _new_batch(call: Call) -> Any:
    # The answer to a batch is always the result of each order.
    return _each(call, _new_order, [{"newOrderRespType": "RESULT", **_texts(one)} for one in _batch(call)])


def _amend_batch(call: Call) -> Any:
    return _each(call, _amend_order, [_texts(one) for one in _batch(call)])


def _cancel_batch(call: Call) -> Any:
    symbol = symbol_of(call.params)
    values = {name.lower(): value for name, value in call.params.values.items()}
    items: list[dict[str, str]] = []
    for name, key in (("orderidlist", "orderId"), ("origclientorderidlist", "origClientOrderId")):
        raw = values.get(name)
        if raw:
            try:
                ids = msgspec.json.decode(raw, type=list[str | int])
            except msgspec.DecodeError:
                raise VenueError(-1130, f"Data sent for parameter '{name}' is not valid.") from None
            items.extend({"symbol": symbol, key: str(one)} for one in ids)
    if not items:
        raise VenueError(-1102, "Param 'origClientOrderIdList' or 'orderIdList' must be sent.")
    return _each(call, _cancel_order, items)


# -- conditional orders -----------------------------------------------------------------------------------------------


def _algo_shape(call: Call, algo: Any) -> dict[str, Any]:
    return shapes.algo(algo, call.venue.exchange.state.orders.get(algo.order_id))


def _new_algo(call: Call) -> Any:
    _check_trading(call, symbol_of(call.params))
    return _algo_shape(call, call.venue.exchange.submit_algo(algo_request(call.params), now_ms=call.now_ms))


def _algo_ids(call: Call) -> tuple[int | None, str | None]:
    algo_id, client_id = call.params.integer("algoId"), call.params.text("clientAlgoId")
    if algo_id is None and client_id is None:
        raise VenueError(-1102, "Param 'algoId' or 'clientAlgoId' must be sent, but both were empty/null!")
    return algo_id, client_id


def _get_algo(call: Call) -> Any:
    algo_id, client_id = _algo_ids(call)
    return _algo_shape(call, call.venue.exchange.find_algo(algo_id=algo_id, client_algo_id=client_id))


def _cancel_algo(call: Call) -> Any:
    algo_id, client_id = _algo_ids(call)
    algo = call.venue.exchange.cancel_algo(algo_id=algo_id, client_algo_id=client_id, now_ms=call.now_ms)
    return {"algoId": algo.algo_id, "clientAlgoId": algo.client_algo_id, "code": "200", "msg": "success"}


def _cancel_all_algos(call: Call) -> Any:
    call.venue.exchange.cancel_all_algos(symbol_of(call.params), now_ms=call.now_ms)
    return {"code": 200, "msg": "The operation of cancel all open order is done."}


def _open_algos(call: Call) -> Any:
    symbol = call.params.text("symbol")
    if symbol is not None:
        call.venue.instrument(symbol)
    return [_algo_shape(call, one) for one in call.venue.exchange.open_algos(symbol)]


def _all_algos(call: Call) -> Any:
    symbol = symbol_of(call.params)
    limit = call.params.limit(500, 1000)
    start, end = _window(call)
    found = [
        one
        for one in call.venue.exchange.state.algos.values()
        if one.symbol == symbol and start <= one.created_ms <= end
    ]
    return [_algo_shape(call, one) for one in found[-limit:]]


# -- account ----------------------------------------------------------------------------------------------------------


def _account(call: Call) -> Any:
    return shapes.account_v3(call.venue.exchange, call.now_ms)


def _account_v2(call: Call) -> Any:
    """Like v3, with a row for every symbol."""
    answer = shapes.account_v3(call.venue.exchange, call.now_ms)
    state = call.venue.exchange.state
    held = {row["symbol"] for row in answer["positions"]}
    for one in call.venue.market.instruments:
        if one.symbol not in held:
            empty = _empty_positions(call, one.symbol)[0]
            empty |= {"leverage": str(state.leverage_of(one.symbol)), "isolated": one.symbol in state.isolated}
            answer["positions"].append(empty)
    return answer


def _balance(call: Call) -> Any:
    account = call.venue.exchange.margin()
    return [
        {
            "accountAlias": "sandbox",
            "asset": "USDT",
            "balance": shapes.text(account.wallet),
            "crossWalletBalance": shapes.text(account.wallet),
            "crossUnPnl": shapes.text(account.unrealized),
            "availableBalance": shapes.text(account.available),
            "maxWithdrawAmount": shapes.text(account.available),
            "marginAvailable": True,
            "updateTime": call.now_ms,
        }
    ]


def _empty_positions(call: Call, symbol: str) -> list[dict[str, Any]]:
    exchange = call.venue.exchange
    account = exchange.margin()
    sides = (PositionSide.LONG, PositionSide.SHORT) if exchange.state.hedge_mode else (PositionSide.BOTH,)
    call.venue.touch(symbol)
    return [shapes.position_risk(exchange, Position(symbol, side), account) for side in sides]


def _position_risk(call: Call) -> Any:
    """Open positions, and symbols with open orders."""
    exchange = call.venue.exchange
    wanted = call.params.text("symbol")
    if wanted is not None:
        call.venue.instrument(wanted)
    account = exchange.margin()
    held = [one for one in exchange.state.open_positions() if wanted is None or one.symbol == wanted]
    answer = [shapes.position_risk(exchange, one, account) for one in held]
    symbols = {one.symbol for one in held}
    for order in exchange.open_orders(wanted):
        if order.symbol not in symbols:
            symbols.add(order.symbol)
            answer.extend(_empty_positions(call, order.symbol))
    return answer


def _position_risk_v2(call: Call) -> Any:
    exchange = call.venue.exchange
    account = exchange.margin()
    answer = []
    for symbol in _symbols(call):
        held = [one for one in exchange.state.open_positions() if one.symbol == symbol]
        table = [shapes.position_risk(exchange, one, account) for one in held] or _empty_positions(call, symbol)
        for row in table:
            row["leverage"] = str(exchange.state.leverage_of(symbol))
            row["marginType"] = "isolated" if symbol in exchange.state.isolated else "cross"
            row["maxNotionalValue"] = "50000"
            answer.append(row)
    return answer


def _set_leverage(call: Call) -> Any:
    symbol = symbol_of(call.params)
    leverage = call.params.integer("leverage")
    if leverage is None:
        call.params.required("leverage")
    assert leverage is not None
    call.venue.exchange.set_leverage(symbol, leverage, now_ms=call.now_ms)
    return {"leverage": leverage, "maxNotionalValue": _max_notional(leverage), "symbol": symbol}


def _max_notional(leverage: int) -> str:
    tiers = BRACKETS
    return str(max((t.notional_cap for t in tiers if t.initial_leverage >= leverage), default=tiers[0].notional_cap))


def _set_margin_type(call: Call) -> Any:
    kind = call.params.required("marginType").upper()
    if kind not in {"ISOLATED", "CROSSED"}:
        raise VenueError(-1130, "Data sent for parameter 'marginType' is not valid.")
    call.venue.exchange.set_isolated(symbol_of(call.params), isolated=kind == "ISOLATED")
    return {"code": 200, "msg": "success"}


def _set_position_mode(call: Call) -> Any:
    call.params.required("dualSidePosition")
    call.venue.exchange.set_hedge_mode(hedge=call.params.flag("dualSidePosition"))
    return {"code": 200, "msg": "success"}


def _symbol_config(call: Call) -> Any:
    state = call.venue.exchange.state
    return [
        {
            "symbol": symbol,
            "marginType": "ISOLATED" if symbol in state.isolated else "CROSSED",
            "isAutoAddMargin": False,
            "leverage": state.leverage_of(symbol),
            "maxNotionalValue": _max_notional(state.leverage_of(symbol)),
        }
        for symbol in _symbols(call)
    ]


def _account_config(call: Call) -> Any:
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


def _commission_rate(call: Call) -> Any:
    symbol = symbol_of(call.params)
    call.venue.instrument(symbol)
    fees = call.venue.exchange.fees
    return {
        "symbol": symbol,
        "makerCommissionRate": shapes.text(fees.maker),
        "takerCommissionRate": shapes.text(fees.taker),
        "rpiCommissionRate": "0",
    }


def _brackets(call: Call) -> Any:
    return [shapes.brackets(symbol) for symbol in _symbols(call)]


def _user_trades(call: Call) -> Any:
    symbol = symbol_of(call.params)
    call.venue.instrument(symbol)
    limit = call.params.limit(500, 1000)
    first, order_id = call.params.integer("fromId"), call.params.integer("orderId")
    start, end = _window(call)
    found = [
        one
        for one in call.venue.exchange.state.trades
        if one.symbol == symbol
        and (order_id is None or one.order_id == order_id)
        and (one.trade_id >= first if first is not None else (order_id is not None or start <= one.time_ms <= end))
    ]
    chosen = found[:limit] if first is not None or call.params.text("startTime") else found[-limit:]
    return [shapes.trade(one) for one in chosen]


def _income(call: Call) -> Any:
    symbol, kind = call.params.text("symbol"), call.params.text("incomeType")
    limit = call.params.limit(100, 1000)
    start, end = _window(call)
    found = [
        one
        for one in call.venue.exchange.state.incomes
        if symbol in {None, one.symbol} and kind in {None, one.kind} and start <= one.time_ms <= end
    ]
    chosen = found[:limit] if call.params.text("startTime") else found[-limit:]
    return [shapes.income(one) for one in chosen]


def _nothing(call: Call) -> Any:
    del call
    return []


K, S = Security.KEY, Security.SIGNED

ROUTES: dict[tuple[str, str], Route] = {
    ("GET", "/fapi/v1/ping"): Route(lambda _: {}),
    ("GET", "/fapi/v1/exchangeInfo"): Route(lambda c: market_data.exchange_info(c.venue, c.now_ms)),
    ("GET", "/fapi/v1/klines"): Route(lambda c: market_data.klines(c.venue, c.params, c.now_ms), weight=5),
    ("GET", "/fapi/v1/continuousKlines"): Route(_continuous_klines, weight=5),
    ("GET", "/fapi/v1/markPriceKlines"): Route(_index_klines, weight=5),
    ("GET", "/fapi/v1/indexPriceKlines"): Route(_index_klines, weight=5),
    ("GET", "/fapi/v1/premiumIndexKlines"): Route(_premium_klines, weight=5),
    ("GET", "/fapi/v1/ticker/24hr"): Route(_per_symbol(market_data.ticker), weight=40),
    ("GET", "/fapi/v1/ticker/price"): Route(_per_symbol(market_data.price_ticker), weight=2),
    ("GET", "/fapi/v2/ticker/price"): Route(_per_symbol(market_data.price_ticker), weight=2),
    ("GET", "/fapi/v1/ticker/bookTicker"): Route(_per_symbol(market_data.book_ticker), weight=5),
    ("GET", "/fapi/v1/depth"): Route(lambda c: market_data.depth(c.venue, c.params, c.now_ms), weight=10),
    ("GET", "/fapi/v1/aggTrades"): Route(lambda c: market_data.trades(c.venue, c.params, aggregate=True), weight=20),
    ("GET", "/fapi/v1/trades"): Route(lambda c: market_data.trades(c.venue, c.params, aggregate=False), weight=5),
    ("GET", "/fapi/v1/historicalTrades"): Route(
        lambda c: market_data.trades(c.venue, c.params, aggregate=False), K, weight=20
    ),
    ("GET", "/fapi/v1/premiumIndex"): Route(_per_symbol(market_data.premium_index)),
    ("GET", "/fapi/v1/fundingRate"): Route(lambda c: market_data.funding_history(c.venue, c.params, c.now_ms)),
    ("GET", "/fapi/v1/fundingInfo"): Route(_funding_info),
    ("POST", "/fapi/v1/order"): Route(_new_order, S, weight=0),
    ("POST", "/fapi/v1/order/test"): Route(_test_order, S, weight=0),
    ("PUT", "/fapi/v1/order"): Route(_amend_order, S),
    ("DELETE", "/fapi/v1/order"): Route(_cancel_order, S),
    ("GET", "/fapi/v1/order"): Route(_get_order, S),
    ("GET", "/fapi/v1/openOrder"): Route(_get_open_order, S),
    ("GET", "/fapi/v1/openOrders"): Route(_open_orders, S),
    ("GET", "/fapi/v1/allOrders"): Route(_all_orders, S, weight=5),
    ("DELETE", "/fapi/v1/allOpenOrders"): Route(_cancel_all, S),
    ("POST", "/fapi/v1/batchOrders"): Route(_new_batch, S, weight=5),
    ("PUT", "/fapi/v1/batchOrders"): Route(_amend_batch, S, weight=5),
    ("DELETE", "/fapi/v1/batchOrders"): Route(_cancel_batch, S),
    ("POST", "/fapi/v1/algoOrder"): Route(_new_algo, S, weight=0),
    ("GET", "/fapi/v1/algoOrder"): Route(_get_algo, S),
    ("DELETE", "/fapi/v1/algoOrder"): Route(_cancel_algo, S),
    ("DELETE", "/fapi/v1/algoOpenOrders"): Route(_cancel_all_algos, S),
    ("GET", "/fapi/v1/openAlgoOrders"): Route(_open_algos, S),
    ("GET", "/fapi/v1/allAlgoOrders"): Route(_all_algos, S, weight=5),
    ("GET", "/fapi/v3/account"): Route(_account, S, weight=5),
    ("GET", "/fapi/v2/account"): Route(_account_v2, S, weight=5),
    ("GET", "/fapi/v3/balance"): Route(_balance, S, weight=5),
    ("GET", "/fapi/v2/balance"): Route(_balance, S, weight=5),
    ("GET", "/fapi/v3/positionRisk"): Route(_position_risk, S, weight=5),
    ("GET", "/fapi/v2/positionRisk"): Route(_position_risk_v2, S, weight=5),
    ("POST", "/fapi/v1/leverage"): Route(_set_leverage, S),
    ("POST", "/fapi/v1/marginType"): Route(_set_margin_type, S),
    ("POST", "/fapi/v1/positionSide/dual"): Route(_set_position_mode, S),
    ("GET", "/fapi/v1/positionSide/dual"): Route(
        lambda c: {"dualSidePosition": c.venue.exchange.state.hedge_mode}, S, weight=30
    ),
    ("GET", "/fapi/v1/multiAssetsMargin"): Route(lambda _: {"multiAssetsMargin": False}, S, weight=30),
    ("GET", "/fapi/v1/symbolConfig"): Route(_symbol_config, S, weight=5),
    ("GET", "/fapi/v1/accountConfig"): Route(_account_config, S, weight=5),
    ("GET", "/fapi/v1/commissionRate"): Route(_commission_rate, S, weight=20),
    ("GET", "/fapi/v1/leverageBracket"): Route(_brackets, S),
    ("GET", "/fapi/v1/userTrades"): Route(_user_trades, S, weight=5),
    ("GET", "/fapi/v1/income"): Route(_income, S, weight=30),
    ("GET", "/fapi/v1/forceOrders"): Route(_nothing, S, weight=20),
    # What a client with keys asks about currencies and spot margin; this venue has neither.
    ("GET", "/sapi/v1/capital/config/getall"): Route(_nothing, S),
    ("GET", "/sapi/v1/margin/allPairs"): Route(_nothing, S),
}

ORDER_PATHS = frozenset({"/fapi/v1/order", "/fapi/v1/algoOrder", "/fapi/v1/batchOrders"})
