"""The label: log return over the horizon."""

from __future__ import annotations

import numpy as np

from feature_store.labels import forward_log_return

STEP = 300_000


def test_label_is_the_log_return_over_the_horizon():
    """Each candle's label is ln of the close `horizon` later over its own; the last ones have none yet."""
    close = np.array([100.0, 101.0, 102.0, 103.0])
    label = forward_log_return(close, STEP * np.arange(4), horizon=2, timeframe_ms=STEP)

    np.testing.assert_array_equal(label, [np.log(102 / 100), np.log(103 / 101), np.nan, np.nan])


def test_a_missing_candle_on_the_way_leaves_no_label():
    """A label that would reach over a gap is none: the horizon would be longer than it says."""
    times = STEP * np.array([0, 1, 2, 4, 5, 6])
    label = forward_log_return(np.arange(1.0, 7.0), times, horizon=2, timeframe_ms=STEP)

    assert np.isnan(label).tolist() == [False, True, True, False, True, True]


def test_a_series_shorter_than_the_horizon_has_no_labels():
    """Nothing is known of a future that has not begun."""
    assert np.isnan(forward_log_return(np.ones(3), STEP * np.arange(3), horizon=12, timeframe_ms=STEP)).all()
