"""Reading the journal, line by line; nothing is trusted before `verify` said so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from inference.journal.codec import Entry, entry_of


@dataclass(frozen=True, slots=True, kw_only=True)
class TornTail:
    """A last line that a crash cut short: where it begins and what is there of it."""

    offset: int
    length: int


def whole_lines(path: Path) -> Iterator[bytes]:
    """Yield every line that ends in a newline; an unfinished last line is left out, a missing file is empty."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        for line in file:
            if line.endswith(b"\n"):
                yield line


def newest_lines(path: Path, *, at_once: int = 2**20) -> Iterator[tuple[int, bytes]]:
    """Yield every whole line with the place where it begins, the newest first; so many bytes are read at once."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        position, rest = file.seek(0, os.SEEK_END), b""
        while position > 0:
            step = min(at_once, position)
            position -= step
            file.seek(position)
            buffer = file.read(step) + rest
            # The first part is the end of a line that begins further ahead, the last one is not whole, or empty.
            first, *lines = buffer.split(b"\n")
            rest = first + b"\n" if lines else first
            place = position + len(buffer) - (len(lines.pop()) if lines else 0)
            for line in reversed(lines):
                place -= len(line) + 1
                yield place, line + b"\n"
        if rest.endswith(b"\n"):
            yield 0, rest


def day_files(folder: Path) -> list[Path]:
    """Return the journals of all days in a folder, oldest first; none where the folder is missing."""
    return sorted(folder.glob("[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9].jsonl"))


def torn_tail(path: Path) -> TornTail | None:
    """Return the unfinished last line, if there is one."""
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return None
    end = 0
    with path.open("rb") as file:
        position = size
        while position > 0:
            step = min(65_536, position)
            position -= step
            file.seek(position)
            found = file.read(step).rfind(b"\n")
            if found >= 0:
                end = position + found + 1
                break
    return TornTail(offset=end, length=size - end) if end < size else None


def read_entries(path: Path) -> Iterator[Entry]:
    """
    Yield every entry in the order written.

    Raises:
        JournalError: A line is not an entry.
    """
    for line in whole_lines(path):
        yield entry_of(line)
