"""Events and entries as canonical JSON: one text per value, and the same value back."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from inference.domain.errors import JournalError
from inference.domain.events import (
    AccountMarked,
    CandlesDecided,
    Event,
    ExitRequested,
    FillBooked,
    Noted,
    OrderFoundAbsent,
    OrderIntended,
    OrderRefused,
    OrderReported,
    PositionFoundChanged,
    TradeClosed,
    TradePlanned,
)

# What the first entry names as its predecessor.
GENESIS = "0" * 64

_KNOWN: dict[str, type[Any]] = {
    event.event_type: event
    for event in (
        AccountMarked,
        CandlesDecided,
        ExitRequested,
        FillBooked,
        OrderFoundAbsent,
        OrderIntended,
        OrderRefused,
        OrderReported,
        PositionFoundChanged,
        TradeClosed,
        TradePlanned,
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the journal. `digest` covers everything else, the predecessor's digest included."""

    seq: int
    type: str
    timestamp_ms: int
    trace_id: str
    data: Mapping[str, Any]
    previous: str
    digest: str


def canonical(value: object) -> bytes:
    """Return the one JSON text of a value: keys sorted, no spaces, decimals as text."""
    return msgspec.json.encode(value, order="sorted")


def event_data(event: Event) -> Mapping[str, Any]:
    """Return an event as plain JSON values."""
    if isinstance(event, Noted):
        return dict(event.detail)
    data: dict[str, Any] = msgspec.to_builtins(event)
    return data


def event_of(entry: Entry) -> Event:
    """
    Return the event that an entry holds.

    Raises:
        JournalError: The entry's data does not fit its type.
    """
    known = _KNOWN.get(entry.type)
    try:
        if known is None:
            return Noted(event_type=entry.type, detail=msgspec.convert(dict(entry.data), dict[str, str]))
        event: Event = msgspec.convert(dict(entry.data), known)
    except msgspec.ValidationError as error:
        raise JournalError(
            f"Journal entry {entry.seq} ({entry.type}) does not fit its type: {error}; "
            "it was written by another version, run `qtctl audit verify` to see whether the chain is whole"
        ) from error
    return event


def chained(event: Event, *, seq: int, timestamp_ms: int, trace_id: str, previous: str) -> Entry:
    """Return the entry that continues the chain with `event`."""
    body: dict[str, Any] = {
        "seq": seq,
        "type": event.event_type,
        "timestamp_ms": timestamp_ms,
        "trace_id": trace_id,
        "data": event_data(event),
        "previous": previous,
    }
    return Entry(**body, digest=_digest(body))


def expected_digest(entry: Entry) -> str:
    """Return the digest that an unchanged entry carries."""
    return _digest({name: getattr(entry, name) for name in Entry.__slots__ if name != "digest"})


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
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise JournalError(f"Expected a journal entry, found {line[:80]!r}: {error}") from error
    if line_of(entry) != (line if line.endswith(b"\n") else line + b"\n"):
        raise JournalError(f"Journal entry {entry.seq} is not in canonical form: its text was edited")
    return entry


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical(body)).hexdigest()
