"""Which path of spot answers what."""

from __future__ import annotations

from typing import Any, Final

from infra.sandbox.handlers.call import Call
from infra.sandbox.routing import Route, Security
from infra.sandbox.spot import account, market, order_lists, orders

K, S = Security.KEY, Security.SIGNED


def _nothing(call: Call) -> Any:
    del call
    return []


ROUTES: Final[dict[tuple[str, str], Route]] = {
    ("GET", "/api/v3/ping"): Route(market.ping),
    ("GET", "/api/v3/exchangeInfo"): Route(market.exchange_info, weight=20),
    ("GET", "/api/v3/klines"): Route(market.klines, weight=2),
    ("GET", "/api/v3/uiKlines"): Route(market.klines, weight=2),
    ("GET", "/api/v3/avgPrice"): Route(market.average_price, weight=2),
    ("GET", "/api/v3/depth"): Route(market.depth, weight=50, weight_up_to=((100, 5), (500, 25), (1_000, 50))),
    ("GET", "/api/v3/trades"): Route(market.trades, weight=25),
    ("GET", "/api/v3/historicalTrades"): Route(market.trades, K, weight=25),
    ("GET", "/api/v3/aggTrades"): Route(market.aggregate_trades, weight=4),
    ("GET", "/api/v3/ticker"): Route(market.rolling, weight=4),
    ("GET", "/api/v3/ticker/24hr"): Route(market.each(market.ticker), weight=2),
    ("GET", "/api/v3/ticker/price"): Route(market.each(market.price), weight=2),
    ("GET", "/api/v3/ticker/bookTicker"): Route(market.each(market.best), weight=2),
    ("POST", "/api/v3/order"): Route(orders.new_order, S),
    ("POST", "/api/v3/order/test"): Route(orders.test_order, S),
    ("POST", "/api/v3/order/cancelReplace"): Route(orders.replace_order, S),
    ("GET", "/api/v3/order"): Route(orders.get_order, S, weight=4),
    ("DELETE", "/api/v3/order"): Route(orders.cancel_order, S),
    ("GET", "/api/v3/openOrders"): Route(orders.open_orders, S, weight=6),
    ("DELETE", "/api/v3/openOrders"): Route(orders.cancel_all, S),
    ("GET", "/api/v3/allOrders"): Route(orders.all_orders, S, weight=20),
    ("POST", "/api/v3/orderList/oco"): Route(order_lists.new_pair, S),
    ("GET", "/api/v3/orderList"): Route(order_lists.get_pair, S, weight=4),
    ("DELETE", "/api/v3/orderList"): Route(order_lists.cancel_pair, S),
    ("GET", "/api/v3/openOrderList"): Route(order_lists.open_pairs, S, weight=6),
    ("GET", "/api/v3/allOrderList"): Route(order_lists.all_pairs, S, weight=20),
    ("GET", "/api/v3/account"): Route(account.account, S, weight=20),
    ("GET", "/api/v3/account/commission"): Route(account.commission, S, weight=20),
    ("GET", "/api/v3/myTrades"): Route(account.my_trades, S, weight=20),
    # What clients with keys ask beside it; of margin, and of contracts on coins, this venue has none.
    ("GET", "/sapi/v1/asset/tradeFee"): Route(account.trade_fee, S),
    ("GET", "/sapi/v1/margin/isolated/allPairs"): Route(_nothing, S),
    ("GET", "/dapi/v1/exchangeInfo"): Route(lambda _: {"symbols": []}),
}
