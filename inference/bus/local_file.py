"""The file of the local bus: opened when it is needed, and again when it was taken away or failed."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inference.bus.local_schema import SCHEMA
from inference.bus.port import BusError

_BUSY_SECONDS = 5.0


class LocalFile:
    """One connection, used by one thread at a time; each transaction is alone among those of all processes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._file = (0, 0)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """
        Do all of a block, or nothing.

        Raises:
            BusError: The file cannot be opened, read or written.
        """
        with self._lock:
            try:
                connection = self._opened()
                # The lock for writing at once: two that read first could both believe what they read.
                connection.execute("BEGIN IMMEDIATE")
            except (sqlite3.Error, OSError) as error:
                self.close()
                raise self._failed(error) from error
            try:
                yield connection
                connection.execute("COMMIT")
            except (sqlite3.Error, OSError) as error:
                self.close()
                raise self._failed(error) from error
            except BaseException:
                connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Let go of the file; the next transaction opens it again."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def _opened(self) -> sqlite3.Connection:
        if self._connection is not None and self._file == _identity(self.path):
            return self._connection
        # The first call, or somebody took the file away or put another in its place.
        self.close()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(
            self.path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=64
        )
        try:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA journal_mode = WAL")
            # A power cut may take the newest commits, cursor and events together: they are published again.
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.executescript(SCHEMA)
        except BaseException:
            connection.close()
            raise
        self._connection, self._file = connection, _identity(self.path)
        return connection

    def _failed(self, error: Exception) -> BusError:
        return BusError(
            f"The event bus {self.path} cannot be read or written: {error}; free disk space, or move a damaged file"
            " away: it is filled again from the journal"
        )


def _identity(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return found.st_dev, found.st_ino
