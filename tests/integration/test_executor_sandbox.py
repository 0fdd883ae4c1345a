from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from decimal import Decimal
from types import SimpleNamespace

import pytest

from feature_store.clock import monotonic
from feature_store.venue.factory import create_exchange
from inference.domain.order import Purpose
from inference.domain.trade import ExitReason
from inference.exchange.ccxt_gateway import CcxtGateway
from inference.exchange.venue_clock import VenueClock
from inference.execution.book import Book
from inference.execution.executor import Executor
from inference.journal.codec import event_of
from inference.journal.reader import read_entries
from inference.journal.verify import verify
from inference.journal.writer import JournalWriter
from tests.sandbox_support import API_KEY, API_SECRET, running_sandbox
from tests.worker_support import FEE
from tests.worker_values import make_approved

BTC = "BTC/USDT:USDT"


@asynccontextmanager
async def process(sandbox, path):
    """One life of a worker's executing half, on the real exchange through the real gateway, without a user stream."""
    clock = VenueClock(accelerated=True)
    exchange = create_exchange("sandbox", url=sandbox.url, api_key=API_KEY, api_secret=API_SECRET)
    gateway = CcxtGateway(exchange, clock=clock, monotonic=monotonic, leverage=3)
    events = []
    try:
        with JournalWriter.open(path, visit=lambda entry: events.append(event_of(entry))) as journal:
            await gateway.connect()
            await asyncio.sleep(0.1)
            await gateway.sync_clock()
            executor = Executor(
                gateway=gateway,
                journal=journal,
                book=Book.rebuilt(events),
                now_ms=lambda: clock.now_ms(monotonic()),
                monotonic=monotonic,
                sleep=asyncio.sleep,
                taker_fee=FEE,
            )
            await asyncio.wait_for(executor.start(), 200)
            yield SimpleNamespace(executor=executor, gateway=gateway, now_ms=lambda: clock.now_ms(monotonic()))
            await executor.stop()
    finally:
        await gateway.close()


async def approved(life, *, trace_id="first", distance="0.05"):
    instrument = life.gateway.instruments([BTC])[BTC]
    mid = (await life.gateway.quotes())[BTC].mid
    return make_approved(
        BTC,
        quantity=str(instrument.round_quantity(1000 / mid)),
        reference_price=mid,
        stop_price=instrument.round_price(mid * (1 - Decimal(distance))),
        target_price=instrument.round_price(mid * (1 + Decimal(distance))),
        trace_id=trace_id,
    )


async def test_a_trade_lives_and_dies_on_the_real_exchange(tmp_path):
    """Entry, stop and target through ccxt; a second process finds them; a market exit counts every fill and fee."""
    path = tmp_path / "journal.jsonl"
    async with running_sandbox(symbols=3, speed=1, state=tmp_path / "state") as sandbox:
        async with process(sandbox, path) as life:
            approval = await approved(life)
            await sandbox.ctl(op="log", on=True)
            assert await life.executor.enter(approval, candle_close_ms=life.now_ms())
            requests = (await sandbox.ctl(op="log", on=False))["log"]
            resting = await life.gateway.open_orders()
            assert len(resting) == 2

        async with process(sandbox, path) as life:
            assert set(life.executor.book.positions()) == {BTC}
            await life.executor.request_exit(BTC, ExitReason.TIME_BARRIER)
            (result,) = life.executor.closed
            assert await life.gateway.open_orders() == []
            assert await life.gateway.positions() == []

        audit = await sandbox.get("/sandbox/audit")

    assert result.reason is ExitReason.TIME_BARRIER
    assert result.fills_complete
    (trip,) = audit["trades"]
    assert (result.pnl, result.fees) == (Decimal(trip["pnl"]), Decimal(trip["fees"]))
    assert audit["duplicate_client_ids"] == []
    # Nothing is asked or sent between the entry and its stop.
    sent = [(one["method"], one["path"]) for one in requests]
    assert sent[sent.index(("POST", "/fapi/v1/order")) + 1] == ("POST", "/fapi/v1/algoOrder")
    assert verify(path, path.with_suffix(".head")).is_whole
    assert sum(entry.type == "trade.closed" for entry in read_entries(path)) == 1


@pytest.mark.parametrize("purpose", [Purpose.ENTRY, Purpose.STOP, Purpose.EXIT])
async def test_an_answer_that_never_comes_neither_doubles_nor_loses(tmp_path, purpose):
    """The exchange executes and drops the connection: one entry, one stop, one exit, and nothing left over."""
    path = tmp_path / "journal.jsonl"
    fault = {"op": "fault", "method": "POST", "action": "exec_then_drop", "times": 1}
    address = "/fapi/v1/algoOrder" if purpose is Purpose.STOP else "/fapi/v1/order"
    async with (
        running_sandbox(symbols=3, speed=1, state=tmp_path / "state") as sandbox,
        process(sandbox, path) as life,
    ):
        if purpose is not Purpose.EXIT:
            await sandbox.ctl(path=address, **fault)
        assert await life.executor.enter(await approved(life), candle_close_ms=life.now_ms())
        (position,) = await life.gateway.positions()
        assert position.signed_quantity == life.executor.book.positions()[BTC].quantity
        assert len(await life.gateway.open_orders()) == 2

        if purpose is Purpose.EXIT:
            await sandbox.ctl(path=address, **fault)
        await life.executor.request_exit(BTC, ExitReason.OPERATOR)
        assert await life.gateway.positions() == []
        assert await life.gateway.open_orders() == []
        assert life.executor.closed[0].fills_complete
