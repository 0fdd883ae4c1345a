"""Bitfinex's arrays, order requests, error numbers and whole-second clock, read without a venue."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.venue.answers import Answer
from feature_store.venue.ccxt_package import ccxt
from feature_store.venue.errors import failure_of
from feature_store.venue.factory import VENUES, create_exchange
from feature_store.venue.reactions import Reaction, reaction_to
from inference.domain.order import OrderIntent, OrderStatus, OrderType, Purpose, Side
from inference.exchange import bitfinex_mapping as mapped
from inference.exchange.bitfinex_gateway import BitfinexGateway
from inference.exchange.bitfinex_requests import order_request
from inference.exchange.bitfinex_stream import BitfinexStream
from inference.exchange.capabilities import CAPABILITIES
from inference.exchange.ccxt_gateway import CcxtGateway
from inference.exchange.ccxt_mapping import MalformedReportError
from inference.exchange.gateways import account_stream_of, gateway_of
from inference.exchange.guarding import NotTheWriterError, guard_writes
from inference.exchange.spot_gateway import SpotGateway
from inference.exchange.spot_stream import SpotStream
from inference.exchange.user_stream import UserStream
from inference.exchange.venue_clock import TimeSample, VenueClock
from inference.exchange.watching import is_private

BTC, NATIVE = "BTC/USDT:USDT", "tBTCF0:USTF0"
INTENT = OrderIntent(
    client_order_id="qt-a-E1",
    trade_id="a",
    trace_id="",
    symbol=BTC,
    side=Side.SELL,
    order_type=OrderType.MARKET,
    purpose=Purpose.ENTRY,
    quantity=Decimal("0.0100"),
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=25,
)


def order(status="ACTIVE", *, left=0.01, whole=0.01, average=0, kind="MARKET", before=None):
    row = [7, None, 55, NATIVE, 1_000, 2_000, left, whole, kind, before, None, None, 0, status, None, None, 90_000]
    return [*row, average, 0, 0]


@pytest.mark.parametrize(
    ("row", "status", "filled"),
    [
        (order(), OrderStatus.ACCEPTED, "0"),
        (order("PARTIALLY FILLED @ 9(0.004)", left=0.006, average=9), OrderStatus.PARTIALLY_FILLED, "0.004"),
        (order("EXECUTED @ 9(-0.01)", left=0, whole=-0.01, average=9.5), OrderStatus.FILLED, "0.01"),
        (order("CANCELED"), OrderStatus.CANCELED, "0"),
        (
            order("CANCELED was: PARTIALLY FILLED @ 9(0.002)", left=0.008, average=9),
            OrderStatus.CANCELED,
            "0.002",
        ),
        (order("IOC CANCELED"), OrderStatus.EXPIRED, "0"),
        (order("POSTONLY CANCELED"), OrderStatus.EXPIRED, "0"),
        (order("INSUFFICIENT MARGIN was: ACTIVE"), OrderStatus.REFUSED, "0"),
        (order("INSUFFICIENT MARGIN was: PARTIALLY", left=0.008, average=9), OrderStatus.CANCELED, "0.002"),
        (order("RSN_DUST (amount is less)"), OrderStatus.REFUSED, "0"),
        (order("ACTIVE", before="STOP"), OrderStatus.TRIGGERED, "0"),
        (order("EXECUTED @ 9(0.01)", left=0, average=9, before="STOP"), OrderStatus.FILLED, "0.01"),
    ],
)
def test_each_status_is_read_with_what_was_filled(row, status, filled):
    """What the status begins with counts, the filled part is exact, and a stop that fired is its own child."""
    report = mapped.order_report(row, symbol=BTC, client_order_id="x")
    assert (report.status, report.filled) == (status, Decimal(filled))
    assert report.child_order_id == ("7" if row[9] else None)


@given(anything, st.integers(0, 19))
def test_nothing_unreadable_becomes_an_order_an_execution_or_a_position(value, place):
    """Whatever comes, at whichever place: a value of ours or MalformedReportError, never another error."""
    row = order()
    row[place] = value
    for read in (
        lambda raw: mapped.order_report(raw, symbol=BTC, client_order_id="x"),
        mapped.created_ms,
        lambda raw: mapped.fill(raw, symbol=BTC, client_order_id="x"),
        lambda raw: mapped.funding_payment(raw, symbols={}),
        lambda raw: mapped.venue_position(raw, symbol=BTC),
        lambda raw: mapped.submitted(raw, number=1),
        lambda raw: mapped.wallet(raw, kind="margin", currency="USTF0"),
        lambda raw: mapped.quote(raw, symbol=BTC, event_time_ms=1),
    ):
        for raw in (value, row):
            try:
                found = read(raw)
            except MalformedReportError:
                continue
            assert found is not None


def test_an_answer_to_another_order_or_none_is_no_submission():
    """Only SUCCESS with the order of our number counts; a mere notice, an error or a stranger's order do not."""
    good = [1, "on-req", None, None, [order()], None, "SUCCESS", "Submitting 1 orders."]
    assert mapped.submitted(good, number=55)[0] == 7
    for bad in (good[:6], [*good[:6], "ERROR", "x"], [*good[:4], [], *good[5:]], "<html>", {}):
        with pytest.raises(MalformedReportError):
            mapped.submitted(bad, number=55)
    with pytest.raises(MalformedReportError, match="cid 56"):
        mapped.submitted(good, number=56)


