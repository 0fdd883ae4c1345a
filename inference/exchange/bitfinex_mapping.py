"""Domain values from Bitfinex's arrays; what must not be guessed and is missing, raises."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from inference.domain.market import Instrument, Quote
from inference.domain.order import Fill, OrderReport, OrderStatus, Side
from inference.exchange.ccxt_mapping import MalformedReportError
from inference.execution.funding import FundingPayment
from inference.execution.ports import VenuePosition

# Places in an order, an execution, a position, a wallet and a ticker.
_ID, _CID, SYMBOL, CREATED, _UPDATED, _LEFT, _WHOLE, _TYPE, _TYPE_BEFORE = 0, 2, 3, 4, 5, 6, 7, 8, 9
_STATUS, _AVERAGE = 13, 17
_FILL_SYMBOL, _FILL_TIME, _FILL_ORDER, _FILL_AMOUNT, _FILL_PRICE, _FILL_MAKER, _FILL_FEE, _FILL_CID = (
    1, 2, 3, 4, 5, 8, 9, 11,
)  # fmt: skip
_AMOUNT, _BASE_PRICE, _PROFIT = 2, 3, 6
_LEDGER_TIME, _LEDGER_AMOUNT, _LEDGER_WORDS = 3, 5, 8
_PAIR = re.compile(r"\(t?([A-Z0-9]+:[A-Z0-9]+)\)")
_PRICE_DIGITS = 5
# The end of the year 2100.
_END_OF_TIME_MS = 4_133_980_800_000

# What a status begins with; behind it stand price and amount, and what it was before.
_STATUSES = (
    ("ACTIVE", OrderStatus.ACCEPTED),
    ("PARTIALLY FILLED", OrderStatus.PARTIALLY_FILLED),
    ("EXECUTED", OrderStatus.FILLED),
    ("CANCELED", OrderStatus.CANCELED),
    ("IOC CANCELED", OrderStatus.EXPIRED),
    ("FILLORKILL CANCELED", OrderStatus.EXPIRED),
    ("POSTONLY CANCELED", OrderStatus.EXPIRED),
    ("INSUFFICIENT", OrderStatus.REFUSED),
    ("RSN_", OrderStatus.REFUSED),
)


def array(what: str, raw: object, least: int = 0) -> list[Any]:
    """Return an answer that must be an array of so many places; a gateway may answer with a page of HTML."""
    if not isinstance(raw, list) or len(raw) < least:
        raise MalformedReportError(what, f"array of {least}", raw)
    return raw


def submitted(raw: object, *, number: int) -> list[Any]:
    """Return the order that an answer to a submission holds; it must be the one of this number of ours."""
    notice = array("Submission", raw, 8)
    if notice[6] != "SUCCESS":
        raise MalformedReportError("Submission", "status SUCCESS", notice[6:8])
    row = array("Order", array("Submission", notice[4], 1)[0], _AVERAGE + 1)
    if str(row[_CID]) != str(number):
        raise MalformedReportError("Order", f"cid {number}", row[_CID])
    return row


def created_ms(raw: object) -> int:
    """Return when the venue made an order, in ms of UTC."""
    row = array("Order", raw, CREATED + 1)
    made_ms = _integer("Order", row, CREATED)
    if not 0 <= made_ms < _END_OF_TIME_MS:
        raise MalformedReportError("Order", "time of this century", made_ms)
    return made_ms


def order_report(raw: object, *, symbol: str, client_order_id: str) -> OrderReport:
    """Read an order; a stop that was triggered is the order that it became, under its own number."""
    row = array("Order", raw, _AVERAGE + 1)
    whole, left = abs(_decimal("Order", row, _WHOLE)), abs(_decimal("Order", row, _LEFT))
    filled = whole - left
    if filled < 0:
        raise MalformedReportError("Order", "amount", row[_LEFT])
    status = _status(row[_STATUS])
    number = _text("Order", row, _ID)
    has_fired = str(row[_TYPE_BEFORE] or "").startswith("STOP") and not str(row[_TYPE]).startswith("STOP")
    if status is OrderStatus.REFUSED and filled:
        status = OrderStatus.CANCELED
    if has_fired and not status.is_terminal:
        status = OrderStatus.TRIGGERED
    return OrderReport(
        client_order_id=client_order_id,
        venue_order_id=number,
        symbol=symbol,
        status=status,
        filled=filled,
        average_price=_positive("Filled order", row, _AVERAGE) if filled else None,
        event_time_ms=_integer("Order", row, _UPDATED),
        child_order_id=number if has_fired else None,
    )


def client_id(raw: object) -> object:
    """Return what a client called an order."""
    return array("Order", raw, _CID + 1)[_CID]


def fill_client_id(raw: object) -> object:
    """Return what a client called the order of an execution, where that is told."""
    row = array("Execution", raw)
    return row[_FILL_CID] if len(row) > _FILL_CID else None


def fill(raw: object, *, symbol: str, client_order_id: str) -> Fill:
    """Read an execution; a fee is paid where it is negative."""
    row = array("Execution", raw, _FILL_FEE + 1)
    amount = _decimal("Execution", row, _FILL_AMOUNT)
    return Fill(
        fill_id=_text("Execution", row, 0),
        client_order_id=client_order_id,
        venue_order_id=_text("Execution", row, _FILL_ORDER),
        symbol=symbol,
        side=Side.BUY if amount > 0 else Side.SELL,
        quantity=abs(amount),
        price=_positive("Execution", row, _FILL_PRICE),
        fee=-_decimal("Execution", row, _FILL_FEE),
        is_maker=str(row[_FILL_MAKER]) == "1",
        event_time_ms=_integer("Execution", row, _FILL_TIME),
    )


def fill_symbol(raw: object) -> str:
    """Return the venue's name of what an execution traded."""
    return _text("Execution", array("Execution", raw, 2), _FILL_SYMBOL)


