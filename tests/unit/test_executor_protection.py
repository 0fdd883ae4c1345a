from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest

from feature_store.venue.errors import OutcomeUnknownError
from inference.domain.errors import JournalError
from inference.domain.order import OrderIntent, OrderReport, OrderStatus, OrderType, Purpose
from inference.domain.trade import ExitReason
from inference.execution.book import Book
from inference.execution.next_step import MAX_IN_DOUBT
from tests.worker_support import FakeClock, FakeGateway, MemoryJournal, make_executor
from tests.worker_values import make_approved

BTC = "BTC/USDT:USDT"


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def gateway(clock):
    return FakeGateway(clock, marks={BTC: Decimal(50_000)})


@pytest.fixture
def journal():
    return MemoryJournal()


async def opened(clock, gateway, journal, **settings):
    executor = make_executor(gateway, journal, **settings)
    await clock.drive(executor.start())
    await clock.drive(executor.enter(make_approved(), candle_close_ms=clock.now_ms()))
    return executor


async def test_an_entry_is_followed_at_once_by_its_stop_then_its_target(clock, gateway, journal):
    """The very next request after a filled entry is the stop, the one after it the target."""
    await opened(clock, gateway, journal)

    assert [one.purpose for one in gateway.submitted] == [Purpose.ENTRY, Purpose.STOP, Purpose.TARGET]
    assert gateway.unprotected() == []
    assert gateway.submitted[1].trigger_price == Decimal(49_700)


async def test_a_stop_that_fills_closes_the_trade_and_takes_the_target_away(clock, gateway, journal):
    """When the stop fills, the target is cancelled and the trade closed with its money counted to the cent."""
    executor = await opened(clock, gateway, journal)
    gateway.move(BTC, Decimal(49_700))
    await clock.drive(executor.settle(BTC))

    (result,) = executor.closed
    assert gateway.orders == {}
    assert result.reason is ExitReason.STOP
    assert result.fills_complete
    assert result.fees == Decimal("0.04") * (50_000 + 49_700) * Decimal("0.0005")
    assert result.pnl == Decimal("0.04") * -300 - result.fees
    assert list(executor.book.active()) == []


async def test_a_target_that_fills_takes_the_stop_away(clock, gateway, journal):
    """When the target fills, no stop is left at the venue."""
    executor = await opened(clock, gateway, journal)
    gateway.move(BTC, Decimal(50_400))
    await clock.drive(executor.settle(BTC))

    assert executor.closed[0].reason is ExitReason.TARGET
    assert executor.closed[0].pnl > 0
    assert gateway.orders == {}


async def test_a_time_exit_keeps_the_stop_until_flat(clock, gateway, journal):
    """A time exit goes out at market first; stop and target are cancelled only afterwards."""
    executor = await opened(clock, gateway, journal)
    await clock.drive(executor.request_exit(BTC, ExitReason.TIME_BARRIER))

    assert gateway.submitted[-1].purpose is Purpose.EXIT
    assert gateway.submitted[-1].reduce_only
    assert executor.closed[0].reason is ExitReason.TIME_BARRIER
    assert gateway.orders == {}
    assert gateway.held[BTC] == 0


async def test_a_stop_that_would_trigger_flattens(clock, gateway, journal):
    """A stop refused because the price is already through it ends the trade at market."""
    gateway.refusals[Purpose.STOP] = [-2021]
    executor = await opened(clock, gateway, journal)

    assert gateway.held[BTC] == 0
    assert executor.closed[0].reason is ExitReason.STOP


async def test_a_stop_refused_again_and_again_flattens(clock, gateway, journal):
    """A venue that will not hold a stop is not traded without one."""
    gateway.refusals[Purpose.STOP] = [-1111] * 9
    executor = await opened(clock, gateway, journal)

    assert gateway.held[BTC] == 0
    assert executor.closed[0].reason is ExitReason.UNPROTECTED


class StoplessGateway(FakeGateway):
    """A venue whose place for stops answers nothing, while all else is well."""

    async def submit(self, intent: OrderIntent) -> OrderReport:
        """Lose stops."""
        if intent.purpose is not Purpose.STOP:
            return await super().submit(intent)
        self.submitted.append(intent)
        raise OutcomeUnknownError("connection reset")


