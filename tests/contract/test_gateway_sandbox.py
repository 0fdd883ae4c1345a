"""The gateway keeps the port's promises at the real sandbox, over unmodified ccxt."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from decimal import Decimal
from functools import partial
from types import SimpleNamespace

import pytest

from feature_store.clock import monotonic
from feature_store.venue.errors import (
    AccountError,
    OrderRefusedError,
    OutcomeUnknownError,
    RateLimitedError,
    RequestRefusedError,
    RetryableError,
)
from feature_store.venue.factory import create_exchange
from inference.domain.order import OrderIntent, OrderStatus, OrderType, Purpose, Side
from inference.exchange.ccxt_gateway import CcxtGateway
from inference.exchange.user_stream import UserStream
from inference.exchange.venue_clock import VenueClock
from tests.paper_support import paper_gateway_at
from tests.sandbox_support import running_sandbox

BTC = "BTC/USDT:USDT"
ETH = "ETH/USDT:USDT"


@asynccontextmanager
async def gateway_at(
    url, *, key="sandbox-key", secret="sandbox-secret", connect=True, clock=monotonic, accelerated=True
):
    """Yield a connected gateway and its ccxt client."""
    exchange = create_exchange("sandbox", url=url, api_key=key, api_secret=secret)
    gateway = CcxtGateway(exchange, clock=VenueClock(accelerated=accelerated), monotonic=clock, leverage=3)
    try:
        if connect:
            await gateway.connect()
        yield gateway, exchange
    finally:
        await gateway.close()


@pytest.fixture(params=["venue", "paper"])
def account_at(request, tmp_path):
    """Return what opens an account at a sandbox: the venue's own, or one on paper beside its market."""
    return gateway_at if request.param == "venue" else partial(paper_gateway_at, file=tmp_path / "paper" / "a.json")


@pytest.fixture
async def sandbox(tmp_path):
    """Run a sandbox with three instruments at ten times the wall's speed."""
    async with running_sandbox(symbols=3, speed=10, seed=3, state=tmp_path / "sandbox") as running:
        yield running


def market(key: str, *, symbol=BTC, side=Side.BUY, quantity="0.01", purpose=Purpose.ENTRY) -> OrderIntent:
    """Return a market order."""
    return OrderIntent(
        client_order_id=key,
        trade_id=key,
        trace_id="",
        symbol=symbol,
        side=side,
        order_type=OrderType.MARKET,
        purpose=purpose,
        quantity=Decimal(quantity),
    )


def stop_order(key: str, trigger: Decimal, *, symbol=BTC, quantity="0.01") -> OrderIntent:
    """Return a reduce-only stop below a long."""
    return OrderIntent(
        client_order_id=key,
        trade_id=key,
        trace_id="",
        symbol=symbol,
        side=Side.SELL,
        order_type=OrderType.STOP_MARKET,
        purpose=Purpose.STOP,
        quantity=Decimal(quantity),
        trigger_price=trigger,
    )


async def price_of(gateway, symbol=BTC) -> Decimal:
    """Return the middle of bid and ask, on the instrument's ticks."""
    instrument = gateway.instruments([symbol])[symbol]
    return instrument.round_price((await gateway.quotes())[symbol].mid)


async def test_market_order_is_reported_with_its_fill(sandbox, account_at):
    """A market entry comes back filled, and order, position, execution and equity agree on it."""
    async with account_at(sandbox.url) as (gateway, _):
        before = await gateway.venue_now_ms()
        report = await submit(gateway, market("qt-a-E1"))
        positions = await gateway.positions()
        fills = await gateway.fills(BTC, before - 60_000)
        found = await gateway.query(market("qt-a-E1"))

        assert report.status is OrderStatus.FILLED
        assert report.filled == Decimal("0.01")
        assert [(one.symbol, one.signed_quantity) for one in positions] == [(BTC, Decimal("0.01"))]
        assert sum(one.quantity for one in fills) == Decimal("0.01")
        assert {one.venue_order_id for one in fills} == {report.venue_order_id}
        assert all(one.fee > 0 for one in fills)
        assert found is not None
        assert found.average_price == report.average_price
        assert await gateway.wallet() < 10_000
        assert await gateway.equity() == pytest.approx(Decimal(10_000), abs=Decimal(100))