def funding_payment(raw: object, *, symbols: Mapping[str, str]) -> FundingPayment:
    """Read a payment of funding from the ledger, which names the contract in words; `symbols` are ours by its names."""
    row = array("Ledger", raw, _LEDGER_WORDS + 1)
    pair = _PAIR.search(_text("Ledger", row, _LEDGER_WORDS))
    native = f"t{pair[1]}" if pair else ""
    return FundingPayment(
        transaction_id=_text("Ledger", row, 0),
        symbol=symbols.get(native, native),
        amount=_decimal("Ledger", row, _LEDGER_AMOUNT),
        event_time_ms=_integer("Ledger", row, _LEDGER_TIME),
    )


def venue_position(raw: object, *, symbol: str) -> VenuePosition:
    """Read a position; the price it is marked at follows from its profit."""
    row = array("Position", raw, _PROFIT + 1)
    amount, base = _decimal("Position", row, _AMOUNT), _decimal("Position", row, _BASE_PRICE)
    mark = base + _decimal("Position", row, _PROFIT) / amount if amount else base
    return VenuePosition(symbol=symbol, signed_quantity=amount, entry_price=base, mark_price=five_digits(mark))


def profit(raw: object) -> Decimal:
    """Read what a position has won or lost and not yet realised."""
    return _decimal("Position", array("Position", raw, _PROFIT + 1), _PROFIT)


def wallet(raw: object, *, kind: str, currency: str) -> Decimal:
    """Read a wallet's balance; one that was never used is not listed and holds nothing."""
    for row in array("Wallets", raw):
        found = array("Wallet", row, 3)
        if found[0] == kind and found[1] == currency:
            return _decimal("Wallet", found, 2)
    return Decimal(0)


def quote(raw: object, *, symbol: str, event_time_ms: int) -> Quote:
    """Read the best bid and ask out of a ticker without its name."""
    row = array("Quote", raw, 10)
    return Quote(
        symbol=symbol,
        bid=_positive("Quote", row, 0),
        ask=_positive("Quote", row, 2),
        event_time_ms=event_time_ms,
    )


def last_price(raw: object) -> Decimal:
    """Read the last price out of a ticker without its name."""
    return _positive("Ticker", array("Ticker", raw, 10), 6)


def instrument(market: Any, last: Decimal) -> Instrument:
    """
    Read an instrument from ccxt's market; the venue states its sizes and no steps.

    Prices have five digits, so the tick is that of the last price. Amounts may have eight decimals; the power of ten
    at or below the smallest order is a step that is always taken and leaves no dust.
    """
    what = f"Market {market['symbol']}"
    limits = market["limits"]["amount"]
    least, most = (_number(what, f"{name} amount", limits[name]) for name in ("min", "max"))
    if least <= 0 or most <= 0:
        raise MalformedReportError(what, "limits of amount", limits)
    return Instrument(
        symbol=market["symbol"],
        price_tick=Decimal(1).scaleb(last.adjusted() - _PRICE_DIGITS + 1),
        quantity_step=Decimal(1).scaleb(least.adjusted()),
        min_quantity=least,
        max_quantity=most,
        min_notional=Decimal(0),
    )


def five_digits(price: Decimal) -> Decimal:
    """Return a price with as many digits as the venue keeps; it would cut the others, always downwards."""
    if not price:
        return price
    return price.quantize(Decimal(1).scaleb(price.adjusted() - _PRICE_DIGITS + 1), rounding=ROUND_HALF_EVEN)


def _status(raw: object) -> OrderStatus:
    text = str(raw)
    for beginning, status in _STATUSES:
        if text.startswith(beginning):
            return status
    raise MalformedReportError("Order", "status", raw)


def _text(what: str, row: Sequence[Any], place: int) -> str:
    value = row[place]
    if value is None or value == "" or isinstance(value, list | dict):
        raise MalformedReportError(what, f"place {place}", value)
    return str(value)


def _integer(what: str, row: Sequence[Any], place: int) -> int:
    try:
        return int(_text(what, row, place))
    except ValueError:
        raise MalformedReportError(what, f"place {place}", row[place]) from None


def _decimal(what: str, row: Sequence[Any], place: int) -> Decimal:
    return _number(what, f"place {place}", row[place])


def _number(what: str, field: str, value: object) -> Decimal:
    # The venue states numbers, not text; the shortest digits of a double are those that it wrote.
    try:
        number = Decimal(str(value)) if isinstance(value, str | int | float) else Decimal("NaN")
    except ArithmeticError:
        number = Decimal("NaN")
    if isinstance(value, bool) or not number.is_finite() or not math.isfinite(float(number)):
        raise MalformedReportError(what, field, value)
    return number


def _positive(what: str, row: Sequence[Any], place: int) -> Decimal:
    number = _decimal(what, row, place)
    if number <= 0:
        raise MalformedReportError(what, f"place {place}", row[place])
    return number
