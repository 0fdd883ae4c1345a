"""What every member can do: fit, predict as trained, and export to a file the worker reads."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from flows.training.config import TrainingConfig
from flows.training.dataset import Dataset, Floats, Rows
from inference.models.manifest import Draw, FileEntry, MemberKind

Progress = Callable[[str, float], None]


class Export(msgspec.Struct, frozen=True, kw_only=True):
    """
    A member's file and what it consumes; `raw_scale` turns the file's answer into a log return.

    A bagged member has several `draws`, the first of which is `file`, each with a scale of its own.
    """

    kind: MemberKind
    file: FileEntry
    inputs: tuple[str, ...]
    raw_scale: float
    draws: tuple[Draw, ...] = ()

    @property
    def files(self) -> tuple[FileEntry, ...]:
        """Every file of the member, as `MemberEntry.files` of the manifest names them."""
        return tuple(draw.file for draw in self.draws) or (self.file,)


class FittedMember(Protocol):
    """A trained member, still in the library that trained it; nothing changes it any more."""

    @property
    def name(self) -> str:
        """Its name, that of its file."""
        ...

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
    """What fits a member; equal arguments give an equal member."""

    def __call__(self, dataset: Dataset, rows: Rows, config: TrainingConfig, progress: Progress) -> FittedMember:
        """Fit on the rows and return the trained member."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberSpec:
    """
    What a member's file says of it, under the name `MEMBER`; the file's own name is the member's.

    Attributes:
        fit: Trains it.
        consumes: What it reads, in words for people.
        role: Whether it votes where nobody chooses, or is trained beside to be compared with.
        share: Its part of the vote where weights are `fixed`, before they are made to sum to one.
        seconds: What its training costs one core at size full on 20 series of 30 days; steers a progress bar alone.
        reads_rows: Whether it learns from single rows, so that drawing blocks of them with replacement (bagging)
            changes what it learns. One that reads windows of a stretch is fitted once in any mode.
        on_gpu: Whether it trains on a GPU where `device` says so.
    """

    fit: MemberTrainer
    consumes: str
    role: Literal["votes", "compared"] = "votes"
    share: float = 0.25
    seconds: float = 10.0
    reads_rows: bool = True
    on_gpu: bool = False


def write_file(folder: Path, name: str, content: bytes) -> FileEntry:
    """Write one file of the bundle and return what the manifest says of it."""
    (folder / name).write_bytes(content)
    return file_entry(name, content)


def file_entry(name: str, content: bytes) -> FileEntry:
    """Return what the manifest says of a file."""
    return FileEntry(name=name, sha256=hashlib.sha256(content).hexdigest(), size=len(content))
