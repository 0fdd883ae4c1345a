"""One event as it travels: who said what, when, and in the course of which trade."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from feature_store.errors import BadInputError
from feature_store.json_text import UNREADABLE

LONGEST_BYTES = 2**20
"""Above this an event is refused: a bus carries news, and what is fat lies in the journal."""
_TYPE = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)+")
_PATTERN = re.compile(r"[a-z0-9_.*]+")
_NAMESPACE = uuid.UUID("5f0f5a4e-0c0b-5c58-9d53-8f6f1a0b7c11")


class EventError(BadInputError):
    """An event, a pattern or a name cannot be used on the bus; the message says what it must look like."""


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """
    An event with what consumers need to know before they read its data.

    `event_id` is a UUID that is the same however often the event is told; whoever remembers it handles each event
    once. `timestamp` is ISO-8601 in UTC with milliseconds, of the venue's clock. `trace_id` is that of the signal or
    trade, empty where there is none. `journal` and `journal_seq` name the journal and its entry that it was made from.
    """

    event_id: str
    event_type: str
    timestamp: str
    trace_id: str
    source: str
    data: Mapping[str, Any]
    journal: str = ""
    journal_seq: int = 0

    @property
    def timestamp_ms(self) -> int:
        """When it happened, in UTC milliseconds."""
        return milliseconds(self.timestamp)


def event_id_of(digest: str, event_type: str, number: int) -> str:
    """Return the UUID of the event of a type, the so manieth, that follows from the journal entry with a digest."""
    return str(uuid.uuid5(_NAMESPACE, f"{digest}:{event_type}:{number}"))


def encode(envelope: Envelope) -> bytes:
    """
    Return an event as JSON.

    Raises:
        EventError: It is not well formed, or longer than `LONGEST_BYTES`.
    """
    check(envelope)
    try:
        text = msgspec.json.encode(envelope, order="sorted")
    except (TypeError, ValueError, OverflowError) as error:
        raise EventError(f"Event {envelope.event_type} holds what JSON cannot: {error}") from error
    if len(text) > LONGEST_BYTES:
        raise EventError(
            f"Event {envelope.event_type} is {len(text)} bytes long, at most {LONGEST_BYTES} are carried;"
            " name the journal's entry instead of repeating it"
        )
    return text


def decode(text: bytes) -> Envelope:
    """
    Return the event that some JSON holds.

    Raises:
        EventError: It is none.
    """
    try:
        envelope = msgspec.json.decode(text, type=Envelope)
    except UNREADABLE as error:
        raise EventError(f"Expected an event, found {text[:80]!r}: {error}") from error
    check(envelope)
    return envelope


def check(envelope: Envelope) -> None:
    """
    Refuse an event that consumers could not rely on.

    Raises:
        EventError: A field is not what it must be.
    """
    try:
        is_known = str(uuid.UUID(envelope.event_id)) == envelope.event_id
    except ValueError:
        is_known = False
    if not is_known:
        raise EventError(f"An event's event_id must be a UUID in lower case, was {envelope.event_id[:60]!r}")
    if not _TYPE.fullmatch(envelope.event_type):
        raise EventError(f"An event_type must look like trade.closed, was {envelope.event_type[:60]!r}")
    milliseconds(envelope.timestamp)


def iso(time_ms: int) -> str:
    """
    Return UTC milliseconds as ISO-8601, such as 2025-12-17T10:30:00.123Z.

    Raises:
        EventError: No calendar holds that moment.
    """
    try:
        moment = datetime.fromtimestamp(time_ms // 1000, tz=UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise EventError(f"{time_ms} is no moment in UTC milliseconds") from error
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{time_ms % 1000:03d}Z"


def milliseconds(timestamp: str) -> int:
    """
    Return the UTC milliseconds of an ISO-8601 moment; one without a zone counts as UTC.

    Raises:
        EventError: It is none.
    """
    try:
        moment = datetime.fromisoformat(timestamp)
    except ValueError:
        raise EventError(f"A timestamp must look like 2025-12-17T10:30:00.123Z, was {timestamp[:60]!r}") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * 1000 + delta.microseconds // 1000


def checked_patterns(patterns: tuple[str, ...]) -> tuple[str, ...]:
    """
    Return patterns of event types as they may be subscribed to: `*`, `trade.*`, `*.closed`, `risk.entry_denied`.

    Raises:
        EventError: There is none, or one holds something else.
    """
    if not patterns:
        raise EventError("Subscribe to at least one pattern of event types, for example trade.*, or * for all")
    for pattern in patterns:
        if not _PATTERN.fullmatch(pattern):
            raise EventError(
                f"A pattern of event types holds lower-case letters, digits, _ . and *, was {pattern[:60]!r};"
                " for example trade.* or risk.entry_denied"
            )
    return tuple(dict.fromkeys(patterns))


def matches(patterns: tuple[str, ...], event_type: str) -> bool:
    """Whether a type is one that the patterns mean; `*` stands for any characters."""
    return any(_means(pattern, event_type) for pattern in patterns)


def _means(pattern: str, event_type: str) -> bool:
    first, *rest = pattern.split("*")
    if not rest:
        return pattern == event_type
    *middle, last = rest
    if not event_type.startswith(first) or len(first) + len(last) > len(event_type) or not event_type.endswith(last):
        return False
    # Leftmost matches are enough, as with any wildcard of this one kind; no pattern costs more than its length.
    place, end = len(first), len(event_type) - len(last)
    for part in middle:
        found = event_type.find(part, place, end)
        if found < 0:
            return False
        place = found + len(part)
    return True
