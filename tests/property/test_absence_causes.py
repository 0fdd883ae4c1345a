from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.absences import Cause, Span, absences, candles_in_each, joined, span_of
from feature_store.candle import Series, Timeframe
from tests.feature_support import STEP, T0, market

quick = settings(max_examples=60, deadline=None)
CANDLES = 40
WHOLE = market(CANDLES)
NAMES = [Series("sandbox", f"{letter}/USDT:USDT", Timeframe.M5) for letter in "ABCD"]
# For each symbol: the first and last candle of its listing, and which candles in between are absent.
histories = st.lists(
    st.tuples(st.integers(0, 15), st.integers(20, CANDLES - 1), st.sets(st.integers(0, CANDLES - 1), max_size=30)),
    min_size=1,
    max_size=4,
)


def recorded(histories):
    """Return blocks and listings in which a symbol is absent inside its listing only."""
    blocks, listed, present = {}, {}, {}
    for name, (first, last, absent) in zip(NAMES, histories, strict=False):
        kept = [row for row in range(first, last + 1) if row not in absent]
        blocks[name] = WHOLE[np.array(kept, np.int64)] if kept else WHOLE[:0]
        listed[name] = [Span(T0 + first * STEP, T0 + (last + 1) * STEP)]
        present[name] = (range(first, last + 1), set(kept))
    return blocks, listed, present


@quick
@given(histories=histories)
def test_an_outage_is_what_all_listed_symbols_lack(histories):
    """Each absent candle has the one cause that a plain reading of the rule gives it, and no present one has any."""
    blocks, listed, present = recorded(histories)
    found = absences(blocks, listed)

    for name, (span, kept) in present.items():
        expected = {}
        for row in set(span) - kept:
            others = [have for when, have in present.values() if row in when]
            silent = len(others) >= 2 and not any(row in have for have in others)
            expected[T0 + row * STEP] = Cause.OUTAGE if silent else Cause.UNEXPLAINED
        told = {time: one.cause for one in found[name] for time in range(one.start_ms, one.end_ms, STEP)}
        assert told == expected
        assert sum(one.candles for one in found[name]) == len(expected)


@quick
@given(histories=histories)
def test_runs_are_as_long_as_they_can_be(histories):
    """Two absences that touch have different causes, and they come oldest first."""
    blocks, listed, _ = recorded(histories)
    for every in absences(blocks, listed).values():
        for earlier, later in itertools.pairwise(every):
            assert earlier.end_ms <= later.start_ms
            assert earlier.end_ms < later.start_ms or earlier.cause is not later.cause


@quick
@given(histories=histories, which=st.randoms(use_true_random=False))
def test_the_order_of_the_series_does_not_matter(histories, which):
    """The same series in another order give the same answer."""
    blocks, listed, _ = recorded(histories)
    names = list(blocks)
    which.shuffle(names)
    assert absences({name: blocks[name] for name in names}, listed) == absences(blocks, listed)


@quick
@given(histories=histories)
def test_without_a_listing_nothing_is_absent_at_the_ends(histories):
    """A symbol that left, or came later, lacks nothing outside its own first and last candle."""
    blocks, _, _ = recorded(histories)
    for name, every in absences(blocks).items():
        spans = span_of(name, blocks[name])
        assert all(spans[0].start_ms < one.start_ms and one.end_ms < spans[0].end_ms for one in every)


@quick
@given(cuts=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 10)), max_size=8))
def test_joined_spans_cover_the_same_moments_once(cuts):
    """Joining neither adds nor loses a moment, and leaves stretches that stand apart."""
    spans = [Span(start, start + length) for start, length in cuts]
    result = joined(spans)
    assert [t for one in result for t in range(one.start_ms, one.end_ms)] == sorted(
        {t for one in spans for t in range(one.start_ms, one.end_ms)}
    )
    assert all(a.end_ms < b.start_ms for a, b in itertools.pairwise(result))


cuts = st.lists(st.tuples(st.integers(-20, 60), st.integers(-3, 25)), max_size=8)


@quick
@given(spans=cuts, within=cuts, step=st.integers(1, 7))
def test_candles_of_many_stretches_are_those_that_open_in_each(spans, within, step):
    """However spans overlap and wherever they end, each stretch counts the opening times in it that some span holds."""
    own = [Span(start, start + length) for start, length in spans]
    stretches = [Span(start, start + length) for start, length in within]
    held = {time for one in own for time in range(one.start_ms, one.end_ms) if time % step == 0}
    plain = [len(held.intersection(range(one.start_ms, one.end_ms))) for one in stretches]
    assert candles_in_each(own, stretches, step).tolist() == plain
