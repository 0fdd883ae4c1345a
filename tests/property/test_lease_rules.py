"""Two writers, whatever their clocks say and wherever they are held up, never both have orders accepted."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from inference.execution.lease import Contender, Holder, LeaseRow, LeaseState, LeaseTerms, Take, Tenure, Wait

TERMS = LeaseTerms(seconds=10.0, recv_window_seconds=2.0)
# The venue accepts a stamp this far ahead of its own clock.
AHEAD_SECONDS = 1.0


def holder(pid: int, home: str = "") -> Holder:
    return Holder(host="h", pid=pid, started="1", kernel="k", home=home or f"/home/{pid}")


@dataclass
class _World:
    """Time as it is, the lease as it is written, and what the venue accepted of whom."""

    now: float = 0.0
    row: LeaseRow | None = None
    accepted: list[tuple[int, int]] = field(default_factory=list)

    def receive(self, stamp: float, token: int, writer: int) -> None:
        age = self.now - stamp
        if -AHEAD_SECONDS < age <= 2.0:
            self.accepted.append((token, writer))


@dataclass
class _Writer:
    """One process: a clock of its own, and one thing after another, each of which may take any time."""

    number: int
    world: _World
    terms: LeaseTerms
    offset: float
    rate: float
    # How far its idea of the venue's time is off.
    error: float
    tenure: Tenure | None = None
    steps: list = field(default_factory=list)
    contender: Contender | None = None

    @property
    def clock(self) -> float:
        return self.world.now * self.rate + self.offset

    def step(self, *, wants_to_send: bool) -> None:
        if not self.steps:
            self.steps = [self.look] if self.tenure is None else [self.stamp if wants_to_send else self.ask_to_renew]
        self.steps.pop(0)()

    def look(self) -> None:
        self.contender = self.contender or Contender(self.terms, holder(self.number))
        row = self.world.row
        self.steps.append(lambda: self.judge(row))

    def judge(self, row: LeaseRow | None) -> None:
        verdict = self.contender.judge(row, now=self.clock)
        if isinstance(verdict, Take):
            asked = self.clock
            self.steps.append(lambda: self.take(row, asked, verdict.quiet_seconds))

    def take(self, seen: LeaseRow | None, asked: float, quiet: float) -> None:
        if self.world.row != seen:
            return
        token = 1 if seen is None else seen.token + 1
        self.world.row = LeaseRow(token=token, beat=0, state=LeaseState.HELD, holder=holder(self.number))
        self.steps.append(lambda: self.begin(token, asked, quiet))

    def begin(self, token: int, asked: float, quiet: float) -> None:
        self.tenure = Tenure.taken(self.terms, token, asked=asked, taken=self.clock, quiet_seconds=quiet)
        self.contender = None

    def ask_to_renew(self) -> None:
        asked = self.clock
        self.steps.append(lambda: self.renew(asked))

    def renew(self, asked: float) -> None:
        row = self.world.row
        is_ours = row.token == self.tenure.token
        if is_ours:
            self.world.row = replace(row, beat=row.beat + 1)
        self.steps.append(lambda: self.learn(asked, is_ours=is_ours))

    def learn(self, asked: float, *, is_ours: bool) -> None:
        self.tenure = self.tenure.renewed(self.terms, asked=asked) if is_ours else None

    def stamp(self) -> None:
        stamp = self.world.now + self.error
        self.steps.append(lambda: self.check(stamp))

    def check(self, stamp: float) -> None:
        if self.tenure.may_send(self.clock):
            token = self.tenure.token
            self.steps.append(lambda: self.world.receive(stamp, token, self.number))


def lived(terms: LeaseTerms, clocks, moves) -> list[tuple[int, int]]:
    world = _World()
    writers = [_Writer(number, world, terms, *clock) for number, clock in enumerate(clocks)]
    for number, wants_to_send, pause in moves:
        world.now += pause
        writers[number].step(wants_to_send=wants_to_send)
    return world.accepted


pauses = st.one_of(st.floats(0, 0.5), st.sampled_from([0.0, 2.4, 3.5, 9.9, 10.0, 10.1]), st.floats(0, 40))
clocks = st.tuples(st.floats(-1e5, 1e5), st.floats(0.999, 1.001), st.floats(-1, 1))
moves = st.lists(st.tuples(st.integers(0, 1), st.booleans(), pauses), min_size=12, max_size=120)
# Taken, renewed, a request stamped and checked; then the other looks for a whole lease, takes it and sends.
HELD_UP = [
    *[(0, False, 0.0)] * 4,
    *[(0, False, 0.0)] * 3,
    *[(0, True, 0.0)] * 2,
    *[(1, False, 0.0)] * 2,
    (1, False, 10.01),
    *[(1, False, 0.0)] * 3,
]


@settings(max_examples=600)
@given(first=clocks, second=clocks, moves=moves)
@example(
    first=(0.0, 1.0, 1.0),
    second=(0.0, 1.0, 0.0),
    moves=[*HELD_UP, (0, True, 0.0), *[(1, True, 1.2)] * 3, (1, True, 3.0), *[(1, True, 0.0)] * 2],
)
def test_the_venue_never_accepts_an_order_of_both(first, second, moves):
    """Once an order of a later holder is accepted, none of an earlier one is, whatever held either up."""
    tokens = [token for token, _ in lived(TERMS, (first, second), moves)]

    assert tokens == sorted(tokens)


def test_without_the_quiet_time_both_would_trade():
    """The same two, where the later one sends at once: the venue accepts the earlier one's request after it."""
    hasty = replace(TERMS, recv_window_seconds=0.0, clock_error_seconds=0.0)
    # The first stamps at the end of its lease; the second takes it then, and both are sent.
    moves = [
        *[(0, False, 0.0)] * 4,
        *[(1, False, 0.0)] * 2,
        (0, True, 9.9),
        (0, True, 0.0),
        (1, False, 0.2),
        *[(1, False, 0.0)] * 3,
        *[(1, True, 0.0)] * 3,
        (0, True, 0.1),
    ]
    clocks = ((0.0, 1.0, 0.0), (5.0, 1.0, 0.0))

    assert [token for token, _ in lived(hasty, clocks, moves)] == [2, 1]
    assert [token for token, _ in lived(TERMS, clocks, moves)] == [1]


