"""Which events a consumer has handled, remembered on its disk: at least once on the bus is once here."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from feature_store.clock import utc_now_ms
from inference.bus.port import BusError

_TABLE = """
CREATE TABLE IF NOT EXISTS handled (
    name TEXT NOT NULL, event_id TEXT NOT NULL, handled_ms INTEGER NOT NULL, PRIMARY KEY (name, event_id)
) WITHOUT ROWID
"""
_BUSY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Once:
    """One event's turn: whether it `is_new`, and the connection on which its effect may be written."""

    is_new: bool
    connection: sqlite3.Connection


class HandledEvents:
    """
    Remembers by group which events were handled; several consumers of a group share the file.

    What a handler writes on the connection that `once` gives it is kept together with the event's id, or neither is:
    such an effect happens exactly once. Effects elsewhere happen at least once, as a crash between effect and memory
    repeats them.
    """

    def __init__(self, path: Path, *, now_ms: Callable[[], int] = utc_now_ms) -> None:
        """
        Open the file, or make it.

        Raises:
            BusError: It cannot be opened.
        """
        self.path = path
        self._now_ms = now_ms
        self._lock = threading.RLock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("PRAGMA journal_mode = WAL")
            # What is acknowledged on the bus afterwards is not delivered again: it has to be on the disk.
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute(_TABLE)
        except (sqlite3.Error, OSError) as error:
            raise self._failed(error) from error

    @contextmanager
    def once(self, group: str, event_id: str) -> Iterator[Once]:
        """
        Handle an event within the block, if it is new; it counts as handled once the block ends without an error.

        Raises:
            BusError: What was handled cannot be read or written; the event is not handled.
        """
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                found = self._connection.execute(
                    "SELECT 1 FROM handled WHERE name = ? AND event_id = ?", (group, event_id)
                ).fetchone()
            except sqlite3.Error as error:
                raise self._failed(error) from error
            try:
                yield Once(found is None, self._connection)
                if found is None:
                    self._connection.execute("INSERT INTO handled VALUES (?, ?, ?)", (group, event_id, self._now_ms()))
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                self._rollback()
                raise self._failed(error) from error
            except BaseException:
                self._rollback()
                raise

    def has(self, group: str, event_id: str) -> bool:
        """Whether an event was handled."""
        with self._lock:
            query = "SELECT 1 FROM handled WHERE name = ? AND event_id = ?"
            return self._connection.execute(query, (group, event_id)).fetchone() is not None

    def forget(self, *, older_than_seconds: float) -> int:
        """Forget what was handled so long ago that no bus will deliver it again; return how many events that were."""
        before = self._now_ms() - int(older_than_seconds * 1000)
        with self._lock:
            return self._connection.execute("DELETE FROM handled WHERE handled_ms < ?", (before,)).rowcount

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._connection.close()

    def _rollback(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _failed(self, error: Exception) -> BusError:
        return BusError(f"What was handled cannot be read or written in {self.path}: {error}; check the disk")
