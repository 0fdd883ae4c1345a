"""Leases in PostgreSQL: for workers of several machines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from inference.domain.errors import SettingsError
from inference.execution.lease import Holder, LeaseRow, LeaseState
from inference.leases.store import LeaseStoreError, holder_text, row_of

_PATIENCE_SECONDS = 3
_TABLE = """
CREATE TABLE IF NOT EXISTS qt_lease (
    account text PRIMARY KEY, token bigint NOT NULL, beat bigint NOT NULL, state text NOT NULL, holder text NOT NULL
)
"""


class PostgresLeases:
    """One table; a connection for each step, as there is one every few seconds and a kept one may be dead unnoticed."""

    def __init__(self, address: str) -> None:
        """
        Look for the library; nothing is asked of the server yet.

        Raises:
            SettingsError: The library is not installed.
        """
        try:
            import psycopg  # noqa: PLC0415 - an optional library
        except ImportError as error:
            raise SettingsError(
                "QT_LEASE_URL names PostgreSQL, whose library is not installed; pip install 'quantum-trader[postgres]'"
            ) from error
        self._psycopg = psycopg
        self._address = address
        self._has_table = False

    def read(self, account: str) -> LeaseRow | None:
        """See `LeaseStore`."""
        with self._transaction() as connection:
            return _read(connection, account)

    def take(self, account: str, holder: Holder, seen: LeaseRow | None) -> int | None:
        """See `LeaseStore`."""
        with self._transaction() as connection:
            given = (account, LeaseState.HELD.value, holder_text(holder))
            if seen is None:
                done = connection.execute(
                    "INSERT INTO qt_lease VALUES (%s, 1, 0, %s, %s) ON CONFLICT (account) DO NOTHING", given
                )
                return 1 if done.rowcount == 1 else None
            done = connection.execute(
                "UPDATE qt_lease SET token = token + 1, beat = 0, state = %s, holder = %s"
                " WHERE account = %s AND token = %s AND beat = %s AND state = %s",
                (given[1], given[2], account, seen.token, seen.beat, seen.state.value),
            )
            return seen.token + 1 if done.rowcount == 1 else None

    def renew(self, account: str, token: int) -> bool:
        """See `LeaseStore`."""
        with self._transaction() as connection:
            done = connection.execute(
                "UPDATE qt_lease SET beat = beat + 1 WHERE account = %s AND token = %s AND state = %s",
                (account, token, LeaseState.HELD.value),
            )
            return bool(done.rowcount == 1)

    def release(self, account: str, token: int, state: LeaseState) -> None:
        """See `LeaseStore`."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE qt_lease SET state = %s WHERE account = %s AND token = %s AND state = %s",
                (state.value, account, token, LeaseState.HELD.value),
            )

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        try:
            with self._psycopg.connect(
                self._address,
                connect_timeout=_PATIENCE_SECONDS,
                # A server that was cut off answers nothing, not even that it is gone.
                tcp_user_timeout=_PATIENCE_SECONDS * 1000,
                options=f"-c statement_timeout={_PATIENCE_SECONDS * 1000}",
            ) as connection:
                if not self._has_table:
                    connection.execute(_TABLE)
                yield connection
            self._has_table = True
        except self._psycopg.Error as error:
            # The address may carry a password: only what the server says is told.
            raise LeaseStoreError(f"The leases in PostgreSQL cannot be read or written: {error}") from error


def _read(connection: Any, account: str) -> LeaseRow | None:
    query = "SELECT token, beat, state, holder FROM qt_lease WHERE account = %s"
    found = connection.execute(query, (account,)).fetchone()
    return None if found is None else row_of(*found)
