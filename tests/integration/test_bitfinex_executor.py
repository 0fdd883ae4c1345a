"""The executor trades on the Bitfinex front through the real gateway: the same promises, another venue."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from types import SimpleNamespace

import pytest

from feature_store.clock import monotonic
from feature_store.venue.errors import (
    AccountError,
    OrderRefusedError,
    OutcomeUnknownError,
    RateLimitedError,
    RetryableError,
)
from feature_store.venue.factory import create_exchange
from inference.domain.order import OrderIntent, OrderStatus, OrderType, Purpose, Side
from inference.domain.signal import Direction
from inference.domain.trade import ExitReason
from inference.exchange.bitfinex_gateway import BitfinexGateway
from inference.exchange.bitfinex_stream import BitfinexStream
from inference.exchange.capabilities import CAPABILITIES
from inference.exchange.client_ids import integer_id
from inference.exchange.venue_clock import VenueClock
from inference.execution.book import Book
from inference.execution.executor import Executor
from inference.execution.submission import ExecutionSettings
from inference.journal.codec import event_of
from inference.journal.verify import verify
from inference.journal.writer import JournalWriter
from tests.sandbox_support import API_KEY, API_SECRET, running_sandbox
from tests.worker_support import FEE
from tests.worker_values import make_approved

BTC = "BTC/USDT:USDT"
SUBMIT = "/v2/auth/w/order/submit"


@asynccontextmanager
async def gateway_at(sandbox, *, secret=API_SECRET, accelerated=False):
    """Yield a connected gateway with its client and clock."""
    clock = VenueClock(accelerated=accelerated)
    exchange = create_exchange("sandbox-bitfinex", url=sandbox.url, api_key=API_KEY, api_secret=secret)
    gateway = BitfinexGateway(exchange, clock=clock, monotonic=monotonic, leverage=3)
    try:
        await gateway.connect()
        yield gateway, exchange, clock
    finally:
        await gateway.close()


@asynccontextmanager
async def process(sandbox, path, *, streams=False):
    """One life of a worker's executing half at the Bitfinex front, with a user stream where one is wanted."""
    events = []
    with JournalWriter.open(path, visit=lambda entry: events.append(event_of(entry))) as journal:
        async with gateway_at(sandbox) as (gateway, exchange, clock):
            book = Book.rebuilt(events)
            gateway.remember([key for trade in book.trades.values() for key in trade.orders])
            executor = Executor(
                gateway=gateway,
                journal=journal,
                book=book,
                now_ms=lambda: clock.now_ms(monotonic()),
                monotonic=monotonic,
                sleep=asyncio.sleep,
                taker_fee=FEE,
                settings=ExecutionSettings(target_type=CAPABILITIES["bitfinex"].target_type),
            )
            stream = BitfinexStream(
                exchange,
                reader=gateway,
                on_report=executor.on_report,
                on_fill=executor.on_fill,
                on_gap=lambda _: executor.doubt(),
                monotonic=monotonic,
            )
            following = asyncio.create_task(stream.run()) if streams else None
            if streams:
                assert await stream.connected(within=10)
            await asyncio.wait_for(executor.start(), 200)
            yield SimpleNamespace(
                executor=executor, gateway=gateway, stream=stream, now_ms=lambda: clock.now_ms(monotonic())
            )
            await executor.stop()
            if following is not None:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)


async def approved(life, *, trace_id="first", distance="0.05", direction=Direction.LONG):
    instrument = life.gateway.instruments([BTC])[BTC]
    mid = (await life.gateway.quotes())[BTC].mid
    return make_approved(
        BTC,
        quantity=str(instrument.round_quantity(1000 / mid)),
        reference_price=mid,
        stop_price=instrument.round_price(mid * (1 - Decimal(distance))),
        target_price=instrument.round_price(mid * (1 + Decimal(distance))),
        trace_id=trace_id,
        direction=direction,
    )


def intent(**changes):
    plain = OrderIntent(
        client_order_id="qt-a-E1",
        trade_id="a",
        trace_id="",
        symbol=BTC,
        side=Side.BUY,
        order_type=OrderType.MARKET,
        purpose=Purpose.ENTRY,
        quantity=Decimal("0.01"),
    )
    return replace(plain, **changes)


