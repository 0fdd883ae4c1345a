"""The proof of the lake finds what it is there to find."""

from __future__ import annotations

import numpy as np
import pytest

from feature_store.candle import CandleBlock
from feature_store.partitions import Rows, read_partition, write_partition
from infra.prove.lake import Ledger, judge, read_ledgers
from infra.prove.lake_crew import KEPT_FROM_MS, PLAIN, SERIES, STEP, Ground, Page, flaw, note

CORRECTED = len(PLAIN)


@pytest.fixture
def ground(tmp_path):
    """A lake in which every series was written to twice, overlapping, as the ledger says."""
    ground = Ground(tmp_path)
    for series, one in enumerate(SERIES):
        for turn in range(2):
            page = Page(1_000 + 2 * series + turn, series, KEPT_FROM_MS + turn * 3 * STEP, 6)
            note(ground.ledger(1), {"page": [page.number, page.series, page.first_ms, page.candles]})
            note(ground.ledger(1), {"done": page.number, "added": ground.lake.append(one, page.block)})
    return ground


def judged(ground):
    """Judge a lake by what its ledgers say."""
    return judge(ground, read_ledgers(ground, Ledger()))


def rewrite(ground, series, change):
    """Change the stored rows of a series behind the lake's back."""
    path = ground.lake.paths(SERIES[series])[0]
    write_partition(path, change(read_partition(path)))


def without_row(row):
    """Return a change that leaves out one row."""
    return lambda rows: rows.take(np.delete(np.arange(len(rows)), row))


def test_a_whole_lake_is_found_whole(ground):
    """Overlapping pages and corrections are no fault."""
    found = judged(ground)
    assert found.is_clean
    assert found.candles == 9 * len(SERIES)


@pytest.mark.parametrize("series", [0, CORRECTED])
def test_a_lost_candle_is_found(ground, series):
    """One row less than was acknowledged, plain or corrected."""
    rewrite(ground, series, without_row(0))
    assert judged(ground).lost == 1


@pytest.mark.parametrize("series", [0, CORRECTED])
def test_a_doubled_candle_is_found(ground, series):
    """The same candle twice, even as a revision."""

    def twice(rows: Rows) -> Rows:
        double = rows.take(np.repeat(np.arange(len(rows)), np.where(np.arange(len(rows)) == 8, 2, 1)))
        double.revision[9] += 1
        return double

    rewrite(ground, series, twice)
    assert judged(ground).doubled == 1


def test_a_torn_file_is_found(ground):
    """A file that does not read whole."""
    path = ground.lake.paths(SERIES[1])[0]
    path.write_bytes(path.read_bytes()[:-20])
    assert judged(ground).torn == 1


@pytest.mark.parametrize("series", [0, CORRECTED])
def test_a_candle_that_nobody_wrote_is_found(ground, series):
    """A stored row that no page accounts for."""
    stranger = Page(77, series, KEPT_FROM_MS + 100 * STEP, 1)
    ground.lake.append(SERIES[series], stranger.block)
    assert judged(ground).alien == 1


def test_half_of_an_append_is_found(ground):
    """A page that a kill cut short is there by whole months, or not at all."""
    page = Page(5_000, CORRECTED, KEPT_FROM_MS + 200 * STEP, 4)
    note(ground.ledger(2), {"page": [page.number, page.series, page.first_ms, page.candles]})
    assert judged(ground).is_clean
    ground.lake.append(SERIES[CORRECTED], page.block[:2])
    assert judged(ground).halved == 1


def test_a_ledger_whose_last_line_is_torn_is_read(ground):
    """The line that a kill cut short counts for nothing: what it announces was never begun."""
    with ground.ledger(1).open("a") as ledger:
        ledger.write('{"page": [9, 0')
    assert judged(ground).is_clean


def test_readers_see_flaws(ground):
    """Disorder, a missing revision, a changed price and a foreign number are each told."""
    plain, corrected = ground.lake.read_rows(SERIES[0]), ground.lake.read_rows(SERIES[CORRECTED])
    assert flaw(0, plain) is None
    assert flaw(CORRECTED, corrected) is None
    assert flaw(0, plain.take(np.arange(len(plain))[::-1])) == "candles out of order"
    # Of a candle with two revisions the first is left out.
    assert flaw(CORRECTED, without_row(3)(corrected)) == "a revision is missing or there twice"
    assert flaw(0, _with(plain, 4, 8.0)) == "a candle that nobody wrote"
    assert flaw(CORRECTED, _with(corrected, 0, 1e9)) == "a candle that is not what was written"


def _with(rows: Rows, column: int, value: float) -> Rows:
    values = rows.block.values.copy()
    values[2, column] = value
    return Rows(CandleBlock(rows.block.open_time_ms, values), rows.available_at_ms, rows.revision)
