"""The filters of each candle, for a whole series at once, say what the rule for one moment says of each."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.candle import CandleBlock, Timeframe
from feature_store.lake import CandleLake
from feature_store.universe.candle_filters import CandleFilters, volume_24h
from feature_store.universe.facts import Listing, facts_at
from feature_store.universe.selection import DAY_MS, Mode, UniversePolicy, refused_now
from tests.universe_support import EVERYTHING, MONDAY_MS, STEP, candles, hourly

CANDLES = 90
SERIES = hourly("BTC")
POLICY = UniversePolicy(mode=Mode.ALL, min_volume_24h=2_000_000, max_silence_minutes=60)
CHANGES = st.lists(st.tuples(st.integers(0, CANDLES - 1), st.integers(1, 40), st.sampled_from((0.2, 3.0))), max_size=8)
LISTINGS = st.lists(
    st.tuples(st.integers(0, CANDLES), st.none() | st.integers(0, CANDLES), st.none() | st.integers(0, CANDLES)),
    max_size=3,
)


def _lake(folder, seed, held, changes):
    """Store a market whose volume swings; some candles come late or never, others are corrected later."""
    rng = np.random.default_rng(seed)
    block = candles(MONDAY_MS, MONDAY_MS + CANDLES * STEP)
    block.values[:, 4] = np.exp(rng.normal(np.log(850.0), 1.0, CANDLES))
    lake = CandleLake(folder)
    told = np.setdiff1d(np.arange(CANDLES), list(held))
    lake.append(SERIES, CandleBlock(block.open_time_ms[told], block.values[told]))
    moments = sorted((place + late, place, factor) for place, late, factor in changes)
    for number, (arrived, place, factor) in enumerate(moments):
        values = block.values[place : place + 1] * [1, 1, 1, 1, factor]
        arrived_ms = MONDAY_MS + (arrived + 1) * STEP + 2_000 + number
        lake.append(SERIES, CandleBlock(block.open_time_ms[place : place + 1], values), available_at_ms=arrived_ms)
    return lake


@given(st.integers(0, 999), st.sets(st.integers(0, CANDLES - 1), max_size=20), CHANGES, LISTINGS)
@settings(max_examples=30, deadline=None)
def test_all_candles_as_each_alone(seed, held, changes, said):
    """Volume, freshness and listing of each candle are those of its moment, whatever came late or was corrected."""
    listings = [
        Listing(
            SERIES.symbol,
            MONDAY_MS + at * STEP,
            None if listed is None else MONDAY_MS + listed * STEP,
            None if delisted is None else MONDAY_MS + delisted * STEP,
        )
        for at, listed, delisted in sorted(said, key=lambda one: one[0])
    ]
    with tempfile.TemporaryDirectory() as folder:
        lake = _lake(Path(folder), seed, held, changes)
        rows = lake.read_rows(SERIES)
        times = rows.latest().block.open_time_ms
        decided = rows.first_known(times)
        marks = CandleFilters.of(POLICY).passed(Timeframe.H1, rows, times, decided, listings)
        volume = volume_24h(Timeframe.H1, rows, times, decided)
        moments = sorted(set(decided.tolist()))
        known = {moment: facts[0] for moment, facts in facts_at(lake, [SERIES], moments, listings)}
    late = decided > times + 2 * STEP
    for row in np.flatnonzero(~late).tolist():
        facts = known[int(decided[row])]
        np.testing.assert_allclose(volume[row], facts.volume_24h, rtol=1e-9, atol=1e-3)
        assert marks[row] == (refused_now(facts, POLICY, int(decided[row])) is None)
    assert not marks[decided > times + STEP + POLICY.max_silence_minutes * 60_000].any()


def test_the_day_before_counts_and_no_more(tmp_path):
    """Volume is that of 24 hours to the close: what traded before is not in it, and a silent day is nothing."""
    lake = CandleLake(tmp_path)
    lake.append(SERIES, candles(MONDAY_MS, MONDAY_MS + DAY_MS))
    lake.append(SERIES, candles(MONDAY_MS + 3 * DAY_MS, MONDAY_MS + 3 * DAY_MS + STEP))
    rows = lake.read_rows(SERIES)
    volume = volume_24h(Timeframe.H1, rows, rows.block.open_time_ms, rows.available_at_ms)

    np.testing.assert_allclose(volume, [*np.arange(1, 25) * 100_000.0, 100_000.0])
    filters = CandleFilters.of(EVERYTHING.policy)
    assert filters.passed(Timeframe.H1, rows, rows.block.open_time_ms, rows.available_at_ms).all()
