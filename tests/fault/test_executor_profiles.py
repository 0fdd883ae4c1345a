"""Trades that end by an exit profile, at a venue that fails: never naked, never looser, counted to the cent."""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.decision import decide
from inference.domain.decision import Approved
from inference.domain.events import ExitObserved, OrderIntended, TradeClosed
from inference.domain.exit_profile import BUILT_IN, ExitProfile, Target
from inference.domain.exit_state import CandleClosed, Priced
from inference.domain.order import OrderType, Purpose, Side
from inference.domain.policy import Policy
from inference.domain.trade import ExitReason
from inference.execution.book import Book
from tests.worker_support import (
    FIVE_MINUTES_MS,
    Crash,
    FakeClock,
    FakeGateway,
    MemoryJournal,
    abandon_everything,
    make_executor,
)
from tests.worker_values import T0, make_snapshot

BTC = "BTC/USDT:USDT"
D = Decimal
LADDER = ExitProfile(
    name="LADDER",
    stop_atr=D(2),
    targets=tuple(Target(share=D("0.25"), r=D(one)) for one in ("0.5", "1", "1.5")),
    break_even_after=1,
    trail_atr=D(1),
    time_stop_candles=6,
)
PROFILES = {**BUILT_IN, "LADDER": LADDER}
# Enough to lie beyond the last await and the last journal line of each story below.
MOMENTS = range(1, 261, 3)


def approved(name: str = "CHALLENGE_100") -> Approved:
    (decision,) = decide(make_snapshot(exits=PROFILES[name]), Policy(exit_profile=name, max_notional=D(4000)), T0)
    assert isinstance(decision, Approved)
    return decision


def close(number: int, price: int | str | None) -> list[CandleClosed]:
    return [CandleClosed(close_ms=T0 + number * FIVE_MINUTES_MS, close=None if price is None else D(price))]


def world(*, moment: bool = False):
    clock = FakeClock()
    gateway = FakeGateway(clock, marks={BTC: D(50_000)})
    journal = MemoryJournal(moment=gateway.moment) if moment else MemoryJournal()
    return clock, gateway, journal, make_executor(gateway, journal)


def resting(gateway: FakeGateway, kind: OrderType) -> list[tuple[Decimal, Decimal]]:
    orders = [one.intent for one in gateway.orders.values() if one.intent.order_type is kind]
    return sorted((one.trigger_price, one.quantity) for one in orders)


async def settled(clock, executor):
    for _ in range(4):
        await clock.drive(executor.settle(BTC))


class Watch:
    """Notes at every moment of the venue whether a position that had its stop is without one, or has a looser one."""

    def __init__(self, gateway: FakeGateway) -> None:
        self.gateway, self.tightest, self.faults = gateway, D(0), []
        gateway.on_moment = self.look

    def look(self) -> None:
        """Look at the venue now."""
        gateway = self.gateway
        stops = [price for price, _ in resting(gateway, OrderType.STOP_MARKET)]
        if gateway.held.get(BTC, D(0)) == 0:
            return
        if self.tightest and gateway.unprotected():
            self.faults.append("naked")
        if stops and max(stops) < self.tightest:
            self.faults.append("looser")
        self.tightest = max([self.tightest, *stops]) if not gateway.unprotected() else self.tightest


async def story_ladder(clock, gateway, executor):
    """The first target takes its part, the stop moves to break-even, then along, and takes the rest."""
    await clock.drive(executor.enter(approved(), candle_close_ms=T0))
    await settled(clock, executor)
    gateway.move(BTC, D(50_310))
    await settled(clock, executor)
    executor.observe({BTC: close(1, 50_400)})
    await settled(clock, executor)
    executor.observe({BTC: close(2, 50_450)})
    await settled(clock, executor)
    gateway.move(BTC, D(50_200))
    await settled(clock, executor)


async def story_all_targets(clock, gateway, executor):
    """A gap takes two targets at once, a runner is left, and its time is over."""
    await clock.drive(executor.enter(approved("LADDER"), candle_close_ms=T0))
    await settled(clock, executor)
    gateway.move(BTC, D(50_250))
    await settled(clock, executor)
    executor.observe({BTC: close(3, None)})
    executor.observe({BTC: close(6, 50_250)})
    await settled(clock, executor)


async def story_unanswered(clock, gateway, executor):
    """Stops and targets whose fate is not known, while the price runs."""
    gateway.faults = ["exec_then_drop", "drop", "exec_then_drop", "", "late", "exec_then_drop", "drop", "overload"]
    gateway.query_faults = ["", "down", "", "stale"]
    gateway.hold_stream = True
    await clock.drive(executor.enter(approved(), candle_close_ms=T0))
    await settled(clock, executor)
    gateway.move(BTC, D(50_310))
    executor.observe({BTC: close(1, 50_420)})
    await settled(clock, executor)


