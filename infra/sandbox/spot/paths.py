"""Which paths of spot are orders and cancellations."""

from __future__ import annotations

from typing import Final

PREFIX: Final = "/api/v3/"
ORDERS: Final = frozenset({"/api/v3/order", "/api/v3/order/cancelReplace", "/api/v3/orderList/oco"})
CANCELS: Final = frozenset({"/api/v3/order", "/api/v3/openOrders", "/api/v3/orderList"})
TIME: Final = "/api/v3/time"
