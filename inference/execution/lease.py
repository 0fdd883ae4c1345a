"""Who may trade an account: one writer at a time, by rules that need no clock that two machines agree on."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

# Our estimate of the venue's time is off by at most a second before it counts as moved; the rest is for clocks that
# run unequally fast while a lease lasts.
CLOCK_ERROR_SECONDS = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseTerms:
    """
    How long a lease lasts since its last renewal was begun, and what its end must be followed by.

    `recv_window_seconds` is how long the venue may execute a request after its timestamp.
    """

    seconds: float
    recv_window_seconds: float
    clock_error_seconds: float = CLOCK_ERROR_SECONDS

    @property
    def quiet_seconds(self) -> float:
        """How long after the end of a lease its holder's last request may still be accepted."""
        return self.recv_window_seconds + self.clock_error_seconds

    @property
    def renewal_seconds(self) -> float:
        """How long to wait between two renewals, so that one may fail."""
        return self.seconds / 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A worker, so that people find it and that the machine it runs on can tell whether it lives."""

    host: str
    pid: int
    # What a later process of the same number has not: when it began, and under which kernel and process numbering.
    started: str
    kernel: str
    home: str

    @property
    def words(self) -> str:
        """Where to find it."""
        return f"process {self.pid} on {self.host} (home {self.home})"

    def shares_journal_with(self, other: Holder) -> bool:
        """Whether both keep their journal in one folder of one machine."""
        return self.kernel == other.kernel and self.home == other.home


class LeaseState(StrEnum):
    """What the last holder said last."""

    HELD = "held"
    # Given back with nothing under way, and given back with requests that may still be executed.
    RELEASED = "released"
    LEFT = "left"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRow:
    """What is written of an account. `token` rises with each holder, `beat` with each renewal."""

    token: int
    beat: int
    state: LeaseState
    holder: Holder


@dataclass(frozen=True, slots=True)
class Take:
    """Take the lease if it still is as it was seen; trade once `quiet_seconds` have passed since."""

    quiet_seconds: float


@dataclass(frozen=True, slots=True)
class Wait:
    """Somebody else may trade. `is_alive` says that they renewed while we looked; `silent_seconds` for how long not."""

    holder: Holder
    is_alive: bool
    silent_seconds: float


class Contender:
    """
    Judges from what it sees of a lease whether it may be taken; pure, as times are arguments.

    A holder counts its lease from before a renewal was written, a contender from after it was read: whatever the two
    clocks say, the one that waits for a whole lease without a renewal waits longer. All times are seconds on the
    contender's own clock, one that runs on while the machine sleeps.
    """

    def __init__(self, terms: LeaseTerms, me: Holder) -> None:
        self._terms = terms
        self._me = me
        self._seen: tuple[int, int] | None = None
        self._since = 0.0
        self._has_moved = False

    def judge(self, row: LeaseRow | None, *, now: float, is_dead: bool = False) -> Take | Wait:
        """
        Return what to do about a row that had been read by `now`.

        `is_dead` says that the holder is provably gone: its machine is ours and runs no such process.
        """
        if row is None:
            return Take(0.0)
        # What a dead or leaving process of our own home sent is in our journal, and is asked for.
        knows_all = self._me.shares_journal_with(row.holder)
        quiet_seconds = 0.0 if knows_all else self._terms.quiet_seconds
        if row.state is LeaseState.RELEASED:
            return Take(0.0)
        if row.state is LeaseState.LEFT or is_dead:
            return Take(quiet_seconds)

        if (row.token, row.beat) != self._seen:
            self._has_moved = self._seen is not None
            self._seen, self._since = (row.token, row.beat), now
        silent_seconds = now - self._since
        # Of our own home it holds the journal as well, which cannot be taken from a process that lives.
        if silent_seconds >= self._terms.seconds and not knows_all:
            return Take(self._terms.quiet_seconds)
        return Wait(row.holder, is_alive=self._has_moved, silent_seconds=silent_seconds)


@dataclass(frozen=True, slots=True)
class Tenure:
    """One holder's time: it may send from `begins` on, and before `ends`, on its own clock."""

    token: int
    begins: float
    ends: float

    @classmethod
    def taken(cls, terms: LeaseTerms, token: int, *, asked: float, taken: float, quiet_seconds: float) -> Tenure:
        """Return the tenure of a lease that was asked for and had been given by `taken`."""
        return cls(token, taken + quiet_seconds, asked + terms.seconds)

    def renewed(self, terms: LeaseTerms, *, asked: float) -> Tenure:
        """Return the tenure after a renewal that was asked for at a time, and given."""
        return Tenure(self.token, self.begins, max(self.ends, asked + terms.seconds))

    def doubted(self) -> Tenure:
        """Return the tenure that only a renewal makes good again."""
        return Tenure(self.token, self.begins, float("-inf"))

    def may_send(self, now: float) -> bool:
        """Whether a request that has been stamped by `now` may go to the venue."""
        return self.begins <= now < self.ends
