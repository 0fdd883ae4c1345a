"""What whoever supervises asks for, as rows: each act with who did it, to what, and why, under its journal's digest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inference.domain.supervised import SECTION_OF
from inference.journal.codec import Entry
from inference.storage.records import Row

# The words by which types of events name the same; the first that is there counts.
_ACTOR = ("author", "by")
_SUBJECT = ("version", "key", "stops", "trade_id", "limit", "client_order_id", "symbol", "file", "backup", "seq")
_REASON = ("reason", "reasons", "why", "because", "found")


def audit_row(entry: Entry, detail: Mapping[str, Any]) -> Row | None:
    """Return the row of an entry, None where nobody who supervises asks for its type."""
    section = SECTION_OF.get(entry.type)
    if section is None:
        return None
    return {
        "seq": entry.seq,
        "section": section,
        "event_type": entry.type,
        "actor": _first(detail, _ACTOR),
        "subject": _first(detail, _SUBJECT),
        "reason": _first(detail, _REASON),
        "digest": entry.digest,
        "detail": detail,
        "happened_at": entry.timestamp_ms,
    }


def _first(detail: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    return next((str(detail[name]) for name in names if detail.get(name) not in (None, "")), None)
