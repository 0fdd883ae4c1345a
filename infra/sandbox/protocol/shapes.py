"""Orders, trades, positions and balances as the venue writes them."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from infra.sandbox.engine import margin as margins
from infra.sandbox.engine.book import BookModel
from infra.sandbox.engine.exchange import Exchange
from infra.sandbox.engine.instrument import BRACKETS, Instrument
from infra.sandbox.engine.margin import Margin
from infra.sandbox.engine.model import ZERO, AlgoOrder, Income, Order, OrderStatus, Trade
from infra.sandbox.engine.position import Position

ORDER_TYPES = ["LIMIT", "MARKET", "STOP", "STOP_MARKET", "TAKE_PROFIT", "TAKE_PROFIT_MARKET", "TRAILING_STOP_MARKET"]

MONEY_DECIMALS = 8
_TEN = Decimal("0.0000000001")
# The date on which the venue says that a perpetual contract is delivered: the end of 2100.
NO_DELIVERY_MS = 4133404800000


def text(value: Decimal) -> str:
    """Write a number without an exponent."""
    return f"{value:f}"


def instrument(
    one: Instrument, *, status: str, first_ms: int, delivery_ms: int | None, liquidation_fee: Decimal
) -> dict[str, Any]:
    """One symbol of exchangeInfo."""
    return {
        "symbol": one.symbol,
        "pair": one.symbol,
        "contractType": "PERPETUAL",
        "deliveryDate": NO_DELIVERY_MS if delivery_ms is None else delivery_ms,
        "onboardDate": first_ms,
        "status": status,
        "maintMarginPercent": "2.5000",
        "requiredMarginPercent": "5.0000",
        "baseAsset": one.base,
        "quoteAsset": one.quote,
        "marginAsset": one.quote,
        "pricePrecision": one.price_decimals,
        "quantityPrecision": one.quantity_decimals,
        "baseAssetPrecision": 8,
        "quotePrecision": 8,
        "underlyingType": "COIN",
        "underlyingSubType": ["Layer-1"],
        "settlePlan": 0,
        "triggerProtect": "0.0500",
        "liquidationFee": text(liquidation_fee),
        "marketTakeBound": "0.15",
        "maxMoveOrderLimit": 10000,
        "filters": [
            {
                "filterType": "PRICE_FILTER",
                "minPrice": text(one.tick),
                "maxPrice": text(one.tick * 100_000_000),
                "tickSize": text(one.tick),
            },
            {
                "filterType": "LOT_SIZE",
                "minQty": text(one.step),
                "maxQty": text(one.max_quantity),
                "stepSize": text(one.step),
            },
            {
                "filterType": "MARKET_LOT_SIZE",
                "minQty": text(one.step),
                "maxQty": text(one.max_market_quantity),
                "stepSize": text(one.step),
            },
            {"filterType": "MAX_NUM_ORDERS", "limit": 200},
            {"filterType": "MAX_NUM_ALGO_ORDERS", "limit": 10},
            {"filterType": "MIN_NOTIONAL", "notional": text(one.min_notional)},
            {
                "filterType": "PERCENT_PRICE",
                "multiplierUp": "1.1500",
                "multiplierDown": "0.8500",
                "multiplierDecimal": "4",
            },
        ],
        "orderTypes": ORDER_TYPES,
        "timeInForce": ["GTC", "IOC", "FOK", "GTX", "GTD"],
    }


def order(one: Order, *, acknowledge_only: bool = False) -> dict[str, Any]:
    """A plain order; an acknowledgement shows it as it arrived."""
    filled = ZERO if acknowledge_only else one.filled
    notional = ZERO if acknowledge_only else one.filled_notional
    # The words are texts already; asking each for its value takes several times as long.
    return {
        "orderId": one.order_id,
        "symbol": one.symbol,
        "status": OrderStatus.NEW.value if acknowledge_only else str(one.status),
        "clientOrderId": one.client_order_id,
        "price": text(one.price),
        "avgPrice": text(ZERO if acknowledge_only else one.average_price.quantize(_TEN)),
        "origQty": text(one.quantity),
        "executedQty": text(filled),
        "cumQty": text(filled),
        "cumQuote": text(notional),
        "timeInForce": str(one.time_in_force),
        "type": str(one.type),
        "reduceOnly": one.reduce_only,
        "closePosition": one.close_position,
        "side": str(one.side),
        "positionSide": str(one.position_side),
        "stopPrice": text(one.stop_price),
        "workingType": str(one.working_type),
        "priceProtect": one.price_protect,
        "origType": str(one.original_type),
        "priceMatch": str(one.price_match),
        "selfTradePreventionMode": str(one.self_trade_prevention),
        "goodTillDate": one.good_till_ms,
        "time": one.created_ms,
        "updateTime": one.updated_ms,
    }


def algo(one: AlgoOrder, child: Order | None = None) -> dict[str, Any]:
    """A conditional order; once triggered it names the order it sent."""
    shape: dict[str, Any] = {
        "algoId": one.algo_id,
        "clientAlgoId": one.client_algo_id,
        "algoType": "CONDITIONAL",
        "orderType": one.type.value,
        "symbol": one.symbol,
        "side": one.side.value,
        "positionSide": one.position_side.value,
        "timeInForce": one.time_in_force.value,
        "quantity": text(one.quantity),
        "algoStatus": one.status.value,
        "actualOrderId": str(one.order_id) if one.order_id else "",
        "actualPrice": text(child.average_price.quantize(_TEN)) if child else "0.00000",
        "actualQty": text(child.filled) if child else "0",
        "actualType": child.type.value if child else "",
        "triggerPrice": text(one.trigger_price),
        "price": text(one.price),
        "icebergQuantity": None,
        "selfTradePreventionMode": "EXPIRE_MAKER",
        "workingType": one.working_type.value,
        "priceMatch": str(one.price_match),
        "closePosition": one.close_position,
        "priceProtect": one.price_protect,
        "reduceOnly": one.reduce_only,
        "createTime": one.created_ms,
        "updateTime": one.updated_ms,
        "triggerTime": one.triggered_ms,
        "goodTillDate": one.good_till_ms,
    }
    if one.callback_rate is not None:
        shape["callbackRate"] = text(one.callback_rate)
        shape["activatePrice"] = text(one.activate_price) if one.activate_price is not None else None
    return shape


def trade(one: Trade) -> dict[str, Any]:
    """One of the account's fills."""
    return {
        "symbol": one.symbol,
        "id": one.trade_id,
        "orderId": one.order_id,
        "side": one.side.value,
        "price": text(one.price),
        "qty": text(one.quantity),
        "realizedPnl": text(one.realized_pnl),
        "quoteQty": text(one.notional),
        "commission": text(one.fee),
        "commissionAsset": "USDT",
        "time": one.time_ms,
        "positionSide": one.position_side.value,
        "buyer": one.side.sign > 0,
        "maker": one.is_maker,
    }


