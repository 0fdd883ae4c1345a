"""Leases in a SQLite file: for workers of one machine."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from inference.execution.lease import Holder, LeaseRow, LeaseState
from inference.leases.store import LeaseStoreError, holder_text, row_of

_BUSY_SECONDS = 2.0
_TABLE = """
CREATE TABLE IF NOT EXISTS lease (
    account TEXT PRIMARY KEY, token INTEGER NOT NULL, beat INTEGER NOT NULL, state TEXT NOT NULL, holder TEXT NOT NULL
)
"""


class SqliteLeases:
    """One file; SQLite's own lock makes each method one step."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, account: str) -> LeaseRow | None:
        """See `LeaseStore`."""
        with self._transaction() as connection:
            return _read(connection, account)

    def take(self, account: str, holder: Holder, seen: LeaseRow | None) -> int | None:
        """See `LeaseStore`."""
        with self._transaction() as connection:
            row = _read(connection, account)
            if row != seen:
                return None
            token = 1 if row is None else row.token + 1
            connection.execute(
                "INSERT INTO lease VALUES (?, ?, 0, ?, ?) ON CONFLICT (account) DO UPDATE SET"
                " token = excluded.token, beat = 0, state = excluded.state, holder = excluded.holder",
                (account, token, LeaseState.HELD.value, holder_text(holder)),
            )
            return token

    def renew(self, account: str, token: int) -> bool:
        """See `LeaseStore`."""
        with self._transaction() as connection:
            done = connection.execute(
                "UPDATE lease SET beat = beat + 1 WHERE account = ? AND token = ? AND state = ?",
                (account, token, LeaseState.HELD.value),
            )
            return done.rowcount == 1

    def release(self, account: str, token: int, state: LeaseState) -> None:
        """See `LeaseStore`."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE lease SET state = ? WHERE account = ? AND token = ? AND state = ?",
                (state.value, account, token, LeaseState.HELD.value),
            )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None)) as connection:
                # The lock for writing at once: two that read first could both believe what they read.
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(_TABLE)
                yield connection
                connection.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            raise LeaseStoreError(f"The leases in {self.path} cannot be read or written: {error}") from error


def _read(connection: sqlite3.Connection, account: str) -> LeaseRow | None:
    found = connection.execute("SELECT token, beat, state, holder FROM lease WHERE account = ?", (account,)).fetchone()
    return None if found is None else row_of(*found)
