"""The anchor in a file outside the home, kept where neither the home's loss nor its owner reaches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from pathlib import Path

from inference.domain.errors import JournalError
from inference.journal.aside import aside
from inference.journal.head import Head, read_head, write_head
from inference.journal.keeping import RESTORED_MARKER, set_aside_name
from inference.journal.writer import JournalWriter

ANCHOR_FAILED, ANCHOR_RECOVERED = "health.anchor_failed", "health.anchor_recovered"
ANCHOR_REPLACED = "health.anchor_replaced"
_SECONDS = 5.0
# A disk that has not answered by then hangs; at the end nobody waits any longer for it either.
_PATIENCE_SECONDS = 2.0


class OutsideAnchor:
    """
    Keeps a file outside the home at the journal's durable head, beside trading; without a path there is none.

    What cannot be written is told, and tried again: the journal itself goes on.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._journal: JournalWriter | None = None
        self._note: Callable[[str, Mapping[str, str]], None] = lambda _, __: None
        self._written: Head | None = None
        self._outdated: Head | None = None
        self._under_way: tuple[Head, Future[None]] | None = None
        self._has_failed = False

    def vouched(self, journal: Path) -> dict[str, Head]:
        """
        Return what the file vouches for, by where it lies; nothing where there is none yet.

        A journal that was put back from a backup ends earlier and is held against nothing; `replaced_by` and
        `set_aside` are what is to be done about the file then.

        Raises:
            JournalError: The file cannot be read.
        """
        if self._path is None:
            return {}
        try:
            head = aside(partial(read_head, self._path)).result(timeout=_PATIENCE_SECONDS)
            if head is not None and journal.with_name(RESTORED_MARKER).exists():
                self._outdated, head = head, None
        except TimeoutError as error:
            raise JournalError(
                f"The journal's anchor {self._path} cannot be read: its disk has not answered for"
                f" {_PATIENCE_SECONDS:g} seconds; QT_JOURNAL_ANCHOR names it"
            ) from error
        except OSError as error:
            raise JournalError(
                f"The journal's anchor {self._path} cannot be read: {error.strerror}; QT_JOURNAL_ANCHOR names it"
            ) from error
        return {} if head is None else {str(self._path): head}

    def replaced_by(self, head: Head) -> dict[str, str] | None:
        """Return what is to be journaled before a journal that was put back is vouched for, if anything is."""
        old = self._outdated
        if self._path is None or old is None:
            return None
        return {
            "file": str(set_aside_name(self._path, old)),
            "old_seq": str(old.seq),
            "old_digest": old.digest,
            "new_seq": str(head.seq),
            "new_digest": head.digest,
        }

    def set_aside(self) -> None:
        """
        Keep what the file says beside it, as evidence for a person, so that an anchor begins anew.

        Raises:
            JournalError: The file cannot be renamed.
        """
        if self._path is None or self._outdated is None:
            return
        try:
            self._path.rename(set_aside_name(self._path, self._outdated))
        except OSError as error:
            raise JournalError(
                f"The journal's anchor {self._path} cannot be set aside after a restore: {error.strerror};"
                " QT_JOURNAL_ANCHOR names it"
            ) from error
        self._outdated = None

    def follow(self, journal: JournalWriter, note: Callable[[str, Mapping[str, str]], None]) -> None:
        """Keep up with a journal from now on."""
        self._journal, self._note = journal, note

    async def run(self) -> None:
        """Write until cancelled, where there is something to write."""
        while True:
            await self.write()
            await asyncio.sleep(_SECONDS)

    async def write(self) -> None:
        """Bring the file up to what is durable now, or say that it could not be, also where its disk hangs."""
        head = None if self._journal is None else self._journal.durable
        if self._path is None or head is None or head == self._written:
            return
        try:
            self._written = await self._write(self._path, head)
        except OSError as error:
            if not self._has_failed:
                self._has_failed = True
                self._note(ANCHOR_FAILED, {"file": str(self._path), "reason": str(error)[:300]})
            return
        if self._has_failed:
            self._has_failed = False
            self._note(ANCHOR_RECOVERED, {"file": str(self._path), "seq": str(self._written.seq)})

    async def close(self) -> None:
        """Write the last head, once the journal is closed; what cannot be told any more is left to the next start."""
        self._note = lambda _, __: None
        await self.write()
        # What was under way before was an earlier head.
        if self._under_way is None:
            await self.write()

    async def _write(self, path: Path, head: Head) -> Head:
        """Return what was written; an earlier write that has not come back yet is waited for, and no other begun."""
        if self._under_way is None:
            self._under_way = head, aside(partial(write_head, path, head))
        begun, future = self._under_way
        done, _ = await asyncio.wait({asyncio.wrap_future(future)}, timeout=_PATIENCE_SECONDS)
        if not done:
            raise TimeoutError(f"its disk has not answered for {_PATIENCE_SECONDS:g} seconds")
        self._under_way = None
        future.result()
        return begun
