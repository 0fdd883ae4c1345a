from __future__ import annotations

import asyncio

import ccxt
import pytest
from aiohttp import web

from feature_store.errors import BadInputError, UnknownVenueError, VenueUnavailableError
from feature_store.venue.async_time import venue_time_ms
from feature_store.venue.errors import (
    AccountError,
    ClockError,
    OrderNotFoundError,
    OrderRefusedError,
    OutcomeUnknownError,
    RateLimitedError,
    RequestRefusedError,
    RetryableError,
    VenueDownError,
    translate,
)
from feature_store.venue.factory import VENUES, create_exchange
from feature_store.venue.retry import retrying
from tests.feature_support import T0, market
from tests.feature_venue_double import venue_double


def answer(code: int, status: int = 400):
    """An error as Binance words it."""
    return lambda _: web.json_response({"code": code, "msg": "the venue's words"}, status=status)


def text(status: int, body: str, **headers: str):
    """An answer that is no JSON."""
    return lambda _: web.Response(status=status, text=body, headers=headers)


def hang_up(request):
    """Close the connection without an answer."""
    request.transport.abort()
    return web.Response()


# What the venue answers to an order, and what that means for us when reading and when sending.
CASES = [
    pytest.param(answer(-2019), RequestRefusedError, OrderRefusedError, id="margin-is-insufficient"),
    pytest.param(answer(-2021), RequestRefusedError, OrderRefusedError, id="would-trigger-at-once"),
    pytest.param(answer(-2022), RequestRefusedError, OrderRefusedError, id="reduce-only-rejected"),
    pytest.param(answer(-4164), RequestRefusedError, OrderRefusedError, id="notional-too-small"),
    pytest.param(answer(-4131), RequestRefusedError, OrderRefusedError, id="percent-price-filter"),
    pytest.param(answer(-4400), AccountError, OrderRefusedError, id="reduce-only-mode"),
    pytest.param(answer(-1111), RequestRefusedError, OrderRefusedError, id="precision"),
    pytest.param(answer(-99999), RequestRefusedError, OrderRefusedError, id="a-code-nobody-knows"),
    pytest.param(answer(-4116), RequestRefusedError, OutcomeUnknownError, id="duplicate-client-order-id"),
    pytest.param(answer(-2013), OrderNotFoundError, OrderNotFoundError, id="order-does-not-exist"),
    pytest.param(answer(-2011), OrderNotFoundError, OrderNotFoundError, id="cancel-of-unknown-order"),
    pytest.param(answer(-1021), ClockError, ClockError, id="timestamp-outside-window"),
    pytest.param(answer(-1008, 503), RetryableError, RetryableError, id="overloaded-did-nothing"),
    pytest.param(answer(-1000, 503), RetryableError, OutcomeUnknownError, id="unknown-error"),
    pytest.param(answer(-1007, 408), VenueDownError, OutcomeUnknownError, id="timeout-at-the-venue"),
    pytest.param(answer(-1003, 429), RateLimitedError, RateLimitedError, id="too-many-requests"),
    pytest.param(text(418, "banned"), RateLimitedError, RateLimitedError, id="banned"),
    pytest.param(answer(-2015, 401), AccountError, AccountError, id="wrong-key"),
    pytest.param(answer(-2014), AccountError, AccountError, id="malformed-key"),
    pytest.param(text(403, "<html>WAF</html>"), AccountError, AccountError, id="firewall"),
    pytest.param(text(451, "not in your country"), AccountError, AccountError, id="geography"),
    pytest.param(text(502, "<html>bad gateway</html>"), VenueDownError, OutcomeUnknownError, id="bad-gateway"),
    pytest.param(text(504, ""), VenueDownError, OutcomeUnknownError, id="gateway-timeout"),
    pytest.param(hang_up, VenueDownError, OutcomeUnknownError, id="hung-up"),
]


@pytest.mark.parametrize(("misbehave", "reading", "sending"), CASES)
async def test_each_answer_has_one_meaning(misbehave, reading, sending):
    """Through unmodified ccxt, every way of failing becomes the reaction that is right for it."""
    async with venue_double({"BTCUSDT": market(10)}, T0) as (double, exchange):
        await exchange.load_markets()
        double.misbehave = misbehave
        with pytest.raises(ccxt.BaseError) as caught:
            await exchange.create_order("BTC/USDT:USDT", "limit", "buy", 1, 100)
        assert type(translate(caught.value, exchange=exchange)) is reading
        assert type(translate(caught.value, sending=True, exchange=exchange)) is sending


async def test_the_venues_code_is_kept():
    """Whoever reacts to one code finds it as a number."""
    async with venue_double({"BTCUSDT": market(10)}, T0) as (double, exchange):
        double.misbehave = answer(-2021)
        with pytest.raises(ccxt.OrderImmediatelyFillable) as caught:
            await exchange.fapiPrivatePostOrder({})
        assert translate(caught.value, sending=True).code == -2021  # type: ignore[union-attr]


async def test_retry_after_is_read():
    """How long to wait comes from the header, or from the text of a ban."""
    async with venue_double({}, T0) as (double, exchange):
        double.misbehave = text(429, '{"code":-1003,"msg":"too many"}', **{"Retry-After": "17"})
        with pytest.raises(ccxt.BaseError) as caught:
            await exchange.fetch_time()
        assert translate(caught.value, exchange=exchange).retry_after_seconds == 17
        until = exchange.milliseconds() + 90_000
        double.misbehave = text(418, f'{{"code":-1003,"msg":"Way too many; banned until {until}."}}')
        with pytest.raises(ccxt.BaseError) as caught:
            await exchange.fetch_time()
        assert 85 < translate(caught.value, exchange=exchange).retry_after_seconds <= 90


