"""The worker over HTTP where much happens at once: a hundred positions."""

from __future__ import annotations

import asyncio
import signal

from inference.journal.verify import verify
from tests.integration.test_worker_process import worker
from tests.sandbox_support import running_sandbox
from tests.worker_bundle import make_bundle

BALANCE = 100_000.0
# Whatever has an opinion is entered, and held until something happens to it.
RULES = """
confidence_threshold = 0.5
taker_fee = 0
slippage = 0
cooldown_seconds = 86400
max_holding_candles = 500
risk_per_trade = 0.0005
max_portfolio_heat = 1
max_positions = {most}
max_notional = 1000
target_atr_multiple = 20
stop_atr_multiple = {stop}
max_daily_drawdown = 0.15
max_weekly_drawdown = 0.25
"""


async def settled(sandbox, running, *, within: float) -> dict:
    """Return the audit once each open position rests on a stop and nobody has anything under way."""
    async with asyncio.timeout(within):
        while True:
            audit = await sandbox.get("/sandbox/audit")
            symbols = {one["symbol"] for one in audit["open_positions"]}
            if all(one["protected"] for one in audit["open_positions"]) and len(running.status["positions"]) == len(
                symbols
            ):
                return audit
            assert running.process.returncode is None, await running.said()
            await asyncio.sleep(0.25)


def is_whole(home) -> bool:
    """Whether the journal is as it was written."""
    return verify(home / "journal" / "journal.jsonl", home / "journal" / "journal.head").is_whole


async def test_a_hundred_positions_stand_protected(tmp_path):
    """Over the wire a hundred positions stand at once, each on its stop; no order went twice, belief is the venue."""
    bundle = make_bundle(tmp_path / "bundle")
    options = {"symbols": 120, "speed": 30, "seed": 8, "balance": BALANCE, "state": tmp_path / "s"}
    async with running_sandbox(**options) as sandbox:
        rules = RULES.format(most=100, stop=12)
        given = ("--venue-url", sandbox.url, "--bundle", str(bundle))
        async with worker(tmp_path / "home", *given, rules=rules) as running:
            status = await running.until(lambda one: len(one["positions"]) >= 100, within=400)
            audit = await settled(sandbox, running, within=60)
            exit_status = await running.end(signal.SIGTERM)
        left = await sandbox.get("/sandbox/audit")

    assert exit_status == 0
    assert len(status["positions"]) == 100
    assert len(audit["open_positions"]) == 100
    assert all(one["protected"] for one in left["open_positions"])
    assert audit["duplicate_client_ids"] == []
    assert is_whole(tmp_path / "home")
