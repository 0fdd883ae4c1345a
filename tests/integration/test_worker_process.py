"""The worker as a process: it trades, stops, dies and comes back at the real sandbox."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import ClientSession
from msgspec import UNSET

from feature_store.clock import utc_now_ms
from feature_store.extensions.settings import ViewSettings
from inference.bus.local import LocalBus
from inference.domain.events import CandlesDecided
from inference.journal.codec import event_of
from inference.journal.reader import read_entries
from inference.journal.replay import replay_decisions
from inference.journal.verify import verify
from inference.policy.store import PolicyStore
from inference.policy.versions import Source
from tests.extension_support import PLAIN_NUMPY, written
from tests.network_support import Host
from tests.sandbox_support import running_sandbox
from tests.stack_fixtures import free_port
from tests.worker_bundle import make_bundle

ROOT = Path(__file__).resolve().parents[2]
LIGHT = ROOT / ".venv-worker" / "bin" / "python"
# Rules under which the small model's opinions are traded at every candle, and held for three of them.
EAGER = """
confidence_threshold = 0.5
taker_fee = 0
slippage = 0
cooldown_seconds = 0
max_holding_candles = 3
risk_per_trade = 0.001
max_notional = 1000
max_daily_drawdown = 0.15
"""


class WorkerProcess:
    """A worker, its home and what it says of itself."""

    def __init__(self, home: Path, process: asyncio.subprocess.Process) -> None:
        self.home = home
        self.process = process

    @property
    def status(self) -> dict:
        """Return the status file, or nothing."""
        try:
            return json.loads((self.home / "worker" / "status.json").read_text())
        except (OSError, ValueError):
            return {}

    async def until(self, holds, *, within: float = 240.0) -> dict:
        """Wait until the status of this process is as wanted."""
        async with asyncio.timeout(within):
            while True:
                status = self.status
                if status.get("pid") == self.process.pid and holds(status):
                    return status
                assert self.process.returncode is None, await self.said()
                await asyncio.sleep(0.1)

    async def said(self) -> str:
        """Return what the process wrote to standard error."""
        assert self.process.stderr is not None
        return (await self.process.stderr.read()).decode()

    async def end(self, how: signal.Signals) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(how)
        return await asyncio.wait_for(self.process.wait(), 100)


def _write_policy(home: Path, rules: str) -> Path:
    home.mkdir(exist_ok=True)
    policy = home / "policy.toml"
    policy.write_text(rules)
    return policy


@asynccontextmanager
async def worker(
    home: Path,
    *arguments: str,
    inside: Host | None = None,
    rules: str = EAGER,
    program: str = "inference.cli",
    **environment: str,
):
    """Run `qtctl worker`, `inside` a host or in the light environment, and end it however the test left it."""
    policy = _write_policy(home, rules)
    light = str(LIGHT if LIGHT.exists() else sys.executable)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("QT_")}
    process = await asyncio.create_subprocess_exec(
        *([light] if inside is None else [*inside.command, sys.executable]),
        "-m",
        program,
        "worker",
        "--policy",
        str(policy),
        "--log-format",
        "json",
        *arguments,
        cwd=ROOT,
        env=inherited | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "QUANTUM_HOME": str(home)} | environment,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield WorkerProcess(home, process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    """Return the folder of a small verified bundle."""
    return make_bundle(tmp_path_factory.mktemp("model") / "bundle")


async def test_worker_trades_and_leaves_stops_behind(tmp_path, bundle):
    """It enters with protection, stops on SIGTERM within seconds, and every position it leaves has its stop."""
    async with running_sandbox(symbols=5, speed=60, seed=8, state=tmp_path / "s") as sandbox:
        async with worker(tmp_path / "home", "--venue-url", sandbox.url, "--bundle", str(bundle)) as running:
            status = await running.until(lambda one: len(one["positions"]) >= 2)
            exit_status = await running.end(signal.SIGTERM)
        audit = await sandbox.get("/sandbox/audit")

        assert exit_status == 0
        assert status["state"] == "trading"
        assert status["model"]["gated"] is False
        assert running.status["state"] == "stopped"
        assert 0 < status["order_latency_ms"]["p50"] <= status["order_latency_ms"]["p99"] < 60_000
        assert audit["duplicate_client_ids"] == []
        assert all(one["protected"] for one in audit["open_positions"])
        # A stop that fired after the worker had left leaves its target behind.
        later = ended_after(running, audit)
        assert 0 <= audit["open_algo_orders"] - 2 * len(audit["open_positions"]) <= len(later)
        found = verify(tmp_path / "home/journal/journal.jsonl", tmp_path / "home/journal/journal.head")
        assert found.is_whole
        assert found.torn_bytes == 0
        # All that it wrote down was told on the bus, once and in order, the word that it stopped included.
        told = LocalBus(tmp_path / "home/worker/bus.db")
        seqs = [one.envelope.journal_seq for one in told.replay()]
        assert list(dict.fromkeys(seqs)) == list(range(1, found.entries + 1))
        assert {"signal.generated", "trade.created", "trade.filled"} <= {
            one.envelope.event_type for one in told.replay()
        }
        told.close()


async def test_a_policy_changes_while_the_worker_runs(tmp_path, bundle):
    """A new version counts within a candle; a damaged store stops entries, and its recovery lets them go on."""
    home = tmp_path / "home"
    store = PolicyStore(home / "policy", now_ms=utc_now_ms)
    async with (
        running_sandbox(symbols=3, speed=60, seed=8, state=tmp_path / "s") as sandbox,
        worker(home, "--venue-url", sandbox.url, "--bundle", str(bundle)) as running,
    ):
        await running.until(lambda one: one["positions"] and one["policy"]["version"] == 1)
        seeded = store.version(1)
        store.append(
            replace(seeded.policy, max_positions=1, max_entries_per_hour=500),
            expected=1, author="anna", reason="one at a time", source=Source.SET,
        )  # fmt: skip
        await running.until(lambda one: one["policy"]["version"] == 2 and "MAX_POSITIONS" in one["refusals"])
        store.path.write_bytes(b"\0" * 8192)
        failed = await running.until(lambda one: one["policy"]["fault"] == "DAMAGED")
        store.recover()
        await running.until(lambda one: one["policy"]["fault"] is None and one["trading_state"] == "ACTIVE")
        assert await running.end(signal.SIGTERM) == 0

    journal = home / "journal/journal.jsonl"
    entries = list(read_entries(journal))
    decided = [event for one in entries if isinstance(event := event_of(one), CandlesDecided)]
    counted = [one for one in decided if one.policy_version == 2]
    assert failed["trading_state"] == "REDUCING"
    assert seeded.policy.max_holding_candles == 3
    assert {one.policy_version for one in decided} == {1, 2}
    assert all(one.policy_fingerprint == one.policy.fingerprint for one in decided)
    assert all(one.snapshot.recent is not UNSET for one in counted)
    assert [one.type for one in entries if one.type.startswith("policy.")] == [
        "policy.loaded", "policy.updated", "policy.store_failed", "policy.store_recovered",
    ]  # fmt: skip
    assert replay_decisions(entries) == (len(decided), [])
    assert verify(journal, home / "journal/journal.head").is_whole


def ended_after(running: WorkerProcess, audit: dict) -> dict[str, float]:
    """Return the positions, with their quantities, that the venue ended by an order of theirs after the worker left."""
    left_ms = running.status["venue_time_ms"]
    return {one["symbol"]: float(one["quantity"]) for one in audit["trades"] if one["closed_ms"] > left_ms}


async def test_killed_worker_comes_back_without_loss_or_double(tmp_path, bundle):
    """After each `kill -9` it goes on from its journal: nothing twice, nothing lost, nothing unprotected."""
    home = tmp_path / "home"
    async with running_sandbox(symbols=5, speed=60, seed=9, state=tmp_path / "s") as sandbox:
        for life in range(3):
            async with worker(home, "--venue-url", sandbox.url, "--bundle", str(bundle)) as running:
                await running.until(lambda one: one["batches_processed"] >= 1)
                # A moment that differs in each life, within a candle and its orders.
                await asyncio.sleep(0.4 + 0.7 * life)
                await running.end(signal.SIGKILL)
        async with worker(home, "--venue-url", sandbox.url, "--bundle", str(bundle)) as running:
            await running.until(lambda one: one["batches_processed"] >= 2)
            assert await running.end(signal.SIGTERM) == 0
            positions, bias, members = (running.status[name] for name in ("positions", "bias", "members"))
        audit = await sandbox.get("/sandbox/audit")

        # What the lives before said counts too: this one has seen two or three candles.
        assert bias["candles"] >= 4
        assert members["xgboost"]["predictions"] == members["ensemble"]["predictions"] >= 10
        assert audit["duplicate_client_ids"] == []
        assert all(one["protected"] for one in audit["open_positions"])
        later = ended_after(running, audit)
        held = later | {one["symbol"]: abs(float(one["quantity"])) for one in audit["open_positions"]}
        known = {one["symbol"].replace("/", "").removesuffix(":USDT"): float(one["quantity"]) for one in positions}
        assert held == known
        assert verify(home / "journal/journal.jsonl", home / "journal/journal.head").is_whole


async def test_worker_reads_features_of_ones_own_and_of_others(tmp_path, bundle):
    """With a file and another symbol named by settings it trades a bundle that reads them, and refuses one without."""
    chosen = {
        "QT_EXTENSIONS": str(written(tmp_path, PLAIN_NUMPY)),
        "QT_INCLUDE_SYMBOLS": "BTC/USDT:USDT",
        "QT_INCLUDE_TIMEFRAMES": "15m",
    }
    view = ViewSettings.of(**{name.removeprefix("QT_").lower(): value for name, value in chosen.items()}).view()
    made = make_bundle(tmp_path / "viewed", view=view)
    async with running_sandbox(symbols=3, speed=60, seed=8, state=tmp_path / "s") as sandbox:
        async with worker(tmp_path / "a", "--venue-url", sandbox.url, "--bundle", str(made), **chosen) as running:
            status = await running.until(lambda one: len(one["positions"]) >= 1)
            assert await running.end(signal.SIGTERM) == 0
        async with worker(tmp_path / "b", "--venue-url", sandbox.url, "--bundle", str(bundle), **chosen) as other:
            said = await other.said()

    assert status["state"] == "trading"
    assert "was trained on features" in said


async def test_worker_without_a_model_idles_and_says_why(tmp_path):
    """With nothing promoted it follows candles, trades nothing and names the reason, to Prometheus too."""
    async with running_sandbox(symbols=2, speed=60, seed=1, state=tmp_path / "s") as sandbox:
        async with worker(tmp_path / "home", "--venue-url", sandbox.url, QT_METRICS_PORT="0") as running:
            status = await running.until(lambda one: one["candles_processed"] >= 2)
            async with ClientSession() as session, session.get(status["metrics"]) as answer:
                metrics = await answer.text()
            await running.end(signal.SIGINT)
        audit = await sandbox.get("/sandbox/audit")

        assert status["state"] == "idle"
        assert 'qt_worker_state{state="idle"} 1.0' in metrics
        assert "QT_MLFLOW_URL" in status["reason"]
        assert audit["orders"] == 0
        assert running.process.returncode == 0


async def test_service_manager_hears_ready_only_from_a_worker_that_is(tmp_path):
    """Stopped while its venue is down it says that it stops; that follows candles it says once it does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("")  # The system chooses an abstract name.
        manager.settimeout(120)
        settings = {"NOTIFY_SOCKET": manager.getsockname().decode().replace("\0", "@")}
        async with worker(tmp_path / "down", "--venue-url", f"http://127.0.0.1:{free_port()}", **settings) as running:
            await running.until(lambda one: "waiting for the venue" in one["reason"])
            assert await running.end(signal.SIGTERM) == 0
        first = manager.recv(256)
        async with (
            running_sandbox(symbols=1, speed=60, seed=1, state=tmp_path / "s") as sandbox,
            worker(tmp_path / "up", "--venue-url", sandbox.url, **settings) as running,
        ):
            said = [await asyncio.to_thread(manager.recv, 256) for _ in range(2)]
            assert await running.end(signal.SIGTERM) == 0

    assert first == b"STOPPING=1"
    assert said[0] == b"READY=1\nSTATUS=following candles"
    assert said[1].startswith(b"WATCHDOG=1\n")


