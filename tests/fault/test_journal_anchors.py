"""A journal that was cut off or written anew, with whatever lies beside it, is found by an anchor kept elsewhere."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows.anchoring import anchored_head
from inference.bootstrap.anchor_parts import make_anchor
from inference.bus.catalogue import KINDS
from inference.domain.errors import JournalError, SettingsError
from inference.journal import outside_anchor
from inference.journal.anchor import anchor_key, journal_name
from inference.journal.head import Head, read_head, write_head
from inference.journal.outside_anchor import ANCHOR_FAILED, ANCHOR_RECOVERED, OutsideAnchor
from inference.journal.verify import BrokenChainError, Damage, verify
from inference.journal.writer import JournalWriter
from inference.settings import load_settings
from tests.anchor_support import asked, cut, note, write


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


def verdict(path, head):
    found = verify(path, path.with_suffix(".head"), anchors={"elsewhere": head})
    return None if found.finding is None else (found.finding.damage, found.finding.seq)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 12), st.data())
def test_a_cut_below_the_anchor_is_found_and_no_other(tmp_path_factory, count, data):
    """Wherever the cut and the anchor: what the home says of itself is whole, the anchor tells."""
    path = tmp_path_factory.mktemp("home") / "journal.jsonl"
    heads = write(path, count)
    head = data.draw(st.sampled_from(heads))
    keep = data.draw(st.integers(0, count))
    cut(path, keep)

    assert verify(path, path.with_suffix(".head")).is_whole
    assert verdict(path, head) == (None if keep >= head.seq else (Damage.TRUNCATED, keep + 1))


def test_a_journal_written_anew_with_a_chain_that_fits_is_found(path):
    """As long, whole by itself, and another: the entry that the anchor names has another digest."""
    head = write(path, 5)[3]
    for part in path.parent.iterdir():
        part.unlink()
    write(path, 9, start=100)

    assert verify(path, path.with_suffix(".head")).is_whole
    assert verdict(path, head) == (Damage.ANCHOR_DISAGREES, 4)


def test_no_worker_opens_what_was_cut_off(path):
    """Trading does not go on without its record: the start is refused, and says which anchor vouches for more."""
    heads = write(path, 6)
    cut(path, 4)

    with pytest.raises(BrokenChainError, match="the anchor elsewhere vouches for 6"):
        JournalWriter.open(path, anchors=lambda: {"elsewhere": heads[-1]})

    # Nobody holds its lock afterwards.
    JournalWriter.open(path).close()


async def test_the_file_follows_what_is_durable(path, anchor):
    """What a power cut may still take is not vouched for; the rest is, at the latest when the worker ends."""
    kept = OutsideAnchor(anchor)
    with JournalWriter.open(path) as journal:
        kept.follow(journal, lambda _, __: None)
        await kept.write()
        assert read_head(anchor) is None
        note(journal, 1)
        journal.sync()
        note(journal, 2)
        await kept.write()
        assert read_head(anchor).seq == 1
    await kept.close()

    assert read_head(anchor) == read_head(path.with_suffix(".head"))
    assert OutsideAnchor(anchor).vouched(path) == {str(anchor): read_head(anchor)}
    assert OutsideAnchor(None).vouched(path) == {}


def test_anchors_of_two_journals_in_one_folder_do_not_share_a_file(anchor, monkeypatch):
    """Whatever their endings, and whoever writes: each is written beside itself, and nothing is left over."""
    used, replace = [], Path.replace

    def note_and_replace(self, target):
        used.append(self)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", note_and_replace)
    for number, name in enumerate(("desk.a", "desk.b")):
        write_head(anchor.with_name(name), Head(seq=number + 1, digest=name))
    monkeypatch.setattr(os, "getpid", lambda: -1)
    write_head(anchor.with_name("desk.b"), Head(seq=3, digest="later"))

    assert len(set(used)) == 3
    assert [read_head(anchor.with_name(name)).seq for name in ("desk.a", "desk.b")] == [1, 3]
    assert sorted(one.name for one in anchor.parent.iterdir()) == ["desk.a", "desk.b"]


async def test_a_file_that_cannot_be_written_is_told_once_and_again_when_it_can(path, anchor):
    """A disk that is gone stops nothing: the journal says so, and the anchor is brought up to it later."""
    told = []
    folder, away = anchor.parent, anchor.parent.with_name("away")
    kept = OutsideAnchor(anchor)
    with JournalWriter.open(path) as journal:
        kept.follow(journal, lambda kind, detail: told.append((kind, dict(detail))))
        folder.rename(away)
        for number in (1, 2):
            note(journal, number)
            journal.sync()
            await kept.write()
        away.rename(folder)
        await kept.write()

    assert [kind for kind, _ in told] == [ANCHOR_FAILED, ANCHOR_RECOVERED]
    assert all(set(KINDS[kind].fields) <= set(detail) for kind, detail in told)
    assert read_head(anchor).seq == 2


_HUNG = """
import asyncio, os, sys
from pathlib import Path
from inference.domain.events import Noted
from inference.journal.outside_anchor import OutsideAnchor
from inference.journal.writer import JournalWriter
from inference.supervision.federation_watch import Desk, FederationWatch

