"""Each end of a request, made by the real sandbox and seen through unmodified ccxt, becomes its one reaction."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from decimal import Decimal

import pytest
import pytest_asyncio

from feature_store.clock import monotonic
from feature_store.errors import QuantumError
from feature_store.venue.errors import (
    AccountError,
    ClockError,
    OrderRefusedError,
    OutcomeUnknownError,
    RateLimitedError,
    RequestRefusedError,
    RetryableError,
    VenueDownError,
)
from feature_store.venue.factory import create_exchange
from inference.domain.order import OrderIntent, OrderStatus, OrderType, Purpose, Side
from inference.exchange.ccxt_gateway import CcxtGateway
from inference.exchange.venue_clock import VenueClock
from tests.sandbox_support import running_sandbox

pytestmark = pytest.mark.asyncio(loop_scope="module")
BTC = "BTC/USDT:USDT"
HTML = "<html><body>The server is busy</body></html>"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def venue(tmp_path_factory):
    """Run one sandbox for all, and a gateway whose wall a test can move."""
    async with running_sandbox(symbols=2, speed=1, seed=5, state=tmp_path_factory.mktemp("sandbox")) as sandbox:
        yield sandbox


@asynccontextmanager
async def gateway_at(url, *, merged=True):
    """Yield a connected gateway and its client; without `merged`, ccxt knows no code of futures on this host."""
    exchange = create_exchange("sandbox", url=url, api_key="sandbox-key", api_secret="sandbox-secret")
    if not merged:
        linear = exchange.exceptions["linear"]["exact"]
        own = type(exchange)().describe()["exceptions"]["exact"]
        exchange.exceptions["exact"] = {code: kind for code, kind in own.items() if code not in linear}
    gateway = CcxtGateway(exchange, clock=VenueClock(accelerated=False), monotonic=monotonic, leverage=3)
    try:
        await gateway.connect()
        yield gateway, exchange
    finally:
        await gateway.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateways(venue):
    """Keep two gateways that have traded: one whose client knows the codes of futures, one whose client does not."""
    async with gateway_at(venue.url) as (knowing, _), gateway_at(venue.url, merged=False) as (unknowing, _):
        for gateway in (knowing, unknowing):
            await gateway.submit(order(f"qt-warm{id(gateway)}-E1"))
        yield {True: knowing, False: unknowing}


def order(key: str) -> OrderIntent:
    """Return a small market order."""
    return OrderIntent(
        client_order_id=key,
        trade_id=key,
        trace_id="",
        symbol=BTC,
        side=Side.BUY,
        order_type=OrderType.MARKET,
        purpose=Purpose.ENTRY,
        quantity=Decimal("0.001"),
    )


def said(code: int, status: int = 400) -> dict[str, object]:
    """An error as the venue words it."""
    return {"action": "status", "status": status, "body": json.dumps({"code": code, "msg": "the venue's words"})}


def page(status: int, body: str = "") -> dict[str, object]:
    """An answer that is no JSON."""
    return {"action": "status", "status": status, "body": body}


REFUSALS = (
    *(-1111, -1121, -2019, -2021, -2022, -2024, -2025, -2027, -2028, -4014, -4045, -4108, -4118),
    *(-4120, -4130, -4131, -4136, -4164, -5021, -5022, -9999),
)
ENDS = [
    *(pytest.param(said(code), RequestRefusedError, OrderRefusedError, id=str(code)) for code in REFUSALS),
    pytest.param(said(-4400), AccountError, OrderRefusedError, id="-4400"),
    pytest.param(said(-4116), RequestRefusedError, OutcomeUnknownError, id="-4116"),
    pytest.param(said(-1021), ClockError, ClockError, id="-1021"),
    pytest.param(said(-5028), ClockError, ClockError, id="-5028"),
    pytest.param(said(-1000, 503), RetryableError, OutcomeUnknownError, id="-1000"),
    pytest.param(said(-1000), RetryableError, OutcomeUnknownError, id="-1000-with-400"),
    pytest.param(said(-1001, 503), RetryableError, OutcomeUnknownError, id="-1001"),
    pytest.param(said(-1006, 503), RetryableError, OutcomeUnknownError, id="-1006"),
    pytest.param(said(-1007, 408), VenueDownError, OutcomeUnknownError, id="-1007"),
    pytest.param(said(-1008, 503), RetryableError, RetryableError, id="-1008"),
    pytest.param(said(-9999, 503), VenueDownError, OutcomeUnknownError, id="a-code-nobody-knows-with-503"),
    pytest.param(said(-2014, 401), AccountError, AccountError, id="-2014"),
    pytest.param(said(-2015, 401), AccountError, AccountError, id="-2015"),
    pytest.param(page(403, HTML), AccountError, AccountError, id="403"),
    pytest.param(said(-1000, 403), AccountError, AccountError, id="403-with-a-code"),
    pytest.param(page(451, "not in your country"), AccountError, AccountError, id="451"),
    pytest.param(page(500), VenueDownError, OutcomeUnknownError, id="500"),
    pytest.param(page(502, HTML), VenueDownError, OutcomeUnknownError, id="502"),
    pytest.param(page(504), VenueDownError, OutcomeUnknownError, id="504"),
    pytest.param({"action": "drop"}, VenueDownError, OutcomeUnknownError, id="hung-up"),
    pytest.param(page(200, HTML), RetryableError, OutcomeUnknownError, id="200-with-a-page"),
    pytest.param(page(200, ""), RetryableError, OutcomeUnknownError, id="200-with-nothing"),
    pytest.param(page(200, "{}"), RetryableError, OutcomeUnknownError, id="200-with-an-empty-object"),
    pytest.param(page(200, '{"orderId": 12, "sta'), RetryableError, OutcomeUnknownError, id="200-cut-off"),
    pytest.param(page(200, "[]"), RetryableError, OutcomeUnknownError, id="200-with-an-empty-list"),
    pytest.param(page(200, "null"), RetryableError, OutcomeUnknownError, id="200-with-null"),
]


@pytest.mark.parametrize("merged", [True, False], ids=["codes-known-to-ccxt", "codes-unknown-to-ccxt"])
@pytest.mark.parametrize(("end", "reading", "sending"), ENDS)
async def test_each_end_has_one_reaction_and_no_order_goes_out_twice(venue, gateways, end, reading, sending, merged):
    """Reading and sending, on a host whose name ccxt knows and on another; a submission is never repeated by itself."""
    gateway = gateways[merged]
    await venue.ctl(op="clear")
    try:
        await venue.ctl(op="fault", path="/fapi/v3/account", method="GET", p=1, **end)
        with pytest.raises(QuantumError) as read:
            await gateway.equity()
        await venue.ctl(op="fault", path="/fapi/v1/order", method="POST", p=1, **end)
        with pytest.raises(QuantumError) as sent:
            await gateway.submit(order("qt-a-E1"))
        met = (await venue.ctl(op="log"))["met"]
    finally:
        await venue.ctl(op="clear")

    assert (type(read.value), type(sent.value)) == (reading, sending)
    assert met["POST /fapi/v1/order"] == [1, 1]


LIMITS = [
    pytest.param(429, {"Retry-After": "7"}, '{"code":-1003,"msg":"Too many requests."}', 7.0, id="429-header"),
    pytest.param(418, {"retry-after": "90"}, '{"code":-1003,"msg":"Way too many requests."}', 90.0, id="418-header"),
    pytest.param(429, {}, '{"code":-1003,"msg":"Too many requests."}', 5.0, id="429-nothing-said"),
    pytest.param(418, {}, HTML, 120.0, id="418-nothing-said"),
    pytest.param(400, {}, '{"code":-1015,"msg":"Too many new orders."}', 5.0, id="order-count"),
]


@pytest.mark.parametrize(("status", "headers", "body", "seconds"), LIMITS)
async def test_a_limit_says_how_long(venue, status, headers, body, seconds):
    """A 429, a 418 and an order count keep the gateway quiet for what the venue asked, and for nothing else."""
    async with gateway_at(venue.url) as (gateway, _):
        await venue.ctl(op="fault", path="/fapi/v3/account", status=status, headers=headers, body=body, times=1)
        with pytest.raises(RateLimitedError) as caught:
            await gateway.equity()
        with pytest.raises(RateLimitedError) as kept_back:
            await gateway.positions()

        assert caught.value.retry_after_seconds == seconds
        assert kept_back.value.retry_after_seconds <= seconds


async def test_a_ban_says_until_when(venue):
    """Where no header tells, the words "banned until" do."""
    async with gateway_at(venue.url) as (gateway, exchange):
        until = exchange.milliseconds() + 60_000
        body = json.dumps({"code": -1003, "msg": f"Way too many requests; IP banned until {until}."})
        await venue.ctl(op="fault", path="/fapi/v3/account", status=418, body=body, times=1)
        with pytest.raises(RateLimitedError) as caught:
            await gateway.equity()

        assert 50 < caught.value.retry_after_seconds <= 60


async def test_a_wrong_key_is_an_account_problem_after_spot_worked(venue):
    """Once a private call to spot has worked, ccxt takes -2015 for a rate limit; it stays what it is."""
    async with gateway_at(venue.url) as (gateway, exchange):
        exchange.options["hasAlreadyAuthenticatedSuccessfully"] = True
        await venue.ctl(op="fault", path="/fapi/v3/account", times=1, **said(-2015, 401))
        with pytest.raises(AccountError):
            await gateway.equity()


async def test_a_skewed_clock_is_measured_once_and_not_retried_blindly(venue):
    """A timestamp that the venue keeps refusing costs one measurement and one more try, and is then said."""
    async with gateway_at(venue.url) as (gateway, _):
        await venue.ctl(op="clear")
        await venue.ctl(op="fault", path="/fapi/v3/account", method="GET", p=1, **said(-1021))
        try:
            with pytest.raises(ClockError):
                await gateway.equity()
            met = (await venue.ctl(op="log"))["met"]
        finally:
            await venue.ctl(op="clear")

        assert met["GET /fapi/v3/account"] == [2, 2]
        assert met["GET /fapi/v1/time"][0] == 1


@pytest.mark.parametrize("skew_ms", [-900_000, 900_000])
async def test_a_signed_load_waits_for_the_clock(venue, skew_ms):
    """A venue whose clock is a quarter of an hour off is connected to, since its time is asked for first."""
    await venue.ctl(op="skew", ms=skew_ms)
    try:
        async with gateway_at(venue.url) as (gateway, exchange):
            assert exchange.options["fetchCurrencies"] is False
            assert await gateway.equity() > 0
            assert (await gateway.submit(order("qt-skew-E1"))).status is OrderStatus.FILLED
    finally:
        await venue.ctl(op="clear")


async def test_open_orders_of_all_symbols_raise_no_warning(venue):
    """The library warns by an exception where no symbol is named; a client of ours asks for all without it."""
    async with gateway_at(venue.url) as (_, exchange):
        assert await exchange.fetch_open_orders() == []


async def test_nothing_is_left_open_after_close(venue):
    """Every connection of a client ends with it."""
    async with gateway_at(venue.url) as (gateway, exchange):
        await gateway.equity()

    assert exchange.session is None or exchange.session.closed
