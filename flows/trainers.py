"""Where members are trained: one after the other here, beside each other on processes, or on Ray."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeVar

import psutil
from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner

from feature_store.clock import monotonic
from feature_store.errors import BadInputError
from flows.orchestration import ProgressBar, say
from flows.settings import FlowSettings
from flows.training.config import TrainingConfig
from flows.training.dataset import FrameSet
from flows.training.fitting import StoredMember, decode_member, encode_member, fit_member
from flows.training.members.base import Progress
from flows.training.members.catalogue import spec
from flows.training.progress import overall

T = TypeVar("T")
MEMORY_PER_PROCESS_MB = 1500
"""What a process that fits a net needs at most beside its frames: torch and neuralforecast alone are 600 MB."""


class Fitted(NamedTuple):
    """A member's file, and how many seconds fitting it took, wherever that was done."""

    content: bytes
    seconds: float


@task(task_run_name="fit-{name}", cache_policy=NO_CACHE, timeout_seconds=3 * 3600)
def fit_one(name: str, frames: FrameSet, config: TrainingConfig, progress: Progress | None = None) -> Fitted:
    """Fit one member; what comes back is its file, so that it may be done anywhere."""
    began = monotonic()
    content = encode_member(fit_member(name, frames, config, progress or _unseen))
    return Fitted(content, monotonic() - began)


def fitted_here(
    names: tuple[str, ...], frames: FrameSet, config: TrainingConfig, bar: ProgressBar
) -> Iterator[tuple[str, Fitted]]:
    """Fit members one after the other, and hand each over as it is done."""
    progress = overall({name: spec(name).seconds for name in names}, bar.callback())
    for name in names:
        progress(name, 0.0)
        yield name, fit_one(name, frames, config, progress)


def fitted_beside_each_other(
    names: tuple[str, ...],
    frames: FrameSet,
    config: TrainingConfig,
    runner: TaskRunner[Any],
    fit: Task[..., T],
) -> Iterator[tuple[str, T]]:
    """Fit members through one of Prefect's task runners, and hand them over in their order."""
    with runner as started:
        running: dict[str, PrefectFuture[T]] = {
            name: started.submit(fit, {"name": name, "frames": frames, "config": config}) for name in names
        }
        for name, future in running.items():
            yield name, future.result()


def fit_members(
    settings: FlowSettings, names: tuple[str, ...], frames: FrameSet, config: TrainingConfig, bar: ProgressBar
) -> Iterator[tuple[str, Fitted]]:
    """
    Fit members where QT_TRAINER says, each as a task of the running flow, and hand over each one's file.

    Raises:
        BadInputError: QT_TRAINER is ray, and it is not installed.
    """
    runner = runner_of(settings, len(names)) if len(names) > 1 else None
    if runner is None:
        return fitted_here(names, frames, config, bar)
    return fitted_beside_each_other(names, frames, config, runner, fit_one)


def stored(content: bytes) -> StoredMember:
    """Return a member from its file."""
    return StoredMember(decode_member(content))


def processes_for(wanted: int, members: int, cores: int, free_mb: float) -> int:
    """Return how many processes fit members at once: never more than there are members, cores, and memory for."""
    return max(1, min(wanted, members, cores, int(free_mb // MEMORY_PER_PROCESS_MB)))


def runner_of(settings: FlowSettings, members: int) -> TaskRunner[Any] | None:
    """
    Return what QT_TRAINER says: a task runner, or None where members are fitted one after the other.

    Raises:
        BadInputError: It is ray, and that is not installed.
    """
    if settings.trainer == "ray":
        return _ray_runner(settings)
    if settings.trainer == "sequential":
        return None
    free_mb = psutil.virtual_memory().available / 2**20
    count = processes_for(settings.train_processes, members, os.cpu_count() or 1, free_mb)
    if count == 1:
        say("One process has to do: %d MB are free, and each needs %d", int(free_mb), MEMORY_PER_PROCESS_MB)
        return None
    say("Members are fitted on %d processes at once", count)
    return ProcessPoolTaskRunner(max_workers=count)


def _ray_runner(settings: FlowSettings) -> TaskRunner[Any]:
    try:
        from prefect_ray import RayTaskRunner  # noqa: PLC0415 - an extra that few install
    except ModuleNotFoundError as error:
        raise BadInputError(
            "QT_TRAINER=ray needs Ray and Prefect's task runner for it: pip install 'quantum-trader[ray]', "
            "or set QT_TRAINER to processes"
        ) from error
    # Ray would report its use to its makers, and start a dashboard that nobody asked for.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    own = None if settings.ray_address else {"include_dashboard": False}
    runner: TaskRunner[Any] = RayTaskRunner(address=settings.ray_address, init_kwargs=own)
    return runner


def _unseen(step: str, fraction: float) -> None:
    """Progress of a process that nobody watches."""
