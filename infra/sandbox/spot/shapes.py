"""Instruments, orders, executions and balances as spot writes them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from infra.sandbox.engine.instrument import Instrument
from infra.sandbox.engine.model import ZERO, AlgoOrder, AlgoStatus, Order, Side, Trade
from infra.sandbox.engine.spot import SpotExchange
from infra.sandbox.engine.spot_checks import HIGHEST, LOWEST, MAX_NOTIONAL, MAX_OPEN_ALGOS, MAX_OPEN_ORDERS
from infra.sandbox.engine.spot_ledger import client_id, number
from infra.sandbox.engine.spot_state import Pair
from infra.sandbox.protocol.shapes import text
from infra.sandbox.spot.words import SpotType, force_of, type_of

NO_LIST = -1
_PREVENTIONS = ["EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH"]
_STATUS = {AlgoStatus.NEW: "NEW", AlgoStatus.CANCELED: "CANCELED"}
Row = dict[str, Any]


def instrument(lot: Instrument, *, status: str) -> Row:
    """One symbol of exchangeInfo."""
    return {
        "symbol": lot.symbol,
        "status": status,
        "baseAsset": lot.base,
        "baseAssetPrecision": 8,
        "quoteAsset": lot.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": [one.value for one in SpotType],
        "icebergAllowed": False,
        "ocoAllowed": True,
        "otoAllowed": False,
        "opoAllowed": False,
        "quoteOrderQtyMarketAllowed": True,
        "allowTrailingStop": False,
        "cancelReplaceAllowed": True,
        "amendAllowed": False,
        "pegInstructionsAllowed": False,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": _filters(lot),
        "permissions": [],
        "permissionSets": [["SPOT"]],
        "defaultSelfTradePreventionMode": "EXPIRE_MAKER",
        "allowedSelfTradePreventionModes": ["NONE", *_PREVENTIONS],
    }


def _filters(lot: Instrument) -> list[Row]:
    tick, step = text(lot.tick), text(lot.step)
    return [
        {
            "filterType": "PRICE_FILTER",
            "minPrice": tick,
            "maxPrice": text(lot.tick * 100_000_000),
            "tickSize": tick,
        },
        {"filterType": "LOT_SIZE", "minQty": step, "maxQty": text(lot.max_quantity), "stepSize": step},
        {
            "filterType": "MARKET_LOT_SIZE",
            "minQty": "0.00000000",
            "maxQty": text(lot.max_market_quantity),
            "stepSize": "0.00000000",
        },
        {
            "filterType": "PERCENT_PRICE_BY_SIDE",
            "bidMultiplierUp": text(HIGHEST),
            "bidMultiplierDown": text(LOWEST),
            "askMultiplierUp": text(HIGHEST),
            "askMultiplierDown": text(LOWEST),
            # Measured from the last price.
            "avgPriceMins": 0,
        },
        {
            "filterType": "NOTIONAL",
            "minNotional": text(lot.min_notional),
            "applyMinToMarket": True,
            "maxNotional": text(MAX_NOTIONAL),
            "applyMaxToMarket": False,
            "avgPriceMins": 0,
        },
        {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": MAX_OPEN_ORDERS},
        {"filterType": "MAX_NUM_ALGO_ORDERS", "maxNumAlgoOrders": MAX_OPEN_ALGOS},
    ]


def list_of(spot: SpotExchange, order_id: int) -> int:
    """Return the number of the list that an order is in; minus one where it is in none."""
    return spot.state.pair_of.get(order_id, NO_LIST)


def pair(spot: SpotExchange, one: Pair, now_ms: int | None = None) -> Row:
    """Return a list of two orders."""
    found = [spot.find(one.symbol, order_id=number_) for number_ in one.numbers]
    return {
        "orderListId": one.list_id,
        "contingencyType": "OCO",
        "listStatusType": "EXEC_STARTED" if one.is_open else "ALL_DONE",
        "listOrderStatus": "EXECUTING" if one.is_open else "ALL_DONE",
        "listClientOrderId": one.client_list_id,
        "transactionTime": one.updated_ms if now_ms is None else now_ms,
        "symbol": one.symbol,
        "orders": [{"symbol": one.symbol, "orderId": number(each), "clientOrderId": client_id(each)} for each in found],
    }


def status_of(one: Order | AlgoOrder) -> str:
    """Return where an order is in its life."""
    return one.status.value if isinstance(one, Order) else _STATUS.get(one.status, "EXPIRED")


def order(spot: SpotExchange, one: Order | AlgoOrder) -> Row:
    """Return an order as it is asked for by number."""
    own, is_plain = number(one), isinstance(one, Order)
    works = is_plain
    row: Row = {
        "symbol": one.symbol,
        "orderId": own,
        "orderListId": list_of(spot, own),
        "clientOrderId": client_id(one),
        "price": text(one.price),
        "origQty": text(one.quantity),
        "executedQty": text(one.filled if isinstance(one, Order) else ZERO),
        "origQuoteOrderQty": text(spot.state.quote_quantities.get(own, ZERO)),
        "cummulativeQuoteQty": text(one.filled_notional if isinstance(one, Order) else ZERO),
        "status": status_of(one),
        "timeInForce": force_of(one),
        "type": type_of(one).value,
        "side": one.side.value,
        "stopPrice": text(one.stop_price if isinstance(one, Order) else one.trigger_price),
        "icebergQty": "0",
        "time": one.created_ms,
        "updateTime": one.updated_ms,
        "isWorking": works,
        "workingTime": worked_since(spot, one),
        "selfTradePreventionMode": (one.self_trade_prevention.value if isinstance(one, Order) else "EXPIRE_MAKER"),
    }
    return row


def worked_since(spot: SpotExchange, one: Order | AlgoOrder) -> int:
    """Return since when an order is in the book; minus one where it still waits for its price."""
    if not isinstance(one, Order):
        return -1
    return spot.state.algos[one.algo_id].triggered_ms if one.algo_id else one.created_ms


def answered(spot: SpotExchange, one: Order | AlgoOrder, kind: str, now_ms: int) -> Row:
    """Return the answer to a new order: ACK, RESULT or FULL."""
    told: Row = {
        "symbol": one.symbol,
        "orderId": number(one),
        "orderListId": list_of(spot, number(one)),
        "clientOrderId": client_id(one),
        "transactTime": now_ms,
    }
    if kind == "ACK":
        return told
    told |= _of_end(spot, one)
    if kind == "FULL":
        told["fills"] = [fill(spot, one) for one in trades_of(spot, number(one))]
    return told


def cancelled(spot: SpotExchange, one: Order | AlgoOrder, now_ms: int, own_id: str = "") -> Row:
    """Return the answer to a cancellation; `own_id` is the client's name of it."""
    return {
        "symbol": one.symbol,
        "origClientOrderId": client_id(one),
        "orderId": number(one),
        "orderListId": list_of(spot, number(one)),
        "clientOrderId": own_id or f"cancel{number(one)}",
        "transactTime": now_ms,
    } | _of_end(spot, one)


