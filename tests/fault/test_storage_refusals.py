"""Databases that are wrong, gone, damaged or full: said in a sentence, and nothing is lost by it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import event

from inference import cli
from inference.storage.database import open_database
from inference.storage.errors import DatabaseAddressError, StorageError
from inference.storage.migrating import newest_revision
from inference.storage.projector import Projector
from tests.postgres_support import running_postgres
from tests.stack_fixtures import free_port
from tests.storage_support import dump, fresh_database, projected, traded, write_journal

ROOT = Path(__file__).resolve().parents[2]
PATHS = {"db": "inference.storage_commands:db"}


@pytest.fixture
def home(tmp_path):
    """Return a home with a traded journal."""
    write_journal(tmp_path / "journal" / "journal.jsonl", traded(1))
    return tmp_path


@pytest.fixture
def qtctl(home, monkeypatch, capsys):
    """Return a way to run `qtctl db` for that home: the exit status, what was printed, what was said of errors."""
    monkeypatch.setenv("QUANTUM_HOME", str(home))
    monkeypatch.delenv("QT_DATABASE_URL", raising=False)
    monkeypatch.setattr(cli, "command_paths", lambda: PATHS)

    def run(*arguments: str) -> tuple[int, str, str]:
        status = cli.run(["db", *arguments])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


@pytest.mark.parametrize(
    "address",
    [
        "mysql://qt:secret@host/x",
        "nonsense with secret",
        "postgresql://qt:secret@host",
        "postgresql+asyncpg://qt:secret@host/x",
        "sqlite://",
        "sqlite:///:memory:",
        "://",
    ],
)
def test_an_address_of_no_database_is_refused(address, tmp_path):
    """What names no database that can be used says how one looks, and tells no password."""
    with pytest.raises(DatabaseAddressError, match="QT_DATABASE_URL") as refused:
        open_database(address, tmp_path)
    assert "secret" not in str(refused.value)


def test_a_server_that_is_not_there_is_an_error_without_its_password(tmp_path):
    """The message says what to look at, and not the password."""
    with (
        closing(open_database(f"postgresql://qt:secret@127.0.0.1:{free_port()}/x", tmp_path)) as database,
        pytest.raises(StorageError, match="see whether the server runs") as refused,
    ):
        dump(database)
    assert "secret" not in str(refused.value)


def test_commands_answer_in_words_and_in_json(qtctl, home):
    """Making, following, asking and showing; what is missing yet is said with the command that makes it."""
    entries = len(traded(1))
    for question in (("show", "trades"), ("query", "SELECT 1"), ("status",)):
        status, _, err = qtctl(*question)
        assert (status, "qtctl db rebuild" in err) == (1, True)
    assert not (home / "database").exists()
    assert json.loads(qtctl("follow", "--once", "--json")[1]) == {"entries": entries}
    assert qtctl("follow", "--once")[1] == "0 new entries.\n"
    assert json.loads(qtctl("rebuild", "--json")[1]) == {"entries": entries}
    assert json.loads(qtctl("upgrade", "--json")[1])["before"] == newest_revision()
    told = json.loads(qtctl("status", "--json")[1])
    assert (told["standing"], told["behind"], told["entries"]) == ("current", 0, entries)
    page = json.loads(qtctl("show", "trades", "--limit", "2", "--json")[1])
    behind = json.loads(qtctl("show", "trades", "--limit", "2", "--after", page["next"], "--json")[1])
    assert len(page["items"]) == 2
    assert {one["id"] for one in page["items"]}.isdisjoint(one["id"] for one in behind["items"])
    for what in ("trades", "positions", "signals", "models", "days", "events"):
        assert qtctl("show", what)[0] == 0
    counted = json.loads(qtctl("query", "SELECT count(*) AS n FROM trades", "--json")[1])
    assert counted[0]["n"] > 3


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("show", "trades", "--limit", "0"), 2, "1 to 1000"),
        (("show", "trades", "--after", "x"), 2, "next"),
        (("show", "days", "--symbol", "BTC/USDT:USDT"), 2, "--symbol"),
        (("show", "wishes"), 2, "wishes"),
        (("query", "DELETE FROM trades"), 1, "readonly"),
        (("query", "SELECT"), 1, "one SELECT"),
        (("query", "SELECT 1", "--limit", "0"), 2, "--limit"),
        (("follow", "--every", "0"), 2, "--every"),
        (("rebuild", "--journal", "/nowhere/journal.jsonl"), 2, "--journal"),
    ],
)
def test_bad_usage_is_said(qtctl, arguments, status, said):
    """What cannot be done is refused in one sentence that names it, with the status that the help states."""
    qtctl("rebuild")
    found, _, err = qtctl(*arguments)

    assert found == status
    assert said in err
    assert err.count("\n") == 1


def test_a_damaged_file_names_itself_and_the_way_back(qtctl, home):
    """No database, and one with a page overwritten: the error says which and what to do, and doing it mends it."""
    file = home / "database" / "quantum_trader.db"
    for spoil in (lambda whole: b"no database" * 1000, lambda whole: whole[:8192] + b"\xff" * 40_000 + whole[48_192:]):
        qtctl("rebuild")
        for log in file.parent.glob("*-wal"):
            log.unlink()
        file.write_bytes(spoil(file.read_bytes()))
        status, _, err = qtctl("query", "SELECT count(*), max(plan) FROM trades", "--json")
        if status == 0:
            status, _, err = qtctl("rebuild")

        assert status == 1
        assert "quantum_trader.db" in err
        for part in file.parent.iterdir():
            part.unlink()
        assert qtctl("rebuild")[0] == 0


def test_a_full_disk_loses_nothing(home):
    """The batch that found no room has changed nothing; with room again the tables are those of a rebuild."""
    journal = home / "journal" / "journal.jsonl"
    with closing(open_database(None, home)) as database, closing(open_database(None, home / "other")) as other:
        projector = Projector(database, journal, at_once=40)
        projector.prepare()
        projector.advance()
        before = dump(database)
        database.close()

        def fill(connection, _):
            used = connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count = {used}")

        event.listen(database._engine, "connect", fill)
        with pytest.raises(StorageError, match="free some space"):
            projector.catch_up()
        during = dump(database)
        event.remove(database._engine, "connect", fill)
        database.close()
        projector.catch_up()

        assert during["projection"][0]["seq"] >= before["projection"][0]["seq"]
        assert dump(database) == dump(projected(other, journal))


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    """A file where the folder of the database should be is an error with its path."""
    (tmp_path / "database").write_text("in the way")

    with (
        closing(open_database(None, tmp_path)) as database,
        pytest.raises(StorageError, match="make room or give leave"),
    ):
        Projector(database, tmp_path / "journal.jsonl").prepare()


@pytest.mark.needs_postgres
def test_a_follower_outlives_its_server(home, tmp_path):
    """PostgreSQL gone in mid-work, entries written meanwhile, and there again: nothing lost, nothing doubled."""
    journal = home / "journal" / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:100]))
    troubles: list[str] = []
    turns: list[int] = []
    with running_postgres() as server:
        address = fresh_database(server, "followed")
        with closing(open_database(address, tmp_path)) as database:
            projector = Projector(database, journal, at_once=30)
            projector.prepare()

            def pause(_: float) -> bool:
                turns.append(len(troubles))
                if len(turns) == 1:
                    _let_in(server, allowed=False)
                    journal.write_bytes(b"".join(lines[:200]))
                if len(turns) == 3:
                    _let_in(server, allowed=True)
                    journal.write_bytes(b"".join(lines))
                return len(turns) == 6

            projector.follow(pause, every=0.01, on_trouble=troubles.append)
            with closing(open_database(None, tmp_path / "other")) as other:
                assert dump(database) == dump(projected(other, journal))
    assert turns == [0, 1, 2, 2, 2, 2]
    assert "see whether the server runs" in troubles[0] or "connection was lost" in troubles[0]


def _let_in(server: str, *, allowed: bool) -> None:
    """Cut every connection to the followed database off and allow no other, or allow them again."""
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE followed ALLOW_CONNECTIONS {str(allowed).lower()}")
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'followed'")


def test_a_follower_process_stops_as_asked(home):
    """`qtctl db follow` takes in what is written while it runs, says so in its status file, and ends on SIGTERM."""
    journal = home / "journal" / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:50]))
    environment = {**os.environ, "QUANTUM_HOME": str(home), "PYTHONPATH": str(ROOT)}
    environment.pop("QT_DATABASE_URL", None)
    program = (
        "from inference.storage_commands import db; db(['follow', '--every', '0.1'], result_action='return_value')"
    )
    running = subprocess.Popen([sys.executable, "-c", program], env=environment)
    try:
        _until(lambda: _told(home) == 50, running)
        journal.write_bytes(b"".join(lines))
        _until(lambda: _told(home) == len(lines), running)
        following = json.loads((home / "database" / "status.json").read_text())
    finally:
        running.send_signal(signal.SIGTERM)
        status = running.wait(30)

    assert status == 0
    assert following["state"] == "following"
    assert json.loads((home / "database" / "status.json").read_text())["state"] == "stopped"


def _told(home: Path) -> int:
    if not (home / "database" / "quantum_trader.db").exists():
        return 0
    try:
        with closing(open_database(None, home)) as database:
            return max((row["seq"] for row in dump(database)["projection"]), default=0)
    except StorageError:
        return 0


def _until(holds, running) -> None:
    for _ in range(600):
        if holds():
            return
        assert running.poll() is None
        time.sleep(0.1)
    raise AssertionError("it did not happen within a minute")
