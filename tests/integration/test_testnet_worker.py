"""The worker in testnet mode: real ccxt asks the test network for all it needs, and here a sandbox plays that part."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from feature_store.features.state_files import states_path
from inference.journal.reader import read_entries
from inference.journal.verify import verify
from tests.integration.test_worker_process import EAGER, worker
from tests.sandbox_support import running_sandbox
from tests.testnet_worker import SANDBOX
from tests.worker_bundle import make_bundle

KEY = "of-the-test-network"
# What must be said where orders go to a venue, as loose as may be said.
RULES = f"""{EAGER}
governor_max_volatility = 1
governor_drawdown_share = 1
governor_max_companions = 50
breaker_errors = 50
leverage = 2
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    """Return the folder of a small verified bundle."""
    return make_bundle(tmp_path_factory.mktemp("model") / "bundle")


async def test_worker_starts_trades_and_stops_on_the_test_network(tmp_path, bundle):
    """It enters under stops held there, ends within seconds, and its home then trades nothing else."""
    home = tmp_path / "home"
    testnet = {
        "QT_MODE": "testnet", "QT_VENUE": "binanceusdm", "QT_API_KEY": KEY, "QT_API_SECRET": "s",
        "QT_BUDGETS": str(tmp_path),
    }  # fmt: skip
    keys = {"api_key": KEY, "api_secret": "s"}
    async with running_sandbox(symbols=3, speed=60, seed=8, state=tmp_path / "s", **keys) as sandbox:
        pointed = {**testnet, SANDBOX: sandbox.url}
        async with worker(
            home, "--bundle", str(bundle), rules=RULES, program="tests.testnet_worker", **pointed
        ) as running:
            status = await running.until(lambda one: one["positions"])
            exit_status = await running.end(signal.SIGTERM)
        audit = await sandbox.get("/sandbox/audit")
        async with worker(
            home, "--venue-url", sandbox.url, rules=RULES, QT_API_KEY=KEY, QT_API_SECRET="s"
        ) as elsewhere:
            said = await elsewhere.said()
            refused = await elsewhere.process.wait()

    started = next(entry for entry in read_entries(home / "journal/journal.jsonl") if entry.type == "health.started")
    assert exit_status == 0
    assert (status["mode"], status["venue"], status["state"]) == ("testnet", "binanceusdm", "trading")
    assert status["model"]["gated"] is False
    assert running.status["state"] == "stopped"
    assert audit["orders"] > 0
    assert audit["fills"] > 0
    assert audit["duplicate_client_ids"] == []
    assert all(one["protected"] for one in audit["open_positions"])
    assert verify(home / "journal/journal.jsonl", home / "journal/journal.head").is_whole
    assert '"mode": "testnet"' in str(started.data).replace("'", '"')
    assert states_path(home / "worker", "binanceusdm-testnet", "5m").exists()
    assert not states_path(home / "worker", "binanceusdm", "5m").exists()
    assert refused == 2
    assert "QT_MODE=sandbox contradicts" in said
    assert "has a home of its own" in said


async def test_the_venue_itself_is_asked_for_nothing_by_a_test_networks_worker(tmp_path, bundle):
    """Where nobody plays the test network's part nothing else is asked instead: it waits, and says for whom."""
    testnet = {
        "QT_MODE": "testnet", "QT_VENUE": "binanceusdm", "QT_API_KEY": KEY, "QT_API_SECRET": "s",
        "QT_BUDGETS": str(tmp_path), SANDBOX: "http://127.0.0.1:9",
    }  # fmt: skip
    async with worker(
        tmp_path / "home", "--bundle", str(bundle), rules=RULES, program="tests.testnet_worker", **testnet
    ) as running:
        status = await running.until(lambda one: "127.0.0.1:9" in str(one.get("reason")))
        exit_status = await running.end(signal.SIGTERM)

    assert status["state"] == "starting"
    assert "binance.com" not in status["reason"]
    assert exit_status == 0