def income(one: Income) -> dict[str, Any]:
    """One movement of the wallet."""
    return {
        "symbol": one.symbol,
        "incomeType": one.kind,
        "income": text(one.amount),
        "asset": "USDT",
        "info": one.info or one.kind,
        "time": one.time_ms,
        "tranId": one.income_id,
        "tradeId": str(one.trade_id) if one.trade_id else "",
    }


def position_risk(exchange: Exchange, one: Position, account: Margin) -> dict[str, Any]:
    """One row of positionRisk v3."""
    state = exchange.state
    mark = margins.mark_of(state, one.symbol)
    initial = margins.initial_margin(state, one)
    orders = margins.order_margin(state, one.symbol, exchange.open_orders(one.symbol))
    own = one.isolated_wallet + one.unrealized(mark) if one.symbol in state.isolated else ZERO
    return {
        "symbol": one.symbol,
        "positionSide": one.position_side.value,
        "positionAmt": text(one.quantity),
        "entryPrice": f"{one.entry_price:.10f}",
        "breakEvenPrice": f"{one.entry_price:.10f}",
        "markPrice": text(mark),
        "unRealizedProfit": text(one.unrealized(mark)),
        "liquidationPrice": f"{margins.liquidation_price(state, one, account):.8f}",
        "isolatedMargin": text(own),
        "notional": text(one.quantity * mark),
        "marginAsset": "USDT",
        "isolatedWallet": text(one.isolated_wallet),
        "initialMargin": text(initial + orders),
        "maintMargin": text(margins.maintenance_margin(one, mark)),
        "positionInitialMargin": text(initial),
        "openOrderInitialMargin": text(orders),
        "adl": margins.adl_quantile(state, one),
        "bidNotional": "0",
        "askNotional": "0",
        "updateTime": one.updated_ms,
    }


