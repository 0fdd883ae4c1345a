"""How good the candles of a window are, as the gates read it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.candle import CandleBlock, Timeframe
from feature_store.ticks import suspect_marks, suspect_ticks
from flows.training.candle_quality import quality_metrics
from flows.training.dataset import Dataset, FrameSet, TrainingFrame
from flows.training.frame_file import decode_frames, encode_frames
from inference.models.manifest import TimeWindow
from tests.training_support import FIVE_MINUTES_MS, START_MS, make_frames

_WHOLE = TimeWindow(start_ms=START_MS, end_ms=START_MS + 300 * FIVE_MINUTES_MS)


def _window(first: int, last: int) -> TimeWindow:
    return TimeWindow(start_ms=START_MS + first * FIVE_MINUTES_MS, end_ms=START_MS + last * FIVE_MINUTES_MS)


def _without(frame: TrainingFrame, *absent: int) -> TrainingFrame:
    """Return the frame with some candles gone."""
    kept = np.ones(len(frame.close), bool)
    kept[list(absent)] = False
    arrays = ("open_time_ms", "inputs", "log_return", "close", "suspect")
    return replace(frame, traded=None, **{name: getattr(frame, name)[kept] for name in arrays})


def _dataset(*frames: TrainingFrame) -> Dataset:
    first = make_frames(series=1, candles=300)
    return Dataset(
        FrameSet(frames, first.input_names, first.feature_fingerprint, FIVE_MINUTES_MS), horizon=12, window=8
    )


def test_what_is_absent_alone_is_unexplained_and_what_all_lack_is_an_outage():
    """One series' hole counts, the moment at which every one is silent does not, and ends count for nobody."""
    a, b = make_frames(series=2, candles=300).frames
    dataset = _dataset(_without(a, 100, 101, 102, 200, 0), _without(b, 200, 299))
    found = quality_metrics(dataset, _WHOLE)

    assert found["unexplained_share"] == pytest.approx(3 / (299 + 299))
    assert quality_metrics(dataset, _window(150, 250))["unexplained_share"] == 0


def test_one_series_alone_proves_no_outage():
    """Whether a venue was silent cannot be told by one instrument: what it lacks is not explained."""
    (only,) = make_frames(series=1, candles=300).frames

    assert quality_metrics(_dataset(_without(only, 50)), _WHOLE)["unexplained_share"] == pytest.approx(1 / 300)


def test_suspect_prices_are_counted_where_they_lie():
    """The share is of the candles of the window; in a window without any it is nought."""
    a, b = make_frames(series=2, candles=300).frames
    marks = np.zeros(300, bool)
    marks[[250, 260]] = True
    dataset = _dataset(replace(a, suspect=marks), b)

    assert quality_metrics(dataset, _window(200, 300))["suspect_share"] == pytest.approx(2 / 200)
    assert quality_metrics(dataset, _window(0, 200))["suspect_share"] == 0


def test_a_crash_of_the_whole_market_is_no_bad_tick():
    """What most series show at the same moment is not held against them; what one shows meanwhile is."""
    a, b, c = make_frames(series=3, candles=300).frames
    alone, both = np.arange(300) == 50, np.isin(np.arange(300), [50, 120])
    crashed = _dataset(replace(a, suspect=both), replace(b, suspect=np.arange(300) == 120), c)
    single = _dataset(replace(a, suspect=alone))

    assert quality_metrics(crashed, _WHOLE)["suspect_share"] == pytest.approx(1 / 900)
    assert quality_metrics(single, _WHOLE)["suspect_share"] == pytest.approx(1 / 300)


def test_where_nobody_looked_nothing_is_claimed():
    """A series of which nobody knows its suspect prices leaves the figure out, so that the gate holds back."""
    a, b = make_frames(series=2, candles=300).frames

    assert "suspect_share" not in quality_metrics(_dataset(a, replace(b, suspect=None)), _WHOLE)
    assert "suspect_share" not in quality_metrics(_dataset(a, b), _window(400, 500))


def test_marks_are_what_the_quality_report_finds():
    """A spike in an ordinary market is marked at its own candle, and nothing else is."""
    rng = np.random.default_rng(1)
    close = 100 * np.exp(np.cumsum(0.001 * rng.standard_normal(400)))
    close[200] *= 1.5
    opened = np.append(close[0], close[:-1])
    high, low = np.maximum(opened, close), np.minimum(opened, close)
    times = START_MS + FIVE_MINUTES_MS * np.arange(400, dtype=np.int64)
    block = CandleBlock(times, np.stack([opened, high, low, close, np.ones(400)], axis=1))
    found = times[suspect_marks(block, Timeframe.M5)].tolist()

    assert times[200] in found
    assert found == [one.open_time_ms for one in suspect_ticks(block, Timeframe.M5)]
    assert not suspect_marks(CandleBlock.empty(), Timeframe.M5).any()


def test_marks_travel_with_the_frames():
    """A training elsewhere measures the same quality: marks, and that there are none to be had, survive the file."""
    a, b = make_frames(series=2, candles=300).frames
    marks = np.arange(300) == 7
    frames = replace(make_frames(series=2, candles=300), frames=(replace(a, suspect=marks), replace(b, suspect=None)))
    first, second = decode_frames(encode_frames(frames)).frames

    assert first.suspect is not None
    assert first.suspect.tolist() == marks.tolist()
    assert second.suspect is None


@given(st.sets(st.integers(1, 298), max_size=40), st.integers(0, 280), st.integers(1, 200))
def test_shares_are_shares(absent, begin, length):
    """Whatever is absent, and whatever the window, the share lies in [0, 1] and counts each hole once."""
    a, b, c = make_frames(series=3, candles=300).frames
    window = _window(begin, begin + length)
    found = quality_metrics(_dataset(_without(a, *absent), b, c), window)
    inside = sum(begin <= one < begin + length for one in absent)
    expected = 3 * (min(begin + length, 300) - begin)

    assert found["unexplained_share"] == pytest.approx(inside / expected)
