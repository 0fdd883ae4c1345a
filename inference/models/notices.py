"""What was decided of models, handed from flows to the worker's journal through files of the home."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from feature_store.files import replace_bytes

_SUFFIX = ".json"
_MAX_BYTES = 64 * 1024
_MAX_TEXT = 2000


class Notice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    One decision about a version: a verdict of the gates, a person's approval, or a rollback.

    `decided_at` is ISO 8601 in UTC, `digest` the SHA-256 of the bundle's manifest. A notice may be journaled twice
    after a crash; the pair of version and `decided_at` tells that it is one.
    """

    event: Literal["model.verdict", "model.approved", "model.rolled_back"]
    version: str
    digest: str
    verdict: str
    mode: str
    decided_at: str
    venue: str = ""
    by: str = ""
    replaced: str = ""
    missing: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()

    def detail(self) -> dict[str, str]:
        """Return it as a journal entry's words; what is empty is left out."""
        told = {
            "version": self.version,
            "digest": self.digest,
            "verdict": self.verdict,
            "mode": self.mode,
            "venue": self.venue,
            "decided_at": self.decided_at,
            "by": self.by,
            "replaced": self.replaced,
            "missing": ", ".join(self.missing),
            "reasons": " ".join(self.reasons),
        }
        return {name: text[:_MAX_TEXT] for name, text in told.items() if text}


def leave_notice(folder: Path, notice: Notice) -> Path:
    """
    Leave a notice for the worker of a home; it appears whole or not at all.

    Raises:
        OSError: The folder cannot be written.
    """
    when = "".join(letter for letter in notice.decided_at if letter.isdigit())
    path = folder / f"{when}-{notice.event.removeprefix('model.')}-{notice.version}{_SUFFIX}"
    replace_bytes(path, msgspec.json.encode(notice))
    return path


def notices_in(folder: Path) -> Iterator[tuple[Path, Notice | None]]:
    """
    Yield every notice in the order decided, None for a file that is none; whoever journaled it removes it.

    A folder that is not there holds none; links, and files larger than 64 KiB, are not read.
    """
    try:
        found = sorted(path for path in folder.iterdir() if path.suffix == _SUFFIX and not path.name.startswith("."))
    except OSError:
        return
    for path in found:
        try:
            usable = path.is_file() and not path.is_symlink() and path.stat().st_size <= _MAX_BYTES
            yield path, msgspec.json.decode(path.read_bytes(), type=Notice) if usable else None
        except OSError:
            continue  # Somebody else took it.
        except msgspec.DecodeError:
            yield path, None
