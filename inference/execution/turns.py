"""Turns in the background: one at a time for each symbol, begun where something changed, their defects kept."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any


class Turns:
    """Remembers which symbols need a look, wakes whoever waits for one, and gives each its turn."""

    def __init__(
        self, settle: Callable[[str], Coroutine[Any, Any, None]], sleep: Callable[[float], Awaitable[None]]
    ) -> None:
        self.defect: BaseException | None = None
        self._settle = settle
        self._sleep = sleep
        self._touched: set[str] = set()
        self._again: set[str] = set()
        self._wake = asyncio.Event()
        self._turns: dict[str, asyncio.Task[None]] = {}
        self._besides: dict[str, asyncio.Task[Any]] = {}

    def mark(self, symbol: str) -> None:
        """Let a symbol have a turn when turns are begun next."""
        self._touched.add(symbol)

    def touch(self, symbol: str) -> None:
        """Let a symbol have a turn now."""
        self._touched.add(symbol)
        self._wake.set()

    def wake(self) -> None:
        """End the pause."""
        self._wake.set()

    async def pause(self, seconds: float) -> None:
        """Wait until something is touched, or time is over."""
        if self._touched:
            await asyncio.sleep(0)
            return
        nap = asyncio.ensure_future(self._sleep(seconds))
        woken = asyncio.ensure_future(self._wake.wait())
        try:
            await asyncio.wait({nap, woken}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            nap.cancel()
            woken.cancel()

    def begin(self) -> None:
        """Begin a turn for each symbol that was touched or marked."""
        touched, self._touched = self._touched, set()
        self._wake.clear()
        for symbol in sorted(touched):
            self._begin_turn(symbol)

    def beside(self, name: str, work: Callable[[], Coroutine[Any, Any, Any]]) -> bool:
        """Begin something else beside the turns, unless it is under way already; return whether it was begun."""
        if name in self._besides:
            return False
        task = asyncio.create_task(work(), name=name)
        self._besides[name] = task
        task.add_done_callback(lambda done: self._ended_beside(name, done))
        return True

    async def finished(self) -> None:
        """Wait until nothing is under way any more."""
        tasks: list[asyncio.Task[Any]] = [*self._turns.values(), *self._besides.values()]
        if running := [task for task in tasks if not task.done()]:
            await asyncio.wait(running)

    def _begin_turn(self, symbol: str) -> None:
        running = self._turns.get(symbol)
        if running is not None and not running.done():
            self._again.add(symbol)
            return
        turn = asyncio.create_task(self._settle(symbol), name=f"settle-{symbol}")
        turn.add_done_callback(lambda done: self._turn_ended(symbol, done))
        self._turns[symbol] = turn

    def _turn_ended(self, symbol: str, turn: asyncio.Task[None]) -> None:
        self._take_defect(turn)
        if symbol in self._again:
            self._again.discard(symbol)
            self.touch(symbol)

    def _ended_beside(self, name: str, task: asyncio.Task[Any]) -> None:
        self._besides.pop(name, None)
        self._take_defect(task)

    def _take_defect(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            # No wake-up: what fails at once must not spin, the watch tries again.
            self.defect = self.defect or error