@pytest.mark.parametrize("streams", [False, True], ids=["rest", "stream"])
async def test_a_trade_lives_and_dies_on_bitfinex(tmp_path, streams):
    """Entry, venue-held stop and target that only reduce; a second process finds all; its exit counts fills."""
    path = tmp_path / "journal.jsonl"
    async with running_sandbox(symbols=3, speed=1, state=tmp_path / "state") as sandbox:
        async with process(sandbox, path, streams=streams) as life:
            approval = await approved(life)
            await sandbox.ctl(op="log", on=True)
            assert await life.executor.enter(approval, candle_close_ms=life.now_ms())
            requests = (await sandbox.ctl(op="log", on=False))["log"]
            stop, target = await life.gateway.open_orders()
            trade = life.executor.book.trades[life.executor.book.positions()[BTC].trade_id]
            assert stop.client_order_id == trade.of(Purpose.STOP)[-1].intent.client_order_id
            # The venue has no order that waits for a target's price: a limit order rests there.
            (held,) = trade.of(Purpose.TARGET)
            assert target.client_order_id == held.intent.client_order_id
            assert (held.intent.order_type, held.intent.limit_price) == (OrderType.LIMIT, approval.target_price)

        async with process(sandbox, path, streams=streams) as life:
            assert set(life.executor.book.positions()) == {BTC}
            assert len(await life.gateway.open_orders()) == 2
            await life.executor.request_exit(BTC, ExitReason.TIME_BARRIER)
            (result,) = life.executor.closed
            assert await life.gateway.open_orders() == []
            assert await life.gateway.positions() == []

        audit = await sandbox.get("/sandbox/audit")

    assert result.fills_complete
    (trip,) = audit["trades"]
    assert (result.pnl, result.fees) == (Decimal(trip["pnl"]), Decimal(trip["fees"]))
    assert audit["duplicate_client_ids"] == []
    submits = [one["body"] for one in requests if one["path"].endswith(SUBMIT)]
    assert len(submits) == 3
    assert all('"flags":1024' in one.replace(" ", "") for one in submits[1:])
    assert verify(path, path.with_suffix(".head")).is_whole


@pytest.mark.parametrize("purpose", [Purpose.ENTRY, Purpose.STOP, Purpose.TARGET, Purpose.EXIT])
@pytest.mark.parametrize("action", ["exec_then_drop", "exec_then_status", "drop", "exec_then_truncate"])
async def test_an_answer_that_never_comes_neither_doubles_nor_loses(tmp_path, purpose, action):
    """Executed or not, its answer lost, cut or another's: one entry, one stop, one target, one exit, nothing over."""
    path = tmp_path / "journal.jsonl"
    fault = {
        "op": "fault",
        "method": "POST",
        "path": SUBMIT,
        "action": action,
        "times": 1,
        "status": 502,
        "body": "<html>",
    }
    async with (
        running_sandbox(symbols=3, speed=1, state=tmp_path / "state") as sandbox,
        process(sandbox, path) as life,
    ):
        if purpose is Purpose.ENTRY:
            await sandbox.ctl(**fault)
        elif purpose is not Purpose.EXIT:
            submit, seen = life.gateway.submit, []

            async def fault_the_first(one):
                if one.purpose is purpose and not seen:
                    seen.append(await sandbox.ctl(**fault))
                return await submit(one)

            life.gateway.submit = fault_the_first
        assert await life.executor.enter(await approved(life), candle_close_ms=life.now_ms())
        (position,) = await life.gateway.positions()
        assert position.signed_quantity == life.executor.book.positions()[BTC].quantity
        assert len(await life.gateway.open_orders()) == 2

        if purpose is Purpose.EXIT:
            await sandbox.ctl(**fault)
        await life.executor.request_exit(BTC, ExitReason.OPERATOR)
        assert await life.gateway.positions() == []
        assert await life.gateway.open_orders() == []
        assert life.executor.closed[0].fills_complete
        audit = await sandbox.get("/sandbox/audit")
    assert len(audit["trades"]) == 1
    assert audit["duplicate_client_ids"] == []


