"""The worker's executor over HTTP, and a backtest of the same approvals, work entries that rest alike."""

from __future__ import annotations

import pytest

from infra.prove.wire_candles import made
from infra.prove.wire_entries import RESTING, compared, options
from tests.sandbox_support import running_sandbox


@pytest.mark.parametrize("style", RESTING)
async def test_entries_at_rest_are_the_same_over_the_wire(style, tmp_path):
    """Each order that rests, follows or takes, each fill and each protective order agrees, to time and last digit."""
    candles = made(5, 3)

    async with running_sandbox(**options(candles, tmp_path)) as sandbox:
        found = await compared(sandbox.url, candles, style, tmp_path, decisions=8)

    assert found.fills >= 10
    assert found.orders >= 20
    assert found.differences == []
