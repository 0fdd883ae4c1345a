"""Bringing the tables to this version's form, and refusing those that are not."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

from feature_store.errors import BadInputError
from inference.storage.database import Database
from inference.storage.errors import SchemaError
from inference.storage.schema import metadata

VERSION_TABLE = "quantum_schema"
"""Not Alembic's own name: MLflow, Prefect and Optuna use that one, perhaps in the same database."""

_FOLDER = Path(__file__).parent / "migrations"


class Standing(StrEnum):
    """How the tables of a database stand to this version."""

    EMPTY = "empty"
    CURRENT = "current"
    OLDER = "older"
    NEWER = "newer"
    FOREIGN = "foreign"


def newest_revision() -> str:
    """Return the revision that this version works with."""
    return str(ScriptDirectory(str(_FOLDER)).get_current_head())


def revisions() -> list[str]:
    """Return every revision that this version knows, the oldest first."""
    return [one.revision for one in reversed(list(ScriptDirectory(str(_FOLDER)).walk_revisions()))]


def revision_of(connection: Connection) -> str | None:
    """Return the revision that the tables have; None where there are none."""
    return MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_revision()


def standing_of(connection: Connection) -> Standing:
    """Say how the tables stand to this version."""
    revision = revision_of(connection)
    if revision is None:
        ours = set(metadata.tables) & set(inspect(connection).get_table_names())
        return Standing.FOREIGN if ours else Standing.EMPTY
    if revision == newest_revision():
        return Standing.CURRENT
    return Standing.OLDER if revision in revisions() else Standing.NEWER


def require_current(connection: Connection, name: str) -> None:
    """
    Refuse tables that are not of this version's form.

    Raises:
        SchemaError: There are none, they are older or newer, or another program's.
    """
    match standing_of(connection):
        case Standing.CURRENT:
            return
        case Standing.EMPTY:
            raise SchemaError(f"{name} holds no tables yet; `qtctl db rebuild` makes them from the journal")
        case Standing.OLDER:
            raise SchemaError(
                f"{name} has tables of revision {revision_of(connection)}, this version works with "
                f"{newest_revision()}; run `qtctl db upgrade`"
            )
        case other:
            raise SchemaError(_refusal(other, connection, name))


def upgrade(database: Database) -> tuple[str | None, str]:
    """
    Bring the tables to this version's form; return the revisions before and after.

    All steps are one transaction. A second process that does the same at the same moment waits, and finds it done.

    Raises:
        SchemaError: The tables are newer than this version, or another program's.
    """
    with database.writing() as connection:
        standing = standing_of(connection)
        if standing in (Standing.NEWER, Standing.FOREIGN):
            raise SchemaError(_refusal(standing, connection, database.name))
        before = revision_of(connection)
        upgrade_to(connection, "head")
        return before, newest_revision()


def upgrade_to(connection: Connection, revision: str) -> None:
    """Bring the tables to one revision, in the transaction of the connection."""
    command.upgrade(_config(connection), revision)


def downgrade(database: Database, revision: str) -> tuple[str, str]:
    """
    Take the tables back to the form of an older version; return the revisions before and after.

    Their rows go, all of them: that version makes its own from the journal. All steps are one transaction.

    Raises:
        BadInputError: The revision is none that this version knows, or not older than that of the tables.
        SchemaError: There are no tables, they are newer than this version, or another program's.
    """
    known = revisions()
    if revision not in known:
        raise BadInputError(f"Expected one of the revisions {', '.join(known)}, found {revision!r}")
    with database.writing() as connection:
        standing = standing_of(connection)
        if standing not in (Standing.CURRENT, Standing.OLDER):
            require_current(connection, database.name)
        before = str(revision_of(connection))
        if known.index(revision) >= known.index(before):
            raise BadInputError(f"The tables have revision {before}, and {revision} is not older")
        downgrade_to(connection, revision)
        for table in reversed(metadata.sorted_tables):
            if inspect(connection).has_table(table.name):
                connection.execute(table.delete())
        return before, revision


def downgrade_to(connection: Connection, revision: str) -> None:
    """Take the tables back to one revision, in the transaction of the connection."""
    command.downgrade(_config(connection), revision)


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    config.attributes["connection"] = connection
    return config


def _refusal(standing: Standing, connection: Connection, name: str) -> str:
    if standing is Standing.FOREIGN:
        return f"{name} holds tables of another program under our names; name a database of its own in QT_DATABASE_URL"
    return (
        f"{name} has tables of revision {revision_of(connection)}, which this version does not know: a newer one made "
        "them. Install that version, or name another database in QT_DATABASE_URL and run `qtctl db rebuild`"
    )
