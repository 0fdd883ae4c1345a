"""What the lake says of the quality of candles reaches the frames that training and shadow look at."""

from __future__ import annotations

import numpy as np
import pytest

from feature_store.candle import CLOSE, HIGH, CandleBlock
from feature_store.lake import CandleLake
from flows.frames import frames_between
from flows.training.candle_quality import quality_metrics
from flows.training.dataset import Dataset
from inference.models.manifest import TimeWindow
from tests.feature_support import BTC, ETH, STEP, market, without

SPIKE = 400


def test_a_stored_spike_and_a_stored_hole_are_figures_of_their_window(tmp_path):
    """A price that its neighbours do not bear out is marked in its own series, and a hole of one series is counted."""
    spoilt = market(600, seed=41)
    values = spoilt.values.copy()
    values[SPIKE, [HIGH, CLOSE]] = 1.6 * values[SPIKE, HIGH]
    lake = CandleLake(tmp_path / "lake")
    lake.append(BTC, CandleBlock(spoilt.open_time_ms, values))
    lake.append(ETH, without(market(600, seed=42), np.r_[450:453]))
    begin, end = int(spoilt.open_time_ms[200]), int(spoilt.open_time_ms[-1]) + STEP

    frames = frames_between(tmp_path / "features", lake, [BTC, ETH], start_ms=begin, end_ms=end, horizon=12)
    marked, clean = (frame for frame in frames.frames)
    dataset = Dataset(frames, horizon=12, window=64)
    at = spoilt.open_time_ms[SPIKE]
    told = quality_metrics(dataset, TimeWindow(start_ms=begin, end_ms=end))
    before = quality_metrics(dataset, TimeWindow(start_ms=begin, end_ms=begin + 100 * STEP))

    assert marked.suspect is not None
    assert at in marked.open_time_ms[marked.suspect]
    # The candle after a spike opens far away, too.
    assert set(marked.open_time_ms[marked.suspect]) <= {at, at + STEP}
    assert clean.suspect is not None
    assert not clean.suspect.any()
    assert told["suspect_share"] == pytest.approx(marked.suspect.sum() / (400 + 397))
    assert told["unexplained_share"] == pytest.approx(3 / 800)
    assert before == {"unexplained_share": 0.0, "suspect_share": 0.0}
