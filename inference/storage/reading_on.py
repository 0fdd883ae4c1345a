"""A journal read on from where it was left: only whole lines, verified, and only of the file that was read before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feature_store.errors import QuantumError
from inference.domain.errors import JournalError
from inference.journal.codec import GENESIS, Entry, entry_of
from inference.journal.head import Head
from inference.journal.verify import verified
from inference.storage.errors import AnotherJournalError, StorageError
from inference.storage.projection import read_event

_BYTES_AT_ONCE = 16 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """How far the tables tell the journal: its last entry, where its line begins, and where the next one will."""

    seq: int
    digest: str
    line_offset: int
    next_offset: int


NOTHING = Kept(seq=0, digest=GENESIS, line_offset=0, next_offset=0)


@dataclass(frozen=True, slots=True)
class Taken:
    """An entry with the event that it holds, None of an unknown type, and where its line begins and ends."""

    entry: Entry
    event: Any
    line_offset: int
    next_offset: int


def read_on(journal: Path, kept: Kept, at_once: int) -> tuple[list[Taken], QuantumError | None]:
    """Return what follows, verified and decoded, and what stands in the way of more."""
    lines = _Lines(journal, kept)
    taken: list[Taken] = []
    try:
        for entry in verified(lines.following(at_once), None, after=Head(seq=kept.seq, digest=kept.digest)):
            # One by one: what was read before a damaged entry is taken in.
            taken.append(Taken(entry, read_event(entry), lines.line_offset, lines.next_offset))  # noqa: PERF401
    except (JournalError, StorageError) as error:
        return taken, error
    except OSError as error:
        return taken, StorageError(f"The journal {journal} cannot be read: {error.strerror}")
    return taken, None


class _Lines:
    """The whole lines of a journal behind the last one that was kept; says where the newest one lies."""

    def __init__(self, journal: Path, kept: Kept) -> None:
        self.line_offset, self.next_offset = kept.line_offset, kept.next_offset
        self._journal = journal
        self._kept = kept

    def following(self, at_once: int) -> Iterator[bytes]:
        if not self._journal.exists():
            if self._kept.seq:
                raise self._another("is missing")
            return
        with self._journal.open("rb") as file:
            self._check_seam(file.seek(0, 2), file)
            file.seek(self.next_offset)
            end = self.next_offset + _BYTES_AT_ONCE
            for _ in range(at_once):
                line = file.readline()
                if not line.endswith(b"\n") or self.next_offset >= end:
                    return
                self.line_offset, self.next_offset = self.next_offset, self.next_offset + len(line)
                yield line

    def _check_seam(self, size: int, file: Any) -> None:
        """The entry that was taken in last stands where it stood, or the file is not the one that was read."""
        if not self._kept.seq:
            return
        if size < self.next_offset:
            raise self._another("is shorter than what was read of it")
        file.seek(self.line_offset)
        try:
            found = entry_of(file.read(self.next_offset - self.line_offset))
        except JournalError:
            raise self._another("has no entry where the last one was read") from None
        if (found.seq, found.digest) != (self._kept.seq, self._kept.digest):
            raise self._another(f"has another entry {self._kept.seq}")

    def _another(self, found: str) -> AnotherJournalError:
        return AnotherJournalError(
            f"The tables tell a journal up to entry {self._kept.seq}, and {self._journal} {found}; "
            "run `qtctl db rebuild` if this is the right journal, or name the other with --journal"
        )
