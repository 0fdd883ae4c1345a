"""How cold and warm fits are held against each other: on the same rows, and by markets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.training.config import TrainingConfig
from flows.training.dataset import Rows
from infra.prove.warm_start import _errors, between, excess, of_markets
from tests.training_support import make_frames

CONFIG = TrainingConfig(created_at="", code_version="", market_share_removed=0.0)
STEP = 300_000


def day(label: np.ndarray, first: int = 0) -> Rows:
    """Return rows of one series, a candle apart."""
    place = np.arange(len(label))
    return Rows(place, np.zeros(len(label), np.int64), (first + place) * STEP, label)


@given(st.integers(0, 2**31), st.floats(0.0, 2.0))
def test_equal_answers_exceed_nothing(seed, scale):
    """Whoever says the same errs the same, with no width of doubt."""
    label = np.random.default_rng(seed).normal(size=480)
    said = scale * label
    found = excess(_errors(day(label), {"cold": said, "warm": said}, CONFIG), "warm")

    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


def test_worse_answers_are_found():
    """An answer that misses by as much as half of the spread errs by a quarter of what expecting nothing does."""
    label = np.random.default_rng(1).normal(size=4800)
    miss = label + 0.5 * np.random.default_rng(2).normal(size=4800)
    found = excess(_errors(day(label), {"cold": label, "warm": miss}, CONFIG), "warm")

    assert found.value == pytest.approx(0.25, abs=0.02)
    assert 0.2 < found.low < found.value < found.high < 0.3


def test_markets_count_and_not_rows():
    """The interval is of the markets' own differences; of one market alone nothing can be said."""
    found, one = of_markets([0.01, 0.02, 0.03]), of_markets([0.01])

    assert found.value == pytest.approx(0.02)
    assert (found.low, found.high) == (pytest.approx(0.02 - 0.02484, abs=1e-5), pytest.approx(0.02 + 0.02484, abs=1e-5))
    assert (one.low, one.high) == (-np.inf, np.inf)


def test_a_window_holds_its_days_alone():
    """Candles outside it are in no array of the frames."""
    frames = make_frames(series=2, candles=600)
    times = frames.frames[0].open_time_ms
    cut = between(frames, int(times[99]), int(times[299]))

    for one in cut.frames:
        assert (int(one.open_time_ms[0]), int(one.open_time_ms[-1])) == (int(times[100]), int(times[299]))
        assert len(one.inputs) == len(one.log_return) == len(one.close) == 200
