"""Folds share no outcome, keep their embargo, and test everything equally often, however they are cut."""

from __future__ import annotations

from collections import Counter
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.errors import BadInputError
from flows.training.folds import FoldRules, combinatorial, path_count, paths, walk_forward
from tests.training_support import FIVE_MINUTES_MS, START_MS

STEP = FIVE_MINUTES_MS


def _rows(candles, reaches):
    """Return the candles of a stretch, and when the label of each is known: a horizon later, or sooner or later."""
    times = START_MS + STEP * np.arange(candles, dtype=np.int64)
    return times, times + STEP * (1 + np.resize(reaches, candles))


def _check(fold, rules, times, known_ms):
    learned, tested = fold.learns_from(times, known_ms), fold.tests_on(times, known_ms)
    assert not (learned & tested).any()
    for window in fold.tests:
        # No label that is learned from is open at any moment of a window, nor within the embargo beside it.
        begins, ends = times[learned], known_ms[learned]
        apart = (ends <= window.start_ms - rules.embargo_ms) | (begins >= window.end_ms + rules.embargo_ms)
        assert apart.all()
        own = (times >= window.start_ms) & (times < window.end_ms) & tested
        assert (known_ms[own] <= window.end_ms).all()


@settings(max_examples=60)
@given(
    candles=st.integers(400, 4_000),
    horizon=st.integers(1, 24),
    extra=st.integers(0, 30),
    folds=st.integers(1, 8),
    first=st.floats(0.1, 0.9),
    reaches=st.lists(st.integers(1, 24), min_size=1, max_size=5),
)
def test_walk_forward_learns_from_the_past_alone(candles, horizon, extra, folds, first, reaches):
    """Every fold tests after all it learned from, windows follow each other without a hole, and nothing is shared."""
    rules = FoldRules(timeframe_ms=STEP, horizon=horizon, embargo=horizon + extra)
    end_ms = START_MS + candles * STEP
    try:
        made = walk_forward(START_MS, end_ms, rules, folds=folds, first_share=first)
    except BadInputError:
        return
    times, known_ms = _rows(candles, reaches)
    for fold in made:
        _check(fold, rules, times, known_ms)
        learned = fold.learns_from(times, known_ms)
        assert known_ms[learned].max() <= fold.tests[0].start_ms - rules.embargo_ms
    windows = [fold.tests[0] for fold in made]
    assert [one.start_ms for one in windows[1:]] == [one.end_ms for one in windows[:-1]]
    assert windows[-1].end_ms == end_ms
    assert len(made) == folds


@settings(max_examples=60)
@given(
    candles=st.integers(600, 4_000),
    horizon=st.integers(1, 12),
    extra=st.integers(0, 20),
    groups=st.integers(2, 7),
    tested=st.integers(1, 3),
    reaches=st.lists(st.integers(1, 24), min_size=1, max_size=5),
)
def test_combinatorial_folds_test_everything_equally_often(candles, horizon, extra, groups, tested, reaches):
    """Each choice of groups is a fold, each group is tested as often as the others, and histories are whole."""
    rules = FoldRules(timeframe_ms=STEP, horizon=horizon, embargo=horizon + extra)
    try:
        made = combinatorial(START_MS, START_MS + candles * STEP, rules, groups=groups, tested=tested)
    except BadInputError:
        return
    times, known_ms = _rows(candles, reaches)
    for fold in made:
        _check(fold, rules, times, known_ms)
    assert len(made) == comb(groups, tested)
    often = Counter(group for fold in made for group in fold.groups)
    assert set(often.values()) == {path_count(groups, tested)}
    assert set(often) == set(range(groups))

    histories = paths(made)
    assert len(histories) == path_count(groups, tested)
    used = [(group, number) for history in histories for group, number in history.items()]
    assert len(set(used)) == len(used) == len(made) * tested
    assert all(list(history) == list(range(groups)) for history in histories)
    assert all(group in made[number].groups for group, number in used)


def test_six_groups_two_tested_written_out():
    """Six choose two are fifteen folds and five histories; the first fold learns from what follows its windows."""
    rules = FoldRules(timeframe_ms=STEP, horizon=12, embargo=12)
    made = combinatorial(START_MS, START_MS + 600 * STEP, rules, groups=6, tested=2)
    spans = [[((w.start_ms - START_MS) // STEP, (w.end_ms - START_MS) // STEP) for w in one] for one in
             (made[0].tests, made[0].train, made[1].tests, made[1].train)]  # fmt: skip

    assert (len(made), len(paths(made))) == (15, 5)
    assert spans == [
        [(0, 100), (100, 200)],
        [(212, 600)],
        [(0, 100), (200, 300)],
        [(112, 188), (312, 600)],
    ]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FoldRules(timeframe_ms=STEP, horizon=12, embargo=11), "embargo must be at least the horizon"),
        (lambda: FoldRules(timeframe_ms=0, horizon=12, embargo=12), "above 0"),
        (lambda: _forward(600, folds=0), "Walk-forward needs folds"),
        (lambda: _forward(600, folds=3, first_share=1.0), r"a share in \(0, 1\)"),
        (lambda: _forward(300, folds=9), "load more days, or ask for fewer folds"),
        (lambda: _crossed(600, groups=4, tested=4), "at least 1 and fewer than 4"),
        (lambda: _crossed(100, groups=6, tested=2), "load more days"),
    ],
)
def test_folds_that_cannot_be_are_refused(make, message):
    """What would leak, or hold nothing, is refused with what to do."""
    with pytest.raises(BadInputError, match=message):
        make()


def _forward(candles, **asked):
    rules = FoldRules(timeframe_ms=STEP, horizon=12, embargo=12)
    return walk_forward(START_MS, START_MS + candles * STEP, rules, **asked)


def _crossed(candles, **asked):
    rules = FoldRules(timeframe_ms=STEP, horizon=12, embargo=12)
    return combinatorial(START_MS, START_MS + candles * STEP, rules, **asked)
