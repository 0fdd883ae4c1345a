"""A real worker that holds positions over funding, dies and comes back: each payment is in its journal once."""

from __future__ import annotations

import asyncio
import signal
from decimal import Decimal

from inference.execution.funding import FUNDING_PAID, funding_payment
from inference.journal.codec import event_of
from inference.journal.reader import read_entries
from tests.integration.test_worker_process import worker
from tests.sandbox_support import running_sandbox
from tests.worker_bundle import make_bundle


def journaled(home) -> list:
    """Return the payments that the journal holds."""
    entries = read_entries(home / "journal/journal.jsonl")
    return [funding_payment(event_of(one)) for one in entries if one.type == FUNDING_PAID]


async def test_funding_is_journaled_once_through_a_kill(tmp_path):
    """Paid while it runs, while it is dead and after it came back: journal, status and venue tell one sum."""
    bundle, home = make_bundle(tmp_path / "bundle"), tmp_path / "home"
    hourly = {"funding_hours": 1, "start": "2026-01-05T07:30:00Z"}
    async with running_sandbox(symbols=4, speed=120, seed=8, state=tmp_path / "s", **hourly) as sandbox:
        options = ("--venue-url", sandbox.url, "--bundle", str(bundle))
        async with worker(home, *options) as first:
            before = await first.until(lambda one: one.get("funding", "0") != "0")
            await first.end(signal.SIGKILL)
        dead = len(journaled(home))
        # Whatever is left open pays while nobody looks, as long as its stop does not end it.
        await asyncio.sleep(30)
        async with worker(home, *options) as second:
            await second.until(lambda one: one["state"] == "trading" and len(journaled(home)) > dead)
            await sandbox.ctl(op="stand_still")
            audit = await sandbox.get("/sandbox/audit")
            told = await second.until(lambda one: Decimal(one["funding"]) == Decimal(audit["funding"]))
            assert await second.end(signal.SIGTERM) == 0

    paid = journaled(home)
    assert dead >= 1
    assert Decimal(before["funding"]) != 0
    assert len({one.transaction_id for one in paid}) == len(paid) > dead
    assert sum(one.amount for one in paid) == Decimal(told["funding"]) == Decimal(audit["funding"])
