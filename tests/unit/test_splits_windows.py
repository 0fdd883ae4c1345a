"""The four windows, written out."""

from __future__ import annotations

import numpy as np
import pytest

from feature_store.errors import BadInputError
from flows.training.dataset import Dataset
from flows.training.splits import plan_splits
from tests.training_support import FIVE_MINUTES_MS, START_MS, make_frames, small_config

CONFIG = small_config(fit_share=0.6, validation_share=0.1, calibration_share=0.1, embargo=12)


def _candles(window) -> tuple[int, int]:
    return tuple((ms - START_MS) // FIVE_MINUTES_MS for ms in (window.start_ms, window.end_ms))


def test_windows_of_a_thousand_candles_written_out():
    """Fit, validation, calibration and shadow follow each other with twelve candles between them that are nobody's."""
    splits = plan_splits(START_MS, START_MS + 1000 * FIVE_MINUTES_MS, CONFIG, timeframe_ms=FIVE_MINUTES_MS)

    assert _candles(splits.fit) == (0, 600)
    assert _candles(splits.validation) == (612, 700)
    assert _candles(splits.calibration) == (712, 800)
    assert _candles(splits.shadow) == (812, 1000)


def test_rows_of_each_window_written_out():
    """A row's label ends inside its window: the twelve candles before each end are purged."""
    frames = make_frames(series=1, candles=1111)
    dataset = Dataset(frames, horizon=12, window=64)
    first = 48 + 63
    splits = plan_splits(dataset.start_ms, dataset.end_ms, CONFIG, timeframe_ms=FIVE_MINUTES_MS)
    rows = {
        name: (dataset.rows(getattr(splits, name), splits).open_time_ms - START_MS) // FIVE_MINUTES_MS - first
        for name in ("fit", "validation", "calibration", "shadow")
    }

    assert dataset.start_ms == START_MS + first * FIVE_MINUTES_MS
    assert {name: (int(one[0]), int(one[-1]), len(one)) for name, one in rows.items()} == {
        "fit": (0, 587, 588),
        "validation": (612, 687, 76),
        "calibration": (712, 787, 76),
        "shadow": (812, 987, 176),
    }


@pytest.mark.parametrize(
    ("changes", "candles", "message"),
    [
        pytest.param({"embargo": 11}, 1000, "embargo must be at least the horizon", id="embargo-shorter-than-horizon"),
        pytest.param({"fit_share": 0.9}, 1000, "sum below 1", id="nothing-left-for-shadow"),
        pytest.param({"validation_share": 0.0}, 1000, "must be positive", id="no-validation"),
        pytest.param({}, 300, "too few", id="too-short"),
    ],
)
def test_unusable_splits_are_refused(changes, candles, message):
    """Splits that would leak or hold nothing are refused with what is wrong."""
    config = small_config(**({"validation_share": 0.1, "calibration_share": 0.1} | changes))
    with pytest.raises(BadInputError, match=message):
        plan_splits(START_MS, START_MS + candles * FIVE_MINUTES_MS, config, timeframe_ms=FIVE_MINUTES_MS)


def test_a_gap_leaves_no_row_whose_past_or_future_spans_it():
    """Rows within a window after a gap, and within a horizon before it, are not used."""
    frames = make_frames(series=1, candles=800)
    frame = frames.frames[0]
    kept = np.delete(np.arange(800), 400)
    cut = type(frame)(
        frame.symbol, frame.open_time_ms[kept], frame.inputs[kept], frame.log_return[kept], frame.close[kept]
    )
    dataset = Dataset(
        type(frames)((cut,), frames.input_names, frames.feature_fingerprint, FIVE_MINUTES_MS), horizon=12, window=64
    )
    usable = (dataset.open_time_ms[dataset.complete & np.isfinite(dataset.label)] - START_MS) // FIVE_MINUTES_MS

    assert 387 in usable
    assert 388 not in usable
    assert 464 not in usable
    assert 465 in usable
