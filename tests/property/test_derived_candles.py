# ruff: noqa: PD011 - `values` are those of a candle block; pandas is only the witness
from __future__ import annotations

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.candle import COLUMNS, CandleBlock, Timeframe
from feature_store.derived import derive
from feature_store.errors import BadInputError
from feature_store.partitions import Rows

MINUTE = 60_000
T0 = 1_700_006_400_000  # A whole day.
LONGER = [Timeframe.M5, Timeframe.M15, Timeframe.H1]


def rows_of(minutes: list[int], seed: int = 1) -> Rows:
    """Stored minutes, each known a second after its close."""
    generator = np.random.default_rng(seed)
    times = T0 + np.array(minutes, np.int64) * MINUTE
    price = np.round(100 + generator.normal(size=(len(minutes), 2)).cumsum(axis=0), 2)
    low, high = price.min(axis=1) - 0.5, price.max(axis=1) + 0.5
    volume = generator.integers(0, 1000, len(minutes)) / 8
    block = CandleBlock(times, np.column_stack([price[:, 0], high, low, price[:, 1], volume]))
    return Rows(block, times + MINUTE + 1_000, np.zeros(len(minutes), np.int32))


def corrected(rows: Rows, at: int, available_ms: int) -> Rows:
    """The same rows, and one of them again with a higher close."""
    row = rows.take(np.array([at]))
    values = row.block.values + np.array([0, 1, 0, 1, 1])
    fresh = Rows(CandleBlock(row.block.open_time_ms, values), np.array([available_ms]), row.revision + 1)
    both = rows.concat(fresh)
    return both.take(np.lexsort((both.revision, both.block.open_time_ms)))


def same(one: Rows, other: Rows) -> bool:
    """Whether two sets of rows are equal to the bit."""
    return (
        one.block.equals(other.block)
        and np.array_equal(one.available_at_ms, other.available_at_ms)
        and np.array_equal(one.revision, other.revision)
    )


def by_sql(rows: Rows, timeframe: Timeframe) -> pa.Table:
    """The same candles, told by DuckDB: the newest revision of each minute, whole buckets only."""
    block = rows.latest().block
    columns = {"t": block.open_time_ms} | dict(zip(COLUMNS, block.values.T, strict=True))
    minutes = pa.table(columns)  # noqa: F841 - DuckDB finds it by its name
    step = timeframe.milliseconds
    return duckdb.sql(
        f"""
        SELECT t - t % {step} AS bucket, first(open ORDER BY t) AS open, max(high) AS high, min(low) AS low,
               last(close ORDER BY t) AS close, sum(volume) AS volume
        FROM minutes
        GROUP BY bucket
        HAVING bucket + {step} <= (SELECT max(t) + {MINUTE} FROM minutes)
           AND bucket >= (SELECT min(t) FROM minutes)
        ORDER BY bucket
        """
    ).to_arrow_table()


def by_pandas(rows: Rows, timeframe: Timeframe) -> pd.DataFrame:
    """The same candles, told by pandas."""
    block = rows.latest().block
    frame = pd.DataFrame(block.values, columns=COLUMNS, index=pd.to_datetime(block.open_time_ms, unit="ms", utc=True))
    how = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum"}
    longer = frame.resample(f"{timeframe.milliseconds}ms").agg(how).dropna()
    starts = longer.index.astype("datetime64[ms, UTC]").astype(np.int64).to_numpy()
    step, times = timeframe.milliseconds, block.open_time_ms
    return longer[(starts >= times[0]) & (starts + step <= times[-1] + MINUTE)]


present = st.sets(st.integers(0, 400), min_size=1, max_size=300).map(sorted)


@settings(max_examples=40, deadline=None)
@given(present, st.sampled_from(LONGER))
def test_two_other_engines_give_the_same_candles(minutes, timeframe):
    """Whatever minutes are absent, DuckDB's grouping and pandas' resampling give the same candles."""
    rows = rows_of(minutes)
    ours = derive(rows, timeframe).block
    sql = by_sql(rows, timeframe)
    assert ours.open_time_ms.tolist() == sql["bucket"].to_pylist()
    theirs = by_pandas(rows, timeframe)
    assert np.array_equal(ours.values, theirs.to_numpy().reshape(-1, 5))
    assert np.array_equal(ours.values, np.column_stack([sql[name].to_numpy() for name in COLUMNS]).reshape(-1, 5))


