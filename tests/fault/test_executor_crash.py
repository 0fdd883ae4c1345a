from __future__ import annotations

from contextlib import suppress
from decimal import Decimal

import pytest

from inference.domain.events import TradeClosed
from inference.domain.order import Side
from inference.domain.trade import ExitReason
from inference.execution.book import Book
from tests.worker_support import Crash, FakeClock, FakeGateway, MemoryJournal, abandon_everything, make_executor
from tests.worker_values import make_approved

BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"
# Enough to lie beyond the last await and the last journal line of each story below.
MOMENTS = range(1, 76)


async def until_quiet(clock, executor):
    await clock.drive(executor.start())
    for _ in range(6):
        await clock.drive(clock.sleep(1))
        for symbol in (BTC, ETH):
            await clock.drive(executor.settle(symbol))
    assert await clock.drive(executor.reconcile())


def cash(gateway: FakeGateway) -> Decimal:
    """What the account earned, by the venue's own executions, were all positions flat."""
    flow = Decimal(0)
    for fill in gateway.trades:
        flow += fill.quantity * fill.price * (1 if fill.side is Side.SELL else -1) - fill.fee
    return flow


async def story_open_and_time_exit(clock, gateway, executor):
    await clock.drive(executor.enter(make_approved(), candle_close_ms=clock.now_ms()))
    await clock.drive(executor.enter(make_approved(ETH), candle_close_ms=clock.now_ms()))
    await clock.drive(executor.request_exit(BTC, ExitReason.TIME_BARRIER))


async def story_stop_hit(clock, gateway, executor):
    await clock.drive(executor.enter(make_approved(), candle_close_ms=clock.now_ms()))
    gateway.move(BTC, Decimal(49_600))
    await clock.drive(executor.settle(BTC))


async def story_unanswered(clock, gateway, executor):
    gateway.faults = ["exec_then_drop", "drop", "exec_then_drop", "", "exec_then_drop"]
    gateway.hold_stream = True
    await clock.drive(executor.enter(make_approved(), candle_close_ms=clock.now_ms()))
    await clock.drive(executor.request_exit(BTC, ExitReason.OPERATOR))


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("story", [story_open_and_time_exit, story_stop_hit, story_unanswered])
async def test_a_worker_killed_anywhere_comes_back_whole(story, moment):
    """Killed at any await or journal line: nothing doubled, nothing lost, nothing unprotected, every cent counted."""
    clock = FakeClock()
    gateway = FakeGateway(clock, marks={BTC: Decimal(50_000), ETH: Decimal(50_000)})
    journal = MemoryJournal(moment=gateway.moment)
    executor = make_executor(gateway, journal)
    await clock.drive(executor.start())
    gateway.moments, gateway.crash_at = 0, moment
    with suppress(Crash):
        await story(clock, gateway, executor)
    await abandon_everything()

    gateway.crash_at, gateway.stream, gateway.faults, gateway.hold_stream = None, None, [], False
    again = make_executor(gateway, journal, book=Book.rebuilt(journal.events()))
    await until_quiet(clock, again)

    held = {symbol: quantity for symbol, quantity in gateway.held.items() if quantity != 0}
    known = {symbol: position.quantity for symbol, position in again.book.positions().items()}
    assert gateway.duplicates() == []
    assert held == known
    assert gateway.unprotected() == []
    assert len(gateway.orders) == 2 * len(held)

    for symbol in (BTC, ETH):
        await clock.drive(again.request_exit(symbol, ExitReason.OPERATOR))
    results = {event.trade_id: event.result for event in journal.events() if isinstance(event, TradeClosed)}
    assert gateway.orders == {}
    assert sum(result.pnl for result in results.values()) == cash(gateway)
    rebuilt = Book.rebuilt(journal.events())
    assert rebuilt.trades == again.book.trades
