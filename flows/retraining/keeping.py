"""Deep members from one job to the next: which are still fresh, and taking them over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from feature_store.errors import BadInputError
from feature_store.files import replace_bytes
from flows.retraining.job import Job, JobKind, Trigger
from flows.training.config import TrainingConfig
from flows.training.dataset import FrameSet
from flows.training.fitting import DEEP_MEMBERS, decode_member, why_not_kept

_SUFFIX = ".member"


@dataclass(frozen=True, slots=True)
class KeptMembers:
    """The deep members of the last jobs that came to their end, in a folder of the home."""

    folder: Path

    def job_of(self, name: str) -> str | None:
        """Return the id of the job that fitted the newest kept member of a name."""
        found = sorted(self.folder.glob(f"{name}@*{_SUFFIX}"))
        return found[-1].name.removeprefix(f"{name}@").removesuffix(_SUFFIX) if found else None

    def read(self, name: str) -> bytes | None:
        """Return the newest kept member of a name."""
        job_id = self.job_of(name)
        return None if job_id is None else self._path(name, job_id).read_bytes()

    def write(self, name: str, job_id: str, content: bytes) -> None:
        """Keep a member, and only the newest of its name."""
        replace_bytes(self._path(name, job_id), content)
        for older in self.folder.glob(f"{name}@*{_SUFFIX}"):
            if older != self._path(name, job_id):
                older.unlink(missing_ok=True)

    def _path(self, name: str, job_id: str) -> Path:
        return self.folder / f"{name}@{job_id}{_SUFFIX}"


def kind_of(
    asked: JobKind | None, trigger: Trigger, members: Iterable[str], kept: KeptMembers, jobs: Sequence[Job], every: int
) -> JobKind:
    """
    Return whether a job fits all members or takes over the deep ones.

    A schedule alone does not ask for deep members: they are fitted anew by each `every`-th job, jobs that failed among
    them. Whoever orders a job, and whatever has changed the market or the model's success, asks for all of them.

    Args:
        asked: What was ordered; it wins.
        trigger: Why the job runs.
        members: The members of the ensemble.
        kept: What earlier jobs left.
        jobs: All jobs of the home.
        every: After how many jobs deep members are fitted anew.
    """
    if asked is not None:
        return asked
    deep = [name for name in members if name in DEEP_MEMBERS]
    if trigger != "schedule" or not deep:
        return "full"
    fitted_by = [kept.job_of(name) for name in deep]
    ages = [_jobs_since(jobs, job_id) for job_id in fitted_by if job_id is not None]
    return "incremental" if len(ages) == len(deep) and max(ages) + 1 < every else "full"


def _jobs_since(jobs: Sequence[Job], job_id: str) -> int:
    # Also those that failed: what was taken over may be why, and must not be taken over for ever. One that judged a
    # challenger again trained nobody.
    return sum(
        one.started_at is not None and one.job_id > job_id and not (one.status == "succeeded" and not one.models)
        for one in jobs
    )


def taken_over(
    kept: KeptMembers, frames: FrameSet, config: TrainingConfig, tell: Callable[[str], None]
) -> dict[str, bytes]:
    """Return the kept members that can serve a candidate; `tell` hears of each that cannot, and why."""
    usable = {}
    for name in config.members:
        content = kept.read(name) if name in DEEP_MEMBERS else None
        if content is None:
            if name in DEEP_MEMBERS:
                tell(f"{name} is fitted: no earlier job has left one")
            continue
        try:
            reason = why_not_kept(decode_member(content), frames, config)
        except BadInputError as error:
            reason = str(error)
        if reason is None:
            usable[name] = content
        tell(f"{name} is taken over from job {kept.job_of(name)}" if reason is None else f"{name} is fitted: {reason}")
    return usable