async def test_stop_rests_is_listed_and_can_be_cancelled(sandbox, account_at):
    """A stop is accepted by the conditional endpoint, listed among open orders and gone after its cancel."""
    async with account_at(sandbox.url) as (gateway, _):
        await submit(gateway, market("qt-b-E1"))
        stop = stop_order("qt-b-S1", await price_of(gateway) * Decimal("0.9") // 1)
        accepted = await submit(gateway, stop)
        listed = await gateway.open_orders()
        cancelled = await gateway.cancel(stop)
        again = await gateway.cancel(stop)

        assert accepted.status is OrderStatus.ACCEPTED
        assert [one.client_order_id for one in listed] == ["qt-b-S1"]
        assert cancelled is not None
        assert cancelled.status is OrderStatus.CANCELED
        assert again is None or again.status is OrderStatus.CANCELED
        assert await gateway.open_orders() == []


async def test_fired_stop_is_followed_to_its_child(tmp_path, account_at):
    """After the price went through a stop, the query tells the child order's fill, not the stop's own nought."""
    async with (
        running_sandbox(symbols=1, speed=600, seed=3, state=tmp_path / "fast") as sandbox,
        account_at(sandbox.url) as (gateway, _),
    ):
        await submit(gateway, market("qt-c-E1"))
        stop = await stop_below_market(gateway)
        seen_status = set()
        report = None
        async with asyncio.timeout(200):
            while report is None or not report.status.is_terminal:
                report = await gateway.query(stop)
                assert report is not None
                seen_status.add(report.status)
                await asyncio.sleep(0.05)

        assert report.status is OrderStatus.FILLED, seen_status
        assert report.filled == Decimal("0.01")
        assert report.child_order_id is not None
        assert report.child_order_id != report.venue_order_id
        assert await gateway.positions() == []
        fills = await gateway.fills(BTC, 0)
        assert fills[-1].venue_order_id == report.child_order_id


async def stop_below_market(gateway) -> OrderIntent:
    """Place a stop a little below the market, again where the market was there first."""
    tick = gateway.instruments([BTC])[BTC].price_tick
    for attempt in range(50):
        stop = stop_order(f"qt-c-S{attempt}", await price_of(gateway) - 20 * tick)
        try:
            await submit(gateway, stop)
        except OrderRefusedError as refusal:
            if refusal.code != -2021:
                raise
        else:
            return stop
    raise AssertionError("The market was always faster")


async def test_unknown_order_is_none(sandbox, account_at):
    """What the venue has never heard of is None, plain and conditional."""
    async with account_at(sandbox.url) as (gateway, _):
        assert await gateway.query(market("qt-nobody-E1")) is None
        assert await gateway.query(stop_order("qt-nobody-S1", Decimal(1))) is None
        assert await gateway.cancel(market("qt-nobody-E1")) is None


async def test_refusals_carry_the_venues_code(sandbox, account_at):
    """What the venue refused is refused, with its number, and nothing was executed."""
    async with account_at(sandbox.url) as (gateway, _):
        with pytest.raises(OrderRefusedError) as too_much:
            await submit(gateway, market("qt-d-E1", quantity="900"))
        with pytest.raises(OrderRefusedError) as nothing_to_reduce:
            await submit(gateway, market("qt-d-X1", side=Side.SELL, purpose=Purpose.EXIT))
        await submit(gateway, market("qt-d-E2"))
        with pytest.raises(OrderRefusedError) as crossed:
            await submit(gateway, stop_order("qt-d-S1", await price_of(gateway) * 2 // 1))

        assert too_much.value.code in (-2019, -2027, -4005)
        assert nothing_to_reduce.value.code == -2022
        assert crossed.value.code == -2021


async def test_id_of_an_open_order_means_that_it_exists(sandbox, account_at):
    """Sending an id twice while its order rests is no refusal: the order is there, and the query finds it."""
    async with account_at(sandbox.url) as (gateway, _):
        await submit(gateway, market("qt-e-E1"))
        stop = stop_order("qt-e-S1", await price_of(gateway) * Decimal("0.9") // 1)
        await submit(gateway, stop)
        with pytest.raises((OutcomeUnknownError, OrderRefusedError)) as caught:
            await submit(gateway, stop)
        found = await gateway.query(stop)

        assert isinstance(caught.value, OutcomeUnknownError), caught.value
        assert found is not None
        assert len(await gateway.open_orders()) == 1


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"action": "exec_then_drop"}, id="executed-then-cut-off"),
        pytest.param({"action": "exec_then_status", "status": 503}, id="executed-then-503"),
        pytest.param({"action": "exec_then_hang", "secs": 60}, id="executed-then-silence"),
        pytest.param({"action": "status", "status": 200, "body": "<html>busy</html>"}, id="html-with-200"),
        pytest.param({"action": "status", "status": 200, "body": "{}"}, id="empty-object"),
        pytest.param({"action": "status", "status": 200, "body": '{"orderId": 12'}, id="truncated-json"),
        pytest.param({"action": "status", "status": 502, "body": "bad gateway"}, id="502"),
    ],
)
async def test_hostile_replies_leave_the_outcome_unknown(sandbox, fault):
    """Whatever the venue answers short of proof, the outcome is unknown, and the query settles it."""
    async with gateway_at(sandbox.url) as (gateway, exchange):
        await submit(gateway, market("qt-warm-E1", symbol=ETH, quantity="0.1"))
        await submit(gateway, market("qt-warm-E2", quantity="0.005"))
        await sandbox.ctl(op="fault", path="/fapi/v1/order", method="POST", times=1, **fault)
        intent = market("qt-f-E1")
        await gateway.sync_clock()
        exchange.timeout = 4000 if fault["action"] == "exec_then_hang" else exchange.timeout
        with pytest.raises(OutcomeUnknownError):
            await gateway.submit(intent)
        exchange.timeout = 10_000
        found = await gateway.query(intent)
        position = next(one for one in await gateway.positions() if one.symbol == BTC)

        executed = str(fault["action"]).startswith("exec")
        assert (found is not None) is executed
        assert position.signed_quantity == (Decimal("0.015") if executed else Decimal("0.005"))


