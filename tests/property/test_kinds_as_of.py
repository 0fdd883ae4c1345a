from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.kinds.asked import Asked
from feature_store.kinds.checking import closed_ms
from feature_store.kinds.definition import FILTERS, FUNDING, KINDS, Known
from feature_store.kinds.records import Records
from feature_store.kinds.store import KindStore
from tests.kind_support import BTC_PERP, NEVER, START, rows_of, subject_of

quick = settings(max_examples=20, deadline=None)
STEP = 900_000
KEYED = [kind for kind in KINDS if not kind.changes_only]
# What is appended, one after the other: which rows, of which version of the world, and when they come.
appends = st.lists(
    st.tuples(st.integers(0, 11), st.integers(1, 12), st.integers(0, 2), st.integers(0, 20)), min_size=1, max_size=6
)


def rows_as_tuples(records: Records) -> list[tuple]:
    """Return rows that compare, with absent numbers alike."""
    columns = [array.tolist() for array in records.columns.values()]
    rows = zip(records.time_ms.tolist(), *columns, strict=True)
    return [tuple(None if one != one else one for one in row) for row in rows]  # noqa: PLR0124 - NaN is not itself


class Model:
    """What the store should hold: for each key its revisions, each with when it could be known."""

    def __init__(self, kind) -> None:
        self.kind = kind
        names = list(rows_of(kind, 1).columns)
        self._key = [0, *[1 + names.index(name) for name in kind.key]]
        self.revisions: dict[tuple, list[tuple[int, tuple]]] = {}

    def append(self, rows: Records, arrived_ms: int) -> None:
        """Note rows as the store should take them."""
        complete = closed_ms(self.kind, subject_of(self.kind))
        for row in rows_as_tuples(rows):
            known = self.revisions.setdefault(tuple(row[place] for place in self._key), [])
            if not known:
                end = row[0] + complete
                at_arrival = self.kind.known is Known.AT_ARRIVAL
                known.append((max(end, arrived_ms) if at_arrival else end + self.kind.delay_ms, row))
            elif known[-1][1] != row:
                known.append((max(known[-1][0] + 1, arrived_ms), row))

    def read(self, start_ms: int, end_ms: int, as_of_ms: int) -> list[tuple]:
        """Return what a read should give."""
        found = []
        for known in self.revisions.values():
            rows = [row for available_ms, row in known if available_ms <= as_of_ms]
            if rows and start_ms <= rows[-1][0] < end_ms:
                found.append(rows[-1])
        return sorted(found, key=lambda row: tuple(row[place] for place in self._key))


@pytest.mark.parametrize("kind", KEYED, ids=str)
@quick
@given(parts=appends, moments=st.lists(st.integers(-2, 40), min_size=1, max_size=4), start=st.integers(0, 8))
def test_a_read_as_of_a_moment_is_what_was_known_then(kind, parts, moments, start):
    """Whatever was appended in whatever order: as of any moment, the newest revision that could be known, no more."""
    versions = [rows_of(kind, 24, seed) for seed in range(3)]
    model, subject = Model(kind), subject_of(kind)
    with tempfile.TemporaryDirectory() as folder:
        store = KindStore(Path(folder))
        for at, size, version, later in parts:
            rows = versions[version].take(slice(2 * at, 2 * at + size))
            arrived_ms = START + (26 + later) * STEP
            store.append(subject, rows.take(np.arange(len(rows))[::-1]), arrived_ms=arrived_ms)
            model.append(rows, arrived_ms)
            assert store.append(subject, rows, arrived_ms=arrived_ms + 1) == 0
        begin_ms, end_ms = START + start * STEP, START + (start + 9) * STEP
        for moment in moments:
            as_of_ms = START + moment * STEP + kind.delay_ms
            found = store.read(kind, subject, begin_ms, end_ms, as_of_ms=as_of_ms)
            assert rows_as_tuples(found) == model.read(begin_ms, end_ms, as_of_ms)
        assert rows_as_tuples(store.read(kind, subject)) == model.read(0, NEVER, NEVER)


@quick
@given(parts=appends, cut=st.integers(0, 50))
def test_what_comes_later_changes_no_read_of_the_past(parts, cut):
    """A store that saw nothing after a moment reads the same as of that moment as one that went on."""
    versions = [rows_of(FUNDING, 24, seed) for seed in range(3)]
    as_of_ms = START + cut * STEP
    backfilled = START + 25 * STEP
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        whole, stopped = KindStore(Path(one)), KindStore(Path(other))
        known = versions[0].time_ms + FUNDING.delay_ms <= as_of_ms
        whole.append(BTC_PERP, versions[0], arrived_ms=backfilled)
        stopped.append(BTC_PERP, versions[0].take(known), arrived_ms=backfilled)
        for at, size, version, later in sorted(parts, key=lambda part: part[3]):
            rows, arrived_ms = versions[version].take(slice(2 * at, 2 * at + size)), backfilled + later * STEP
            whole.append(BTC_PERP, rows, arrived_ms=arrived_ms)
            if arrived_ms <= as_of_ms:
                stopped.append(BTC_PERP, rows, arrived_ms=arrived_ms)
        assert whole.read(FUNDING, BTC_PERP, as_of_ms=as_of_ms).equals(
            stopped.read(FUNDING, BTC_PERP, as_of_ms=as_of_ms)
        )


@quick
@given(ticks=st.lists(st.sampled_from([0.01, 0.1, 1.0]), min_size=1, max_size=15), again=st.integers(0, 3))
def test_filters_have_a_row_for_each_change(ticks, again):
    """However often an instrument is looked at, a row is there only where it differs from the row before."""
    rows = rows_of(FILTERS, len(ticks))
    with tempfile.TemporaryDirectory() as folder:
        store = KindStore(Path(folder))
        added = 0
        for number, tick in enumerate(ticks):
            row = rows.take(slice(number, number + 1))
            seen = Records(FILTERS, row.time_ms, {**row.columns, **dict.fromkeys(FILTERS.values[:6], np.array([tick]))})
            for _ in range(1 + again):
                added += store.append(BTC_PERP, seen, arrived_ms=int(row.time_ms[0]))
        stored = store.read(FILTERS, BTC_PERP)
    changes = [tick for number, tick in enumerate(ticks) if number == 0 or tick != ticks[number - 1]]
    assert stored["price_tick"].tolist() == changes
    assert added == len(changes)


@quick
@given(
    spans=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=8),
    start=st.integers(0, 60),
    size=st.integers(0, 40),
)
def test_what_is_left_to_ask_is_what_was_not_asked(spans, start, size):
    """Noted stretches, in any order and overlapping, leave exactly the moments that none of them covers."""
    covered = {moment for begin, length in spans for moment in range(begin, begin + length)}
    with tempfile.TemporaryDirectory() as folder:
        asked = Asked(Path(folder), Path(folder), FUNDING, BTC_PERP)
        for begin, length in spans:
            asked.note(begin, begin + length)
        lacking = asked.lacking(start, start + size)
    moments = [moment for span in lacking for moment in range(span.start_ms, span.end_ms)]
    assert moments == [moment for moment in range(start, start + size) if moment not in covered]