@given(st.decimals("0.00000001", "9999999", places=8))
def test_a_price_keeps_five_digits_and_moves_by_less_than_a_part_in_ten_thousand(price):
    """Rounding to five digits is idempotent and close."""
    rounded = mapped.five_digits(price)
    assert len(rounded.normalize().as_tuple().digits) <= 5
    assert abs(rounded - price) * 10_000 <= price
    assert mapped.five_digits(rounded) == rounded


@given(st.decimals("0.00000001", "1000", places=8), st.decimals("0.0001", "200000", places=4))
def test_steps_divide_what_the_venue_takes(least, last):
    """The step is no larger than the smallest order, and the tick has the last price's fifth digit."""
    market = {"symbol": BTC, "limits": {"amount": {"min": float(least), "max": 1e9}}}
    found = mapped.instrument(market, last)
    assert found.quantity_step <= found.min_quantity < found.quantity_step * 10
    assert found.price_tick == Decimal(1).scaleb(last.adjusted() - 4)


def test_orders_are_said_in_bitfinex_words():
    """Sales are negative, leverage stands on what opens, reduce-only and post-only are flags, stops bring a price."""
    plain = order_request(INTENT, NATIVE, client_id=5, leverage=3)
    assert plain == {"type": "MARKET", "symbol": NATIVE, "amount": "-0.01", "cid": 5, "lev": 3}
    stop = replace(INTENT, order_type=OrderType.STOP_MARKET, purpose=Purpose.STOP, trigger_price=Decimal("91234.56"))
    assert order_request(stop, NATIVE, client_id=5, leverage=3) == {
        "type": "STOP",
        "symbol": NATIVE,
        "amount": "-0.01",
        "cid": 5,
        "flags": 1024,
        "price": "91235",
    }
    maker = replace(INTENT, side=Side.BUY, order_type=OrderType.LIMIT, limit_price=Decimal("0.123456"), post_only=True)
    assert order_request(maker, NATIVE, client_id=5, leverage=3)["flags"] == 4096
    assert order_request(maker, NATIVE, client_id=5, leverage=3)["price"] == "0.12346"
    for wrong in (replace(stop, trigger_price=None), replace(stop, order_type=OrderType.TAKE_PROFIT_MARKET)):
        with pytest.raises(ValueError, match="qt-a-E1"):
            order_request(wrong, NATIVE, client_id=5, leverage=3)


@pytest.mark.parametrize(
    ("kind", "begins", "status", "words", "reaction"),
    [
        (ccxt.PermissionDenied, '["error",10001,"Invalid order: x"]', 500, "Invalid order: x", Reaction.REFUSED),
        (ccxt.PermissionDenied, '["error", 10001, "api_key: permission invalid"]', 500, "api_key: permission invalid",
         Reaction.ACCOUNT),
        (ccxt.OrderNotFound, '["error",10001,"Order not found."]', 500, "Order not found.", Reaction.NOT_FOUND),
        (ccxt.PermissionDenied, '["error",10001,"Invalid order: duplicate cid"]', 500, "Invalid order: duplicate cid",
         Reaction.UNKNOWN),
        (ccxt.ExchangeError, '["error",10000,"unknown"]', 500, "unknown", Reaction.UNKNOWN),
        (ccxt.ExchangeError, "<html>busy</html>", 500, " (#)", Reaction.UNKNOWN),
        (ccxt.InvalidNonce, '["error",10114,"nonce: small"]', 500, "nonce: small", Reaction.RETRY),
        (ccxt.AuthenticationError, '["error",10100,"apikey: invalid"]', 500, "apikey: invalid", Reaction.ACCOUNT),
        (ccxt.BadRequest, '["error",10020,"amount: invalid"]', 500, "amount: invalid", Reaction.REFUSED),
        (ccxt.RateLimitExceeded, '["error",11010,"ratelimit: error"]', 429, "ratelimit: error", Reaction.RATE_LIMIT),
        (ccxt.ExchangeError, '{"error":"ERR_RATE_LIMIT"}', 429, "ERR_RATE_LIMIT", Reaction.RATE_LIMIT),
        (ccxt.OnMaintenance, '["error",20060,"maintenance"]', 500, "maintenance", Reaction.UNKNOWN),
    ],
)  # fmt: skip
def test_each_end_of_a_submission_has_one_reaction(kind, begins, status, words, reaction):
    """The number and the words of the array decide, where ccxt's class says something else."""
    error = kind(f"bitfinex {words}")
    error.venue_answer = Answer(status, {}, begins)
    found = failure_of(error, sending=True, exchange=SimpleNamespace(id="bitfinex"))
    assert reaction_to(found) is reaction


