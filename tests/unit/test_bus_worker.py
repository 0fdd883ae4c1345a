"""The bus in the worker: entries wait for one that is required, exits for none, and all of it ends by itself."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.candle import CandleBlock
from inference.bootstrap import event_bus
from inference.bootstrap.event_bus import LATE, RECOVERED, Events
from inference.bootstrap.reporting import hold_statuses
from inference.bus.address import open_bus
from inference.bus.local import LocalBus
from inference.bus.projection import events_of
from inference.bus.publisher import PublisherState
from inference.bus.redis_bus import RedisBus
from inference.domain.errors import SettingsError
from inference.domain.events import Noted
from inference.domain.order import Purpose
from inference.domain.trade import ExitReason
from inference.execution.entry_holds import ACCOUNT, BEGUN, BUS, BUS_DOWN, ENDED, EntryHolds
from inference.feed.batches import CandleBatch
from inference.feed.candles_closed import candles_closed
from inference.journal.codec import GENESIS, chained
from inference.journal.writer import JournalWriter
from inference.settings import load_settings
from infra.stack.overview import bus_told, hold_told
from tests.worker_support import FakeClock, FakeGateway, MemoryJournal, make_executor
from tests.worker_values import T0, make_approved

BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"


def test_the_bus_holds_entries_everywhere_and_lets_them_out_at_once():
    """It is told once that a hold began and once that it ended, with how long it was."""
    holds = EntryHolds()
    assert holds.blocked_by(BTC, 100.0) == ""
    for second in range(4):
        holds.hold_bus(100.0 + second, seconds=5)
        holds.news(100.0 + second)
    assert (holds.blocked_by(BTC, 107.9), holds.blocked_by(ETH, 100.0)) == (BUS, BUS)
    assert holds.standing(104.0) == {BUS: 4.0}

    holds.release_bus(105.5)
    assert not holds.blocks(BTC, 105.5)
    (ended,) = holds.news(105.5)
    assert (ended.event_type, ended.detail) == (ENDED, {"what": BUS, "held_seconds": "6"})
    holds.release_bus(106.0)
    assert holds.news(106.0) == []


def test_a_hold_of_the_bus_that_nobody_repeats_ends():
    """Where the one who looks is gone, it is not for ever; and a second one is another."""
    holds = EntryHolds()
    holds.hold_bus(100.0, seconds=5)
    assert [one.event_type for one in holds.news(100.0)] == [BEGUN]
    assert not holds.blocks(BTC, 105.0)
    holds.hold_bus(110.0, seconds=5)
    assert [one.event_type for one in holds.news(110.0)] == [ENDED, BEGUN]


@given(st.lists(st.tuples(st.sampled_from(["down", "well", "refused"]), st.floats(0, 1000)), max_size=30))
def test_what_the_venue_said_outlives_the_bus(steps):
    """However holds of the bus come and go, one that the venue began lasts its time."""
    holds, refused = EntryHolds(), None
    for what, now in sorted(steps, key=lambda one: one[1]):
        if what == "down":
            holds.hold_bus(now, seconds=5)
        elif what == "well":
            holds.release_bus(now)
        else:
            holds.note(BTC, "-2015", now)
            refused = now
        if refused is not None and now - refused < 300:
            assert holds.blocked_by(BTC, now) == ACCOUNT


async def test_while_the_bus_is_down_no_entry_leaves_and_every_exit_does():
    """The entry is denied by its code, the position that is open is left at the venue, and afterwards entries go."""
    clock = FakeClock()
    gateway = FakeGateway(clock, marks={BTC: Decimal(50_000), ETH: Decimal(50_000)})
    executor = make_executor(gateway, MemoryJournal())
    await clock.drive(executor.start())
    assert await clock.drive(executor.enter(make_approved(BTC), candle_close_ms=T0))

    executor.door.bus_is_down(seconds=1000)
    assert not await clock.drive(executor.enter(make_approved(ETH), candle_close_ms=T0))
    assert executor.door.denied == {BUS_DOWN: 1}
    assert [one.what for one in hold_statuses(executor)] == [BUS]
    await clock.drive(executor.request_exit(BTC, ExitReason.TIME_BARRIER))
    assert executor.closed[0].reason is ExitReason.TIME_BARRIER
    assert gateway.held[BTC] == 0
    assert all(one.intent.symbol != ETH for trade in executor.book.trades.values() for one in trade.of(Purpose.ENTRY))

    executor.door.bus_is_well()
    assert await clock.drive(executor.enter(make_approved(ETH, trace_id="later"), candle_close_ms=T0))


class Door:
    """Remembers what it was told."""

    def __init__(self):
        self.told = []

    def bus_is_down(self, *, seconds):
        """Hold."""
        self.told.append("down")

    def bus_is_well(self):
        """Release."""
        self.told.append("well")


class Publisher:
    """A publisher whose state a test chooses."""

    is_running = False

    def __init__(self):
        self.waits, self.trouble = 0.0, ""

    @property
    def state(self):
        """Return the state."""
        return PublisherState(seq=7, published=9, waiting_seconds=self.waits, trouble=self.trouble)


def make_events(tmp_path, **settings):
    events = Events(
        load_settings(venue_url="http://127.0.0.1:1", home=tmp_path, **settings), tmp_path / "journal.jsonl"
    )
    events._publisher = Publisher()
    return events


@pytest.mark.parametrize("required", [True, False])
def test_a_late_bus_is_told_once_and_holds_entries_where_it_is_required(tmp_path, required):
    """Within the bound nothing is said; beyond it the hold is repeated at each look, until all is told."""
    events, door, notes = make_events(tmp_path, bus_required=required), Door(), []

    def look(waits, trouble="gone"):
        events._publisher.waits, events._publisher.trouble = waits, trouble
        events.look(door, lambda kind, detail: notes.append((kind, detail)))

    look(9.9)
    assert (door.told, notes, events.status().late) == ([], [], False)
    look(10.1)
    look(11.1)
    assert [kind for kind, _ in notes] == [LATE]
    assert notes[0][1]["reason"] == "gone"
    assert door.told == (["down", "down"] if required else [])
    assert events.status().late
    look(0.0, "")
    look(0.0, "")
    assert [kind for kind, _ in notes] == [LATE, RECOVERED]
    assert door.told == (["down", "down", "well"] if required else ["well"])
    assert not events.status().late


async def test_the_worker_publishes_to_a_file_of_its_home_by_default(tmp_path):
    """What is journaled is on the local bus once the worker has stopped."""
    events = Events(load_settings(venue_url="http://127.0.0.1:1", home=tmp_path), tmp_path / "journal.jsonl")
    events.start()
    with JournalWriter.open(tmp_path / "journal.jsonl") as journal:
        for number in range(20):
            journal.record(Noted(event_type="health.started", detail={"n": str(number)}), timestamp_ms=number)
        await events.stop()
    status = events.status()
    events.close()

    bus = LocalBus(tmp_path / "worker" / "bus.db")
    assert [one.envelope.data["n"] for one in bus.replay()] == [str(number) for number in range(20)]
    assert (status.where, status.published_seq, status.published, status.trouble) == ("local", 20, 20, "")
    bus.close()


async def test_a_bus_that_is_gone_holds_up_neither_start_nor_stop(tmp_path, monkeypatch):
    """The worker goes on; what was not told is told by the next start."""
    monkeypatch.setattr(event_bus, "_DRAIN_SECONDS", 0.2)
    settings = load_settings(venue_url="http://127.0.0.1:1", home=tmp_path, bus="unix:///nowhere/redis.sock")
    events = Events(settings, tmp_path / "journal.jsonl")
    events.start()
    with JournalWriter.open(tmp_path / "journal.jsonl") as journal:
        journal.record(Noted(event_type="health.started", detail={}), timestamp_ms=1)
        await events.stop()

    assert events.status().where == "redis"
    assert events.status().published == 0
    events.close()


@pytest.mark.parametrize(
    ("address", "word"),
    [
        ("amqp://host", "amqp"),
        ("redis-host:6379", "redis-host"),
        ("/var/bus.db", "sqlite"),
        ("sqlite://host/bus.db", "sqlite"),
        ("sqlite:///", "sqlite"),
        ("redis://host:port/0", "redis"),
        ("nonsense", "QT_BUS"),
    ],
)
def test_an_address_that_names_no_bus_is_refused(tmp_path, address, word):
    """Before anything starts, with what it must look like, and without a password that it may hold."""
    with pytest.raises(SettingsError, match=word) as refused:
        open_bus(address, tmp_path)
    assert "QT_BUS must look like" in str(refused.value)
    with pytest.raises(SettingsError) as secret:
        open_bus("rediss://:hunter2@host:port/0", tmp_path)
    assert "hunter2" not in str(secret.value)


def test_addresses_of_buses(tmp_path):
    """Nothing names the file of the home; others are named as SQLAlchemy and redis-py do."""
    assert open_bus(None, tmp_path).path == tmp_path / "worker" / "bus.db"
    assert open_bus(f"sqlite:///{tmp_path}/b.db", tmp_path).path == tmp_path / "b.db"
    assert isinstance(open_bus("redis://127.0.0.1:6379/3", tmp_path), RedisBus)


def test_the_words_of_status():
    """A hold of the bus is not said to come from the venue; a bus that is well is not mentioned."""
    held = hold_told({"what": BUS, "because": BUS_DOWN, "seconds_left": 4.0})
    late = {"late": True, "waiting_seconds": 12.4, "where": "redis", "trouble": "no answer"}

    assert "venue" not in held
    assert BUS_DOWN in held
    assert bus_told(late) == "events: LATE, waiting for 12 s for the bus (redis): no answer"
    assert bus_told({"late": False}) == bus_told({}) == ""


def candles(count):
    """Return so many candles."""
    return CandleBlock.from_rows([[300_000 * number, 1.0, 2.0, 0.5, 1.0, 1.0] for number in range(count)])


def test_a_batch_is_told_with_who_closed_who_is_late_and_what_filled_a_gap():
    """One line for all symbols, which becomes lists on the bus."""
    batch = CandleBatch(
        close_time_ms=900_000, blocks={BTC: candles(3), ETH: candles(1)}, late=("XRP/USDT:USDT",), late_ms={BTC: 40}
    )
    note = candles_closed(batch, "5m")
    entry = chained(note, seq=1, timestamp_ms=1, trace_id="", previous=GENESIS)
    told = {one.event_type: one.data for one in events_of(entry, "j")}

    assert told["market.candles_closed"]["symbols"] == [BTC, ETH]
    assert told["market.candles_closed"]["late_ms"] == 40
    assert told["market.candles_late"]["symbols"] == ["XRP/USDT:USDT"]
    assert told["market.gap_filled"]["candles"] == {BTC: 2}
    assert told["market.kline"]["candles"] == {
        BTC: {"open_time_ms": 600_000, "open": 1.0, "high": 2.0, "low": 0.5, "close": 1.0, "volume": 1.0},
        ETH: {"open_time_ms": 0, "open": 1.0, "high": 2.0, "low": 0.5, "close": 1.0, "volume": 1.0},
    }
    quiet = candles_closed(CandleBatch(close_time_ms=1, blocks={}, late=()), "5m")
    assert set(quiet.detail) == {"close_time_ms", "timeframe", "symbols", "late_ms"}
    assert np.all([isinstance(value, str) for value in note.detail.values()])


def test_a_candle_that_is_none_is_not_told_and_keeps_nothing_back():
    """Values that JSON cannot hold are left out; words that are no candles leave the entry as it was written."""
    bad = CandleBlock.from_rows([[0, 1.0, 2.0, 0.5, float("nan"), float("inf")]])
    note = candles_closed(CandleBatch(close_time_ms=300_000, blocks={BTC: bad, ETH: candles(1)}, late=()), "5m")
    broken = Noted(event_type="market.candles_closed", detail={**note.detail, "candles": "soon"})
    told = [
        {
            one.event_type: one.data
            for one in events_of(chained(one, seq=1, timestamp_ms=1, trace_id="", previous=GENESIS), "j")
        }
        for one in (note, broken)
    ]

    assert set(told[0]["market.kline"]["candles"]) == {ETH}
    assert told[0]["market.candles_closed"]["symbols"] == [BTC, ETH]
    assert set(told[1]) == {"market.candles_closed"}
    assert told[1]["market.candles_closed"]["candles"] == "soon"


def test_a_hundred_candles_are_a_tenth_of_what_a_decision_is():
    """The entry of a hundred symbols stays below twelve kilobytes."""
    block = CandleBlock.from_rows([[1_750_000_200_000, 50_000.12, 50_123.45, 49_999.99, 50_001.01, 1234.567]])
    blocks = {f"SYMBOL{number}/USDT:USDT": block for number in range(100)}
    note = candles_closed(CandleBatch(close_time_ms=1_750_000_500_000, blocks=blocks, late=()), "5m")

    assert sum(len(value) for value in note.detail.values()) < 12_000


def test_settings_have_bounds():
    """A bound that means nothing is refused by its name."""
    for name, value in (("bus_late_seconds", 0), ("bus_keep_events", 0), ("bus_keep_days", 0)):
        with pytest.raises(SettingsError, match=name.upper()):
            load_settings(venue_url="http://127.0.0.1:1", **{name: value})
