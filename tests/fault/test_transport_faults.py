"""Budget and circuit breakers between unmodified ccxt and the real sandbox, while that fails."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal

import pytest
import pytest_asyncio

from feature_store.clock import monotonic
from feature_store.venue.budget import LIMITS, Limit, RateBudget
from feature_store.venue.errors import OutcomeUnknownError, RateLimitedError, RetryableError, VenueDownError
from feature_store.venue.factory import create_exchange
from inference.domain.order import OrderIntent, OrderStatus, OrderType, Purpose, Side
from inference.exchange.ccxt_gateway import CcxtGateway
from inference.exchange.circuit import CircuitRules, CircuitState
from inference.exchange.transport import TransportSettings, govern
from inference.exchange.venue_clock import VenueClock
from tests.sandbox_support import running_sandbox

pytestmark = pytest.mark.asyncio(loop_scope="module")
BTC = "BTC/USDT:USDT"
RULES = CircuitRules(failures=3, first_pause_s=0.4, longest_pause_s=0.8, try_within_s=5.0)
ACCOUNT, ORDERS = "/fapi/v3/account", "/fapi/v1/order"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def venue(tmp_path_factory):
    """Run one sandbox for all."""
    async with running_sandbox(symbols=2, speed=1, seed=5, state=tmp_path_factory.mktemp("sandbox")) as sandbox:
        yield sandbox


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def clear(venue):
    """Let no fault outlive its test."""
    yield
    await venue.ctl(op="clear")


@asynccontextmanager
async def governed(url, path=None, *, limit=LIMITS["binanceusdm"], rules=RULES):
    """Yield a gateway whose client is governed, its transport, and what that told."""
    told: list[tuple[str, dict[str, str]]] = []
    exchange = create_exchange("sandbox", url=url, api_key="sandbox-key", api_secret="sandbox-secret")
    transport = govern(
        exchange,
        budget=None if path is None else RateBudget(path, limit),
        monotonic=monotonic,
        on_event=lambda kind, detail: told.append((kind, dict(detail))),
        settings=TransportSettings(circuit=rules),
    )
    gateway = CcxtGateway(exchange, clock=VenueClock(accelerated=False), monotonic=monotonic, leverage=3)
    try:
        await gateway.connect()
        yield gateway, transport, told
    finally:
        await gateway.close()
        await transport.close()


def order(key: str, **changes) -> OrderIntent:
    """Return a small market order."""
    plain = OrderIntent(
        client_order_id=key,
        trade_id=key,
        trace_id="",
        symbol=BTC,
        side=Side.BUY,
        order_type=OrderType.MARKET,
        purpose=Purpose.ENTRY,
        quantity=Decimal("0.001"),
    )
    return replace(plain, **changes)


def an_exit(key: str) -> OrderIntent:
    """Return a small reduce-only order."""
    return order(key, side=Side.SELL, purpose=Purpose.EXIT)


async def requests_met(venue, key: str) -> int:
    """Return how many requests to one endpoint have come to the venue since the last clearing."""
    return (await venue.ctl(op="log"))["met"].get(key, [0, 0])[0]


async def test_a_failing_endpoint_is_asked_less_and_recovers_by_itself(venue):
    """After three failures nothing goes out until the pause is over; then one try, and with its answer all is well."""
    async with governed(venue.url) as (gateway, transport, told):
        await venue.ctl(op="clear")
        await venue.ctl(op="fault", path=ACCOUNT, method="GET", p=1, action="status", status=502, body="")
        for _ in range(6):
            with pytest.raises(VenueDownError):
                await gateway.equity()
        met = await requests_met(venue, f"GET {ACCOUNT}")
        positions = await gateway.positions()
        await venue.ctl(op="clear")
        await asyncio.sleep(0.6)
        equity = await gateway.equity()

        assert met == 3
        # Another endpoint of the same venue is not meant.
        assert positions == []
        assert equity > 0
        assert transport.circuit("GET", "account").state is CircuitState.CLOSED
        assert [kind for kind, _ in told] == ["health.circuit_opened", "health.circuit_closed"]
        assert told[0][1]["endpoint"] == "GET account"
        assert transport.figures()["circuits_open"] == 0
        assert transport.figures()["kept_back"] == 3


async def test_one_try_at_a_time(venue):
    """When the pause is over, of many that ask at once one goes out, and the others are kept back until it ends."""
    async with governed(venue.url) as (gateway, _, _):
        await venue.ctl(op="fault", path=ACCOUNT, method="GET", p=1, action="status", status=502, body="")
        for _ in range(3):
            with pytest.raises(VenueDownError):
                await gateway.equity()
        await venue.ctl(op="clear")
        await venue.ctl(op="fault", path=ACCOUNT, method="GET", times=1, action="delay", secs=0.3)
        await asyncio.sleep(0.6)
        ends = await asyncio.gather(*(gateway.equity() for _ in range(8)), return_exceptions=True)

        assert sum(isinstance(end, Decimal) for end in ends) == 1
        assert sum(isinstance(end, VenueDownError) for end in ends) == 7
        assert await requests_met(venue, f"GET {ACCOUNT}") == 1


async def test_a_cancelled_try_leaves_room_for_the_next(venue):
    """A try whose caller gave up is not waited for: the next one may be made at once."""
    async with governed(venue.url) as (gateway, _, _):
        await venue.ctl(op="fault", path=ACCOUNT, method="GET", p=1, action="status", status=502, body="")
        for _ in range(3):
            with pytest.raises(VenueDownError):
                await gateway.equity()
        await venue.ctl(op="clear")
        await venue.ctl(op="fault", path=ACCOUNT, method="GET", times=1, action="delay", secs=5)
        await asyncio.sleep(0.6)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(gateway.equity(), 0.2)

        assert await gateway.equity() > 0


async def test_exits_pass_where_entries_are_kept_back(venue):
    """While orders keep failing, entries are refused with nothing sent; an exit goes out, and its success heals all."""
    async with governed(venue.url) as (gateway, transport, _):
        await gateway.submit(order("qt-open-E1"))
        await venue.ctl(op="clear")
        await venue.ctl(op="fault", path=ORDERS, method="POST", times=3, action="status", status=503, code=-1000)
        for number in range(3):
            with pytest.raises(OutcomeUnknownError):
                await gateway.submit(order(f"qt-f{number}-E1"))
        before = transport.has_capacity()
        with pytest.raises(VenueDownError, match="nothing was sent"):
            await gateway.submit(order("qt-kept-E1"))
        met = await requests_met(venue, f"POST {ORDERS}")
        report = await gateway.submit(an_exit("qt-open-X1"))

        assert (before, met) == (False, 3)
        assert report.status is OrderStatus.FILLED
        assert transport.has_capacity()
        assert (await gateway.submit(order("qt-again-E1"))).status is OrderStatus.FILLED


@pytest.mark.parametrize(
    ("status", "code"), [(400, -2019), (400, -2013), (401, -2015), (400, -1021), (429, -1003), (200, None)]
)
async def test_an_endpoint_that_answers_is_well(venue, status, code):
    """Refusals, unknown orders, wrong keys, clocks and limits are answers: no circuit opens for them."""
    async with governed(venue.url) as (gateway, transport, _):
        body = "{}" if code is None else json.dumps({"code": code, "msg": "no"})
        await venue.ctl(op="fault", path=ACCOUNT, p=1, action="status", status=status, body=body)
        for _ in range(5):
            gateway._closed_until = 0.0
            with pytest.raises(Exception):  # noqa: B017, PT011 - which one is told elsewhere
                await gateway.equity()

        assert transport.circuit("GET", "account").state is CircuitState.CLOSED


async def test_entries_without_room_are_refused_and_exits_go(venue, tmp_path):
    """Once an account's orders are used up to the entries' share, an entry is not sent, and an exit is."""
    limit = Limit(10_000, window_s=60, usual=0.5, orders=((8, 30.0),), order_cost=0.0)
    async with governed(venue.url, tmp_path / "venue.json", limit=limit) as (gateway, transport, _):
        for number in range(4):
            await gateway.submit(order(f"qt-n{number}-E1"))
        await venue.ctl(op="clear")
        room = transport.has_capacity()
        with pytest.raises(RetryableError, match="No room"):
            await gateway.submit(order("qt-n9-E1"))
        for number in range(4):
            await gateway.submit(an_exit(f"qt-n{number}-X1"))

        assert room is False
        assert await requests_met(venue, f"POST {ORDERS}") == 4


async def test_the_venue_s_count_of_orders_is_heard(venue, tmp_path):
    """What the venue says in its headers of an account's orders is taken off the room of all processes."""
    limit = Limit(10_000, orders=((1_000, 10.0),), order_cost=0.0)
    async with governed(venue.url, tmp_path / "venue.json", limit=limit) as (gateway, transport, _):
        headers = {"X-MBX-ORDER-COUNT-10S": "1000"}
        body = '{"code":-2019,"msg":"Margin is insufficient."}'
        await venue.ctl(op="fault", path=ORDERS, times=1, action="status", status=400, body=body, headers=headers)
        with pytest.raises(Exception, match="2019"):
            await gateway.submit(order("qt-h-E1"))
        await gateway.equity()

        assert not transport.has_capacity()


