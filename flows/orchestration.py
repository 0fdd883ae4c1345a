"""What flows share of Prefect: run names, progress bars and artifacts."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import Artifact, ImageArtifact, MarkdownArtifact, ProgressArtifact, TableArtifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run

from feature_store.clock import monotonic
from feature_store.errors import QuantumError
from feature_store.venue.errors import RetryableError
from flows.settings import FlowSettings
from inference.domain.errors import RegistryUnavailableError

# Each update costs the server a transaction; people do not read faster than this.
_SECONDS_BETWEEN_UPDATES = 1.0


def passes_later(_task: object, _task_run: object, state: Any) -> bool:
    """Tell whether trying a failed task again can help: bad input and a refusal stay what they are."""
    # Inside an async task Prefect would answer with a coroutine.
    error = state.result(raise_on_failure=False, _sync=True)
    return not isinstance(error, QuantumError) or isinstance(error, RetryableError | RegistryUnavailableError)


# Policy of tasks that talk to MLflow: a server that restarts is back within seconds.
ASKING_REGISTRY: dict[str, Any] = {
    "cache_policy": NO_CACHE,
    "retries": 2,
    "retry_delay_seconds": 3,
    "retry_condition_fn": passes_later,
    "timeout_seconds": 600,
}


def named_by_series() -> str:
    """Name a flow run by what it works on: `train sandbox 5m`."""
    chosen = {key: value for key, value in flow_run.parameters.items() if value is not None}
    settings = FlowSettings.of(venue=chosen.get("venue"), timeframe=chosen.get("timeframe"))
    return f"{flow_run.flow_name} {settings.venue} {settings.timeframe}"


def named_by_version() -> str:
    """Name a flow run by the model version it works on: `shadow v3`."""
    version = flow_run.parameters.get("version")
    return f"{flow_run.flow_name} v{version}" if version else f"{flow_run.flow_name} challenger"


def outermost_run() -> str:
    """Return the id of the flow run that called all others of this process: it ends when the process does."""
    return str(flow_run.root_flow_run_id)


def this_run() -> str:
    """Return the id of the flow run that is running."""
    return str(flow_run.id)


def is_over(run_id: str) -> bool:
    """Tell whether a flow run has ended; of one that this Prefect server does not know, nothing is said."""
    with get_client(sync_client=True) as client:
        try:
            state = client.read_flow_run(UUID(run_id)).state
        except ObjectNotFound:
            return False
    return state is not None and state.is_final()


Watcher = Callable[[str, float, str], None]
"""Told of a bar: its step, how many percent are done, and of what."""

_watchers: list[Watcher] = []


@contextmanager
def watched_by(watcher: Watcher) -> Iterator[None]:
    """Tell a watcher, such as a terminal, of every bar of this process while the context lasts."""
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)


class ProgressBar:
    """A progress artifact of the running flow; without a flow around it, nothing."""

    def __init__(self, step: str, description: str) -> None:
        self._step = step
        self._description = description
        self._shown = 0.0
        self._updated_at = monotonic()
        self._id: UUID | None = None
        if FlowRunContext.get() is not None:
            artifact = ProgressArtifact(key=f"progress-{step}", description=description, progress=0.0)
            self._id = _create(artifact)
        self._tell(0.0, description)

    def show(self, fraction: float, doing: str = "") -> None:
        """Move the bar to a fraction of the whole; it never moves back."""
        percent = round(min(max(fraction, 0.0), 1.0) * 100, 1)
        due = monotonic() - self._updated_at >= _SECONDS_BETWEEN_UPDATES or percent >= 100
        if self._id is None or percent <= self._shown or not due:
            return
        description = f"{self._description}: {doing}" if doing else self._description
        with get_client(sync_client=True) as client:
            client.update_artifact(self._id, ArtifactUpdate(data=percent, description=description))
        self._shown, self._updated_at = percent, monotonic()
        self._tell(percent, description)

    def _tell(self, percent: float, description: str) -> None:
        for watcher in _watchers:
            watcher(self._step, percent, description)

    def callback(self) -> Callable[[str, float], None]:
        """Return the form that training reports to: what it does, and the fraction done."""
        return lambda doing, fraction: self.show(fraction, doing)


def table(key: str, rows: Sequence[dict[str, Any]], description: str) -> None:
    """Publish rows as a table artifact of the running flow."""
    _create(TableArtifact(key=key, description=description, table=list(rows)))


def markdown(key: str, text: str, description: str) -> None:
    """Publish a text as a markdown artifact of the running flow."""
    _create(MarkdownArtifact(key=key, description=description, markdown=text))


def picture(key: str, png: bytes, description: str) -> None:
    """Publish a PNG picture as an image artifact of the running flow; the artifact holds the picture itself."""
    address = f"data:image/png;base64,{b64encode(png).decode()}"
    _create(ImageArtifact(key=key, description=description, image_url=address))


def _create(artifact: Artifact) -> UUID:
    # Prefect would answer with a coroutine inside an async flow; the short wait harms nobody there.
    return artifact.create(_sync=True).id  # type: ignore[call-arg, union-attr]


def say(message: str, *values: object) -> None:
    """Write a line to the log of the running flow or task."""
    get_run_logger().info(message, *values)
