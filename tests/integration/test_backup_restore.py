"""A home copied while it is written, and made again from the copy: whole, to the last entry, and over nothing."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.errors import QuantumError
from inference import cli
from inference.domain.events import Noted
from inference.journal.daily import DailyJournal
from inference.journal.reader import read_entries
from inference.journal.verify import verify
from inference.journal.writer import JournalWriter
from inference.storage.backup import Backup, backups_in, make_backup
from inference.storage.errors import BackupError
from inference.storage.manifest import check
from inference.storage.restore import restore
from tests.worker_values import T0

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 11, 30, 8, 56, 19, tzinfo=UTC)
PATHS = {"backup": "inference.backup_commands:backup", "restore": "inference.backup_commands:restore"}


def make_home(home: Path, *, entries: int = 40) -> Path:
    """Make a home with something of every kind in it."""
    with JournalWriter.open(home / "journal" / "journal.jsonl") as journal:
        for number in range(entries):
            journal.record(Noted(event_type="health.started", detail={"n": str(number)}), timestamp_ms=T0 + number)
    days = DailyJournal(home / "shadow" / "journal")
    for day in range(2):
        days.record(Noted(event_type="health.started", detail={}), timestamp_ms=T0 + day * 86_400_000)
    days.close()
    for name in ("worker/lease.db", "mlflow/mlflow.db", "prefect/prefect.db", "jobs/jobs.db"):
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("PRAGMA journal_mode = WAL" if "prefect" in name else "PRAGMA journal_mode = DELETE")
            database.execute("CREATE TABLE kept (n INTEGER)")
            database.executemany("INSERT INTO kept VALUES (?)", [(number,) for number in range(500)])
    files = {
        "bundles/abc/manifest.json": "{}",
        "bundles/incoming-1-2/half": "half",
        "policy/policy.json": '{"version": 3}',
        "tuning/study.journal": 'one\ntwo\n{"torn',
        "mlflow/artifacts/1/model.bin": "\x00\x01",
        "logs/worker.log": "words",
        "sandbox/state.json": "the venue's",
        "lake/exchange=x/file.parquet": "candles",
        "features/state": "computed again",
        "database/quantum_trader.db": "made from the journal",
        "stack.json": "{}",
        "worker/status.json": "{}",
        ".demo.unfinished": "",
        "mlflow/half.tmp": "half",
    }
    for name, content in files.items():
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (home / "mlflow" / "link").symlink_to("/etc/passwd")
    return home


def back_up(home: Path, **chosen) -> Backup:
    return make_backup(home, **{"to": None, "now": NOW, "program": "test", **chosen})


@pytest.fixture
def home(tmp_path):
    """Return a home."""
    return make_home(tmp_path / "home")


def test_a_backup_holds_what_a_restart_wants(home, tmp_path):
    """Journals with their heads, leases, databases, bundles, policy and artifacts come back; the rest is left out."""
    made = back_up(home)
    restored = tmp_path / "restored"
    restore(made.folder, restored)
    found = {path.relative_to(restored).as_posix() for path in restored.rglob("*") if path.is_file()}
    torn = (restored / "tuning/study.journal").read_text()

    assert made.folder == (home / "backups" / "backup-20261130T085619Z").resolve()
    assert found == {
        "journal/journal.jsonl", "journal/journal.head",
        # What says to the next worker that it is a backup.
        "journal/restored",
        *(f"shadow/journal/2025-06-{day}.{kind}" for day in (15, 16) for kind in ("jsonl", "head")),
        "worker/lease.db", "mlflow/mlflow.db", "prefect/prefect.db", "jobs/jobs.db",
        "bundles/abc/manifest.json", "policy/policy.json", "tuning/study.journal", "mlflow/artifacts/1/model.bin",
    }  # fmt: skip
    assert made.manifest.left_out == ["mlflow/link"]
    assert torn == "one\ntwo\n"
    assert verify(restored / "journal/journal.jsonl", restored / "journal/journal.head").is_whole
    for path in restored.rglob("*.db"):
        with closing(sqlite3.connect(path)) as database:
            assert database.execute("SELECT count(*), sum(n) FROM kept").fetchone() == (500, 124_750)
    with JournalWriter.open(restored / "journal" / "journal.jsonl") as journal:
        assert journal.seq == 40
    assert (made.folder.stat().st_mode & 0o777, (made.folder / "policy/policy.json").stat().st_mode & 0o777) == (
        0o700,
        0o600,
    )


def test_a_backup_is_made_while_all_is_written(home, tmp_path):
    """Whatever is appended, committed and replaced meanwhile: each backup is whole, and none stops a writer."""
    stop = threading.Event()
    failed: list[Exception] = []

    def write() -> None:
        try:
            with (
                JournalWriter.open(home / "journal" / "journal.jsonl") as journal,
                closing(sqlite3.connect(home / "worker" / "lease.db", timeout=2)) as database,
            ):
                number = 0
                while not stop.is_set():
                    number += 1
                    for _ in range(20):
                        journal.record(Noted(event_type="health.started", detail={"x": "y" * 999}), timestamp_ms=T0)
                    journal.sync()
                    with database:
                        database.execute("INSERT INTO kept VALUES (?)", (number,))
                        database.execute("INSERT INTO kept VALUES (?)", (-number,))
                    (home / "policy" / "next").write_text(str(number))
                    (home / "policy" / "next").replace(home / "policy" / "policy.json")
        except (QuantumError, sqlite3.Error, OSError) as error:
            failed.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        made = [back_up(home, now=NOW + timedelta(seconds=second)) for second in range(5)]
    finally:
        stop.set()
        writer.join()
    counts = []
    for number, one in enumerate(made):
        restored = tmp_path / f"restored-{number}"
        restore(one.folder, restored)
        counts.append(len(list(read_entries(restored / "journal" / "journal.jsonl"))))
        with closing(sqlite3.connect(restored / "worker" / "lease.db")) as database:
            # Rows of one transaction are there together.
            assert database.execute("SELECT sum(n) FROM kept").fetchone() == (124_750,)

    assert failed == []
    assert counts == sorted(counts)
    assert counts[-1] > counts[0] >= 40


def test_backups_that_are_too_many_go(home):
    """The newest stay, other folders and a backup under way are none of theirs."""
    for second in range(5):
        made = back_up(home, now=NOW + timedelta(seconds=second), keep=3)
    (home / "backups" / "notes").mkdir()
    (home / "backups" / ".partial-1").mkdir()
    same = back_up(home, now=NOW + timedelta(seconds=4), keep=3)

    assert made.removed == ("backup-20261130T085620Z",)
    assert [one.name for one in backups_in(home / "backups")] == [
        "backup-20261130T085622Z",
        "backup-20261130T085623Z",
        "backup-20261130T085623Z-2",
    ]
    assert sorted(one.name for one in (home / "backups").iterdir()) == [
        ".lock", "backup-20261130T085622Z", "backup-20261130T085623Z", "backup-20261130T085623Z-2", "notes",
    ]  # fmt: skip
    assert check(same.folder) == same.manifest


def test_the_backup_just_made_and_those_of_another_home_stay(home, tmp_path):
    """A clock that was ahead costs no new backup, and another home's backups are no business of this one."""
    other, together = tmp_path / "other", tmp_path / "together"
    shutil.copytree(home, other)
    elsewhere = make_backup(other, to=together, now=NOW - timedelta(days=9), program="1")
    ahead = make_backup(home, to=together, now=NOW + timedelta(days=3), program="1", keep=1)
    made = make_backup(home, to=together, now=NOW, program="1", keep=1)

    assert made.removed == (ahead.folder.name,)
    assert backups_in(together) == [elsewhere.folder, made.folder]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Return a small backup, for copies of it to be spoilt."""
    return back_up(make_home(tmp_path_factory.mktemp("small") / "home", entries=5)).folder


@settings(max_examples=60)
@given(data=st.data())
def test_any_change_of_a_backup_is_found(small, tmp_path_factory, data):
    """A flipped byte, a file cut, added, removed or exchanged: refused by its name, and nothing is restored."""
    folder = tmp_path_factory.mktemp("spoilt")
    backup = shutil.copytree(small, folder / "backup")
    files = sorted(path for path in backup.rglob("*") if path.is_file())
    path = data.draw(st.sampled_from(files))
    content = path.read_bytes()
    match data.draw(st.sampled_from(["flip", "cut", "add", "remove", "exchange", "link"])):
        case "flip":
            place = data.draw(st.integers(0, len(content) - 1))
            bit = 1 << data.draw(st.integers(0, 7))
            path.write_bytes(content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :])
        case "cut":
            path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
        case "add":
            (path.parent / "added").write_text("x")
        case "remove":
            path.unlink()
        case "exchange":
            other = next(one for one in files if one.read_bytes() != content)
            path.write_bytes(other.read_bytes())
        case _:
            path.unlink()
            path.symlink_to("/etc/hostname")
    refusal = ""
    try:
        restore(backup, folder / "restored")
    except BackupError as error:
        refusal = str(error)

    # The list's own words on when and where may change; what it lists may not.
    words_changed = path == backup / "manifest.json" and path.is_file() and refusal == ""
    assert str(backup) in refusal or words_changed
    assert (folder / "restored").exists() == words_changed
    if words_changed:
        assert check(backup).files == check(small).files


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "a/../../outside", "."])
def test_a_list_that_leads_out_of_the_home_is_refused(home, tmp_path, name):
    """A forged list cannot write anywhere else."""
    folder = back_up(home).folder
    listed = json.loads((folder / "manifest.json").read_text())
    listed["files"][name] = listed["files"]["policy/policy.json"]
    (folder / "manifest.json").write_text(json.dumps(listed))

    with pytest.raises(BackupError):
        restore(folder, tmp_path / "restored")
    assert not (tmp_path / "outside").exists()
    assert not (tmp_path / "restored").exists()


def test_nothing_is_restored_over_anything(home, tmp_path):
    """A home in use, one that holds a file, a link and a backup are refused; an empty folder is taken."""
    folder = back_up(home).folder
    before = sorted(home.rglob("*"))
    with JournalWriter.open(home / "journal" / "journal.jsonl"), pytest.raises(BackupError, match="A worker runs"):
        restore(folder, home)
    with pytest.raises(BackupError, match="not empty"):
        restore(folder, home)
    with pytest.raises(BackupError, match="itself a backup"):
        restore(folder, folder)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BackupError, match="link"):
        restore(folder, tmp_path / "link")
    (tmp_path / "file").write_text("")
    with pytest.raises(BackupError, match="cannot hold a home"):
        restore(folder, tmp_path / "file")
    (tmp_path / "empty").mkdir()
    restore(folder, tmp_path / "empty")

    assert sorted(home.rglob("*")) == before
    assert (tmp_path / "empty" / "journal" / "journal.jsonl").exists()
    assert list(tmp_path.glob(".*")) == []


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda home: (home / "journal/journal.jsonl").write_bytes(b"{}\n"), "damaged at entry 1"),
        (lambda home: (home / "journal/journal.head").write_bytes(b"nonsense"), "anchor"),
        (lambda home: (home / "jobs/jobs.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 5000), "jobs.db"),
    ],
)
def test_damage_is_not_kept(home, spoil, said):
    """A backup of something damaged fails, names it, and leaves nothing behind that looks like one."""
    spoil(home)

    with pytest.raises(BackupError, match=said):
        back_up(home)
    assert [one.name for one in (home / "backups").iterdir()] == [".lock"]


def test_places_that_cannot_be_used_are_said(home, tmp_path):
    """No home, a folder inside of it, one that is a file, and two backups at once."""
    with pytest.raises(BackupError, match="no home"):
        back_up(tmp_path / "nothing")
    with pytest.raises(BackupError, match="hold each other"):
        back_up(home, to=home / "mlflow")
    (tmp_path / "file").write_text("")
    with pytest.raises(BackupError, match="could not be made"):
        back_up(home, to=tmp_path / "file")
    with pytest.raises(BackupError, match="no backup"):
        check(tmp_path / "nothing")
    listed = back_up(home).folder / "manifest.json"
    listed.write_text(listed.read_text().replace('"edition": 1', '"edition": 2'))
    with pytest.raises(BackupError, match="another version"):
        check(listed.parent)


def test_a_disk_that_fills_leaves_no_half(home, tmp_path):
    """A file that does not fit ends the backup with words; the next one clears what was begun."""
    (home / "bundles" / "large").write_bytes(b"x" * 3_000_000)
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000));"
        "from inference.backup_commands import backup; from feature_store import terminal;"
        "sys.exit(terminal.run(backup, ['--home', sys.argv[1], '--json']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, home],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert "make room" in done.stderr
    assert "Traceback" not in done.stderr
    assert backups_in(home / "backups") == []
    assert check(back_up(home).folder).files["bundles/large"].bytes == 3_000_000


def test_commands_say_what_they_did(home, tmp_path, monkeypatch, capsys):
    """Backup, check and restore in words and in JSON; the digest of the list is the same in all."""
    monkeypatch.setattr(cli, "command_paths", lambda: PATHS)
    monkeypatch.setenv("QUANTUM_HOME", str(home))

    assert cli.run(["backup", "--keep", "2", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["journals"]["journal/journal.jsonl"] == 40
    assert cli.run(["restore", made["folder"], "--check", "--json"]) == 0
    checked = json.loads(capsys.readouterr().out)
    assert checked["manifest_sha256"] == made["manifest_sha256"]
    assert checked["restored_to"] is None
    assert cli.run(["restore", made["folder"], "--home", str(tmp_path / "new")]) == 0
    assert "40 entries" in capsys.readouterr().out
    assert cli.run(["restore", made["folder"]]) == 1
    assert "not empty" in capsys.readouterr().err
    assert cli.run(["backup", "--keep", "0"]) == 2
    assert "--keep" in capsys.readouterr().err
    assert cli.run(["backup", "--to", str(tmp_path / "elsewhere")]) == 0
    assert "Backed up to" in capsys.readouterr().out
