from __future__ import annotations

import errno
import json
import subprocess
import sys
import textwrap

import pytest

from inference.domain.errors import JournalError
from inference.domain.events import AccountMarked, Noted
from inference.journal import writer as writer_module
from inference.journal.codec import event_of
from inference.journal.reader import read_entries
from inference.journal.verify import BrokenChainError, Damage, verify
from inference.journal.writer import JournalWriter


def write(path, count, *, start=0):
    with JournalWriter.open(path) as journal:
        for number in range(start, start + count):
            journal.record(
                Noted(event_type="health.tested", detail={"number": str(number)}), timestamp_ms=number, trace_id="t"
            )


def lines_of(path):
    return path.read_bytes().splitlines(keepends=True)


@pytest.fixture
def path(tmp_path):
    write(tmp_path / "journal" / "journal.jsonl", 8)
    return tmp_path / "journal" / "journal.jsonl"


def check(path):
    return verify(path, path.with_suffix(".head"))


def forged(line, **changes):
    entry = {**json.loads(line), **changes}
    return json.dumps(entry, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def test_a_journal_left_alone_verifies(path):
    """Eight entries written, eight entries verified, over two openings."""
    write(path, 3, start=8)

    assert check(path).is_whole
    assert check(path).entries == 11
    assert [event_of(entry).detail["number"] for entry in read_entries(path)] == [str(n) for n in range(11)]


@pytest.mark.parametrize(
    ("damage", "seq", "mend"),
    [
        pytest.param(
            Damage.CHANGED,
            3,
            lambda lines: [*lines[:2], forged(lines[2], data={"number": "99"}), *lines[3:]],
            id="changed",
        ),
        pytest.param(Damage.REMOVED, 3, lambda lines: [*lines[:2], *lines[3:]], id="removed"),
        pytest.param(Damage.REORDERED, 3, lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]], id="reordered"),
        pytest.param(Damage.REORDERED, 4, lambda lines: [*lines[:3], lines[1], *lines[3:]], id="repeated"),
        pytest.param(Damage.TRUNCATED, 7, lambda lines: lines[:6], id="last-two-cut-off"),
        pytest.param(Damage.TRUNCATED, 1, lambda lines: [], id="emptied"),
        pytest.param(Damage.UNREADABLE, 5, lambda lines: [*lines[:4], b"not an entry\n", *lines[5:]], id="unreadable"),
        pytest.param(Damage.UNREADABLE, 5, lambda lines: [*lines[:4], b" " + lines[4], *lines[5:]], id="spaces-added"),
    ],
)
def test_damage_is_named_with_its_entry(path, damage, seq, mend):
    """Whatever was done to the file, verification says what and at which entry, and no worker opens it."""
    path.write_bytes(b"".join(mend(lines_of(path))))
    finding = check(path).finding

    assert finding is not None
    assert (finding.damage, finding.seq) == (damage, seq)
    with pytest.raises(BrokenChainError):
        JournalWriter.open(path)


def test_a_chain_rewritten_from_the_middle_disagrees_with_its_anchor(path, tmp_path):
    """Recomputing every digest after a change makes a whole chain, yet not the one that the anchor vouches for."""
    other = tmp_path / "other" / "journal.jsonl"
    with JournalWriter.open(other) as journal:
        for number in range(8):
            told = "lie" if number == 4 else str(number)
            journal.record(
                Noted(event_type="health.tested", detail={"number": told}), timestamp_ms=number, trace_id="t"
            )
    path.write_bytes(other.read_bytes())
    finding = check(path).finding

    assert finding is not None
    assert finding.damage is Damage.ANCHOR_DISAGREES


def test_a_torn_last_line_is_cut_off_kept_and_reported(path):
    """A crash in the middle of a line costs that line only; what was there of it is kept beside the journal."""
    with path.open("ab") as file:
        file.write(b'{"data":{"number":"8"},"dig')
    with JournalWriter.open(path) as journal:
        assert journal.recovered is not None
        assert journal.recovered.length == 27
        journal.record(Noted(event_type="health.recovered", detail={}), timestamp_ms=9)

    assert check(path).is_whole
    assert check(path).entries == 9
    assert [torn.read_bytes() for torn in path.parent.glob("*.torn-*")] == [b'{"data":{"number":"8"},"dig']


