from __future__ import annotations

import json
import os
import subprocess
import sys
from fnmatch import fnmatch

import numpy as np
import pytest

from feature_store.absences import Span
from feature_store.errors import CorruptFileError
from feature_store.kinds.asked import Asked
from feature_store.kinds.definition import FUNDING, KINDS, MARK
from feature_store.kinds.partition import folder_of, path_of
from feature_store.kinds.records import Records
from feature_store.kinds.store import KindStore
from feature_store.lake_address import open_lake
from feature_store.sources.kind_ingest import ingest_kind
from feature_store.storage import storage_of
from tests.feature_support import REPOSITORY
from tests.kind_support import BTC_PERP, HOUR, NEVER, rows_of, subject_of
from tests.kind_venue_double import NOW, kind_venue
from tests.object_store import KEYS, object_store


@pytest.fixture(scope="module")
def server():
    """An object store that runs as long as this module's tests."""
    with object_store() as store:
        yield store


@pytest.fixture(params=["folder", "object store"])
def setting(request, tmp_path, server, monkeypatch):
    """What QT_LAKE says, for each kind of lake in turn."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    return str(tmp_path / "lake") if request.param == "folder" else server.address(tmp_path.name)


@pytest.fixture
def store(setting, tmp_path):
    """An empty store of kinds."""
    lake = open_lake(setting, tmp_path)
    return KindStore(lake.root, lake.place)


def test_every_kind_is_kept_wherever_the_lake_is(store):
    """Rows, corrections and reads as of a moment are the same in a folder and in an object store."""
    for kind in KINDS:
        subject, rows = subject_of(kind), rows_of(kind, 60)
        if kind.changes_only:
            rows.columns["price_tick"][:] = 0.01 * np.arange(1, 61)
        rows = rows.take(rows.order())
        assert store.append(subject, rows.take(slice(0, 40)), arrived_ms=NEVER) == 40
        assert store.append(subject, rows.take(slice(20, 60)), arrived_ms=NEVER) == 20
        assert store.append(subject, rows, arrived_ms=NEVER) == 0
        assert store.read(kind, subject).equals(rows)
        assert store.subjects(kind) == [subject]
        assert store.last(kind, subject).equals(rows.take(rows.time_ms == rows.time_ms[-1]))
    rows = rows_of(FUNDING, 60)
    other = Records.of(FUNDING, rows.time_ms, funding_rate=rows["funding_rate"] / 2)
    assert store.append(BTC_PERP, other, arrived_ms=NEVER) == 60
    assert store.read(FUNDING, BTC_PERP).equals(other)
    assert store.read(FUNDING, BTC_PERP, as_of_ms=NEVER - 1).equals(rows)
    assert store.coverage(FUNDING, BTC_PERP).corrections == 60


def test_a_damaged_file_is_named_and_set_aside_wherever_the_lake_is(store):
    """A damaged file refuses with its name; set aside, its stretch can be stored again. Notes stay on this machine."""
    store.append(BTC_PERP, rows_of(FUNDING, 8), arrived_ms=NEVER)
    Asked(store.root, store.place, FUNDING, BTC_PERP).note(1, 2)
    path = path_of(folder_of(store.place, FUNDING, BTC_PERP), "2023-11")
    storage_of(path).exchange(path, lambda _: spoil)
    with pytest.raises(CorruptFileError, match=r"2023-11\.parquet.*qtctl ingest --repair --kinds"):
        store.read(FUNDING, BTC_PERP)
    with pytest.raises(CorruptFileError):
        store.append(BTC_PERP, rows_of(FUNDING, 9), arrived_ms=NEVER)
    (aside,) = store.set_aside_damaged(FUNDING, BTC_PERP)
    assert "2023-11.parquet.corrupt-" in aside
    assert len(store.read(FUNDING, BTC_PERP)) == 0
    assert store.append(BTC_PERP, rows_of(FUNDING, 8), arrived_ms=NEVER) == 8
    (note,) = store.root.rglob("*.json")
    assert fnmatch(note.name, "asked.json" if store.place == store.root else "asked-*.json")


def test_what_one_lake_was_told_says_nothing_of_another(server, tmp_path, monkeypatch):
    """A folder, two prefixes of one bucket and another store each have notes of their own, on one machine."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    address = server.address("asked-one")
    settings = [None, address, server.address("asked-other"), address.replace("127.0.0.1", "localhost")]
    lakes = [open_lake(setting, tmp_path) for setting in settings]
    assert len({lake.root for lake in lakes}) == 1
    asked = [Asked(lake.root, lake.place, FUNDING, BTC_PERP) for lake in lakes]
    for number, one in enumerate(asked):
        assert one.lacking(0, 10) == (Span(0, 10),)
        one.note(number, 10)
    assert [one.lacking(0, 10) for one in asked] == [(), (Span(0, 1),), (Span(0, 2),), (Span(0, 3),)]
    asked[1].forget()
    assert [len(one.spans()) for one in asked] == [1, 0, 1, 1]


async def test_a_fetch_into_another_lake_asks_for_everything(server, tmp_path, monkeypatch):
    """After QT_LAKE has changed, what an earlier lake holds is fetched again; a second run there brings nothing."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    async with kind_venue() as (_, exchange):
        for setting in (None, server.address("fetched-one"), server.address("fetched-other")):
            lake = open_lake(setting, tmp_path)
            store = KindStore(lake.root, lake.place)
            since_ms = NOW - 40 * 8 * HOUR
            done = [await ingest_kind(exchange, store, FUNDING, BTC_PERP, since_ms, NOW) for _ in range(2)]
            assert [one.appended for one in done] == [40, 0]
            assert len(store.read(FUNDING, BTC_PERP)) == 40


def test_notes_of_local_lakes_that_were_written_before_stay_valid(tmp_path):
    """A local lake reads `asked.json` as it always was."""
    folder = folder_of(tmp_path, FUNDING, BTC_PERP)
    folder.mkdir(parents=True)
    (folder / "asked.json").write_text('{"asked": [[5, 25]]}')
    assert Asked(tmp_path, tmp_path, FUNDING, BTC_PERP).spans() == (Span(5, 25),)


def spoil(sink) -> None:
    """Write what is no Parquet file."""
    content = b"PAR1 and no more PAR1"
    sink.write_bytes(content) if hasattr(sink, "write_bytes") else sink.write(content)


WRITER = """
import json, sys, pathlib
from feature_store.kinds.definition import MARK
from feature_store.kinds.store import KindStore
from feature_store.lake_address import open_lake
from tests.kind_support import BTC_MARK, NEVER, rows_of
lake = open_lake(sys.argv[1], pathlib.Path(sys.argv[2]))
store, worker, rows, added = KindStore(lake.root, lake.place), int(sys.argv[3]), rows_of(MARK, 60), 0
for piece in range(worker, 12, 2):
    added += store.append(BTC_MARK, rows.take(slice(piece * 5, piece * 5 + 8)), arrived_ms=NEVER)
print(json.dumps(added))
"""


def test_two_processes_append_to_one_file_wherever_the_lake_is(store, setting, tmp_path):
    """Overlapping rows from two processes: each row once, and each counted as new by one of them."""
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, setting, str(tmp_path), str(number)],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    added = [json.loads(writer.communicate(timeout=200)[0]) for writer in writers]
    assert sum(added) == 60
    assert store.read(MARK, subject_of(MARK)).equals(rows_of(MARK, 60))
