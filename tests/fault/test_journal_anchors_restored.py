"""An anchor after a restore: a new one begins, and what the old one said stays until a person deletes it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from inference.bootstrap.past import Past
from inference.bus.catalogue import KINDS
from inference.domain.errors import JournalError
from inference.execution.book import Book
from inference.journal.head import read_head, write_head
from inference.journal.keeping import RESTORED_MARKER
from inference.journal.outside_anchor import ANCHOR_REPLACED, OutsideAnchor
from inference.journal.writer import JournalWriter
from infra.stack import checks
from infra.stack.checks import Level
from infra.stack.home import Home, Programs
from tests.anchor_support import asked, cut, put_back, write


@pytest.fixture
def path(tmp_path):
    """Return where a home keeps its journal."""
    return tmp_path / "home" / "journal" / "journal.jsonl"


@pytest.fixture
def anchor(tmp_path):
    """Return a file outside the home."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder / "journal.anchor"


def test_a_journal_put_back_from_a_backup_begins_a_new_anchor(path, anchor):
    """It ends earlier than it once did: both heads are journaled, and what the anchor said stays as evidence."""
    heads = write(path, 6)
    write_head(anchor, heads[-1])
    cut(path, 3)
    restored, replaced = put_back(path, anchor)

    assert (restored.type, replaced.type) == ("health.restored", ANCHOR_REPLACED)
    told = replaced.data
    assert set(told) == {*KINDS[ANCHOR_REPLACED].fields}
    assert (told["old_seq"], told["old_digest"]) == ("6", heads[5].digest)
    assert (told["new_seq"], told["new_digest"]) == ("3", heads[2].digest)
    assert read_head(Path(told["file"])) == heads[-1]
    assert read_head(anchor) is None
    assert not path.with_name(RESTORED_MARKER).exists()


def test_an_anchor_stays_where_it_is_until_what_replaces_it_is_journaled(path, anchor):
    """A start that is cut short before, or cannot rename it, begins again with the same anchor to be replaced."""
    heads = write(path, 6)
    write_head(anchor, heads[-1])
    cut(path, 3)
    path.with_name(RESTORED_MARKER).write_text("backup")
    kept = OutsideAnchor(anchor)
    with JournalWriter.open(path, anchors=lambda: kept.vouched(path)) as journal:
        anchor.rename(anchor.with_name("away"))
        with pytest.raises(JournalError, match="set aside"):
            Past(Book()).heed_restore(journal, kept)
        anchor.with_name("away").rename(anchor)
    assert read_head(anchor) == heads[-1]

    assert [one.type for one in put_back(path, anchor)] == ["health.restored", ANCHOR_REPLACED]


def test_whoever_claims_a_restore_is_named_until_a_person_deletes_what_was_set_aside(path, anchor, capsys, monkeypatch):
    """A cut with a forged marker: the command and the doctor say which file vouches for more, each time."""
    home = path.parents[1]
    heads = write(path, 6)
    write_head(anchor, heads[-1])
    cut(path, 3)
    put_back(path, anchor, backup="forged")
    (aside,) = anchor.parent.glob("*.before-restore-*")
    monkeypatch.delenv("QT_MLFLOW_URL", raising=False)
    monkeypatch.setenv("QT_JOURNAL_ANCHOR", str(anchor))
    status, out = asked(capsys, "--home", home)
    _, as_json = asked(capsys, "--home", home, "--json")
    programs = Programs()
    found = checks.journal(Home(home), programs)

    assert status == 0
    assert f"{aside} vouches for entry 6, digest {heads[5].digest}" in out
    assert "delete that file" in out
    assert json.loads(as_json)["set_aside"] == [{"where": str(aside), "seq": 6}]
    assert (found.level, f"{aside} (entry 6)" in found.found) == (Level.WARN, True)
    aside.unlink()
    assert "Set aside" not in asked(capsys, "--home", home)[1]
    assert checks.journal(Home(home), programs).level is Level.OK