def _of_end(spot: SpotExchange, one: Order | AlgoOrder) -> Row:
    row = order(spot, one)
    kept = (
        "price", "origQty", "executedQty", "origQuoteOrderQty", "cummulativeQuoteQty", "status", "timeInForce", "type",
        "side", "workingTime", "selfTradePreventionMode",
    )  # fmt: skip
    told = {name: row[name] for name in kept}
    return told if row["stopPrice"] == "0" else told | {"stopPrice": row["stopPrice"]}


def trades_of(spot: SpotExchange, order_id: int) -> list[Trade]:
    """Return the executions of an order; those of the newest are found at once."""
    found: list[Trade] = []
    wanted = spot.state.orders.get(order_id)
    since = wanted.created_ms if wanted is not None else 0
    for one in reversed(spot.state.trades):
        if one.time_ms < since:
            break
        if one.order_id == order_id:
            found.append(one)
    return found[::-1]


def commission_asset(spot: SpotExchange, one: Trade) -> str:
    """Return the asset in which a commission was taken: what was received."""
    instrument_ = spot.instruments[one.symbol]
    return instrument_.base if one.side is Side.BUY else instrument_.quote


def fill(spot: SpotExchange, one: Trade) -> Row:
    """Return an execution in the answer to its order."""
    return {
        "price": text(one.price),
        "qty": text(one.quantity),
        "commission": text(one.fee),
        "commissionAsset": commission_asset(spot, one),
        "tradeId": one.trade_id,
    }


def trade(spot: SpotExchange, one: Trade) -> Row:
    """Return an execution of the account."""
    return {
        "symbol": one.symbol,
        "id": one.trade_id,
        "orderId": one.order_id,
        "orderListId": list_of(spot, one.order_id),
        "price": text(one.price),
        "qty": text(one.quantity),
        "quoteQty": text(one.notional),
        "commission": text(one.fee),
        "commissionAsset": commission_asset(spot, one),
        "time": one.time_ms,
        "isBuyer": one.side is Side.BUY,
        "isMaker": one.is_maker,
        "isBestMatch": True,
    }


def balances(spot: SpotExchange, assets: Iterable[str]) -> list[Row]:
    """Return what there is of assets: free, and locked by open orders."""
    return [{"asset": one, "free": text(spot.free(one)), "locked": text(spot.locked(one))} for one in assets]
