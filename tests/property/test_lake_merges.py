from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.candle import CandleBlock, Timeframe
from feature_store.lake import BACKFILL_DELAY_MS, CandleLake
from tests.feature_support import BTC, STEP, T0, market

quick = settings(max_examples=25, deadline=None)
pieces = st.lists(st.tuples(st.integers(0, 199), st.integers(1, 80)), min_size=1, max_size=6)
# The market crosses from November into December 2023, so that merges span two files.
START = T0 + 16 * 86_400_000 - 2 * 3_600_000


@quick
@given(parts=pieces)
def test_the_lake_holds_what_was_appended_in_any_order(parts):
    """Overlapping pieces in any order, each of them twice, give each candle once, oldest first."""
    block = market(200, start_ms=START)
    wanted = np.zeros(200, bool)
    with tempfile.TemporaryDirectory() as folder:
        lake = CandleLake(Path(folder))
        for at, size in parts:
            new = int((~wanted[at : at + size]).sum())
            wanted[at : at + size] = True
            assert lake.append(BTC, block[at : at + size]) == new
            assert lake.append(BTC, block[at : at + size]) == 0
        expected = CandleBlock(block.open_time_ms[wanted], block.values[wanted])
        assert lake.read(BTC).equals(expected)
        assert lake.last_open_time_ms(BTC) == expected.last_open_time_ms
        assert lake.first_open_time_ms(BTC) == expected.first_open_time_ms


@quick
@given(at=st.integers(0, 199), later=st.integers(1, 10**9), start=st.integers(0, 199), size=st.integers(0, 60))
def test_a_correction_is_known_from_its_arrival_on(at, later, start, size):
    """Reads see the newest revision; as of a moment before the correction, they see what was known then."""
    block = market(200, start_ms=START, flat=0)
    values = block.values.copy()
    values[at, 4] += 1.0
    corrected = CandleBlock(block.open_time_ms, values)
    arrival_ms = START + 200 * STEP + BACKFILL_DELAY_MS + later
    with tempfile.TemporaryDirectory() as folder:
        lake = CandleLake(Path(folder))
        lake.append(BTC, block)
        assert lake.append(BTC, corrected, available_at_ms=arrival_ms) == 1
        assert lake.append(BTC, corrected, available_at_ms=arrival_ms) == 0
        assert lake.read(BTC).equals(corrected)
        assert lake.read(BTC, as_of_ms=arrival_ms).equals(corrected)
        assert lake.read(BTC, as_of_ms=arrival_ms - 1).equals(block)
        assert lake.coverage(BTC).corrections == 1
        begin, end = START + start * STEP, START + (start + size) * STEP
        assert lake.read(BTC, begin, end).equals(corrected[start : start + size])


@quick
@given(rows=st.integers(1, 50), moment=st.integers(-3, 60))
def test_a_candle_is_known_only_after_its_close(rows, moment):
    """As of any moment, no candle is seen that had not closed."""
    block = market(rows)
    as_of_ms = T0 + moment * STEP
    with tempfile.TemporaryDirectory() as folder:
        lake = CandleLake(Path(folder))
        lake.append(BTC, block)
        known = lake.read(BTC, as_of_ms=as_of_ms)
    closes = block.open_time_ms + Timeframe.M5.milliseconds + BACKFILL_DELAY_MS
    assert len(known) == int((closes <= as_of_ms).sum())


def test_nothing_to_append_changes_nothing(tmp_path):
    """A page without candles, as a venue gives for a quiet stretch, adds no row and leaves no file."""
    lake = CandleLake(tmp_path)
    assert lake.append(BTC, CandleBlock.empty()) == 0
    assert lake.series() == []
