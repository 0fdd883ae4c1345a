"""What is journaled is published, once and in order, whatever was lost in between: by us, by the bus, by the disk."""

from __future__ import annotations

import contextlib
import json
import os
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.bus.envelope import LONGEST_BYTES
from inference.bus.local import LocalBus
from inference.bus.outbox import Outbox
from inference.bus.port import BusError, Retention
from inference.bus.projection import LEFT_OUT, events_of
from inference.bus.publisher import Publisher
from inference.domain.errors import JournalError
from inference.domain.events import AccountMarked, Noted
from inference.domain.order import Fill, Side
from inference.domain.policy import EntryStyle
from inference.execution.planning import trade_plan
from inference.journal import codec
from inference.journal.codec import Entry, chained, entry_of
from inference.journal.reader import read_entries
from inference.journal.writer import JournalWriter
from tests.worker_values import make_approved

ROOT = Path(__file__).resolve().parents[2]
BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"
PLAN = trade_plan(
    make_approved(), candle_close_ms=0, now_ms=0, style=EntryStyle.MARKET, patience_ms=0, arrival_price=None
)
FILL = Fill(
    fill_id="1",
    client_order_id="c",
    venue_order_id="v",
    symbol=BTC,
    side=Side.BUY,
    quantity=Decimal(1),
    price=Decimal(2),
    fee=Decimal(0),
    is_maker=False,
    event_time_ms=1,
)
MARK = AccountMarked(equity=Decimal(1), day_start_equity=Decimal(1), peak_equity=Decimal(1))


def note(number: int) -> Noted:
    """Return an event of the shell."""
    return Noted(event_type="health.started", detail={"number": str(number)})


@pytest.fixture
def journal(tmp_path):
    """Return an open journal."""
    with JournalWriter.open(tmp_path / "journal.jsonl") as writer:
        yield writer


@pytest.fixture
def bus(tmp_path):
    """Return an empty bus."""
    one = LocalBus(tmp_path / "bus.db")
    yield one
    one.close()


def write(journal, count):
    """Journal so many events."""
    for number in range(count):
        journal.record(note(journal.seq + number), timestamp_ms=1000 + number)


def drain(outbox):
    """Publish all there is; return how many steps that took."""
    steps = 1
    while not outbox.step().is_caught_up:
        steps += 1
        assert steps < 1000
    return steps


def expected(journal):
    """Return the ids of all events of a journal."""
    entries = list(read_entries(journal.path))
    return [one.event_id for entry in entries for one in events_of(entry, entries[0].digest[:16])]


def published(bus):
    """Return the ids of all events on a bus, in order."""
    return [one.envelope.event_id for one in bus.replay()]


def test_what_is_journaled_is_published_in_order(journal, bus):
    """Batch after batch, and again what comes later; a second outbox goes on where the first one was."""
    outbox = Outbox(bus, journal.path)
    assert outbox.step().is_caught_up
    write(journal, 250)
    drain(outbox)
    assert published(bus) == expected(journal)
    assert outbox.refills == 0
    write(journal, 3)
    assert drain(Outbox(bus, journal.path)) == 1

    assert published(bus) == expected(journal)
    assert [one.envelope.journal_seq for one in bus.replay()] == list(range(1, 254))


class Breaking:
    """A bus that fails at a chosen publish, before or after it was done."""

    def __init__(self, bus, fails):
        self._bus = bus
        self._fails = list(fails)

    def __getattr__(self, name):
        return getattr(self._bus, name)

    def publish(self, events, *, moved=None):
        """Publish, or not, and say that it failed."""
        how = self._fails.pop(0) if self._fails else ""
        if how == "before":
            raise BusError("gone")
        count = self._bus.publish(events, moved=moved)
        if how == "after":
            raise BusError("gone")
        return count


@given(
    script=st.lists(
        st.tuples(st.integers(0, 130), st.sampled_from(["", "before", "after"]), st.booleans()), min_size=1, max_size=6
    )
)
def test_no_failure_and_no_restart_loses_or_doubles(tmp_path_factory, script):
    """Whether the bus had taken a batch when it failed, and whether we were killed then: each id once, in order."""
    folder = tmp_path_factory.mktemp("outbox")
    with JournalWriter.open(folder / "journal.jsonl") as journal:
        bus = LocalBus(folder / "bus.db")
        breaking = Breaking(bus, [how for _, how, _ in script])
        outbox = Outbox(breaking, journal.path)
        for count, _, is_killed in script:
            write(journal, count)
            with contextlib.suppress(BusError):
                outbox.step()
            if is_killed:
                outbox = Outbox(breaking, journal.path)
        breaking._fails.clear()
        drain(outbox)

        assert published(bus) == expected(journal)
        bus.close()


