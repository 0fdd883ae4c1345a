"""The bus of one machine: a SQLite file that several processes share."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from feature_store.clock import monotonic, utc_now_ms
from inference.bus.envelope import Envelope, checked_patterns, decode, encode
from inference.bus.local_file import LocalFile
from inference.bus.local_schema import BURY, NEEDED_FROM, PENDING, STATS, meant
from inference.bus.port import (
    NEWEST,
    OLDEST,
    BusStats,
    Cursor,
    CursorMovedError,
    DeadLetter,
    Delivery,
    GroupStats,
    Retention,
    Stored,
    Subscription,
    UnknownGroupError,
    checked,
    checked_name,
)

_LOOKS_SECONDS = 0.05
_PAGE = 500


class LocalBus:
    """
    See `EventBus`; every method is one transaction, for which other processes wait.

    `now_ms` is a wall clock in UTC milliseconds, which decides how long ago something was delivered.
    """

    def __init__(self, path: Path, *, now_ms: Callable[[], int] = utc_now_ms) -> None:
        self.path = path
        self._now_ms = now_ms
        self._file = LocalFile(path)
        self._transaction = self._file.transaction

    def publish(self, events: Sequence[Envelope], *, moved: tuple[Cursor | None, Cursor] | None = None) -> int:
        """See `EventBus`."""
        rows = [(one.event_id, one.event_type, one.timestamp_ms, encode(one)) for one in events]
        with self._transaction() as connection:
            if moved is not None:
                believed, after = moved
                found = _cursor(connection, after.journal)
                if found != believed:
                    raise CursorMovedError(found)
                connection.execute(
                    "INSERT OR REPLACE INTO cursors VALUES (?, ?, ?, ?)",
                    (after.journal, after.seq, after.digest, after.place),
                )
            before = connection.total_changes
            now_ms = self._now_ms()
            connection.executemany(
                # A conflict would use an offset up.
                "INSERT INTO events (event_id, event_type, timestamp_ms, published_ms, envelope)"
                " SELECT ?1, ?2, ?3, ?4, ?5 WHERE NOT EXISTS (SELECT 1 FROM events WHERE event_id = ?1)",
                [(key, kind, time_ms, now_ms, text) for key, kind, time_ms, text in rows],
            )
            return connection.total_changes - before

    def cursor(self, journal: str) -> Cursor | None:
        """See `EventBus`."""
        with self._transaction() as connection:
            return _cursor(connection, journal)

    def subscribe(self, group: str, subscription: Subscription) -> None:
        """See `EventBus`."""
        checked_name("group", group)
        wanted = checked(subscription)
        patterns = json.dumps(checked_patterns(wanted.patterns))
        with self._transaction() as connection:
            first, last = _ends(connection)
            position = {OLDEST: first, NEWEST: last + 1}.get(str(wanted.start), wanted.start)
            connection.execute(
                "INSERT INTO groups (name, patterns, max_deliveries, position) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (name) DO UPDATE SET patterns = excluded.patterns,"
                " max_deliveries = excluded.max_deliveries",
                (group, patterns, wanted.max_deliveries, position),
            )

    def fetch(self, group: str, consumer: str, *, limit: int = 100, wait_seconds: float = 0.0) -> list[Delivery]:
        """See `EventBus`."""
        checked_name("consumer", consumer)
        until = monotonic() + wait_seconds
        while True:
            with self._transaction() as connection:
                found = self._fetched(connection, group, consumer, limit)
            if found or monotonic() >= until:
                return found
            time.sleep(_LOOKS_SECONDS)

    def resume(self, group: str, consumer: str, *, limit: int = 1000) -> list[Delivery]:
        """See `EventBus`."""
        return self._again(group, consumer, "pending.consumer = ?", (consumer,), limit)

    def reclaim(self, group: str, consumer: str, *, idle_seconds: float, limit: int = 100) -> list[Delivery]:
        """See `EventBus`."""
        checked_name("consumer", consumer)
        before = self._now_ms() - int(idle_seconds * 1000)
        condition = "pending.consumer != '' AND pending.delivered_ms <= ?"
        return self._again(group, consumer, condition, (before,), limit)

    def acknowledge(self, deliveries: Sequence[Delivery]) -> int:
        """See `EventBus`."""
        done = 0
        with self._transaction() as connection:
            for one in deliveries:
                removed = connection.execute(
                    "DELETE FROM pending WHERE handle = ? AND name = ?", (int(one.handle), one.group)
                ).rowcount
                connection.execute(
                    "UPDATE groups SET acknowledged = acknowledged + ? WHERE name = ?", (removed, one.group)
                )
                done += removed
        return done

    def fail(self, delivery: Delivery, reason: str) -> bool:
        """See `EventBus`."""
        with self._transaction() as connection:
            handle = int(delivery.handle)
            most = self._group(connection, delivery.group)["max_deliveries"]
            row = connection.execute("SELECT deliveries FROM pending WHERE handle = ?", (handle,)).fetchone()
            if row is None:
                return False
            connection.execute("UPDATE pending SET reason = ? WHERE handle = ?", (reason[:1000], handle))
            if row["deliveries"] < most:
                return False
            self._bury(connection, handle, reason)
            return True

    def dead_letters(self, group: str | None = None, *, limit: int = 1000) -> list[DeadLetter]:
        """See `EventBus`."""
        with self._transaction() as connection:
            rows = connection.execute(
                "SELECT * FROM dead WHERE ? IS NULL OR name = ? ORDER BY died_ms, offset LIMIT ?", (group, group, limit)
            ).fetchall()
        return [
            DeadLetter(
                group=row["name"],
                offset=row["offset"],
                envelope=decode(row["envelope"]),
                deliveries=row["deliveries"],
                reason=row["reason"],
                died_ms=row["died_ms"],
            )
            for row in rows
        ]

    def requeue(self, group: str, event_ids: Sequence[str] | None = None) -> int:
        """See `EventBus`."""
        with self._transaction() as connection:
            self._group(connection, group)
            rows = connection.execute("SELECT * FROM dead WHERE name = ? ORDER BY offset", (group,)).fetchall()
            chosen = [row for row in rows if event_ids is None or row["event_id"] in event_ids]
            for row in chosen:
                connection.execute("DELETE FROM dead WHERE name = ? AND event_id = ?", (group, row["event_id"]))
                connection.execute(
                    "INSERT OR IGNORE INTO pending"
                    " (name, offset, event_id, consumer, deliveries, delivered_ms, reason, envelope)"
                    " VALUES (?, ?, ?, '', 0, 0, ?, ?)",
                    (group, row["offset"], row["event_id"], row["reason"], row["envelope"]),
                )
            return len(chosen)

    def rewind(self, group: str, offset: int) -> None:
        """See `EventBus`."""
        with self._transaction() as connection:
            self._group(connection, group)
            connection.execute("UPDATE groups SET position = ? WHERE name = ?", (max(0, offset), group))

    def replay(self, patterns: tuple[str, ...] = ("*",), *, from_offset: int = 0, from_ms: int = 0) -> Iterator[Stored]:
        """See `EventBus`."""
        condition, bound = meant(checked_patterns(patterns))
        place = from_offset
        while True:
            with self._transaction() as connection:
                rows = connection.execute(
                    f"SELECT offset, envelope FROM events WHERE offset >= ? AND timestamp_ms >= ? AND {condition}"  # noqa: S608 - the condition holds marks for what is bound and nothing else
                    " ORDER BY offset LIMIT ?",
                    (place, from_ms, *bound, _PAGE),
                ).fetchall()
            for row in rows:
                yield Stored(offset=row["offset"], envelope=decode(row["envelope"]))
            if len(rows) < _PAGE:
                return
            place = rows[-1]["offset"] + 1

    def newest(self, patterns: tuple[str, ...] = ("*",), *, limit: int = 20) -> list[Stored]:
        """See `EventBus`."""
        condition, bound = meant(checked_patterns(patterns))
        with self._transaction() as connection:
            rows = connection.execute(
                f"SELECT offset, envelope FROM events WHERE {condition} ORDER BY offset DESC LIMIT ?",  # noqa: S608 - as above
                (*bound, limit),
            ).fetchall()
        return [Stored(offset=row["offset"], envelope=decode(row["envelope"])) for row in reversed(rows)]

    def trim(self, retention: Retention) -> int:
        """See `EventBus`."""
        with self._transaction() as connection:
            _, last = _ends(connection)
            old = connection.execute(
                "SELECT max(offset) FROM events WHERE published_ms < ?",
                (self._now_ms() - int(retention.age_seconds * 1000),),
            ).fetchone()[0]
            keep = max(last - retention.events + 1, 0 if old is None else old + 1)
            needed = connection.execute(NEEDED_FROM).fetchone()[0]
            keep = max(keep if needed is None else min(keep, needed), last - retention.needed_events + 1)
            for group in connection.execute("SELECT name, patterns, position FROM groups").fetchall():
                self._drop(connection, group, keep)
            return connection.execute("DELETE FROM events WHERE offset < ?", (keep,)).rowcount

    def stats(self) -> BusStats:
        """See `EventBus`."""
        with self._transaction() as connection:
            first, last = _ends(connection)
            kept = connection.execute("SELECT count(*) FROM events").fetchone()[0]
            published = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
            groups = {
                row["name"]: GroupStats(
                    patterns=tuple(json.loads(row["patterns"])),
                    position=row["position"],
                    delivered=row["delivered"],
                    acknowledged=row["acknowledged"],
                    pending=row["pending"],
                    dead=row["dead"],
                    dropped=row["dropped"],
                )
                for row in connection.execute(STATS).fetchall()
            }
        return BusStats(
            published=0 if published is None else published[0],
            kept=kept,
            first_offset=first if kept else last + 1,
            last_offset=last,
            groups=groups,
        )

    def close(self) -> None:
        """See `EventBus`."""
        self._file.close()

    def _fetched(self, connection: sqlite3.Connection, group: str, consumer: str, limit: int) -> list[Delivery]:
        known = self._group(connection, group)
        now_ms = self._now_ms()
        found = self._hand_out(connection, group, consumer, "pending.consumer = ''", (), limit)
        condition, bound = meant(tuple(json.loads(known["patterns"])))
        rows = connection.execute(
            f"SELECT offset, event_id, envelope FROM events WHERE offset >= ? AND {condition} ORDER BY offset LIMIT ?",  # noqa: S608 - as above
            (known["position"], *bound, max(0, limit - len(found))),
        ).fetchall()
        for row in rows:
            # A group that was rewound may be given again what is still pending with it.
            handle = connection.execute(
                "INSERT INTO pending (name, offset, event_id, consumer, deliveries, delivered_ms, reason)"
                " VALUES (?, ?, ?, ?, 1, ?, '') ON CONFLICT (name, event_id) DO UPDATE SET"
                " consumer = excluded.consumer, deliveries = deliveries + 1, delivered_ms = excluded.delivered_ms"
                " RETURNING handle, deliveries",
                (group, row["offset"], row["event_id"], consumer, now_ms),
            ).fetchone()
            found.append(
                Delivery(
                    group=group,
                    consumer=consumer,
                    offset=row["offset"],
                    envelope=decode(row["envelope"]),
                    deliveries=handle["deliveries"],
                    handle=str(handle["handle"]),
                )
            )
        if rows:
            position = rows[-1]["offset"] + 1
        elif len(found) < limit:
            # Nothing more that is meant: what is there besides need not be looked at again.
            position = max(known["position"], _ends(connection)[1] + 1)
        else:
            position = known["position"]
        if rows or position != known["position"]:
            connection.execute(
                "UPDATE groups SET position = ?, delivered = delivered + ? WHERE name = ?", (position, len(rows), group)
            )
        return found

    def _again(
        self, group: str, consumer: str, condition: str, bound: tuple[object, ...], limit: int
    ) -> list[Delivery]:
        with self._transaction() as connection:
            most = self._group(connection, group)["max_deliveries"]
            worn = connection.execute(
                f"{PENDING} WHERE pending.name = ? AND {condition} AND pending.deliveries >= ?", (group, *bound, most)
            ).fetchall()
            for row in worn:
                reason = row["reason"] or f"consumer {row['consumer']} ended with it, or was silent for too long"
                self._bury(connection, row["handle"], reason)
            return self._hand_out(connection, group, consumer, condition, bound, limit)

    def _hand_out(
        self,
        connection: sqlite3.Connection,
        group: str,
        consumer: str,
        condition: str,
        bound: tuple[object, ...],
        limit: int,
    ) -> list[Delivery]:
        rows = connection.execute(
            f"{PENDING} WHERE pending.name = ? AND {condition} ORDER BY pending.offset LIMIT ?", (group, *bound, limit)
        ).fetchall()
        now_ms = self._now_ms()
        for row in rows:
            connection.execute(
                "UPDATE pending SET consumer = ?, deliveries = deliveries + 1, delivered_ms = ? WHERE handle = ?",
                (consumer, now_ms, row["handle"]),
            )
        connection.execute("UPDATE groups SET delivered = delivered + ? WHERE name = ?", (len(rows), group))
        return [
            Delivery(
                group=group,
                consumer=consumer,
                offset=row["offset"],
                envelope=decode(row["envelope"]),
                deliveries=row["deliveries"] + 1,
                handle=str(row["handle"]),
                reason=row["reason"],
            )
            for row in rows
        ]

    def _bury(self, connection: sqlite3.Connection, handle: int, reason: str) -> None:
        connection.execute(BURY, (reason[:1000], self._now_ms(), handle))
        connection.execute("DELETE FROM pending WHERE handle = ?", (handle,))

    def _drop(self, connection: sqlite3.Connection, group: sqlite3.Row, keep: int) -> None:
        condition, bound = meant(tuple(json.loads(group["patterns"])))
        unread = connection.execute(
            f"SELECT count(*) FROM events WHERE offset >= ? AND offset < ? AND {condition}",  # noqa: S608 - as above
            (group["position"], keep, *bound),
        ).fetchone()[0]
        pending = connection.execute(
            "DELETE FROM pending WHERE name = ? AND envelope IS NULL AND offset < ?", (group["name"], keep)
        ).rowcount
        connection.execute(
            "UPDATE groups SET dropped = dropped + ?, position = max(position, ?) WHERE name = ?",
            (unread + pending, keep, group["name"]),
        )

    def _group(self, connection: sqlite3.Connection, group: str) -> sqlite3.Row:
        row: sqlite3.Row | None = connection.execute("SELECT * FROM groups WHERE name = ?", (group,)).fetchone()
        if row is None:
            raise UnknownGroupError(f"The bus {self.path} knows no group {group!r}; subscribe it first")
        return row


def _cursor(connection: sqlite3.Connection, journal: str) -> Cursor | None:
    row = connection.execute("SELECT * FROM cursors WHERE journal = ?", (journal,)).fetchone()
    return None if row is None else Cursor(**dict(row))


def _ends(connection: sqlite3.Connection) -> tuple[int, int]:
    """Return the oldest offset that is kept, and the newest that there ever was."""
    first = connection.execute("SELECT min(offset) FROM events").fetchone()[0]
    last = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
    newest = 0 if last is None else last[0]
    return (newest + 1 if first is None else first), newest
