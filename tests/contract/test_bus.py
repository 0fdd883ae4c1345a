"""Both buses keep the promises of the port: what is published reaches each group, in order, until it is handled."""

from __future__ import annotations

import threading
import time

import pytest

from inference.bus.envelope import EventError
from inference.bus.port import (
    NEWEST,
    OLDEST,
    BusError,
    Cursor,
    CursorMovedError,
    Retention,
    Subscription,
    UnknownGroupError,
)
from tests.bus_support import T0, event, numbers, opened
from tests.redis_support import running_redis

KINDS = ["local", pytest.param("redis", marks=pytest.mark.needs_redis)]
FROM_OLDEST = Subscription(start=OLDEST)


@pytest.fixture(scope="module")
def redis_url(request, tmp_path_factory):
    """Return the address of a real Redis server, started where a test asks for it."""
    with running_redis(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(params=KINDS)
def bus(request, tmp_path):
    """Return an empty bus of each kind."""
    url = request.getfixturevalue("redis_url") if request.param == "redis" else None
    with opened(request.param, tmp_path, url) as one:
        yield one


def test_offsets_grow_by_one_and_an_event_is_stored_once(bus):
    """Publishing an id again, alone or among others, changes nothing."""
    assert bus.publish([event(1), event(2)]) == 2
    assert bus.publish([event(2), event(3), event(3)]) == 1

    assert [(one.offset, one.envelope) for one in bus.replay()] == [(1, event(1)), (2, event(2)), (3, event(3))]
    assert bus.stats().published == 3


def test_a_group_gets_what_its_patterns_mean_in_order(bus):
    """Each group is handed each event once, and only what it subscribed to."""
    bus.subscribe("trades", Subscription(patterns=("trade.*",)))
    bus.subscribe("all", Subscription())
    bus.publish([event(1), event(2, "risk.entry_denied"), event(3, "trade.closed"), event(4, "trades.other")])

    assert numbers(bus.fetch("trades", "a")) == [1, 3]
    assert numbers(bus.fetch("all", "a")) == [1, 2, 3, 4]
    assert bus.fetch("trades", "a") == []
    assert bus.fetch("all", "b") == []


@pytest.mark.parametrize(
    ("patterns", "meant"),
    [
        (("*",), [1, 2, 3]),
        (("trade.*", "risk.*"), [1, 2]),
        (("*.closed",), [1, 3]),
        (("trade.closed",), [1]),
        (("*d*",), [1, 2, 3]),
        (("nothing.*",), []),
    ],
)
def test_wildcards(bus, patterns, meant):
    """A star stands for any characters, at any place of a pattern."""
    bus.subscribe("group", Subscription(patterns=patterns))
    bus.publish([event(1, "trade.closed"), event(2, "risk.entry_denied"), event(3, "model.closed")])

    assert numbers(bus.fetch("group", "a")) == meant
    assert numbers(bus.replay(patterns)) == meant
    assert numbers(bus.newest(patterns)) == meant


def test_where_a_group_begins(bus):
    """A new group begins at the oldest event, after the newest, or at an offset; an old one goes on where it was."""
    bus.publish([event(1), event(2), event(3)])
    bus.subscribe("oldest", Subscription(start=OLDEST))
    bus.subscribe("newest", Subscription(start=NEWEST))
    bus.subscribe("offset", Subscription(start=2))
    bus.publish([event(4)])

    assert numbers(bus.fetch("oldest", "a")) == [1, 2, 3, 4]
    assert numbers(bus.fetch("newest", "a")) == [4]
    assert numbers(bus.fetch("offset", "a")) == [2, 3, 4]

    bus.subscribe("oldest", Subscription(start=OLDEST, patterns=("risk.*",)))
    bus.publish([event(5), event(6, "risk.corrected")])
    assert numbers(bus.fetch("oldest", "a")) == [6]


def test_consumers_of_a_group_share(bus):
    """No two consumers of a group are handed the same event."""
    bus.subscribe("group", Subscription())
    bus.publish([event(number) for number in range(6)])

    first = numbers(bus.fetch("group", "a", limit=2))
    second = numbers(bus.fetch("group", "b", limit=2))
    rest = numbers(bus.fetch("group", "a"))

    assert (first, second, rest) == ([0, 1], [2, 3], [4, 5])


def test_what_is_acknowledged_is_over(bus):
    """Acknowledged events are neither resumed nor claimed; acknowledging twice counts once."""
    bus.subscribe("group", Subscription())
    bus.publish([event(1), event(2), event(3)])
    one, two, _ = bus.fetch("group", "a")

    assert bus.acknowledge([one, two]) == 2
    assert bus.acknowledge([one, two]) == 0
    assert numbers(bus.resume("group", "a")) == [3]
    assert numbers(bus.reclaim("group", "b", idle_seconds=0)) == [3]


def test_a_restarted_consumer_resumes_in_order(bus):
    """What it was given and did not acknowledge comes again under its name, counted, and before anything new."""
    bus.subscribe("group", Subscription())
    bus.publish([event(1), event(2), event(3)])
    bus.acknowledge(bus.fetch("group", "a", limit=1))
    bus.fetch("group", "a", limit=1)

    again = bus.resume("group", "a")

    assert numbers(again) == [2]
    assert [one.deliveries for one in again] == [2]
    assert bus.resume("group", "b") == []
    assert numbers(bus.fetch("group", "a")) == [3]


def test_events_of_a_consumer_that_died_go_to_another_after_the_stated_time(bus):
    """Not before: a consumer that is at work is left alone."""
    bus.subscribe("group", Subscription())
    bus.publish([event(1), event(2)])
    bus.fetch("group", "dead")

    assert bus.reclaim("group", "alive", idle_seconds=60) == []
    time.sleep(0.05)
    claimed = bus.reclaim("group", "alive", idle_seconds=0.02)

    assert numbers(claimed) == [1, 2]
    assert [(one.deliveries, one.consumer) for one in claimed] == [(2, "alive"), (2, "alive")]
    assert bus.resume("group", "dead") == []
    assert bus.acknowledge(claimed) == 2


def test_an_event_that_fails_is_retried_then_a_dead_letter(bus):
    """It is delivered as often as was said, with the reason of the last failure, and then listed."""
    bus.subscribe("group", Subscription(max_deliveries=3))
    bus.publish([event(1), event(2)])
    bad, good = bus.fetch("group", "a")
    bus.acknowledge([good])

    assert not bus.fail(bad, "first")
    (bad,) = bus.reclaim("group", "a", idle_seconds=0)
    assert (bad.deliveries, bad.reason) == (2, "first")
    assert not bus.fail(bad, "second")
    (bad,) = bus.reclaim("group", "a", idle_seconds=0)
    assert bus.fail(bad, "third")

    assert bus.reclaim("group", "a", idle_seconds=0) == []
    (letter,) = bus.dead_letters("group")
    assert (letter.envelope, letter.offset, letter.deliveries, letter.reason) == (event(1), 1, 3, "third")
    assert bus.dead_letters() == [letter]
    assert bus.stats().groups["group"].dead == 1


@pytest.mark.parametrize("again", ["resume", "reclaim"])
def test_an_event_that_ends_its_consumer_is_a_dead_letter_too(bus, again):
    """A consumer that dies says nothing of why; the event is given up all the same."""
    bus.subscribe("group", Subscription(max_deliveries=2))
    bus.publish([event(1)])
    bus.fetch("group", "a")

    def once_more():
        if again == "resume":
            return bus.resume("group", "a")
        return bus.reclaim("group", "b", idle_seconds=0)

    assert numbers(once_more()) == [1]
    assert once_more() == []
    (letter,) = bus.dead_letters("group")
    assert letter.deliveries == 2
    assert "ended with it" in letter.reason


def test_dead_letters_are_delivered_again_when_asked(bus):
    """To their own group and nobody else, with all deliveries before them again, and once."""
    bus.subscribe("group", Subscription(max_deliveries=1))
    bus.subscribe("other", Subscription())
    bus.publish([event(number) for number in (1, 2, 3)])
    bus.acknowledge(bus.fetch("other", "a"))
    for one in bus.fetch("group", "a"):
        assert bus.fail(one, "no")

    assert bus.requeue("group", [event(2).event_id]) == 1
    assert bus.requeue("group", [event(2).event_id]) == 0
    (again,) = bus.fetch("group", "b")
    assert (again.envelope, again.offset, again.deliveries) == (event(2), 2, 1)
    assert bus.acknowledge([again]) == 1
    assert numbers(bus.dead_letters("group")) == [1, 3]

    assert bus.requeue("group") == 2
    # What failed is delivered again in no order that is promised.
    assert sorted(numbers(bus.fetch("group", "b"))) == [1, 3]
    assert numbers(bus.resume("group", "b")) == []
    assert sorted(numbers(bus.dead_letters("group"))) == [1, 3]
    assert bus.fetch("other", "a") == []


def test_a_dead_letter_outlives_the_log(bus):
    """Retention takes the event; the letter still holds it, and it can be delivered again."""
    bus.subscribe("group", Subscription(max_deliveries=1))
    bus.publish([event(number) for number in range(5)])
    first, *rest = bus.fetch("group", "a")
    bus.fail(first, "no")
    bus.acknowledge(rest)

    assert bus.trim(Retention(events=1)) == 4
    assert bus.requeue("group") == 1
    (again,) = bus.fetch("group", "a")
    assert again.envelope == event(0)
    assert bus.fail(again, "still not")
    assert numbers(bus.dead_letters()) == [0]


def test_replay_from_an_offset_or_a_time(bus):
    """It yields what is kept, moves nobody's position, and takes times that are out of order as they are."""
    bus.subscribe("group", FROM_OLDEST)
    bus.publish([event(number, at_ms=T0 + at) for number, at in enumerate([0, 2000, 1000, 3000])])

    assert numbers(bus.replay(from_offset=3)) == [2, 3]
    assert numbers(bus.replay(from_ms=T0 + 2000)) == [1, 3]
    assert numbers(bus.replay(("risk.*",))) == []
    assert numbers(bus.fetch("group", "a")) == [0, 1, 2, 3]


def test_replay_reads_more_than_a_page(bus):
    """However much there is, each event comes once."""
    bus.publish([event(number) for number in range(1203)])

    assert numbers(bus.replay()) == list(range(1203))
    assert numbers(bus.newest(limit=3)) == [1200, 1201, 1202]
    assert numbers(bus.newest(("trade.*",), limit=900)) == list(range(303, 1203))


def test_a_group_can_be_rewound(bus):
    """It reads on from an offset, also what it has acknowledged."""
    bus.subscribe("group", FROM_OLDEST)
    bus.publish([event(1), event(2), event(3)])
    bus.acknowledge(bus.fetch("group", "a"))

    bus.rewind("group", 2)
    assert numbers(bus.fetch("group", "a")) == [2, 3]
    bus.rewind("group", 0)
    assert numbers(bus.fetch("group", "a")) == [1, 2, 3]


def test_retention_by_count_and_by_age(bus):
    """The newest stay; offsets go on where they were, and ids of what was taken are forgotten with it."""
    bus.publish([event(number) for number in range(10)])

    assert bus.trim(Retention(events=20)) == 0
    assert bus.trim(Retention(events=4)) == 6
    assert numbers(bus.replay()) == [6, 7, 8, 9]
    time.sleep(0.03)
    assert bus.trim(Retention(age_seconds=0.01)) == 4
    assert bus.publish([event(10)]) == 1
    assert [one.offset for one in bus.replay()] == [11]
    stats = bus.stats()
    assert (stats.published, stats.kept, stats.first_offset, stats.last_offset) == (11, 1, 11, 11)


def test_retention_leaves_what_a_group_needs_up_to_a_bound(bus):
    """Unread and unacknowledged events stay; where a group never comes back they are dropped, and counted."""
    bus.subscribe("group", FROM_OLDEST)
    bus.subscribe("slow", Subscription(start=OLDEST, patterns=("risk.*",)))
    bus.publish([event(number) for number in range(8)] + [event(8, "risk.corrected")])
    taken = bus.fetch("group", "a", limit=3)
    bus.acknowledge(taken[:2])
    bus.fetch("slow", "a")

    assert bus.trim(Retention(events=1)) == 2
    assert bus.trim(Retention(events=1, needed_events=4)) == 3
    assert numbers(bus.fetch("group", "a")) == [5, 6, 7, 8]
    assert bus.resume("group", "b") == []
    assert bus.stats().groups["group"].dropped == 3
    assert bus.stats().groups["slow"].dropped == 0


def test_the_cursor_moves_with_the_events_or_not_at_all(bus):
    """Whoever believes in another cursor publishes nothing, and is told how far the bus is."""
    one = Cursor(journal="j", seq=1, digest="a", place=0)
    two = Cursor(journal="j", seq=2, digest="b", place=90)

    assert bus.cursor("j") is None
    assert bus.publish([event(1)], moved=(None, one)) == 1
    assert bus.cursor("j") == one
    with pytest.raises(CursorMovedError) as refused:
        bus.publish([event(2)], moved=(None, two))
    assert refused.value.found == one
    with pytest.raises(CursorMovedError):
        bus.publish([event(2)], moved=(two, two))
    assert numbers(bus.replay()) == [1]
    assert bus.publish([], moved=(one, two)) == 0
    assert (bus.cursor("j"), bus.cursor("other")) == (two, None)


def test_waiting_ends_with_the_first_event(bus):
    """A consumer that waits is handed what comes meanwhile, and is let go where nothing does."""
    bus.subscribe("group", Subscription())
    later = threading.Timer(0.2, lambda: bus.publish([event(1)]))
    later.start()

    assert numbers(bus.fetch("group", "a", wait_seconds=20)) == [1]
    later.join()
    assert bus.fetch("group", "a", wait_seconds=0.05) == []


def test_statistics_count(bus):
    """Published, delivered, acknowledged and pending are what was done."""
    bus.subscribe("group", Subscription(patterns=("trade.*",)))
    bus.publish([event(1), event(2, "risk.corrected"), event(3)])
    one, _ = bus.fetch("group", "a")
    bus.acknowledge([one])
    bus.reclaim("group", "b", idle_seconds=0)

    group = bus.stats().groups["group"]

    assert (group.patterns, group.position) == (("trade.*",), 4)
    assert (group.delivered, group.acknowledged, group.pending, group.dead, group.dropped) == (3, 1, 1, 0, 0)


@pytest.mark.parametrize(
    "use",
    [
        lambda bus: bus.fetch("nobody", "a"),
        lambda bus: bus.resume("nobody", "a"),
        lambda bus: bus.reclaim("nobody", "a", idle_seconds=0),
        lambda bus: bus.requeue("nobody"),
        lambda bus: bus.rewind("nobody", 1),
    ],
    ids=["fetch", "resume", "reclaim", "requeue", "rewind"],
)
def test_a_group_that_never_subscribed_is_told_so(bus, use):
    """The message names it."""
    with pytest.raises(UnknownGroupError, match="nobody"):
        use(bus)


@pytest.mark.parametrize(
    "use",
    [
        lambda bus: bus.subscribe("a b", Subscription()),
        lambda bus: bus.subscribe("", Subscription()),
        lambda bus: bus.subscribe("x" * 65, Subscription()),
        lambda bus: bus.subscribe("g", Subscription(patterns=())),
        lambda bus: bus.subscribe("g", Subscription(patterns=("trade.[a-z]",))),
        lambda bus: bus.subscribe("g", Subscription(patterns=("TRADE.*",))),
        lambda bus: bus.subscribe("g", Subscription(start="yesterday")),
        lambda bus: bus.subscribe("g", Subscription(start=-1)),
        lambda bus: bus.subscribe("g", Subscription(max_deliveries=0)),
        lambda bus: list(bus.replay(("trade.?",))),
        lambda bus: bus.fetch("g", "a\nb"),
        lambda bus: bus.publish([event(1, "Trade")]),
        lambda bus: bus.publish([event(1, "nodot")]),
    ],
)
def test_what_the_bus_cannot_keep_is_refused(bus, use):
    """Names, patterns, starts and events that mean nothing end in a sentence, and leave nothing behind."""
    with pytest.raises(EventError):
        use(bus)

    assert bus.stats().groups == {}
    assert bus.stats().published == 0


def test_two_processes_publish_and_consume_at_once(bus, tmp_path):
    """Threads with a bus each, at the same file or server: every event is handed out once."""
    bus.subscribe("group", FROM_OLDEST)
    seen: list[int] = []

    def publish(first):
        for number in range(first, first + 40):
            bus.publish([event(number)])

    def consume(name):
        while len(seen) < 80:
            found = bus.fetch("group", name, limit=7, wait_seconds=0.1)
            bus.acknowledge(found)
            seen.extend(numbers(found))

    work = [threading.Thread(target=publish, args=(first,)) for first in (0, 40)]
    work += [threading.Thread(target=consume, args=(name,)) for name in ("a", "b")]
    for one in work:
        one.start()
    for one in work:
        one.join(60)

    assert sorted(seen) == list(range(80))


def test_a_server_that_is_gone_is_an_error_that_says_so(tmp_path):
    """Nothing hangs, and nothing but a BusError is raised."""
    with opened("redis", tmp_path, f"unix://{tmp_path}/nobody.sock") as bus, pytest.raises(BusError, match="Redis"):
        bus.publish([event(1)])
