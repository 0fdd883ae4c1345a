"""Which events of the journal somebody should look at, as the tables say it."""

from __future__ import annotations

import pytest

from inference.bus.catalogue import KINDS
from inference.domain.events import Noted
from inference.domain.fallback import Fallback
from inference.domain.health import HealthLevel
from inference.journal.codec import GENESIS, chained
from inference.storage.projection import _ALERTS, _ALERTS_BY_WORD, Known, Projection, read_event

# What was refused, held or undone by a rule is no alarm, nor is what went on as it should.
_NO_ALARMS = (
    "policy.loaded",
    "policy.updated",
    "policy.fit_for_live",
    "risk.breaker_closed",
    "health.bus_recovered",
    "health.anchor_recovered",
)


def _told(event_type: str, **detail: str) -> bool:
    event = Noted(event_type=event_type, detail=detail)
    entry = chained(event, seq=1, timestamp_ms=1, trace_id="", previous=GENESIS)
    projection = Projection(Known())
    projection.take(entry, read_event(entry))
    (row,) = projection.rows()["events"]
    return row["is_alert"]


@pytest.mark.parametrize(
    "event_type",
    [
        "audit.not_reproduced",
        "health.anchor_failed",
        "health.anchor_replaced",
        "health.bus_late",
        "health.halted",
        "policy.store_failed",
        "policy.unfit_for_live",
        "risk.breaker_opened",
        "risk.emergency",
        "risk.emergency_reset",
        "risk.limit_exceeded",
    ],
)
def test_what_somebody_should_look_at_is_an_alert(event_type):
    """Whatever its words are."""
    assert _told(event_type, reason="x")


@pytest.mark.parametrize(
    ("event_type", "word", "alarms", "none"),
    [
        ("model.drift_checked", "verdict", ("drifted", "degraded"), ("stable", "too-few")),
        ("model.retraining_changed", "status", ("failed",), ("running", "succeeded", "withdrawn")),
    ],
)
def test_learning_alarms_by_what_came_of_it(event_type, word, alarms, none):
    """Drift and a job that failed are alarms, what went on as it should is none."""
    assert [_told(event_type, **{word: one}) for one in (*alarms, *none)] == [True] * len(alarms) + [False] * len(none)


@pytest.mark.parametrize("event_type", _NO_ALARMS)
def test_what_went_well_is_none(event_type):
    """A recovery and what a person ordered ask nobody to look."""
    assert not _told(event_type, reason="x")


@pytest.mark.parametrize("level", HealthLevel)
def test_a_health_is_an_alert_from_critical_on(level):
    """Minor trouble is not."""
    assert _told("health.level_changed", level=level.value) is (level.value in {"CRITICAL", "EMERGENCY"})


@pytest.mark.parametrize("step", Fallback)
def test_a_step_of_the_fallback_is_an_alert_until_it_is_taken_back(step):
    """Once the model is good again nobody needs to look."""
    assert _told("model.fallback", step=step.value) is (step is not Fallback.NONE)


def test_a_word_that_is_missing_is_no_alarm():
    """What another version wrote without the word is read, and is none."""
    assert not _told("health.level_changed", other="x")


def test_every_alert_is_an_event_that_exists():
    """A name that nothing says any more, or that is misspelt, would alarm nobody."""
    assert _ALERTS | set(_ALERTS_BY_WORD) <= set(KINDS)
