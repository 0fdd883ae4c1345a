from __future__ import annotations

import os
import random
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_store.candle import CandleBlock, Series, Timeframe
from feature_store.errors import BadInputError, CorruptFileError
from feature_store.lake_address import open_lake
from feature_store.storage import storage_of
from feature_store.store import FeatureStore, known_candles
from feature_store.upkeep import compact, retain
from tests.feature_support import BTC, ETH, REPOSITORY, STEP, T0, market, same, without
from tests.object_store import KEYS, object_store

# The market crosses from November into December 2023, so that a block spans two files.
START = T0 + 16 * 86_400_000 - 2 * 3_600_000
BLOCK = market(600, start_ms=START - 200 * STEP)
IN_NOVEMBER = int((BLOCK.open_time_ms.astype("datetime64[ms]") < np.datetime64("2023-12-01")).sum())


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
def lake(setting, tmp_path):
    """An empty lake."""
    return open_lake(setting, tmp_path)


def damage(path, content):
    """Put bytes in place of a file."""
    storage_of(path).exchange(path, lambda _: lambda sink: _write(sink, content))


def _write(sink, content):
    sink.write_bytes(content) if hasattr(sink, "write_bytes") else sink.write(content)


def corrected(block, rows, volume):
    """Return some candles of a block with another volume."""
    values = block.values[rows].copy()
    values[:, 4] = volume
    return CandleBlock(block.open_time_ms[rows], values)


def test_what_is_appended_is_read_once(lake):
    """Overlapping pages across two months, twice: each candle once, oldest first, nothing new the second time."""
    assert lake.append(BTC, BLOCK[200:500]) == 300
    assert lake.append(BTC, BLOCK[:300]) == 200
    assert lake.append(BTC, BLOCK[400:]) == 100
    assert lake.append(BTC, BLOCK) == 0
    assert lake.read(BTC).equals(BLOCK)
    assert [path.stem for path in lake.paths(BTC)] == ["2023-11", "2023-12"]
    assert lake.series() == [BTC]
    assert (lake.first_open_time_ms(BTC), lake.last_open_time_ms(BTC)) == (
        BLOCK.first_open_time_ms,
        BLOCK.last_open_time_ms,
    )
    assert lake.read(BTC, int(BLOCK.open_time_ms[10]), int(BLOCK.open_time_ms[20])).equals(BLOCK[10:20])


def test_an_empty_lake_holds_nothing(lake):
    """Before the first candle every question has an answer."""
    assert lake.series() == []
    assert lake.paths(BTC) == []
    assert len(lake.read(BTC)) == 0
    assert lake.last_open_time_ms(BTC) is None
    assert lake.coverage(BTC).candles == 0
    assert known_candles(lake, [BTC], 10**13) == {}


def test_a_correction_is_kept_beside_what_it_corrects(lake):
    """Both revisions stay, and a read as of a moment gives what was known then."""
    lake.append(BTC, BLOCK)
    wrong = corrected(BLOCK, slice(5, 7), 9e6)
    assert lake.append(BTC, wrong, available_at_ms=10**13) == 2
    assert lake.coverage(BTC).corrections == 2
    assert lake.read(BTC, as_of_ms=10**13 - 1).equals(BLOCK)
    assert lake.read(BTC).values[5:7, 4].tolist() == [9e6, 9e6]


def test_names_and_gaps_come_back(lake):
    """Symbols with slashes, colons and other letters name their own series; missing candles are counted."""
    odd = Series("binance", "Ä %2F?&#=+/USDT:USDT", Timeframe.H1)
    lake.append(odd, market(5, timeframe=Timeframe.H1, start_ms=0))
    lake.append(BTC, without(BLOCK, slice(10, 14)))
    assert lake.series() == sorted([odd, BTC])
    assert (lake.coverage(odd).candles, lake.coverage(BTC).missing) == (5, 4)


@pytest.mark.parametrize(
    "content", [b"", b"not parquet at all", b"PAR1 and no more PAR1"], ids=["empty", "text", "magic"]
)
def test_a_damaged_month_is_named_left_alone_and_set_aside(lake, content):
    """Reading and appending refuse with its name; set aside, its month can be fetched again."""
    lake.append(BTC, BLOCK)
    path = lake.paths(BTC)[0]
    damage(path, content)
    for use in (lambda: lake.read(BTC), lambda: lake.append(BTC, corrected(BLOCK, slice(0, 3), 1.0))):
        with pytest.raises(CorruptFileError, match=r"2023-11\.parquet.*qtctl ingest --repair"):
            use()
    assert storage_of(path).size(path) == len(content)
    aside = lake.set_aside(path, "unreadable")
    assert storage_of(aside).size(aside) == len(content)
    assert ".corrupt-unreadable-" in aside.name
    assert [one.stem for one in lake.paths(BTC)] == ["2023-12"]
    assert lake.append(BTC, BLOCK) == IN_NOVEMBER
    assert lake.read(BTC).equals(BLOCK)


def test_a_refused_block_leaves_the_lake_as_it_was(lake):
    """An impossible candle keeps the whole block out."""
    values = BLOCK.values.copy()
    values[25, 1] = -1
    with pytest.raises(BadInputError):
        lake.append(BTC, CandleBlock(BLOCK.open_time_ms, values))
    assert lake.series() == []