@pytest.mark.parametrize(
    ("status", "headers", "words"), [(429, {"Retry-After": "1"}, ""), (418, {}, "banned until UNTIL")]
)
async def test_a_refusal_closes_the_door_for_every_process(venue, tmp_path, status, headers, words):
    """A 429 or a ban that one gateway meets keeps another one, of another process as it were, from asking anything."""
    path = tmp_path / "venue.json"
    async with governed(venue.url, path) as (one, _, told), governed(venue.url, path) as (other, transport, heard):
        await other.equity()
        words = words.replace("UNTIL", str(one._exchange.milliseconds() + 1_300))
        body = json.dumps({"code": -1003, "msg": f"Too much; {words}."})
        await venue.ctl(op="clear")
        await venue.ctl(op="fault", path=ACCOUNT, times=1, action="status", status=status, headers=headers, body=body)
        with pytest.raises(RateLimitedError):
            await one.equity()
        await asyncio.sleep(0.05)
        for ask in (other.equity, other.positions, lambda: other.submit(an_exit("qt-b-X1"))):
            with pytest.raises(RateLimitedError):
                await ask()
        room = transport.has_capacity()
        met = (await venue.ctl(op="log"))["met"]
        await asyncio.sleep(1.5)

        assert room is False
        assert sum(count for count, _ in met.values()) == 1
        assert await other.equity() > 0
        assert [kind for kind, _ in told][:1] == ["health.rate_paused"]
        assert "health.rate_paused" in [kind for kind, _ in heard]


