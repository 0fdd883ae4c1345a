"""What each venue can express, held against ccxt's own description, and what is refused before it is sent."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from decimal import Decimal
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.venue.ccxt_package import ccxt
from feature_store.venue.errors import OrderRefusedError
from feature_store.venue.factory import VENUES
from inference.domain.order import OrderIntent, OrderType, Purpose, Side
from inference.exchange.capabilities import (
    CAPABILITIES,
    ClientIdForm,
    Inexpressible,
    Stream,
    TimeInForce,
    inexpressible,
    is_accepted_as_text,
)
from inference.exchange.ccxt_gateway import CcxtGateway
from inference.exchange.client_ids import IntegerIds, TextIds, client_ids_of, integer_id
from inference.exchange.venue_clock import TimeSample, VenueClock
from inference.execution.client_order_id import client_order_id

REAL = ("binanceusdm", "binance", "bitfinex")
WATCHES = {
    Stream.CANDLES: "watchOHLCV",
    Stream.CANDLES_OF_MANY: "watchOHLCVForSymbols",
    Stream.TICKERS: "watchTickers",
    Stream.BOOK: "watchOrderBook",
    Stream.TRADES: "watchTrades",
    Stream.ORDERS: "watchOrders",
    Stream.FILLS: "watchMyTrades",
    Stream.BALANCE: "watchBalance",
    Stream.POSITIONS: "watchPositions",
}


def intent(**changes) -> OrderIntent:
    """Return an order that every venue can express, with changes."""
    plain = OrderIntent(
        client_order_id="qt-a-E1",
        trade_id="a",
        trace_id="",
        symbol="BTC/USDT:USDT",
        side=Side.BUY,
        order_type=OrderType.MARKET,
        purpose=Purpose.ENTRY,
        quantity=Decimal("0.01"),
    )
    return replace(plain, **changes)


def client(venue: str):
    """Return ccxt's class of a venue."""
    return getattr(ccxt.pro, VENUES[venue].ccxt_id)()


def test_every_venue_has_its_flags():
    """Each venue that a client can be made for says what it can do, and the sandbox is as the venue it speaks for."""
    assert set(CAPABILITIES) == set(VENUES)
    assert CAPABILITIES["sandbox"] == CAPABILITIES["binanceusdm"]
    assert CAPABILITIES["sandbox-spot"] == CAPABILITIES["binance"]


@pytest.mark.parametrize("venue", REAL)
def test_flags_cannot_be_changed(venue):
    """A flag is a fact of the venue: nobody sets it for a while."""
    with pytest.raises(FrozenInstanceError):
        CAPABILITIES[venue].hedge = True  # type: ignore[misc]


@pytest.mark.parametrize("venue", REAL)
def test_streams_are_those_that_ccxt_offers(venue):
    """What a venue streams is what the client library can follow there; spot has balances and no positions."""
    has = client(venue).has
    offered = {stream for stream, method in WATCHES.items() if has.get(method)}
    if venue == "binance":
        offered -= {Stream.POSITIONS}

    assert CAPABILITIES[venue].streams == offered


@pytest.mark.parametrize(("venue", "kind"), [("binanceusdm", "linear"), ("binance", "spot")])
def test_connections_carry_no_more_than_ccxt_lets_them(venue, kind):
    """The limits of our pool are those of the library, which knows them and does not keep to them."""
    options, flags = client(venue).options, CAPABILITIES[venue]

    assert flags.streams_per_connection == options["subscriptionLimitByStream"][kind]
    assert flags.connections == options["streamLimits"][kind]


@pytest.mark.parametrize("venue", REAL)
def test_orders_are_those_that_ccxt_describes(venue):
    """Times in force, hedging and trailing stops agree with the library's own table of features."""
    described = client(venue).describe()["features"]
    kind = {"binanceusdm": "forDerivatives", "binance": "spot", "bitfinex": "default"}[venue]
    order, flags = described[kind]["createOrder"], CAPABILITIES[venue]
    names = {"IOC": TimeInForce.IOC, "FOK": TimeInForce.FOK, "GTD": TimeInForce.GTD, "PO": TimeInForce.POST_ONLY}

    assert flags.times_in_force == {ours for name, ours in names.items() if order["timeInForce"][name]} | {
        TimeInForce.GTC
    }
    assert flags.post_only
    assert flags.stop_attached == bool(order["attachedStopLossTakeProfit"])
    if flags.positions:
        assert flags.hedge == bool(order["hedged"])
        assert flags.reduce_only == bool(client(venue).has["createReduceOnlyOrder"])
    assert (OrderType.STOP_MARKET in flags.order_types) == bool(order["triggerPrice"])