def test_a_durable_line_that_lost_its_end_is_damage_not_a_crash(path):
    """What the anchor vouches for was whole once: cutting it is not taken for a crash."""
    path.write_bytes(path.read_bytes()[:-10])

    with pytest.raises(BrokenChainError, match="truncated"):
        JournalWriter.open(path)


def test_two_writers_are_one_too_many(path):
    """A second process is told who is in the way; the first goes on."""
    with JournalWriter.open(path) as journal:
        with pytest.raises(JournalError, match="Another process writes"):
            JournalWriter.open(path)
        journal.record(Noted(event_type="health.tested", detail={}), timestamp_ms=0)

    assert check(path).entries == 9


def test_a_full_disk_stops_the_record_and_leaves_it_whole(path):
    """A write that the disk cuts short is undone: the error is clear and the journal still verifies."""
    script = textwrap.dedent(
        """
        import resource, signal, sys
        from pathlib import Path
        from inference.domain.errors import JournalError
        from inference.domain.events import Noted
        from inference.journal.writer import JournalWriter
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        path = Path(sys.argv[1])
        with JournalWriter.open(path) as journal:
            limit = path.stat().st_size + 700
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            written = 0
            try:
                while True:
                    journal.record(Noted(event_type="health.tested", detail={"x": "y" * 100}), timestamp_ms=0)
                    written += 1
            except JournalError as error:
                print(written, error)
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            journal.record(Noted(event_type="health.resumed", detail={}), timestamp_ms=0)
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=60, check=True
    )

    assert done.stdout.startswith("2 The journal")
    assert "no order is sent without a record" in done.stdout
    assert check(path).is_whole
    assert check(path).entries == 11


def test_nothing_is_trusted_after_a_failed_fsync(path, monkeypatch):
    """After fsync failed the writer refuses everything: the kernel may have dropped what it held."""
    journal = JournalWriter.open(path)

    def broken(_descriptor):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(writer_module.os, "fsync", broken)
    with pytest.raises(JournalError, match="cannot be made durable"):
        journal.record(Noted(event_type="health.tested", detail={}), timestamp_ms=0, durable=True)
    with pytest.raises(JournalError, match="earlier failure"):
        journal.record(Noted(event_type="health.tested", detail={}), timestamp_ms=0)
    monkeypatch.undo()
    journal.close()

    assert check(path).is_whole


def test_a_killed_process_loses_nothing_it_recorded(tmp_path):
    """What `record` returned for survives kill -9, durable or not."""
    path = tmp_path / "journal.jsonl"
    script = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        from inference.domain.events import Noted
        from inference.journal.writer import JournalWriter
        journal = JournalWriter.open(Path(sys.argv[1]))
        for number in range(50):
            journal.record(Noted(event_type="health.tested", detail={"n": str(number)}), timestamp_ms=number)
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    subprocess.run([sys.executable, "-c", script, str(path)], timeout=60, check=False)

    assert check(path).entries == 50
    with JournalWriter.open(path) as journal:
        assert journal.seq == 50


def test_an_entry_of_another_shape_says_so(tmp_path):
    """Data that does not fit its type is an error that names entry and type."""
    path = tmp_path / "journal.jsonl"
    with JournalWriter.open(path) as journal:
        journal.record(Noted(event_type=AccountMarked.event_type, detail={"equity": "1"}), timestamp_ms=0)
    (entry,) = read_entries(path)

    with pytest.raises(JournalError, match=r"entry 1 \(risk.account_marked\)"):
        event_of(entry)


def test_the_folder_of_a_new_journal_is_made(tmp_path):
    """A first start needs no preparation, and leaves journal, anchor and lock in their folder."""
    path = tmp_path / "a" / "b" / "journal.jsonl"
    write(path, 1)

    assert sorted(one.name for one in path.parent.iterdir()) == ["journal.head", "journal.jsonl", "journal.lock"]
