"""Events and entries as canonical JSON: one text per value, and the same value back."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import msgspec
from msgspec import UNSET

from feature_store.json_text import UNREADABLE
from inference.domain.errors import JournalError
from inference.domain.events import (
    AccountMarked,
    CandlesDecided,
    Event,
    ExitObserved,
    ExitRequested,
    FeaturesUsed,
    FillBooked,
    Noted,
    OrderFoundAbsent,
    OrderIntended,
    OrderRefused,
    OrderReported,
    PositionFoundChanged,
    SignalExplained,
    TradeClosed,
    TradePlanned,
)
from inference.domain.shadow import ShadowScored

# What the first entry names as its predecessor.
GENESIS = "0" * 64

_KNOWN: dict[str, type[Any]] = {
    event.event_type: event
    for event in (
        AccountMarked,
        CandlesDecided,
        ExitObserved,
        ExitRequested,
        FeaturesUsed,
        FillBooked,
        OrderFoundAbsent,
        OrderIntended,
        OrderRefused,
        OrderReported,
        PositionFoundChanged,
        ShadowScored,
        SignalExplained,
        TradeClosed,
        TradePlanned,
    )
}


def is_typed(event_type: str) -> bool:
    """Whether this version knows a type of event by its fields; any other is a note of words."""
    return event_type in _KNOWN


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """
    One line of the journal. `digest` covers everything else, the predecessor's digest included.

    The event's data stays the text that was written until it is asked for: most readers pass most entries by.
    """

    seq: int
    type: str
    timestamp_ms: int
    trace_id: str
    text: msgspec.Raw = msgspec.field(name="data")
    previous: str
    digest: str

    @property
    def data(self) -> Mapping[str, Any]:
        """The event's data as plain JSON values."""
        data: dict[str, Any] = msgspec.json.decode(self.text)
        return data


def canonical(value: object) -> bytes:
    """Return the one JSON text of a value: keys sorted, no spaces, decimals as text."""
    return msgspec.json.encode(value, order="sorted")


def event_data(event: Event) -> bytes:
    """Return an event's data as canonical JSON."""
    if isinstance(event, Noted):
        return canonical(dict(event.detail))
    if isinstance(event, CandlesDecided):
        # Rules that came later are stated where they say something: entries of before keep their text.
        parts = {one.name: getattr(event, one.name) for one in fields(event)}
        parts["policy"] = event.policy.stated()
        return canonical({name: value for name, value in parts.items() if value is not UNSET})
    return canonical(event)


def event_of(entry: Entry) -> Event:
    """
    Return the event that an entry holds.

    Raises:
        JournalError: The entry's data does not fit its type.
    """
    known = _KNOWN.get(entry.type)
    try:
        if known is None:
            return Noted(event_type=entry.type, detail=msgspec.json.decode(entry.text, type=dict[str, str]))
        event: Event = msgspec.json.decode(entry.text, type=known)
    except UNREADABLE as error:
        raise JournalError(
            f"Journal entry {entry.seq} ({entry.type}) does not fit its type: {error}; "
            "it was written by another version, run `qtctl audit verify` to see whether the chain is whole"
        ) from error
    return event


def chained(event: Event, *, seq: int, timestamp_ms: int, trace_id: str, previous: str) -> Entry:
    """Return the entry that continues the chain with `event`."""
    open_end = Entry(
        seq=seq,
        type=event.event_type,
        timestamp_ms=timestamp_ms,
        trace_id=trace_id,
        text=msgspec.Raw(event_data(event)),
        previous=previous,
        digest="",
    )
    return msgspec.structs.replace(open_end, digest=expected_digest(open_end))


def expected_digest(entry: Entry) -> str:
    """Return the digest that an unchanged entry carries: SHA-256 over its line with an empty digest."""
    return hashlib.sha256(canonical(msgspec.structs.replace(entry, digest=""))).hexdigest()


def line_of(entry: Entry) -> bytes:
    """Return an entry as one line, newline included."""
    return canonical(entry) + b"\n"


def entry_of(line: bytes) -> Entry:
    """
    Return the entry on one line.

    Raises:
        JournalError: The line is not an entry in canonical form.
    """
    try:
        entry = msgspec.json.decode(line, type=Entry)
    except UNREADABLE as error:
        raise JournalError(f"Expected a journal entry, found {line[:80]!r}: {error}") from error
    if line_of(entry) != (line if line.endswith(b"\n") else line + b"\n"):
        raise JournalError(f"Journal entry {entry.seq} is not in canonical form: its text was edited")
    return entry
