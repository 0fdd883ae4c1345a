from __future__ import annotations

import numpy as np
import pytest

from feature_store.absences import Span
from feature_store.candle import Timeframe
from feature_store.kinds.definition import BOOK, FUNDING, MARK, OPEN_INTEREST, TRADES, Subject
from feature_store.kinds.expecting import missing_times
from feature_store.kinds.store import KindStore
from flows.market_data import Job, completeness
from tests.kind_support import BTC_MARK, BTC_PERP, HOUR, NEVER, START, rows_of

QUARTER = 900_000
DAY = START // (24 * HOUR) * 24 * HOUR


def settled(*hours: int) -> np.ndarray:
    return DAY + np.array(hours, np.int64) * HOUR


def missing(times: np.ndarray, until_h: float, since_h: float = 0) -> list[float] | None:
    """Return which settlements are missing, in hours of the day."""
    span = Span(DAY + int(since_h * HOUR), DAY + int(until_h * HOUR))
    found = missing_times(FUNDING, BTC_PERP, times, span)
    return None if found is None else ((found - DAY) / HOUR).tolist()


@pytest.mark.parametrize(("kind", "last"), [(MARK, 8), (OPEN_INTEREST, 9)])
def test_periods_are_expected_once_they_could_be_known(kind, last):
    """Of ten quarters two are gone; a candle is expected after its close, a count after its time and delay."""
    times = START + np.arange(10) * QUARTER
    there = times[[0, 1, 4, 5, 6, 7]]
    found = missing_times(kind, BTC_MARK, there, Span(START - 5, START + 9 * QUARTER + 6 * 60_000))
    assert found is not None
    assert found.tolist() == [times[2], times[3], *times[8 : last + 1]]


def test_nothing_at_all_is_missing_as_a_whole():
    """Where nothing is stored, every period of the span is missing; settlements cannot be told."""
    span = Span(START + 1, START + 4 * QUARTER + 1_000)
    found = missing_times(MARK, BTC_MARK, np.empty(0, np.int64), span)
    assert found is not None
    assert found.tolist() == [START + number * QUARTER for number in (1, 2, 3)]
    for few in ([], [8]):
        assert missing(settled(*few), 24) is None
    for kind in (TRADES, BOOK):
        assert missing_times(kind, BTC_PERP, settled(1, 2, 3), span) is None


def test_settlements_that_are_missing_are_named():
    """One and several in a row, before the first and after the last; the newest is due a minute later."""
    whole = np.arange(0, 25) * 8
    gone = np.delete(whole, [3, 10, 11])
    assert missing(settled(*whole), 200) == []
    assert missing(settled(*gone), 200) == [24, 80, 88]
    assert missing(settled(*whole[2:]), 200, since_h=1) == [8]
    assert missing(settled(*whole), 200.01) == []
    assert missing(settled(*whole), 200.02) == [200]


@pytest.mark.parametrize("change", [(8, 4), (4, 8), (8, 1), (1, 8)])
def test_another_interval_is_no_absence(change):
    """A venue that settles more often, or less, from some day on has left nothing out; a loss later on is found."""
    before, after = change
    times = np.concatenate([np.arange(10) * before, 9 * before + np.arange(1, 11) * after])
    until = float(times[-1])
    assert missing(settled(*times.tolist()), until) == []
    assert missing(settled(*np.delete(times, 16).tolist()), until) == [times[16]]


def test_a_settlement_stamped_some_seconds_off_is_there():
    """Times that stray by seconds are neither missing nor new."""
    times = settled(*range(0, 80, 8)) + np.array([0, 3, 0, 9, 0, 1, 7, 0, 2, 0]) * 1_000
    assert missing(times, 72) == []


def test_the_table_tells_expected_found_and_missing(tmp_path):
    """Stretches are named by their ends, the first three of them; of trades nothing is expected."""
    store, rows = KindStore(tmp_path), rows_of(MARK, 60)
    there = rows.take(np.setdiff1d(np.arange(60), [3, 10, 11, 12, 20, 30, 31]))
    store.append(BTC_MARK, there, arrived_ms=NEVER)
    span = Span(START, START + 60 * QUARTER + 1_000)
    assert completeness(store, Job(MARK, BTC_MARK), span) == {
        "expected": 60,
        "found": 53,
        "missing": "7: 2023-11-30 22:45, 2023-12-01 00:30 to 2023-12-01 01:00, 2023-12-01 03:00 and 1 more",
    }
    store.append(BTC_MARK, rows, arrived_ms=NEVER)
    assert completeness(store, Job(MARK, BTC_MARK), span) == {"expected": 60, "found": 60, "missing": "none"}
    dashes = {"expected": "-", "found": "-", "missing": "-"}
    assert completeness(store, Job(TRADES, BTC_PERP), span) == dashes
    assert completeness(store, Job(FUNDING, BTC_PERP), span) == dashes


def test_no_open_interest_is_expected_of_before_a_venue_tells(tmp_path):
    """Of a year, the last month is expected: venues tell no more."""
    subject = Subject("sandbox", "BTC/USDT:USDT", Timeframe.D1)
    found = completeness(KindStore(tmp_path), Job(OPEN_INTEREST, subject), Span(DAY - 365 * 24 * HOUR, DAY + HOUR))
    assert found["expected"] == 30
