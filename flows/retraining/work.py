"""A job from its order to its end: whose turn it is, what goes on after a crash, and what is left behind."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil

from feature_store.clock import utc_now
from flows.retraining.job import UNDER_WAY, Job, JobError, JobKind, Trigger
from flows.retraining.keeping import KeptMembers, kind_of, taken_over
from flows.retraining.steps import JobSteps, NoSteps, Steps
from flows.retraining.table import JobTable
from flows.retraining.telling import announce_job
from flows.retraining.turn import turn
from flows.settings import FlowSettings
from flows.training.config import TrainingConfig
from flows.training.dataset import FrameSet

DIED = "Its process ended before the job did"
_TURN = "retrain.lock"


def table_of(settings: FlowSettings) -> JobTable:
    """Return the job table of a home."""
    return JobTable(settings.jobs / "jobs.db")


def turn_file(settings: FlowSettings) -> Path:
    """Return the file whose lock is the turn."""
    return settings.jobs / _TURN


def kept_of(settings: FlowSettings) -> KeptMembers:
    """Return what earlier jobs on the same candles, of the same size, left to take over."""
    return KeptMembers(settings.jobs / "kept" / f"{settings.venue}-{settings.timeframe}-{settings.size}")


def steps_of(settings: FlowSettings, job_id: str | None) -> Steps:
    """Return where the steps of a job are noted; a training that is part of none notes nothing."""
    if job_id is None:
        return NoSteps()
    table = table_of(settings)
    table.job(job_id)
    return JobSteps(table, job_id, settings.jobs / job_id)


def takeable(
    settings: FlowSettings, steps: Steps, frames: FrameSet, config: TrainingConfig, tell: Callable[[str], None]
) -> dict[str, bytes]:
    """Return the members that an incremental job takes over from an earlier one; other trainings take none."""
    if not isinstance(steps, JobSteps) or steps.table.job(steps.job_id).type != "incremental":
        return {}
    return taken_over(kept_of(settings), frames, config, tell)


def asked_to_resume(settings: FlowSettings, job_id: str) -> Job:
    """
    Return a job that did not come to its end, to go on with it.

    Raises:
        JobError: There is none of that id, or it has ended well, or nothing of it is left.
    """
    job = table_of(settings).job(job_id)
    if job.status == "succeeded":
        raise JobError(f"Job {job_id} has come to its end already; `qtctl jobs show {job_id}` says how")
    if job.status == "failed" and not (settings.jobs / job_id).exists():
        raise JobError(f"Nothing is left of job {job_id} to go on with; `qtctl retrain` begins a new one")
    return job


@contextmanager
def job_of(
    settings: FlowSettings,
    *,
    trigger: Trigger,
    kind: JobKind | None,
    models: tuple[str, ...],
    parameters: dict[str, Any],
    resume: str | None,
    tell: Callable[[str], None],
) -> Iterator[JobSteps]:
    """
    Have the turn and a job while the context lasts; what ends it with an error is the job's error.

    A job whose process died goes on, if it was ordered in the same way and is younger than the schedule's interval;
    an older one would learn from candles that are no longer the newest.

    Raises:
        JobError: Another retraining is under way, and still is when patience has ended.
    """
    table, queued = table_of(settings), ""

    def wait(holder: str) -> None:
        nonlocal queued
        queued = table.add(kind or "full", trigger, models, parameters, utc_now()).job_id
        announce_job(settings, table.change(queued, pid=os.getpid()), tell)
        tell(f"Waiting for another retraining to end ({holder}); this is job {queued}")

    try:
        with turn(turn_file(settings), patience_s=settings.retrain_patience, waits=wait):
            job = _begin(settings, table, trigger, kind, models, parameters, resume or "", queued, tell)
            announce_job(settings, job, tell)
            with _ended_well_or_not(settings, table, job, tell):
                tell(f"Job {job.job_id} ({job.type}, {job.trigger}){' goes on' if job.resumes else ''}")
                yield JobSteps(table, job.job_id, settings.jobs / job.job_id)
    except JobError as error:
        if queued and table.job(queued).status == "queued":
            job = table.change(queued, status="failed", completed_at=utc_now(), error_message=str(error))
            announce_job(settings, job, tell)
        raise


def _begin(
    settings: FlowSettings,
    table: JobTable,
    trigger: Trigger,
    kind: JobKind | None,
    models: tuple[str, ...],
    parameters: dict[str, Any],
    resume: str,
    queued: str,
    tell: Callable[[str], None],
) -> Job:
    now = utc_now()
    jobs = table.jobs()
    # Whoever is noted as running does not run: the turn is ours.
    dead = [one for one in jobs if one.status in UNDER_WAY or (one.status == "queued" and _is_dead(one, queued))]
    oldest = now - timedelta(hours=settings.retrain_hours)
    alike = (one for one in dead if one.status != "queued" and one.parameters == parameters and one.queued_at >= oldest)
    chosen = table.job(resume) if resume else next((one for one in alike if kind in (None, one.type)), None)
    for one in dead:
        if chosen is None or one.job_id != chosen.job_id:
            died = table.change(one.job_id, status="failed", completed_at=now, error_message=DIED)
            announce_job(settings, died, tell)
    started: dict[str, Any] = {"pid": os.getpid(), "error_message": None, "completed_at": None}
    if chosen is None:
        of = kind_of(kind, trigger, models, kept_of(settings), jobs, settings.deep_every)
        job_id = queued or table.add(of, trigger, models, parameters, now).job_id
        job = table.change(job_id, type=of, status="running", started_at=now, **started)
    else:
        if queued:
            announce_job(settings, table.job(queued), tell, status="withdrawn")
            table.remove(queued)
        job = table.change(chosen.job_id, status="resumed", resumes=chosen.resumes + 1, **started)
    _clear(settings, table, job, jobs)
    return job


def _is_dead(job: Job, ours: str) -> bool:
    return job.job_id != ours and not (job.pid is not None and psutil.pid_exists(job.pid))


def _clear(settings: FlowSettings, table: JobTable, job: Job, jobs: Sequence[Job]) -> None:
    """Remove what other jobs have made; of those that failed, the newest may still be asked to go on."""
    failed = next((one.job_id for one in jobs if one.status == "failed"), None)
    for one in jobs:
        folder = settings.jobs / one.job_id
        if one.job_id not in (job.job_id, failed) and one.status != "queued" and folder.exists():
            shutil.rmtree(folder, ignore_errors=True)
            table.forget_steps(one.job_id)


@contextmanager
def _ended_well_or_not(
    settings: FlowSettings, table: JobTable, job: Job, tell: Callable[[str], None]
) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        said = str(error) or type(error).__name__
        failed = table.change(job.job_id, status="failed", completed_at=utc_now(), error_message=said)
        announce_job(settings, failed, tell)
        raise
    ended = table.change(job.job_id, status="succeeded", completed_at=utc_now(), error_message=None)
    announce_job(settings, ended, tell)
    shutil.rmtree(settings.jobs / job.job_id, ignore_errors=True)