@pytest.mark.parametrize(
    ("venue", "set_leverage", "own_clock", "trailing_percent", "countdown"),
    [
        ("binanceusdm", True, True, True, True),
        ("binance", False, True, False, False),
        ("bitfinex", False, False, False, False),
    ],
)
def test_what_else_a_venue_offers(venue, set_leverage, own_clock, trailing_percent, countdown):
    """Leverage, clock, trailing in percent and a countdown are flags of their own, as the client library has them."""
    flags, library = CAPABILITIES[venue], client(venue)

    assert (flags.set_leverage, flags.own_clock) == (set_leverage, own_clock)
    assert (flags.trailing_percent, flags.countdown_cancel) == (trailing_percent, countdown)
    assert flags.own_clock == bool(library.has["fetchTime"])
    assert flags.countdown_cancel == (venue != "binance" and hasattr(library, "fapiPrivatePostCountdownCancelAll"))


SELLS = {"side": Side.SELL}
STOP = SELLS | {"order_type": OrderType.STOP_MARKET, "purpose": Purpose.STOP, "trigger_price": Decimal(90)}
TARGET = {"order_type": OrderType.TAKE_PROFIT_MARKET, "purpose": Purpose.TARGET, "trigger_price": Decimal(110)}
LIMIT = {"order_type": OrderType.LIMIT, "limit_price": Decimal(100)}


@pytest.mark.parametrize("venue", REAL)
@pytest.mark.parametrize("changes", [{}, LIMIT, STOP, {"side": Side.SELL, "purpose": Purpose.EXIT}])
def test_what_every_venue_expresses(venue, changes):
    """Market and limit orders, stops and exits go to each of them."""
    assert inexpressible(intent(**changes), CAPABILITIES[venue]) is None


def test_an_order_that_must_rest_goes_only_where_that_is_offered():
    """What the order itself says is asked of the venue: an entry that would take instead is never sent."""
    flags = CAPABILITIES["binanceusdm"]
    without = replace(flags, times_in_force=flags.times_in_force - {TimeInForce.POST_ONLY})

    assert inexpressible(intent(**LIMIT, post_only=True), flags) is None
    assert inexpressible(intent(**LIMIT, post_only=True), without) is Inexpressible.TIME_IN_FORCE_NOT_OFFERED
    assert inexpressible(intent(**LIMIT), without) is None


@pytest.mark.parametrize(
    ("venue", "changes", "asked", "code"),
    [
        ("bitfinex", TARGET, {}, Inexpressible.ORDER_TYPE_NOT_OFFERED),
        ("binanceusdm", TARGET, {}, None),
        ("binance", {"side": Side.SELL}, {"opens_short": True}, Inexpressible.SHORT_NOT_OFFERED),
        ("bitfinex", {"side": Side.SELL}, {"opens_short": True}, None),
        ("binance", STOP | {"side": Side.BUY}, {}, Inexpressible.REDUCE_ONLY_NOT_OFFERED),
        ("binance", {"purpose": Purpose.EXIT}, {}, Inexpressible.REDUCE_ONLY_NOT_OFFERED),
        ("binanceusdm", {"purpose": Purpose.EXIT}, {}, None),
        ("bitfinex", LIMIT, {"time_in_force": TimeInForce.GTD}, Inexpressible.TIME_IN_FORCE_NOT_OFFERED),
        ("binance", LIMIT, {"time_in_force": TimeInForce.GTD}, Inexpressible.TIME_IN_FORCE_NOT_OFFERED),
        ("binanceusdm", LIMIT, {"time_in_force": TimeInForce.GTD}, None),
        ("binanceusdm", LIMIT, {"time_in_force": TimeInForce.POST_ONLY}, None),
        ("binanceusdm", LIMIT | {"limit_price": None}, {}, Inexpressible.LIMIT_PRICE_MISSING),
        ("binanceusdm", LIMIT | {"limit_price": Decimal("NaN")}, {}, Inexpressible.LIMIT_PRICE_MISSING),
        ("binanceusdm", STOP | {"trigger_price": None}, {}, Inexpressible.TRIGGER_PRICE_MISSING),
        ("binanceusdm", STOP | {"trigger_price": Decimal(-1)}, {}, Inexpressible.TRIGGER_PRICE_MISSING),
        ("binanceusdm", {"quantity": Decimal(0)}, {}, Inexpressible.QUANTITY_NOT_POSITIVE),
        ("binanceusdm", {"quantity": Decimal("Infinity")}, {}, Inexpressible.QUANTITY_NOT_POSITIVE),
        ("binanceusdm", {"client_order_id": "x" * 37}, {}, Inexpressible.CLIENT_ID_NOT_ACCEPTED),
        ("binanceusdm", {"client_order_id": "a b"}, {}, Inexpressible.CLIENT_ID_NOT_ACCEPTED),
        ("binance", {"client_order_id": "a\n"}, {}, Inexpressible.CLIENT_ID_NOT_ACCEPTED),
        ("bitfinex", {"client_order_id": "x" * 37}, {}, None),
        ("bitfinex", {"client_order_id": ""}, {}, Inexpressible.CLIENT_ID_NOT_ACCEPTED),
    ],
)
def test_what_a_venue_cannot_express_has_a_code(venue, changes, asked, code):
    """Each flag refuses what it stands for, where the venue lacks it, and nothing where it does not."""
    assert inexpressible(intent(**changes), CAPABILITIES[venue], **asked) == code


