"""Frames that reach their readers late, and in the order in which they were sent."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol


class Reader(Protocol):
    """Who frames are for."""

    def push(self, frame: str) -> None:
        """Take a frame."""
        ...


class LateFrames:
    """A line of a fixed length between the venue and all of its sockets."""

    def __init__(self) -> None:
        # Wall-clock seconds that a frame is under way.
        self.seconds = 0.0
        self._line: deque[tuple[float, Reader, str]] = deque()
        self._next: asyncio.TimerHandle | None = None

    def push(self, reader: Reader, frame: str) -> None:
        """Send a frame; without a delay, and with nothing under way, it is there at once."""
        if not self.seconds and not self._line:
            reader.push(frame)
            return
        loop = asyncio.get_running_loop()
        self._line.append((loop.time() + self.seconds, reader, frame))
        self._wait(loop)

    def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._line and self._next is None:
            self._next = loop.call_at(self._line[0][0], self._arrive)

    def _arrive(self) -> None:
        # A frame behind one that takes longer waits for it: the line never changes the order.
        self._next = None
        loop = asyncio.get_running_loop()
        while self._line and self._line[0][0] <= loop.time():
            _, reader, frame = self._line.popleft()
            reader.push(frame)
        # A loop may count in whole milliseconds, and call a little too early.
        self._wait(loop)
