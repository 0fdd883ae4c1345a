"""How long a position can be without a stop: the sum of every wait on the way, and the same measured at the venue."""

from __future__ import annotations

from decimal import Decimal
from itertools import product

import pytest

from feature_store.venue.errors import OutcomeUnknownError, VenueDownError
from inference.domain.events import OrderIntended
from inference.domain.order import Fill, OrderIntent, OrderReport, Purpose
from inference.domain.trade import ExitReason
from inference.execution.next_step import MAX_IN_DOUBT
from inference.execution.submission import ExecutionSettings
from infra.prove.soak import BOUND_S
from tests.worker_support import FakeClock, FakeGateway, MemoryJournal, abandon_everything, make_executor
from tests.worker_values import make_approved

BTC = "BTC/USDT:USDT"
SETTINGS = ExecutionSettings()
# What nobody answers is given up by the client only then.
SILENCE_S = 10.0
# A venue across the sea; a machine that comes to everything so much too late.
ROUND_TRIP_S, LATE_S = 0.3, 0.25


class LateClock(FakeClock):
    """A clock of a loaded machine: whoever sleeps is woken late."""

    def __init__(self, late_s: float) -> None:
        super().__init__()
        self._late_s = late_s

    async def sleep(self, seconds: float) -> None:
        """Oversleep."""
        await super().sleep(seconds + self._late_s)

    async def travel(self, seconds: float) -> None:
        """Wait at the venue, which is not loaded."""
        await super().sleep(seconds)


class SilentGateway(FakeGateway):
    """
    A distant venue whose user stream says nothing, with words for what becomes of each sending and each question.

    A sending is "" (answered), "lost" or "executed", both without an answer; a question "" or "silent". `deaf` is the
    purpose of orders that are never taken.
    """

    def __init__(self, clock, sendings, questions, *, deaf=None) -> None:
        super().__init__(clock, marks={BTC: Decimal(50_000)})
        self.hold_stream = True
        self.sendings, self.questions, self.deaf = list(sendings), list(questions), deaf
        self.bare_since: float | None = None
        self.longest_bare_s = 0.0

    async def submit(self, intent: OrderIntent) -> OrderReport:
        """Take the next word."""
        await self.clock.travel(ROUND_TRIP_S / 2)
        word = "lost" if intent.purpose is self.deaf else self.sendings.pop(0) if self.sendings else ""
        self.submitted.append(intent)
        if word == "lost":
            await self._nothing(OutcomeUnknownError("timed out"))
        order = self._execute(intent)
        if word == "executed":
            await self._nothing(OutcomeUnknownError("timed out"))
        await self.clock.travel(ROUND_TRIP_S / 2)
        return self._report(order)

    async def query(self, intent: OrderIntent) -> OrderReport | None:
        """Take the next word."""
        if self.questions and self.questions.pop(0):
            await self._nothing(VenueDownError("timed out"))
        await self.clock.travel(ROUND_TRIP_S)
        order = self._find(intent.client_order_id)
        return None if order is None else self._report(order)

    async def _nothing(self, error: Exception) -> None:
        await self.clock.travel(SILENCE_S)
        raise error

    def _emit(self, event: OrderReport | Fill) -> None:
        now = self.clock.seconds
        is_bare = bool(self.unprotected())
        if self.bare_since is not None:
            self.longest_bare_s = max(self.longest_bare_s, now - self.bare_since)
        self.bare_since = (now if self.bare_since is None else self.bare_since) if is_bare else None
        super()._emit(event)


async def lived(sendings, questions, *, late_s=0.0, deaf=None):
    """Enter, and go on until nothing is in doubt any more."""
    clock = LateClock(late_s)
    gateway = SilentGateway(clock, sendings, questions, deaf=deaf)
    journal = MemoryJournal()
    executor = make_executor(gateway, journal)
    await clock.drive(executor.start())
    await clock.drive(executor.enter(make_approved(), candle_close_ms=clock.now_ms()))
    for _ in range(60):
        if await clock.drive(executor.reconcile()):
            break
        await clock.drive(clock.sleep(1))
        await clock.drive(executor.settle(BTC))
    await clock.drive(executor.stop())
    await abandon_everything()
    assert gateway.bare_since is None, "still bare in the end"
    return gateway, executor, journal


def learned_after(silent_questions: int, late_s: float) -> float:
    """Return after how long an entry that was executed and never answered is known."""
    waits = [SETTINGS.answer_patience_seconds + late_s]
    for number in range(silent_questions):
        waits += [SETTINGS.question_patience(number) + late_s, SETTINGS.poll_seconds + late_s]
    return sum(waits) + ROUND_TRIP_S


def next_sending_after(late_s: float) -> float:
    """Return how long after a stop, or an order that leaves, that is lost the next one is sent."""
    waits = (SETTINGS.answer_patience_seconds, SETTINGS.poll_seconds, SETTINGS.doubt_seconds)
    return sum(one + late_s for one in waits)


