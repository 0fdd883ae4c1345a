"""The database: which one an address names, how it is opened, and what its failures mean."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError, StatementError

from inference.storage.columns import json_text
from inference.storage.errors import DatabaseAddressError, StorageError

SETTING = "QT_DATABASE_URL"
_FILE = Path("database") / "quantum_trader.db"
_DRIVERS = {
    "sqlite": "sqlite+pysqlite",
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}
_BUSY_SECONDS = 10
_CONNECT_SECONDS = 5
_CUT_OFF_SECONDS = 30
_WRITES = "quantum_writes"
# Any number that no other program locks.
_LOCK = 7_160_943_110


class Database:
    """
    One database of tables. Every method may raise `StorageError`, which never tells the address's password.

    `writing` holds a transaction that nobody else writes beside; what it did is kept whole, or not at all.
    """

    def __init__(self, engine: Engine, name: str, file: Path | None) -> None:
        self.name = name
        self._file = file
        self._engine = engine
        self._writer = engine.execution_options(**{_WRITES: True})

    @property
    def dialect(self) -> str:
        """Which kind it is, sqlite or postgresql."""
        return self._engine.dialect.name

    @property
    def is_there(self) -> bool:
        """Whether there is anything to read; only writing makes a file."""
        return self._file is None or self._file.exists()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give a transaction to read in."""
        if not self.is_there:
            raise StorageError(f"{self.name} is not there yet; `qtctl db rebuild` makes it from the journal")
        with self._translated(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Give a transaction to write in, once nobody else has one."""
        with self._translated():
            if self._file is not None:
                self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._translated(), self._writer.begin() as connection:
            if self.dialect == "postgresql":
                # For writers of ours alone, and from the first statement on, as SQLite does it.
                connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _LOCK})
            yield connection

    def close(self) -> None:
        """Let go of every connection."""
        self._engine.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except StatementError as error:
            # What a column refused says so itself; only the database's own words follow, never the statement.
            if isinstance(error.orig, StorageError):
                raise error.orig from None
            raise StorageError(f"{self.name}: {_remedy(error)}") from None
        except SQLAlchemyError as error:
            raise StorageError(f"{self.name} cannot be used: {error.__class__.__name__}") from error
        except OSError as error:
            raise StorageError(
                f"{self.name} cannot be used: {error.strerror or error}; make room or give leave"
            ) from error


def open_database(address: str | None, home: Path) -> Database:
    """
    Open the database at an address; by default a SQLite file in the home folder.

    Raises:
        DatabaseAddressError: It names none, or one whose library is not installed.
    """
    url = _url(address or f"sqlite:///{(home / _FILE).resolve()}")
    is_file = url.drivername == _DRIVERS["sqlite"]
    if is_file and (not url.database or url.database == ":memory:"):
        raise DatabaseAddressError(f"{SETTING} must name a file, as in sqlite:////shared/quantum.db")
    # A server that was cut off answers nothing, not even that it is gone.
    patience = {"connect_timeout": _CONNECT_SECONDS, "tcp_user_timeout": _CUT_OFF_SECONDS * 1000}
    arguments: Mapping[str, Any] = {"timeout": _BUSY_SECONDS} if is_file else patience
    try:
        engine = create_engine(
            url,
            connect_args=dict(arguments),
            json_serializer=json_text,
            pool_pre_ping=not is_file,
            hide_parameters=True,
        )
    except ModuleNotFoundError as error:
        raise DatabaseAddressError(
            f"{SETTING} names PostgreSQL, whose library is not installed; pip install 'quantum-trader[postgres]'"
        ) from error
    if is_file:
        event.listen(engine, "connect", _prepare_file)
        event.listen(engine, "begin", _begin)
    if is_file:
        return Database(engine, f"The database {url.database}", Path(url.database or ""))
    return Database(engine, f"The database {url.render_as_string(hide_password=True)}", None)


def _url(address: str) -> URL:
    wanted = (
        f"{SETTING} must look like sqlite:////shared/quantum.db or postgresql://user@host/database; "
        "unset it for a file in the home folder"
    )
    try:
        url = make_url(address)
    except (ArgumentError, ValueError):
        # The address may hold a password, so what was found is not told.
        raise DatabaseAddressError(wanted) from None
    driver = _DRIVERS.get(url.drivername)
    if driver is None or (driver != _DRIVERS["sqlite"] and not url.database):
        raise DatabaseAddressError(f"{wanted}; its scheme was {url.drivername!r}")
    return url.set(drivername=driver)


def _prepare_file(connection: sqlite3.Connection, _: object) -> None:
    # Transactions begin where we say: Python would leave those that change tables out.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA journal_mode = WAL")
    # A power cut may take the newest transactions, whole: the journal has them, and they are made again.
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.close()


def _begin(connection: Connection) -> None:
    # The lock for writing at once: of two that read first, one would have read in vain.
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _remedy(error: StatementError) -> str:
    found = str(error.orig).strip().splitlines()[0] if error.orig is not None else error.__class__.__name__
    if "is not a database" in found or "malformed" in found:
        return f"{found}; move the file away and run `qtctl db rebuild`: all of it is in the journal"
    if "disk is full" in found or "No space left" in found or "disk I/O" in found:
        return f"{found}; free some space, then run the same again: what was written before is kept"
    if "readonly" in found or "unable to open" in found or "permission" in found.lower():
        return f"{found}; let this user write it, or set {SETTING}"
    if "locked" in found:
        return f"{found}; another process writes it, run the same again"
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return f"{found}; the connection was lost, see whether the server runs"
    return f"{found}; see whether the server runs, and {SETTING}"
