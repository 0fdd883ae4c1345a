"""Two real workers and one account: at no moment do both trade it, however the first is held up."""

from __future__ import annotations

import asyncio
import json
import signal
from decimal import Decimal
from pathlib import Path

import pytest

from feature_store.clock import monotonic
from feature_store.venue.errors import ClockError
from feature_store.venue.factory import RECV_WINDOW_MS, create_exchange
from inference.domain.order import OrderIntent, OrderType, Purpose, Side
from inference.exchange.ccxt_gateway import CcxtGateway
from inference.exchange.guarding import NotTheWriterError, guard_writes
from inference.exchange.venue_clock import VenueClock
from inference.execution.lease import CLOCK_ERROR_SECONDS
from inference.journal.reader import read_entries
from tests.integration.test_worker_process import worker
from tests.sandbox_support import API_KEY, API_SECRET, running_sandbox
from tests.worker_bundle import make_bundle

LEASE_SECONDS = 3


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    """Return the folder of a small verified bundle."""
    return make_bundle(tmp_path_factory.mktemp("model") / "bundle")


def entries(home: Path, kind: str) -> list:
    return [one for one in read_entries(home / "journal/journal.jsonl") if one.type == kind]


def sent(home: Path) -> set[str]:
    """Return the ids of all orders that a worker meant to send."""
    return {one.data["intent"]["client_order_id"] for one in entries(home, "trade.order_intended")}


async def orders_of(sandbox) -> dict[str, int]:
    """Return when the venue accepted each order, by our id."""
    exchange = create_exchange("sandbox", url=sandbox.url, api_key=API_KEY, api_secret=API_SECRET)
    try:
        plain = {}
        for symbol in (await sandbox.get("/sandbox/audit"))["symbols_traded"]:
            # By number: a time asks for no more than the week after it.
            for row in await exchange.fapiPrivateGetAllOrders({"symbol": symbol, "orderId": 1, "limit": 1000}):
                plain[row["clientOrderId"]] = int(row["time"])
        return plain
    finally:
        await exchange.close()


async def test_a_worker_that_was_stopped_and_wakes_up_trades_no_more(tmp_path, bundle):
    """The first is stopped as a debugger would; the second takes over, and the first ends once it goes on."""
    shared = {"QT_LEASE_URL": f"sqlite:///{tmp_path / 'leases.db'}", "QT_LEASE_SECONDS": str(LEASE_SECONDS)}
    homes = tmp_path / "first", tmp_path / "second"
    async with running_sandbox(symbols=3, speed=60, seed=8, state=tmp_path / "s") as sandbox:
        options = ("--venue-url", sandbox.url, "--bundle", str(bundle))
        async with worker(homes[0], *options, **shared) as first:
            await first.until(lambda one: len(one["positions"]) >= 1)
            first.process.send_signal(signal.SIGSTOP)
            stopped = monotonic()
            async with worker(homes[1], *options, **shared, QT_LEASE_WAIT="true") as second:
                await second.until(lambda one: one["batches_processed"] >= 1)
                assert monotonic() - stopped >= LEASE_SECONDS + RECV_WINDOW_MS / 1000 + CLOCK_ERROR_SECONDS
                before = sent(homes[0])
                first.process.send_signal(signal.SIGCONT)
                woke_ms = second.status["venue_time_ms"]
                assert await asyncio.wait_for(first.process.wait(), 60) == 1
                await second.until(lambda one: one["batches_processed"] >= 4)
                assert await second.end(signal.SIGTERM) == 0
            words = await first.said()
        audit = await sandbox.get("/sandbox/audit")
        accepted = await orders_of(sandbox)

    assert f"process {second.process.pid}" in words
    assert "Traceback" not in words.split("This worker was away")[-1]
    tokens = [int(entries(home, "health.lease_taken")[0].data["token"]) for home in homes]
    assert tokens == [1, 2]
    assert [one.data["token"] for one in entries(homes[0], "health.lease_lost")] == ["1"]
    assert entries(homes[0], "health.started")[0].data["lease_token"] == "1"
    # What the first meant to send after it woke up never reached the venue.
    assert accepted.keys() & before
    late = {key for key, at in accepted.items() if at > woke_ms and key in sent(homes[0]) - before - sent(homes[1])}
    assert late == set()
    assert audit["duplicate_client_ids"] == []
    assert all(one["protected"] for one in audit["open_positions"])


