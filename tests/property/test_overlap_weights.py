"""Concurrency, uniqueness and weights against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.errors import BadInputError
from flows.training.dataset import Rows
from flows.training.overlap import average_uniqueness, concurrency, overlapping, row_weights, time_decay
from inference.models.manifest import TimeWindow
from tests.training_support import small_config

STEP = 300_000
LABELS = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 15)), min_size=1, max_size=40)


def _times(labels):
    start = np.array([one[0] for one in labels], np.int64) * STEP
    return start, start + np.array([one[1] for one in labels], np.int64) * STEP


@given(LABELS)
def test_uniqueness_equals_counting_by_hand(labels):
    """Open labels are counted candle by candle, and each label's mean of one over them is its uniqueness."""
    start, end = _times(labels)
    counted = {}
    for candle in range(int(start.min()), int(end.max()), STEP):
        counted[candle] = sum(a <= candle < b for a, b in zip(start, end, strict=True))
    by_hand = [np.mean([1 / counted[candle] for candle in range(a, b, STEP)]) for a, b in zip(start, end, strict=True)]

    assert concurrency(start, end, step_ms=STEP).tolist() == list(counted.values())
    np.testing.assert_allclose(average_uniqueness(start, end, step_ms=STEP), by_hand, rtol=1e-12)


@given(LABELS, st.randoms(use_true_random=False))
def test_order_and_time_of_day_change_nothing(labels, random):
    """Shuffled labels keep their uniqueness, and so do all of them a year later."""
    start, end = _times(labels)
    order = np.array(random.sample(range(len(labels)), len(labels)))
    unique = average_uniqueness(start, end, step_ms=STEP)

    np.testing.assert_array_equal(average_uniqueness(start[order], end[order], step_ms=STEP), unique[order])
    np.testing.assert_array_equal(average_uniqueness(start + 10**11, end + 10**11, step_ms=STEP), unique)
    assert (unique > 0).all()
    assert (unique <= 1 + 1e-12).all()


@given(uniqueness=st.lists(st.floats(0.01, 1), min_size=1, max_size=50).map(np.array), oldest=st.floats(-0.9, 1))
def test_weights_never_rise_with_age(uniqueness, oldest):
    """The newest label counts in full, an older one never more than a newer one, and none less than nothing."""
    weights = time_decay(uniqueness, oldest)

    assert weights[-1] == pytest.approx(1)
    assert (np.diff(weights) >= -1e-12).all()
    assert (weights >= 0).all()


def test_what_overlaps_a_window_is_marked():
    """A label that is open at any time in a window overlaps it; one that ends where it begins does not."""
    start, end = _times([(0, 10), (0, 11), (15, 3), (20, 1), (19, 1)])

    marked = overlapping(start, end, TimeWindow(start_ms=10 * STEP, end_ms=20 * STEP))

    assert marked.tolist() == [False, True, True, False, True]


def test_rows_that_share_labels_share_one_voice():
    """Beside a gap a row stands alone and counts more; weights are 1 on average, and per series."""
    places = np.concatenate([np.arange(30), np.arange(100, 101)])
    times = np.concatenate([places, places]) * STEP
    rows = Rows(np.arange(len(times)), np.repeat([0, 1], len(places)), times, np.zeros(len(times)))
    weights = row_weights(rows, small_config(row_weighting="uniqueness"), timeframe_ms=STEP)

    assert weights.mean() == pytest.approx(1)
    assert weights[30] == weights.max()
    np.testing.assert_array_equal(weights[:31], weights[31:])
    assert row_weights(rows, small_config(), timeframe_ms=STEP) is None


@pytest.mark.parametrize(
    ("start", "end"),
    [
        pytest.param([0], [0], id="ends-at-once"),
        pytest.param([STEP], [0], id="ends-before"),
        pytest.param([0, 7], [STEP, 2 * STEP], id="off-the-grid"),
        pytest.param([0, STEP * 10**9], [STEP, STEP * (10**9 + 1)], id="ages-apart"),
    ],
)
def test_labels_that_make_no_sense_are_refused(start, end):
    """A label without length, off the grid, or ages apart from the others is an error, not a weight."""
    with pytest.raises(BadInputError, match="Labels"):
        average_uniqueness(np.array(start, np.int64), np.array(end, np.int64), step_ms=STEP)


def test_no_labels_have_no_weights():
    """Nothing in, nothing out."""
    nothing = np.empty(0, np.int64)

    assert len(concurrency(nothing, nothing, step_ms=STEP)) == 0
    assert len(average_uniqueness(nothing, nothing, step_ms=STEP)) == 0
    assert len(time_decay(np.empty(0), 0.5)) == 0
    with pytest.raises(BadInputError, match="oldest"):
        time_decay(np.ones(2), -1.0)
