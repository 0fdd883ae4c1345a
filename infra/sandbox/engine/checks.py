"""What the venue refuses before an order exists, in the venue's order of checks."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

from infra.sandbox.engine.errors import VenueError
from infra.sandbox.engine.instrument import Instrument
from infra.sandbox.engine.model import (
    CONDITIONAL,
    TARGETS,
    ZERO,
    AlgoRequest,
    OrderRequest,
    OrderType,
    PositionSide,
    PriceMatch,
    Side,
    TimeInForce,
)

MAX_OPEN_ORDERS: Final = 200
MAX_OPEN_ALGOS: Final = 10
PRICE_BAND: Final = Decimal("0.15")
SHORTEST_GTD_MS: Final = 600_000
LAST_GTD_MS: Final = 253_402_300_799_000
_CLIENT_ID: Final = re.compile(r"[.A-Z:/a-z0-9_-]{1,36}")


def check_client_id(client_id: str) -> None:
    """Refuse a client id the venue could not echo."""
    if client_id and not _CLIENT_ID.fullmatch(client_id):
        raise VenueError(-4015)


def check_quantity(instrument: Instrument, quantity: Decimal, *, is_market: bool) -> None:
    """Refuse a quantity off its step or out of its range."""
    if quantity <= ZERO:
        raise VenueError(-4003, "Quantity less than or equal to zero.")
    if quantity % instrument.step:
        raise VenueError(-1111)
    if quantity > (instrument.max_market_quantity if is_market else instrument.max_quantity):
        raise VenueError(-4005)


def check_price(instrument: Instrument, price: Decimal) -> None:
    """Refuse a price off its tick."""
    if price <= ZERO:
        raise VenueError(-4014, "Price less than or equal to zero.")
    if price % instrument.tick:
        raise VenueError(-1111 if price.normalize().as_tuple().exponent < -8 else -4014)  # type: ignore[operator]


def check_band(price: Decimal, mark: Decimal) -> None:
    """Refuse a limit price too far from the mark price."""
    if price > mark * (1 + PRICE_BAND):
        raise VenueError(-4016, f"Limit price can't be higher than {mark * (1 + PRICE_BAND):f}.")
    if price < mark * (1 - PRICE_BAND):
        raise VenueError(-4024, f"Limit price can't be lower than {mark * (1 - PRICE_BAND):f}.")


def check_notional(instrument: Instrument, notional: Decimal) -> None:
    """Refuse an order too small to matter."""
    if notional < instrument.min_notional:
        raise VenueError(
            -4164,
            f"Order's notional must be no smaller than {instrument.min_notional} (unless you choose reduce only).",
        )


def check_position_side(position_side: PositionSide, *, hedge_mode: bool, reduce_only: bool) -> None:
    """Refuse a position side that the account's mode does not know."""
    if hedge_mode == (position_side is PositionSide.BOTH):
        raise VenueError(-4061)
    if hedge_mode and reduce_only:
        raise VenueError(-1106, "Parameter 'reduceonly' sent when not required.")


def check_order(request: OrderRequest, instrument: Instrument, *, mark: Decimal, hedge_mode: bool) -> None:
    """Check what needs only the request, the instrument and the mark price."""
    is_market = request.type is OrderType.MARKET
    if request.type is OrderType.LIMIT and request.price is None:
        raise VenueError(-1102, "Mandatory parameter 'price' was not sent, was empty/null, or malformed.")
    check_quantity(instrument, request.quantity, is_market=is_market)
    if request.price is not None and not is_market:
        check_price(instrument, request.price)
        check_band(request.price, mark)
    closes = request.reduce_only or hedge_reduces(request.side, request.position_side)
    if not closes:
        check_notional(instrument, request.quantity * (mark if request.price is None else request.price))
    check_position_side(request.position_side, hedge_mode=hedge_mode, reduce_only=request.reduce_only)
    check_client_id(request.client_order_id)


def hedge_reduces(side: Side, position_side: PositionSide) -> bool:
    """Whether an order of this side can only reduce in hedge mode."""
    return (position_side is PositionSide.LONG and side is Side.SELL) or (
        position_side is PositionSide.SHORT and side is Side.BUY
    )