async def test_garbage_on_reads_is_worth_another_try(sandbox):
    """A read that brings HTML, nothing or half an answer raises something that asking again mends."""
    async with gateway_at(sandbox.url) as (gateway, _):
        for path, read in (
            ("/fapi/v3/account", gateway.equity),
            ("/fapi/v3/positionRisk", gateway.positions),
            ("/fapi/v1/ticker/bookTicker", gateway.quotes),
        ):
            for body in ("<html>", "{}", ""):
                await sandbox.ctl(op="fault", path=path, method="GET", times=1, action="status", status=200, body=body)
                with pytest.raises(RetryableError):
                    await read()
            assert await read() is not None


async def test_rate_limit_closes_the_door_for_everything(tmp_path):
    """After a 429 no request leaves until its Retry-After has passed."""
    passed = 0.0
    async with (
        running_sandbox(symbols=3, speed=1, state=tmp_path / "sandbox") as sandbox,
        gateway_at(sandbox.url, clock=lambda: monotonic() + passed, accelerated=False) as (gateway, _),
    ):
        await sandbox.ctl(
            op="fault",
            path="/fapi/v3/account",
            method="GET",
            times=1,
            action="status",
            status=429,
            headers={"Retry-After": "600"},
            body='{"code":-1003,"msg":"Too many requests."}',
        )
        with pytest.raises(RateLimitedError):
            await gateway.equity()
        requests = (await sandbox.get("/sandbox/status"))["requests"]
        with pytest.raises(RateLimitedError):
            await gateway.positions()
        unchanged = (await sandbox.get("/sandbox/status"))["requests"]
        passed = 601.0

        assert unchanged - requests <= 1
        assert await gateway.equity() > 0


