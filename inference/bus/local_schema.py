"""The tables of the local bus, and the few questions that are asked of them in more than one place."""

from __future__ import annotations

SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    offset INTEGER PRIMARY KEY AUTOINCREMENT, event_id TEXT NOT NULL UNIQUE, event_type TEXT NOT NULL,
    timestamp_ms INTEGER NOT NULL, published_ms INTEGER NOT NULL, envelope BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS cursors (
    journal TEXT PRIMARY KEY, seq INTEGER NOT NULL, digest TEXT NOT NULL, place INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS groups (
    name TEXT PRIMARY KEY, patterns TEXT NOT NULL, max_deliveries INTEGER NOT NULL, position INTEGER NOT NULL,
    delivered INTEGER NOT NULL DEFAULT 0, acknowledged INTEGER NOT NULL DEFAULT 0, dropped INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS pending (
    handle INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, offset INTEGER NOT NULL, event_id TEXT NOT NULL,
    consumer TEXT NOT NULL, deliveries INTEGER NOT NULL, delivered_ms INTEGER NOT NULL, reason TEXT NOT NULL,
    envelope BLOB, UNIQUE (name, event_id)
);
CREATE TABLE IF NOT EXISTS dead (
    name TEXT NOT NULL, event_id TEXT NOT NULL, offset INTEGER NOT NULL, deliveries INTEGER NOT NULL,
    reason TEXT NOT NULL, died_ms INTEGER NOT NULL, envelope BLOB NOT NULL, PRIMARY KEY (name, event_id)
);
"""
# A dead letter that is delivered again has its envelope with it, as the log may have let go of it: `consumer` is empty
# until somebody fetches it.
PENDING = """
SELECT pending.handle, pending.offset, pending.consumer, pending.deliveries, pending.reason,
       coalesce(pending.envelope, events.envelope) AS envelope
FROM pending LEFT JOIN events ON events.offset = pending.offset
"""
BURY = """
INSERT OR REPLACE INTO dead (name, event_id, offset, deliveries, reason, died_ms, envelope)
SELECT pending.name, pending.event_id, pending.offset, pending.deliveries, ?, ?,
       coalesce(pending.envelope, events.envelope)
FROM pending LEFT JOIN events ON events.offset = pending.offset
WHERE pending.handle = ? AND coalesce(pending.envelope, events.envelope) IS NOT NULL
"""
STATS = """
SELECT name, patterns, position, delivered, acknowledged, dropped,
       (SELECT count(*) FROM pending WHERE pending.name = groups.name) AS pending,
       (SELECT count(*) FROM dead WHERE dead.name = groups.name) AS dead
FROM groups ORDER BY name
"""
# What a group was given and has not acknowledged, and what it has not read yet; where retention must stop for it.
NEEDED_FROM = """
SELECT min(place) FROM (
    SELECT position AS place FROM groups UNION ALL SELECT offset FROM pending WHERE envelope IS NULL
)
"""


def meant(patterns: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """Return the condition that an event's type is one that checked patterns mean, with what it binds."""
    return "(" + " OR ".join(["event_type GLOB ?"] * len(patterns)) + ")", patterns
