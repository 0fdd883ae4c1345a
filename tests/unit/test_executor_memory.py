"""What execution must not forget, count twice or do too late."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from decimal import Decimal

import pytest

from feature_store.venue.errors import RateLimitedError, RequestRefusedError
from inference.domain.events import OrderIntended, OrderReported, TradeClosed, TradePlanned
from inference.domain.order import Fill, OrderIntent, OrderReport, OrderStatus, Purpose, Side
from inference.domain.trade import ExitReason
from inference.execution.book import Book
from inference.execution.next_step import MAX_REFUSALS, Place, next_step
from inference.execution.strange import UNEXPLAINED
from tests.worker_support import FakeClock, FakeGateway, MemoryJournal, make_executor
from tests.worker_values import make_approved

BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def gateway(clock):
    return FakeGateway(clock, marks={BTC: Decimal(50_000), ETH: Decimal(50_000)})


@pytest.fixture
def journal():
    return MemoryJournal()


class BannedGateway(FakeGateway):
    """A venue that answers the first sending with a ban of ten minutes."""

    banned = False

    async def submit(self, intent: OrderIntent) -> OrderReport:
        """Ban once, then behave."""
        if not self.banned:
            self.banned = True
            raise RateLimitedError("banned", retry_after_seconds=600.0)
        return await super().submit(intent)


async def test_an_entry_that_a_ban_held_up_is_not_sent_afterwards(clock, journal):
    """An approval is of its candle: when the venue lets us speak again minutes later, nothing is entered on it."""
    gateway = BannedGateway(clock, marks={BTC: Decimal(50_000)})
    executor = make_executor(gateway, journal)
    await clock.drive(executor.start())

    opened = await clock.drive(executor.enter(make_approved(), candle_close_ms=clock.now_ms()), limit_seconds=3600)

    assert not opened
    assert gateway.submitted == []
    assert list(executor.book.active()) == []


async def test_another_symbols_ban_does_not_make_an_entry_late(clock, journal):
    """An entry that waits for a ban met by another symbol's order is given up as well, once it is too old."""
    gateway = BannedGateway(clock, marks={BTC: Decimal(50_000), ETH: Decimal(50_000)})
    executor = make_executor(gateway, journal)
    await clock.drive(executor.start())
    now_ms = clock.now_ms()
    first = executor.enter(make_approved(BTC), candle_close_ms=now_ms)
    entered = await clock.drive(
        asyncio.gather(first, _after(clock, executor.enter(make_approved(ETH), candle_close_ms=now_ms))),
        limit_seconds=3600,
    )

    assert entered == [False, False]
    assert gateway.submitted == []


async def test_a_position_in_a_symbol_whose_trades_are_long_forgotten_is_still_found(clock, gateway, journal):
    """A foreign position is flattened also in a symbol of which the book, which keeps the newest trades, has none."""
    executor = make_executor(gateway, journal)
    await clock.drive(executor.start())
    await clock.drive(executor.enter(make_approved(ETH), candle_close_ms=clock.now_ms()))
    await clock.drive(executor.request_exit(ETH, ExitReason.TIME_BARRIER))
    for key in [one.plan.trade_id for one in executor.book.trades.values() if one.symbol == ETH]:
        del executor.book.trades[key]
    gateway.trade_by_hand(ETH, Decimal("0.5"))

    await clock.drive(executor.reconcile())

    assert gateway.held[ETH] == 0


async def test_a_trade_closed_again_after_a_late_execution_counts_once(clock, gateway, journal):
    """A late execution closes a trade a second time; its money is then counted anew, not added again."""
    executor = make_executor(gateway, journal)
    await clock.drive(executor.start())
    await clock.drive(executor.enter(make_approved(), candle_close_ms=clock.now_ms()))
    await clock.drive(executor.request_exit(BTC, ExitReason.TIME_BARRIER))
    (result,) = executor.closed
    (key,) = executor.book.trades
    again = replace(result, pnl=result.pnl - 1, fees=result.fees + 1)

    executor.book.apply(TradeClosed(trade_id=key, result=again))
    rebuilt = Book.rebuilt([*journal.events(), TradeClosed(trade_id=key, result=again)])

    for book in (executor.book, rebuilt):
        assert (book.closed_count, book.realized_pnl, book.fees) == (1, again.pnl, again.fees)


async def test_targets_that_the_venue_rejects_in_its_report_are_given_up(clock, gateway, journal):
    """A target that comes back as REJECTED is a refusal like any other: after the last one none is sent again."""
    executor = make_executor(gateway, journal)
    await clock.drive(executor.start())
    await clock.drive(executor.enter(make_approved(), candle_close_ms=clock.now_ms()))
    events = [one for one in journal.events() if isinstance(one, TradePlanned | OrderIntended | OrderReported)]
    targets = {
        one.intent.client_order_id
        for one in events
        if isinstance(one, OrderIntended) and one.intent.purpose is Purpose.TARGET
    }
    book = Book.rebuilt(
        [one for one in events if not (isinstance(one, OrderReported) and one.report.client_order_id in targets)]
    )

    sent = 0
    (trade,) = book.active()
    for key in targets:
        book.apply(OrderReported(report=_rejected(key)))
    while isinstance(step := next_step(book.trades[trade.plan.trade_id]), Place) and sent < 10:
        sent += 1
        book.apply(OrderIntended(intent=step.intent))
        book.apply(OrderReported(report=_rejected(step.intent.client_order_id)))

    assert sent == MAX_REFUSALS - 1


