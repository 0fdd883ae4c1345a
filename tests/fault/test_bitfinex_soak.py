"""The real worker trades the Bitfinex front while every twentieth request fails: all money is accounted for."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter

import pytest

from inference.domain.events import OrderIntended, TradeClosed
from inference.domain.order import OrderType, Purpose
from inference.exchange.client_ids import integer_id
from inference.execution.book import Book
from inference.journal.verify import verify
from infra.prove.record import events_in, standing_differences
from infra.prove.soak import money_of
from tests.integration.test_worker_process import worker
from tests.sandbox_support import running_sandbox
from tests.worker_bundle import make_bundle

TRADED_SECONDS = 40.0
AGREE_LOOKS = 60
FAULTED = 0.05
ORDERS, ANYTHING = "/bitfinex/v2/auth/w/order/", "/bitfinex/v2/"
PAGE = "<html><body>The server is busy</body></html>"
FATES = (
    {"action": "exec_then_drop"},
    {"action": "exec_then_status", "status": 503},
    {"action": "exec_then_status", "status": 200, "body": PAGE},
    {"action": "exec_then_truncate"},
    {"action": "late_exec", "secs": 0.5, "status": 504},
    {"action": "status", "status": 502, "body": ""},
    {"action": "status", "status": 500, "body": '["error",10114,"nonce: small"]'},
    {"action": "drop"},
)
SILENCES = (
    {"action": "status", "status": 500, "body": '["error",10000,"unknown error"]'},
    {"action": "status", "status": 200, "body": PAGE},
    {"action": "drop"},
    {"action": "delay", "secs": 0.3},
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Return the folder of a small verified bundle."""
    return make_bundle(tmp_path_factory.mktemp("model") / "bundle")


async def break_requests(sandbox):
    """Let every twentieth request fail, what changes orders in every way there is."""
    for path, fates in ((ORDERS, FATES), (ANYTHING, SILENCES)):
        for place, fate in enumerate(fates):
            # The first rule that matches is taken: each later one meets only what the earlier ones left.
            part = FAULTED / len(fates) / (1 - FAULTED * place / len(fates))
            assert (await sandbox.ctl(op="fault", path=path, method="", p=part, **fate))["ok"]


def differences(journal, audit):
    """Return where the journal and the venue tell another story, in positions, resting orders or money."""
    events = events_in(journal)
    keys = [one.intent.client_order_id for one in events if isinstance(one, OrderIntended)]
    # The venue knows our orders by numbers.
    ours = {str(integer_id(key)): key for key in keys}
    for trip in audit["trades"]:
        trip["entry_client_ids"] = [ours.get(key, key) for key in trip["entry_client_ids"]]
    book = Book.rebuilt(events)
    orders = [order for trade in book.active() for order in trade.orders.values()]
    resting = sum(order.is_live and not order.intent.is_conditional for order in orders)
    found = [*standing_differences(events, audit), *money_of(events, audit).differences]
    if resting != audit["open_orders"]:
        found.append(f"{audit['open_orders']} targets rest at the venue, {resting} in the journal")
    return found


async def test_a_worker_on_bitfinex_accounts_for_all_money_while_requests_fail(tmp_path, bundle):
    """Positions, stops, targets, executions, fees and profit of each trade are the venue's, to the last digit."""
    home = tmp_path / "home"
    journal = home / "journal/journal.jsonl"
    async with running_sandbox(symbols=6, speed=60, seed=8, state=tmp_path / "s") as sandbox:
        arguments = ("--venue-url", sandbox.url, "--bundle", str(bundle))
        async with worker(home, *arguments, QT_VENUE="sandbox-bitfinex") as running:
            await running.until(lambda one: len(one["positions"]) >= 1)
            await break_requests(sandbox)
            await asyncio.sleep(TRADED_SECONDS / 2)
            await sandbox.ctl(op="kill_ws", hard=True)
            await asyncio.sleep(TRADED_SECONDS / 2)
            met = (await sandbox.ctl(op="log"))["met"]
            await sandbox.ctl(op="clear")
            await sandbox.ctl(op="stand_still")
            for _ in range(AGREE_LOOKS):
                await asyncio.sleep(0.5)
                audit = await sandbox.get("/sandbox/audit")
                if not (left := differences(journal, audit)):
                    break
            streamed = running.status["feed"]
            assert await running.end(signal.SIGTERM) == 0

    assert left == []
    events = events_in(journal)
    counts = [found for name, found in met.items() if "/bitfinex/" in name]
    total, faulted = (sum(one[place] for one in counts) for place in (0, 1))
    intended = Counter((one.intent.purpose, one.intent.order_type) for one in events if isinstance(one, OrderIntended))
    assert audit["duplicate_client_ids"] == []
    assert all(one["protected"] for one in audit["open_positions"])
    assert sum(isinstance(one, TradeClosed) for one in events) >= 3
    assert intended[Purpose.TARGET, OrderType.LIMIT] >= 3
    assert total > 100
    assert 0.02 < faulted / total < 0.10
    assert streamed["connections"] == 1
    assert verify(journal, journal.with_suffix(".head")).is_whole