async def test_moved_clock_is_learned_again(sandbox):
    """When the venue's clock was moved by minutes, the next request measures it and goes through."""
    async with gateway_at(sandbox.url) as (gateway, _):
        await sandbox.ctl(op="skew", ms=600_000)

        assert await gateway.equity() > 0

        await gateway.sync_clock()
        now_ms = (await sandbox.get("/sandbox/status"))["now_ms"]
        assert 500_000 < await gateway.venue_now_ms() - now_ms < 2_000_000


async def test_wrong_keys_are_one_clear_error(sandbox):
    """A key that the venue does not know cannot connect, and the error says what to check."""
    async with gateway_at(sandbox.url, key="wrong", secret="wrong", connect=False) as (gateway, _):
        with pytest.raises((AccountError, RequestRefusedError)) as caught:
            await gateway.connect()

        assert isinstance(caught.value, AccountError)
        assert "QT_API_KEY" in str(caught.value)


async def test_instruments_have_exact_steps(sandbox, account_at):
    """Steps and minimums are the venue's own digits."""
    async with account_at(sandbox.url) as (gateway, _):
        symbols = gateway.tradable_symbols()
        instruments = gateway.instruments(symbols)

        assert BTC in symbols
        assert instruments[BTC].quantity_step == Decimal("0.001")
        assert all(one.price_tick > 0 and one.min_notional > 0 for one in instruments.values())


async def test_funding_is_read_and_told_of(tmp_path):
    """A position held over the hour pays once: the stream tells, and the list holds what the venue's audit says."""
    hourly = {"funding_hours": 1, "start": "2026-01-05T07:55:00Z"}
    async with (
        running_sandbox(symbols=3, speed=60, seed=3, state=tmp_path / "funded", **hourly) as sandbox,
        gateway_at(sandbox.url) as (gateway, exchange),
        user_stream_of(exchange) as (_, told),
    ):
        since_ms = await gateway.venue_now_ms()
        for place, symbol in enumerate((BTC, ETH)):
            await gateway.submit(market(f"qt-f-E{place}", symbol=symbol, quantity="0.1"))
        await until(lambda: told.funding)
        await sandbox.ctl(op="stand_still")
        paid = await gateway.funding(since_ms)
        audit = await sandbox.get("/sandbox/audit")

        assert {one.symbol for one in paid} == {BTC, ETH}
        assert len(told.funding) == len(paid) == len({one.transaction_id for one in paid})
        assert sum(one.amount for one in paid) == Decimal(audit["funding"]) != 0
        assert await gateway.funding(paid[-1].event_time_ms + 1) == []


async def test_paper_funding_is_what_the_venue_would_have_paid(tmp_path):
    """A paper position held over the hour pays once, at the rate that the venue announced."""
    hourly = {"funding_hours": 1, "start": "2026-01-05T07:55:00Z"}
    async with (
        running_sandbox(symbols=3, speed=60, seed=3, state=tmp_path / "funded", **hourly) as sandbox,
        paper_gateway_at(sandbox.url, file=tmp_path / "paper.json") as (gateway, told),
    ):
        since_ms = await gateway.venue_now_ms()
        for place, symbol in enumerate((BTC, ETH)):
            await submit(gateway, market(f"qt-f-E{place}", symbol=symbol, quantity="0.1"))
        await until(lambda: len(told.funding) >= 2)
        paid = {one.symbol: one for one in await gateway.funding(since_ms)}
        held = {one.symbol: one for one in await gateway.positions()}
        history = (await sandbox.get("/fapi/v1/fundingRate?symbol=BTCUSDT"))[-1]
        audit = await sandbox.get("/sandbox/audit")

        assert paid.keys() == {BTC, ETH}
        assert paid[BTC].event_time_ms == history["fundingTime"]
        expected = -held[BTC].signed_quantity * Decimal(history["markPrice"]) * Decimal(history["fundingRate"])
        assert paid[BTC].amount == pytest.approx(expected, rel=Decimal("0.01"))
        assert Decimal(audit["wallet"]) == 10_000