async def story_too_near(clock, gateway, executor):
    """The price comes too near to liquidation."""
    await clock.drive(executor.enter(approved("DEFAULT"), candle_close_ms=T0))
    await settled(clock, executor)
    executor.observe({BTC: [Priced(at_ms=T0 + 1, price=D(33_500))]})
    await settled(clock, executor)


STORIES = [story_ladder, story_all_targets, story_unanswered, story_too_near]


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("story", STORIES)
async def test_a_worker_killed_anywhere_finds_its_exits_again(story, moment):
    """Killed at any await or journal line: the exits that the journal tells of rest, and every cent is counted."""
    clock, gateway, journal, executor = world(moment=True)
    await clock.drive(executor.start())
    gateway.moments, gateway.crash_at = 0, moment
    with suppress(Crash):
        await story(clock, gateway, executor)
    await abandon_everything()

    assert moment < MOMENTS[-1] or gateway.moments < moment, "the story is longer than the moments that were tried"
    gateway.crash_at, gateway.stream, gateway.faults, gateway.hold_stream = None, None, [], False
    gateway.query_faults = []
    again = make_executor(gateway, journal, book=Book.rebuilt(journal.events()))
    await clock.drive(again.start())
    for _ in range(6):
        await clock.drive(clock.sleep(1))
        await clock.drive(again.settle(BTC))
    assert await clock.drive(again.reconcile())

    assert gateway.duplicates() == []
    assert gateway.unprotected() == []
    for trade in again.book.active():
        wanted = trade.standing
        assert wanted is not None
        assert wanted.stop is not None
        ((price, quantity),) = resting(gateway, OrderType.STOP_MARKET)
        assert price >= wanted.stop.price
        assert quantity == wanted.stop.quantity == trade.open_quantity == gateway.held[BTC]
        targets = [(one.price, one.quantity) for one in wanted.targets]
        assert resting(gateway, OrderType.TAKE_PROFIT_MARKET) == targets
    await clock.drive(again.request_exit(BTC, ExitReason.OPERATOR))
    results = {event.trade_id: event.result for event in journal.events() if isinstance(event, TradeClosed)}
    assert gateway.orders == {}
    flow = sum(
        (fill.quantity * fill.price * (1 if fill.side is Side.SELL else -1) - fill.fee for fill in gateway.trades), D(0)
    )
    assert sum(result.pnl for result in results.values()) == flow
    assert Book.rebuilt(journal.events()).trades == again.book.trades


async def test_the_ladder_is_climbed_by_one_stop_and_its_targets():
    """30 % leave at the first target, the stop goes to break-even and then along, and its reason is told."""
    clock, gateway, journal, executor = world()
    await clock.drive(executor.start())
    watch = Watch(gateway)
    await clock.drive(executor.enter(approved(), candle_close_ms=T0))
    await settled(clock, executor)
    whole = gateway.held[BTC]
    assert resting(gateway, OrderType.STOP_MARKET) == [(D("49705.0"), whole)]
    first, second = resting(gateway, OrderType.TAKE_PROFIT_MARKET)
    assert (first[0], second[0], first[1] + second[1]) == (D("50305.0"), D("50605.0"), whole)
    gateway.move(BTC, D(50_310))
    await settled(clock, executor)
    assert resting(gateway, OrderType.STOP_MARKET) == [(D("50075.1"), second[1])]
    executor.observe({BTC: close(1, 50_400)})
    await settled(clock, executor)
    assert resting(gateway, OrderType.STOP_MARKET) == [(D("50200.0"), second[1])]
    executor.observe({BTC: close(2, 50_300)})
    await settled(clock, executor)
    assert resting(gateway, OrderType.STOP_MARKET) == [(D("50200.0"), second[1])]
    gateway.move(BTC, D(50_150))
    await settled(clock, executor)

    events = list(journal.events())
    (closed,) = [event.result for event in events if isinstance(event, TradeClosed)]
    stops = [event.intent for event in events if isinstance(event, OrderIntended)]
    because = [one.because for one in stops if one.purpose is Purpose.STOP]
    assert closed.reason is ExitReason.TRAILING_STOP
    assert because == [ExitReason.STOP, ExitReason.BREAK_EVEN, ExitReason.TRAILING_STOP]
    # The close that moved nothing is in no journal.
    assert [event.seen.close for event in events if isinstance(event, ExitObserved)] == [D(50_400)]
    assert watch.faults == []
    assert gateway.orders == {}


@pytest.mark.parametrize(
    ("story", "reason"),
    [
        (story_all_targets, ExitReason.TIME_BARRIER), (story_too_near, ExitReason.LIQUIDATION_BUFFER),
    ],
)  # fmt: skip
async def test_what_the_venue_cannot_hold_the_worker_does(story, reason):
    """Time and nearness to liquidation close what is left at market, and say so."""
    clock, gateway, journal, executor = world()
    await clock.drive(executor.start())
    watch = Watch(gateway)
    await story(clock, gateway, executor)

    (closed,) = [event.result for event in journal.events() if isinstance(event, TradeClosed)]
    assert closed.reason is reason
    assert gateway.held[BTC] == 0
    assert watch.faults == []


