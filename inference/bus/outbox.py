"""Publishing what is journaled: the journal is the record, and the bus says how far it has been told."""

from __future__ import annotations

import os
from collections import deque
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from inference.bus.port import Cursor, CursorMovedError, EventBus
from inference.bus.projection import events_of
from inference.domain.errors import JournalError
from inference.journal.codec import Entry, entry_of
from inference.journal.head import read_head
from inference.journal.reader import newest_lines

_ENTRIES_AT_ONCE = 100
_BYTES_AT_ONCE = 2**20
_KEY_DIGITS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one step published: entries and events; `is_caught_up` says whether there was nothing more to publish."""

    entries: int
    events: int
    is_caught_up: bool


class Outbox:
    """
    Follows one journal by its entries' numbers and publishes each, once it is on the disk.

    How far that is stands in the bus, and moves in the same step as the events are appended: a crash between journal
    and bus loses nothing and doubles nothing. A bus that knows nothing of the journal, as it is new or lost what it
    held, is given the newest `refill_entries` entries. Only the process that writes the journal may publish it.
    """

    def __init__(self, bus: EventBus, journal: Path, *, refill_entries: int = 100_000) -> None:
        self.seq = 0
        self.refills = 0
        self._bus = bus
        self._path = journal
        self._refill = refill_entries
        self._cursor: Cursor | None = None
        # Number and predecessor's digest of the next entry; None where a part of the journal is left out before it.
        self._expected: tuple[int, str] | None = None
        self._is_placed = False
        self._next = 0
        self._journal = ""
        self._file = -1

    def step(self) -> Step:
        """
        Publish the next entries, a batch at most.

        Raises:
            BusError: The bus did not take them, or did without saying so; the next step finds out.
            JournalError: The journal's next entry does not continue the one before, or cannot be read.
        """
        if not self._opened():
            return Step(entries=0, events=0, is_caught_up=True)
        if not self._is_placed:
            self._place()
        lines, is_end = self._lines()
        if not lines:
            return Step(entries=0, events=0, is_caught_up=is_end)
        entries = self._checked(lines)
        self._make_durable(entries[-1][0].seq)
        newest, place = entries[-1]
        after = Cursor(journal=self._journal, seq=newest.seq, digest=newest.digest, place=place)
        events = [one for entry, _ in entries for one in events_of(entry, self._journal)]
        try:
            count = self._bus.publish(events, moved=(self._cursor, after))
        except CursorMovedError:
            # An earlier try of ours arrived after all, or the bus went back to an older state of its own.
            self._is_placed = False
            return Step(entries=0, events=0, is_caught_up=False)
        except BaseException:
            self._is_placed = False
            raise
        self._cursor, self.seq, self._next = after, newest.seq, place + len(lines[-1])
        self._expected = (newest.seq + 1, newest.digest)
        return Step(entries=len(entries), events=count, is_caught_up=is_end)

    def ask(self) -> None:
        """
        Ask whether the bus still is as far as is believed; where it is not, the next step goes on from where it is.

        Raises:
            BusError: It does not answer.
        """
        if self._is_placed and self._cursor is not None and self._bus.cursor(self._journal) != self._cursor:
            self._is_placed = False

    def close(self) -> None:
        """Let go of the journal's file."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def _opened(self) -> bool:
        """
        Have the journal's file open, the same for as long as it is the journal; return whether there is one.

        Where a disk fails, only who had the file open before is told by its next fsync.
        """
        try:
            found = self._path.stat()
            if self._file >= 0 and not os.path.samestat(found, os.fstat(self._file)):
                # Another was put in its place.
                self.close()
                self._is_placed = False
            if self._file < 0:
                self._file = os.open(self._path, os.O_RDONLY)
        except FileNotFoundError:
            self.close()
            return False
        except OSError as error:
            raise JournalError(f"The journal {self._path} cannot be read for the bus: {error.strerror}") from error
        return True

    def _place(self) -> None:
        first = _line_at(self._file, 0)
        if not first:
            return
        self._journal = entry_of(first).digest[:_KEY_DIGITS]
        cursor = self._bus.cursor(self._journal)
        place = None if cursor is None else _after(self._file, cursor)
        if place is None:
            # The bus is empty, or the journal was restored: begin again, what the bus has it does not take twice.
            self.refills += (cursor or self._cursor) is not None
            self._cursor, self._next, self._expected = cursor, self._start(), None
        elif cursor is not None:
            self._cursor, self._next, self._expected = cursor, place, (cursor.seq + 1, cursor.digest)
        self._is_placed = True

    def _start(self) -> int:
        newest = deque(islice(newest_lines(self._path), self._refill), maxlen=1)
        return newest[0][0] if newest else 0

    def _lines(self) -> tuple[list[bytes], bool]:
        """Return the next whole lines, and whether they are all there are."""
        if not self._is_placed:
            return [], True
        if os.fstat(self._file).st_size < self._next:
            self._is_placed = False
            return [], False
        # Read anew each time: a line that a full disk cut short is followed by another in its place.
        text = os.pread(self._file, _BYTES_AT_ONCE, self._next)
        is_end = len(text) < _BYTES_AT_ONCE
        lines = text.split(b"\n")[:-1] or [one for one in [_line_at(self._file, self._next)[:-1]] if one]
        chosen = lines[:_ENTRIES_AT_ONCE]
        return [line + b"\n" for line in chosen], is_end and len(chosen) == len(lines)

    def _checked(self, lines: list[bytes]) -> list[tuple[Entry, int]]:
        """Return entries with the bytes at which they begin; each must continue the one before."""
        entries: list[tuple[Entry, int]] = []
        place = self._next
        expected = self._expected
        for line in lines:
            entry = entry_of(line)
            if expected is not None and (entry.seq, entry.previous) != expected:
                self._is_placed = False
                raise JournalError(
                    f"Journal entry {entry.seq} does not continue entry {expected[0] - 1} that was published;"
                    " run `qtctl audit verify`"
                )
            entries.append((entry, place))
            expected = (entry.seq + 1, entry.digest)
            place += len(line)
        return entries

    def _make_durable(self, seq: int) -> None:
        """Nothing is published that a power cut could still take from the journal."""
        head = read_head(self._path.with_suffix(".head"))
        if head is not None and head.seq >= seq:
            return
        try:
            os.fsync(self._file)
        except OSError as error:
            raise JournalError(f"The journal {self._path} cannot be made durable: {error.strerror}") from error


def _line_at(file: int, place: int) -> bytes:
    """Return the whole line that begins at a byte, empty where there is none."""
    length = _BYTES_AT_ONCE // 16
    while True:
        text = os.pread(file, length, place)
        end = text.find(b"\n")
        if end >= 0:
            return text[: end + 1]
        if len(text) < length:
            return b""
        length *= 2


def _after(file: int, cursor: Cursor) -> int | None:
    """Return where the entry after a cursor's begins; None where the journal holds another entry at its place."""
    line = _line_at(file, cursor.place)
    try:
        entry = entry_of(line) if line else None
    except JournalError:
        return None
    if entry is None or (entry.seq, entry.digest) != (cursor.seq, cursor.digest):
        return None
    return cursor.place + len(line)
