"""Following flows from a terminal: those of this process, and runs of deployments."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import msgspec
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
    FlowRunFilter,
    FlowRunFilterParentFlowRunId,
)
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from feature_store.errors import QuantumError
from flows.orchestration import watched_by
from flows.outcome import Promotion

_SECONDS_BETWEEN_LOOKS = 1.0
# What Prefect writes before the sentence of the error that ended a run.
_OF_PREFECT = re.compile(r"^Flow run encountered an exception: (\w+: )?")


class DeploymentRunError(QuantumError):
    """A deployment is missing, or its run did not come to a result."""


def run_and_follow(name: str, parameters: dict[str, Any], *, quiet: bool) -> Promotion:
    """
    Start a run of a deployment, show its progress until it ends, and return what it decided.

    Raises:
        DeploymentRunError: There is no such deployment, or its run failed.
    """
    with get_client(sync_client=True) as client:
        try:
            deployment = client.read_deployment_by_name(name)
        except ObjectNotFound:
            raise DeploymentRunError(
                f"Prefect has no deployment {name}; run 'prefect --no-prompt deploy --all', or 'qtctl up'"
            ) from None
        run = client.create_flow_run_from_deployment(deployment.id, parameters=parameters)
        with _bars(quiet=quiet) as bars:
            ended = _follow(client, run.id, bars)
        if ended.state is None or not ended.state.is_completed():
            message = (ended.state.message if ended.state else None) or "see its log in Prefect"
            raise DeploymentRunError(f"Run {ended.name} ended {ended.state_name}: {_OF_PREFECT.sub('', message)}")
        return _result(client, run.id)


@contextmanager
def shown_in_terminal(*, quiet: bool) -> Iterator[None]:
    """Show the progress of flows that run in this process, on standard error."""
    shown: dict[str, TaskID] = {}
    with _bars(quiet=quiet) as bars:

        def watcher(step: str, percent: float, description: str) -> None:
            if step not in shown:
                shown[step] = bars.add_task(step, total=100)
            bars.update(shown[step], completed=percent, description=description)

        with watched_by(watcher):
            yield


def _bars(*, quiet: bool) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        disable=quiet,
    )


def _follow(client: SyncPrefectClient, run_id: UUID, bars: Progress) -> FlowRun:
    shown: dict[str, TaskID] = {}
    while True:
        run = client.read_flow_run(run_id)
        for artifact in _artifacts(client, _with_subflows(client, run_id), "progress-%"):
            key = str(artifact.key)
            if key not in shown:
                shown[key] = bars.add_task(key, total=100)
            description = artifact.description or key
            bars.update(shown[key], completed=float(artifact.data or 0), description=description)
        if run.state is not None and run.state.is_final():
            return run
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _with_subflows(client: SyncPrefectClient, run_id: UUID) -> list[UUID]:
    children = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[run_id]))
    )
    return [run_id, *(child.id for child in children)]


def _artifacts(client: SyncPrefectClient, run_ids: list[UUID], key: str) -> list[Any]:
    return list(
        client.read_artifacts(
            artifact_filter=ArtifactFilter(
                flow_run_id=ArtifactFilterFlowRunId(any_=run_ids), key=ArtifactFilterKey(like_=key)
            )
        )
    )


def _result(client: SyncPrefectClient, run_id: UUID) -> Promotion:
    for artifact in _artifacts(client, [run_id], "retrain-result"):
        rows = json.loads(artifact.data) if isinstance(artifact.data, str) else artifact.data
        return msgspec.convert(rows[0], Promotion)
    raise DeploymentRunError(f"Run {run_id} left no artifact 'retrain-result'; see its log in Prefect")