async def test_orders_are_found_by_cid_and_day_and_after_a_restart_by_looking(tmp_path):
    """An order lost on its way back is asked for by number and date; who was restarted looks through what is open."""
    async with running_sandbox(symbols=1, speed=1, state=tmp_path / "state") as sandbox:
        lost = intent(client_order_id="qt-a-S1", purpose=Purpose.STOP, side=Side.SELL, order_type=OrderType.STOP_MARKET)
        async with gateway_at(sandbox) as (gateway, _, _):
            await gateway.submit(intent())
            mid = (await gateway.quote(BTC)).mid
            lost = replace(lost, trigger_price=mid * Decimal("0.9"))
            await sandbox.ctl(op="fault", path=SUBMIT, method="POST", action="exec_then_drop", times=1)
            with pytest.raises(OutcomeUnknownError):
                await gateway.submit(lost)
            await sandbox.ctl(op="log", on=True)
            found = await gateway.query(lost)
            log = (await sandbox.ctl(op="log", on=False))["log"]
            assert found.status is OrderStatus.ACCEPTED
            assert len(log) == 1
            assert f'"cid":{integer_id("qt-a-S1")}' in log[0]["body"].replace(" ", "")
            assert '"cid_date"' in log[0]["body"]
            with pytest.raises(OutcomeUnknownError, match="duplicate cid"):
                await gateway.submit(lost)
            assert await gateway.query(intent(client_order_id="qt-a-E9")) is None
        async with gateway_at(sandbox) as (gateway, _, _):
            (stranger,) = await gateway.open_orders()
            assert stranger.client_order_id == f"cid:{integer_id('qt-a-S1')}"
            gateway.remember(["qt-a-S1", "qt-a-E1"])
            (known,) = await gateway.open_orders()
            assert known.client_order_id == "qt-a-S1"
            assert (await gateway.query(intent())).status is OrderStatus.FILLED
            assert (await gateway.cancel(lost)).status is OrderStatus.CANCELED
            assert await gateway.cancel(lost) is None
            (fill,) = await gateway.fills(BTC, 0)
            assert (fill.client_order_id, fill.quantity) == ("qt-a-E1", Decimal("0.01"))
            assert fill.fee == fill.price * fill.quantity * Decimal("0.0005")


async def test_funding_is_read_from_the_ledger(tmp_path):
    """A position held over the hour pays once, of its contract, and what is read adds up to the venue's own account."""
    hourly = {"funding_hours": 1, "start": "2026-01-05T07:55:00Z"}
    async with (
        running_sandbox(symbols=1, speed=60, seed=3, state=tmp_path / "funded", **hourly) as sandbox,
        gateway_at(sandbox, accelerated=True) as (gateway, _, _),
    ):
        await gateway.submit(intent(quantity=Decimal("0.1")))
        async with asyncio.timeout(60):
            while not await gateway.funding(0):  # noqa: ASYNC110 - the venue is asked, nothing here wakes us
                await asyncio.sleep(0.2)
        await sandbox.ctl(op="stand_still")
        paid = await gateway.funding(0)
        audit = await sandbox.get("/sandbox/audit")
        assert {one.symbol for one in paid} == {BTC}
        assert sum(one.amount for one in paid) == Decimal(audit["funding"]) != 0
        assert await gateway.funding(paid[-1].event_time_ms + 1) == []


