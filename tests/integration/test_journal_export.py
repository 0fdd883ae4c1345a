"""The journal and its tables as Parquet, read by DuckDB: every entry, every row, exact sums."""

from __future__ import annotations

import json
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest

from feature_store.errors import BadInputError
from flows.journal_export import export_parquet
from inference import cli
from inference.domain.errors import JournalError
from inference.storage.database import open_database
from inference.storage.repositories import Performance
from tests.storage_support import dump, projected, traded, write_journal

PATHS = {"export": "flows.export_command:export"}


@pytest.fixture
def journal(tmp_path):
    """Return a traded journal."""
    return write_journal(tmp_path / "home" / "journal" / "journal.jsonl", traded(2))


def ask(folder: Path, sql: str):
    """Return what DuckDB finds in the files of a folder, as tables called by their names."""
    with duckdb.connect() as connection:
        for path in folder.glob("*.parquet"):
            connection.execute(f"CREATE VIEW {path.stem} AS SELECT * FROM '{path}'")
        return connection.execute(sql).fetchall()


def test_duckdb_reads_all_of_it(journal, tmp_path):
    """Each entry with its digest, each row of each table; money adds up exactly, moments have their zone."""
    folder = tmp_path / "out"
    counts = export_parquet(journal, folder)
    with closing(open_database(None, tmp_path)) as database:
        rows = dump(projected(database, journal))
        with database.reading() as connection:
            sums = Performance(connection).sums()
    entries = ask(folder, "SELECT seq, type, data, digest FROM journal ORDER BY seq")

    assert entries == [(one.seq, one.type, bytes(one.text).decode(), one.digest) for one in traded(2)]
    assert counts == {"journal": len(entries)} | {
        name: len(found) for name, found in rows.items() if name not in ("projection", "shadow_days")
    }
    assert ask(folder, "SELECT sum(total_pnl), sum(fees) FROM daily_performance") == [(sums.pnl, sums.fees)]
    assert ask(folder, "SELECT sum(pnl) FROM trades WHERE status = 'CLOSED'") == [(sums.pnl,)]
    moments = ask(folder, "SELECT epoch_ms(decided_at) FROM signals ORDER BY seq, ordinal")
    assert [moment for (moment,) in moments] == [row["decided_at"] for row in rows["signals"]]
    assert ask(folder, "SELECT typeof(pnl), typeof(planned_at) FROM trades LIMIT 1") == [
        ("DECIMAL(38,18)", "TIMESTAMP WITH TIME ZONE")
    ]
    assert ask(folder, "SELECT DISTINCT plan ->> 'symbol' = symbol FROM trades") == [(True,)]
    assert isinstance(ask(folder, "SELECT max(max_drawdown) FROM risk_state")[0][0], Decimal)


def test_a_second_export_replaces_the_first(journal, tmp_path):
    """More entries, the same folder: the files are the new ones, and nothing else is left there."""
    folder = tmp_path / "out"
    whole = journal.read_bytes()
    journal.write_bytes(b"".join(whole.splitlines(keepends=True)[:60]) + b'{"torn')
    assert export_parquet(journal, folder)["journal"] == 60
    journal.write_bytes(whole)
    counts = export_parquet(journal, folder)

    assert ask(folder, "SELECT count(*) FROM journal") == [(len(traded(2)),)]
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{name}.parquet" for name in counts)


def test_an_empty_journal_is_exported_with_empty_tables(tmp_path):
    """Every file is there, with its columns and without a row."""
    counts = export_parquet(write_journal(tmp_path / "journal.jsonl", ()), tmp_path / "out")

    assert set(counts.values()) == {0}
    assert ask(tmp_path / "out", "SELECT count(*), max(pnl) FROM trades") == [(0, None)]


def test_what_cannot_be_exported_is_said(journal, tmp_path):
    """No journal, a file for a folder and a damaged entry: an error with words, and what was there stays."""
    with pytest.raises(BadInputError, match="--journal"):
        export_parquet(tmp_path / "nothing", tmp_path / "out")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(BadInputError, match="another folder"):
        export_parquet(journal, tmp_path / "file")
    export_parquet(journal, tmp_path / "out")
    journal.write_bytes(journal.read_bytes().replace(b'"seq":70,', b'"seq":71,'))
    with pytest.raises(JournalError, match="70"):
        export_parquet(journal, tmp_path / "out")

    assert (tmp_path / "file").read_text() == "mine"
    assert ask(tmp_path / "out", "SELECT count(*) FROM journal") == [(len(traded(2)),)]


def test_the_command_says_what_it_wrote(journal, tmp_path, monkeypatch, capsys):
    """In words and in JSON; without a folder it writes into the home."""
    monkeypatch.setattr(cli, "command_paths", lambda: PATHS)
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path / "home"))
    for name in ("QT_SYMBOLS", "QT_VENUE", "QT_VENUE_URL"):
        monkeypatch.delenv(name, raising=False)

    assert cli.run(["export", "--parquet", str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"]["journal"] == len(traded(2))
    assert cli.run(["export", "--parquet", str(tmp_path / "out")]) == 0
    assert "tables into" in capsys.readouterr().out
    assert cli.run(["export"]) == 0
    assert ask(tmp_path / "home" / "export", "SELECT count(*) FROM journal") == [(len(traded(2)),)]