def asset(account: Margin, now_ms: int) -> dict[str, Any]:
    """The one asset of account v3."""
    return {
        "asset": "USDT",
        "walletBalance": text(account.wallet),
        "unrealizedProfit": text(account.unrealized),
        "marginBalance": text(account.balance),
        "maintMargin": text(account.maintenance),
        "initialMargin": text(account.initial),
        "positionInitialMargin": text(account.position_initial),
        "openOrderInitialMargin": text(account.order_initial),
        "crossWalletBalance": text(account.cross_wallet),
        "crossUnPnl": text(account.cross_unrealized),
        "availableBalance": text(account.available),
        "maxWithdrawAmount": text(account.available),
        "marginAvailable": True,
        "updateTime": now_ms,
    }


def account_v3(exchange: Exchange, now_ms: int) -> dict[str, Any]:
    """The account with its open positions."""
    account = exchange.margin()
    return {
        "totalInitialMargin": text(account.initial),
        "totalMaintMargin": text(account.maintenance),
        "totalWalletBalance": text(account.wallet),
        "totalUnrealizedProfit": text(account.unrealized),
        "totalMarginBalance": text(account.balance),
        "totalPositionInitialMargin": text(account.position_initial),
        "totalOpenOrderInitialMargin": text(account.order_initial),
        "totalCrossWalletBalance": text(account.cross_wallet),
        "totalCrossUnPnl": text(account.cross_unrealized),
        "availableBalance": text(account.available),
        "maxWithdrawAmount": text(account.available),
        "feeTier": 0,
        "canTrade": True,
        "canDeposit": False,
        "canWithdraw": False,
        "multiAssetsMargin": False,
        "updateTime": now_ms,
        "assets": [asset(account, now_ms)],
        "positions": [_account_position(exchange, one) for one in exchange.state.open_positions()],
    }


def _account_position(exchange: Exchange, one: Position) -> dict[str, Any]:
    state = exchange.state
    mark = margins.mark_of(state, one.symbol)
    initial = margins.initial_margin(state, one)
    isolated = one.symbol in state.isolated
    return {
        "symbol": one.symbol,
        "positionSide": one.position_side.value,
        "positionAmt": text(one.quantity),
        "entryPrice": f"{one.entry_price:.10f}",
        "leverage": str(state.leverage_of(one.symbol)),
        "isolated": isolated,
        "unrealizedProfit": text(one.unrealized(mark)),
        "isolatedMargin": text(one.isolated_wallet + one.unrealized(mark) if isolated else ZERO),
        "isolatedWallet": text(one.isolated_wallet),
        "notional": text(one.quantity * mark),
        "initialMargin": text(initial),
        "positionInitialMargin": text(initial),
        "openOrderInitialMargin": "0",
        "maintMargin": text(margins.maintenance_margin(one, mark)),
        "updateTime": one.updated_ms,
    }


def brackets(symbol: str) -> dict[str, Any]:
    """Leverage tiers of a symbol."""
    return {
        "symbol": symbol,
        "notionalCoef": 1.0,
        "brackets": [
            {
                "bracket": number,
                "initialLeverage": tier.initial_leverage,
                "notionalCap": int(tier.notional_cap),
                "notionalFloor": int(tier.notional_floor),
                "maintMarginRatio": float(tier.maintenance_rate),
                "cum": float(tier.cumulative),
            }
            for number, tier in enumerate(BRACKETS, start=1)
        ],
    }


def book_sides(model: BookModel, one: Instrument, last: Decimal, limit: int) -> tuple[list[list[str]], list[list[str]]]:
    """Bids and asks as the venue writes them."""
    bids, asks = model.depth(one, last, limit)
    return [[text(p), text(q)] for p, q in bids], [[text(p), text(q)] for p, q in asks]
