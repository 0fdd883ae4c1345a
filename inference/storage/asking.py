"""A person's own SQL over the tables, which can read and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, text

from inference.storage.database import Database
from inference.storage.errors import StorageError
from inference.storage.migrating import require_current


def ask(database: Database, sql: str, *, limit: int) -> tuple[list[str], list[Sequence[Any]]]:
    """
    Return the names of an answer's columns and its first rows.

    Raises:
        StorageError: The database refused the query, or it would have changed something.
    """
    with database.reading() as connection:
        require_current(connection, database.name)
        is_file = database.dialect == "sqlite"
        connection.execute(text("PRAGMA query_only = ON" if is_file else "SET TRANSACTION READ ONLY"))
        try:
            # Several statements in one are refused by both: the first could end what forbids to write.
            options = {} if is_file else {"prepare": True}
            cursor = _driver(connection).execute(sql, **options)
            if cursor.description is None:
                raise StorageError("The query returned no rows; ask with one SELECT")
            return [column[0] for column in cursor.description], [tuple(row) for row in cursor.fetchmany(limit)]
        except _errors(connection) as error:
            found = str(error).strip().splitlines()[0]
            raise StorageError(f"The query was refused: {found}; ask with one SELECT") from None
        finally:
            if is_file:
                connection.execute(text("PRAGMA query_only = OFF"))


def _driver(connection: Connection) -> Any:
    # As the person wrote it: a colon is a colon, a percent sign one.
    return connection.connection.driver_connection


def _errors(connection: Connection) -> type[Exception]:
    kind: type[Exception] = connection.dialect.loaded_dbapi.Error
    return kind