async def test_venue_that_is_down_is_waited_for_and_outlived(tmp_path, bundle):
    """Started before its venue it waits and says so; when the venue goes away later, it goes on once it is back."""
    state, home = tmp_path / "s", tmp_path / "home"
    port = free_port()
    async with worker(home, "--venue-url", f"http://127.0.0.1:{port}", "--bundle", str(bundle)) as running:
        waiting = await running.until(lambda one: "waiting for the venue" in one["reason"])
        async with running_sandbox(port=port, symbols=3, speed=60, seed=4, state=state):
            before = await running.until(lambda one: one.get("batches_processed", 0) >= 1)
        await asyncio.sleep(3)
        async with running_sandbox(port=port, symbols=3, speed=60, seed=4, state=state) as sandbox:
            after = await running.until(lambda one: one["batches_processed"] >= before["batches_processed"] + 2)
            assert await running.end(signal.SIGTERM) == 0
            audit = await sandbox.get("/sandbox/audit")

    assert waiting["state"] == "starting"
    assert after["state"] == "trading"
    assert audit["duplicate_client_ids"] == []
    assert all(one["protected"] for one in audit["open_positions"])


async def test_clock_that_jumps_and_keys_that_are_refused_stop_nothing(tmp_path, bundle):
    """While it trades, the venue's clock jumps ten minutes and later its keys are refused: it says so and goes on."""
    async with running_sandbox(symbols=4, speed=60, seed=8, state=tmp_path / "s") as sandbox:
        async with worker(tmp_path / "home", "--venue-url", sandbox.url, "--bundle", str(bundle)) as running:
            first = await running.until(lambda one: one["positions"])
            await sandbox.ctl(op="skew", ms=600_000)
            jumped = await running.until(lambda one: one["batches_processed"] >= first["batches_processed"] + 2)
            await sandbox.ctl(op="clear")
            for path in ("/fapi/v3/account", "/fapi/v1/order", "/fapi/v1/algoOrder", "/fapi/v1/listenKey"):
                await sandbox.ctl(op="fault", path=path, p=1, action="status", status=401, code=-2015)
            refused = await running.until(lambda one: "QT_API_KEY" in one["reason"])
            later = await running.until(lambda one: one["batches_processed"] >= refused["batches_processed"] + 2)
            await sandbox.ctl(op="clear")
            again = await running.until(
                lambda one: (
                    one["trading_state"] == "ACTIVE"
                    and any(p["entry_time_ms"] > later["venue_time_ms"] for p in one["positions"])
                )
            )
            assert await running.end(signal.SIGTERM) == 0
        audit = await sandbox.get("/sandbox/audit")

    assert [one["state"] for one in (first, jumped, refused, later, again)] == ["trading"] * 5
    assert "no new entries" in refused["reason"]
    assert audit["duplicate_client_ids"] == []
    assert all(one["protected"] for one in audit["open_positions"])
    assert verify(tmp_path / "home/journal/journal.jsonl", tmp_path / "home/journal/journal.head").is_whole


