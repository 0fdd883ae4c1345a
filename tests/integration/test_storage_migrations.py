"""The form of the tables: from nothing and from each earlier one to this version's, and back again."""

from __future__ import annotations

import shutil
from contextlib import closing
from itertools import count, pairwise
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

from feature_store.errors import BadInputError
from inference.storage import migrating, schema
from inference.storage.database import open_database
from inference.storage.errors import SchemaError
from inference.storage.migrating import (
    Standing,
    downgrade,
    downgrade_to,
    newest_revision,
    revision_of,
    revisions,
    standing_of,
    upgrade,
    upgrade_to,
)
from inference.storage.projector import Projector
from tests.postgres_support import running_postgres
from tests.storage_support import dump, fresh_database, projected, traded, write_journal

NUMBERS = count()


@pytest.fixture(scope="module")
def server():
    """Return the address of a PostgreSQL server of this module's own."""
    with running_postgres() as address:
        yield address


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.needs_postgres)])
def database(request, tmp_path):
    """Return an empty database of each kind."""
    address = None
    if request.param == "postgres":
        address = fresh_database(request.getfixturevalue("server"), f"m{next(NUMBERS)}")
    with closing(open_database(address, tmp_path)) as opened:
        yield opened


@pytest.fixture
def journal(tmp_path):
    """Return a traded journal."""
    return write_journal(tmp_path / "journal.jsonl", traded(2))


def test_steps_lead_to_the_tables_that_the_code_names(database):
    """After all steps no table, column, type or index differs from the schema in code."""
    assert upgrade(database) == (None, newest_revision())
    assert upgrade(database) == (newest_revision(), newest_revision())
    with database.reading() as connection:
        options = {"version_table": migrating.VERSION_TABLE, "compare_type": True}
        differences = compare_metadata(MigrationContext.configure(connection, opts=options), schema.metadata)

    assert [one for one in differences if "quantum_schema" not in str(one)] == []


def test_each_earlier_form_is_brought_up(database, journal):
    """From every revision on the way, with rows in it, an upgrade and a follower lead to what a rebuild makes."""
    names = revisions()
    assert names == sorted(names)
    assert len(names) >= 3
    expected = None
    for revision in [*names[:-1], None]:
        with database.writing() as connection:
            if revision_of(connection) is not None:
                downgrade_to(connection, "base")
        if revision is not None:
            with database.writing() as connection:
                upgrade_to(connection, revision)
                connection.execute(
                    text(
                        "INSERT INTO projection (id, rules, seq, digest, line_offset, next_offset)"
                        " VALUES (1, 1, 0, 'stale', 0, 0)"
                    )
                )
                if revision != names[0]:
                    connection.execute(text("DELETE FROM projection"))
            with database.reading() as connection:
                assert standing_of(connection) is Standing.OLDER
            with pytest.raises(SchemaError, match="qtctl db upgrade"):
                Projector(database, journal).prepare()
            assert upgrade(database)[0] == revision
        found = dump(projected(database, journal))
        expected = expected or found

        assert found == expected


def test_a_newer_form_is_refused(database, journal):
    """Tables of a version to come are not written, read or upgraded, and the message says what to do."""
    projected(database, journal)
    with database.writing() as connection:
        connection.execute(text("UPDATE quantum_schema SET version_num = '9999'"))

    with database.reading() as connection:
        assert standing_of(connection) is Standing.NEWER
    for attempt in (lambda: upgrade(database), lambda: Projector(database, journal).prepare()):
        with pytest.raises(SchemaError, match=r"9999.*newer one made them.*QT_DATABASE_URL"):
            attempt()


def test_tables_of_another_program_are_left_alone(database, journal):
    """A database in which somebody else's table has one of our names is refused, and that table stays."""
    with database.writing() as connection:
        connection.execute(text("CREATE TABLE models (mine INTEGER)"))
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))

    for attempt in (lambda: upgrade(database), lambda: Projector(database, journal).prepare()):
        with pytest.raises(SchemaError, match="another program"):
            attempt()
    with database.reading() as connection:
        assert connection.execute(text("SELECT mine FROM models")).all() == []


def test_a_step_that_fails_leaves_the_form_before(database, monkeypatch, tmp_path):
    """All steps are one transaction: after one that fails nothing has changed."""
    steps = tmp_path / "migrations"
    shutil.copytree(Path(migrating.__file__).parent / "migrations", steps)
    (steps / "versions" / "broken.py").write_text(
        "from alembic import op\n"
        f'revision, down_revision = "8888", "{newest_revision()}"\n'
        "def upgrade():\n"
        '    op.execute("CREATE TABLE half (a INTEGER)")\n'
        '    raise RuntimeError("no further")\n'
    )
    shutil.copytree(Path(migrating.__file__).parent / "sql", tmp_path / "sql")
    monkeypatch.setattr(migrating, "_FOLDER", steps)

    with pytest.raises(RuntimeError, match="no further"):
        upgrade(database)
    with database.reading() as connection:
        assert standing_of(connection) is Standing.EMPTY


def test_each_step_can_be_taken_back(database, journal):
    """Step by step down from rows, each form is what it was on the way up, and empty; up again all rows are there."""
    ups = {}
    for revision in revisions():
        with database.writing() as connection:
            upgrade_to(connection, revision)
            ups[revision] = _form(connection)
    expected = dump(projected(database, journal))
    downs = {}
    for before, revision in reversed(list(pairwise(revisions()))):
        assert downgrade(database, before) == (revision, before)
        with database.reading() as connection:
            downs[before] = _form(connection)
            for table in downs[before]["tables"]:
                assert connection.execute(text(f"SELECT count(*) FROM {table}")).scalar() == 0
    assert downs == {revision: ups[revision] for revision in revisions()[:-1]}
    assert upgrade(database) == (revisions()[0], newest_revision())
    assert dump(projected(database, journal)) == expected


def _form(connection):
    """Return tables with columns, types, keys and indexes, and the text of views, whatever their order."""
    found = inspect(connection)
    tables = {
        name: {
            "columns": sorted((one["name"], str(one["type"]), one["nullable"]) for one in found.get_columns(name)),
            "key": found.get_pk_constraint(name)["constrained_columns"],
            "foreign": sorted(str(one["constrained_columns"]) for one in found.get_foreign_keys(name)),
            "indexes": sorted((one["name"], one["column_names"], one["unique"]) for one in found.get_indexes(name)),
        }
        for name in found.get_table_names()
        if name != migrating.VERSION_TABLE
    }
    return {"tables": tables, "views": {name: found.get_view_definition(name) for name in found.get_view_names()}}


def test_what_cannot_be_taken_back_is_refused(database):
    """No tables, a form that is not older, and one that nobody knows: said in words, and nothing changes."""
    with pytest.raises(SchemaError, match="no tables yet"):
        downgrade(database, "0004")
    upgrade(database)
    for wanted, said in (("0009", "Expected one of the revisions"), (newest_revision(), "is not older")):
        with pytest.raises(BadInputError, match=said):
            downgrade(database, wanted)
    with database.reading() as connection:
        assert standing_of(connection) is Standing.CURRENT
