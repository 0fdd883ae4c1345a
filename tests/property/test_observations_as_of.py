"""A training set for any past date holds what could have been known then, and of each other table the newest."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.candle import CandleBlock
from feature_store.errors import BadInputError
from feature_store.lake import CandleLake
from feature_store.observations import Observations, joined
from feature_store.store import FeatureStore
from tests.feature_support import BTC, ETH, STEP, market

T = 1_700_000_000_000
HORIZON = 3
SYMBOLS = ("A", "B")


def _table(rows, *, symbols: bool = True):
    columns = {
        "symbol": pa.array([row[0] for row in rows], pa.string()),
        "event_time_ms": pa.array([row[1] for row in rows], pa.int64()),
        "available_at_ms": pa.array([row[2] for row in rows], pa.int64()),
        "value": pa.array([row[3] for row in rows], pa.int64()),
    }
    return pa.table(columns if symbols else {name: columns[name] for name in list(columns)[1:]})


MOMENTS = st.integers(T, T + 12)
# Nothing is known before it happened.
EVENTS = st.tuples(MOMENTS, MOMENTS).map(sorted)
ROWS = st.lists(
    st.tuples(st.sampled_from(SYMBOLS), EVENTS, st.integers(0, 99)).map(lambda row: (row[0], *row[1], row[2])),
    max_size=12,
)
DECISIONS = st.lists(st.tuples(st.sampled_from((*SYMBOLS, "C")), MOMENTS), max_size=8)
AS_OF = st.none() | MOMENTS


def _newest(rows, symbol, decided_ms, as_of_ms, max_age_ms):
    """Return what a person who looks at the table at that moment would say, one row at a time."""
    limit = decided_ms if as_of_ms is None else min(decided_ms, as_of_ms)
    best = None
    for number, row in enumerate(rows):
        if row[0] == symbol and row[2] <= limit:
            rank = (row[1], row[2], number)
            best = max(best, (rank, row)) if best else (rank, row)
    if best is None or (max_age_ms is not None and decided_ms - best[1][1] > max_age_ms):
        return None, None
    return best[1][1], best[1][3]


@given(ROWS, DECISIONS, AS_OF, st.none() | st.integers(0, 6))
@settings(max_examples=60, deadline=None)
def test_the_newest_known(rows, decisions, as_of_ms, max_age_ms):
    """The join gives what a search through the table gives: the latest event known, in its latest correction."""
    one = Observations("x", _table(rows), max_age_ms)
    times = np.array([moment for _, moment in decisions], np.int64)
    known = one.known([symbol for symbol, _ in decisions], times, as_of_ms)

    expected = [_newest(rows, symbol, moment, as_of_ms, max_age_ms) for symbol, moment in decisions]
    assert list(zip(known["x.event_time_ms"].to_pylist(), known["x.value"].to_pylist(), strict=True)) == expected


@given(ROWS, DECISIONS)
@settings(max_examples=25, deadline=None)
def test_a_table_without_symbols_holds_for_all(rows, decisions):
    """What is said of the whole market is told of every symbol."""
    times = np.array([moment for _, moment in decisions], np.int64)
    known = Observations("x", _table(rows, symbols=False)).known([symbol for symbol, _ in decisions], times)
    alike = [("any", *row[1:]) for row in rows]

    assert known["x.value"].to_pylist() == [_newest(alike, "any", moment, None, None)[1] for _, moment in decisions]


def test_a_late_correction_of_an_old_event_is_not_the_newest():
    """A correction that arrives after a newer event changes nothing of what is newest."""
    rows = [("A", T, T + 1, 1), ("A", T + 8, T + 9, 2), ("A", T, T + 10, 3)]
    known = Observations("x", _table(rows)).known(["A"] * 3, np.array([T + 1, T + 9, T + 11]))

    assert known["x.value"].to_pylist() == [1, 2, 2]


def test_tables_side_by_side():
    """Several tables join at once, each under its name; two of one name are refused."""
    first, second = (Observations(name, _table([("A", T, T + 1, 5)])) for name in ("first", "second"))
    known = joined([first, second], ["A", "B"], np.array([T + 2, T + 2]))

    assert known.column_names == [*first.columns, *second.columns]
    assert known["second.value"].to_pylist() == [5, None]
    with pytest.raises(BadInputError, match="called first"):
        joined([first, first], ["A"], np.array([T]))
    assert joined([], ["A"], np.array([T])).num_columns == 0


GOOD = _table([("A", T, T, 1)])


@pytest.mark.parametrize(
    ("name", "table", "age"),
    [
        pytest.param("two words", GOOD, None, id="name"),
        pytest.param("x", GOOD.drop_columns(["available_at_ms"]), None, id="no-arrival"),
        pytest.param("x", GOOD.append_column("value", GOOD["value"]), None, id="column-twice"),
        pytest.param("x", _table([("A", T // 1000, T // 1000, 1)]), None, id="seconds"),
        pytest.param("x", _table([("A", T * 1000, T * 1000, 1)]), None, id="microseconds"),
        pytest.param("x", _table([("A", T, None, 1)]), None, id="no-moment"),
        pytest.param("x", _table([(None, T, T, 1)]), None, id="no-symbol"),
        pytest.param("x", GOOD.set_column(1, "event_time_ms", pa.array([float(T)])), None, id="fractions"),
        pytest.param("x", GOOD.set_column(0, "symbol", pa.array([7])), None, id="symbols-as-numbers"),
        pytest.param("x", GOOD, -1, id="negative-age"),
    ],
)
def test_unusable_tables_are_refused(name, table, age):
    """What cannot be joined by time is refused before anything is read."""
    with pytest.raises(BadInputError, match="Observations"):
        Observations(name, table, age)


def test_what_was_known_before_it_happened_is_refused():
    """A row that says so is named by its place and its two moments; known as it happened is known in time."""
    Observations("x", _table([("A", T, T, 1)]))
    with pytest.raises(BadInputError, match=rf"row 1 that an event of {T + 5} ms was known at {T + 4} ms"):
        Observations("x", _table([("A", T, T + 9, 1), ("B", T + 5, T + 4, 2), ("A", T + 5, T, 3)]))


def test_decisions_need_symbol_and_time():
    """A join of lists of different lengths is refused."""
    with pytest.raises(BadInputError, match="symbol and a time"):
        Observations("x", GOOD).known(["A"], np.array([T, T]))


CANDLES = 90
ARRIVALS = st.lists(
    st.tuples(
        st.sampled_from((BTC, ETH)),
        st.integers(0, CANDLES - 2),
        st.integers(1, 30),
        st.integers(0, 6 * STEP),
        st.booleans(),
    ),
    min_size=1,
    max_size=8,
)
FUNDING = st.lists(
    st.tuples(
        st.sampled_from((BTC.symbol, ETH.symbol)),
        st.integers(0, CANDLES // 4).map(lambda place: place * 4),
        st.integers(0, 30),
        st.integers(0, 99),
    ),
    max_size=20,
)


def _in_order(arrivals, truth):
    """Return when each block arrived, no two at once, with the candles as they were told then."""
    found = []
    for series, begin, count, late_ms, again in arrivals:
        block = truth[series][begin : begin + count]
        told = CandleBlock(block.open_time_ms, block.values * (1.0 + 0.001 * again))
        found.append((int(block.open_time_ms[-1]) + STEP + late_ms, series, told))
    found.sort(key=lambda one: one[0])
    return [(arrived + number, series, told) for number, (arrived, series, told) in enumerate(found)]


@given(ARRIVALS, FUNDING, st.integers(0, CANDLES + 10))
@settings(max_examples=25, deadline=None)
def test_a_past_date_equals_what_could_have_been_known(arrivals, funding, cut):
    """A training set as of a moment is the one of a store that holds nothing which became available later."""
    truth = {one: market(CANDLES, seed=seed) for seed, one in enumerate((BTC, ETH))}
    first_ms = truth[BTC].first_open_time_ms
    as_of_ms = first_ms + cut * STEP + 1_000
    rows = [
        (symbol, first_ms + place * STEP, first_ms + (place + late) * STEP, value)
        for symbol, place, late, value in funding
    ]
    with tempfile.TemporaryDirectory() as folder:
        whole, then = CandleLake(Path(folder) / "whole"), CandleLake(Path(folder) / "then")
        for arrived, series, block in _in_order(arrivals, truth):
            for lake in (whole, then) if arrived <= as_of_ms else (whole,):
                lake.append(series, block, available_at_ms=arrived)
        store, end_ms = FeatureStore(Path(folder) / "features"), first_ms + (CANDLES + 20) * STEP
        past = store.training_set(
            whole,
            whole.series(),
            first_ms,
            end_ms,
            HORIZON,
            as_of_ms=as_of_ms,
            observations=[Observations("funding", _table(rows))],
        )
        lived = store.training_set(
            then,
            then.series(),
            first_ms,
            end_ms,
            HORIZON,
            observations=[Observations("funding", _table([row for row in rows if row[2] <= as_of_ms]))],
        )

    for series in past:
        if series not in lived:
            # Nothing of it had arrived.
            assert len(past[series]) == 0
            continue
        one, other = past[series], lived[series]
        for name in ("open_time_ms", "features", "inputs", "log_return", "close", "forward_log_return"):
            np.testing.assert_array_equal(getattr(one.frame, name), getattr(other.frame, name), err_msg=name)
        np.testing.assert_array_equal(one.decided_at_ms, other.decided_at_ms)
        np.testing.assert_array_equal(one.is_late, other.is_late)
        assert one.known.equals(other.known)


def test_late_candles_have_no_label(tmp_path):
    """A candle that came after the next had closed could not be decided on: it says so, and has no label."""
    block = market(80, seed=1)
    lake = CandleLake(tmp_path)
    lake.append(BTC, block[:60])
    lake.append(BTC, block[61:])
    late_ms = int(block.open_time_ms[60]) + 3 * STEP
    lake.append(BTC, block[60:61], available_at_ms=late_ms)
    one = FeatureStore(tmp_path / "features").training_set(lake, [BTC], 0, int(block.open_time_ms[-1]) + STEP, HORIZON)[
        BTC
    ]

    assert np.flatnonzero(one.is_late).tolist() == [60]
    assert one.decided_at_ms[60] == late_ms
    assert np.isnan(one.frame.forward_log_return[60])
    assert np.isfinite(one.frame.forward_log_return[59])
    assert len(one) == 80


def test_a_correction_keeps_the_first_moment(tmp_path):
    """What corrects a candle changes its values, not the moment at which it could first be decided on."""
    block = market(80, seed=1)
    lake = CandleLake(tmp_path)
    lake.append(BTC, block)
    corrected_ms = int(block.open_time_ms[-1]) + 10 * STEP
    lake.append(BTC, CandleBlock(block.open_time_ms[5:6], block.values[5:6] * 1.01), available_at_ms=corrected_ms)
    store, end_ms = FeatureStore(tmp_path / "features"), int(block.open_time_ms[-1]) + STEP
    after = store.training_set(lake, [BTC], 0, end_ms, HORIZON)[BTC]
    before = store.training_set(lake, [BTC], 0, end_ms, HORIZON, as_of_ms=corrected_ms - 1)[BTC]

    assert after.decided_at_ms[5] == before.decided_at_ms[5] == block.open_time_ms[5] + STEP + 1_000
    assert after.frame.close[5] == block.close[5] * 1.01
    assert before.frame.close[5] == block.close[5]