def test_a_month_of_another_series_is_refused(lake):
    """A file that was copied from another symbol's folder is not read as this one's."""
    lake.append(BTC, BLOCK)
    lake.append(ETH, market(600, seed=5, start_ms=START - 200 * STEP))
    ours, theirs = lake.paths(BTC)[0], lake.paths(ETH)[0]
    source = storage_of(theirs).source(theirs)
    damage(ours, source.read_bytes() if hasattr(source, "read_bytes") else source.read())
    with pytest.raises(CorruptFileError, match=r"holds candles of .*ETH"):
        lake.read(BTC)


def test_compaction_changes_no_candle_and_retention_only_whole_months(lake, tmp_path):
    """A rewritten month reads the same; old months go once the features' state is kept, which then goes on."""
    store, more = FeatureStore(tmp_path / "features"), market(700, start_ms=START - 200 * STEP)
    expected = store.training_frame(_filled(lake, more), [BTC], 0, 2**62, 12)[BTC].features
    for path in lake.paths(BTC):
        assert compact(path).rows_dropped == 0
    assert lake.read(BTC).equals(more)
    lake.append(BTC, corrected(more, slice(0, 3), 7.0), available_at_ms=10**12 * 2)
    lake.append(BTC, more[:3], available_at_ms=10**12 * 2 + 9)
    assert compact(lake.paths(BTC)[0], forget_before_ms=10**12 * 2).rows_dropped == 3
    assert compact(lake.paths(BTC)[0], forget_before_ms=10**12 * 3).rows_dropped == 3
    assert lake.read(BTC).equals(more)
    assert retain(lake, store, [BTC], 10**4) == []
    (gone,) = retain(lake, store, [BTC], 0)
    assert (gone.months, [path.stem for path in lake.paths(BTC)]) == (("2023-11",), ["2023-12"])
    assert store.materialize(lake, [BTC])[BTC].resumed
    assert same(store.read(BTC)[1], expected)


def _filled(lake, block):
    lake.append(BTC, block)
    return lake


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(st.tuples(st.integers(0, 199), st.integers(1, 80)), min_size=1, max_size=4), number=st.integers(0)
)
def test_any_order_of_pages_gives_the_same_lake(lake, parts, number):
    """Whatever pages come in whatever order, each candle is there once."""
    one = Series("order", f"S{number}/USDT", Timeframe.M5)
    block, wanted = (
        market(200, start_ms=START),
        np.isin(np.arange(200), lake.read(one).open_time_ms // STEP - START // STEP),
    )
    for at, size in parts:
        new = int((~wanted[at : at + size]).sum())
        wanted[at : at + size] = True
        assert lake.append(one, block[at : at + size]) == new
    assert lake.read(one).equals(CandleBlock(block.open_time_ms[wanted], block.values[wanted]))


WRITER = """
import sys, pathlib
from feature_store.lake_address import open_lake
from tests.contract.test_lake_storages import BLOCK, corrected
from tests.feature_support import BTC
setting, home, worker = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3])
lake = open_lake(setting, home)
print("ready", flush=True)
added = 0
sys.stdin.readline()
# The first goes on until it is killed.
for piece in range(12 if worker > 1 else 10**6):
    rows = slice(180 + 10 * (piece % 12), 180 + 10 * (piece % 12) + 15)
    added += lake.append(BTC, BLOCK[rows])
    # Nobody else writes this volume, so that each of these is a revision of its own.
    done = lake.append(BTC, corrected(BLOCK, slice(0, 2), 10**6 * worker + piece + 1))
    print(f"done {10**6 * worker + piece + 1} {done}", flush=True)
print(f"added {added}", flush=True)
"""


def start(setting, home, worker):
    """Start a process of ours and wait until it has imported everything."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, setting, str(home), str(worker)],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def test_processes_write_one_month_and_one_is_killed(lake, setting, tmp_path):
    """Four writers of the same months, one of them killed: nothing acknowledged is lost, nothing is doubled."""
    writers = [start(setting, tmp_path, number) for number in range(1, 5)]
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    # Once it has stored something, it dies in the middle of whatever it does.
    first = writers[0].stdout.readline()
    time.sleep(random.uniform(0, 0.1))
    writers[0].kill()
    seen = 0
    while any(writer.poll() is None for writer in writers):
        found = lake.read_rows(BTC)
        assert len(found) >= seen
        seen = len(found)
    told = (first + "".join(writer.communicate(timeout=120)[0] for writer in writers)).splitlines()
    assert [writer.returncode for writer in writers] == [-9, 0, 0, 0]
    rows = lake.read_rows(BTC)
    volumes = rows.block.values[rows.block.open_time_ms == BLOCK.open_time_ms[0], 4].tolist()
    assert len(set(volumes)) == len(volumes)
    done = [line.split() for line in told if line.startswith("done ") and len(line.split()) == 3]
    assert {float(number) for _, number, _ in done} <= set(volumes)
    assert {count for *_, count in done} == {"2"}
    times = rows.block.open_time_ms[rows.block.open_time_ms >= BLOCK.open_time_ms[180]]
    assert times.tolist() == BLOCK.open_time_ms[180:305].tolist()
    assert sum(int(line.split()[1]) for line in told if line.startswith("added")) <= 125
