"""A consumer handles each event once, gives up what fails, and survives a bus that lost everything."""

from __future__ import annotations

import pytest

from feature_store.errors import QuantumError
from inference.bus.consumer import Consumer, ConsumerTerms
from inference.bus.handled import HandledEvents
from inference.bus.local import LocalBus
from inference.bus.port import OLDEST, BusError, Retention, Subscription
from tests.bus_support import event, numbers


class Handler:
    """Remembers what it was given, and fails where it is told to."""

    def __init__(self):
        self.seen = []
        self.refuses = set()
        self.defect = None

    def __call__(self, envelope, once):
        """Handle one event."""
        if self.defect is not None:
            raise self.defect
        if envelope.data["number"] in self.refuses:
            raise QuantumError(f"no place for {envelope.data['number']}")
        self.seen.append(envelope.data["number"])


@pytest.fixture
def bus(tmp_path):
    """Return an empty bus."""
    one = LocalBus(tmp_path / "bus.db")
    yield one
    one.close()


@pytest.fixture
def handled(tmp_path):
    """Return a memory on the disk."""
    one = HandledEvents(tmp_path / "handled.db", now_ms=lambda: 1000)
    yield one
    one.close()


def consumer(bus, handled, handler, name="one", **terms):
    """Return a consumer of all trades."""
    return Consumer(
        bus,
        handled,
        handler,
        group="desk",
        name=name,
        subscription=Subscription(patterns=("trade.*",), start=OLDEST, max_deliveries=3),
        terms=ConsumerTerms(**terms) if terms else None,
    )


def test_each_event_is_handled_once_in_order(bus, handled):
    """Also where the same consumer is made anew, or another takes over."""
    handler = Handler()
    bus.publish([event(number) for number in range(5)] + [event(5, "risk.corrected")])
    one = consumer(bus, handled, handler, at_once=2)
    while one.turn():
        pass
    bus.rewind("desk", 0)
    two = consumer(bus, handled, handler, "two")
    assert two.turn() == 5

    assert handler.seen == [0, 1, 2, 3, 4]
    assert (one.counts.handled, two.counts.handled, two.counts.known) == (5, 0, 5)
    assert bus.stats().groups["desk"].pending == 0


def test_what_fails_comes_again_and_is_given_up_in_the_end(bus, handled):
    """The others are handled meanwhile; once the cause is mended, the dead letter is delivered again."""
    handler = Handler()
    handler.refuses = {1}
    bus.publish([event(number) for number in range(3)])
    one = consumer(bus, handled, handler, idle_seconds=0)
    for _ in range(4):
        one.turn()

    assert handler.seen == [0, 2]
    assert (one.counts.failed, one.counts.buried) == (3, 1)
    (letter,) = bus.dead_letters("desk")
    assert (letter.deliveries, letter.reason) == (3, "no place for 1")
    assert not handled.has("desk", event(1).event_id)

    handler.refuses = set()
    bus.requeue("desk")
    one.turn()
    assert handler.seen == [0, 2, 1]
    assert bus.dead_letters() == []


def test_a_defect_ends_the_consumer_and_loses_nothing(bus, handled):
    """The event is neither handled nor acknowledged; the next life takes it first."""
    handler = Handler()
    handler.defect = ZeroDivisionError()
    bus.publish([event(1), event(2)])
    with pytest.raises(ZeroDivisionError):
        consumer(bus, handled, handler).turn()
    assert bus.stats().groups["desk"].pending == 2

    handler.defect = None
    again = consumer(bus, handled, handler)
    assert again.turn() == 2
    assert handler.seen == [1, 2]


def test_a_bus_that_lost_everything_is_subscribed_anew(bus, handled, tmp_path):
    """What it is told again is known; what is new is not missed."""
    handler = Handler()
    one = consumer(bus, handled, handler)
    bus.publish([event(1), event(2)])
    one.turn()
    bus.path.unlink()
    bus.publish([event(1), event(2), event(3)])

    assert one.turn() == 3
    assert handler.seen == [1, 2, 3]
    assert one.counts.known == 2


def test_an_effect_is_kept_with_the_memory_or_not_at_all(handled):
    """A handler that fails after it wrote has written nothing."""
    key = event(1).event_id
    with handled.once("desk", key) as once:
        once.connection.execute("CREATE TABLE effects (number INTEGER)")

    def write_and_fail():
        with handled.once("desk", event(2).event_id) as one:
            one.connection.execute("INSERT INTO effects VALUES (2)")
            raise QuantumError("too late")

    with pytest.raises(QuantumError, match="too late"):
        write_and_fail()
    with handled.once("desk", key) as once:
        assert not once.is_new
        assert once.connection.execute("SELECT count(*) FROM effects").fetchone() == (0,)

    assert (handled.has("desk", key), handled.has("other", key)) == (True, False)
    assert not handled.has("desk", event(2).event_id)


def test_the_memory_forgets_what_no_bus_will_deliver_again(tmp_path):
    """By age, so that it does not grow for ever."""
    now = [0]
    handled = HandledEvents(tmp_path / "handled.db", now_ms=lambda: now[0])
    for number in range(4):
        now[0] = number * 1000
        with handled.once("desk", event(number).event_id):
            pass

    assert handled.forget(older_than_seconds=1.5) == 2
    assert [handled.has("desk", event(number).event_id) for number in range(4)] == [False, False, True, True]
    handled.close()


def test_a_memory_that_is_gone_handles_nothing(tmp_path, bus):
    """A disk that fails is an error and no failure of the event, which is handled once the disk is well."""
    handled = HandledEvents(tmp_path / "handled.db")
    handler = Handler()
    one = consumer(bus, handled, handler, idle_seconds=0)
    bus.publish([event(1), event(2)])
    handled.close()
    for _ in range(5):
        with pytest.raises(BusError, match="handled"):
            one.turn()
    assert handler.seen == []
    assert bus.stats().groups["desk"].pending == 2

    one._handled = HandledEvents(tmp_path / "handled.db")
    assert one.turn() == 2
    assert (handler.seen, bus.stats().groups["desk"].pending) == ([1, 2], 0)
    assert bus.dead_letters() == []
    one._handled.close()


def test_an_acknowledgement_that_fails_is_made_up_for(bus, handled):
    """The event was handled; it is acknowledged by the next turn, and not handled again."""
    handler = Handler()
    one = consumer(bus, handled, handler)
    bus.publish([event(1)])
    acknowledge, fails = bus.acknowledge, [1, 1]

    def acknowledged(found):
        if fails:
            fails.pop()
            raise BusError("gone")
        return acknowledge(found)

    bus.acknowledge = acknowledged
    for _ in range(2):
        with pytest.raises(BusError, match="gone"):
            one.turn()
    assert one.turn() == 1
    assert handler.seen == [1]
    assert bus.stats().groups["desk"].pending == 0


def test_retention_never_takes_what_the_consumer_has_in_hand(bus, handled):
    """What is pending stays until it is acknowledged."""
    handler = Handler()
    handler.refuses = {0}
    one = consumer(bus, handled, handler, idle_seconds=60)
    bus.publish([event(number) for number in range(4)])
    one.turn()
    bus.trim(Retention(events=1))
    assert numbers(bus.replay()) == [0, 1, 2, 3]
    with pytest.raises(BusError, match="nobody"):
        bus.rewind("nobody", 0)