async def test_a_mark_that_is_read_while_reconciling_is_seen():
    """Between candles the marks of a reconciliation are watched: too near to liquidation ends the trade."""
    clock, gateway, journal, executor = world()
    await clock.drive(executor.start())
    await clock.drive(executor.enter(approved("DEFAULT"), candle_close_ms=T0))
    gateway.marks[BTC] = D(33_400)
    await clock.drive(executor.reconcile())
    await settled(clock, executor)
    (closed,) = [event.result for event in journal.events() if isinstance(event, TradeClosed)]
    assert closed.reason is ExitReason.LIQUIDATION_BUFFER


async def test_a_stop_that_would_trigger_leaves_by_its_own_reason():
    """Where the price is beyond the moved stop already, the venue refuses it, and the trade leaves because of it."""
    clock, gateway, journal, executor = world()
    await clock.drive(executor.start())
    await clock.drive(executor.enter(approved(), candle_close_ms=T0))
    gateway.move(BTC, D(50_310))
    await settled(clock, executor)
    gateway.move(BTC, D(50_150))
    executor.observe({BTC: close(1, 50_400)})
    await settled(clock, executor)
    (closed,) = [event.result for event in journal.events() if isinstance(event, TradeClosed)]
    assert closed.reason is ExitReason.TRAILING_STOP
    assert gateway.held[BTC] == 0


async def test_a_target_that_was_passed_already_takes_its_part_at_market():
    """The venue takes no target that the price is beyond: that part leaves now, and the others wait."""
    clock, gateway, _, executor = world()
    await clock.drive(executor.start())
    gateway.marks[BTC] = D(50_310)
    await clock.drive(executor.enter(approved(), candle_close_ms=T0))
    await settled(clock, executor)
    assert len(resting(gateway, OrderType.TAKE_PROFIT_MARKET)) == 1
    ((_, left),) = resting(gateway, OrderType.STOP_MARKET)
    assert left == gateway.held[BTC]
    (trade,) = executor.book.active()
    assert trade.entered - trade.open_quantity == trade.of(Purpose.TARGET)[1].executed > 0


async def test_a_tightening_that_is_refused_again_and_again_keeps_the_stop_that_rests():
    """A venue that will not move the stop leaves the old one: protected as before, and it is not asked for ever."""
    clock, gateway, _, executor = world()
    await clock.drive(executor.start())
    await clock.drive(executor.enter(approved("LADDER"), candle_close_ms=T0))
    before = resting(gateway, OrderType.STOP_MARKET)
    gateway.refusals = {Purpose.STOP: [-1111] * 20}
    executor.observe({BTC: close(1, 50_090)})
    await settled(clock, executor)
    assert resting(gateway, OrderType.STOP_MARKET) == before
    assert len(gateway.refusals[Purpose.STOP]) == 17
    gateway.refusals = {}
    executor.observe({BTC: close(2, 50_095)})
    await settled(clock, executor)
    assert resting(gateway, OrderType.STOP_MARKET)[0][0] > before[0][0]


FAULTS = st.sampled_from(["", "", "", "drop", "exec_then_drop", "overload", "down", "late", "partial"])


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(PROFILES)),
    marks=st.lists(st.integers(49_600, 51_400), min_size=1, max_size=8),
    faults=st.lists(FAULTS, max_size=20),
    held_back=st.booleans(),
)
async def test_whatever_the_price_and_the_venue_do_nothing_is_left_naked_for_good(name, marks, faults, held_back):
    """Any path, any faults: once all is asked for, a stop for all that is open rests, as tight as was ever wanted."""
    clock, gateway, journal, executor = world()
    await clock.drive(executor.start())
    gateway.faults, gateway.hold_stream = list(faults), held_back
    await clock.drive(executor.enter(approved(name), candle_close_ms=T0))
    for number, mark in enumerate(marks, 1):
        gateway.move(BTC, D(mark))
        executor.observe({BTC: close(number, mark)})
        await settled(clock, executor)
    gateway.faults, gateway.hold_stream = [], False
    gateway.deliver()
    for _ in range(8):
        await clock.drive(clock.sleep(2))
        await clock.drive(executor.settle(BTC))
    assert await clock.drive(executor.reconcile())

    assert gateway.unprotected() == []
    assert gateway.duplicates() == []
    rebuilt = Book.rebuilt(journal.events())
    assert rebuilt.trades == executor.book.trades
    for trade in executor.book.active():
        assert trade.standing is not None
        assert trade.standing.stop is not None
        assert trade.standing.stop.quantity == gateway.held[BTC]
        assert all(price >= trade.standing.stop.price for price, _ in resting(gateway, OrderType.STOP_MARKET))
