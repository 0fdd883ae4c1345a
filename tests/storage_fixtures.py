"""Empty tables on SQLite and on a real PostgreSQL, and a journal to fill them from."""

from __future__ import annotations

from contextlib import closing
from itertools import count

import pytest

from inference.storage.database import open_database
from tests.postgres_support import running_postgres
from tests.storage_support import fresh_database, traded, write_journal

NUMBERS = count()
"""A database of its own for whoever asks."""


@pytest.fixture(scope="module")
def postgres():
    """Return the address of a PostgreSQL server of one file's own."""
    with running_postgres() as address:
        yield address


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.needs_postgres)])
def tables_address(request, tmp_path):
    """Return the address of an empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'tables.db'}"
    return fresh_database(request.getfixturevalue("postgres"), f"t{next(NUMBERS)}")


@pytest.fixture
def tables(tables_address, tmp_path):
    """Return an empty database of each kind."""
    with closing(open_database(tables_address, tmp_path)) as opened:
        yield opened


@pytest.fixture
def traded_journal(tmp_path):
    """Return a journal of a worker that traded while its venue misbehaved."""
    return write_journal(tmp_path / "home" / "journal" / "journal.jsonl", traded(2))
