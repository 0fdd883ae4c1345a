from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.candle import CandleBlock, Series, Timeframe
from feature_store.errors import BadInputError, CorruptFileError
from feature_store.files import replacing
from feature_store.lake import CandleLake
from feature_store.store import known_candles
from tests.feature_support import BTC, ETH, REPOSITORY, market, without

WRITER = """
import sys, pathlib
from feature_store.lake import CandleLake
from tests.feature_support import BTC, market
lake, worker, workers = CandleLake(pathlib.Path(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])
block = market(600)
print("ready", flush=True)
added = 0
for piece in range(worker, 60, workers):
    added += lake.append(BTC, block[piece * 10 : piece * 10 + 15])
print(added)
"""

ENDLESS = """
import sys, pathlib, random
from feature_store.lake import CandleLake
from tests.feature_support import BTC, market
lake, block = CandleLake(pathlib.Path(sys.argv[1])), market(3000, flat=0)
print("ready", flush=True)
for number in range(10**6):
    at = number * 7 % 3000
    values = block[at : at + 5].values.copy()
    values[:, 4] = number
    lake.append(BTC, type(block)(block[at : at + 5].open_time_ms, values), available_at_ms=10**13 + number)
"""


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a process of ours and wait until it has imported everything."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_several_processes_write_one_partition(tmp_path):
    """Four writers of overlapping candles and a reader: nothing is lost, doubled, or seen half."""
    lake, block = CandleLake(tmp_path), market(600)
    writers = [start(WRITER, str(tmp_path), str(number), "4") for number in range(4)]
    seen = 0
    while any(writer.poll() is None for writer in writers):
        found = lake.read(BTC)
        assert len(found) >= seen
        assert set(found.open_time_ms.tolist()) <= set(block.open_time_ms.tolist())
        seen = len(found)
        time.sleep(0.01)
    outputs = [writer.communicate(timeout=200)[0] for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * 4
    assert lake.read(BTC).equals(block)
    assert sum(int(output) for output in outputs) == 600


def test_a_killed_writer_leaves_whole_files_and_no_lock(tmp_path):
    """Kill -9 at random moments: the file reads whole, and the next writer is not held up."""
    lake, rng = CandleLake(tmp_path), random.Random(7)
    lake.append(BTC, market(3000, flat=0))
    for _ in range(6):
        process = start(ENDLESS, str(tmp_path))
        rows = len(lake.read_rows(BTC))
        while len(lake.read_rows(BTC)) == rows:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=100)
        assert process.stdout is not None
        process.stdout.close()
        assert len(lake.read(BTC)) == 3000
    assert lake.append(ETH, market(10)) == 10
    assert lake.append(BTC, lake.read(BTC)) == 0


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: b"", id="empty"),
        pytest.param(lambda content: content[: len(content) // 2], id="truncated"),
        pytest.param(lambda content: b"not parquet at all", id="text"),
        pytest.param(lambda content: content[:200] + bytes(100) + content[300:], id="overwritten"),
    ],
)
def test_a_damaged_partition_is_named_and_left_alone(tmp_path, damage):
    """Reading and appending both refuse with the file and the remedy; nothing is overwritten."""
    lake = CandleLake(tmp_path)
    lake.append(BTC, market(500))
    path = lake.paths(BTC)[0]
    path.write_bytes(damage(path.read_bytes()))
    content = path.read_bytes()
    for use in (lambda: lake.read(BTC), lambda: lake.append(BTC, market(600)), lambda: lake.coverage(BTC)):
        with pytest.raises(CorruptFileError, match=r"\d{4}-\d\d\.parquet.*qtctl ingest --repair"):
            use()
    with pytest.raises(CorruptFileError, match="qtctl ingest --repair"):
        known_candles(lake, [BTC], 10**13)
    assert path.read_bytes() == content


def test_a_partition_of_other_columns_is_refused(tmp_path):
    """A Parquet file that is whole but not ours is not mistaken for candles."""
    lake = CandleLake(tmp_path)
    lake.append(BTC, market(5))
    pq.write_table(pa.table({"a": [1]}), lake.paths(BTC)[0])
    with pytest.raises(CorruptFileError, match="expected columns"):
        lake.read(BTC)


def test_setting_aside_lets_the_month_be_fetched_again(tmp_path):
    """A damaged file keeps its content under another name, and its month is writable again."""
    lake, block = CandleLake(tmp_path), market(50)
    lake.append(BTC, block)
    path = lake.paths(BTC)[0]
    path.write_bytes(b"damaged")
    aside = lake.set_aside(path)
    assert aside.read_bytes() == b"damaged"
    assert len(lake.read(BTC)) == 0
    assert lake.append(BTC, block) == 50


def test_a_refused_block_writes_nothing(tmp_path):
    """An impossible candle in the middle keeps the whole block out."""
    lake, block = CandleLake(tmp_path), market(50)
    values = block.values.copy()
    values[25, 1] = -1
    with pytest.raises(BadInputError):
        lake.append(BTC, CandleBlock(block.open_time_ms, values))
    assert lake.series() == []


def test_series_and_coverage_tell_what_is_stored(tmp_path):
    """Symbols with slashes and colons come back as they went in; gaps are counted."""
    lake = CandleLake(tmp_path)
    hourly = Series("binance", "A/B", Timeframe.H1)
    lake.append(hourly, market(5, timeframe=Timeframe.H1, start_ms=0))
    lake.append(BTC, without(market(100), slice(10, 14)))
    assert lake.series() == [hourly, BTC]
    coverage = lake.coverage(BTC)
    assert (coverage.candles, coverage.missing, coverage.corrections) == (96, 4, 0)
    assert lake.coverage(ETH).first_open_time_ms is None
    assert {one: len(block) for one, block in lake.read_many([BTC, hourly]).items()} == {BTC: 96, hourly: 5}


def test_an_error_while_replacing_leaves_the_old_file(tmp_path):
    """What fails halfway changes nothing and leaves no litter."""
    path = tmp_path / "file"
    path.write_text("old")

    def fail(temporary: Path) -> None:
        temporary.write_text("new")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), replacing(path) as temporary:
        fail(temporary)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
