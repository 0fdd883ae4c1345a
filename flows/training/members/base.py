"""What every member can do: fit, predict as trained, and export to a file the worker reads."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec

from flows.training.config import TrainingConfig
from flows.training.dataset import Dataset, Floats, Rows
from inference.models.manifest import FileEntry, MemberKind

Progress = Callable[[str, float], None]


class Export(msgspec.Struct, frozen=True, kw_only=True):
    """A member's file and what it consumes; `raw_scale` turns the file's answer into a log return."""

    kind: MemberKind
    file: FileEntry
    inputs: tuple[str, ...]
    raw_scale: float


class FittedMember(Protocol):
    """A trained member, still in the library that trained it."""

    name: str

    def predict(self, dataset: Dataset, rows: Rows) -> Floats:
        """Return the expected log return over the horizon, asked of the training library."""
        ...

    def export(self, folder: Path) -> Export:
        """Write the member's file."""
        ...

    def importance(self) -> dict[str, float]:
        """Return each input's share of what the member learned; empty where the member cannot say."""
        ...


class MemberTrainer(Protocol):
    """A kind of member."""

    def __call__(self, dataset: Dataset, rows: Rows, config: TrainingConfig, progress: Progress) -> FittedMember:
        """Fit on the rows and return the trained member."""
        ...


def write_file(folder: Path, name: str, content: bytes) -> FileEntry:
    """Write one file of the bundle and return what the manifest says of it."""
    (folder / name).write_bytes(content)
    return file_entry(name, content)


def file_entry(name: str, content: bytes) -> FileEntry:
    """Return what the manifest says of a file."""
    return FileEntry(name=name, sha256=hashlib.sha256(content).hexdigest(), size=len(content))
