"""Whether the days that judge a candidate are of the market that it learned from."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.drifting.cycles import CYCLE_MS, InputDrift, input_drift
from flows.training.report import MOST_CYCLES
from inference.models.manifest import TimeWindow, TrainingWindows

STEP_MS = 900_000
A_DAY = CYCLE_MS // STEP_MS
NAMES = ("moving", "steady", "empty")


def _market(days: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    rows = days * A_DAY
    values = np.stack([rng.normal(size=rows), rng.exponential(size=rows), np.full(rows, np.nan)], axis=1)
    return values, STEP_MS * np.arange(rows, dtype=np.int64)


def _judged(values: np.ndarray, times: np.ndarray, *, trained: int, locked: float) -> InputDrift:
    fit, until = TimeWindow(start_ms=0, end_ms=(trained - 2) * CYCLE_MS), trained * CYCLE_MS
    rest = [TimeWindow(start_ms=(trained - n) * CYCLE_MS, end_ms=(trained - n + 1) * CYCLE_MS) for n in (2, 1)]
    window = TimeWindow(start_ms=until, end_ms=until + int(locked * CYCLE_MS))
    windows = TrainingWindows(fit=fit, validation=rest[0], calibration=rest[1], shadow=window)
    return input_drift(NAMES, values, times, windows=windows, judged=window)


def test_an_unchanged_market_has_a_figure_for_each_day():
    """Each whole day of the locked window lies within what chance explains, and nothing is remarked."""
    found = _judged(*_market(25), trained=20, locked=5)

    assert list(found.metrics()) == [f"input_drift/cycle_{place}" for place in range(1, 6)]
    assert all(0 < share < 1 for share in found.metrics().values())
    assert found.notes() == ()


@pytest.mark.parametrize("day", [1, 3])
def test_a_day_of_another_market_is_found_and_named(day):
    """A shift of three deviations on one day is in that day's figure alone, and the note says which input and when."""
    values, times = _market(25)
    values[(times >= (25 - day) * CYCLE_MS) & (times < (26 - day) * CYCLE_MS), 0] += 3
    found = _judged(values, times, trained=20, locked=5)

    assert [name for name, share in found.metrics().items() if share > 1] == [f"input_drift/cycle_{day}"]
    (note,) = found.notes()
    assert note == f"What it reads had drifted in the day until 1970-01-{27 - day:02d} 00:00 UTC: moving."


def test_what_moved_before_training_ended_is_no_drift():
    """A candidate that was trained on what moved is judged by that, not by an older champion's past."""
    values, times = _market(25)
    values[:, 0] += 5
    assert max(_judged(values, times, trained=20, locked=5).metrics().values()) < 1


@pytest.mark.parametrize(
    ("trained", "locked", "figures", "said"),
    [
        pytest.param(6, 2, 0, "on 2 of 2 days: 6 stretches", id="training-too-short"),
        pytest.param(20, 0.5, 0, "", id="less-than-a-day"),
        pytest.param(20, 12, MOST_CYCLES, "", id="only-the-newest"),
    ],
)
def test_what_cannot_be_judged_has_no_figure(trained, locked, figures, said):
    """Where nothing can be said there is no figure, which holds a candidate back, and the note says why."""
    found = _judged(*_market(trained + math.ceil(locked)), trained=trained, locked=locked)

    assert len(found.metrics()) == figures
    assert said in " ".join(found.notes())
    assert bool(found.notes()) is bool(said)


def test_a_day_without_candles_is_not_judged():
    """A gap is no evidence that nothing moved."""
    values, times = _market(25)
    there = times < 24 * CYCLE_MS
    found = _judged(values[there], times[there], trained=20, locked=5)

    assert "input_drift/cycle_1" not in found.metrics()
    assert "on 1 of 5 days: 0 rows now" in found.notes()[0]


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_order_of_rows_changes_nothing(seed):
    """Series lie one after the other or by time: what a day is like is the same."""
    values, times = _market(14)
    values[::7, 1] = np.inf
    order = np.random.default_rng(seed).permutation(len(times))
    found = _judged(values[order], times[order], trained=12, locked=2)

    assert dict(found.metrics()) == dict(_judged(values, times, trained=12, locked=2).metrics())
