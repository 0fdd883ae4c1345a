"""Domain values from the venue's own words, as ccxt passes them on; what must not be guessed and is missing, raises."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from feature_store.errors import QuantumError
from inference.domain.market import Instrument, Quote
from inference.domain.order import Fill, OrderReport, OrderStatus, Side
from inference.execution.funding import FundingPayment
from inference.execution.ports import VenuePosition

STATUS = {
    "NEW": OrderStatus.ACCEPTED,
    "PENDING_NEW": OrderStatus.ACCEPTED,
    "PARTIALLY_FILLED": OrderStatus.PARTIALLY_FILLED,
    "FILLED": OrderStatus.FILLED,
    "CANCELED": OrderStatus.CANCELED,
    "PENDING_CANCEL": OrderStatus.ACCEPTED,
    "EXPIRED": OrderStatus.EXPIRED,
    "EXPIRED_IN_MATCH": OrderStatus.EXPIRED,
    "REJECTED": OrderStatus.REFUSED,
}
_ALGO_STATUS = {
    "NEW": OrderStatus.ACCEPTED,
    "TRIGGERING": OrderStatus.ACCEPTED,
    "TRIGGERED": OrderStatus.TRIGGERED,
    # It became an order and that order has ended; how, only the child order says.
    "FINISHED": OrderStatus.TRIGGERED,
    "CANCELED": OrderStatus.CANCELED,
    "EXPIRED": OrderStatus.EXPIRED,
    "REJECTED": OrderStatus.REFUSED,
}
_CONDITIONAL = frozenset({"STOP", "STOP_MARKET", "TAKE_PROFIT", "TAKE_PROFIT_MARKET", "TRAILING_STOP_MARKET"})


_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")


class MalformedReportError(QuantumError):
    """The venue's answer lacks a field that must not be guessed, or holds something unreadable in it."""

    def __init__(self, what: str, field: str, found: object) -> None:
        super().__init__(f"{what} has no usable {field}, was {str(found)[:80]!r}")
        self.field = field


def mapping(what: str, raw: object) -> Mapping[str, Any]:
    """Return an answer that must be an object; the venue's gateways may answer with a page of HTML."""
    if not isinstance(raw, Mapping):
        raise MalformedReportError(what, "JSON object", raw)
    return raw


def rows(what: str, raw: object) -> list[Mapping[str, Any]]:
    """Return an answer that must be a list of objects."""
    if not isinstance(raw, list):
        raise MalformedReportError(what, "JSON list", raw)
    return [mapping(what, row) for row in raw]


def order_report(raw: object, *, symbol: str) -> OrderReport:
    """Read an order as the REST API states it."""
    order = mapping("Order", raw)
    filled = decimal_of("Order", order, "executedQty")
    return OrderReport(
        client_order_id=text_of("Order", order, "clientOrderId"),
        venue_order_id=text_of("Order", order, "orderId"),
        symbol=symbol,
        status=_status("Order", order, "status", STATUS),
        filled=filled,
        average_price=_average(order, "avgPrice", filled),
        event_time_ms=integer_of("Order", order, "updateTime"),
        child_order_id=None,
    )


def algo_report(raw: object, *, symbol: str) -> OrderReport:
    """Read a conditional order as the REST API states it; its fill, if it fired, is its child's to tell."""
    order = mapping("Conditional order", raw)
    return OrderReport(
        client_order_id=text_of("Conditional order", order, "clientAlgoId"),
        venue_order_id=text_of("Conditional order", order, "algoId"),
        symbol=symbol,
        status=_algo_status("Conditional order", order, "algoStatus", order.get("actualOrderId")),
        filled=Decimal(0),
        average_price=None,
        event_time_ms=integer_of("Conditional order", order, "updateTime"),
        child_order_id=_optional_id(order.get("actualOrderId")),
    )


def fired_report(algo: OrderReport, child: OrderReport) -> OrderReport:
    """Return what became of a conditional order that fired: TRIGGERED while its child works, then the child's end."""
    ended = child.status.is_terminal
    return OrderReport(
        client_order_id=algo.client_order_id,
        venue_order_id=algo.venue_order_id,
        symbol=algo.symbol,
        status=child.status if ended else OrderStatus.TRIGGERED,
        filled=child.filled,
        average_price=child.average_price,
        event_time_ms=max(algo.event_time_ms, child.event_time_ms),
        child_order_id=child.venue_order_id,
    )