async def test_what_was_never_connected_was_never_sent():
    """A refused connection proves that no order exists."""
    exchange = create_exchange("sandbox", url="http://127.0.0.1:9", pro=False)
    try:
        with pytest.raises(ccxt.BaseError) as caught:
            await exchange.fetch_time()
    finally:
        await exchange.close()
    ours = translate(caught.value, sending=True)
    assert type(ours) is VenueDownError
    assert isinstance(ours, VenueUnavailableError)
    assert "QT_VENUE_URL" in str(ours)


@pytest.mark.parametrize("venue", [name for name, venue in VENUES.items() if not venue.is_sandbox])
async def test_a_real_venue_that_is_down_is_not_sought_at_our_address(venue):
    """Where no answer of a real venue comes, what helps is said, and nothing of a setting that it ignores."""
    exchange = create_exchange(venue, pro=False)
    await exchange.close()

    ours = translate(OSError("Name or service not known"), exchange=exchange)

    assert type(ours) is VenueDownError
    assert "QT_VENUE_URL" not in str(ours)
    assert "check the network; 'qtctl doctor'" in str(ours)


def test_our_own_errors_pass_through():
    """An error that is ours already is not wrapped again."""
    error = BadInputError("ours")
    assert translate(error) is error
    assert type(translate(TimeoutError(), sending=True)) is OutcomeUnknownError
    assert type(translate(asyncio.IncompleteReadError(b"", 1))) is RetryableError


async def test_reading_is_retried_later_each_time():
    """Two failures cost two waits, the second longer; a refusal is not asked again."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async with venue_double({}, T0) as (double, exchange):
        answers = [text(502, ""), answer(-1003, 429)]
        double.misbehave = lambda request: answers.pop(0)(request) if answers else None
        assert await retrying(exchange.fetch_time, exchange=exchange, sleep=sleep) == T0
        assert len(waits) == 2
        assert waits[1] > 1 > waits[0]
        double.misbehave = answer(-1121)
        asked = len(double.requests)
        with pytest.raises(RequestRefusedError):
            await retrying(exchange.fetch_time, exchange=exchange, sleep=sleep)
        assert len(double.requests) == asked + 1


async def test_retries_end():
    """A venue that stays down is reported as down after a bounded number of attempts."""

    async def sleep(_: float) -> None:
        return

    async with venue_double({}, T0) as (double, exchange):
        double.misbehave = text(503, "")
        with pytest.raises(VenueDownError):
            await retrying(exchange.fetch_time, exchange=exchange, attempts=3, sleep=sleep)
        assert len(double.requests) == 3


async def test_the_venues_clock_is_its_own():
    """Time comes from the venue, whatever our wall clock says."""
    async with venue_double({}, T0) as (_, exchange):
        assert await venue_time_ms(exchange) == T0


def test_unknown_venues_name_the_known():
    """A wrong QT_VENUE is answered with the right ones."""
    with pytest.raises(UnknownVenueError, match="QT_VENUE to one of: sandbox, binanceusdm, binance, bitfinex"):
        create_exchange("mtgox")


@pytest.mark.parametrize(
    ("venue", "url"),
    [("sandbox", None), ("sandbox", "localhost:9100"), ("binanceusdm", "http://127.0.0.1:9100")],
)
def test_urls_are_for_the_sandbox_alone(venue, url):
    """A sandbox without an address, and a real venue with one, are contradictions."""
    with pytest.raises(BadInputError, match="QT_VENUE_URL"):
        create_exchange(venue, url=url)


@pytest.mark.parametrize("venue", [name for name, venue in VENUES.items() if not venue.is_sandbox])
@pytest.mark.parametrize("pro", [True, False])
async def test_real_venues_are_unmodified_ccxt(venue, pro):
    """A real venue is ccxt's own class at ccxt's own addresses; keys only where they were given."""
    exchange = create_exchange(venue, pro=pro)
    try:
        assert exchange.id == VENUES[venue].ccxt_id
        assert "127.0.0.1" not in str(exchange.urls["api"])
        assert exchange.enableRateLimit
        assert not exchange.apiKey
        assert exchange.has["fetchOHLCV"]
    finally:
        await exchange.close()


async def test_every_address_of_the_sandbox_is_local():
    """Nothing that a pointed client can call leaves this machine."""
    exchange = create_exchange("sandbox", url="http://127.0.0.1:9100", api_key="k", api_secret="s", recv_window_ms=1500)
    try:
        addresses = [value for value in exchange.urls["api"].values() if isinstance(value, str)]
        sockets = exchange.urls["api"]["ws"]
        streams = [sockets["linear"], sockets["spot"], *sockets["ws-api"].values()]
        assert all(address.startswith("http://127.0.0.1:9100/") for address in addresses)
        assert all(address.startswith("ws://127.0.0.1:9100/") for address in streams)
        assert exchange.options["recvWindow"] == 1500
        assert exchange.options["fetchCurrencies"] is False
        assert not exchange.enableRateLimit
    finally:
        await exchange.close()
