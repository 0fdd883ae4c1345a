"""What spot refuses before an order exists, in the venue's words: its filters first, then the rest."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from infra.sandbox.engine.checks import check_client_id, would_trigger
from infra.sandbox.engine.errors import VenueError
from infra.sandbox.engine.instrument import Instrument
from infra.sandbox.engine.model import ZERO, AlgoRequest, OrderRequest, OrderType, Side, TimeInForce

MAX_OPEN_ORDERS: Final = 200
MAX_OPEN_ALGOS: Final = 5
MAX_NOTIONAL: Final = Decimal(9_000_000)
# How far a price may be from the last one, as a factor: of what buys, and of what sells.
HIGHEST: Final = Decimal(5)
LOWEST: Final = Decimal("0.2")
_DECIMALS: Final = 8
_FORCES: Final = frozenset({TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK, TimeInForce.GTX})


def filter_failure(name: str) -> VenueError:
    """Return the refusal of a filter."""
    return VenueError(-1013, f"Filter failure: {name}")


def check_order(request: OrderRequest, lot: Instrument, *, last: Decimal) -> None:
    """Check what needs only the request, the instrument and the last price."""
    is_market = request.type is OrderType.MARKET
    if request.time_in_force not in _FORCES:
        raise VenueError(-1115)
    check_client_id(request.client_order_id)
    _check_quantity(lot, request.quantity, is_market=is_market)
    if request.price is not None:
        check_price(lot, request.price, last=last)
    check_notional(lot, request.quantity * (last if request.price is None else request.price), is_market=is_market)


def check_algo(request: AlgoRequest, lot: Instrument, *, last: Decimal) -> None:
    """Check an order that waits for a price."""
    is_limit = request.type in {OrderType.STOP, OrderType.TAKE_PROFIT}
    trigger = request.trigger_price
    if request.time_in_force not in _FORCES:
        raise VenueError(-1115)
    if trigger is None or request.type is OrderType.TRAILING_STOP_MARKET:
        raise VenueError(-1102, "Mandatory parameter 'stopPrice' was not sent, was empty/null, or malformed.")
    check_client_id(request.client_algo_id)
    _check_quantity(lot, request.quantity, is_market=not is_limit)
    for price in (request.price, trigger):
        if price is not None:
            check_price(lot, price, last=last)
    price = request.price if is_limit and request.price is not None else trigger
    check_notional(lot, request.quantity * price, is_market=False)
    if would_trigger(request.type, request.side, trigger, last):
        raise VenueError(-2010, "Stop price would trigger immediately.")


def _check_quantity(lot: Instrument, quantity: Decimal, *, is_market: bool) -> None:
    if quantity <= ZERO:
        raise VenueError(-1013, "Invalid quantity.")
    _check_precision("quantity", quantity)
    if quantity > lot.max_quantity or quantity % lot.step:
        raise filter_failure("LOT_SIZE")
    if is_market and quantity > lot.max_market_quantity:
        raise filter_failure("MARKET_LOT_SIZE")


def check_price(lot: Instrument, price: Decimal, *, last: Decimal) -> None:
    """Refuse a price off its tick, or too far from the last one."""
    if price <= ZERO:
        raise VenueError(-1013, "Invalid price.")
    _check_precision("price", price)
    if price % lot.tick:
        raise filter_failure("PRICE_FILTER")
    if not last * LOWEST <= price <= last * HIGHEST:
        raise filter_failure("PERCENT_PRICE_BY_SIDE")


def check_notional(lot: Instrument, notional: Decimal, *, is_market: bool) -> None:
    """Refuse an order too small to matter, and one at a price that is too large."""
    if notional < lot.min_notional or (not is_market and notional > MAX_NOTIONAL):
        raise filter_failure("NOTIONAL")


def check_pair(side: Side, limit: Decimal, trigger: Decimal, last: Decimal) -> None:
    """Refuse two orders that are not on either side of the market: where it sells, the limit above."""
    above, below = (limit, trigger) if side is Side.SELL else (trigger, limit)
    if not above > last > below:
        raise VenueError(-2010, "The relationship of the prices for the orders is not correct.")


def _check_precision(name: str, number: Decimal) -> None:
    exponent = number.normalize().as_tuple().exponent
    if isinstance(exponent, int) and exponent < -_DECIMALS:
        raise VenueError(-1111, f"Parameter '{name}' has too much precision.")
