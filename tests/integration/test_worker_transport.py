"""The worker as a process, while one endpoint of its venue fails: said in the status and in the journal, and over."""

from __future__ import annotations

import signal

from infra.prove.record import events_in, notes_in
from tests.integration.test_worker_process import worker
from tests.sandbox_support import running_sandbox


async def test_a_failing_endpoint_is_told_and_forgotten(tmp_path):
    """While the venue's time cannot be read, its endpoint is kept back and the status says so; then all is well."""
    home = tmp_path / "home"
    async with running_sandbox(symbols=2, speed=60, seed=3, state=tmp_path / "s") as sandbox:
        async with worker(home, "--venue-url", sandbox.url) as running:
            well = await running.until(lambda one: one["candles_processed"] >= 2)
            await sandbox.ctl(op="fault", path="/fapi/v1/time", method="GET", p=1, status=502, body="")
            unwell = await running.until(lambda one: one["transport"]["circuits_open"] > 0)
            await sandbox.ctl(op="clear")
            again = await running.until(lambda one: one["transport"]["circuits_open"] == 0)
            assert await running.end(signal.SIGTERM) == 0
        events = events_in(home / "journal" / "journal.jsonl")

    assert well["feed"]["connections"] == 1
    assert well["feed"]["late_ms_p50"] <= well["feed"]["late_ms_p99"] <= well["feed"]["late_ms_worst"]
    assert well["transport"] == {"circuits_open": 0, "kept_back": 0, "paused_s": 0.0}
    assert unwell["state"] == well["state"] == again["state"] == "idle"
    assert [one["endpoint"] for one in notes_in(events, "health.circuit_opened")] == ["GET time"]
    assert [one["endpoint"] for one in notes_in(events, "health.circuit_closed")] == ["GET time"]
