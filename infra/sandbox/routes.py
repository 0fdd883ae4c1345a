"""Which path answers what, who may ask, and what it weighs: contracts here, spot beside them."""

from __future__ import annotations

from typing import Any, Final

from infra.sandbox.handlers import account, conditionals, countdowns, isolated, market, orders
from infra.sandbox.handlers.call import Call, per_symbol
from infra.sandbox.protocol import market_data, open_interest, public_trades
from infra.sandbox.routing import Route, Security
from infra.sandbox.spot import paths
from infra.sandbox.spot.routes import ROUTES as SPOT


def _nothing(call: Call) -> Any:
    del call
    return []


K, S = Security.KEY, Security.SIGNED
CANDLES = ((99, 1), (499, 2), (1000, 5))

FUTURES: Final[dict[tuple[str, str], Route]] = {
    ("GET", "/fapi/v1/ping"): Route(lambda _: {}),
    ("GET", "/fapi/v1/exchangeInfo"): Route(lambda c: market_data.exchange_info(c.venue, c.now_ms)),
    ("GET", "/fapi/v1/klines"): Route(
        lambda c: market_data.klines(c.venue, c.params, c.now_ms), weight=10, weight_up_to=CANDLES
    ),
    ("GET", "/fapi/v1/continuousKlines"): Route(market.continuous_klines, weight=10, weight_up_to=CANDLES),
    ("GET", "/fapi/v1/markPriceKlines"): Route(market.index_klines, weight=10, weight_up_to=CANDLES),
    ("GET", "/fapi/v1/indexPriceKlines"): Route(market.index_klines, weight=10, weight_up_to=CANDLES),
    ("GET", "/fapi/v1/premiumIndexKlines"): Route(market.premium_klines, weight=10, weight_up_to=CANDLES),
    ("GET", "/fapi/v1/ticker/24hr"): Route(per_symbol(market_data.ticker), weight_of_all=40),
    ("GET", "/fapi/v1/ticker/price"): Route(per_symbol(market_data.price_ticker), weight_of_all=2),
    ("GET", "/fapi/v2/ticker/price"): Route(per_symbol(market_data.price_ticker), weight_of_all=2),
    ("GET", "/fapi/v1/ticker/bookTicker"): Route(per_symbol(market_data.book_ticker), weight=2, weight_of_all=5),
    ("GET", "/fapi/v1/depth"): Route(
        lambda c: market_data.depth(c.venue, c.params, c.now_ms), weight=20, weight_up_to=((50, 2), (100, 5), (500, 10))
    ),
    ("GET", "/fapi/v1/aggTrades"): Route(lambda c: public_trades.trades(c.venue, c.params, aggregate=True), weight=20),
    ("GET", "/fapi/v1/trades"): Route(lambda c: public_trades.trades(c.venue, c.params, aggregate=False), weight=5),
    ("GET", "/fapi/v1/historicalTrades"): Route(
        lambda c: public_trades.trades(c.venue, c.params, aggregate=False), K, weight=20
    ),
    ("GET", "/fapi/v1/premiumIndex"): Route(per_symbol(market_data.premium_index)),
    ("GET", "/fapi/v1/fundingRate"): Route(lambda c: market_data.funding_history(c.venue, c.params, c.now_ms)),
    ("GET", "/fapi/v1/fundingInfo"): Route(market.funding_info),
    ("GET", "/fapi/v1/openInterest"): Route(lambda c: open_interest.present(c.venue, c.params, c.now_ms)),
    ("GET", "/futures/data/openInterestHist"): Route(
        lambda c: open_interest.history(c.venue, c.params, c.now_ms), weight=0
    ),
    ("POST", "/fapi/v1/order"): Route(orders.new_order, S, weight=0),
    ("POST", "/fapi/v1/order/test"): Route(orders.test_order, S, weight=0),
    ("PUT", "/fapi/v1/order"): Route(orders.amend_order, S),
    ("DELETE", "/fapi/v1/order"): Route(orders.cancel_order, S),
    ("GET", "/fapi/v1/order"): Route(orders.get_order, S),
    ("GET", "/fapi/v1/openOrder"): Route(orders.get_open_order, S),
    ("GET", "/fapi/v1/openOrders"): Route(orders.open_orders, S, weight_of_all=40),
    ("GET", "/fapi/v1/allOrders"): Route(orders.all_orders, S, weight=5),
    ("POST", "/fapi/v1/countdownCancelAll"): Route(countdowns.set_countdown, S, weight=10),
    ("DELETE", "/fapi/v1/allOpenOrders"): Route(orders.cancel_all, S),
    ("POST", "/fapi/v1/batchOrders"): Route(orders.new_batch, S, weight=5),
    ("PUT", "/fapi/v1/batchOrders"): Route(orders.amend_batch, S, weight=5),
    ("DELETE", "/fapi/v1/batchOrders"): Route(orders.cancel_batch, S),
    ("POST", "/fapi/v1/algoOrder"): Route(conditionals.new_algo, S, weight=0),
    ("GET", "/fapi/v1/algoOrder"): Route(conditionals.get_algo, S),
    ("DELETE", "/fapi/v1/algoOrder"): Route(conditionals.cancel_algo, S),
    ("DELETE", "/fapi/v1/algoOpenOrders"): Route(conditionals.cancel_all_algos, S),
    ("GET", "/fapi/v1/openAlgoOrders"): Route(conditionals.open_algos, S, weight_of_all=40),
    ("GET", "/fapi/v1/allAlgoOrders"): Route(conditionals.all_algos, S, weight=5),
    ("GET", "/fapi/v3/account"): Route(account.account, S, weight=5),
    ("GET", "/fapi/v2/account"): Route(account.account_v2, S, weight=5),
    ("GET", "/fapi/v3/balance"): Route(account.balance, S, weight=5),
    ("GET", "/fapi/v2/balance"): Route(account.balance, S, weight=5),
    ("GET", "/fapi/v3/positionRisk"): Route(account.position_risk, S, weight=5),
    ("GET", "/fapi/v2/positionRisk"): Route(account.position_risk_v2, S, weight=5),
    ("POST", "/fapi/v1/leverage"): Route(account.set_leverage, S),
    ("POST", "/fapi/v1/marginType"): Route(account.set_margin_type, S),
    ("POST", "/fapi/v1/positionSide/dual"): Route(account.set_position_mode, S),
    ("GET", "/fapi/v1/positionSide/dual"): Route(
        lambda c: {"dualSidePosition": c.venue.exchange.state.hedge_mode}, S, weight=30
    ),
    ("GET", "/fapi/v1/multiAssetsMargin"): Route(lambda _: {"multiAssetsMargin": False}, S, weight=30),
    ("GET", "/fapi/v1/symbolConfig"): Route(account.symbol_config, S, weight=5),
    ("GET", "/fapi/v1/accountConfig"): Route(account.account_config, S, weight=5),
    ("GET", "/fapi/v1/commissionRate"): Route(account.commission_rate, S, weight=20),
    ("GET", "/fapi/v1/leverageBracket"): Route(account.brackets, S),
    ("GET", "/fapi/v1/userTrades"): Route(account.user_trades, S, weight=5),
    ("GET", "/fapi/v1/income"): Route(account.income, S, weight=30),
    ("GET", "/fapi/v1/forceOrders"): Route(isolated.force_orders, S, weight=20, weight_of_all=50),
    ("POST", "/fapi/v1/positionMargin"): Route(isolated.move_margin, S),
    ("GET", "/fapi/v1/positionMargin/history"): Route(isolated.margin_history, S),
    ("GET", "/fapi/v1/adlQuantile"): Route(isolated.adl_quantiles, S, weight=5),
    # What a client with keys asks about currencies and spot margin; this venue has neither.
    ("GET", "/sapi/v1/capital/config/getall"): Route(_nothing, S),
    ("GET", "/sapi/v1/margin/allPairs"): Route(_nothing, S),
    ("GET", "/sapi/v1/system/status"): Route(market.system_status),
}

ROUTES: Final = FUTURES | SPOT
ORDER_PATHS: Final = frozenset({"/fapi/v1/order", "/fapi/v1/algoOrder", "/fapi/v1/batchOrders"}) | paths.ORDERS