async def test_a_stop_not_confirmed_in_time_flattens(clock, journal):
    """Where no stop is ever confirmed the position is left once the venue has had its time, by one exit."""
    gateway = StoplessGateway(clock, marks={BTC: Decimal(50_000)})
    began = clock.seconds
    executor = await opened(clock, gateway, journal)

    assert gateway.held[BTC] == 0
    assert 5.0 < clock.seconds - began < 9.0
    assert executor.closed[0].reason is ExitReason.UNPROTECTED
    stops = [one.client_order_id for one in gateway.submitted if one.purpose is Purpose.STOP]
    assert len(stops) > MAX_IN_DOUBT
    assert [one.purpose for one in gateway.submitted if one.purpose is Purpose.EXIT] == [Purpose.EXIT]


async def test_a_stop_in_doubt_is_followed_at_once_by_another(clock, gateway, journal):
    """A stop that was lost leaves the position bare for moments, not until it can no longer execute."""
    gateway.faults = ["", "drop"]
    gateway.query_faults = ["down"] * 3
    executor = make_executor(gateway, journal)
    await clock.drive(executor.start())
    bare = []
    gateway.on_moment = lambda: bare.append(clock.seconds) if gateway.unprotected() else None
    await clock.drive(executor.enter(make_approved(), candle_close_ms=clock.now_ms()))

    first, second = [one for one in gateway.submitted if one.purpose is Purpose.STOP]
    assert first.client_order_id.endswith("-S1")
    assert second.client_order_id.endswith("-S2")
    assert bare[-1] - bare[0] < 0.5
    assert gateway.unprotected() == []
    assert await clock.drive(executor.reconcile())
    assert executor.book.order(first.client_order_id).never_existed


@pytest.mark.parametrize("lost", [Purpose.STOP, Purpose.EXIT])
async def test_where_nothing_is_reduce_only_nothing_is_sent_beside_what_is_in_doubt(clock, journal, lost):
    """On spot a second order would sell what the trade does not hold: each is sent again once it cannot execute."""
    gateway = FakeGateway(clock, marks={BTC: Decimal(50_000)})
    if lost is Purpose.STOP:
        gateway.faults = ["", "drop", "drop"]
    else:
        # Through the stop already: bare, and to be left.
        gateway.refusals[Purpose.STOP] = [-2021]
        gateway.faults = ["", "", "drop"]
    executor = make_executor(gateway, journal, may_double=False, stop_within_seconds=20.0)
    await clock.drive(executor.start())
    began = clock.seconds
    await clock.drive(executor.enter(make_approved(), candle_close_ms=clock.now_ms()))

    sent = [one.client_order_id for one in gateway.submitted if one.purpose is lost]
    assert len(sent) == (3 if lost is Purpose.STOP else 2)
    assert len(set(sent)) == 1
    assert clock.seconds - began > gateway.recv_window_ms / 1000 * (len(sent) - 1)
    assert gateway.unprotected() == []


async def test_of_two_stops_that_both_exist_one_is_cancelled(clock, gateway, journal):
    """A stop that was executed and not answered, and denied when asked for, turns up later; one stop is left."""
    gateway.faults = ["", "exec_then_drop"]
    gateway.query_faults = ["down"]
    gateway.hold_stream = True
    executor = await opened(clock, gateway, journal)
    await clock.drive(executor.settle(BTC))

    sent = [one.client_order_id for one in gateway.submitted if one.purpose is Purpose.STOP]
    resting = [one.intent for one in gateway.orders.values() if one.intent.purpose is Purpose.STOP]
    assert len(sent) == 2
    assert [one.quantity for one in resting] == [Decimal("0.04")]
    assert await clock.drive(executor.reconcile())


async def test_a_partially_filled_entry_is_protected_for_what_it_filled(clock, gateway, journal):
    """A market entry that ended with half its quantity gets a stop and a target for that half."""
    gateway.faults = ["partial"]
    await opened(clock, gateway, journal)

    assert gateway.held[BTC] == Decimal("0.02")
    assert {one.intent.quantity for one in gateway.orders.values()} == {Decimal("0.02")}
    assert gateway.unprotected() == []


async def test_an_entry_that_hangs_is_protected_from_the_user_stream(clock, gateway, journal):
    """A fill learned from the stream is protected at once, while the sending is still waiting for its answer."""
    gateway.faults = ["hang"]
    executor = make_executor(gateway, journal)
    await clock.drive(executor.start())
    began = clock.seconds
    await clock.drive(executor.enter(make_approved(), candle_close_ms=clock.now_ms()))

    assert clock.seconds - began < 0.25
    assert gateway.unprotected() == []


