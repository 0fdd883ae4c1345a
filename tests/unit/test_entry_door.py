"""The last question before an entry leaves: what is held back is journaled with its code, and counted, once."""

from __future__ import annotations

import asyncio
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from inference.domain.events import Noted
from inference.domain.policy import EntryStyle
from inference.execution.book import Book
from inference.execution.entry_door import DENIED, NO_RATE_CAPACITY, EntryDoor
from inference.execution.entry_holds import EntryHolds
from inference.execution.executor import Executor
from inference.execution.ledger import Ledger
from inference.telemetry.story import _words
from infra.prove.virtual import MemoryJournal
from tests.worker_support import FEE, FakeClock, FakeGateway
from tests.worker_support import MemoryJournal as StackJournal
from tests.worker_values import make_approved

BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"


class Room:
    """Room among the venue's limits, which the test gives and takes."""

    def __init__(self) -> None:
        self.lacks = ""

    def __call__(self) -> str:
        """Return what is lacking."""
        return self.lacks


def door_of(room: Room, now: list[float]) -> tuple[EntryDoor, MemoryJournal]:
    """Return a door by a clock that is moved by hand, and the journal it writes."""
    journal = MemoryJournal()
    ledger = Ledger(book=Book(), journal=journal, now_ms=lambda: 1)
    return EntryDoor(ledger, monotonic=lambda: now[0], no_capacity=room), journal


def test_without_room_an_entry_is_denied_journaled_and_counted_once():
    """The code, the reason and the decision it belongs to; asking again about the same entry adds no line."""
    room, now = Room(), [0.0]
    door, journal = door_of(room, now)
    before = door.lets_out(BTC, "first")
    room.lacks = "the rate budget has no room"
    denied = [door.lets_out(BTC, "first"), door.lets_out(BTC, "first"), door.lets_out(ETH, "second")]
    room.lacks = ""

    assert (before, denied, door.lets_out(BTC, "first")) == (True, [False, False, False], True)
    assert door.denied == {NO_RATE_CAPACITY: 2}
    notes = [event for event in journal.events() if isinstance(event, Noted)]
    assert [(one.event_type, one.detail["symbol"]) for one in notes] == [(DENIED, BTC), (DENIED, ETH)]
    assert notes[0].detail["code"] == NO_RATE_CAPACITY
    assert notes[0].detail["reason"] == "the rate budget has no room"
    assert _words(notes[0]) == "The entry was held back: NO_RATE_CAPACITY, the rate budget has no room."


def test_what_the_venue_said_has_a_code_of_its_own():
    """A hold that follows from a refusal comes before the question for room, and ends by itself."""
    room, now = Room(), [100.0]
    door, _ = door_of(room, now)
    door.note(BTC, "-4108")
    held = door.held(BTC)
    other = door.held(ETH)
    door.note(BTC, "-2015")
    account = door.held(ETH)
    now[0] = 1_000.0

    assert held is not None
    assert account is not None
    assert (held.code, other, account.code, door.held(BTC)) == ("SYMBOL_HELD", None, "ACCOUNT_HELD", None)


@given(st.lists(st.tuples(st.integers(0, 2_000), st.booleans()), max_size=600))
def test_what_is_remembered_of_entries_does_not_grow(asked):
    """However many entries are denied, what the door remembers of them is bounded, and each denial is refused."""
    room, now = Room(), [0.0]
    door, _ = door_of(room, now)
    for number, lacks in asked:
        room.lacks = "full" if lacks else ""
        assert door.lets_out(BTC, str(number)) is not lacks

    assert len(door._told) <= 256
    assert door.denied.total() <= sum(lacks for _, lacks in asked)


@given(st.lists(st.tuples(st.sampled_from([BTC, ETH]), st.sampled_from(["-2015", "-4400", "-4108", "-1"]),
                          st.floats(0, 1_000)), max_size=20))  # fmt: skip
def test_a_hold_is_named_exactly_while_it_lasts(refusals):
    """A symbol is blocked where a hold is named, and nowhere else."""
    holds = EntryHolds()
    for symbol, refusal, now in refusals:
        holds.note(symbol, refusal, now)
        for one in (BTC, ETH):
            assert holds.blocks(one, now) is bool(holds.blocked_by(one, now))


class CountingGateway(FakeGateway):
    """A venue with a countdown that counts what it is asked for."""

    has_countdown = True
    countdowns = 0

    async def set_countdown(self, symbol: str, seconds: float) -> None:
        """Take a countdown."""
        self.countdowns += bool(seconds)


class RoomForOne(Room):
    """Room that is gone as soon as somebody has been told that there is some."""

    def __call__(self) -> str:
        """Return what is lacking, from the second question on."""
        lacks, self.lacks = self.lacks, self.lacks or "nothing is left"
        return lacks


async def test_without_room_a_resting_entry_costs_no_requests():
    """What is short is room for requests: none is spent on winding up what guards an order that may not leave."""
    clock, room = FakeClock(), RoomForOne()
    gateway = CountingGateway(clock, marks={BTC: Decimal(50_000)})
    executor = Executor(
        gateway=gateway, journal=StackJournal(), book=Book(), now_ms=clock.now_ms, monotonic=clock.monotonic,
        sleep=clock.sleep, taker_fee=FEE, entry_style=EntryStyle.POST_ONLY, no_capacity=room,
    )  # fmt: skip
    await clock.drive(executor.start())
    assert not await clock.drive(executor.enter(make_approved(BTC), candle_close_ms=clock.now_ms()))
    running = asyncio.ensure_future(executor.run())
    await clock.drive(clock.sleep(20))

    assert gateway.countdowns == 0
    assert gateway.submitted == []
    assert executor.door.denied == {NO_RATE_CAPACITY: 1}
    await clock.drive(executor.stop())
    await clock.drive(running)
