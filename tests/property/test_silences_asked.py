from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from feature_store.absences import Span
from feature_store.silences import ASKED_APART_MS, BELIEVED_AFTER, Silence, after_asking, to_ask, together

HOUR = ASKED_APART_MS
spans = st.lists(
    st.tuples(st.integers(0, 60), st.integers(1, 20)).map(lambda pair: Span(pair[0], sum(pair))), max_size=6
)


def covered(stretches) -> set[int]:
    """The moments inside some stretches."""
    return {moment for one in stretches for moment in range(one.start_ms, one.end_ms)}


@given(st.lists(st.tuples(spans, spans), min_size=1, max_size=6))
def test_every_moment_keeps_its_own_count(runs):
    """Whatever gaps there are and whatever is asked, a moment is believed once it was asked often enough as a gap."""
    silences: tuple[Silence, ...] = ()
    counts: dict[int, int] = {}
    for run, (gaps, asked) in enumerate(runs):
        now_ms = run * HOUR
        silences = after_asking(gaps, silences, asked, now_ms)
        left = covered(gaps)
        counts = {moment: counts.get(moment, 0) + (moment in covered(asked)) for moment in left}
        told = {moment: len(one.asked_at_ms) for one in silences for moment in range(one.start_ms, one.end_ms)}
        assert told == {moment: count for moment, count in counts.items() if count}
        assert sorted(silences) == list(silences)
        doubted = covered(to_ask(gaps, silences, now_ms + HOUR))
        assert doubted == {moment for moment in left if counts[moment] < BELIEVED_AFTER}


def test_answers_close_to_each_other_count_once():
    """A gap that was asked for a minute ago is not asked for, and asking it all the same adds nothing."""
    gap = [Span(0, 10)]
    once = after_asking(gap, (), gap, HOUR)
    assert once == (Silence(0, 10, (HOUR,)),)
    assert to_ask(gap, once, HOUR + 60_000) == ()
    assert after_asking(gap, once, gap, HOUR + 60_000) == once
    assert to_ask(gap, once, 2 * HOUR) == (Span(0, 10),)


def test_a_gap_that_was_filled_is_forgotten():
    """What the venue came up with later is no silence any more."""
    once = after_asking([Span(0, 10)], (), [Span(0, 10)], 0)
    assert after_asking([Span(8, 10)], once, [], HOUR) == (Silence(8, 10, (0,)),)


@given(spans, st.integers(1, 40))
def test_near_gaps_are_asked_for_together(gaps, longest):
    """One request covers several gaps, all of them, and grows beyond its length only for a gap that is longer."""
    groups = together(gaps, longest)
    assert covered(gaps) <= covered(groups)
    assert all(one.end_ms - one.start_ms <= longest or covered([one]) <= covered(gaps) for one in groups)
