"""Domain values from the words of Binance's spot; what must not be guessed and is missing, raises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from inference.domain.market import Instrument, Quote
from inference.domain.order import Fill, OrderIntent, OrderReport, OrderStatus, OrderType, Side
from inference.exchange import ccxt_mapping as mapped
from inference.exchange.ccxt_mapping import MalformedReportError, decimal_of, integer_of, text_of

_TYPES = {
    OrderType.MARKET: "MARKET",
    OrderType.LIMIT: "LIMIT",
    OrderType.STOP_MARKET: "STOP_LOSS",
    OrderType.TAKE_PROFIT_MARKET: "TAKE_PROFIT",
}
_WAITING = frozenset({"STOP_LOSS", "STOP_LOSS_LIMIT", "TAKE_PROFIT", "TAKE_PROFIT_LIMIT"})
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Balance:
    """What the account has of an asset; what is locked, open orders keep."""

    free: Decimal
    locked: Decimal

    @property
    def total(self) -> Decimal:
        """Free or not."""
        return self.free + self.locked


def order_request(intent: OrderIntent, native_symbol: str) -> dict[str, Any]:
    """Return what the venue is sent for an order."""
    request: dict[str, Any] = {
        "symbol": native_symbol,
        "side": intent.side.value,
        "type": "LIMIT_MAKER" if intent.post_only else _TYPES[intent.order_type],
        "quantity": _plain(intent.quantity),
        "newClientOrderId": intent.client_order_id,
        # With the executions: what a purchase brought is less than what was bought, by its commission.
        "newOrderRespType": "FULL",
    }
    if intent.is_conditional and intent.trigger_price is not None:
        request["stopPrice"] = _plain(intent.trigger_price)
    if intent.order_type is OrderType.LIMIT and intent.limit_price is not None:
        request["price"] = _plain(intent.limit_price)
        if not intent.post_only:
            request["timeInForce"] = "GTC"
    return request


def order_report(raw: object, *, symbol: str, received: Decimal | None = None) -> OrderReport:
    """
    Read an order as the REST API states it; `received` is what a purchase brought as far as that is known.

    A purchase pays its commission in what was bought, so that less is held than was executed: `filled` is what is held.
    """
    order = mapped.mapping("Order", raw)
    executed, paid = decimal_of("Order", order, "executedQty"), decimal_of("Order", order, "cummulativeQuoteQty")
    number = text_of("Order", order, "orderId")
    waits, works = order.get("type") in _WAITING, order.get("isWorking") is True or executed > 0
    status = _status(order, "status")
    return OrderReport(
        client_order_id=_own_id(order, "origClientOrderId", "clientOrderId"),
        venue_order_id=number,
        symbol=symbol,
        status=OrderStatus.TRIGGERED if waits and works and status is OrderStatus.ACCEPTED else status,
        filled=executed if received is None else min(received, executed),
        average_price=paid / executed if executed else None,
        event_time_ms=_time(order),
        # What waited for its price keeps its number when it is triggered.
        child_order_id=number if waits and works else None,
    )


def is_purchase(raw: Row) -> bool:
    """Whether an order or an event of one buys."""
    return bool(raw.get("side", raw.get("S")) == Side.BUY.value)


def fill(raw: object, *, symbol: str, base: str, quote: str, client_order_id: str = "") -> Fill:
    """Read an execution as the REST API states it; its quantity is what was received or given, its fee in quote."""
    trade = mapped.mapping("Execution", raw)
    side = Side.BUY if trade.get("isBuyer") is True else Side.SELL
    return _fill(
        (text_of("Execution", trade, "id"), client_order_id, text_of("Execution", trade, "orderId")),
        (symbol, side, bool(trade.get("isMaker", False)), integer_of("Execution", trade, "time")),
        amounts=tuple(decimal_of("Execution", trade, name) for name in ("qty", "price", "commission")),
        assets=(base, quote, trade.get("commissionAsset")),
    )


def fills_of_answer(raw: object, *, base: str, quote: str) -> dict[str, Decimal]:
    """Return what each execution brought that came with the answer to a purchase, by the venue's id."""
    order = mapped.mapping("Order", raw)
    found = {}
    for row in mapped.rows("Executions", order.get("fills", [])):
        amounts = (decimal_of("Execution", row, "qty"), decimal_of("Execution", row, "price"))
        kept = decimal_of("Execution", row, "commission")
        found[text_of("Execution", row, "tradeId")] = _net(
            Side.BUY, (*amounts, kept), (base, quote, row.get("commissionAsset"))
        )[0]
    return found


def stream_report(raw: object, *, symbol: str, received: Decimal | None = None) -> OrderReport:
    """Read an executionReport; `received` is what a purchase brought as far as that is known."""
    event = mapped.mapping("Order event", raw)
    executed, paid = decimal_of("Order event", event, "z"), decimal_of("Order event", event, "Z")
    number = text_of("Order event", event, "i")
    waits, works = event.get("o") in _WAITING, event.get("w") is True
    status = _status(event, "X")
    return OrderReport(
        client_order_id=_own_id(event, "C", "c"),
        venue_order_id=number,
        symbol=symbol,
        status=OrderStatus.TRIGGERED if waits and works and status is OrderStatus.ACCEPTED else status,
        filled=executed if received is None else min(received, executed),
        average_price=paid / executed if executed else None,
        event_time_ms=integer_of("Order event", event, "T"),
        child_order_id=number if waits and works else None,
    )