@pytest.mark.parametrize("fault", ["drop", "exec_then_drop", "late", "down", "overload", "limited", "hang"])
@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("position", [0, 1, 2])
async def test_each_order_exists_exactly_once_whatever_the_answer(clock, gateway, journal, fault, streaming, position):
    """One fault at any of the three orders leaves one entry, one stop and one target, or nothing at all."""
    gateway.faults = [""] * position + [fault]
    gateway.hold_stream = not streaming
    executor = await opened(clock, gateway, journal)
    for _ in range(5):
        await clock.drive(clock.sleep(1))
        await clock.drive(executor.settle(BTC))

    assert gateway.held.get(BTC, Decimal(0)) in (Decimal(0), Decimal("0.04"))
    assert gateway.held.get(BTC, Decimal(0)) == Decimal("0.04"), "young entries are sent again"
    assert sorted(one.intent.order_type for one in gateway.orders.values()) == [
        OrderType.STOP_MARKET,
        OrderType.TAKE_PROFIT_MARKET,
    ]
    assert await clock.drive(executor.reconcile())


async def test_a_restart_finds_the_trade_where_it_was(clock, gateway, journal):
    """A new process with the same journal agrees with the venue at once and sends nothing."""
    await opened(clock, gateway, journal)
    sent = len(gateway.submitted)
    again = make_executor(gateway, journal, book=Book.rebuilt(journal.events()))
    await clock.drive(again.start())

    assert len(gateway.submitted) == sent
    assert again.book.positions()[BTC].quantity == Decimal("0.04")


async def test_a_stop_that_fired_and_does_not_fill_is_followed_by_the_market(clock, gateway, journal):
    """A triggered stop whose order stays unfilled ends in a market exit, within seconds."""
    executor = await opened(clock, gateway, journal)
    stop = next(one for one in gateway.orders.values() if one.intent.purpose is Purpose.STOP)
    stop.status, stop.child_id = OrderStatus.TRIGGERED, "child"
    executor.on_report(gateway._report(stop))
    for _ in range(6):
        await clock.drive(executor.settle(BTC))
        await clock.drive(clock.sleep(1))

    assert gateway.held[BTC] == 0
    assert executor.closed[0].reason is ExitReason.STOP_UNFILLED


async def test_a_graceful_stop_leaves_the_stop_at_the_venue(clock, gateway, journal):
    """Stopping ends the loop and every request under way, and takes no protection away."""
    executor = await opened(clock, gateway, journal)
    running = asyncio.create_task(executor.run())
    await clock.drive(clock.sleep(3))
    await clock.drive(executor.stop())
    await clock.drive(running)

    assert gateway.held[BTC] == Decimal("0.04")
    assert gateway.unprotected() == []
    assert not await clock.drive(executor.enter(make_approved("ETH/USDT:USDT"), candle_close_ms=clock.now_ms()))


async def test_nothing_is_entered_before_journal_and_venue_agree(clock, gateway, journal):
    """An executor that was not started, or whose venue holds what nobody explains, enters nothing."""
    executor = make_executor(gateway, journal)

    assert not await clock.drive(executor.enter(make_approved(), candle_close_ms=clock.now_ms()))
    assert gateway.submitted == []


async def test_an_entry_that_cannot_be_recorded_is_not_sent(clock, gateway, journal):
    """Without a record there is no order."""
    executor = make_executor(gateway, journal)
    await clock.drive(executor.start())
    journal.fail = JournalError("disk full")

    with pytest.raises(JournalError):
        await clock.drive(executor.enter(make_approved(), candle_close_ms=clock.now_ms()))
    assert gateway.submitted == []


async def test_a_disk_that_fills_up_after_the_entry_does_not_keep_the_stop_away(clock, gateway, journal):
    """Protection goes out although it cannot be recorded; nothing new is entered; the next start agrees again."""
    executor = make_executor(gateway, journal)
    await clock.drive(executor.start())

    def disk_full_after_the_entry():
        if gateway.submitted:
            journal.fail = JournalError("disk full")

    gateway.on_moment = disk_full_after_the_entry
    await clock.drive(executor.enter(make_approved(), candle_close_ms=clock.now_ms()))
    assert gateway.unprotected() == []
    assert executor.failure is not None
    assert not await clock.drive(executor.enter(make_approved("ETH/USDT:USDT"), candle_close_ms=clock.now_ms()))

    gateway.on_moment, journal.fail = lambda: None, None
    again = make_executor(gateway, journal, book=Book.rebuilt(journal.events()))
    await clock.drive(again.start())
    assert again.book.positions()[BTC].quantity == Decimal("0.04")
    assert gateway.unprotected() == []
    assert len(gateway.orders) == 2


