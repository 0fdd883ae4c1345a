"""The names under which anchors of journals are kept in MLflow, and what stands there."""

from __future__ import annotations

import hashlib
import socket
from pathlib import Path

import msgspec

from inference.journal.head import Head

EXPERIMENT = "quantum-journal"
"""The experiment in MLflow whose tags are anchors, one for each journal by its name."""


class AnchorTag(msgspec.Struct, frozen=True, kw_only=True):
    """An anchor as it stands in MLflow: of which journal, how far, and when it was put there."""

    journal: str
    seq: int
    digest: str
    at: str

    @property
    def head(self) -> Head:
        """What it vouches for."""
        return Head(seq=self.seq, digest=self.digest)


def anchor_key(name: str) -> str:
    """Return the tag under which the anchor of a journal is kept; by its name, since its content may be forged."""
    return f"journal.{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def journal_name(path: Path, given: str | None) -> str:
    """Return what a journal is called: as was said, or else by the machine and where it lies there."""
    return given or f"{socket.gethostname()}:{path.resolve()}"
