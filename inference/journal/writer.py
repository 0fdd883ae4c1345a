"""The one writer of the journal: appends, chains, fsyncs, and recovers what a crash left."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from inference.domain.errors import JournalError
from inference.domain.events import Event
from inference.journal.codec import GENESIS, Entry, chained, line_of
from inference.journal.head import Head, read_head, write_head
from inference.journal.reader import TornTail, torn_tail, whole_lines
from inference.journal.verify import verified


class JournalWriter:
    """
    Appends to one journal that nobody else writes.

    `recovered` tells of a torn last line that was cut off at opening. Entries reach the operating system at once
    (a killed process loses none); `durable` ones, and all at `sync`, reach the disk before the call returns.
    """

    def __init__(self, path: Path, descriptor: int, lock: int, *, recovered: TornTail | None) -> None:
        self.path = path
        self.head_path = path.with_suffix(".head")
        self.recovered = recovered
        self.seq = 0
        self.digest = GENESIS
        # The newest entry that is known to have reached the disk.
        self.durable: Head | None = None
        self._descriptor = descriptor
        self._lock = lock
        self._offset = os.fstat(descriptor).st_size
        self._durable_seq = 0
        self._opened_seq = 0
        self._broken = False

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        visit: Callable[[Entry], None] = lambda _: None,
        anchors: Callable[[], Mapping[str, Head]] = dict,
    ) -> JournalWriter:
        """
        Lock the journal, verify it whole, hand every entry to `visit`, and stand at its end.

        `anchors` says what is kept elsewhere of it, by where; it is asked once the journal is locked. A last line that
        a crash cut short is copied beside the journal and cut off.

        Raises:
            JournalError: Another process writes it, it is damaged, or the disk refuses.
        """
        lock = _take_lock(path)
        descriptor = -1
        try:
            torn = torn_tail(path)
            last = None
            head = read_head(path.with_suffix(".head"))
            for entry in verified(whole_lines(path), head, anchors=anchors()):
                visit(entry)
                last = entry
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            if torn is not None:
                _cut(path, descriptor, torn)
            _sync_folder(path.parent)
        except OSError as error:
            _close(descriptor, lock)
            raise JournalError(f"Cannot open the journal {path}: {error.strerror}; check the disk") from error
        except JournalError:
            _close(descriptor, lock)
            raise

        writer = cls(path, descriptor, lock, recovered=torn)
        writer.durable = head
        if last is not None:
            writer.seq, writer.digest = last.seq, last.digest
            writer._opened_seq = last.seq
        return writer

    def record(self, event: Event, *, timestamp_ms: int, trace_id: str = "", durable: bool = False) -> Entry:
        """
        Append one event.

        Raises:
            JournalError: It could not be recorded; the journal is as it was before.
        """
        entry = chained(event, seq=self.seq + 1, timestamp_ms=timestamp_ms, trace_id=trace_id, previous=self.digest)
        self._append(line_of(entry))
        self.seq, self.digest = entry.seq, entry.digest
        if durable:
            self.sync()
        return entry

    def sync(self) -> None:
        """Make all that was appended survive a power cut, then move the anchor."""
        if self._durable_seq == self.seq:
            return
        try:
            os.fsync(self._descriptor)
            head = Head(seq=self.seq, digest=self.digest)
            write_head(self.head_path, head)
        except OSError as error:
            # After a failed fsync the kernel may have dropped the pages: nothing written later can be trusted.
            self._broken = True
            raise JournalError(
                f"The journal {self.path} cannot be made durable: {error.strerror}; "
                "free disk space or replace the disk, then start the worker again"
            ) from error
        self._durable_seq, self.durable = self.seq, head

    @property
    def unsynced(self) -> int:
        """How many entries of this writer a power cut would lose."""
        return self.seq - max(self._durable_seq, self._opened_seq)

    @property
    def is_broken(self) -> bool:
        """Whether an earlier failure keeps everything from being written until the next start."""
        return self._broken

    def close(self) -> None:
        """Make everything durable and let another process write."""
        if self._descriptor < 0:
            return
        try:
            if not self._broken:
                self.sync()
        finally:
            _close(self._descriptor, self._lock)
            self._descriptor = self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _append(self, line: bytes) -> None:
        if self._broken or self._descriptor < 0:
            raise JournalError(f"The journal {self.path} is closed to writing after an earlier failure; start again")
        try:
            written = 0
            while written < len(line):
                written += os.pwrite(self._descriptor, line[written:], self._offset + written)
        except OSError as error:
            try:
                os.ftruncate(self._descriptor, self._offset)
            except OSError:
                self._broken = True
            raise JournalError(
                f"The journal {self.path} cannot be written: {error.strerror}; "
                "no order is sent without a record; free disk space, then start the worker again"
            ) from error
        self._offset += len(line)


def _take_lock(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise JournalError(f"Cannot open the journal {path}: {error.strerror}; check the disk") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise JournalError(
            f"Another process writes the journal {path}; stop that worker first (`qtctl status` shows it), "
            "or give this one a QUANTUM_HOME of its own"
        ) from error
    return lock


def _cut(path: Path, descriptor: int, torn: TornTail) -> None:
    tail = os.pread(descriptor, torn.length, torn.offset)
    path.with_suffix(f".torn-{torn.offset}").write_bytes(tail)
    os.ftruncate(descriptor, torn.offset)
    os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        if descriptor >= 0:
            os.close(descriptor)
