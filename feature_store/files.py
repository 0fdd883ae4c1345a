"""Replacing a file so that a reader, or a crash, sees the old one or the new one and nothing between."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


_PAGE = 4096


@contextlib.contextmanager
def replacing(path: Path, *, is_synced: bool = True) -> Iterator[Path]:
    """
    Give a temporary path beside `path`; what was written there takes its place at the end.

    The content is on disk before the name moves, unless `is_synced` is False: then a power failure may leave a file
    that is not whole. An error inside leaves the old file as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        if is_synced:
            _sync(temporary)
        temporary.replace(path)
        if is_synced:
            _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def replace_bytes(path: Path, content: bytes) -> None:
    """Write a whole file atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Sheet:
    """
    Memory in which a file is put together, used again for the next, and written past the page cache.

    What a program writes once and does not read again would only push other files out of the cache, and on a virtual
    machine new pages of the cache are several times slower than the disk.
    """

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, _PAGE)

    def make_room(self, size: int) -> None:
        """Have room for so many bytes; what was written before is forgotten."""
        if len(self.memory) < size:
            # Half as much again, so that series of growing length do not each begin anew.
            self.memory = mmap.mmap(-1, _whole_pages(size + size // 2))

    def write(self, path: Path, size: int) -> None:
        """Make the first bytes the content of a file."""
        if not self._write_directly(path, size):
            path.write_bytes(memoryview(self.memory)[:size])

    def _write_directly(self, path: Path, size: int) -> bool:
        direct = getattr(os, "O_DIRECT", 0)
        if not direct:
            return False
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | direct, 0o600)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
                return False
            raise
        try:
            done, end = 0, _whole_pages(size)
            while done < end:
                done += os.write(handle, memoryview(self.memory)[done:end])
                if done % _PAGE:
                    return False  # A short write: the disk may be full, and the usual way says so.
            os.ftruncate(handle, size)
        except OSError as error:
            if error.errno == errno.EINVAL:
                return False
            raise
        finally:
            os.close(handle)
        return True


def _whole_pages(size: int) -> int:
    return -(-size // _PAGE) * _PAGE