@settings(max_examples=60, deadline=None)
@given(present, st.sampled_from(LONGER), st.data())
def test_what_was_known_then_is_what_is_told_of_then(minutes, timeframe, data):
    """Minutes corrected or late at any moments: deriving from what was known then equals the whole as of then."""
    rows = rows_of(minutes)
    late = data.draw(st.lists(st.tuples(st.integers(0, len(rows) - 1), st.integers(0, 50_000_000)), max_size=4))
    for at, after_ms in late:
        time_ms = int(rows.block.open_time_ms[at])
        newest = rows.latest()
        place = int(np.searchsorted(newest.block.open_time_ms, time_ms))
        known_ms = int(newest.available_at_ms[place]) + 1 + after_ms
        whole = rows.latest().take(np.array([place]))
        fresh = corrected(whole, 0, known_ms).take(np.array([1]))
        both = rows.concat(fresh)
        rows = both.take(np.lexsort((both.revision, both.block.open_time_ms)))
    then_ms = T0 + data.draw(st.integers(0, 500)) * MINUTE
    known = rows.take(rows.available_at_ms <= then_ms)
    start = int(rows.block.open_time_ms[0])
    whole = derive(rows, timeframe, whole_from_ms=start)
    assert same(derive(known, timeframe, whole_from_ms=start), whole.take(whole.available_at_ms <= then_ms))


@settings(max_examples=40, deadline=None)
@given(present, st.sampled_from(LONGER), st.integers(1, 400))
def test_a_late_minute_is_a_revision_not_a_change_of_the_past(minutes, timeframe, moved):
    """A minute that becomes known long after its neighbours adds a revision; what was told before stays told."""
    rows = rows_of(minutes)
    at = moved % len(rows)
    available = rows.available_at_ms.copy()
    available[at] += 3_600_000 * 5
    late = Rows(rows.block, available, rows.revision)
    start = int(rows.block.open_time_ms[0])
    without = late.take(np.arange(len(late)) != at)
    before_ms = int(available[at]) - 1
    told = derive(late, timeframe, whole_from_ms=start)
    seen = derive(without.take(without.available_at_ms <= before_ms), timeframe, whole_from_ms=start)
    assert same(told.take(told.available_at_ms <= before_ms), seen)


def test_a_candle_is_derived_once_its_last_minute_is_known():
    """Four of five minutes make nothing; the fifth makes the candle, available when that minute is."""
    assert len(derive(rows_of([0, 1, 2, 3]), Timeframe.M5)) == 0
    whole = derive(rows_of([0, 1, 2, 3, 4]), Timeframe.M5)
    assert whole.block.open_time_ms.tolist() == [T0]
    assert whole.available_at_ms.tolist() == [T0 + 5 * MINUTE + 1_000]


def test_an_absent_last_minute_is_known_by_the_next_one():
    """Where the last minute never came, the candle is known with the first minute after it, and not before."""
    rows = derive(rows_of([0, 1, 7]), Timeframe.M5)
    assert rows.block.open_time_ms.tolist() == [T0]
    assert rows.available_at_ms.tolist() == [T0 + 8 * MINUTE + 1_000]


def test_no_minute_makes_no_candle():
    """An hour in which nothing traded is absent."""
    rows = derive(rows_of([0, 121]), Timeframe.H1)
    assert rows.block.open_time_ms.tolist() == [T0]


def test_a_correction_makes_a_new_revision():
    """A corrected minute is a second revision of its candle, from the correction on; others stay as they are."""
    rows = corrected(rows_of(list(range(10))), 4, T0 + 900_000)
    told = derive(rows, Timeframe.M5)
    assert told.revision.tolist() == [0, 1, 0]
    assert told.available_at_ms.tolist() == [T0 + 301_000, T0 + 900_000, T0 + 601_000]
    assert told.block.values[1, 4] == told.block.values[0, 4] + 1


def test_what_begins_inside_a_candle_does_not_make_it():
    """Minutes that begin inside a candle leave it out, unless there is known to be nothing before them."""
    rows = rows_of([2, 3, 4, 5, 6, 7, 8, 9])
    assert derive(rows, Timeframe.M5).block.open_time_ms.tolist() == [T0 + 300_000]
    assert len(derive(rows, Timeframe.M5, whole_from_ms=T0)) == 2


def test_minutes_are_not_derived():
    """A timeframe that is not longer than a minute is refused, with those that are."""
    with pytest.raises(BadInputError, match="15m"):
        derive(rows_of([0]), Timeframe.M1)
