"""Request parameters, parsed once at the edge."""

from __future__ import annotations

import re
from contextlib import suppress
from decimal import Decimal
from enum import StrEnum
from functools import cache
from typing import Final, TypeVar
from urllib.parse import parse_qsl

from infra.sandbox.engine.errors import VenueError
from infra.sandbox.engine.model import (
    AlgoRequest,
    OrderRequest,
    OrderType,
    PositionSide,
    PriceMatch,
    SelfTradePrevention,
    Side,
    TimeInForce,
    WorkingType,
)

E = TypeVar("E", bound=StrEnum)
_WHOLE: Final = re.compile(r"-?[0-9]{1,18}")
_NUMBER: Final = re.compile(r"[+-]?([0-9]{1,30}(\.[0-9]{0,30})?|\.[0-9]{1,30})([eE][+-]?[0-9]{1,2})?")
_WHOLE_DIGITS: Final = 12
_DECIMALS: Final = 16
_PRICED: Final = frozenset({OrderType.LIMIT, OrderType.STOP, OrderType.TAKE_PROFIT})


def form_values(raw: str) -> dict[str, str]:
    """Return the parameters of a query or a form by name, blank ones too; of a name that comes twice, the last."""
    if not raw:
        return {}
    if "%" not in raw and "+" not in raw:
        # Nothing to decode, as clients write orders; what is no pair of a name and a value is left to the library.
        with suppress(ValueError):
            return dict([one.split("=", 1) for one in raw.split("&")])
    return dict(parse_qsl(raw, keep_blank_values=True))


class Params:
    """The query and form parameters of one request."""

    def __init__(self, values: dict[str, str]) -> None:
        self.values = values

    def text(self, name: str) -> str | None:
        """Return a parameter, None when it is absent or empty."""
        return self.values.get(name) or None

    def required(self, name: str) -> str:
        """Return a parameter that must be there."""
        value = self.text(name)
        if value is None:
            raise VenueError(-1102, f"Mandatory parameter '{name.lower()}' was not sent, was empty/null, or malformed.")
        return value

    def integer(self, name: str, default: int | None = None) -> int | None:
        """Return a whole number."""
        value = self.values.get(name)
        if not value:
            return default
        if not _WHOLE.fullmatch(value):
            raise VenueError(-1130, f"Data sent for parameter '{name}' is not valid.")
        return int(value)

    def limit(self, default: int, maximum: int) -> int:
        """Return how many rows are wanted."""
        value = self.integer("limit", default) or default
        if not 1 <= value <= maximum:
            raise VenueError(-1130, "Data sent for parameter 'limit' is not valid.")
        return value

    def decimal(self, name: str) -> Decimal | None:
        """Return an exact number."""
        value = self.text(name)
        if value is None:
            return None
        if not _NUMBER.fullmatch(value):
            raise VenueError(-1100, f"Illegal characters found in parameter '{name}'.")
        number = Decimal(value)
        exponent = number.as_tuple().exponent
        # Nothing that is traded here needs more digits, and arithmetic on more would no longer be exact.
        if number.adjusted() >= _WHOLE_DIGITS or not isinstance(exponent, int) or exponent < -_DECIMALS:
            raise VenueError(-1111)
        return number

    def flag(self, name: str) -> bool:
        """Return a boolean that is false when absent."""
        value = self.values.get(name)
        return value is not None and value.lower() == "true"

    def word(self, kind: type[E], name: str, code: int) -> E | None:
        """Return one of the words of an enumeration, None when it is absent or empty."""
        value = self.values.get(name)
        if not value:
            return None
        found: E | None = _by_value(kind).get(value)
        if found is None:
            raise VenueError(code)
        return found

    def choice(self, kind: type[E], name: str, default: E | None, code: int) -> E:
        """Return one of the words of an enumeration, which must be there where there is no default."""
        found = self.word(kind, name, code)
        if found is not None:
            return found
        if default is None:
            self.required(name)
        assert default is not None
        return default


