"""Many trials of the gates, kept on disk one by one so that a campaign can go on later."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import msgspec
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from infra.prove.gate_trials import Outcome, Trial, code_digest, run

# Trials that a process runs before another takes its place: what libraries of training leak would add up.
_EACH = 8


def campaign(trials: Sequence[Trial], folder: Path, *, processes: int | None = None) -> list[Outcome]:
    """
    Return the outcome of each trial, running those that are not in `folder` yet.

    Each is kept when it is done, under a digest of the code that decides it: a campaign that was interrupted goes on.
    """
    place = folder / code_digest()
    place.mkdir(parents=True, exist_ok=True)
    known = {trial.key: place / f"{trial.key}.json" for trial in trials}
    done = {key: msgspec.json.decode(path.read_bytes(), type=Outcome) for key, path in known.items() if path.exists()}
    # The long ones first: the last to end decides how long all take.
    missing = sorted((t for t in trials if t.key not in done), key=lambda trial: -len(trial.members))
    with _progress() as progress:
        task = progress.add_task("trials", total=len(trials), completed=len(done))
        for outcome in _run_all(missing, processes or os.cpu_count() or 1):
            path = known[outcome.trial.key]
            part = path.with_suffix(".part")
            part.write_bytes(msgspec.json.encode(outcome))
            part.rename(path)
            done[outcome.trial.key] = outcome
            progress.advance(task)
    return [done[trial.key] for trial in trials]


def _run_all(trials: Sequence[Trial], processes: int) -> Iterator[Outcome]:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("spawn")
    # A pool that replaces its processes itself waits for ever, in Python 3.11, for work that was handed in before.
    at_once = processes * _EACH
    for begin in range(0, len(trials), at_once):
        some = trials[begin : begin + at_once]
        with ProcessPoolExecutor(min(processes, len(some)), mp_context=context) as pool:
            for future in as_completed([pool.submit(run, trial) for trial in some]):
                yield future.result()


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    )