def stream_fill(raw: object, *, symbol: str, base: str, quote: str) -> Fill | None:
    """Read the execution in an executionReport, if it tells of one."""
    event = mapped.mapping("Order event", raw)
    if event.get("x") != "TRADE":
        return None
    return _fill(
        (text_of("Execution event", event, "t"), _own_id(event, "C", "c"), text_of("Execution event", event, "i")),
        (
            symbol,
            Side.BUY if is_purchase(event) else Side.SELL,
            bool(event.get("m", False)),
            integer_of("Execution event", event, "T"),
        ),
        amounts=tuple(decimal_of("Execution event", event, name) for name in ("l", "L", "n")),
        assets=(base, quote, event.get("N")),
    )


def balances(raw: object) -> dict[str, Balance]:
    """Read the account's assets."""
    what, account = "Account", mapped.mapping("Account", raw)
    return {
        text_of(what, row, "asset"): Balance(decimal_of(what, row, "free"), decimal_of(what, row, "locked"))
        for row in mapped.rows(what, account.get("balances"))
    }


def quote(raw: object, *, symbol: str, event_time_ms: int) -> Quote:
    """Read the best bid and ask, which spot does not date."""
    return mapped.quote({**mapped.mapping("Quote", raw), "time": event_time_ms}, symbol=symbol)


def instrument(market: object) -> Instrument:
    """Read an instrument's steps and minimums from ccxt's market; a filter that says zero does not hold."""
    unified = mapped.mapping("Market", market)
    symbol = text_of("Market", unified, "symbol")
    info = mapped.mapping(f"Market {symbol}", unified.get("info"))
    what = f"Market {symbol}"
    filters = {str(row.get("filterType")): row for row in mapped.rows(what, info.get("filters"))}
    price, lot = (mapped.mapping(f"{what}, {name}", filters.get(name)) for name in ("PRICE_FILTER", "LOT_SIZE"))
    notional = mapped.mapping(f"{what}, NOTIONAL", filters.get("NOTIONAL") or filters.get("MIN_NOTIONAL"))
    market_lot = filters.get("MARKET_LOT_SIZE", lot)
    most = [decimal_of(what, one, "maxQty") for one in (lot, market_lot)]
    return Instrument(
        symbol=symbol,
        price_tick=mapped.positive(what, price, "tickSize"),
        quantity_step=max(mapped.positive(what, lot, "stepSize"), decimal_of(what, market_lot, "stepSize")),
        min_quantity=max(decimal_of(what, lot, "minQty"), decimal_of(what, market_lot, "minQty")),
        max_quantity=min(one for one in most if one > 0),
        min_notional=decimal_of(what, notional, "minNotional"),
    )


def _fill(
    ids: tuple[str, str, str], said: tuple[str, Side, bool, int], *, amounts: tuple[Decimal, ...], assets: Any
) -> Fill:
    (fill_id, client_id, number), (symbol, side, is_maker, time_ms) = ids, said
    quantity, fee = _net(side, amounts, assets)
    return Fill(
        fill_id=fill_id,
        client_order_id=client_id,
        venue_order_id=number,
        symbol=symbol,
        side=side,
        quantity=quantity,
        price=amounts[1],
        fee=fee,
        is_maker=is_maker,
        event_time_ms=time_ms,
    )


def _net(side: Side, amounts: tuple[Decimal, ...], assets: Any) -> tuple[Decimal, Decimal]:
    """Return what an execution moved of the base asset, and its fee in quote: together they cost what was paid."""
    (quantity, price, commission), (base, quote_asset, asset) = amounts, assets
    if not commission or asset == quote_asset:
        return quantity, commission
    if asset == base and side is Side.BUY:
        return quantity - commission, commission * price
    # Paid in a third asset, whose price nobody told: what the trade cost would be a guess.
    raise MalformedReportError("Execution", f"commission in {base} or {quote_asset}", f"{commission} {asset}")


def _own_id(raw: Row, of_cancelled: str, field: str) -> str:
    # The report of a cancellation has a name of its own, and the order's beside it.
    return text_of("Order", raw, of_cancelled if raw.get(of_cancelled) else field)


def _time(order: Row) -> int:
    return integer_of("Order", order, "updateTime" if order.get("updateTime") else "transactTime")


def _status(raw: Row, field: str) -> OrderStatus:
    status = mapped.STATUS.get(text_of("Order", raw, field))
    if status is None:
        raise MalformedReportError("Order", field, raw.get(field))
    return status


def _plain(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def mapping_of(raw: object) -> Row:
    """Return an order, or an event of one, that must be an object."""
    return mapped.mapping("Order", raw)
