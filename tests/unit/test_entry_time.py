"""When a position counts as entered: at the close that was decided on, or after it, whatever our clock says."""

from __future__ import annotations

from decimal import Decimal

import pytest

from inference.decision import due_exits
from inference.domain.policy import Policy
from tests.worker_support import FakeClock, FakeGateway, MemoryJournal, make_executor
from tests.worker_values import T0, make_approved

BTC = "BTC/USDT:USDT"
STEP_MS = 300_000


@pytest.mark.parametrize("behind_ms", [0, 1, 400, -400])
async def test_a_clock_behind_the_venue_s_does_not_end_a_trade_a_candle_early(behind_ms):
    """The time barrier lies the policy's candles after the close that was decided on, not after the one before it."""
    clock, policy = FakeClock(), Policy(max_holding_candles=3)
    executor = make_executor(FakeGateway(clock, marks={BTC: Decimal(50_000)}), MemoryJournal())
    close_ms = T0 + STEP_MS
    await clock.drive(executor.start())
    await clock.drive(clock.sleep((close_ms - behind_ms - clock.now_ms()) / 1000))
    await clock.drive(executor.enter(make_approved(), candle_close_ms=close_ms))

    held = executor.book.positions()
    due = [
        candles for candles in range(6) if due_exits(held, candle_close_ms=close_ms + candles * STEP_MS, policy=policy)
    ]

    assert held[BTC].entry_time_ms >= close_ms
    assert due == [3, 4, 5]