OPENED = "the stream was opened"


@asynccontextmanager
async def user_stream_of(exchange):
    """Follow the account; yield the stream, once it is open, and what it tells."""
    told = SimpleNamespace(reports=[], fills=[], gaps=[], funding=[])
    stream = UserStream(
        exchange,
        on_report=told.reports.append,
        on_fill=told.fills.append,
        on_gap=told.gaps.append,
        monotonic=monotonic,
        keep_alive_seconds=0.5,
        on_funding=lambda: told.funding.append(1),
    )
    following = asyncio.create_task(stream.run())
    try:
        assert await stream.connected(within=60)
        await until(lambda: OPENED in told.gaps)
        yield stream, told
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def test_user_stream_loses_nothing_that_comes_at_once(sandbox):
    """Acceptance and fill of a market order come in one breath, and each is told, order after order."""
    async with gateway_at(sandbox.url) as (gateway, exchange), user_stream_of(exchange) as (_, told):
        keys = [f"qt-g-E{number}" for number in range(1, 13)]
        for key in keys:
            await submit(gateway, market(key, quantity="0.001"))
            await until(lambda key=key: any(one.client_order_id == key for one in told.fills))
            await until(lambda key=key: statuses(told, key)[-1:] == [OrderStatus.FILLED])

        assert [statuses(told, key) for key in keys] == [[OrderStatus.ACCEPTED, OrderStatus.FILLED]] * len(keys)
        assert [one.client_order_id for one in told.fills] == keys


async def test_user_stream_tells_of_orders_and_recovers(sandbox):
    """After a cut and after a lost key the stream opens again, says that it missed some, and misses nothing more."""
    async with gateway_at(sandbox.url) as (gateway, exchange), user_stream_of(exchange) as (stream, told):
        assert told.gaps == [OPENED]
        for number, harm in enumerate(({"op": "kill_ws", "hard": True}, {"op": "expire_key"}), start=1):
            await sandbox.ctl(**harm)
            await until(lambda number=number: told.gaps.count(OPENED) == number + 1)
            await submit(gateway, market(f"qt-h-E{number}"))
            await until(lambda number=number: statuses(told, f"qt-h-E{number}")[-1:] == [OrderStatus.FILLED])

        interruptions = [gap for gap in told.gaps if gap != OPENED]
        assert len(interruptions) == stream.reconnects >= 2
        assert told.gaps[-1] == OPENED


async def test_user_stream_finds_a_fill_made_while_it_was_cut(sandbox):
    """What is filled while no stream is open is on no stream; the gap is said after it, at opening, so REST has it."""
    async with gateway_at(sandbox.url) as (gateway, exchange), user_stream_of(exchange) as (_, told):
        await sandbox.ctl(op="fault", path="/fapi/v1/listenKey", method="POST", p=1, action="status", status=503)
        await sandbox.ctl(op="expire_key")
        await until(lambda: len(told.gaps) >= 2)
        await submit(gateway, market("qt-i-E1"))
        missed = statuses(told, "qt-i-E1")
        await sandbox.ctl(op="clear")
        await until(lambda: told.gaps.count(OPENED) == 2)
        found = await gateway.query(market("qt-i-E1"))

        assert missed == statuses(told, "qt-i-E1") == []
        assert found is not None
        assert found.status is OrderStatus.FILLED


def statuses(told, key: str) -> list[OrderStatus]:
    """Return what the stream said of one order, in order."""
    return [one.status for one in told.reports if one.client_order_id == key]


async def submit(gateway, intent: OrderIntent):
    """Submit with the venue's time just measured: what is known of a fast clock's rate grows old, as in the worker."""
    await gateway.sync_clock()
    return await gateway.submit(intent)


async def seen(what, *, within) -> bool:
    """Wait for something to become true, and tell whether it did."""
    deadline = monotonic() + within
    while not what():
        if monotonic() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True


async def until(what, *, within=60.0) -> None:
    """Wait for something to become true, or fail."""
    assert await seen(what, within=within), "it did not happen in time"