def test_reduce_only_is_refused_where_positions_know_none():
    """A venue with positions and without reduce-only could flip one: nothing protective is sent there."""
    flags = replace(CAPABILITIES["binanceusdm"], reduce_only=False)

    assert inexpressible(intent(**STOP), flags) is Inexpressible.REDUCE_ONLY_NOT_OFFERED
    assert inexpressible(intent(), flags) is None


@pytest.mark.parametrize(
    ("venue", "changes", "code"),
    [
        ("bitfinex", TARGET, "ORDER_TYPE_NOT_OFFERED"),
        ("binanceusdm", STOP | {"trigger_price": None}, "TRIGGER_PRICE_MISSING"),
        ("binanceusdm", {"client_order_id": "not an id"}, "CLIENT_ID_NOT_ACCEPTED"),
    ],
)
async def test_a_gateway_sends_nothing_that_its_venue_cannot_express(venue, changes, code):
    """The refusal carries the code, and no request is made: the client here could not make one."""
    clock = VenueClock(accelerated=False)
    clock.add(TimeSample(sent=0.0, received=0.0, venue_ms=1_750_000_000_000))
    gateway = CcxtGateway(
        SimpleNamespace(markets={"BTC/USDT:USDT": {"id": "BTCUSDT"}}),
        clock=clock,
        monotonic=lambda: 0.0,
        leverage=3,
        capabilities=CAPABILITIES[venue],
    )
    with pytest.raises(OrderRefusedError) as caught:
        await gateway.submit(intent(**changes))

    assert caught.value.code == code


@given(st.text(max_size=40))
def test_binance_s_alphabet_is_kept(text):
    """An id is taken exactly where it is 1 to 36 of the venue's characters."""
    letters = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.:/_-")

    assert is_accepted_as_text(text) == (1 <= len(text) <= 36 and set(text) <= letters)


@given(st.from_regex(r"[a-z0-9]{1,24}", fullmatch=True), st.sampled_from(Purpose), st.integers(1, 999_999))
def test_our_ids_fit_both_forms_and_find_back(trade_id, purpose, attempt):
    """Each id that we make is taken by every venue, is the same each time, and leads back to itself."""
    ours = client_order_id(trade_id, purpose, attempt)
    for venue in REAL:
        ids = client_ids_of(CAPABILITIES[venue])
        there = ids.at_venue(ours)

        assert there == client_ids_of(CAPABILITIES[venue]).at_venue(ours)
        assert ids.ours(there) == ours
        assert ids.ours(str(there)) == ours
        assert isinstance(there, int) == (CAPABILITIES[venue].client_id is ClientIdForm.INTEGER)


@given(st.lists(st.text(min_size=1, max_size=36), unique=True, max_size=50))
def test_integer_ids_fit_the_venue_and_are_found_after_a_restart(keys):
    """Numbers stay within 45 bits, and those of the journal's ids are what was sent before the restart."""
    sent = {IntegerIds().at_venue(key): key for key in keys}
    restarted = IntegerIds(keys)

    assert all(0 < number < 2**45 for number in sent)
    assert {number: restarted.ours(number) for number in sent} == sent


def test_two_ids_of_one_number_are_not_two_orders(monkeypatch):
    """An id whose number is taken is refused before it is sent, and the first keeps it."""
    monkeypatch.setattr("inference.exchange.client_ids.integer_id", lambda _: 7)
    ids = IntegerIds()
    ids.at_venue("first")
    with pytest.raises(OrderRefusedError, match="first"):
        ids.at_venue("second")

    assert ids.ours(7) == "first"


@pytest.mark.parametrize("hostile", [None, True, -1, 0, 2**60, "x", "\uff17", "1" * 5000, 1.5, b"7", [], {}])
def test_what_is_no_id_of_ours_is_nobodys(hostile):
    """Whatever a venue says, what was not sent from here is not taken for ours."""
    assert IntegerIds(["qt-a-E1"]).ours(hostile) is None
    assert TextIds().ours(hostile) in (None, "x", hostile if isinstance(hostile, str) and hostile.isascii() else None)


def test_numbers_are_what_they_were():
    """The digest is part of the record: an order sent by an older version is found by a newer one."""
    assert integer_id("qt-a-E1") == 35_057_005_170_228
    assert integer_id("qt-a-E1") != integer_id("qt-a-E2")
