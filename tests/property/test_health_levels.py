"""Whatever is measured: worse inputs never give a better level, and what is not known is as bad as the worst."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.domain.health import HealthLevel
from inference.domain.policy import Policy
from inference.risk.errors import ErrorCounts
from inference.supervision.health_evaluator import (
    OF_THE_STOP,
    HealthInputs,
    Part,
    bounds_of,
    evaluate_health,
    severity,
)

BOUNDS = bounds_of(Policy(), 300)
BEST = HealthInputs(
    journal_failed=False, unsynced_seconds=0, work_failed="", lease_held=True, reconciled=True, objections=(),
    candle_overdue_seconds=0, account_age_seconds=0, circuits_open=0, errors=ErrorCounts(), loop_lag_seconds=0,
    bus_late=False, disk_free_bytes=1e12, memory_free_bytes=1e12,
)  # fmt: skip
NAMES = [one.name for one in fields(HealthInputs)]
MORE_IS_WORSE = ["unsynced_seconds", "candle_overdue_seconds", "account_age_seconds", "circuits_open",
                 "loop_lag_seconds"]  # fmt: skip
LESS_IS_WORSE = ["disk_free_bytes", "memory_free_bytes"]


def _counts(found):
    return st.builds(
        lambda failed, more, in_row: ErrorCounts(failed=failed, outcomes=failed + more, in_row=in_row),
        found, found, found,
    )  # fmt: skip


AMOUNTS = st.floats(0, 1e13, allow_nan=False)
WORDS = st.sampled_from(["", "it failed", "another"])
KNOWN = {
    "journal_failed": st.booleans(), "lease_held": st.booleans(), "reconciled": st.booleans(),
    "bus_late": st.booleans(), "work_failed": WORDS, "objections": st.lists(WORDS.filter(bool), max_size=2).map(tuple),
    "errors": _counts(st.integers(0, 60)), "circuits_open": st.integers(0, 50),
    **dict.fromkeys([one for one in MORE_IS_WORSE if one != "circuits_open"] + LESS_IS_WORSE,
                    AMOUNTS | st.floats(0, 600)),
}  # fmt: skip
INPUTS = st.builds(HealthInputs, **{name: st.none() | KNOWN[name] for name in NAMES})


def better_levels(worse, better):
    """Return the levels of what has to be worse, and of what it is held against, wherever it is called better."""
    found = [
        [evaluate_health(one, BOUNDS).level_without(parts) for one in (worse, better)] for parts in ((), OF_THE_STOP)
    ]
    return [pair for pair in found if severity(pair[0]) < severity(pair[1])]


def test_every_input_is_drawn():
    """A new input has to be told to these properties."""
    assert sorted(KNOWN) == sorted(NAMES)
    assert evaluate_health(BEST, BOUNDS).level is HealthLevel.OPTIMAL


@given(INPUTS, st.sampled_from(MORE_IS_WORSE + LESS_IS_WORSE), AMOUNTS, AMOUNTS)
def test_a_worse_amount_never_gives_a_better_level(inputs, name, one, other):
    """Older, later, fuller: whatever else there is, the level stays or falls."""
    low, high = sorted((one, other))
    worse, better = (low, high) if name in LESS_IS_WORSE else (high, low)

    assert better_levels(replace(inputs, **{name: worse}), replace(inputs, **{name: better})) == []


@given(INPUTS, st.integers(0, 60), st.integers(0, 60), st.integers(0, 60))
def test_one_more_error_never_gives_a_better_level(inputs, failed, well, in_row):
    """Of as many outcomes one more failed, or one more came in a row."""
    counts = ErrorCounts(failed=failed, outcomes=failed + well + 1, in_row=in_row)
    more = replace(counts, failed=failed + 1), replace(counts, in_row=in_row + 1)

    for worse in more:
        assert better_levels(replace(inputs, errors=worse), replace(inputs, errors=counts)) == []


@given(INPUTS, WORDS)
def test_trouble_that_is_said_never_gives_a_better_level(inputs, word):
    """What failed, is not held, or objects, is never better than the same without it."""
    pairs = (
        ({"journal_failed": True}, {"journal_failed": False}),
        ({"lease_held": False}, {"lease_held": True}),
        ({"reconciled": False}, {"reconciled": True}),
        ({"bus_late": True}, {"bus_late": False}),
        ({"work_failed": word or "x"}, {"work_failed": ""}),
        ({"objections": (word,) if word else ("x",)}, {"objections": ()}),
    )
    for worse, better in pairs:
        assert better_levels(replace(inputs, **worse), replace(inputs, **better)) == []


@given(INPUTS, st.data(), st.sampled_from(NAMES))
def test_a_missing_input_is_never_better_than_a_known_one(inputs, data, name):
    """However old or bad what is known of it may be: not to know is as bad."""
    assert better_levels(replace(inputs, **{name: None}), replace(inputs, **{name: data.draw(KNOWN[name])})) == []


@pytest.mark.parametrize("name", MORE_IS_WORSE + LESS_IS_WORSE)
def test_what_is_no_number_is_missing(name):
    """A NaN compares with nothing: it must not pass for the best."""
    unknown = evaluate_health(replace(BEST, **{name: math.nan}), BOUNDS)

    assert unknown == evaluate_health(replace(BEST, **{name: None}), BOUNDS)
    assert severity(unknown.level) >= severity(HealthLevel.DEGRADED)


@given(INPUTS)
def test_the_level_is_that_of_the_worst_reason(inputs):
    """Whatever was found, the first finding is the worst, and there is none where all is at its best."""
    health = evaluate_health(inputs, BOUNDS)

    levels = [severity(one.level) for one in health.findings]
    assert levels == sorted(levels, reverse=True)
    assert severity(health.level) == max(levels, default=0)
    assert all(one.reason for one in health.findings)


@pytest.mark.parametrize(
    ("changed", "level", "part"),
    [
        ({"journal_failed": True}, HealthLevel.EMERGENCY, Part.JOURNAL),
        ({"work_failed": "decide failed"}, HealthLevel.CRITICAL, Part.WORK),
        ({"lease_held": False}, HealthLevel.DEGRADED, Part.LEASE),
        ({"reconciled": False}, HealthLevel.DEGRADED, Part.RECONCILE),
        ({"objections": ("equity is not known",)}, HealthLevel.DEGRADED, Part.OBJECTIONS),
        ({"bus_late": True}, HealthLevel.DEGRADED, Part.BUS),
        ({"unsynced_seconds": 361}, HealthLevel.DEGRADED, Part.SYNC),
        ({"candle_overdue_seconds": 11}, HealthLevel.HEALTHY, Part.CANDLES),
        ({"candle_overdue_seconds": 61}, HealthLevel.DEGRADED, Part.CANDLES),
        ({"candle_overdue_seconds": 301}, HealthLevel.CRITICAL, Part.CANDLES),
        ({"account_age_seconds": 50}, HealthLevel.HEALTHY, Part.ACCOUNT),
        ({"account_age_seconds": 1e9}, HealthLevel.DEGRADED, Part.ACCOUNT),
        ({"circuits_open": 9}, HealthLevel.DEGRADED, Part.CIRCUITS),
        ({"errors": ErrorCounts(in_row=1, failed=1, outcomes=1)}, HealthLevel.HEALTHY, Part.ERRORS),
        ({"errors": ErrorCounts(in_row=4)}, HealthLevel.DEGRADED, Part.ERRORS),
        ({"errors": ErrorCounts(in_row=6)}, HealthLevel.CRITICAL, Part.ERRORS),
        ({"errors": ErrorCounts(failed=11, outcomes=20)}, HealthLevel.CRITICAL, Part.ERRORS),
        ({"loop_lag_seconds": 3}, HealthLevel.DEGRADED, Part.LOOP),
        ({"loop_lag_seconds": 16}, HealthLevel.CRITICAL, Part.LOOP),
        ({"disk_free_bytes": 2e9}, HealthLevel.HEALTHY, Part.DISK),
        ({"disk_free_bytes": 5e8}, HealthLevel.DEGRADED, Part.DISK),
        ({"disk_free_bytes": 1e6}, HealthLevel.CRITICAL, Part.DISK),
        ({"memory_free_bytes": 1e8}, HealthLevel.DEGRADED, Part.MEMORY),
        ({"memory_free_bytes": 1e6}, HealthLevel.CRITICAL, Part.MEMORY),
    ],
)
def test_levels_by_cause(changed, level, part):
    """Each cause has the level that is stated for it, by itself."""
    health = evaluate_health(replace(BEST, **changed), BOUNDS)

    assert [(one.part, one.level) for one in health.findings] == [(part, level)]
    kept = part not in OF_THE_STOP
    assert health.level_without(OF_THE_STOP) is (level if kept else HealthLevel.OPTIMAL)
