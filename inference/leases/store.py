"""What is asked of the place where leases are kept, and which place an address names."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from feature_store.errors import QuantumError
from inference.domain.errors import SettingsError
from inference.execution.lease import Holder, LeaseRow, LeaseState


class LeaseStoreError(QuantumError):
    """Where leases are kept cannot be reached or read; who may trade is not known meanwhile."""


class LeaseStore(Protocol):
    """Leases by account; each method is one transaction, may block, and raises `LeaseStoreError` in doubt."""

    def read(self, account: str) -> LeaseRow | None:
        """Return what is written of an account."""
        ...

    def take(self, account: str, holder: Holder, seen: LeaseRow | None) -> int | None:
        """Take a lease that still is as it was seen; return its new token, or None where somebody was faster."""
        ...

    def renew(self, account: str, token: int) -> bool:
        """Renew; False means that the lease is another's now."""
        ...

    def release(self, account: str, token: int, state: LeaseState) -> None:
        """Give back what is still ours."""
        ...


def open_store(address: str | None, home: Path) -> LeaseStore:
    """
    Return the store that an address names; by default a SQLite file in the home folder.

    Raises:
        SettingsError: The address names no store that this install knows.
    """
    from inference.leases.sqlite_store import SqliteLeases  # noqa: PLC0415 - they import what is above

    if address is None:
        return SqliteLeases(home / "worker" / "lease.db")
    parts = urlsplit(address)
    if parts.scheme == "sqlite" and not parts.netloc and parts.path.startswith("/"):
        # As SQLAlchemy writes it: three slashes for a relative path, four for an absolute one.
        return SqliteLeases(Path(parts.path[1:]))
    if parts.scheme in ("postgresql", "postgres"):
        from inference.leases.postgres_store import PostgresLeases  # noqa: PLC0415 - an optional library

        return PostgresLeases(address)
    raise SettingsError(
        "QT_LEASE_URL must look like sqlite:////shared/leases.db or postgresql://user@host/database, its scheme was"
        f" {parts.scheme!r}"
    )


def holder_text(holder: Holder) -> str:
    """Return a holder as JSON text."""
    return json.dumps(asdict(holder), sort_keys=True)


def row_of(token: object, beat: object, state: object, holder: object) -> LeaseRow:
    """
    Return a stored row.

    Raises:
        LeaseStoreError: It is not one of ours.
    """
    try:
        told = json.loads(str(holder))
        whose = Holder(
            host=str(told["host"]),
            pid=int(told["pid"]),
            started=str(told["started"]),
            kernel=str(told["kernel"]),
            home=str(told["home"]),
        )
        return LeaseRow(token=int(str(token)), beat=int(str(beat)), state=LeaseState(str(state)), holder=whose)
    except (ValueError, KeyError, TypeError) as error:
        raise LeaseStoreError(
            f"What is written of a lease cannot be read: {error!r}; is it of another program?"
        ) from error
