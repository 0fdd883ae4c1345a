"""Orders of spot in the venue's words, and in the engine's."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Final

from infra.sandbox.engine.errors import VenueError
from infra.sandbox.engine.model import (
    AlgoOrder,
    AlgoRequest,
    Order,
    OrderRequest,
    OrderType,
    SelfTradePrevention,
    Side,
    TimeInForce,
)
from infra.sandbox.protocol.params import Params, symbol_of


class SpotType(StrEnum):
    """Order types of spot; what waits for a price is an order like any other here."""

    LIMIT = "LIMIT"
    LIMIT_MAKER = "LIMIT_MAKER"
    MARKET = "MARKET"
    STOP_LOSS = "STOP_LOSS"
    STOP_LOSS_LIMIT = "STOP_LOSS_LIMIT"
    TAKE_PROFIT = "TAKE_PROFIT"
    TAKE_PROFIT_LIMIT = "TAKE_PROFIT_LIMIT"


class SpotForce(StrEnum):
    """How long a limit order may wait."""

    GTC = "GTC"
    IOC = "IOC"
    FOK = "FOK"


WAITING: Final = {
    SpotType.STOP_LOSS: OrderType.STOP_MARKET,
    SpotType.STOP_LOSS_LIMIT: OrderType.STOP,
    SpotType.TAKE_PROFIT: OrderType.TAKE_PROFIT_MARKET,
    SpotType.TAKE_PROFIT_LIMIT: OrderType.TAKE_PROFIT,
}
_NAMES: Final = {engine: word for word, engine in WAITING.items()}
_LIMITS: Final = frozenset({SpotType.LIMIT, SpotType.STOP_LOSS_LIMIT, SpotType.TAKE_PROFIT_LIMIT})
_PRICED: Final = _LIMITS | {SpotType.LIMIT_MAKER}
# What the request for an order may say; each parameter that nobody would read is refused, as the live venue does.
# Over a WebSocket ccxt passes its own word for a client's id on beside the venue's.
OF_REQUEST: Final = frozenset({"timestamp", "recvWindow", "signature", "apiKey", "returnRateLimits", "clientOrderId"})
_OF_ORDER: Final = OF_REQUEST | {
    "symbol", "side", "type", "timeInForce", "quantity", "quoteOrderQty", "price", "newClientOrderId", "stopPrice",
    "newOrderRespType", "selfTradePreventionMode", "strategyId", "strategyType", "computeCommissionRates",
}  # fmt: skip
OF_REPLACEMENT: Final = _OF_ORDER | {
    "cancelReplaceMode", "cancelOrderId", "cancelOrigClientOrderId", "cancelNewClientOrderId",
    "cancelRestrictions", "orderRateLimitExceededMode",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Asked:
    """An order as it is asked for: at once or for when a price comes; `money` is what it is to spend or bring in."""

    request: OrderRequest | AlgoRequest
    kind: SpotType
    money: Decimal | None = None


def order_asked(params: Params, *, known: frozenset[str] = _OF_ORDER) -> Asked:
    """
    Read an order.

    Raises:
        VenueError: A word is wrong, a parameter is missing, or one is there that such an order does not have.
    """
    symbol = symbol_of(params)
    side, kind = params.word(Side, "side", -1117), params.word(SpotType, "type", -1116)
    force = params.word(SpotForce, "timeInForce", -1115)
    if side is None or kind is None:
        params.required("side" if side is None else "type")
    assert side is not None
    assert kind is not None
    read = params.values.keys() & known
    if len(read) < len(params.values):
        told = f"read '{len(read)}' parameter(s) but was sent '{len(params.values)}'."
        raise VenueError(-1104, f"Not all sent parameters were read; {told}")
    _check_presence(params, kind)
    quantity, money = params.decimal("quantity"), params.decimal("quoteOrderQty")
    if money is not None and money <= 0:
        raise VenueError(-1013, "Invalid quote order quantity.")
    own_id = params.text("newClientOrderId") or ""
    in_force = TimeInForce(force or SpotForce.GTC)
    if kind in WAITING:
        return Asked(
            AlgoRequest(
                symbol=symbol,
                side=side,
                type=WAITING[kind],
                quantity=quantity or Decimal(0),
                trigger_price=params.decimal("stopPrice"),
                price=params.decimal("price"),
                time_in_force=in_force,
                client_algo_id=own_id,
            ),
            kind,
        )
    request = OrderRequest(
        symbol=symbol,
        side=side,
        type=OrderType.MARKET if kind is SpotType.MARKET else OrderType.LIMIT,
        quantity=quantity or Decimal(0),
        price=params.decimal("price"),
        time_in_force=TimeInForce.GTX if kind is SpotType.LIMIT_MAKER else in_force,
        client_order_id=own_id,
        self_trade_prevention=params.choice(
            SelfTradePrevention, "selfTradePreventionMode", SelfTradePrevention.EXPIRE_MAKER, -1130
        ),
    )
    return Asked(request, kind, money)


def _check_presence(params: Params, kind: SpotType) -> None:
    is_market = kind is SpotType.MARKET
    for name, needed, offered in (
        ("timeInForce", kind in _LIMITS, kind in _LIMITS),
        ("quantity", not is_market, True),
        ("price", kind in _PRICED, kind in _PRICED),
        ("stopPrice", kind in WAITING, kind in WAITING),
        ("quoteOrderQty", False, is_market),
    ):
        if needed:
            params.required(name)
        if not offered and params.text(name) is not None:
            raise VenueError(-1106, f"Parameter '{name}' sent when not required.")
    both = [params.text(name) is not None for name in ("quantity", "quoteOrderQty")]
    if is_market and not any(both):
        raise VenueError(-1102, "Param 'quantity' or 'quoteOrderQty' must be sent, but both were empty/null!")
    if all(both):
        raise VenueError(-1128)


def type_of(one: Order | AlgoOrder) -> SpotType:
    """Return the type that an order was asked for as."""
    kind = one.original_type if isinstance(one, Order) else one.type
    if kind in _NAMES:
        return _NAMES[kind]
    if kind is OrderType.MARKET:
        return SpotType.MARKET
    return SpotType.LIMIT_MAKER if one.time_in_force is TimeInForce.GTX else SpotType.LIMIT


def force_of(one: Order | AlgoOrder) -> str:
    """Return how long an order may wait; one that only rests has the usual word."""
    return TimeInForce.GTC.value if one.time_in_force is TimeInForce.GTX else one.time_in_force.value
