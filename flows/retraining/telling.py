"""Telling the worker of this home how a job stands, for its journal and the tables that are made from it."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime

from feature_store.clock import utc_now
from flows.retraining.job import Job
from flows.settings import FlowSettings
from inference.models.notices import JobNotice, leave_notice


def announce_job(settings: FlowSettings, job: Job, tell: Callable[[str], None], *, status: str | None = None) -> None:
    """
    Leave a notice of how a job stands; where that fails, `tell` so and go on: the job table is the record.

    `status` is said in place of the job's own where the job is taken out of the table.
    """
    notice = JobNotice(
        job_id=job.job_id,
        type=job.type,
        status=status or job.status,
        trigger=job.trigger,
        told_at=_text(utc_now()),
        models=job.models,
        kept=job.kept,
        # JSON has no word for a number that is none.
        metrics={name: value for name, value in job.metrics.items() if math.isfinite(value)},
        version=job.version or "",
        replaced=job.replaced or "",
        promoted=job.promoted,
        reasons=job.reasons,
        error_message=job.error_message or "",
        resumes=job.resumes,
        queued_at=_text(job.queued_at),
        started_at=_text(job.started_at),
        completed_at=_text(job.completed_at),
    )
    try:
        leave_notice(settings.verdicts, notice)
    except OSError as error:
        tell(f"The journal of this home will not hold this: {settings.verdicts} cannot be written ({error})")


def _text(moment: datetime | None) -> str:
    # All of one length: files are taken in the order of their names.
    return "" if moment is None else moment.isoformat(timespec="microseconds")
