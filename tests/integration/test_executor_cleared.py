"""What the venue does to the account on its own, and a venue that stands still, as the worker's executor takes it."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest

from inference.domain.trade import ExitReason
from tests.integration.test_executor_sandbox import BTC, approved, process
from tests.sandbox_support import running_sandbox


async def reconciled(life, holds) -> None:
    """Reconcile, as the worker's timer does, until something holds."""
    async with asyncio.timeout(200):
        while True:
            await life.executor.reconcile()
            await life.executor.settle(BTC)
            if await holds():
                return
            await asyncio.sleep(0.1)


async def is_flat(life) -> bool:
    """Whether nothing is held and nothing rests."""
    return bool(life.executor.closed) and not await life.gateway.open_orders()


@pytest.mark.parametrize(
    "operation",
    [
        pytest.param({"op": "liquidation"}, id="liquidation"),
        pytest.param({"op": "adl", "symbol": "BTCUSDT"}, id="deleveraging"),
        pytest.param({"op": "delist", "symbol": "BTCUSDT"}, id="settlement"),
    ],
)
async def test_a_position_that_the_venue_closed_is_adopted(tmp_path, operation):
    """The trade ends as closed by others at the venue's own prices, its orders are swept, nothing is sent after it."""
    async with (
        running_sandbox(symbols=3, speed=10, state=tmp_path / "state") as sandbox,
        process(sandbox, tmp_path / "journal.jsonl") as life,
    ):
        assert await life.executor.enter(await approved(life), candle_close_ms=life.now_ms())
        answer = await sandbox.ctl(**operation)
        assert answer["ok"] is True
        await reconciled(life, lambda: is_flat(life))
        (result,) = life.executor.closed
        audit = await sandbox.get("/sandbox/audit")

    assert result.reason is ExitReason.EXTERNAL
    (trip,) = audit["trades"]
    assert (result.pnl, result.fees) == (Decimal(trip["pnl"]), Decimal(trip["fees"]))
    assert trip["exit_client_ids"][0].startswith(("autoclose-", "adl_autoclose", "settlement_autoclose-"))
    assert audit["open_positions"] == audit["duplicate_client_ids"] == []


async def test_a_position_that_the_venue_reduced_is_protected_as_it_is(tmp_path):
    """After deleveraging by a part the book holds what the venue holds, and the stop covers just that."""
    async with (
        running_sandbox(symbols=3, speed=10, state=tmp_path / "state") as sandbox,
        process(sandbox, tmp_path / "journal.jsonl") as life,
    ):
        assert await life.executor.enter(await approved(life), candle_close_ms=life.now_ms())
        await sandbox.ctl(op="adl", symbol="BTCUSDT", share=0.4)

        async def agrees() -> bool:
            (position,) = await life.gateway.positions()
            ours = life.executor.book.positions().get(BTC)
            return ours is not None and position.signed_quantity == ours.quantity

        await reconciled(life, agrees)
        audit = await sandbox.get("/sandbox/audit")
        assert audit["open_positions"][0]["protected"]
        await life.executor.request_exit(BTC, ExitReason.OPERATOR)
        assert await life.gateway.positions() == []


async def test_an_exit_waits_out_a_maintenance_window(tmp_path):
    """While the venue is shut nothing is lost or doubled; when it opens, the position is closed once."""
    async with (
        running_sandbox(symbols=3, speed=10, state=tmp_path / "state") as sandbox,
        process(sandbox, tmp_path / "journal.jsonl") as life,
    ):
        assert await life.executor.enter(await approved(life), candle_close_ms=life.now_ms())
        await sandbox.ctl(op="maintenance")
        leaving = asyncio.create_task(life.executor.request_exit(BTC, ExitReason.OPERATOR))
        await asyncio.sleep(2)
        (position,) = await life.gateway.positions()
        assert position.signed_quantity != 0
        assert (await sandbox.ctl(op="maintenance", on=False))["ended"] == 1
        await leaving
        await reconciled(life, lambda: is_flat(life))
        (result,) = life.executor.closed
        audit = await sandbox.get("/sandbox/audit")

    assert result.reason is ExitReason.OPERATOR
    assert len(audit["trades"]) == 1
    assert audit["open_positions"] == audit["duplicate_client_ids"] == []