def stream_report(raw: object, *, symbol: str) -> OrderReport:
    """Read an order event of the user stream, ORDER_TRADE_UPDATE or ALGO_UPDATE."""
    event = mapping("Order event", raw)
    if "aid" in event:
        return OrderReport(
            client_order_id=text_of("Order event", event, "caid"),
            venue_order_id=text_of("Order event", event, "aid"),
            symbol=symbol,
            status=_algo_status("Order event", event, "X", event.get("ai")),
            filled=Decimal(0),
            average_price=None,
            event_time_ms=integer_of("Order event", event, "T"),
            child_order_id=_optional_id(event.get("ai")),
        )
    filled = decimal_of("Order event", event, "z")
    venue_order_id = text_of("Order event", event, "i")
    return OrderReport(
        client_order_id=text_of("Order event", event, "c"),
        venue_order_id=venue_order_id,
        symbol=symbol,
        status=_status("Order event", event, "X", STATUS),
        filled=filled,
        average_price=_average(event, "ap", filled),
        event_time_ms=integer_of("Order event", event, "T"),
        # What a conditional order became keeps that order's client id and remembers its type.
        child_order_id=venue_order_id if event.get("ot") in _CONDITIONAL else None,
    )


def stream_fill(raw: object, *, symbol: str) -> Fill | None:
    """Read the execution in an order event, if it tells of one."""
    event = mapping("Order event", raw)
    if event.get("x") != "TRADE":
        return None
    return Fill(
        fill_id=text_of("Execution event", event, "t"),
        client_order_id=str(event.get("c") or ""),
        venue_order_id=text_of("Execution event", event, "i"),
        symbol=symbol,
        side=_side("Execution event", event, "S"),
        quantity=decimal_of("Execution event", event, "l"),
        price=decimal_of("Execution event", event, "L"),
        fee=decimal_of("Execution event", event, "n") if "n" in event else Decimal(0),
        is_maker=bool(event.get("m", False)),
        event_time_ms=integer_of("Execution event", event, "T"),
    )


def fill(raw: object, *, symbol: str, client_order_id: str = "") -> Fill:
    """Read an execution as the REST API states it; it names the venue's order id only."""
    trade = mapping("Execution", raw)
    return Fill(
        fill_id=text_of("Execution", trade, "id"),
        client_order_id=client_order_id,
        venue_order_id=text_of("Execution", trade, "orderId"),
        symbol=symbol,
        side=_side("Execution", trade, "side"),
        quantity=decimal_of("Execution", trade, "qty"),
        price=decimal_of("Execution", trade, "price"),
        fee=decimal_of("Execution", trade, "commission"),
        is_maker=bool(trade.get("maker", False)),
        event_time_ms=integer_of("Execution", trade, "time"),
    )


def funding_payment(raw: object, *, symbol: str) -> FundingPayment:
    """Read one payment of funding."""
    payment = mapping("Payment", raw)
    return FundingPayment(
        transaction_id=text_of("Payment", payment, "tranId"),
        symbol=symbol,
        amount=decimal_of("Payment", payment, "income"),
        event_time_ms=integer_of("Payment", payment, "time"),
    )


def venue_position(raw: object, *, symbol: str) -> VenuePosition:
    """Read a position; the sign of its quantity is its direction."""
    position = mapping("Position", raw)
    return VenuePosition(
        symbol=symbol,
        signed_quantity=decimal_of("Position", position, "positionAmt"),
        entry_price=decimal_of("Position", position, "entryPrice"),
        mark_price=decimal_of("Position", position, "markPrice"),
    )


def equity(raw: object, *, asset: str) -> Decimal:
    """Read wallet plus unrealised profit in one settlement asset."""
    return _of_asset(raw, asset, "marginBalance")


def wallet(raw: object, *, asset: str) -> Decimal:
    """Read the wallet balance in one settlement asset: each fill, fee and funding changes it, prices do not."""
    return _of_asset(raw, asset, "walletBalance")


def stream_wallet(raw: object, *, asset: str) -> Decimal | None:
    """Read what an ACCOUNT_UPDATE says of the wallet balance in one asset; None where it says nothing of it."""
    update = mapping("Account event", mapping("Account event", raw).get("a"))
    for row in rows("Account event", update.get("B", [])):
        if row.get("a") == asset:
            return decimal_of("Account event", row, "wb")
    return None


