"""The worker in paper mode: a sandbox is the market, the account is a file, and the market hears of neither."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from decimal import Decimal

import pytest

from inference.domain.order import OrderStatus
from inference.exchange.engine_account import EngineAccount
from inference.exchange.paper_file import PaperFile
from inference.journal.verify import verify
from infra.sandbox.engine.exchange import Exchange
from tests.integration.test_worker_process import ROOT, WorkerProcess, worker
from tests.paper_writer import order, paper_file
from tests.sandbox_support import running_sandbox
from tests.worker_bundle import make_bundle

_PRIVATE_PATHS = ("order", "listenKey", "account", "positionRisk", "userTrades", "leverage", "income", "position")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Return the folder of a small verified bundle."""
    return make_bundle(tmp_path_factory.mktemp("model") / "bundle")


def paper_account(running: WorkerProcess) -> Exchange:
    """Return the engine as the worker's home has it."""
    file = PaperFile(running.home / "paper" / "sandbox.json", venue="sandbox", balance=Decimal(10_000))
    return Exchange([], file.load().engine)


def held_by(account: Exchange) -> dict[str, Decimal]:
    return {one.symbol: one.quantity for one in account.state.open_positions()}


def believed(status: dict) -> dict[str, Decimal]:
    signs = {"LONG": 1, "SHORT": -1}
    return {one["symbol"]: signs[one["direction"]] * Decimal(one["quantity"]) for one in status["positions"]}


def signed(log: list[dict]) -> list[str]:
    """Return the requests that name a key or a signature, or go where an account is asked for."""
    return [
        f"{one['method']} {one['path']}"
        for one in log
        if "signature" in one["query"] + one["body"]
        or any(word in one["path"].rsplit("/", 1)[-1] for word in _PRIVATE_PATHS)
    ]


async def test_paper_worker_trades_dies_and_comes_back_and_its_market_never_hears_of_it(tmp_path, bundle):
    """It enters under stops and goes on after kill -9; its book is the account, the venue saw nothing signed."""
    home = tmp_path / "home"
    paper = {"QT_MODE": "paper", "QT_API_KEY": "sandbox-key", "QT_API_SECRET": "sandbox-secret"}
    async with running_sandbox(symbols=5, speed=60, seed=8, state=tmp_path / "s") as sandbox:
        await sandbox.ctl(op="log", on=True)
        log = []
        for life in range(2):
            async with worker(
                home, "--venue-url", sandbox.url, "--bundle", str(bundle), QT_PAPER_BALANCE="10000", **paper
            ) as running:
                status = await running.until(lambda one: len(one["positions"]) >= 2)
                if life == 0:
                    await running.end(signal.SIGKILL)
                else:
                    begun = status["batches_processed"]
                    status = await running.until(lambda one, begun=begun: one["batches_processed"] >= begun + 3)
                    assert await running.end(signal.SIGTERM) == 0
            log += (await sandbox.ctl(op="log"))["log"]
        audit = await sandbox.get("/sandbox/audit")

    account = paper_account(running)
    resting = {one.symbol for one in account.open_algos() if one.type.value == "STOP_MARKET"}
    assert status["mode"] == "paper"
    assert status["state"] == "trading"
    assert held_by(account) == believed(running.status)
    assert held_by(account).keys() <= resting
    assert [key for key, ids in account.state.executed.items() if len(ids) > 1] == []
    assert len(account.state.trades) >= 4
    assert verify(home / "journal/journal.jsonl", home / "journal/journal.head").is_whole
    assert (audit["orders"], audit["algo_orders"], audit["fills"], Decimal(audit["wallet"])) == (0, 0, 0, 10_000)
    assert len(log) > 10
    assert signed(log) == []


def test_killed_at_any_moment_the_account_neither_loses_an_order_nor_doubles_it(tmp_path):
    """Over twenty lives that end by kill -9, what was answered is there, and every order is there once."""
    chance, done, sent = random.Random(3), set(), set()
    for _ in range(20):
        first = max(sent, default=0)
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.paper_writer", str(tmp_path), str(first)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        said = [process.stdout.readline()]
        time.sleep(chance.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        said += process.stdout.read().splitlines()
        process.wait()
        process.stdout.close()
        words = [line.split() for line in said if line.strip()]
        sent |= {int(number) for what, number in words if what == "sent"}
        done |= {int(number) for what, number in words if what == "done"}

    account = EngineAccount(Exchange([], paper_file(tmp_path).load().engine), {})
    there = {number for number in sent if account.find(order(number)) is not None}
    assert len(done) > 20
    assert done <= there
    assert len(sent - there) <= 1
    assert all(account.find(order(number)).status is OrderStatus.FILLED for number in there)
    assert len(account.exchange.state.trades) == len(there)
