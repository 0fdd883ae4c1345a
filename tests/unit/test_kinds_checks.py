from __future__ import annotations

import numpy as np
import pytest

from feature_store.candle import Series, Timeframe
from feature_store.errors import BadInputError
from feature_store.kinds.definition import (
    BOOK,
    FILTERS,
    FUNDING,
    KINDS,
    MARK,
    OPEN_INTEREST,
    TRADES,
    Subject,
    kind_named,
)
from feature_store.kinds.records import Records
from feature_store.kinds.store import KindStore
from tests.kind_support import BTC_PERP, HOUR, NEVER, START, rows_of, subject_of


def spoilt(kind, **columns):
    """Return rows of which one, in the middle, says something else."""
    rows = rows_of(kind, 9)
    changed = {name: array.copy() for name, array in rows.columns.items()}
    times = rows.time_ms.copy()
    for name, value in columns.items():
        if name == "time_ms":
            times[5] = value
        elif changed[name].dtype.kind == "U":
            changed[name] = np.where(np.arange(9) == 5, value, changed[name])
        else:
            changed[name][5] = value
    return Records(kind, times, changed)


@pytest.mark.parametrize(
    ("kind", "columns", "expected"),
    [
        pytest.param(FUNDING, {"time_ms": START // 1000}, "looks like seconds", id="seconds"),
        pytest.param(FUNDING, {"time_ms": START * 1000}, "finer than milliseconds", id="microseconds"),
        pytest.param(FUNDING, {"time_ms": START + 7}, "multiples of 1000 ms", id="off-grid"),
        pytest.param(FUNDING, {"time_ms": START + 100 * HOUR}, "in the future", id="future"),
        pytest.param(FUNDING, {"funding_rate": 1.5}, "at most 1", id="a-percentage"),
        pytest.param(FUNDING, {"funding_rate": np.nan}, "missing", id="no-rate"),
        pytest.param(MARK, {"low": -1.0}, "low must be above 0", id="negative-price"),
        pytest.param(MARK, {"close": 0.0}, "close must be above 0", id="zero-price"),
        pytest.param(MARK, {"low": 10_000.0}, "low <= open", id="low-above-high"),
        pytest.param(MARK, {"open": np.inf}, "infinite", id="infinite"),
        pytest.param(MARK, {"time_ms": START + 48 * HOUR}, "not closed", id="candle-still-open"),
        pytest.param(OPEN_INTEREST, {"open_interest": -1.0}, "at least 0", id="negative-interest"),
        pytest.param(TRADES, {"quantity": 0.0}, "quantity must be above 0", id="no-quantity"),
        pytest.param(TRADES, {"trade_id": -1}, "trade_id must be at least 0", id="negative-id"),
        pytest.param(BOOK, {"price": np.nan}, "price is missing", id="no-price"),
        pytest.param(FILTERS, {"status": " "}, "status is empty", id="no-status"),
    ],
)
def test_rows_that_make_no_sense_are_refused_whole(tmp_path, kind, columns, expected):
    """One impossible row keeps all of them out; the message names instrument, row and fault."""
    store = KindStore(tmp_path)
    with pytest.raises(BadInputError, match=expected) as caught:
        store.append(subject_of(kind), spoilt(kind, **columns), arrived_ms=START + 48 * HOUR)
    assert "BTC/USDT:USDT" in str(caught.value)
    assert "Nothing was stored" in str(caught.value)
    assert list(tmp_path.rglob("*.parquet")) == []


def test_rows_that_contradict_each_other_are_refused(tmp_path):
    """A row that is there twice counts once; one that says two things at once is refused."""
    store, rows = KindStore(tmp_path), rows_of(FUNDING, 3)
    assert store.append(BTC_PERP, rows.concat(rows), arrived_ms=NEVER) == 3
    other = Records.of(FUNDING, rows.time_ms, funding_rate=rows["funding_rate"] + 0.01)
    with pytest.raises(BadInputError, match="must say the same"):
        store.append(BTC_PERP, rows.concat(other), arrived_ms=NEVER)
    assert store.read(FUNDING, BTC_PERP).equals(rows)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        pytest.param({"funding_rate": ["0.1"]}, "list of numbers", id="text-for-number"),
        pytest.param({"funding_rate": [True]}, "list of numbers", id="flag-for-number"),
        pytest.param({"funding_rate": [[0.1]]}, "dimensions", id="nested"),
        pytest.param({"funding_rate": [0.1, 0.2]}, "1 times but 2 values", id="too-many"),
        pytest.param({"funding_rate": [None]}, "list of numbers", id="nothing"),
        pytest.param({"rate": [0.1]}, "funding has the columns funding_rate; found rate", id="other-column"),
    ],
)
def test_columns_of_another_form_are_refused(columns, expected):
    """What is no column of numbers is not converted into one."""
    with pytest.raises(BadInputError, match=expected):
        Records.of(FUNDING, [START], **columns)


def test_times_are_whole_milliseconds():
    """Half a millisecond, or a text, is no time."""
    for time in (START + 0.5, str(START), None):
        with pytest.raises(BadInputError, match="time_ms"):
            Records.of(FUNDING, [time], funding_rate=[0.1])


def test_a_kind_has_a_timeframe_or_not(tmp_path):
    """Mark prices without a timeframe and funding with one are refused, and so are names that are no folders."""
    store = KindStore(tmp_path)
    with pytest.raises(BadInputError, match="mark needs a timeframe"):
        store.append(BTC_PERP, rows_of(MARK, 1), arrived_ms=NEVER)
    with pytest.raises(BadInputError, match="funding has no timeframe"):
        store.read(FUNDING, Subject("sandbox", "BTC/USDT:USDT", Timeframe.M5))
    for venue, symbol in (("../etc", "BTC/USDT"), ("", "BTC/USDT"), ("sandbox", " ")):
        with pytest.raises(BadInputError, match="Expected a venue"):
            store.append(Subject(venue, symbol), rows_of(FUNDING, 1), arrived_ms=NEVER)
    assert Subject.of(FUNDING, Series("sandbox", "BTC/USDT:USDT", Timeframe.M5)) == BTC_PERP


def test_kinds_are_found_by_name():
    """Each kind has a name of its own, and an unknown one is answered with those there are."""
    assert [kind_named(kind.name) for kind in KINDS] == list(KINDS)
    with pytest.raises(BadInputError, match="funding, mark, index"):
        kind_named("fundin")


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_columns_say_their_unit_and_keys_are_columns(kind):
    """What is declared of a kind is complete."""
    assert kind.describes
    assert kind.time
    assert all(column.unit for column in kind.columns)
    assert set(kind.key) <= {column.name for column in kind.columns}
