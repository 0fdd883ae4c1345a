"""One at a time, and whoever is in a hurry before all who only want to know."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import IntEnum
from heapq import heappop, heappush
from itertools import count


class Hurry(IntEnum):
    """Who goes first: what makes a position smaller or takes an order away, then entries, then questions."""

    EXIT = 0
    ENTRY = 1
    QUESTION = 2


class UrgentFirst:
    """A lock of one event loop; among those in equal hurry, who came first goes first."""

    def __init__(self) -> None:
        self._held = False
        self._waiting: list[tuple[Hurry, int, asyncio.Future[None]]] = []
        self._number = count()

    @asynccontextmanager
    async def turn(self, hurry: Hurry) -> AsyncIterator[None]:
        """Wait for a turn, and have it until the block ends."""
        if self._held:
            called = asyncio.get_running_loop().create_future()
            heappush(self._waiting, (hurry, next(self._number), called))
            try:
                await called
            except asyncio.CancelledError:
                # Called at the moment at which it gave up: the next one is, in its place.
                if called.done() and not called.cancelled():
                    self._pass_on()
                raise
        self._held = True
        try:
            yield
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        while self._waiting:
            _, _, called = heappop(self._waiting)
            if not called.done():
                called.set_result(None)
                return
        self._held = False