@given(now=st.floats(0, 1e6), lasts=st.floats(0, 100))
def test_a_lease_is_waited_for_however_long_ago_it_was_written(now, lasts):
    """What a stopped clock or another machine's wrote counts for nothing: a silent holder is watched for a lease."""
    contender = Contender(TERMS, holder(1))
    row = LeaseRow(token=7, beat=3, state=LeaseState.HELD, holder=holder(2))

    assert contender.judge(row, now=now) == Wait(row.holder, is_alive=False, silent_seconds=0.0)
    after = contender.judge(row, now=now + lasts)
    assert isinstance(after, Take) == (now + lasts - now >= TERMS.seconds)


def test_a_holder_that_renews_is_never_taken_over():
    """Each renewal begins the wait anew."""
    contender = Contender(TERMS, holder(1))
    for beat in range(50):
        row = LeaseRow(token=1, beat=beat, state=LeaseState.HELD, holder=holder(2))
        verdict = contender.judge(row, now=beat * 9.9)
        assert isinstance(verdict, Wait)
        assert verdict.is_alive == (beat > 0)


@pytest.mark.parametrize(
    ("state", "is_dead", "home", "quiet"),
    [
        (LeaseState.RELEASED, False, "/elsewhere", 0.0),
        (LeaseState.LEFT, False, "/elsewhere", 3.5),
        (LeaseState.LEFT, False, "/home/1", 0.0),
        (LeaseState.HELD, True, "/elsewhere", 3.5),
        (LeaseState.HELD, True, "/home/1", 0.0),
    ],
)
def test_a_lease_without_a_holder_is_taken_at_once(state, is_dead, home, quiet):
    """Given back or its holder gone: no wait, but for requests that our journal knows nothing of."""
    row = LeaseRow(token=4, beat=1, state=state, holder=holder(2, home))

    assert Contender(TERMS, holder(1)).judge(row, now=5.0, is_dead=is_dead) == Take(quiet)


def test_a_living_process_of_the_same_home_keeps_its_lease():
    """It holds the journal too, which cannot be taken from it."""
    contender = Contender(TERMS, holder(1))
    row = LeaseRow(token=4, beat=1, state=LeaseState.HELD, holder=holder(2, "/home/1"))
    contender.judge(row, now=0.0)

    assert contender.judge(row, now=1e6) == Wait(row.holder, is_alive=False, silent_seconds=1e6)


def test_a_doubted_tenure_waits_for_a_renewal():
    """After a doubt nothing is sent until the lease was renewed."""
    tenure = Tenure.taken(TERMS, 1, asked=0.0, taken=0.1, quiet_seconds=0.0)

    assert tenure.may_send(1.0)
    assert not tenure.doubted().may_send(1.0)
    assert tenure.doubted().renewed(TERMS, asked=1.0).may_send(2.0)