def test_a_bus_that_lost_everything_is_filled_again(journal, bus, tmp_path):
    """Whether it is found out by asking or by publishing."""
    outbox = Outbox(bus, journal.path)
    write(journal, 120)
    drain(outbox)
    (tmp_path / "bus.db").unlink()
    outbox.ask()
    drain(outbox)
    assert published(bus) == expected(journal)

    (tmp_path / "bus.db").unlink()
    write(journal, 5)
    drain(outbox)
    assert published(bus) == expected(journal)
    assert outbox.refills == 2


def test_a_bus_that_went_back_is_told_again(journal, bus, tmp_path):
    """A bus restored from an older copy is told what it lacks."""
    outbox = Outbox(bus, journal.path)
    write(journal, 10)
    drain(outbox)
    bus.close()
    older = (tmp_path / "bus.db").read_bytes()
    write(journal, 10)
    drain(outbox)
    bus.close()
    (tmp_path / "bus.db").unlink()
    (tmp_path / "bus.db").write_bytes(older)

    outbox.ask()
    drain(outbox)

    assert published(bus) == expected(journal)


def test_a_new_bus_is_given_the_newest_entries_only(journal, bus):
    """Of a long journal no more than is kept anyway."""
    write(journal, 50)
    outbox = Outbox(bus, journal.path, refill_entries=7)
    drain(outbox)
    write(journal, 2)
    drain(outbox)

    assert [one.envelope.journal_seq for one in bus.replay()] == list(range(44, 53))


def test_a_journal_that_was_restored_from_an_older_copy_goes_on(tmp_path, bus):
    """What is there is not published twice, and what it writes now is."""
    path = tmp_path / "journal.jsonl"
    with JournalWriter.open(path) as journal:
        write(journal, 5)
        older = path.read_bytes()
        write(journal, 5)
        drain(Outbox(bus, path))
    path.write_bytes(older)
    path.with_suffix(".head").unlink()
    with JournalWriter.open(path) as journal:
        journal.record(MARK, timestamp_ms=5000)
        outbox = Outbox(bus, path)
        drain(outbox)

    assert [one.envelope.journal_seq for one in bus.replay()] == [*range(1, 11), 6]
    assert outbox.refills == 1


def test_only_what_is_on_the_disk_is_published(journal, bus, monkeypatch):
    """Where the disk refuses, an entry that a power cut could take is not told to anybody."""
    outbox = Outbox(bus, journal.path)
    write(journal, 2)

    def refuse(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("inference.bus.outbox.os.fsync", refuse)
    with pytest.raises(JournalError, match="durable"):
        outbox.step()
    assert published(bus) == []
    monkeypatch.undo()
    drain(outbox)
    assert published(bus) == expected(journal)


def test_a_torn_last_line_waits(journal, bus):
    """Half an entry is none, until the rest of it is there."""
    outbox = Outbox(bus, journal.path)
    write(journal, 3)
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole[:-20])
    drain(outbox)
    assert [one.envelope.journal_seq for one in bus.replay()] == [1, 2]
    journal.path.write_bytes(whole)
    drain(outbox)
    assert published(bus) == expected(journal)


def test_a_line_that_is_longer_than_what_is_read_at_once_is_read_whole(journal, bus):
    """An entry of three megabytes comes between two short ones."""
    write(journal, 1)
    journal.record(Noted(event_type="health.started", detail={"long": "x" * 3_000_000}), timestamp_ms=1)
    write(journal, 1)
    drain(Outbox(bus, journal.path))

    assert [one.envelope.event_type for one in bus.replay()] == ["health.started", LEFT_OUT, "health.started"]


def test_a_line_that_was_cut_short_and_written_anew_is_read_as_it_is_now(journal, bus):
    """Half of a line was seen before a full disk took it back; nothing of it is left in what is published."""
    outbox = Outbox(bus, journal.path)
    write(journal, 1)
    with journal.path.open("ab") as file:
        file.write(b'{"data":{"half":"of a line')
    drain(outbox)
    os.truncate(journal.path, journal.path.read_bytes().rindex(b"\n") + 1)
    write(journal, 2)
    drain(outbox)

    assert published(bus) == expected(journal)


def test_a_journal_that_was_changed_is_not_published(journal, bus):
    """An entry that does not continue the one before stops the outbox with a sentence; nothing of it goes out."""
    outbox = Outbox(bus, journal.path)
    write(journal, 2)
    drain(outbox)
    stranger = chained(note(9), seq=3, timestamp_ms=1, trace_id="", previous="f" * 64)
    with journal.path.open("ab") as file:
        file.write(codec.line_of(stranger))

    with pytest.raises(JournalError, match="does not continue"):
        outbox.step()
    assert len(published(bus)) == 2