async def live(home, pipe):
    told, kept = [], OutsideAnchor(pipe)
    desk = Desk(folder=pipe.parent, own="a", members=("a", "b"), fresh_seconds=60)
    hearing = FederationWatch(desk, view=lambda: None, note=lambda *_: None, wall_ms=lambda: 0)
    with JournalWriter.open(home / "journal.jsonl") as journal:
        kept.follow(journal, lambda kind, detail: told.append(kind))
        journal.record(Noted(event_type="health.tested", detail={}), timestamp_ms=1, durable=True)
        task = asyncio.create_task(hearing.run())
        await kept.write()
        await kept.write()
        journal.record(Noted(event_type="health.tested", detail={}), timestamp_ms=2)
    await kept.close()
    task.cancel()
    print(told)

asyncio.run(live(Path(sys.argv[1]), Path(sys.argv[2])))
"""


def test_a_disk_that_hangs_keeps_no_worker_from_its_end(path, anchor):
    """A pipe that nobody reads answers no opening: it is told once, and the process ends without the file."""
    path.parent.mkdir(parents=True)
    # Such pipes are both what the anchor is first written to and a view of the federation.
    code = "import os; pid = os.getpid(); os.mkfifo(f'{sys.argv[2]}.{pid}.tmp'); os.mkfifo(f'{sys.argv[3]}')\n"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}{_HUNG}", path.parent, anchor, anchor.with_name("b.json")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert (done.returncode, done.stdout) == (0, f"['{ANCHOR_FAILED}']\n"), done.stderr
    assert not anchor.exists()
    assert read_head(path.with_suffix(".head")).seq == 2


async def test_what_a_hung_disk_wrote_late_is_followed_by_the_newest(path, anchor, monkeypatch):
    """While one write has not come back no other is begun; once it has, the file is brought up to the last head."""
    told, freed = [], threading.Event()
    monkeypatch.setattr(outside_anchor, "_PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(outside_anchor, "write_head", lambda *args: freed.wait(60) and write_head(*args))
    kept = OutsideAnchor(anchor)
    with JournalWriter.open(path) as journal:
        kept.follow(journal, lambda kind, _: told.append(kind))
        for number in range(3):
            note(journal, number)
            journal.sync()
            await kept.write()
        monkeypatch.setattr(outside_anchor, "_PATIENCE_SECONDS", 60.0)
        freed.set()
        await kept.write()
        assert read_head(anchor).seq == 1
    await kept.close()

    assert told == [ANCHOR_FAILED, ANCHOR_RECOVERED]
    assert read_head(anchor).seq == 3


def test_journals_of_two_machines_have_tags_of_their_own(path, monkeypatch):
    """Homes lie in the same place on many machines; a name that was given is the name everywhere."""
    names = []
    for host in ("one", "two"):
        monkeypatch.setattr(socket, "gethostname", lambda host=host: host)
        names.append((anchor_key(journal_name(path, None)), anchor_key(journal_name(path, "desk"))))

    (first, said), (second, said_again) = names
    assert first != second
    assert said == said_again


async def test_a_journal_elsewhere_is_neither_held_against_the_homes_anchor_nor_vouched_for_by_it(path, anchor):
    """Only the home's own, by whatever way it is named."""
    home = path.parents[1]
    told = load_settings(venue_url="http://x", home=home, journal_anchor=anchor)
    own = write(path, 3)[-1]
    write_head(anchor, own)
    write(home / "other.jsonl", 1)
    for journal in (path, home / "journal" / ".." / "journal" / "journal.jsonl", home / "other.jsonl"):
        kept = make_anchor(told, journal)
        is_own = journal.name == path.name
        assert kept.vouched(journal) == ({str(anchor): own} if is_own else {})
    with JournalWriter.open(home / "other.jsonl") as other:
        kept.follow(other, lambda _, __: None)
        await kept.write()
    await kept.close()

    assert read_head(anchor) == own


