"""The journal's anchor: how far it was known to be durable, kept outside the file it vouches for."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from feature_store.json_text import UNREADABLE
from inference.domain.errors import JournalError


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The last entry that was fsynced when the anchor was written; the journal may be longer, never shorter."""

    seq: int
    digest: str


def read_head(path: Path) -> Head | None:
    """Return the anchor, or None where none was written yet."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return msgspec.json.decode(text, type=Head)
    except UNREADABLE as error:
        raise JournalError(
            f"The journal's anchor {path} cannot be read ({error}); restore it from the backup, "
            "or move it away after `qtctl audit verify` showed the journal whole"
        ) from error


def write_head(path: Path, head: Head) -> None:
    """Replace the anchor atomically and durably."""
    # Anchors of several journals may lie in one folder, where several processes write them.
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            os.write(descriptor, msgspec.json.encode(head, order="sorted"))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
