"""Windows share no outcome, however they are cut."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from feature_store.errors import BadInputError
from flows.training.splits import plan_splits
from tests.training_support import FIVE_MINUTES_MS, START_MS, small_config


@given(
    candles=st.integers(100, 20_000),
    horizon=st.integers(1, 48),
    extra=st.integers(0, 100),
    shares=st.tuples(*[st.floats(0.01, 0.6)] * 3),
)
def test_no_label_reaches_into_another_window(candles, horizon, extra, shares):
    """Whatever the shares, a label ends inside its window and the next window begins a horizon later."""
    config = small_config(
        horizon=horizon, embargo=horizon + extra,
        fit_share=shares[0], validation_share=shares[1], calibration_share=shares[2],
    )  # fmt: skip
    try:
        splits = plan_splits(START_MS, START_MS + candles * FIVE_MINUTES_MS, config, timeframe_ms=FIVE_MINUTES_MS)
    except BadInputError:
        return
    windows = [splits.fit, splits.validation, splits.calibration, splits.shadow]

    for earlier, later in pairwise(windows):
        last_label_ends = splits.last_row_ms(earlier) - FIVE_MINUTES_MS + horizon * FIVE_MINUTES_MS
        assert last_label_ends < earlier.end_ms
        assert later.start_ms - earlier.end_ms >= config.embargo * FIVE_MINUTES_MS
    assert windows[-1].end_ms == START_MS + candles * FIVE_MINUTES_MS