@pytest.mark.parametrize(
    ("arguments", "environment", "status", "said"),
    [
        pytest.param((), {}, 2, "QT_VENUE_URL", id="no-venue"),
        pytest.param(("--venue", "sandbox-spot"), {"URL": "yes"}, 2, "does not trade spot", id="spot"),
        pytest.param(("--symbols", "NOPE/USDT:USDT"), {"URL": "yes"}, 2, "NOPE/USDT:USDT", id="unknown-symbol"),
        pytest.param((), {"URL": "yes", "QT_API_KEY": "wrong"}, 1, "QT_API_KEY", id="wrong-key"),
        pytest.param(("--bundle", "/nowhere"), {"URL": "yes"}, 1, "/nowhere", id="no-bundle"),
    ],
)
async def test_what_cannot_work_is_one_sentence(tmp_path, arguments, environment, status, said):
    """Settings that cannot work end the worker with a sentence that names them, and no traceback."""
    async with running_sandbox(symbols=2, speed=60, seed=1, state=tmp_path / "s") as sandbox:
        given = {name: value for name, value in environment.items() if name != "URL"}
        if "URL" in environment:
            given["QT_VENUE_URL"] = sandbox.url
        async with worker(tmp_path / "home", *arguments, **given) as running:
            words = await asyncio.wait_for(running.said(), 200)
            await running.process.wait()

    assert running.process.returncode == status
    assert said in words
    assert "Traceback" not in words
