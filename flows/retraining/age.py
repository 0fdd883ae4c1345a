"""How old what trades is, and when that is an alarm."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec

from flows.retraining.job import Job

ALARM_AT = 2.0
"""After how many intervals of the schedule the alarm is raised: one missed run may be a busy machine."""


class Staleness(msgspec.Struct, frozen=True, kw_only=True):
    """
    How long ago the champion was last held against fresh candles.

    A champion that a new candidate did not beat is as fresh as one that was just trained: what ages it is that nobody
    looked. Where nothing was ever trained or judged, the age is counted from the first job that was ordered: a
    retraining that never once came to its end must not pass for one that was never wanted. `hours` is None where none
    was ordered either.
    """

    hours: float | None
    limit_hours: float
    last_job: str | None
    last_trained: str | None
    first_job: str | None = None
    """Where no job ever ended well and nothing was trained: the first that was ordered."""

    @property
    def is_stale(self) -> bool:
        """Whether the alarm is due."""
        return self.hours is not None and self.hours > self.limit_hours

    def sentence(self) -> str:
        """Say it to a person."""
        if self.hours is None:
            return "No job was ordered, and no champion says when it was trained: nothing can be stale."
        if self.first_job is not None:
            stands = (
                f"No retraining has ever come to its end, {self.hours:.1f} hours after the first was ordered "
                f"(job {self.first_job})"
            )
            return self._with_limit(stands)
        since = f"job {self.last_job}" if self.last_job else f"the training of {self.last_trained}"
        stands = f"The champion was last held against fresh candles {self.hours:.1f} hours ago ({since})"
        return self._with_limit(stands)

    def _with_limit(self, stands: str) -> str:
        if not self.is_stale:
            return f"{stands}; the alarm is at {self.limit_hours:g} hours."
        return (
            f"{stands}, more than {self.limit_hours:g} hours: retraining has stopped. `qtctl jobs` says why, and "
            "`qtctl retrain` begins one"
        )


def staleness(jobs: Sequence[Job], trained_at: datetime | None, now: datetime, *, interval_hours: float) -> Staleness:
    """
    Return how stale a champion is.

    Args:
        jobs: All jobs of the home.
        trained_at: When the champion was trained, None where there is no champion.
        now: The moment to judge at.
        interval_hours: How often a retraining is due.
    """
    ended = [one for one in jobs if one.status == "succeeded" and one.completed_at is not None]
    last = max(ended, key=lambda one: one.completed_at or now, default=None)
    moments = [moment for moment in (last.completed_at if last else None, trained_at) if moment is not None]
    first = None if moments else min(jobs, key=lambda one: one.queued_at, default=None)
    moments = [first.queued_at] if first is not None else moments
    hours = (now - max(moments)) / timedelta(hours=1) if moments else None
    is_by_job = last is not None and last.completed_at == max(moments)
    return Staleness(
        hours=hours,
        limit_hours=ALARM_AT * interval_hours,
        first_job=first.job_id if first is not None else None,
        last_job=last.job_id if last is not None and is_by_job else None,
        last_trained=trained_at.isoformat(timespec="minutes") if trained_at is not None else None,
    )
