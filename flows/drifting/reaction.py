"""What follows from a check: whether a retraining is asked for, or why not yet."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum

from flows.drifting.check import DriftReport, Verdict

DRIFT_DETECTED, MODEL_DEGRADED = "quantum.drift.detected", "quantum.model.degraded"
"""The events; an automation of the deployment `retrain` listens to both."""
RETRAIN_LABEL = "quantum.retrain"
"""The label of an event's resource that says what comes of it; the automation acts on `wanted` only."""
DEGRADED_TAG = "degraded_at"
"""Tag of a version that traded: since when its outcomes are known to be worse than was expected of it."""


class Retraining(StrEnum):
    """What a check asks for."""

    WANTED = "wanted"
    COOLING_DOWN = "cooling-down"
    UNDER_WAY = "under-way"
    NOT_NEEDED = "not-needed"


def retraining(
    verdict: Verdict, *, now_ms: int, last_asked_ms: int | None, trained_ms: int, cooldown_ms: int, under_way: bool
) -> Retraining:
    """
    Decide whether a retraining is asked for.

    After one was asked for, and after the champion was trained, some time must pass: a market that another model does
    not fit either would have us train without end.
    """
    if verdict not in (Verdict.DEGRADED, Verdict.DRIFTED):
        return Retraining.NOT_NEEDED
    if under_way:
        return Retraining.UNDER_WAY
    rested = now_ms - max(last_asked_ms or 0, trained_ms) >= cooldown_ms
    return Retraining.WANTED if rested else Retraining.COOLING_DOWN


def degraded_at(report: DriftReport, noted: str) -> str:
    """
    Return what the champion's tag `degraded_at` has to say after a check; empty is that it did not degrade.

    The moment is the venue's: the close of the newest candle when it was found first. A check that could judge, and
    finds it no more, takes the tag back; one that could not judge leaves what is known.

    Args:
        report: What the check found.
        noted: What the tag says so far.
    """
    if report.performance.found:
        return noted or datetime.fromtimestamp(report.end_ms / 1000, tz=UTC).isoformat(timespec="seconds")
    return "" if report.performance.state == "judged" else noted


def events_of(report: DriftReport, asked: Retraining) -> list[tuple[str, Mapping[str, str]]]:
    """
    Return the events of a check with the labels of their resource, the most urgent first.

    One retraining is asked for where both are found: by the more urgent.
    """
    names = [MODEL_DEGRADED] if report.performance.found else []
    names += [DRIFT_DETECTED] if any(group.found for group in report.groups) else []
    resource = {
        "prefect.resource.id": f"quantum-ensemble.version.{report.version}",
        "prefect.resource.name": f"quantum-ensemble version {report.version}",
    }
    labels = [asked] + [Retraining.UNDER_WAY if asked is Retraining.WANTED else asked] * (len(names) - 1)
    return [
        (name, resource | {RETRAIN_LABEL: label.value}) for name, label in zip(names, labels[: len(names)], strict=True)
    ]
