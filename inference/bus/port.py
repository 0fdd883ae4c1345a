"""What is asked of an event bus, whichever there is behind it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from feature_store.errors import QuantumError
from inference.bus.envelope import Envelope, EventError

OLDEST, NEWEST = "oldest", "newest"
"""Where a new group begins: at the oldest event that is kept, or after the newest."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class BusError(QuantumError):
    """The bus cannot be reached, read or written; what was asked may or may not have been done."""


class UnknownGroupError(BusError):
    """There is no such group: it never subscribed, or the bus lost what it held."""


class CursorMovedError(BusError):
    """Somebody else, or an earlier try of ours, has published further; `found` says how far."""

    def __init__(self, found: Cursor | None) -> None:
        super().__init__("The bus has taken in another part of the journal meanwhile; read on from its cursor")
        self.found = found


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """How far a journal is published: its entry's number and digest, and the byte at which that entry begins."""

    journal: str
    seq: int
    digest: str
    place: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """An event in the log of the bus. Offsets are whole numbers that grow by one."""

    offset: int
    envelope: Envelope


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """
    An event handed to a consumer, for the so manieth time; it stays the group's until it is acknowledged.

    `handle` is what the bus knows this delivery by. `reason` says why it failed last, where it did.
    """

    group: str
    consumer: str
    offset: int
    envelope: Envelope
    deliveries: int
    handle: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """An event that a group has given up after so many deliveries; kept until somebody has it delivered again."""

    group: str
    offset: int
    envelope: Envelope
    deliveries: int
    reason: str
    died_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """What a group hears, where it begins if it is new, and after how many deliveries an event is a dead letter."""

    patterns: tuple[str, ...] = ("*",)
    start: str | int = NEWEST
    max_deliveries: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """
    What is kept: so many events, no older than so many seconds on the bus, and beyond that what a group still needs.

    A group that never comes back would keep everything: of what it needs, `needed_events` are kept at most; what it
    loses then is counted as dropped. The journal still has it.
    """

    events: int = 100_000
    age_seconds: float = 7 * 86_400.0
    needed_events: int = 400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupStats:
    """
    What became of a group's events; the counts are since it subscribed.

    `position` is the offset that it reads next, `pending` what was delivered and not acknowledged, `dead` what it has
    given up and nobody has delivered again, `dropped` what retention took from it.
    """

    patterns: tuple[str, ...]
    position: int
    delivered: int
    acknowledged: int
    pending: int
    dead: int
    dropped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BusStats:
    """How many events were ever published, how many are kept, the offsets of the oldest and newest, and the groups."""

    published: int
    kept: int
    first_offset: int
    last_offset: int
    groups: dict[str, GroupStats]


class EventBus(Protocol):
    """
    A log of events with groups of consumers. Every method may block, and raises `BusError` where the bus is not there.

    Each event goes to each group whose patterns mean it, to one consumer of the group, at least once: until somebody
    acknowledges it, it is pending, survives its consumer, and can be claimed by another.
    """

    def publish(self, events: Sequence[Envelope], *, moved: tuple[Cursor | None, Cursor] | None = None) -> int:
        """
        Append events whose ids are not in the log yet, all or none; return how many were.

        `moved` is the cursor of a journal as it is believed to be, and as it is afterwards, in the same step.

        Raises:
            CursorMovedError: The cursor is another; nothing was appended.
        """
        ...

    def cursor(self, journal: str) -> Cursor | None:
        """Return how far a journal is published, or None where the bus knows nothing of it."""
        ...

    def subscribe(self, group: str, subscription: Subscription) -> None:
        """Make a group, or give one that exists other patterns; what it had not read yet stays unread."""
        ...

    def fetch(self, group: str, consumer: str, *, limit: int = 100, wait_seconds: float = 0.0) -> list[Delivery]:
        """
        Hand out events that nobody of the group was given yet, in order, waiting so long for the first.

        Raises:
            UnknownGroupError: Nobody subscribed the group.
        """
        ...

    def resume(self, group: str, consumer: str, *, limit: int = 1000) -> list[Delivery]:
        """Hand out again, in order, what this very consumer was given and did not acknowledge: it was restarted."""
        ...

    def reclaim(self, group: str, consumer: str, *, idle_seconds: float, limit: int = 100) -> list[Delivery]:
        """Take over what some consumer, or this one, was given so long ago and did not acknowledge."""
        ...

    def acknowledge(self, deliveries: Sequence[Delivery]) -> int:
        """Take note that events were handled; return how many were still pending."""
        ...

    def fail(self, delivery: Delivery, reason: str) -> bool:
        """Take note that an event could not be handled: it stays pending, or is a dead letter from now on (True)."""
        ...

    def dead_letters(self, group: str | None = None, *, limit: int = 1000) -> list[DeadLetter]:
        """Return what was given up, by one group or by all, oldest first."""
        ...

    def requeue(self, group: str, event_ids: Sequence[str] | None = None) -> int:
        """Have dead letters delivered to their group again, all or those named; return how many."""
        ...

    def rewind(self, group: str, offset: int) -> None:
        """Let a group read on from an offset, whatever it has read."""
        ...

    def replay(self, patterns: tuple[str, ...] = ("*",), *, from_offset: int = 0, from_ms: int = 0) -> Iterator[Stored]:
        """Yield what is kept, in order, from an offset on and of a time (UTC ms) or later; nobody's position moves."""
        ...

    def newest(self, patterns: tuple[str, ...] = ("*",), *, limit: int = 20) -> list[Stored]:
        """Return the newest events that the patterns mean, in order."""
        ...

    def trim(self, retention: Retention) -> int:
        """Take away what need not be kept; return how many events that were."""
        ...

    def stats(self) -> BusStats:
        """Count."""
        ...

    def close(self) -> None:
        """Let go of connections; a later call opens them anew."""
        ...


def checked_name(what: str, name: str) -> str:
    """
    Return the name of a group or a consumer.

    Raises:
        EventError: It could be mistaken for something else.
    """
    if not _NAME.fullmatch(name):
        raise EventError(
            f"The name of a {what} holds 1 to 64 letters, digits, _ . and -, and begins with a letter or digit,"
            f" was {name[:80]!r}"
        )
    return name


def checked(subscription: Subscription) -> Subscription:
    """
    Return a subscription that a bus can keep.

    Raises:
        EventError: A number or a word in it means nothing.
    """
    start = subscription.start
    if not (start in (OLDEST, NEWEST) or (isinstance(start, int) and start >= 0)):
        raise EventError(f"A group begins at {OLDEST}, {NEWEST} or an offset, was {start!r}")
    if subscription.max_deliveries < 1:
        raise EventError(f"An event is delivered at least once, max_deliveries was {subscription.max_deliveries}")
    return subscription