async def test_a_position_closed_by_somebody_else_is_adopted(clock, gateway, journal):
    """The venue is right about positions: a trade closed by hand is closed here, its orders cancelled."""
    executor = await opened(clock, gateway, journal)
    gateway.marks[BTC] = Decimal(50_100)
    gateway.trade_by_hand(BTC, Decimal("-0.04"))
    assert await clock.drive(executor.reconcile())

    assert executor.closed[0].reason is ExitReason.EXTERNAL
    assert executor.closed[0].exit_price == Decimal(50_100)
    assert gateway.orders == {}


async def test_a_position_nobody_explains_is_flattened(clock, gateway, journal):
    """A position without a trade of ours has no stop and is closed at market, reduce-only."""
    gateway.trade_by_hand(BTC, Decimal("-0.5"))
    executor = make_executor(gateway, journal)
    await clock.drive(executor.start())

    assert gateway.held[BTC] == 0
    assert gateway.submitted[-1].reduce_only
    assert executor.closed[0].reason is ExitReason.EXTERNAL


async def test_an_exit_with_nothing_left_to_reduce_believes_the_venue(clock, gateway, journal):
    """-2022 on an exit means that the position is gone: the trade closes, nothing is opened the other way."""
    executor = await opened(clock, gateway, journal)
    gateway.hold_stream = True
    gateway.trade_by_hand(BTC, Decimal("-0.04"))
    await clock.drive(executor.request_exit(BTC, ExitReason.OPERATOR))

    assert gateway.held[BTC] == 0
    assert gateway.orders == {}
    assert executor.closed[0].reason is ExitReason.EXTERNAL


async def test_a_stale_not_found_does_not_double_an_entry(clock, gateway, journal):
    """A venue that denies an executed entry far beyond its window is contradicted by its own position."""
    gateway.faults = ["exec_then_drop"]
    gateway.query_faults = ["stale"] * 20
    gateway.hold_stream = True
    executor = make_executor(gateway, journal)
    await clock.drive(executor.start())
    await clock.drive(executor.enter(make_approved(), candle_close_ms=clock.now_ms()))

    assert gateway.duplicates() == []
    assert gateway.held[BTC] == Decimal("0.04")
    assert gateway.unprotected() == []


async def test_an_approval_that_waited_past_the_next_decision_is_not_taken(clock, gateway, journal):
    """An entry older than a candle is dropped: the next decision has counted without it."""
    executor = make_executor(gateway, journal)
    await clock.drive(executor.start())

    assert not await clock.drive(executor.enter(make_approved(), candle_close_ms=clock.now_ms() - 300_001))
    assert gateway.submitted == []


async def test_a_defect_that_recurs_at_once_does_not_spin(clock, gateway, journal):
    """A turn that fails the moment it begins is tried again at the watch's pace, and trading stops."""
    executor = await opened(clock, gateway, journal)
    tries = 0

    async def broken(_symbol, _since_ms):
        nonlocal tries
        tries += 1
        raise ZeroDivisionError

    gateway.fills = broken
    running = asyncio.create_task(executor.run())
    gateway.move(BTC, Decimal(49_600))
    await clock.drive(clock.sleep(10))
    await clock.drive(executor.stop())
    await clock.drive(running)

    assert 2 <= tries <= 12
    assert isinstance(executor.failure, ZeroDivisionError)


async def test_a_strangers_position_does_not_keep_an_entry_in_doubt_for_ever(clock, gateway, journal):
    """An entry that was lost while somebody else opened a position ends absent, and the position is flattened."""
    executor = make_executor(gateway, journal)
    await clock.drive(executor.start())
    gateway.faults = ["drop"]
    gateway.trade_by_hand(BTC, Decimal("0.04"))
    running = asyncio.create_task(executor.run())
    await clock.drive(executor.enter(make_approved(), candle_close_ms=clock.now_ms()))
    await clock.drive(clock.sleep(60))
    await clock.drive(executor.stop())
    await clock.drive(running)

    assert gateway.held[BTC] == 0
    assert list(executor.book.active()) == []
