"""The venue's words become domain values, exactly or not at all."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.domain.order import OrderStatus, Side
from inference.exchange import ccxt_mapping as mapped
from inference.exchange.ccxt_mapping import MalformedReportError

BTC = "BTC/USDT:USDT"
ORDER = {
    "orderId": 12,
    "clientOrderId": "qt-a-E1",
    "status": "FILLED",
    "executedQty": "0.010",
    "avgPrice": "50000.10",
    "updateTime": 1750000000000,
}
ALGO = {
    "algoId": 7,
    "clientAlgoId": "qt-a-S1",
    "algoStatus": "NEW",
    "actualOrderId": "",
    "updateTime": 1750000000000,
}
TRADE = {
    "id": 3,
    "orderId": 12,
    "side": "BUY",
    "qty": "0.010",
    "price": "50000.10",
    "commission": "0.25000005",
    "maker": False,
    "time": 1750000000000,
}
EVENT = {
    "s": "BTCUSDT",
    "c": "qt-a-E1",
    "S": "BUY",
    "x": "TRADE",
    "X": "PARTIALLY_FILLED",
    "i": 12,
    "l": "0.004",
    "z": "0.010",
    "L": "50001.0",
    "ap": "50000.10",
    "n": "0.1",
    "t": 3,
    "T": 1750000000000,
    "m": False,
    "ot": "MARKET",
}


def test_order_keeps_every_digit():
    """Quantity and price are the venue's own digits."""
    report = mapped.order_report(ORDER, symbol=BTC)

    assert report.status is OrderStatus.FILLED
    assert str(report.filled) == "0.010"
    assert str(report.average_price) == "50000.10"
    assert report.venue_order_id == "12"


@pytest.mark.parametrize("field", sorted(ORDER))
def test_order_without_a_field_is_refused(field):
    """Whatever is missing from an order, nothing is guessed."""
    with pytest.raises(MalformedReportError, match=field):
        mapped.order_report({name: value for name, value in ORDER.items() if name != field}, symbol=BTC)


@pytest.mark.parametrize(
    "raw",
    [None, "", "<html>", [], 3, {}, {"orderId": None}, ORDER | {"status": "WEIRD"}, ORDER | {"executedQty": 0.01}],
    ids=["none", "empty", "html", "list", "number", "no-fields", "null", "unknown-status", "float"],
)
def test_what_is_no_order_is_refused(raw):
    """HTML, nothing, a float and an unknown word are no order."""
    with pytest.raises(MalformedReportError):
        mapped.order_report(raw, symbol=BTC)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-", "1e", "1_0 ", ""])
def test_unusable_numbers_are_refused(text):
    """A quantity that is not a finite number is none."""
    with pytest.raises(MalformedReportError):
        mapped.order_report(ORDER | {"executedQty": text}, symbol=BTC)


@pytest.mark.parametrize(
    ("status", "child", "expected"),
    [
        ("NEW", "", OrderStatus.ACCEPTED),
        ("TRIGGERED", "12", OrderStatus.TRIGGERED),
        ("FINISHED", "12", OrderStatus.TRIGGERED),
        ("FINISHED", "", OrderStatus.EXPIRED),
        ("CANCELED", "", OrderStatus.CANCELED),
        ("REJECTED", "", OrderStatus.REFUSED),
    ],
)
def test_conditional_order_never_claims_a_fill(status, child, expected):
    """A conditional order that fired names its child and leaves the fill to it."""
    report = mapped.algo_report(ALGO | {"algoStatus": status, "actualOrderId": child}, symbol=BTC)

    assert report.status is expected
    assert report.filled == 0
    assert report.child_order_id == (child or None)


@pytest.mark.parametrize(
    ("child", "status"),
    [
        ("NEW", OrderStatus.TRIGGERED),
        ("PARTIALLY_FILLED", OrderStatus.TRIGGERED),
        ("FILLED", OrderStatus.FILLED),
        ("EXPIRED", OrderStatus.EXPIRED),
        ("CANCELED", OrderStatus.CANCELED),
    ],
)
def test_fired_order_ends_as_its_child_ends(child, status):
    """The stop's report carries the child's fill under the stop's own ids."""
    algo = mapped.algo_report(ALGO | {"algoStatus": "TRIGGERED", "actualOrderId": "12"}, symbol=BTC)
    report = mapped.fired_report(algo, mapped.order_report(ORDER | {"status": child}, symbol=BTC))

    assert report.status is status
    assert report.client_order_id == "qt-a-S1"
    assert (report.venue_order_id, report.child_order_id) == ("7", "12")
    assert report.filled == Decimal("0.010")


def test_stream_event_is_a_report_and_a_fill():
    """One ORDER_TRADE_UPDATE tells the order's state and the execution that changed it."""
    report = mapped.stream_report(EVENT, symbol=BTC)
    fill = mapped.stream_fill(EVENT, symbol=BTC)

    assert report.status is OrderStatus.PARTIALLY_FILLED
    assert report.filled == Decimal("0.010")
    assert report.child_order_id is None
    assert fill is not None
    assert (fill.fill_id, fill.side, fill.quantity, fill.price) == ("3", Side.BUY, Decimal("0.004"), Decimal("50001.0"))
    assert mapped.stream_fill(EVENT | {"x": "NEW"}, symbol=BTC) is None


def test_child_of_a_stop_is_known_by_its_type():
    """What a stop became keeps the stop's client id, and is marked as a child."""
    report = mapped.stream_report(EVENT | {"c": "qt-a-S1", "ot": "STOP_MARKET"}, symbol=BTC)

    assert report.client_order_id == "qt-a-S1"
    assert report.child_order_id == "12"


def test_rest_and_stream_tell_of_one_execution_alike():
    """The same execution from both sources has the same id, so that booking it twice changes nothing."""
    rest = mapped.fill(TRADE, symbol=BTC)
    stream = mapped.stream_fill(EVENT, symbol=BTC)

    assert stream is not None
    assert rest.fill_id == stream.fill_id
    assert rest.venue_order_id == stream.venue_order_id


@given(st.decimals("0.0001", "1000", places=4), st.booleans())
def test_position_keeps_sign_and_digits(quantity, short):
    """The sign is the direction, and nothing is rounded."""
    signed = -quantity if short else quantity
    raw = {"positionAmt": str(signed), "entryPrice": "10.5", "markPrice": "10.6"}

    assert mapped.venue_position(raw, symbol=BTC).signed_quantity == signed


def test_equity_needs_its_asset():
    """An account that does not list the settlement asset has no equity, rather than none."""
    account = {"assets": [{"asset": "BNB", "marginBalance": "3"}]}

    with pytest.raises(MalformedReportError, match="USDT"):
        mapped.equity(account, asset="USDT")


def test_instrument_takes_the_stricter_filter():
    """Market orders must pass both lot filters, so the stricter of each counts."""
    market = {
        "symbol": BTC,
        "info": {
            "filters": [
                {"filterType": "PRICE_FILTER", "tickSize": "0.10"},
                {"filterType": "LOT_SIZE", "stepSize": "0.001", "minQty": "0.001", "maxQty": "1000"},
                {"filterType": "MARKET_LOT_SIZE", "stepSize": "0.01", "minQty": "0.01", "maxQty": "120"},
                {"filterType": "MIN_NOTIONAL", "notional": "100"},
            ]
        },
    }
    instrument = mapped.instrument(market)

    assert instrument.quantity_step == Decimal("0.01")
    assert (instrument.min_quantity, instrument.max_quantity) == (Decimal("0.01"), Decimal(120))
    assert instrument.min_notional == 100