@pytest.mark.parametrize("late_s", [0.0, LATE_S], ids=["idle", "loaded"])
async def test_two_timeouts_in_a_row_never_leave_a_position_bare_beyond_the_bound(late_s):
    """Of three sendings in a row one is answered, and of three questions: every such order of events, one by one."""
    # The entry's answer is lost, two questions too; then the first stop, and the question about it.
    arithmetic = learned_after(2, late_s) + next_sending_after(late_s) + ROUND_TRIP_S
    assert arithmetic < BOUND_S

    longest = 0.0
    for sendings in product(("", "lost", "executed"), repeat=4):
        if any(all(sendings[at : at + 3]) for at in (0, 1)):
            continue
        for questions in product(("", "silent"), repeat=3):
            if all(questions):
                continue
            gateway, executor, _ = await lived(sendings, questions, late_s=late_s)
            longest = max(longest, gateway.longest_bare_s)
            assert gateway.longest_bare_s <= arithmetic, (sendings, questions)
            assert gateway.duplicates() == []
            stops = [one for one in gateway.orders.values() if one.intent.purpose is Purpose.STOP]
            assert len(stops) == (gateway.held.get(BTC, 0) != 0), (sendings, questions)
            assert executor.is_reconciled
    # A sum of what happens, not a guess far above it; on a loaded machine the stop's five seconds cut its waits short.
    assert longest > (0.9 if late_s == 0 else 0.7) * arithmetic


@pytest.mark.parametrize("late_s", [0.0, LATE_S], ids=["idle", "loaded"])
async def test_a_venue_that_takes_no_stop_is_left_within_the_bound(late_s):
    """No stop is ever answered, yet the exit is: five seconds, the wait that was under way, and the way there."""
    arithmetic = SETTINGS.stop_within_seconds + SETTINGS.doubt_seconds + 2 * late_s + ROUND_TRIP_S
    assert arithmetic < BOUND_S

    gateway, executor, _ = await lived((), (), late_s=late_s, deaf=Purpose.STOP)

    assert gateway.longest_bare_s <= arithmetic
    assert gateway.held[BTC] == 0
    assert executor.closed[0].reason is ExitReason.UNPROTECTED


async def test_an_exit_in_doubt_of_a_bare_position_is_followed_at_once_and_turns_nothing_over():
    """No stop is ever answered and the first exit is lost, or executed and not answered: flat, and never short."""
    arithmetic = SETTINGS.stop_within_seconds + SETTINGS.doubt_seconds + next_sending_after(0.0) + ROUND_TRIP_S
    assert arithmetic < BOUND_S

    for word in ("lost", "executed"):
        gateway, _, journal = await lived(("", word), (), deaf=Purpose.STOP)
        assert gateway.longest_bare_s <= arithmetic
        assert gateway.held[BTC] == 0
        exits = [one.intent for one in journal.events() if isinstance(one, OrderIntended)]
        assert len({one.client_order_id for one in exits if one.purpose is Purpose.EXIT}) == 1 + (word == "lost")
        assert sum(one.quantity for one in gateway.trades) == Decimal("0.08")


async def test_an_exit_in_doubt_of_a_protected_position_is_asked_for_and_not_doubled():
    """With its stop at the venue a position has time: the exit is sent again only once it can no longer execute."""
    clock = LateClock(0.0)
    gateway = SilentGateway(clock, ("", "", "", "lost"), ())
    executor = make_executor(gateway, MemoryJournal())
    await clock.drive(executor.start())
    await clock.drive(executor.enter(make_approved(), candle_close_ms=clock.now_ms()))
    began = clock.seconds
    await clock.drive(executor.request_exit(BTC, ExitReason.TIME_BARRIER))
    while gateway.held[BTC] != 0:
        await clock.drive(clock.sleep(1))
        await clock.drive(executor.settle(BTC))

    exits = [one.client_order_id for one in gateway.submitted if one.purpose is Purpose.EXIT]
    assert len(exits) == 2
    assert len(set(exits)) == 1
    assert clock.seconds - began > SILENCE_S + gateway.recv_window_ms / 1000
    assert gateway.longest_bare_s < 2 * ROUND_TRIP_S


async def test_exits_that_fill_all_room_for_doubt_are_asked_for_with_patience():
    """Four exits are not answered, the first of them executed, and questions neither: the distant venue is heard."""
    clock = LateClock(0.0)
    gateway = SilentGateway(clock, ("", "executed", *["lost"] * (MAX_IN_DOUBT - 1)), ["silent"] * 40, deaf=Purpose.STOP)
    executor = make_executor(gateway, MemoryJournal())
    await clock.drive(executor.start())
    await clock.drive(executor.enter(make_approved(), candle_close_ms=clock.now_ms()))
    gateway.questions.clear()
    for _ in range(40):
        await clock.drive(executor.settle(BTC))
        await clock.drive(clock.sleep(1))

    exits = {one.client_order_id for one in gateway.submitted if one.purpose is Purpose.EXIT}
    assert len(exits) == MAX_IN_DOUBT
    assert gateway.held[BTC] == 0
    assert sum(one.quantity for one in gateway.trades) == Decimal("0.08")
    assert [one.reason for one in executor.closed] == [ExitReason.UNPROTECTED]
