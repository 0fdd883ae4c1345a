"""Symbols spread over connections, memories that know their age, and lateness: what holds for any of them."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from feature_store.candle import CandleBlock, Timeframe
from inference.feed.fresh import FreshValues
from inference.feed.lateness import Lateness
from inference.feed.pool import spread
from inference.feed.recent import REMEMBERED, RecentCandles

STEP = Timeframe.M1.milliseconds
NAMES = st.integers(0, 700).map(lambda count: tuple(f"S{number}" for number in range(count)))


@given(NAMES, st.integers(1, 250), st.integers(1, 12))
def test_every_symbol_has_one_place_and_no_connection_carries_too_many(symbols, per_connection, connections):
    """Each symbol once, in its order; within both limits; as few connections as can be, as even as can be."""
    pool = spread(symbols, per_connection=per_connection, connections=connections)
    sizes = [len(group) for group in pool.groups]
    placed = tuple(symbol for group in pool.groups for symbol in group)

    assert placed + pool.left_over == symbols
    assert all(1 <= size <= per_connection for size in sizes)
    assert len(sizes) <= connections
    assert len(sizes) == -(-len(placed) // per_connection)
    assert not sizes or max(sizes) - min(sizes) <= 1
    # Nothing is left over while there is room.
    assert not pool.left_over or len(placed) == per_connection * connections


@given(NAMES, st.integers(-3, 0), st.integers(-3, 3))
def test_where_no_connection_carries_anything_all_is_left_over(symbols, per_connection, connections):
    """A limit of nothing, or of less, spreads nothing, and loses nothing."""
    assert spread(symbols, per_connection=per_connection, connections=connections).left_over == symbols


PUTS = st.lists(
    st.tuples(st.dictionaries(st.sampled_from("abcdef"), st.integers(), max_size=4), st.integers(0, 10_000)),
    max_size=40,
)


@given(PUTS, st.integers(0, 3_000), st.integers(0, 12_000), st.sampled_from("abcdef"))
@example([({"a": 0}, 1), ({"b": 0}, 2), ({"a": 0}, 0)], 0, 0, "a")
def test_memory_answers_with_the_newest_and_with_nothing_too_old(puts, bound_ms, now_ms, key):
    """Whatever came in whatever order: an answer is of the latest moment that was put, within the bound of now."""
    values: FreshValues[int] = FreshValues(bound_ms=bound_ms)
    for told, at_ms in puts:
        values.put(told, at_ms=at_ms)
    found = values.get(key, now_ms=now_ms)
    moments = [at_ms for told, at_ms in puts if key in told]

    if found is not None:
        newest = max(moments)
        assert 0 <= now_ms - newest <= bound_ms
        assert found == [told[key] for told, at_ms in puts if key in told and at_ms == newest][-1]
    elif moments and 0 <= now_ms - max(moments) <= bound_ms:
        # Only what was too old beside something later may have been forgotten.
        assert any(at_ms - bound_ms > max(moments) for _, at_ms in puts)


@given(st.lists(st.integers(0, 100_000), max_size=400), st.integers(0, 50))
def test_memory_of_ever_new_keys_does_not_grow(moments, bound_ms):
    """A new key forgets what is too old beside it: what is left is what came within the bound."""
    values: FreshValues[int] = FreshValues(bound_ms=bound_ms)
    for number, at_ms in enumerate(sorted(moments)):
        values.put({str(number): number}, at_ms=at_ms)

    last = max(moments, default=0)
    assert len(values) == sum(at_ms >= last - bound_ms for at_ms in moments)


@st.composite
def series(draw):
    """Return open times in order, with holes."""
    kept = draw(st.lists(st.booleans(), min_size=1, max_size=40))
    return [number * STEP for number, is_there in enumerate(kept) if is_there]


@given(series(), st.integers(-2, 45), st.integers(-2, 45))
def test_remembered_candles_are_whole_and_end_where_they_were_asked_to(opens, count, last):
    """So many in a row, the last of them the one that was asked for; else nothing, never a part of it."""
    recent = RecentCandles(Timeframe.M1)
    block = CandleBlock(np.array(opens, np.int64), np.full((len(opens), 5), 1.0))
    recent.add("A", block)
    found = recent.newest("A", count, last_open_ms=last * STEP)
    wanted = [(last - number) * STEP for number in range(count)][::-1]

    if found is not None:
        assert found.open_time_ms.tolist() == wanted
    else:
        is_there = count > 0 and bool(opens) and opens[-1] == last * STEP and set(wanted) <= set(opens)
        assert not is_there


def test_more_candles_than_are_remembered_are_not_answered():
    """What memory does not reach is asked for, never cut short."""
    recent = RecentCandles(Timeframe.M1)
    times = np.arange(REMEMBERED + 10, dtype=np.int64) * STEP
    recent.add("A", CandleBlock(times, np.full((len(times), 5), 1.0)))

    assert recent.newest("A", REMEMBERED + 1, last_open_ms=int(times[-1])) is None
    assert recent.newest("A", REMEMBERED, last_open_ms=int(times[-1])) is not None
    assert recent.newest("B", 1, last_open_ms=0) is None


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(-5 * STEP, 5 * STEP)), max_size=60),
    st.lists(st.integers(1, 6), min_size=1, max_size=8),
)
def test_every_candle_that_is_handed_out_is_counted_once(arrivals, portions):
    """However candles came, repeated and ahead of others: each one that goes out has its lateness, and none stays."""
    lateness, handed, now_ms = Lateness(Timeframe.M1), 0, 0
    pending = sorted(arrivals)
    for portion in portions:
        for number, late_ms in pending:
            if handed <= number:
                lateness.came("A", number * STEP, now_ms=max(0, (number + 1) * STEP + late_ms))
        opens = [(handed + one) * STEP for one in range(portion)]
        now_ms = opens[-1] + STEP
        late = lateness.handed_out("A", opens, now_ms=now_ms)
        handed += portion
        firsts = [late_ms for number, late_ms in pending if number == handed - 1]
        assert late == (max(0, firsts[0]) if firsts else 0)

    figures = lateness.figures()
    assert lateness.backfilled + len(lateness._late_ms) == handed
    assert all(time >= handed * STEP for times in lateness._came.values() for time in times)
    if lateness._late_ms:
        assert 0 <= figures["late_ms_p50"] <= figures["late_ms_p99"] <= figures["late_ms_worst"] < STEP
