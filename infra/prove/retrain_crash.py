"""`kill -9` at each task of `retrain`: the next run goes on, one version is registered, each alias moves once."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

from flows.retraining.job import Job
from flows.retraining.table import JobTable
from infra.prove.practice import MODEL, SERVERS
from infra.prove.proof import Proof, Size
from infra.prove.stage import ROOT, ProofError, Stage, get, post

_FITS, _TRAINS = "trainers.fit_one", "train.pack_members"
# Where most can go wrong: much is done, and nobody could note it.
_FEW = ((_FITS, "after"), ("promote.move_alias", "after"))
_ORDER = {"days": 6, "size": "tiny"}
# Tasks of one run that a run which goes on does not come to, or that come once more in another's place.
_NOT_ON_THE_WAY = ("train.take_over_run",)


@dataclass(slots=True)
class _Trial:
    """One home in which a job is killed again and again."""

    stage: Stage
    mlflow: str
    faults: list[str] = field(default_factory=list)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run retrain in a process of its own, which may kill itself."""
        return subprocess.run(
            [
                sys.executable,
                "-m",
                "infra.prove.crashing",
                *arguments,
                "--promotes",
                "--parameters",
                json.dumps(_ORDER),
            ],
            cwd=ROOT,
            env=self.stage.environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def finish(self) -> dict[str, Any]:
        """Run retrain to its end."""
        done = self.run()
        if done.returncode != 0:
            raise ProofError(f"retrain ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
        result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return result

    def jobs(self) -> list[Job]:
        """Return the jobs of this home."""
        return JobTable(self.stage.home / "jobs" / "jobs.db").jobs()

    def versions(self) -> list[dict[str, Any]]:
        """Return all registered versions."""
        query = f"{self.mlflow}/api/2.0/mlflow/model-versions/search?max_results=100"
        found: list[dict[str, Any]] = get(query).get("model_versions", [])
        return found

    def aliases(self) -> dict[str, str]:
        """Return which version each alias points at."""
        model = get(f"{self.mlflow}/api/2.0/mlflow/registered-models/get?name={MODEL}")["registered_model"]
        return {one["alias"]: str(one["version"]) for one in model.get("aliases", [])}

    def blame(self, where: str, *, holds: bool, what: str) -> None:
        """Note a fault."""
        if not holds:
            self.faults.append(f"{where}: {what}")

    def check(self, where: str, before: dict[str, str], *, has_registered: bool, has_moved: bool) -> None:
        """Look at what a killed run has left."""
        versions, aliases = self.versions(), self.aliases()
        known = 1 + has_registered
        self.blame(where, holds=len(versions) == known, what=f"{len(versions)} versions, expected {known}")
        tagged = all("bundle_digest" in {tag["key"] for tag in one.get("tags", [])} for one in versions)
        self.blame(where, holds=tagged and all(one["status"] == "READY" for one in versions), what="half a version")
        trades = {name: aliases.get(name) for name in ("champion", "previous")}
        expected = {"champion": "2", "previous": "1"} if has_moved else {name: before.get(name) for name in trades}
        self.blame(where, holds=trades == expected, what=f"aliases {trades}, expected {expected}")


def _points(size: Size, names: list[str]) -> tuple[tuple[str, str], ...]:
    if size is Size.CI:
        return _FEW
    on_the_way = [name for name in names if name not in (*_NOT_ON_THE_WAY, _FITS)]
    # Once all members are trained no run fits any again: its turn comes within the task that fits them.
    on_the_way.insert(on_the_way.index(_TRAINS), _FITS)
    return tuple((name, when) for name in on_the_way for when in ("before", "after"))


def prove(size: Size) -> Proof:
    """Let one job die at each task in turn, before it and after it, and let the next run go on; CI has two deaths."""
    with Stage("retrain-crash") as stage:
        urls = stage.up(SERVERS, symbols=3, speed=60)
        trial = _Trial(stage, urls["mlflow"])
        names = trial.run("--list").stdout.split()
        trial.finish()
        before, points = trial.aliases(), _points(size, names)
        has_registered = has_moved = False
        for task, when in points:
            done = trial.run(task, when)
            died = done.returncode == -9
            trial.blame(f"{when} {task}", holds=died, what=f"it ended with {done.returncode}: {done.stderr[-300:]}")
            has_registered |= (task, when) == ("train.register", "after") or task.startswith(("shadow.", "promote."))
            has_moved |= (task, when) == ("promote.move_alias", "after")
            trial.check(f"{when} {task}", before, has_registered=has_registered, has_moved=has_moved)
        result = trial.finish()
        job, first = trial.jobs()
        trial.check("at the end", before, has_registered=True, has_moved=True)
        trial.blame("at the end", holds=(result["version"], result["promoted"]) == ("2", True), what=f"result {result}")
        went_on = job.resumes == len(points) and job.status == first.status == "succeeded"
        trial.blame("at the end", holds=went_on, what=f"job {job.status}, resumed {job.resumes} times")
        fits = _fitted(urls["prefect-server"]) - len(first.models)

    return Proof(
        name="retrain-crash",
        figure=(
            f"{len(points)} kills of one job, at {len({task for task, _ in points})} of {len(names)} tasks: it "
            f"went on {job.resumes} times, {len(trial.faults)} half-registered models or aliases moved by a killed run"
        ),
        bar="goes on each time, 0",
        holds=not trial.faults,
        details=(*trial.faults[:10], f"{fits} members were fitted for {len(job.models)}, over all runs of the job"),
    )


def _fitted(prefect: str) -> int:
    """Return how many members were fitted to their end, over all runs."""
    body = {"task_runs": {"name": {"like_": "fit-"}, "state": {"type": {"any_": ["COMPLETED"]}}}}
    found: int = post(f"{prefect}/api/task_runs/count", body)
    return found
