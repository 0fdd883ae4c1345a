"""A venue whose time is told to stand still keeps it, answers on, and goes on when it is told to."""

from __future__ import annotations

import asyncio

from tests.sandbox_support import running_sandbox


async def test_time_stands_still_until_it_may_go_on():
    """Nothing moves while it is held, however long; `go_on` and `clear` let it pass from where it stood."""
    async with running_sandbox(symbols=1, history_days=1, speed=600) as sandbox:
        for release in ("go_on", "clear"):
            held_ms = (await sandbox.ctl(op="stand_still"))["held_ms"]
            for _ in range(3):
                await asyncio.sleep(0.2)
                status = await sandbox.get("/sandbox/status")
                told = await sandbox.get("/fapi/v1/time")
                assert (status["held_ms"], status["now_ms"], told["serverTime"]) == (held_ms, held_ms, held_ms)
            await sandbox.ctl(op=release)
            async with asyncio.timeout(60):
                while (await sandbox.get("/sandbox/status"))["now_ms"] < held_ms + 60_000:  # noqa: ASYNC110 - HTTP tells nobody
                    await asyncio.sleep(0.05)
            assert (await sandbox.get("/sandbox/status"))["held_ms"] is None