async def test_the_clients_own_limiter_is_off(venue, tmp_path):
    """The library's own limiter would cost 200 ms an order; ours takes its place, and counts each order."""
    limit = replace(LIMITS["binanceusdm"], used_header=None)
    async with governed(venue.url, tmp_path / "venue.json", limit=limit) as (gateway, _, _):
        await gateway.submit(order("qt-warm-E1"))
        spent_before = json.loads((tmp_path / "venue.json").read_bytes())
        await asyncio.gather(*(gateway.submit(order(f"qt-p{number}-E1")) for number in range(20)))
        spent = json.loads((tmp_path / "venue.json").read_bytes())
        counted = sum(count for _, count in next(iter(spent["orders"].values())))

        assert gateway._exchange.enableRateLimit is False
        assert counted >= 21
        # On this venue an order costs its account, and the address nothing.
        assert sum(cost for _, cost in spent["spent"]) == sum(cost for _, cost in spent_before["spent"])


async def test_a_skewed_clock_opens_no_circuit_and_one_more_try_is_made(venue, tmp_path):
    """With budget and breakers in between, a moved clock still costs one measurement and one more request."""
    async with governed(venue.url, tmp_path / "venue.json") as (gateway, transport, _):
        await venue.ctl(op="skew", ms=600_000)

        assert await gateway.equity() > 0
        assert transport.figures()["circuits_open"] == 0