async def test_a_closed_trade_leaves_nothing_behind_but_its_record(clock, gateway, journal):
    """What execution remembers of single orders goes with their trade: a year of trading needs no more memory."""
    executor = make_executor(gateway, journal)
    await clock.drive(executor.start())
    gateway.faults = ["", "drop", ""]
    for number in range(3):
        approved = make_approved(trace_id=f"trace-{number}")
        await clock.drive(executor.enter(approved, candle_close_ms=clock.now_ms()))
        gateway.hold_stream = True
        gateway.move(BTC, Decimal(49_700))
        executor.watch()
        await clock.drive(executor.reconcile())
        gateway.deliver()
        gateway.hold_stream = False
        gateway.move(BTC, Decimal(50_000))
        await clock.drive(executor.settle(BTC))

    submission = executor._submission
    shields, closing = executor._protection, executor._closing
    kept = [shields._naked_since, shields._fired_since, closing._fills_asked, submission._first_sent]
    kept += [submission._began, submission._last_sent, submission._denials, submission._silences]
    kept += [submission._sending, submission._heard, executor._wishes._taken_away]

    assert executor.book.closed_count == 3
    assert [len(one) for one in kept] == [0] * len(kept)


class MuteGateway(FakeGateway):
    """A venue that refuses to show executions."""

    async def fills(self, symbol: str, since_ms: int) -> list[Fill]:
        """Refuse."""
        raise RequestRefusedError(f"No executions of {symbol} since {since_ms}", code=-1121)


async def test_executions_that_the_venue_refuses_to_show_do_not_keep_a_trade_open(clock, journal):
    """Asked for often enough, they are done without: the result says so, and the symbol is free again."""
    gateway = MuteGateway(clock, marks={BTC: Decimal(50_000)})
    gateway.hold_stream = True
    executor = make_executor(gateway, journal)
    await clock.drive(executor.start())
    await clock.drive(executor.enter(make_approved(), candle_close_ms=clock.now_ms()))
    await clock.drive(executor.request_exit(BTC, ExitReason.TIME_BARRIER))
    for _ in range(10):
        await clock.drive(executor.settle(BTC))

    (result,) = executor.closed
    assert not result.fills_complete
    assert list(executor.book.active()) == []


async def _after(clock: FakeClock, work: Awaitable[bool]) -> bool:
    await clock.sleep(0.1)
    return await work


def _rejected(client_order_id: str) -> OrderReport:
    return OrderReport(
        client_order_id=client_order_id,
        venue_order_id="77",
        symbol=BTC,
        status=OrderStatus.REFUSED,
        filled=Decimal(0),
        average_price=None,
        event_time_ms=0,
    )


async def test_a_report_of_an_unknown_symbol_is_told_once_and_changes_nothing(clock, gateway, journal):
    """Whatever the stream says of a symbol nobody follows: one event, no order, and what is open stays as it is."""
    executor = make_executor(gateway, journal, is_followed=frozenset([BTC, ETH]).__contains__)
    await clock.drive(executor.start())
    await clock.drive(executor.enter(make_approved(), candle_close_ms=clock.now_ms()))
    before, sent = executor.book.trades, len(gateway.submitted)
    held = dict(gateway.held)
    strange = OrderReport(
        client_order_id="not-ours", venue_order_id="9", symbol="XYZ/USDT:USDT", status=OrderStatus.FILLED,
        filled=Decimal(3), average_price=Decimal(1), event_time_ms=clock.now_ms(),
    )  # fmt: skip
    fill = Fill(
        fill_id="1", client_order_id="", venue_order_id="9", symbol="XYZ/USDT:USDT", side=Side.BUY,
        quantity=Decimal(3), price=Decimal(1), fee=Decimal(0), is_maker=False, event_time_ms=clock.now_ms(),
    )  # fmt: skip

    for _ in range(3):
        executor.on_report(strange)
        executor.on_fill(fill)
    told = [event.detail for event in journal.events() if getattr(event, "event_type", "") == UNEXPLAINED]

    assert [(one["symbol"], one["client_order_id"], one["ours"]) for one in told] == [("XYZ/USDT:USDT", "not-ours", "")]
    assert executor.book.trades == before
    assert (len(gateway.submitted), gateway.held) == (sent, held)
    assert executor.is_reconciled
    assert executor.failure is None


async def test_a_report_of_our_order_under_another_symbol_is_asked_for_again(clock, gateway, journal):
    """It is not believed, nothing is entered until the venue was asked, and what it told is not lost."""
    executor = make_executor(gateway, journal, is_followed=frozenset([BTC, ETH]).__contains__)
    await clock.drive(executor.start())
    held_back: list[object] = []
    gateway.stream = held_back.append
    await clock.drive(executor.enter(make_approved(), candle_close_ms=clock.now_ms()))
    trade = next(executor.book.active())
    entry = trade.of(Purpose.ENTRY)[0]
    fill = next(event for event in held_back if isinstance(event, Fill))
    revision = executor.book.revision(ETH)

    executor.on_fill(replace(fill, symbol=ETH, fill_id="invented", quantity=fill.quantity * 9))
    doubted = executor.is_reconciled
    agreed = await clock.drive(executor.reconcile())
    told = [event.detail for event in journal.events() if getattr(event, "event_type", "") == UNEXPLAINED]

    assert not doubted
    assert agreed
    assert executor.is_reconciled
    assert [(one["symbol"], one["ours"], one["what"]) for one in told] == [(ETH, BTC, "execution")]
    assert executor.book.revision(ETH) == revision
    assert executor.book.trades[trade.plan.trade_id].entered == entry.intent.quantity == gateway.held[BTC]
