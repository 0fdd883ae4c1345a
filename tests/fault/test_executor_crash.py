from __future__ import annotations

from contextlib import suppress
from decimal import Decimal

import pytest

from inference.domain.events import TradeClosed
from inference.domain.order import Purpose, Side
from inference.domain.policy import EntryStyle
from inference.domain.trade import ExitReason
from inference.execution.book import Book
from inference.execution.next_step import MAX_REFUSALS
from tests.worker_support import Crash, FakeClock, FakeGateway, MemoryJournal, abandon_everything, make_executor
from tests.worker_values import make_approved

BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"
# Enough to lie beyond the last await and the last journal line of each story below.
MOMENTS = range(1, 131)


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


async def story_stops_in_doubt(clock, gateway, executor):
    gateway.faults = ["", "exec_then_drop", "late", "drop"]
    gateway.query_faults = ["down"] * 7
    gateway.hold_stream = True
    await clock.drive(executor.enter(make_approved(), candle_close_ms=clock.now_ms()))
    await clock.drive(executor.request_exit(BTC, ExitReason.TIME_BARRIER))


async def story_left_without_a_stop(clock, gateway, executor):
    gateway.refusals = {Purpose.STOP: [-1111] * MAX_REFUSALS}
    gateway.faults = [*[""] * (1 + MAX_REFUSALS), "drop", "late", "exec_then_drop"]
    gateway.query_faults = ["down"] * 7
    gateway.hold_stream = True
    await clock.drive(executor.enter(make_approved(), candle_close_ms=clock.now_ms()))


async def story_partial(clock, gateway, executor):
    gateway.faults = ["partial", "", "", "partial"]
    await clock.drive(executor.enter(make_approved(), candle_close_ms=clock.now_ms()))
    await clock.drive(executor.request_exit(BTC, ExitReason.TIME_BARRIER))


async def story_one_stop_at_a_time(clock, gateway, executor):
    gateway.faults, gateway.one_stop = ["partial", "", "", "partial"], True
    await clock.drive(executor.enter(make_approved(), candle_close_ms=clock.now_ms()))
    await clock.drive(executor.request_exit(BTC, ExitReason.TIME_BARRIER))


STORIES = [
    story_open_and_time_exit,
    story_stop_hit,
    story_unanswered,
    story_stops_in_doubt,
    story_left_without_a_stop,
    story_partial,
    story_one_stop_at_a_time,
]
# How entries are worked in a story, where it is not at market.
STYLES = {story_one_stop_at_a_time: EntryStyle.LIMIT}


def filled(gateway, purpose) -> list[tuple[Decimal, Decimal]]:
    """Return what the orders of a purpose that ended wanted and got, in the order in which they were sent."""
    ended = {key: orders[-1] for key, orders in gateway.ended.items()}
    keys = dict.fromkeys(one.client_order_id for one in gateway.submitted if one.purpose is purpose)
    return [(ended[key].intent.quantity, ended[key].filled) for key in keys if key in ended]


async def told(story):
    """Return the venue after a story in which nobody dies."""
    clock = FakeClock()
    gateway = FakeGateway(clock, marks={BTC: Decimal(50_000), ETH: Decimal(50_000)})
    executor = make_executor(gateway, MemoryJournal(), entry_style=STYLES.get(story, EntryStyle.MARKET))
    await clock.drive(executor.start())
    await story(clock, gateway, executor)
    return gateway


async def test_the_story_of_parts_enters_and_leaves_in_part():
    """Half is entered, and the way out takes two orders: what the deaths in it are to prove something of."""
    gateway = await told(story_partial)

    whole, half, quarter = Decimal("0.04"), Decimal("0.02"), Decimal("0.01")
    assert filled(gateway, Purpose.ENTRY) == [(whole, half)]
    assert filled(gateway, Purpose.EXIT) == [(half, quarter), (quarter, quarter)]


async def test_the_story_of_one_stop_has_stops_refused_and_replaced():
    """The entry grows twice, and each time a stop is refused beside the older one, which goes before it comes again."""
    gateway = await told(story_one_stop_at_a_time)

    asked = [one.quantity for one in gateway.submitted if one.purpose is Purpose.STOP]
    assert asked == [Decimal(one) for one in ("0.02", "0.03", "0.03", "0.04", "0.04")]
    assert [quantity for quantity, _ in filled(gateway, Purpose.STOP)] == [Decimal("0.02"), Decimal("0.03"), asked[-1]]
    assert gateway.unprotected() == []


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("story", STORIES)
async def test_a_worker_killed_anywhere_comes_back_whole(story, moment):
    """Killed at any await or journal line: nothing doubled, nothing lost, nothing unprotected, every cent counted."""
    clock = FakeClock()
    gateway = FakeGateway(clock, marks={BTC: Decimal(50_000), ETH: Decimal(50_000)})
    journal = MemoryJournal(moment=gateway.moment)
    executor = make_executor(gateway, journal, entry_style=STYLES.get(story, EntryStyle.MARKET))
    await clock.drive(executor.start())
    gateway.moments, gateway.crash_at = 0, moment
    with suppress(Crash):
        await story(clock, gateway, executor)
    await abandon_everything()

    assert moment < MOMENTS[-1] or gateway.moments < moment, "the story is longer than the moments that were tried"
    gateway.crash_at, gateway.stream, gateway.faults, gateway.hold_stream = None, None, [], False
    gateway.query_faults, gateway.refusals = [], {}
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