def is_of_funding(raw: Mapping[str, Any]) -> bool:
    """Whether an ACCOUNT_UPDATE tells of funding that was paid."""
    update = raw.get("a")
    return isinstance(update, Mapping) and update.get("m") == "FUNDING_FEE"


def _of_asset(raw: object, asset: str, field: str) -> Decimal:
    account = mapping("Account", raw)
    for row in rows("Account", account.get("assets")):
        if row.get("asset") == asset:
            return decimal_of("Account", row, field)
    raise MalformedReportError("Account", f"asset {asset}", account.get("assets"))


def quote(raw: object, *, symbol: str) -> Quote:
    """Read the best bid and ask."""
    book = mapping("Quote", raw)
    return Quote(
        symbol=symbol,
        bid=positive("Quote", book, "bidPrice"),
        ask=positive("Quote", book, "askPrice"),
        event_time_ms=integer_of("Quote", book, "time"),
    )


def instrument(market: object) -> Instrument:
    """Read an instrument's steps and minimums from ccxt's market; the strictest filter counts for market orders."""
    unified = mapping("Market", market)
    symbol = text_of("Market", unified, "symbol")
    info = mapping(f"Market {symbol}", unified.get("info"))
    filters = {str(row.get("filterType")): row for row in rows(f"Market {symbol}", info.get("filters"))}
    price = mapping(f"Market {symbol}, PRICE_FILTER", filters.get("PRICE_FILTER"))
    lot = mapping(f"Market {symbol}, LOT_SIZE", filters.get("LOT_SIZE"))
    market_lot = filters.get("MARKET_LOT_SIZE", lot)
    notional = mapping(f"Market {symbol}, MIN_NOTIONAL", filters.get("MIN_NOTIONAL"))
    what = f"Market {symbol}"
    return Instrument(
        symbol=symbol,
        price_tick=positive(what, price, "tickSize"),
        quantity_step=max(positive(what, lot, "stepSize"), positive(what, market_lot, "stepSize")),
        min_quantity=max(decimal_of(what, lot, "minQty"), decimal_of(what, market_lot, "minQty")),
        max_quantity=min(positive(what, lot, "maxQty"), positive(what, market_lot, "maxQty")),
        min_notional=decimal_of(what, notional, "notional"),
    )


def text_of(what: str, raw: Mapping[str, Any], field: str) -> str:
    """Return a field that must be there, as text."""
    value = raw.get(field)
    if value is None or value == "":
        raise MalformedReportError(what, field, value)
    return str(value)


def integer_of(what: str, raw: Mapping[str, Any], field: str) -> int:
    """Return a field that must be a whole number."""
    try:
        return int(text_of(what, raw, field))
    except ValueError:
        raise MalformedReportError(what, field, raw.get(field)) from None


def decimal_of(what: str, raw: Mapping[str, Any], field: str) -> Decimal:
    """Return a field that must be a plain decimal number, digit by digit."""
    value = raw.get(field)
    # A float has already lost the venue's digits.
    if isinstance(value, bool) or not isinstance(value, str | int) or _NUMBER.fullmatch(str(value)) is None:
        raise MalformedReportError(what, field, value)
    return Decimal(value)


def positive(what: str, raw: Mapping[str, Any], field: str) -> Decimal:
    """Return a field that must be a number above zero."""
    number = decimal_of(what, raw, field)
    if number <= 0:
        raise MalformedReportError(what, field, number)
    return number


def _average(raw: Mapping[str, Any], field: str, filled: Decimal) -> Decimal | None:
    if filled == 0:
        return None
    return positive("Filled order", raw, field)


def _status(what: str, raw: Mapping[str, Any], field: str, table: Mapping[str, OrderStatus]) -> OrderStatus:
    status = table.get(text_of(what, raw, field))
    if status is None:
        raise MalformedReportError(what, field, raw.get(field))
    return status


def _algo_status(what: str, raw: Mapping[str, Any], field: str, child: object) -> OrderStatus:
    status = _status(what, raw, field, _ALGO_STATUS)
    if status is OrderStatus.TRIGGERED and raw[field] == "FINISHED" and _optional_id(child) is None:
        return OrderStatus.EXPIRED
    return status


def _side(what: str, raw: Mapping[str, Any], field: str) -> Side:
    try:
        return Side(text_of(what, raw, field))
    except ValueError:
        raise MalformedReportError(what, field, raw.get(field)) from None


def _optional_id(value: object) -> str | None:
    return None if value in (None, "", 0, "0") else str(value)