async def test_what_fails_becomes_its_one_reaction(tmp_path):
    """Refusals, rate limits, maintenance, small nonces, unknown errors, pages and wrong keys each have one meaning."""
    async with running_sandbox(symbols=1, speed=1, state=tmp_path / "state") as sandbox:
        async with gateway_at(sandbox) as (gateway, exchange, _):
            assert gateway.closed_seconds == 0
            fault = {"op": "fault", "path": SUBMIT, "method": "POST", "times": 1, "action": "status"}
            with pytest.raises(OrderRefusedError) as refused:
                await gateway.submit(intent(order_type=OrderType.TAKE_PROFIT_MARKET, trigger_price=Decimal(1)))
            assert refused.value.code == "ORDER_TYPE_NOT_OFFERED"
            with pytest.raises(OrderRefusedError, match="not enough tradable balance") as refused:
                await gateway.submit(intent(quantity=Decimal(9)))
            assert refused.value.code == 10_001
            with pytest.raises(OrderRefusedError) as refused:
                await gateway.submit(intent(client_order_id="qt-a-X1", purpose=Purpose.EXIT, side=Side.SELL))
            assert refused.value.code == -2022
            for body, status, kind in (
                ('["error",10114,"nonce: small"]', 500, RetryableError),
                ('["error",10000,"unknown"]', 500, OutcomeUnknownError),
                ('["error",10001,"api_key: permission invalid"]', 500, AccountError),
                ('["error",20060,"maintenance"]', 500, OutcomeUnknownError),
                ("<html>busy</html>", 500, OutcomeUnknownError),
                ("<html>busy</html>", 502, OutcomeUnknownError),
                ("<html>busy</html>", 200, OutcomeUnknownError),
                ("[]", 200, OutcomeUnknownError),
            ):
                await sandbox.ctl(**fault, body=body, status=status)
                with pytest.raises(kind):
                    await gateway.submit(intent(client_order_id="qt-a-E2"))
            assert await gateway.query(intent(client_order_id="qt-a-E2")) is None
            nonce = exchange.options["lastNonce"]
            exchange.options["lastNonce"] = 0
            exchange.nonce = lambda: nonce - 5
            with pytest.raises(RetryableError, match="nonce"):
                await gateway.wallet()
            # A quick venue answers more often than once a millisecond: the count runs ahead of the clock.
            exchange.nonce, exchange.options["lastNonce"] = exchange.milliseconds, nonce
            await gateway.wallet()
            await sandbox.ctl(**fault, status=429)
            with pytest.raises(RateLimitedError):
                await gateway.submit(intent(client_order_id="qt-a-E3"))
            assert gateway.closed_seconds > 0
        with pytest.raises(AccountError, match="digest invalid"):
            async with gateway_at(sandbox, secret="wrong"):
                pass


async def test_many_requests_at_once_never_overtake_each_other(tmp_path):
    """Thirty private requests at a time, none of them refused for its nonce."""
    async with running_sandbox(symbols=1, speed=1, state=tmp_path / "state") as sandbox, gateway_at(sandbox) as one:
        gateway = one[0]
        found = await asyncio.gather(*(gateway.wallet() for _ in range(30)))
        assert set(found) == {Decimal(10_000)}


async def test_the_clock_of_a_fast_venue_is_learned_from_dates(tmp_path):
    """At sixty times the wall's speed the rate is right within a few per cent, and the time within a venue second."""
    async with (
        running_sandbox(symbols=1, speed=60, state=tmp_path / "state") as sandbox,
        gateway_at(sandbox, accelerated=True) as (gateway, _, clock),
    ):
        # On a busy machine answers come late, and more of them are needed.
        for asked in range(60):
            await asyncio.sleep(0.3)
            await gateway.sync_clock()
            if asked >= 4 and clock.rate == pytest.approx(60, rel=0.05):
                break
        assert clock.rate == pytest.approx(60, rel=0.05)
        status = await sandbox.get("/sandbox/status")
        assert abs(clock.now_ms(monotonic()) - status["now_ms"]) < 60 * 500


async def test_a_stream_that_dies_is_opened_again_and_its_silence_noticed(tmp_path):
    """Closed, cut or swallowed: the stream is opened anew, and the executor is told to look by itself."""
    path = tmp_path / "journal.jsonl"
    async with (
        running_sandbox(symbols=1, speed=1, state=tmp_path / "state") as sandbox,
        process(sandbox, path, streams=True) as life,
    ):
        for operation in ({"op": "kill_ws"}, {"op": "kill_ws", "hard": True}):
            before = life.stream.reconnects
            await sandbox.ctl(**operation)
            async with asyncio.timeout(20):
                while life.stream.reconnects == before or not life.stream.is_connected:  # noqa: ASYNC110 - polled
                    await asyncio.sleep(0.05)
        before = life.stream.reconnects
        await sandbox.ctl(op="black_hole", on=True)
        async with asyncio.timeout(10):
            while life.stream.reconnects == before:  # noqa: ASYNC110 - polled
                await asyncio.sleep(0.05)
        await sandbox.ctl(op="black_hole", on=False)
        assert await life.stream.connected(within=30)