async def test_a_second_worker_of_the_same_account_ends_with_the_name_of_the_first(tmp_path, bundle):
    """Not told to wait, it says who trades; told to, it takes over at once when the first ends."""
    home = tmp_path / "home"
    async with running_sandbox(symbols=2, speed=60, seed=8, state=tmp_path / "s") as sandbox:
        options = ("--venue-url", sandbox.url, "--bundle", str(bundle))
        async with worker(home, *options) as first:
            await first.until(lambda one: one["state"] == "trading")
            async with worker(home, *options) as refused:
                assert await asyncio.wait_for(refused.process.wait(), 60) == 1
                assert f"process {first.process.pid}" in await refused.said()
            # The one that was refused left the status of the one that trades alone.
            assert first.status["pid"] == first.process.pid
            async with worker(home, *options, QT_LEASE_WAIT="true") as waiting:
                await asyncio.sleep(2)
                assert waiting.process.returncode is None
                # Killed, it need not be waited for: the machine knows that it is gone.
                assert await first.end(signal.SIGKILL) == -signal.SIGKILL
                await waiting.until(lambda one: one["state"] == "trading")
                assert await waiting.end(signal.SIGTERM) == 0
            async with worker(home, *options) as last:
                await last.until(lambda one: one["state"] == "trading")
                assert await last.end(signal.SIGTERM) == 0

    assert [one.data["token"] for one in entries(home, "health.lease_taken")] == ["1", "2", "3"]
    before = [one.data["before"] for one in entries(home, "health.lease_taken")]
    assert before[0] == "nobody"
    assert before[1].endswith("ended")
    assert before[2].endswith(("released", "left"))


async def test_a_request_held_up_between_check_and_sending_is_refused_by_the_venue(tmp_path):
    """Stamped and allowed, then held up until another may trade: the venue does not take it."""
    async with running_sandbox(symbols=1, speed=1, seed=8) as sandbox:
        exchange = create_exchange("sandbox", url=sandbox.url, api_key=API_KEY, api_secret=API_SECRET)
        allowed = [""]
        guard_writes(exchange, lambda _: allowed[0])
        gateway = CcxtGateway(exchange, clock=VenueClock(accelerated=True), monotonic=monotonic, leverage=3)
        intent = OrderIntent(
            client_order_id="qt-a-E1",
            trade_id="a",
            trace_id="t",
            symbol="BTC/USDT:USDT",
            side=Side.BUY,
            order_type=OrderType.MARKET,
            purpose=Purpose.ENTRY,
            quantity=Decimal("0.01"),
        )
        try:
            await gateway.connect()
            await gateway._ensure_leverage(intent.symbol)
            fetch = exchange.fetch

            async def held_up(url, method="GET", *rest, **named):
                if method == "POST":
                    await asyncio.sleep(RECV_WINDOW_MS / 1000 + CLOCK_ERROR_SECONDS)
                return await fetch(url, method, *rest, **named)

            exchange.fetch = held_up
            with pytest.raises(ClockError):
                await gateway.submit(intent)
            exchange.fetch = fetch
            allowed[0] = "another worker trades"
            with pytest.raises(NotTheWriterError, match="another worker trades"):
                await gateway.submit(intent)
            with pytest.raises(NotTheWriterError):
                await gateway.cancel(intent)
            # Looking is free, and the stream's key is nobody's order.
            assert await gateway.query(intent) is None
            assert json.loads(json.dumps(await exchange.fapiPrivatePostListenKey()))["listenKey"]
            allowed[0] = ""
            assert (await gateway.submit(intent)).filled == intent.quantity
        finally:
            await gateway.close()
        assert (await sandbox.get("/sandbox/audit"))["orders"] == 1
