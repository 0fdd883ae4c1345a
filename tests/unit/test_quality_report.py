from __future__ import annotations

import numpy as np

from feature_store.candle import CandleBlock, Timeframe
from feature_store.quality import Gap, check
from tests.feature_support import STEP, T0, market, without


def test_a_whole_block_is_clean():
    """Nothing is found where nothing is wrong."""
    report = check(market(100), Timeframe.M5, now_ms=T0 + 100 * STEP)
    assert report.is_clean
    assert (report.expected, report.found, report.missing) == (100, 100, 0)
    assert report.describe() == "100 candles, clean"


def test_gaps_are_found_where_they_are():
    """Each gap tells from where to where, and how many candles."""
    report = check(without(market(100), np.r_[10:13, 50]), Timeframe.M5)
    assert report.gaps == (
        Gap(T0 + 10 * STEP, T0 + 13 * STEP, 3),
        Gap(T0 + 50 * STEP, T0 + 51 * STEP, 1),
    )
    assert not report.is_clean
    assert report.is_usable


def test_expected_range_counts_the_ends():
    """Candles that are absent before the first and after the last are gaps of the range that was asked for."""
    report = check(market(10), Timeframe.M5, start_ms=T0 - 2 * STEP, end_ms=T0 + 12 * STEP)
    assert [gap.candles for gap in report.gaps] == [2, 2]
    assert report.expected == 14


def test_nothing_found_is_one_gap():
    """An empty block lacks all that was expected, and is stale."""
    report = check(CandleBlock.empty(), Timeframe.M5, start_ms=T0, end_ms=T0 + 5 * STEP, now_ms=T0)
    assert report.missing == report.expected == 5
    assert report.is_stale
    assert check(CandleBlock.empty(), Timeframe.M5).expected == 0


def test_duplicates_disorder_and_broken_candles_are_counted():
    """Each fault has its own number and makes the block unusable."""
    block = market(20, flat=0)
    values = block.values.copy()
    values[4, 1] = 0.001
    times = block.open_time_ms.copy()
    times[7], times[8] = times[8], times[7]
    times[12] = times[11]
    times[15] += 1
    report = check(CandleBlock(times, values), Timeframe.M5)
    assert (report.duplicates, report.out_of_order, report.off_grid, report.ohlc_violations) == (1, 1, 1, 1)
    assert not report.is_usable
    assert "1 duplicate" in report.describe()


def test_staleness_needs_two_missed_candles():
    """One candle late is latency, two are a stale series."""
    block = market(10)
    last_close = T0 + 10 * STEP
    assert not check(block, Timeframe.M5, now_ms=last_close + 2 * STEP - 1).is_stale
    assert check(block, Timeframe.M5, now_ms=last_close + 2 * STEP).is_stale
