from __future__ import annotations

import signal
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.errors import CorruptFileError
from feature_store.kinds.asked import Asked
from feature_store.kinds.definition import FUNDING, KINDS, TRADES
from feature_store.kinds.store import KindStore
from tests.kind_support import BTC_PERP, NEVER, rows_of, start, subject_of

WRITER = """
import sys, pathlib
from feature_store.kinds.definition import FUNDING
from feature_store.kinds.store import KindStore
from tests.kind_support import BTC_PERP, NEVER, rows_of
store, worker = KindStore(pathlib.Path(sys.argv[1])), int(sys.argv[2])
rows, added = rows_of(FUNDING, 400), 0
print("ready", flush=True)
for piece in range(worker, 40, 3):
    added += store.append(BTC_PERP, rows.take(slice(piece * 10, piece * 10 + 15)), arrived_ms=NEVER)
print(added)
"""

ENDLESS = """
import sys, pathlib
from feature_store.kinds.definition import FUNDING
from feature_store.kinds.records import Records
from feature_store.kinds.store import KindStore
from tests.kind_support import BTC_PERP, NEVER, rows_of
store, rows = KindStore(pathlib.Path(sys.argv[1])), rows_of(FUNDING, 400)
print("ready", flush=True)
for number in range(1, 10**6):
    few = rows.take(slice(0, 5))
    other = Records.of(FUNDING, few.time_ms, funding_rate=few["funding_rate"] + number * 1e-6)
    store.append(BTC_PERP, other, arrived_ms=NEVER + number)
"""


def test_several_processes_append_to_one_file(tmp_path):
    """Three writers of overlapping rows and a reader: nothing is lost, doubled, or seen half."""
    store, rows = KindStore(tmp_path), rows_of(FUNDING, 400)
    writers = [start(WRITER, str(tmp_path), str(number)) for number in range(3)]
    seen = 0
    while any(writer.poll() is None for writer in writers):
        found = len(store.read(FUNDING, BTC_PERP))
        assert found >= seen
        seen = found
        time.sleep(0.01)
    outputs = [writer.communicate(timeout=200)[0] for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * 3
    assert store.read(FUNDING, BTC_PERP).equals(rows)
    assert sum(int(output) for output in outputs) == 400


def test_a_killed_writer_leaves_whole_files_and_no_lock(tmp_path):
    """Kill -9 while corrections are written: every row reads whole, and the next writer is not held up."""
    store, rows = KindStore(tmp_path), rows_of(FUNDING, 400)
    store.append(BTC_PERP, rows, arrived_ms=NEVER)
    for pause in (0.0, 0.013, 0.031, 0.047):
        process = start(ENDLESS, str(tmp_path))
        before = len(store.read_known(FUNDING, BTC_PERP))
        while len(store.read_known(FUNDING, BTC_PERP)) == before:
            time.sleep(0.005)
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=100)
        assert process.stdout is not None
        process.stdout.close()
        assert len(store.read(FUNDING, BTC_PERP)) == 400
    assert store.append(BTC_PERP, store.read(FUNDING, BTC_PERP), arrived_ms=NEVER) == 0
    assert store.read(FUNDING, BTC_PERP, as_of_ms=NEVER - 1).equals(rows)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: b"", id="empty"),
        pytest.param(lambda content: content[: len(content) // 2], id="truncated"),
        pytest.param(lambda content: content[:40] + bytes(20) + content[60:], id="overwritten"),
    ],
)
def test_a_damaged_file_is_named_and_left_alone(tmp_path, damage):
    """Reading and appending both refuse with the file and the remedy; nothing is overwritten."""
    store = KindStore(tmp_path)
    store.append(BTC_PERP, rows_of(FUNDING, 100), arrived_ms=NEVER)
    path = next(tmp_path.rglob("*.parquet"))
    path.write_bytes(damage(path.read_bytes()))
    content = path.read_bytes()
    for use in (
        lambda: store.read(FUNDING, BTC_PERP),
        lambda: store.append(BTC_PERP, rows_of(FUNDING, 200), arrived_ms=NEVER),
        lambda: store.coverage(FUNDING, BTC_PERP),
    ):
        with pytest.raises(CorruptFileError, match=r"2023-11\.parquet.*qtctl ingest --repair --kinds"):
            use()
    assert path.read_bytes() == content


def test_a_file_of_other_columns_is_refused(tmp_path):
    """A Parquet file that is whole but of another kind is not read as this one."""
    store = KindStore(tmp_path)
    store.append(BTC_PERP, rows_of(FUNDING, 3), arrived_ms=NEVER)
    pq.write_table(pa.table({"a": [1]}), next(tmp_path.rglob("*.parquet")))
    with pytest.raises(CorruptFileError, match="expected columns"):
        store.read(FUNDING, BTC_PERP)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_rows_come_back_as_they_went_in(tmp_path, kind):
    """Every kind keeps its columns to the bit over files of months, days and hours, and tells what it holds."""
    store, subject, rows = KindStore(tmp_path), subject_of(kind), rows_of(kind, 300)
    if kind.changes_only:
        rows.columns["price_tick"][:] = [0.01 * (1 + row) for row in range(300)]
    rows = rows.take(rows.order())
    assert store.append(subject, rows, arrived_ms=NEVER) == 300
    assert store.read(kind, subject).equals(rows)
    part = store.read(kind, subject, int(rows.time_ms[7]), int(rows.time_ms[200]))
    assert part.equals(rows.between(int(rows.time_ms[7]), int(rows.time_ms[200])))
    assert store.subjects(kind) == [subject]
    assert store.last(kind, subject).equals(rows.take(rows.time_ms == rows.time_ms[-1]))
    coverage = store.coverage(kind, subject)
    assert (coverage.first_ms, coverage.last_ms) == (rows.time_ms[0], rows.time_ms[-1])
    assert (coverage.rows, coverage.corrections) == (300, 0)
    assert len(store.read(kind, subject, NEVER, None)) == 0


def test_kinds_lie_apart_from_each_other_and_from_candles(tmp_path):
    """What is stored of one kind is not found under another."""
    store = KindStore(tmp_path)
    store.append(BTC_PERP, rows_of(FUNDING, 3), arrived_ms=NEVER)
    assert len(store.read(TRADES, BTC_PERP)) == 0
    assert store.subjects(TRADES) == []
    assert store.coverage(TRADES, BTC_PERP).rows == 0
    assert [path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*.parquet")] == ["funding"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"asked": [[1]]}', b'{"asked": 5}', b'{"asked": [["a", 2]]}'])
def test_notes_that_cannot_be_read_cost_asking_again(tmp_path, content):
    """A torn or foreign note of what was asked counts as none, and the next note replaces it."""
    asked = Asked(tmp_path, tmp_path, FUNDING, BTC_PERP)
    asked.note(10, 20)
    next(tmp_path.rglob("asked.json")).write_bytes(content)
    assert asked.spans() == ()
    assert [(span.start_ms, span.end_ms) for span in asked.lacking(0, 30)] == [(0, 30)]
    asked.note(5, 25)
    assert [(span.start_ms, span.end_ms) for span in asked.lacking(0, 30)] == [(0, 5), (25, 30)]