def test_a_disk_that_hangs_is_a_sentence_at_the_start(path, anchor, monkeypatch):
    """A worker that cannot see its anchor does not start, and does not wait for ever either."""
    woken = threading.Event()
    monkeypatch.setattr(outside_anchor, "read_head", lambda _: woken.wait())
    monkeypatch.setattr(outside_anchor, "_PATIENCE_SECONDS", 0.05)

    with pytest.raises(JournalError, match=r"has not answered for 0\.05 seconds; QT_JOURNAL_ANCHOR"):
        OutsideAnchor(anchor).vouched(path)
    woken.set()


def test_an_anchor_that_cannot_be_read_is_no_anchor_that_agrees(path, anchor):
    """Half a file, or a folder in its place: the start is refused rather than the anchor passed over."""
    write(path, 2)
    anchor.write_text('{"seq":')
    with pytest.raises(JournalError, match="cannot be read"):
        OutsideAnchor(anchor).vouched(path)
    anchor.unlink()
    anchor.mkdir()

    with pytest.raises(JournalError, match="QT_JOURNAL_ANCHOR"):
        OutsideAnchor(anchor).vouched(path)


def test_the_command_holds_the_homes_own_journal_against_its_anchor(capsys, monkeypatch, path, anchor):
    """By QT_JOURNAL_ANCHOR or --anchor; a copy elsewhere, which may end earlier, against --anchor alone."""
    home = path.parents[1]
    heads = write(path, 6)
    monkeypatch.delenv("QT_MLFLOW_URL", raising=False)
    monkeypatch.setenv("QT_JOURNAL_ANCHOR", str(anchor))
    status, out = asked(capsys, "--home", home)
    assert (status, "no anchor at" in out) == (0, True)
    write_head(anchor, heads[-1])
    status, out = asked(capsys, "--home", home)
    assert (status, "vouches for entry 6, and agrees" in out) == (0, True)
    cut(path, 4)

    status, out = asked(capsys, "--home", home, "--json")
    assert status == 1
    found = json.loads(out)
    assert (found["finding"]["damage"], found["finding"]["seq"]) == ("TRUNCATED", 5)
    assert found["anchors"] == [{"where": str(anchor), "seq": 6}]
    assert asked(capsys, "--journal", path)[0] == 0
    assert asked(capsys, "--journal", path, "--anchor", anchor)[0] == 1
    assert asked(capsys, "--journal", path, "--anchor", anchor.with_name("none"))[0] == 1


@pytest.mark.parametrize("place", ["inside", "no-folder", "a-folder"])
def test_an_anchor_has_to_lie_outside_in_a_folder_that_is_there(tmp_path, place):
    """What loses the home would lose it too, and a disk that is not mounted keeps nothing."""
    home = tmp_path / "home"
    home.mkdir()
    file = {"inside": home / "anchor", "no-folder": tmp_path / "none" / "anchor", "a-folder": tmp_path}[place]

    with pytest.raises(SettingsError, match="QT_JOURNAL_ANCHOR"):
        load_settings(venue_url="http://x", home=home, journal_anchor=file)
    assert load_settings(venue_url="http://x", home=home, journal_anchor=tmp_path / "anchor").journal_anchor is not None


@settings(max_examples=40)
@given(st.integers(1, 10), st.integers(0, 10), st.data())
def test_what_a_flow_vouches_for_goes_on_from_what_it_vouched_for_before(tmp_path_factory, count, more, data):
    """From any earlier head of the same journal it comes to the durable one; from none as well."""
    path = tmp_path_factory.mktemp("home") / "journal.jsonl"
    heads = write(path, count)
    known = data.draw(st.none() | st.sampled_from(heads))
    newest = (heads + (write(path, more, start=count) if more else []))[-1]

    assert anchored_head(path, known, "there") == newest


@settings(max_examples=40)
@given(st.integers(2, 10), st.data())
def test_a_flow_vouches_for_nothing_that_was_cut_off_or_changed(tmp_path_factory, count, data):
    """Below its last anchor, or behind it: the flow fails, and the anchor stays where it was."""
    path = tmp_path_factory.mktemp("home") / "journal.jsonl"
    heads = write(path, count)
    known = data.draw(st.sampled_from(heads))
    how = data.draw(st.sampled_from(["cut", "emptied", "changed", "anew"]))
    if how == "cut":
        cut(path, data.draw(st.integers(0, known.seq - 1)))
    elif how == "emptied":
        path.unlink()
    elif how == "anew":
        for part in path.parent.iterdir():
            part.unlink()
        write(path, count, start=100)
    else:
        lines = path.read_bytes().splitlines(keepends=True)
        at = data.draw(st.integers(known.seq - 1, count - 1))
        lines[at] = lines[at].replace(b'"number":"', b'"number":"9')
        path.write_bytes(b"".join(lines))

    with pytest.raises(JournalError):
        anchored_head(path, known, "there")
