"""The worker as a process trades Bitfinex where one setting says so: QT_VENUE."""

from __future__ import annotations

import signal

import pytest

from inference.journal.verify import verify
from tests.integration.test_worker_process import worker
from tests.sandbox_support import running_sandbox
from tests.worker_bundle import make_bundle

BITFINEX = {"QT_VENUE": "sandbox-bitfinex"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Return the folder of a small verified bundle."""
    return make_bundle(tmp_path_factory.mktemp("model") / "bundle")


async def test_worker_trades_bitfinex_by_one_setting(tmp_path, bundle):
    """It follows candles, enters with stops at the venue, and after kill -9 goes on from its journal."""
    home = tmp_path / "home"
    async with running_sandbox(symbols=3, speed=60, seed=8, state=tmp_path / "s") as sandbox:
        arguments = ("--venue-url", sandbox.url, "--bundle", str(bundle))
        async with worker(home, *arguments, **BITFINEX) as running:
            status = await running.until(lambda one: len(one["positions"]) >= 1)
            await running.end(signal.SIGKILL)
        async with worker(home, *arguments, **BITFINEX) as again:
            await again.until(lambda one: one["batches_processed"] >= 2)
            assert await again.end(signal.SIGTERM) == 0
        audit = await sandbox.get("/sandbox/audit")

    assert status["state"] == "trading"
    assert again.status["state"] == "stopped"
    assert audit["duplicate_client_ids"] == []
    assert all(one["protected"] for one in audit["open_positions"])
    assert verify(home / "journal/journal.jsonl", home / "journal/journal.head").is_whole