@cache
def _by_value(kind: type[E]) -> dict[str, E]:
    # An enumeration asked by a value takes several times as long as a table.
    return {one.value: one for one in kind}


def symbol_of(params: Params) -> str:
    """Return the symbol a request must name."""
    return params.required("symbol").upper()


def _words(params: Params) -> tuple[Side, OrderType, TimeInForce]:
    # A word that is wrong is told before one that is missing.
    side, kind = params.word(Side, "side", -1117), params.word(OrderType, "type", -1116)
    time_in_force = params.word(TimeInForce, "timeInForce", -1115)
    if side is None or kind is None:
        params.required("side" if side is None else "type")
    assert side is not None
    assert kind is not None
    return side, kind, time_in_force or TimeInForce.GTC


def _good_till(params: Params) -> int:
    # The venue keeps seconds and ignores the rest.
    return (params.integer("goodTillDate") or 0) // 1000 * 1000


def price_match(params: Params, kind: OrderType) -> PriceMatch:
    """Return whose price an order takes over; one that does must be of a kind with a price, and bring none."""
    match = params.word(PriceMatch, "priceMatch", -5037) or PriceMatch.NONE
    if match is PriceMatch.NONE:
        return match
    if kind not in _PRICED:
        raise VenueError(-5038)
    if params.text("price") is not None:
        raise VenueError(-1106, "Parameter 'price' sent when not required.")
    return match


def order_request(params: Params) -> OrderRequest:
    """Read a plain order."""
    symbol = symbol_of(params)
    side, kind, time_in_force = _words(params)
    if kind is OrderType.LIMIT:
        params.required("timeInForce")
    if kind in {OrderType.LIMIT, OrderType.MARKET}:
        params.required("quantity")
    match = price_match(params, kind)
    if kind is OrderType.LIMIT and match is PriceMatch.NONE:
        params.required("price")
    if params.flag("closePosition"):
        raise VenueError(-4136)
    return OrderRequest(
        symbol=symbol,
        side=side,
        type=kind,
        quantity=params.decimal("quantity") or Decimal(0),
        price=params.decimal("price") if kind is not OrderType.MARKET else None,
        time_in_force=time_in_force,
        reduce_only=params.flag("reduceOnly"),
        position_side=params.choice(PositionSide, "positionSide", PositionSide.BOTH, -4061),
        client_order_id=params.text("newClientOrderId") or "",
        good_till_ms=_good_till(params),
        self_trade_prevention=params.choice(
            SelfTradePrevention, "selfTradePreventionMode", SelfTradePrevention.EXPIRE_MAKER, -5039
        ),
        price_match=match,
    )


def algo_request(params: Params) -> AlgoRequest:
    """Read a conditional order."""
    if (params.text("algoType") or "CONDITIONAL") != "CONDITIONAL":
        raise VenueError(-1130, "Data sent for parameter 'algoType' is not valid, expected CONDITIONAL.")
    symbol = symbol_of(params)
    side, kind, time_in_force = _words(params)
    close_position = params.flag("closePosition")
    quantity = params.decimal("quantity")
    if quantity is None and not close_position:
        params.required("quantity")
    return AlgoRequest(
        symbol=symbol,
        side=side,
        type=kind,
        quantity=quantity or Decimal(0),
        trigger_price=params.decimal("triggerPrice") or params.decimal("stopPrice"),
        price=params.decimal("price"),
        time_in_force=time_in_force,
        reduce_only=params.flag("reduceOnly"),
        close_position=close_position,
        position_side=params.choice(PositionSide, "positionSide", PositionSide.BOTH, -4061),
        working_type=params.choice(WorkingType, "workingType", WorkingType.CONTRACT_PRICE, -1130),
        callback_rate=params.decimal("callbackRate"),
        activate_price=params.decimal("activatePrice") or params.decimal("activationPrice"),
        client_algo_id=params.text("clientAlgoId") or params.text("newClientOrderId") or "",
        good_till_ms=_good_till(params),
        price_protect=params.flag("priceProtect"),
        price_match=price_match(params, kind),
    )
