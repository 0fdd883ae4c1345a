"""A few bytes that the processes of one machine share, under a lock that no dead process can hold."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

from feature_store import clock

_LOOKS_AGAIN_S = 0.005
_BLOCK = 1024

_T = TypeVar("_T")
Change = Callable[[bytes | None, float, int], tuple[bytes, _T]]
"""From what is written, the shared clock in seconds and in milliseconds since 1970: what to write, and a result."""


class SharedBusyError(OSError):
    """What is shared could not be had in the time that was given."""


class SharedFile:
    """
    One small file under a lock of the kernel's, which lets go when its holder dies.

    It is written in place, for a file that is replaced waits for the disk on some file systems; and a second copy is
    written first, so that of a writer killed in the middle one of them is whole. `is_whole` tells which. No fsync: what
    is kept here is worth less than a minute, and a crash of the machine takes longer.
    """

    def __init__(self, path: Path, *, is_whole: Callable[[bytes], bool] = bool) -> None:
        self._path = path
        self._copy = path.with_suffix(".copy")
        self._is_whole = is_whole

    def __str__(self) -> str:
        return str(self._path)

    async def update(self, change: Change[_T], *, patience_s: float = float("inf")) -> _T:
        """
        Change what is shared, alone.

        Raises:
            SharedBusyError: Another process held it for longer than the patience.
        """
        async with self._alone(patience_s):
            return self._changed(change)

    async def jot(self, change: Change[_T]) -> bool:
        """Change what is shared beside the event loop; False, with nothing done, where another holds it."""
        return await asyncio.to_thread(self._try, change)

    def peek(self) -> tuple[bytes | None, float, int]:
        """Return what is written now, without a lock, with both clocks; None where it cannot be read."""
        text = None
        with contextlib.suppress(OSError):
            text = self._read()
        return text, clock.monotonic(), clock.utc_now_ms()

    async def close(self) -> None:
        """Nothing is held between changes."""

    def _try(self, change: Change[_T]) -> bool:
        handle = self._open()
        try:
            if not _taken(handle):
                return False
            self._changed(change)
            return True
        finally:
            os.close(handle)

    def _changed(self, change: Change[_T]) -> _T:
        text = self._read()
        new, result = change(text, clock.monotonic(), clock.utc_now_ms())
        if new != text:
            for path in (self._copy, self._path):
                _overwrite(path, new)
        return result

    def _read(self) -> bytes | None:
        for path in (self._path, self._copy):
            with contextlib.suppress(FileNotFoundError):
                text = path.read_bytes().rstrip()
                if self._is_whole(text):
                    return text
        return None

    def _open(self) -> int:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o644)

    @contextlib.asynccontextmanager
    async def _alone(self, patience_s: float) -> AsyncIterator[None]:
        deadline = clock.monotonic() + patience_s
        handle = self._open()
        try:
            while not _taken(handle):
                if clock.monotonic() >= deadline:
                    raise SharedBusyError(f"{self._path} was held for {patience_s:g} s")
                await asyncio.sleep(random.uniform(0.1, 1.0) * _LOOKS_AGAIN_S)
            yield
        finally:
            os.close(handle)


def _overwrite(path: Path, text: bytes) -> None:
    """Write over a file in place; blanks fill it up, so that its length seldom changes."""
    padded = text + b" " * (-len(text) % _BLOCK)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        os.pwrite(handle, padded, 0)
        if os.fstat(handle).st_size != len(padded):
            os.ftruncate(handle, len(padded))
    finally:
        os.close(handle)


def _taken(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
