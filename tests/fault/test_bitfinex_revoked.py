"""A key that Bitfinex takes back while a position is open: entries stop, and are not tried again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inference.execution.entry_holds import ACCOUNT
from infra.prove.own_venue import own_venue
from tests.integration.test_bitfinex_executor import BTC, SUBMIT, approved, process

ETH = "ETH/USDT:USDT"


@pytest.mark.parametrize(
    ("says", "because"), [(None, "10100"), ('["error",10001,"api_key: permission invalid"]', "AccountError")]
)
async def test_a_revoked_key_ends_entries_and_is_not_asked_with_again(tmp_path, says, because):
    """The venue knows the key no more, or lets it place no orders: one refusal, and no further entry is sent."""
    sent: list[str] = []
    heard = lambda method, path: sent.append(path) if path.endswith(SUBMIT) else None  # noqa: E731 - one line
    async with own_venue(heard=heard) as venue, process(venue, tmp_path / "journal.jsonl") as life:
        assert await life.executor.enter(await approved(life), candle_close_ms=life.now_ms())
        (position,) = await life.gateway.positions()
        later = [replace(await approved(life, trace_id=name), symbol=ETH) for name in ("second", "third")]
        before = len(sent)
        door = venue.sandbox.bitfinex.doorkeeper
        known = door.credentials
        if says is None:
            door.credentials = replace(known, api_key="another")
        else:
            await venue.do(op="fault", path=SUBMIT, method="POST", action="status", status=500, body=says, p=1)
        for approval in later:
            assert not await life.executor.enter(approval, candle_close_ms=life.now_ms())
        held = [(one.what, one.because) for one in life.executor.entries_held]
        refused = len(sent) - before
        door.credentials = known
        await venue.do(op="clear")
        resting = venue.audit()["open_algo_orders"] + venue.audit()["open_orders"]

    assert position.symbol == BTC
    assert refused == 1
    assert held == [(ACCOUNT, because)]
    assert resting == 2