def entry(event, *, trace_id="trace", timestamp_ms=1_700_000_000_000) -> Entry:
    """Return the first entry of a journal."""
    return chained(event, seq=1, timestamp_ms=timestamp_ms, trace_id=trace_id, previous=codec.GENESIS)


def told(event, **more):
    """Return the data of what follows from an event, by type."""
    found = events_of(entry(event, **more), "j")
    return {one.event_type: one for one in found}


@pytest.mark.parametrize(
    ("event", "more"),
    [
        (Noted(event_type="signal.decided", detail={"of": "another version"}), {}),
        (Noted(event_type="market.candles_closed", detail={"late_ms": "soon"}), {}),
        (Noted(event_type="trade.filled", detail={}), {}),
        (Noted(event_type="Not a type", detail={"a": "b"}), {}),
        (Noted(event_type="health.started", detail={"a": "x" * LONGEST_BYTES}), {}),
        (note(1), {"timestamp_ms": 10**17}),
        (note(1), {"timestamp_ms": -5}),
    ],
)
def test_an_entry_that_the_bus_cannot_carry_keeps_nothing_back(bus, event, more):
    """It goes out as it is, or as a word that it was left out: what comes after it must not wait for ever."""
    found = events_of(entry(event, **more), "j")

    assert bus.publish(found) == len(found) >= 1
    assert found[-1].event_type in {event.event_type, LEFT_OUT}


class Time:
    """A clock that a test moves."""

    now = 100.0

    def __call__(self):
        """Return the time."""
        return self.now


def test_waiting_is_counted_from_the_first_failure_and_ends_with_the_last_entry(journal, bus):
    """A bus that fails is late by the time that passed; once it has taken all there is, it is not."""
    clock = Time()
    breaking = Breaking(bus, ["before"] * 3)
    publisher = Publisher(breaking, Outbox(breaking, journal.path), monotonic=clock)
    publisher.turn()
    assert publisher.state.waiting_seconds == 0
    write(journal, 250)
    for _ in range(3):
        clock.now += 4
        publisher.turn()
    assert (publisher.state.waiting_seconds, publisher.state.trouble) == (8, "gone")

    clock.now += 1
    publisher.turn()
    # It goes on, which is no standing still; and then everything is told.
    assert (publisher.state.waiting_seconds, publisher.state.trouble) == (0, "")
    while not publisher.turn():
        pass
    assert publisher.state.seq == 250
    assert publisher.state.published == 250
    clock.now += 100
    assert publisher.state.waiting_seconds == 0


def test_a_silent_bus_is_noticed_though_nothing_is_journaled(journal, bus):
    """It is asked each second."""
    clock = Time()
    publisher = Publisher(bus, Outbox(bus, journal.path), monotonic=clock)
    write(journal, 1)
    publisher.turn()
    bus.path.unlink()
    bus.path.mkdir()
    clock.now += 5
    publisher.turn()
    clock.now += 5

    assert publisher.state.waiting_seconds == 5
    assert "event bus" in publisher.state.trouble


def test_stopping_publishes_what_is_left(journal, bus):
    """In the time it is given; where the bus is gone, it says so and leaves the rest to the next start."""
    publisher = Publisher(bus, Outbox(bus, journal.path), monotonic=Time())
    write(journal, 120)
    assert publisher.stop(drain_seconds=1)
    assert published(bus) == expected(journal)

    breaking = Breaking(bus, ["before"])
    publisher = Publisher(breaking, Outbox(breaking, journal.path), monotonic=Time())
    write(journal, 1)
    assert not publisher.stop(drain_seconds=1)
    assert len(published(bus)) == 120


def test_the_publisher_trims_by_the_minute(journal, bus):
    """What need not be kept goes, without anybody asking."""
    clock = Time()
    publisher = Publisher(bus, Outbox(bus, journal.path), monotonic=clock, retention=Retention(events=5))
    write(journal, 20)
    publisher.turn()
    clock.now += 61
    publisher.turn()

    assert bus.stats().kept == 5


def test_the_thread_publishes_by_itself(journal, bus):
    """Beside whoever journals."""
    import time

    publisher = Publisher(bus, Outbox(bus, journal.path), monotonic=time.monotonic)
    publisher.start()
    write(journal, 30)
    for _ in range(600):
        if len(published(bus)) == 30:
            break
        time.sleep(0.05)
    assert publisher.stop(drain_seconds=20)
    assert published(bus) == expected(journal)


def test_entries_read_back_are_those_that_were_written(journal):
    """An entry's line is its own proof: what the outbox reads is what was recorded."""
    write(journal, 1)
    (line,) = journal.path.read_bytes().splitlines(keepends=True)

    assert entry_of(line).digest == journal.digest
    assert json.loads(line)["seq"] == 1