def check_algo(request: AlgoRequest, instrument: Instrument, *, last: Decimal, hedge_mode: bool) -> None:
    """Check a conditional order against everything but the account and the price that it waits for."""
    if request.type not in CONDITIONAL:
        raise VenueError(-1116)
    is_limit = request.type in {OrderType.STOP, OrderType.TAKE_PROFIT}
    is_trailing = request.type is OrderType.TRAILING_STOP_MARKET
    for name, value, needed in (
        ("price", request.price, is_limit and request.price_match is PriceMatch.NONE),
        ("triggerPrice", request.trigger_price, not is_trailing),
        ("callbackRate", request.callback_rate, is_trailing),
    ):
        if needed and value is None:
            raise VenueError(-1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")
    if request.close_position:
        _check_close_position(request)
    else:
        check_quantity(instrument, request.quantity, is_market=not is_limit)
    for price in (request.price, request.trigger_price, request.activate_price):
        if price is not None:
            check_price(instrument, price)
    if is_limit and request.price is not None and request.trigger_price is not None:
        # Its limit is judged when it triggers, and the mark price will be near its trigger then.
        check_band(request.price, request.trigger_price)
    if is_trailing and not Decimal("0.1") <= (request.callback_rate or ZERO) <= Decimal(10):
        raise VenueError(-1130, "Data sent for parameter 'callbackRate' is not valid, expected 0.1 to 10.")
    closes = request.reduce_only or request.close_position or hedge_reduces(request.side, request.position_side)
    if not closes:
        check_notional(instrument, request.quantity * (request.price or request.trigger_price or last))
    check_position_side(request.position_side, hedge_mode=hedge_mode, reduce_only=request.reduce_only)
    check_client_id(request.client_algo_id)


def check_trigger(request: AlgoRequest, price: Decimal) -> None:
    """Refuse a conditional order whose price has been reached already."""
    trigger, activate = request.trigger_price, request.activate_price
    if request.type is OrderType.TRAILING_STOP_MARKET:
        # A SELL trails from above: it activates at or over the last price; a BUY at or under it.
        crossed = activate is not None and (activate - price) * request.side.sign > 0
    else:
        crossed = trigger is not None and would_trigger(request.type, request.side, trigger, price)
    if crossed:
        raise VenueError(-2021)


def would_trigger(kind: OrderType, side: Side, trigger: Decimal, price: Decimal) -> bool:
    """Whether `price` has reached the trigger: stops trigger against the side's favour, targets with it."""
    if kind is OrderType.TRAILING_STOP_MARKET:
        return False
    rises = (side is Side.BUY) != (kind in TARGETS)
    return price >= trigger if rises else price <= trigger


def _check_close_position(request: AlgoRequest) -> None:
    if request.type not in {OrderType.STOP_MARKET, OrderType.TAKE_PROFIT_MARKET}:
        raise VenueError(-4136)
    if request.quantity or request.reduce_only:
        raise VenueError(-1106, "Parameter 'quantity' or 'reduceOnly' sent with closePosition when not required.")
    opens = {(PositionSide.LONG, Side.BUY), (PositionSide.SHORT, Side.SELL)}
    if (request.position_side, request.side) in opens:
        raise VenueError(-4061)


def check_time_in_force(request: OrderRequest | AlgoRequest, *, now_ms: int) -> None:
    """Refuse a market order that wants to wait, and an order that is to be good till a moment it does not name."""
    if request.type is OrderType.MARKET and request.time_in_force not in {TimeInForce.GTC, TimeInForce.IOC}:
        raise VenueError(-1106, "Parameter 'timeInForce' sent when not required.")
    if request.time_in_force is not TimeInForce.GTD:
        if request.good_till_ms:
            raise VenueError(-1106, "Parameter 'goodTillDate' sent when not required.")
    elif not request.good_till_ms:
        raise VenueError(-1102, "Mandatory parameter 'goodTillDate' was not sent, was empty/null, or malformed.")
    elif not now_ms + SHORTEST_GTD_MS < request.good_till_ms < LAST_GTD_MS:
        raise VenueError(-5040)


def check_counterparty(best: Decimal, mark: Decimal) -> None:
    """Refuse a market order whose counterparty asks for a price too far from the mark price."""
    if abs(best - mark) > mark * PRICE_BAND:
        raise VenueError(-4131)
