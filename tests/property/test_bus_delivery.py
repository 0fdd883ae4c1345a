"""However publishing, delivery, crashes and retention interleave: each event reaches each group, and in order."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from inference.bus.consumer import Consumer, ConsumerTerms
from inference.bus.handled import HandledEvents
from inference.bus.port import OLDEST, BusError, Retention, Subscription
from tests.bus_support import event, opened
from tests.redis_support import running_redis

TYPES = ("trade.filled", "risk.corrected", "signal.ranked")
GROUPS = {"all": ("*",), "trades": ("trade.*",), "two": ("risk.*", "signal.*")}
LIMIT = st.integers(1, 4)
WHO = st.sampled_from(sorted(GROUPS)).flatmap(lambda group: st.tuples(st.just(group), st.sampled_from(["a", "b"])))


class BusMachine(RuleBasedStateMachine):
    """Groups of two consumers each, that take, acknowledge, fail and die as they like."""

    kind = "local"
    redis_url: str | None = None

    @initialize()
    def begin(self):
        """Open an empty bus with its groups."""
        self.stack = ExitStack()
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.bus = self.stack.enter_context(opened(self.kind, self.folder, self.redis_url))
        for group, patterns in GROUPS.items():
            self.bus.subscribe(group, Subscription(patterns=patterns, start=OLDEST, max_deliveries=4))
        self.published = []
        self.hands = {(group, name): [] for group in GROUPS for name in "ab"}
        self.first = {group: [] for group in GROUPS}
        self.over = {group: set() for group in GROUPS}
        self.dead = {group: set() for group in GROUPS}

    @rule(kinds=st.lists(st.sampled_from(TYPES), min_size=1, max_size=5), again=st.booleans())
    def publish(self, kinds, again):
        """Publish something new, perhaps with something that was."""
        fresh = [event(len(self.published) + number, kind) for number, kind in enumerate(kinds)]
        old = self.published[-2:] if again else []
        assert self.bus.publish(old + fresh) == len(fresh)
        self.published += fresh

    @rule(who=WHO, limit=LIMIT)
    def fetch(self, who, limit):
        """Take what is new."""
        found = self.bus.fetch(*who, limit=limit)
        fresh = [one for one in found if one.deliveries == 1 and one.envelope.event_id not in self.first[who[0]]]
        self.first[who[0]] += [one.envelope.event_id for one in fresh]
        self.hands[who] += found

    @rule(who=WHO)
    def resume(self, who):
        """Begin again under the same name."""
        self.hands[who] = self.bus.resume(*who)
        self._note_dead()

    @rule(who=WHO, limit=LIMIT)
    def reclaim(self, who, limit):
        """Take over what somebody is silent about."""
        self.hands[who] += self.bus.reclaim(*who, idle_seconds=0, limit=limit)
        self._note_dead()

    @rule(who=WHO, count=LIMIT)
    def acknowledge(self, who, count):
        """Be done with some."""
        done, self.hands[who] = self.hands[who][:count], self.hands[who][count:]
        self.bus.acknowledge(done)
        # Late, after others gave it up: it stays a dead letter, though it was handled.
        self.over[who[0]] |= {one.envelope.event_id for one in done} - self.dead[who[0]]

    @rule(who=WHO)
    def fail(self, who):
        """Fail with one."""
        if self.hands[who]:
            self.bus.fail(self.hands[who].pop(0), "no")
            self._note_dead()

    @rule(group=st.sampled_from(sorted(GROUPS)))
    def requeue(self, group):
        """Have dead letters delivered again."""
        assert self.bus.requeue(group) == len(self.dead[group])
        self.dead[group] = set()

    @rule(who=WHO)
    def die(self, who):
        """Forget what was in hand."""
        self.hands[who] = []

    @rule()
    def reopen(self):
        """End the process that has the bus open."""
        self.bus.close()

    @rule(events=st.integers(0, 6))
    def trim(self, events):
        """Take away what nobody needs."""
        self.bus.trim(Retention(events=events))

    @invariant()
    def nothing_is_lost(self):
        """What a group means is unread, pending, over or a dead letter; the statistics say so."""
        if not hasattr(self, "bus"):
            return
        stats = self.bus.stats()
        assert stats.published == len(self.published)
        for group, told in stats.groups.items():
            assert told.dropped == 0
            assert told.dead == len(self.dead[group])

    @invariant()
    def first_deliveries_are_in_order(self):
        """Each group is handed events for the first time in the order in which they were published."""
        if not hasattr(self, "bus"):
            return
        order = {one.event_id: number for number, one in enumerate(self.published)}
        for seen in self.first.values():
            assert [order[key] for key in seen] == sorted({order[key] for key in seen})

    def teardown(self):
        """Let one consumer of each group take all that is left: then every event was delivered, and is over or dead."""
        if not hasattr(self, "bus"):
            return
        try:
            for group, patterns in GROUPS.items():
                seen = self._drain(group)
                meant = {one.event_id for one in self.published if _means(patterns, one.event_type)}
                assert self.over[group] | self.dead[group] | seen == meant
                assert set(self.first[group]) | seen >= meant
                assert self.bus.stats().groups[group].pending == 0
        finally:
            self.stack.close()

    def _drain(self, group):
        seen: set[str] = set()
        while True:
            found = self.bus.reclaim(group, "last", idle_seconds=0) or self.bus.fetch(group, "last")
            self._note_dead()
            if not found:
                return seen
            self.bus.acknowledge(found)
            seen |= {one.envelope.event_id for one in found}

    def _note_dead(self):
        for group in GROUPS:
            self.dead[group] = {one.envelope.event_id for one in self.bus.dead_letters(group)}


def _means(patterns, event_type):
    return any(pattern == "*" or event_type.startswith(pattern[:-1]) for pattern in patterns)


def test_no_interleaving_loses_an_event_on_the_local_bus():
    """Two consumers of each of three groups do as they like at a SQLite file."""
    chosen = settings(max_examples=60, stateful_step_count=40, deadline=None)
    assert run_state_machine_as_test(BusMachine, settings=chosen) is None


@pytest.mark.needs_redis
def test_no_interleaving_loses_an_event_in_redis(tmp_path):
    """The same at a real server."""
    with running_redis(tmp_path) as url:
        machine = type("RedisMachine", (BusMachine,), {"kind": "redis", "redis_url": url})
        chosen = settings(max_examples=25, stateful_step_count=30, deadline=None)
        assert run_state_machine_as_test(machine, settings=chosen) is None


class ConsumerMachine(RuleBasedStateMachine):
    """One consumer with a durable memory, which is killed at any point of its work."""

    @initialize()
    def begin(self):
        """Open an empty bus."""
        self.stack = ExitStack()
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.bus = self.stack.enter_context(opened("local", self.folder, None))
        self.handled = HandledEvents(self.folder / "handled.db")
        self.effects: list[int] = []
        self.count = 0
        self._live()

    def _live(self):
        self.dies_after = None
        self.consumer = Consumer(
            self.bus,
            self.handled,
            self._handle,
            group="group",
            name="one",
            subscription=Subscription(start=OLDEST, max_deliveries=1000),
            terms=ConsumerTerms(at_once=4, idle_seconds=0),
        )

    def _handle(self, envelope, once):
        if self.dies_after == "before":
            raise KeyboardInterrupt
        once.connection.execute("CREATE TABLE IF NOT EXISTS effects (number INTEGER)")
        once.connection.execute("INSERT INTO effects VALUES (?)", (envelope.data["number"],))
        if self.dies_after == "within":
            raise KeyboardInterrupt

    @rule(count=st.integers(1, 5))
    def publish(self, count):
        """Publish something."""
        self.bus.publish([event(self.count + number) for number in range(count)])
        self.count += count

    @rule(when=st.sampled_from([None, "before", "within"]))
    def work(self, when):
        """Take what there is, and die at some point, or not."""
        self.dies_after = when
        try:
            self.consumer.turn()
        except KeyboardInterrupt:
            self.handled.close()
            self.handled = HandledEvents(self.folder / "handled.db")
            self._live()

    @rule()
    def lose_acknowledgements(self):
        """Let the bus hand out all that it still has, as one does that went back to an older state."""
        if self.bus.stats().groups:
            self.bus.rewind("group", 0)

    def teardown(self):
        """In the end every event has had its effect once, in order."""
        if not hasattr(self, "bus"):
            return
        try:
            self.dies_after = None
            while self.consumer.turn():
                pass
            found = [] if not self.count else self.handled._connection.execute("SELECT number FROM effects").fetchall()
            assert [number for (number,) in found] == list(range(self.count))
        finally:
            self.handled.close()
            self.stack.close()


def test_a_consumer_that_dies_handles_each_event_once_and_in_order():
    """Its effects are kept with its memory, or not at all."""
    chosen = settings(max_examples=60, stateful_step_count=30, deadline=None)
    assert run_state_machine_as_test(ConsumerMachine, settings=chosen) is None


def test_a_memory_that_cannot_be_opened_is_an_error_that_names_it(tmp_path):
    """A file that is no database is not written over."""
    path = tmp_path / "handled.db"
    path.write_bytes(b"not a database, and long enough to be read as one" * 40)

    with pytest.raises(BusError, match=str(path)):
        HandledEvents(path)
    assert path.read_bytes().startswith(b"not a database")
