"""Tables on SQLite and on a real PostgreSQL: the same rows, kept exactly, whoever dies or writes beside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import insert, text

from inference.domain.errors import JournalError
from inference.domain.events import Noted
from inference.journal.writer import JournalWriter
from inference.storage import projector as projecting
from inference.storage import schema
from inference.storage.database import open_database
from inference.storage.errors import AnotherJournalError, SchemaError, StorageError
from inference.storage.projector import Projector
from tests.storage_fixtures import NUMBERS
from tests.storage_support import dump, fresh_database, projected, traded, write_journal
from tests.worker_values import T0

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.needs_postgres
def test_both_databases_hold_the_same(postgres, traded_journal, tmp_path):
    """Money to the last digit, moments to the millisecond, documents and all: no row differs."""
    with (
        closing(open_database(f"sqlite:///{tmp_path / 'a.db'}", tmp_path)) as one,
        closing(open_database(fresh_database(postgres, f"t{next(NUMBERS)}"), tmp_path)) as other,
    ):
        assert dump(projected(one, traded_journal, at_once=50)) == dump(projected(other, traded_journal))


def test_a_batch_that_fails_changes_nothing(tables, traded_journal, monkeypatch):
    """A crash between rows and the place that is kept leaves neither; going on gives the same as if there was none."""
    projector = Projector(tables, traded_journal, at_once=40)
    projector.prepare()
    projector.advance()
    before = dump(tables)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(projecting, "_keep", crash)
        with pytest.raises(KeyboardInterrupt):
            projector.advance()
    after = dump(tables)
    projector.catch_up()
    whole = dump(tables)
    projector.begin_anew()
    projector.catch_up()

    assert after == before
    assert whole == dump(tables)


def test_a_killed_follower_loses_and_doubles_nothing(tables_address, traded_journal, tmp_path):
    """`kill -9` at any moment of a follower's life: the next one goes on, to the rows of an undisturbed one."""
    environment = {**os.environ, "QT_DATABASE_URL": tables_address, "PYTHONPATH": str(ROOT)}
    program = (
        "import sys; from pathlib import Path; from inference.storage.database import open_database;"
        "from inference.storage.projector import Projector;"
        "p = Projector(open_database(sys.argv[1], Path('.')), Path(sys.argv[2]), at_once=3); p.prepare();"
        "print('go', flush=True); p.catch_up(lambda n: print(n, flush=True))"
    )
    for life in range(4):
        running = subprocess.Popen(
            [sys.executable, "-c", program, tables_address, traded_journal],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert running.stdout is not None
        for _ in range(2 + 5 * life):
            if not running.stdout.readline():
                break
        running.send_signal(signal.SIGKILL)
        running.wait()
        running.stdout.close()
    with closing(open_database(tables_address, tmp_path)) as tables, closing(open_database(None, tmp_path)) as other:
        assert dump(projected(tables, traded_journal)) == dump(projected(other, traded_journal))


def test_several_followers_at_once_share_the_work(tables_address, traded_journal, tmp_path):
    """Four of them, in batches of seven entries: each entry is taken in once."""
    with closing(open_database(tables_address, tmp_path)) as first:
        Projector(first, traded_journal).prepare()
    counts: list[int] = []

    def run() -> None:
        with closing(open_database(tables_address, tmp_path)) as tables:
            counts.append(Projector(tables, traded_journal, at_once=7).catch_up())

    threads = [threading.Thread(target=run) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    with closing(open_database(tables_address, tmp_path)) as tables, closing(open_database(None, tmp_path)) as other:
        assert sum(counts) == len(traded(2))
        assert dump(tables) == dump(projected(other, traded_journal))


def test_another_journal_is_refused(tables, traded_journal, tmp_path):
    """One that is shorter, gone, rewritten or of another worker is not read on, and says what to do."""
    projected(tables, traded_journal)
    before = dump(tables)
    others = [
        write_journal(tmp_path / "short.jsonl", traded(2)[:50]),
        write_journal(tmp_path / "other.jsonl", (*traded(4), *traded(4))),
        tmp_path / "missing.jsonl",
    ]
    for other in others:
        with pytest.raises(AnotherJournalError, match="qtctl db rebuild"):
            Projector(tables, other).advance()
    assert dump(tables) == before


def test_a_damaged_entry_stops_behind_the_last_good_one(tables, traded_journal):
    """What comes before it is taken in, the error names it, and nothing of it or behind it is."""
    lines = traded_journal.read_bytes().splitlines(keepends=True)
    bad = 100
    lines[bad] = lines[bad].replace(b'"seq":101', b'"seq":102')
    traded_journal.write_bytes(b"".join(lines))
    projector = Projector(tables, traded_journal, at_once=64)
    projector.prepare()

    with pytest.raises(JournalError, match="101"):
        projector.catch_up()
    assert dump(tables)["projection"][0]["seq"] == bad
    with pytest.raises(JournalError, match="101"):
        projector.catch_up()


def test_events_of_another_version_are_kept_in_their_own_words(tables, tmp_path):
    """A type that this version does not know goes to the events, whatever it holds; one that it knows must fit."""
    path = tmp_path / "journal.jsonl"
    with JournalWriter.open(path) as writer:
        writer.record(Noted(event_type="market.halted", detail={"why": "a \0 in it, and \\u0000"}), timestamp_ms=T0)
        writer.record(_Foreign("risk.something_new", {"nested": [1, {"a": None}]}), timestamp_ms=T0)
        writer.record(_Foreign("risk.a_list", [1, 2]), timestamp_ms=T0)
    projected(tables, path)
    with JournalWriter.open(path) as writer:
        writer.record(_Foreign("trade.closed", {"trade_id": 5}), timestamp_ms=T0)

    assert [row["detail"] for row in dump(tables)["events"]][1:] == [{"nested": [1, {"a": None}]}, {"data": [1, 2]}]
    with pytest.raises(JournalError, match="another version"):
        Projector(tables, path).advance()


class _Foreign(Noted):
    """An event as another version might write it."""

    def __new__(cls, event_type, detail):
        return _foreign(event_type, detail)

    def __init__(self, *_):
        """Made by `__new__`."""


def _foreign(event_type, detail):
    class _Event(dict):
        pass

    event = _Event(detail) if isinstance(detail, dict) else detail
    kind = type("Foreign", (type(event),), {"event_type": event_type})
    return kind(event)


def test_numbers_and_moments_of_no_market_are_refused(tables, traded_journal):
    """A number that is none, or a moment of no calendar, is refused with a word, before the database sees it."""
    projected(tables, traded_journal)
    row = dump(tables)["funding_payments"][0]
    wrong = [("amount", Decimal(text)) for text in ("NaN", "Infinity", "1E+200", "1E-200")]

    for column, value in [*wrong, ("paid_at", -1), ("paid_at", 10**18)]:
        with pytest.raises(StorageError, match="cannot hold"), tables.writing() as connection:
            connection.execute(insert(schema.funding_payments), [{**row, "seq": 10**6, column: value}])
    assert len(dump(tables)["funding_payments"]) > 1


def test_rows_of_other_rules_are_not_read_on(tables, traded_journal):
    """Rows that another edition of the rules made are made anew on order, not mixed."""
    projected(tables, traded_journal)
    with tables.writing() as connection:
        connection.execute(text("UPDATE projection SET rules = 0"))

    with pytest.raises(SchemaError, match="qtctl db rebuild"):
        Projector(tables, traded_journal).advance()
