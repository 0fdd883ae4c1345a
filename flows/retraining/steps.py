"""What a job has finished so far: each step once, its value in the job table, its files beside with their digests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from feature_store.clock import utc_now
from feature_store.files import replace_bytes
from flows.retraining.table import JobTable

T = TypeVar("T")


class Steps(Protocol):
    """Where finished steps are noted, or nowhere."""

    @property
    def folder(self) -> Path | None:
        """Where files of the job may lie until it is over; None where nothing is noted."""
        ...

    def found(self, step: str, type_: type[T]) -> T | None:
        """Return what a step came to, None while it is not finished."""
        ...

    def note(self, step: str, value: object) -> None:
        """Note what a step came to."""
        ...

    def file(self, step: str) -> bytes | None:
        """Return the file that a step made, None where there is none or it is not whole any more."""
        ...

    def keep(self, step: str, content: bytes) -> None:
        """Keep the file that a step made."""
        ...


def once(steps: Steps, step: str, type_: type[T], do: Callable[[], T]) -> T:
    """
    Do a step and note what it came to, or return what it came to before.

    It is done twice where the process dies between its end and the note: what a step changes outside must bear that.
    """
    known = steps.found(step, type_)
    if known is not None:
        return known
    value = do()
    steps.note(step, value)
    return value


class NoSteps:
    """Notes nothing: for a training that is part of no job."""

    folder = None

    def found(self, step: str, type_: type[T]) -> T | None:  # noqa: ARG002 - see Steps
        """Know of nothing."""
        return None

    def note(self, step: str, value: object) -> None:
        """Forget it."""

    def file(self, step: str) -> bytes | None:  # noqa: ARG002 - see Steps
        """Have no file."""
        return None

    def keep(self, step: str, content: bytes) -> None:
        """Forget it."""


class _KeptFile(msgspec.Struct, frozen=True):
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class JobSteps:
    """The steps of one job, in its table and in a folder of its own."""

    table: JobTable
    job_id: str
    folder: Path

    def found(self, step: str, type_: type[T]) -> T | None:
        """Return what a step came to, None while it is not finished."""
        known = self.table.steps(self.job_id).get(step)
        return None if known is None else msgspec.json.decode(known, type=type_)

    def note(self, step: str, value: object) -> None:
        """Note what a step came to, on disk when this returns."""
        self.table.finish_step(self.job_id, step, value, utc_now())

    def file(self, step: str) -> bytes | None:
        """Return the file that a step made, None where there is none or it is not whole any more."""
        noted, path = self.found(step, _KeptFile), self._path(step)
        if noted is None or not path.exists():
            return None
        content = path.read_bytes()
        return content if hashlib.sha256(content).hexdigest() == noted.sha256 else None

    def keep(self, step: str, content: bytes) -> None:
        """Keep the file that a step made; it is noted once it is on disk."""
        replace_bytes(self._path(step), content)
        self.note(step, _KeptFile(hashlib.sha256(content).hexdigest(), len(content)))

    def _path(self, step: str) -> Path:
        return self.folder / f"{step}.kept"
