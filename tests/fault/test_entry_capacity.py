"""Entries without room among the venue's limits: through the real executor, unmodified ccxt and the real sandbox."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from decimal import Decimal
from types import SimpleNamespace

import pytest

from feature_store.clock import monotonic
from feature_store.venue.budget import Limit, RateBudget
from feature_store.venue.factory import create_exchange
from inference.domain.trade import ExitReason
from inference.exchange.ccxt_gateway import CcxtGateway
from inference.exchange.circuit import CircuitRules
from inference.exchange.transport import TransportSettings, govern
from inference.exchange.venue_clock import VenueClock
from inference.execution.book import Book
from inference.execution.entry_door import DENIED, NO_RATE_CAPACITY
from inference.execution.executor import Executor
from inference.journal.reader import read_entries
from inference.journal.writer import JournalWriter
from tests.sandbox_support import API_KEY, API_SECRET, running_sandbox
from tests.worker_support import FEE
from tests.worker_values import make_approved

BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"
ORDERS = "/fapi/v1/order"
# Ten orders in ten minutes, five of them for entries: the rest is for what protects.
TIGHT = Limit(100_000, window_s=600, usual=0.5, orders=((10, 600.0),), order_cost=0.0)


@asynccontextmanager
async def desk(url, folder, *, limit=TIGHT):
    """One executor whose client is governed and whose entries ask for room, as in the worker."""
    exchange = create_exchange("sandbox", url=url, api_key=API_KEY, api_secret=API_SECRET)
    transport = govern(
        exchange,
        budget=RateBudget(folder / "budget.json", limit),
        monotonic=monotonic,
        settings=TransportSettings(circuit=CircuitRules(failures=3, first_pause_s=20.0, longest_pause_s=20.0)),
    )
    clock = VenueClock(accelerated=True)
    gateway = CcxtGateway(exchange, clock=clock, monotonic=monotonic, leverage=3)
    try:
        with JournalWriter.open(folder / "journal.jsonl") as journal:
            await gateway.connect()
            executor = Executor(
                gateway=gateway,
                journal=journal,
                book=Book(),
                now_ms=lambda: clock.now_ms(monotonic()),
                monotonic=monotonic,
                sleep=asyncio.sleep,
                taker_fee=FEE,
                no_capacity=transport.no_room_for_entry,
            )
            await asyncio.wait_for(executor.start(), 200)
            yield SimpleNamespace(
                executor=executor, gateway=gateway, transport=transport, now_ms=lambda: clock.now_ms(monotonic())
            )
            await executor.stop()
    finally:
        await gateway.close()
        await transport.close()


async def approved(life, symbol, trace_id):
    """Return an approval of a small long position at the present price."""
    instrument = life.gateway.instruments([symbol])[symbol]
    mid = (await life.gateway.quotes())[symbol].mid
    return make_approved(
        symbol,
        quantity=str(instrument.round_quantity(1000 / mid)),
        reference_price=mid,
        stop_price=instrument.round_price(mid * Decimal("0.95")),
        target_price=instrument.round_price(mid * Decimal("1.05")),
        trace_id=trace_id,
    )


def denials(folder):
    """Return what the journal says of entries that were held back."""
    return [entry for entry in read_entries(folder / "journal.jsonl") if entry.type == DENIED]


async def met(sandbox, path=ORDERS):
    """Return how many orders have come to the venue since the last clearing."""
    return (await sandbox.ctl(op="log"))["met"].get(f"POST {path}", [0, 0])[0]


async def test_without_room_nothing_is_entered_and_what_protects_goes_out(tmp_path):
    """
    The first entry takes three of five orders, so that the second is denied before anything is sent.

    Exits still go out: the first position is left at market, and its orders are cancelled.
    """
    async with (
        running_sandbox(symbols=3, speed=1, state=tmp_path / "s") as sandbox,
        desk(sandbox.url, tmp_path) as life,
    ):
        first = await life.executor.enter(await approved(life, BTC, "first"), candle_close_ms=life.now_ms())
        resting = await life.gateway.open_orders()
        await sandbox.ctl(op="clear")
        second = await life.executor.enter(await approved(life, ETH, "second"), candle_close_ms=life.now_ms())
        sent = await met(sandbox)
        await life.executor.request_exit(BTC, ExitReason.OPERATOR)
        held = await life.gateway.positions()
        left = await life.gateway.open_orders()

    assert (first, second, sent) == (True, False, 0)
    assert len(resting) == 2
    assert (held, left) == ([], [])
    (denied,) = denials(tmp_path)
    assert denied.trace_id == "second"
    assert denied.data["code"] == NO_RATE_CAPACITY
    assert "no room for 3 orders" in denied.data["reason"]
    assert life.executor.door.denied == {NO_RATE_CAPACITY: 1}


async def test_room_that_goes_while_an_entry_is_on_its_way_does_not_cost_its_stop(tmp_path):
    """Entries of others use up their share once ours was sent: its stop and target are placed all the same."""
    async with (
        running_sandbox(symbols=3, speed=1, state=tmp_path / "s") as sandbox,
        desk(sandbox.url, tmp_path) as life,
    ):
        submit = life.gateway.submit

        async def submit_then_run_out(intent):
            report = await submit(intent)
            if not intent.reduce_only:
                life.transport._budget._orders_reported[life.transport._account] = (monotonic(), {600.0: 5.0})
                await life.gateway.equity()
            return report

        life.gateway.submit = submit_then_run_out
        entered = await life.executor.enter(await approved(life, BTC, "first"), candle_close_ms=life.now_ms())
        room = life.transport.has_capacity()
        resting = await life.gateway.open_orders()

    assert (entered, room) == (True, False)
    assert len(resting) == 2
    assert denials(tmp_path) == []


@pytest.mark.parametrize("path", [ORDERS, "/fapi/v1/algoOrder"])
async def test_an_endpoint_that_fails_lets_nothing_be_entered(tmp_path, path):
    """While orders, or the stops that follow them, keep failing, the next entry is denied with the endpoint's name."""
    async with (
        running_sandbox(symbols=3, speed=1, state=tmp_path / "s") as sandbox,
        desk(sandbox.url, tmp_path) as life,
    ):
        for _ in range(3):
            life.transport._failed(f"POST {path.rsplit('/', 1)[1]}", ConnectionError("503"))
        await sandbox.ctl(op="clear")
        entered = await life.executor.enter(await approved(life, BTC, "first"), candle_close_ms=life.now_ms())
        sent = await met(sandbox)

    assert (entered, sent) == (False, 0)
    (denied,) = denials(tmp_path)
    assert path.rsplit("/", 1)[1] in denied.data["reason"]
