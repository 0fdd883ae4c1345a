"""`qtctl jobs`: the retraining jobs of this home."""

from __future__ import annotations

import json as json_codec
from typing import Any

import msgspec
from cyclopts import App
from rich.console import Console
from rich.table import Table

from feature_store.clock import utc_now
from feature_store.terminal import OK, help_end
from flows.retraining.job import UNDER_WAY, Job
from flows.retraining.turn import is_held
from flows.retraining.work import table_of, turn_file
from flows.running import AsJson
from flows.settings import FlowSettings

_DAMAGED = "failed: there is no such job, or the table is damaged"

jobs = App(
    name="jobs",
    help="List the retraining jobs of this home: why each ran, how it stands, and what came of it.",
    help_format="plaintext",
    help_epilogue=help_end(
        "qtctl jobs",
        "qtctl jobs --limit 5",
        "qtctl jobs --json | jq '.[0].status'",
        statuses={0: "listed, whatever came of them", 1: _DAMAGED},
        as_json=True,
    ),
)
show = App(
    name="show",
    help="Show one job: its steps so far, its figures, and why it failed or was refused.",
    help_format="plaintext",
    help_epilogue=help_end(
        "qtctl jobs show retrain_20251213_041028",
        "qtctl jobs show retrain_20251213_041028 --json | jq .steps",
        statuses={0: "shown", 1: _DAMAGED},
        as_json=True,
    ),
)
jobs.command(show)


@jobs.default
def _list(*, limit: int = 20, json: AsJson = False) -> int:
    """
    List the retraining jobs of this home: why each ran, how it stands, and what came of it.

    Args:
        limit: How many to list, the newest first; by default 20.
        json: Print the jobs, or the error, as one JSON document and nothing else.
    """
    found = table_of(FlowSettings.of()).jobs(limit)
    if json:
        told = [msgspec.to_builtins(one) | {"queue_seconds": one.queue_seconds()} for one in found]
        print(json_codec.dumps(told))  # noqa: T201 - a command speaks to the person who typed it
    elif not found:
        print("No retraining was ordered in this home yet; `qtctl retrain` orders one.")  # noqa: T201 - as above
    else:
        _print(found)
    return OK


@show.default
def _show(job_id: str, /, *, json: AsJson = False) -> int:
    """
    Show one job: its steps so far, its figures, and why it failed or was refused.

    Args:
        job_id: Id of the job, as `qtctl jobs` lists it.
        json: Print the job, or the error, as one JSON document and nothing else.
    """
    table = table_of(FlowSettings.of())
    job = table.job(job_id)
    told: dict[str, Any] = msgspec.to_builtins(job)
    told |= {"queue_seconds": job.queue_seconds(), "steps": list(table.steps(job_id))}
    if json:
        print(json_codec.dumps(told))  # noqa: T201 - as above
        return OK
    for name, value in told.items():
        if value not in (None, [], {}, ""):
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            print(f"{name:14} {shown}")  # noqa: T201 - as above
    if job.status == "failed":
        print(f"\n`qtctl retrain --resume {job_id}` goes on where it ended.")  # noqa: T201 - as above
    return OK


def _print(found: list[Job]) -> None:
    is_live = is_held(turn_file(FlowSettings.of()))
    table = Table(box=None, pad_edge=False)
    for heading in ("job", "type", "trigger", "status", "queued", "took", "version", "came of it"):
        table.add_column(heading, overflow="fold")
    for one in found:
        seconds = one.seconds()
        if seconds is None and one.started_at is not None:
            seconds = (utc_now() - one.started_at).total_seconds()
        took = "" if seconds is None else f"{seconds:.0f} s"
        status = one.status if is_live or one.status not in UNDER_WAY else "interrupted"
        waited = one.queue_seconds()
        queued = "" if waited is None else f"{waited:.0f} s"
        table.add_row(one.job_id, one.type, one.trigger, status, queued, took, one.version or "", _came_of(one))
    Console().print(table)


def _came_of(job: Job) -> str:
    if job.error_message:
        return job.error_message
    if job.promoted is None:
        return ""
    if job.promoted:
        return "promoted"
    return f"{'refused' if job.models else 'judged again'}: {job.reasons[0] if job.reasons else ''}"
