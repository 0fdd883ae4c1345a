"""A worker at work says how well it is, and keeps its journal's anchor outside its home."""

from __future__ import annotations

import signal

from aiohttp import ClientSession

from inference.domain.health import HealthLevel
from inference.journal.head import Head, read_head, write_head
from inference.journal.reader import read_entries
from inference.journal.verify import verify
from tests.integration.test_worker_process import worker
from tests.sandbox_support import running_sandbox

LEVELS = {one.value for one in HealthLevel}


async def test_a_worker_tells_its_health_and_starts_only_with_its_whole_journal(tmp_path):
    """The level is in the status, at Prometheus and in the journal; what lies below its anchor does not start again."""
    home, anchor = tmp_path / "home", tmp_path / "journal.anchor"
    journal = home / "journal" / "journal.jsonl"
    settings = {"QT_METRICS_PORT": "0", "QT_JOURNAL_ANCHOR": str(anchor)}
    async with running_sandbox(symbols=2, speed=60, seed=1, state=tmp_path / "s") as sandbox:
        async with worker(home, "--venue-url", sandbox.url, **settings) as running:
            status = await running.until(
                lambda one: (
                    (one.get("health") or {}).get("level") in LEVELS
                    and one["candles_processed"] >= 4
                    and any(entry.type == "health.level_changed" for entry in read_entries(journal))
                )
            )
            async with ClientSession() as session, session.get(status["metrics"]) as answer:
                metrics = await answer.text()
            assert await running.end(signal.SIGTERM) == 0
        kept = read_head(anchor)
        write_head(anchor, Head(seq=kept.seq + 1, digest=kept.digest))
        async with worker(home, "--venue-url", sandbox.url, **settings) as refused:
            said = await refused.said()

    assert sum(f'qt_health_level{{level="{one}"}} 1.0' in metrics for one in LEVELS) == 1
    assert status["health"]["level"] not in ("CRITICAL", "EMERGENCY"), status["health"]
    assert kept == read_head(journal.with_suffix(".head"))
    assert verify(journal, journal.with_suffix(".head"), anchors={"outside": kept}).is_whole
    assert f"the anchor {anchor} vouches for {kept.seq + 1}" in said
