"""A retraining job as its table holds it, and the words for what it is and how it stands."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec

from feature_store.errors import QuantumError

JobKind = Literal["full", "incremental"]
JobStatus = Literal["queued", "running", "resumed", "succeeded", "failed"]
Trigger = Literal["schedule", "drift", "degradation", "demand"]

UNDER_WAY: tuple[JobStatus, ...] = ("running", "resumed")


class JobError(QuantumError):
    """A job cannot be started, found or resumed; the message says what to do."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """
    One retraining job, a row of `retraining_jobs`.

    `status` is queued (waits for another to end), running, resumed (running again after a crash or a failure),
    succeeded (a version was judged, promoted or not) or failed. All times are UTC.
    """

    job_id: str
    type: JobKind
    status: JobStatus
    trigger: Trigger
    models: tuple[str, ...]
    """
    The members of the ensemble; of an incremental job, `kept` names those that were not fitted again. None of a job
    that left a challenger its turn on live candles: it judged that one again, and trained nobody.
    """
    kept: tuple[str, ...] = ()
    parameters: dict[str, Any] = {}
    queued_at: datetime
    started_at: datetime | None = None
    completed_at: datetime | None = None
    metrics: dict[str, float] = {}
    version: str | None = None
    run_id: str | None = None
    replaced: str | None = None
    promoted: bool | None = None
    reasons: tuple[str, ...] = ()
    error_message: str | None = None
    resumes: int = 0
    """How often it went on after a crash or a failure."""
    pid: int | None = None

    @property
    def is_over(self) -> bool:
        """Whether it has ended, well or not."""
        return self.status in ("succeeded", "failed")

    def seconds(self) -> float | None:
        """Return how long it took from its start to its end, None while it has not ended."""
        if self.started_at is None or self.completed_at is None:
            return None
        return (self.completed_at - self.started_at).total_seconds()

    def queue_seconds(self) -> float | None:
        """Return how long it waited for its turn, from its order to its start; None while it has not started."""
        return None if self.started_at is None else (self.started_at - self.queued_at).total_seconds()


def job_id_of(now: datetime) -> str:
    """Name a job by when it was ordered: `retrain_20251213_041028`."""
    return f"retrain_{now:%Y%m%d_%H%M%S}"
