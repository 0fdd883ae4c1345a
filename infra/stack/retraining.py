"""What the job table of the home says of retraining; read from outside, as a file."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import msgspec

_ALARM_AT = 2.0
"""After how many intervals of the schedule retraining counts as stopped."""


class RetrainingView(msgspec.Struct, frozen=True, kw_only=True):
    """The last job, and how long ago one last came to its end."""

    last_job: str
    status: str
    trigger: str
    hours_since_success: float | None
    limit_hours: float
    hours_since_first: float | None = None
    """Where no job ever ended well: how long ago the first was ordered."""

    @property
    def is_stale(self) -> bool:
        """Whether no job has come to its end for twice the schedule's interval, be it that none ever has."""
        hours = self.hours_since_first if self.hours_since_success is None else self.hours_since_success
        return hours is not None and hours > self.limit_hours


def are_scheduled(environment: Mapping[str, str] = os.environ) -> bool:
    """Tell whether flows run by themselves: by their schedules, and when drift asks. QT_SCHEDULES=false pauses them."""
    # The words by which settings of flows say no.
    return environment.get("QT_SCHEDULES", "").strip().lower() not in ("false", "f", "no", "n", "off", "0")


def look_at_jobs(home: Path, now: datetime, environment: Mapping[str, str] = os.environ) -> RetrainingView | None:
    """Return how retraining stands, None where no job was ever ordered or its table cannot be read."""
    path = home / "jobs" / "jobs.db"
    rows = []
    with contextlib.suppress(sqlite3.Error), contextlib.closing(_open(path)) as database:
        rows = database.execute(
            'SELECT job_id, status, "trigger", completed_at, queued_at FROM retraining_jobs'
            " ORDER BY queued_at DESC, job_id DESC"
        ).fetchall()
    if not rows:
        return None
    ended = [datetime.fromisoformat(completed) for _, status, _, completed, _ in rows if status == "succeeded"]
    return RetrainingView(
        last_job=rows[0][0],
        status=rows[0][1],
        trigger=rows[0][2],
        hours_since_success=_hours(now, max(ended)) if ended else None,
        limit_hours=_ALARM_AT * _interval(environment),
        hours_since_first=None if ended else _hours(now, datetime.fromisoformat(rows[-1][4])),
    )


def _hours(now: datetime, then: datetime) -> float:
    return round((now - then).total_seconds() / 3600, 2)


def _open(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=5)


def _interval(environment: Mapping[str, str]) -> float:
    with contextlib.suppress(ValueError):
        return float(environment.get("QT_RETRAIN_HOURS") or 4.0)
    return 4.0
