"""Which path answers what."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from infra.sandbox.bitfinex import collateral, market, orders, reading
from infra.sandbox.bitfinex.call import Call

SUBMITS: Final = frozenset({"/v2/auth/w/order/submit", "/v2/auth/w/order/update", "/v2/auth/w/order/multi"})
CANCELS: Final = frozenset({"/v2/auth/w/order/cancel", "/v2/auth/w/order/cancel/multi"})


@dataclass(frozen=True, slots=True)
class Route:
    """A handler and what stands in its path."""

    method: str
    pattern: re.Pattern[str]
    handler: Callable[[Call], Any]

    @property
    def is_private(self) -> bool:
        """Whether it must be signed."""
        return self.method == "POST"


def _route(method: str, path: str, handler: Callable[[Call], Any]) -> Route:
    return Route(method, re.compile("/v2/" + path), handler)


_SYMBOL = "([^/]+)"
_ROUTES: Final = (
    _route("GET", "platform/status", market.platform_status),
    _route("GET", "conf/(.+)", market.configuration),
    _route("GET", "tickers", market.tickers),
    _route("GET", f"ticker/{_SYMBOL}", market.ticker),
    _route("GET", "candles/trade:([^:/]+):([^/]+)/(hist|last)", market.candles),
    _route("GET", f"book/{_SYMBOL}/([^/]+)", market.book),
    _route("GET", f"trades/{_SYMBOL}/hist", market.trades),
    _route("GET", "status/deriv", market.derivatives),
    _route("POST", "auth/w/order/submit", orders.submit),
    _route("POST", "auth/w/order/update", orders.update),
    _route("POST", "auth/w/order/cancel", orders.cancel),
    _route("POST", "auth/w/order/cancel/multi", orders.cancel_many),
    _route("POST", "auth/w/order/multi", orders.many),
    _route("POST", "auth/w/deriv/collateral/set", collateral.set_collateral),
    _route("POST", "auth/r/orders/hist", reading.past_orders),
    _route("POST", f"auth/r/orders/{_SYMBOL}/hist", reading.past_orders),
    _route("POST", "auth/r/orders", reading.active_orders),
    _route("POST", f"auth/r/orders/{_SYMBOL}", reading.active_orders),
    _route("POST", "auth/r/order/([^/]+):([0-9]+)/trades", reading.trades_of_order),
    _route("POST", "auth/r/trades/hist", reading.trades),
    _route("POST", f"auth/r/trades/{_SYMBOL}/hist", reading.trades),
    _route("POST", "auth/r/ledgers/hist", reading.ledgers),
    _route("POST", f"auth/r/ledgers/{_SYMBOL}/hist", reading.ledgers),
    _route("POST", "auth/r/wallets", reading.wallets),
    _route("POST", "auth/r/positions", reading.positions),
)


def route_for(method: str, path: str) -> tuple[Route, tuple[str, ...]] | None:
    """Return the route of a path and what stands in it; None where there is none."""
    for route in _ROUTES:
        found = route.pattern.fullmatch(path) if route.method == method else None
        if found is not None:
            return route, found.groups()
    return None