def test_a_process_that_is_not_the_writer_may_still_read():
    """Of Bitfinex's private posts, those that read pass without the lease, and those that write do not."""
    exchange = SimpleNamespace(sign=lambda *_: {"url": "x"})
    guard_writes(exchange, lambda _: "another trades")
    assert exchange.sign("auth/r/positions", ["private"], "POST", {}) == {"url": "x"}
    for path in ("auth/w/order/submit", "auth/w/order/cancel"):
        with pytest.raises(NotTheWriterError):
            exchange.sign(path, ["private"], "POST", {})


def told(clock, *, speed, every, count, start_ms):
    """Let a clock learn from answers that tell whole seconds."""
    for number in range(count):
        at = number * every
        date_ms = int(start_ms + at * 1000 * speed) // 1000 * 1000
        clock.add(TimeSample(sent=at, received=at + 0.002, venue_ms=date_ms + 500, doubt_ms=500))
    return (count - 1) * every


@given(st.integers(1_700_000_000_000, 1_700_000_009_999), st.sampled_from([1.0, 60.0, 600.0]))
def test_whole_seconds_teach_time_and_rate(start_ms, speed):
    """After ten seconds the rate is that of the venue, the time within a second and a bit, and no jump was seen."""
    clock = VenueClock(accelerated=True)
    last = told(clock, speed=speed, every=0.5, count=21, start_ms=start_ms)
    assert clock.rate == pytest.approx(speed, rel=0.25 if speed > 1 else 0)
    assert abs(clock.now_ms(last) - (start_ms + last * 1000 * speed)) <= 1_000 + speed * 20
    assert clock.jumps == 0
    assert clock.is_settled


def test_a_rate_learned_from_whole_seconds_is_not_believed_at_once():
    """The first two answers settle nothing, as they may be off by a second between them."""
    clock = VenueClock(accelerated=True)
    told(clock, speed=60.0, every=0.3, count=2, start_ms=1_700_000_000_000)
    assert not clock.is_settled


@pytest.mark.parametrize("venue", sorted(VENUES))
def test_a_venue_is_one_setting(venue):
    """The name alone chooses gateway and stream, and every venue has its capabilities."""
    exchange = SimpleNamespace(handle_message=None, on_connected=None, watch_orders=None)
    clock = VenueClock(accelerated=False)
    gateway = gateway_of(venue, exchange, clock=clock, monotonic=lambda: 0.0, leverage=3)
    stream = account_stream_of(
        gateway,
        exchange,
        on_report=lambda _: None,
        on_fill=lambda _: None,
        on_gap=lambda _: None,
        monotonic=lambda: 0.0,
    )
    expected = {
        "bitfinex": (BitfinexGateway, BitfinexStream),
        "binance": (SpotGateway, SpotStream),
        "binanceusdm": (CcxtGateway, UserStream),
    }
    assert (type(gateway), type(stream)) == expected[CAPABILITIES[venue].venue]


@pytest.mark.parametrize("url", [None, "http://127.0.0.1:9100"])
async def test_the_account_s_stream_is_told_from_the_market_s_by_its_address(url):
    """Whoever closes connections of the market leaves the account's open, live and at the sandbox."""
    exchange = create_exchange("bitfinex" if url is None else "sandbox-bitfinex", url=url)
    sockets = exchange.urls["api"]["ws"]
    await exchange.close()
    assert is_private(sockets["private"])
    assert not is_private(sockets["public"])
