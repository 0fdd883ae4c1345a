"""A process that dies at any moment of an entry that rests: what comes after knows and protects all that happened."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from decimal import Decimal

import pytest

from inference.domain.events import TradeClosed
from inference.domain.policy import EntryStyle
from inference.domain.trade import ExitReason
from infra.prove.stateful_machine import Trading
from infra.prove.virtual import Crash, abandon_everything
from tests.worker_values import make_approved

BTC = "BTC/USDT:USDT"


class Life(Trading):
    """One account and one process after another, as in the stateful proof, with a story in place of chance."""

    async def story(self, *, fills: bool) -> None:
        """Enter, wait until the entry filled at its price or its time is over, leave."""
        clock, gateway = self.clock, self.gateway
        approved = make_approved(stop_price=Decimal(45_000), target_price=Decimal(55_000))
        await clock.drive(self.executor.enter(approved, candle_close_ms=clock.now_ms()))
        await clock.drive(clock.sleep(3))
        gateway.move(BTC, Decimal(50_030))
        await clock.drive(clock.sleep(3))
        if fills:
            gateway.move(BTC, Decimal(49_900))
        await clock.drive(clock.sleep(25))
        await clock.drive(self.executor.request_exit(BTC, ExitReason.TIME_BARRIER))
        await clock.drive(clock.sleep(3))


def lived(style: EntryStyle, crash_at: int | None, *, fills: bool) -> Life:
    """Live the story, die at a moment of it, come back, and return what is there then."""
    life = Life()
    life.begin(style)
    life.gateway.moments = 0
    life.gateway.crash_at = crash_at
    with suppress(Crash):
        life.loop.run_until_complete(life.story(fills=fills))
    return life


@pytest.mark.parametrize("fills", [True, False], ids=["filled", "timed-out"])
@pytest.mark.parametrize("style", [EntryStyle.LIMIT, EntryStyle.POST_ONLY], ids=["limit", "post-only"])
def test_death_at_any_moment_of_a_resting_entry_loses_and_doubles_nothing(style, fills):
    """Each moment in turn: after the restart belief is the venue, all is protected, and all can be closed."""
    whole = lived(style, None, fills=fills)
    moments = whole.gateway.moments
    entered = [one.result.quantity for one in whole.journal.events() if isinstance(one, TradeClosed)]
    whole.teardown()
    assert entered == [Decimal("0.04") if fills or style is EntryStyle.LIMIT else Decimal(0)]
    assert moments > 30

    for moment in range(1, moments + 1):
        life = lived(style, moment, fills=fills)
        life.gateway.crash_at = None
        life.loop.run_until_complete(abandon_everything())
        life.start()
        life.drive(asyncio.sleep(0))
        life.drive(life.clock.sleep(7))
        assert life.gateway.longest_bare_s() == 0, f"bare after a death at moment {moment}"
        life.no_order_executed_twice()
        life.orders_live_by_the_table()
        # Restarts, compares, closes everything, compares money.
        life.teardown()
