"""Two hosts of one account, and the first is cut off: at no moment does the venue take orders of both."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from feature_store.clock import monotonic
from feature_store.venue.factory import RECV_WINDOW_MS
from inference.domain.order import Purpose
from inference.execution.client_order_id import order_key
from inference.execution.lease import CLOCK_ERROR_SECONDS
from tests.integration.test_single_writer import entries, orders_of, sent
from tests.integration.test_worker_process import worker
from tests.network_support import Host, network
from tests.postgres_support import running_postgres
from tests.sandbox_support import ROOT, running_sandbox
from tests.worker_bundle import make_bundle

pytestmark = [pytest.mark.needs_namespaces, pytest.mark.needs_postgres]

LEASE_SECONDS = 3
QUIET_SECONDS = RECV_WINDOW_MS / 1000 + CLOCK_ERROR_SECONDS


@pytest.fixture
def net():
    """Return a bridge with two hosts."""
    with network() as made:
        yield made


@pytest.fixture
def leases(net):
    """Return the address of a PostgreSQL server that both hosts reach."""
    with running_postgres(net.address) as address:
        yield address


def of_workers(accepted: dict[str, int], intended: set[str]) -> dict[str, int]:
    """Return what was sent to the market; what a stop became, the venue made, whenever it fired."""
    keys = {key for key in intended if (known := order_key(key)) and known.purpose in (Purpose.ENTRY, Purpose.EXIT)}
    return {key: at for key, at in accepted.items() if key in keys}


async def test_a_worker_that_is_cut_off_sends_nothing_and_ends_when_it_is_back(tmp_path, net, leases):
    """The first loses its link; the second takes over when nothing of the first can be accepted any more."""
    first_host, second_host = net.hosts
    bundle = make_bundle(tmp_path / "bundle")
    homes = tmp_path / "first", tmp_path / "second"
    shared = {"QT_LEASE_URL": leases, "QT_LEASE_SECONDS": str(LEASE_SECONDS), "QT_LEASE_WAIT": "true"}
    async with running_sandbox(host=net.address, symbols=6, speed=60, seed=8, state=tmp_path / "s") as sandbox:
        names = [f"{one[:-4]}/USDT:USDT" for one in (await sandbox.get("/sandbox/status"))["symbols"]]
        options = ("--venue-url", sandbox.url, "--bundle", str(bundle), "--symbols")
        # Ids of orders follow from symbol and candle: of other symbols, so that each tells whose it is.
        async with worker(homes[0], *options, ",".join(names[:3]), inside=first_host, **shared) as first:
            await first.until(lambda one: one["positions"])
            async with worker(homes[1], *options, ",".join(names[3:]), inside=second_host, **shared) as second:
                await asyncio.sleep(1)
                assert second.process.returncode is None
                first_host.cut_off()
                cut = monotonic()
                cut_ms = (await sandbox.get("/sandbox/status"))["now_ms"]
                await second.until(lambda one: one["batches_processed"] >= 1)
                took_over = monotonic()
                await second.until(lambda one: one["positions"])
                assert first.process.returncode is None
                before = sent(homes[0])
                first_host.reconnect()
                assert await asyncio.wait_for(first.process.wait(), 60) == 1
                await second.until(lambda one: one["batches_processed"] >= 4)
                assert await second.end(signal.SIGTERM) == 0
            words = await first.said()
        audit = await sandbox.get("/sandbox/audit")
        accepted = await orders_of(sandbox)

    ours, theirs = (of_workers(accepted, sent(home)) for home in homes)
    assert took_over - cut >= LEASE_SECONDS + QUIET_SECONDS - LEASE_SECONDS / 4
    assert f"process {second.process.pid}" in words
    assert [int(entries(home, "health.lease_taken")[0].data["token"]) for home in homes] == [1, 2]
    assert entries(homes[0], "health.lease_not_renewed")
    assert [one.data["token"] for one in entries(homes[0], "health.lease_lost")] == ["1"]
    assert ours
    assert theirs
    assert set(ours).isdisjoint(theirs)
    # The venue's time runs sixty times as fast as the wall's; what was under way when the link went is all there is.
    assert max(ours.values()) <= cut_ms + 60_000
    assert max(ours.values()) < min(theirs.values())
    assert set(ours) <= before
    assert audit["duplicate_client_ids"] == []
    assert all(one["protected"] for one in audit["open_positions"])


@asynccontextmanager
async def writer(name: str, host: Host, home: Path, *, venue: str, leases: str):
    """Run `tests.lease_writer` inside a host; yield the process and what it has said so far."""
    process = await asyncio.create_subprocess_exec(
        *host.command, sys.executable, "-m", "tests.lease_writer", name, venue, leases, str(home), str(LEASE_SECONDS),
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said: list[dict] = []

    async def listen() -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            # What it logs comes the same way.
            if line.startswith(b"{"):
                said.append(json.loads(line))

    listening = asyncio.create_task(listen())
    try:
        yield process, said
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await listening


async def heard(said: list[dict], what: str, *, times: int = 1, within: float = 60.0) -> None:
    """Wait until a process has said something so often."""
    deadline = monotonic() + within
    while sum(one["what"] == what for one in said) < times:
        assert monotonic() < deadline, (what, times, said[-5:])
        await asyncio.sleep(0.05)


async def test_of_two_that_send_all_the_time_the_venue_takes_one_after_the_other(tmp_path, net, leases):
    """
    What the first signed within its lease lies in its sockets while it is cut off, and arrives when it is back.

    By then the second trades: the venue refuses it, as it is older than its window.
    """
    first_host, second_host = net.hosts
    async with running_sandbox(host=net.address, symbols=1, speed=1, seed=8, state=tmp_path / "s") as sandbox:
        at = {"venue": sandbox.url, "leases": leases}
        async with writer("first", first_host, tmp_path / "first", **at) as (one, first):
            await heard(first, "accepted", times=20)
            async with writer("second", second_host, tmp_path / "second", **at) as (_, second):
                await heard(second, "connected")
                first_host.cut_off()
                cut = monotonic()
                await heard(second, "accepted", times=20)
                first_host.reconnect()
                await heard(first, "lost")
                assert await asyncio.wait_for(one.wait(), 60) == 0
                much = sum(line["what"] == "accepted" for line in second)
                await heard(second, "accepted", times=much + 20)
        audit = await sandbox.get("/sandbox/audit")
        accepted = await orders_of(sandbox)

    signed = [[line["at"] for line in said if line["what"] == "signed"] for said in (first, second)]
    begins = next(line["at"] for line in second if line["what"] == "begins")
    # It signed on after the cut, and nothing once its lease was over.
    assert cut < max(signed[0]) <= cut + LEASE_SECONDS
    assert min(signed[1]) >= begins >= max(signed[0]) + QUIET_SECONDS
    ours, theirs = (
        {at for key, at in accepted.items() if key.startswith(f"qt-{name}-")} for name in ("first", "second")
    )
    assert len(ours) >= 20
    assert len(theirs) >= 40
    assert max(ours) < min(theirs)
    assert audit["duplicate_client_ids"] == []
