"""Time that passes only when everything waits, and a journal in memory: thousands of lives in seconds."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from inference.domain.events import Event
from inference.journal.codec import GENESIS, Entry, chained, event_of

_BEGINS = 1000.0


class Crash(BaseException):
    """The process is killed here."""


class VirtualClock:
    """Wall seconds that pass only in `sleep`, and the venue's time that follows them."""

    def __init__(self, start_ms: int) -> None:
        self.seconds = _BEGINS
        self._start_ms = start_ms
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0

    def monotonic(self) -> float:
        """Return the wall seconds."""
        return self.seconds

    def now_ms(self) -> int:
        """Return the venue's time."""
        return self._start_ms + round((self.seconds - _BEGINS) * 1000)

    async def sleep(self, seconds: float) -> None:
        """Wait in virtual time: `drive` lets it pass once nothing else can run."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._count += 1
        self._sleepers.append((self.seconds + max(seconds, 0.001), self._count, future))
        await future

    async def drive(self, awaitable: Any, *, limit_seconds: float = 600.0) -> Any:
        """Run to the end, letting virtual time jump to the next sleeper whenever everything waits."""
        task = asyncio.ensure_future(awaitable)
        end = self.seconds + limit_seconds
        while not task.done():
            await asyncio.sleep(0)
            # Time stands still while anything can run.
            if task.done() or asyncio.get_running_loop()._ready:  # type: ignore[attr-defined]  # noqa: SLF001
                continue
            self._sleepers = sorted(one for one in self._sleepers if not one[2].done())
            assert self._sleepers, "everything waits for something that never comes"
            at, _, future = self._sleepers.pop(0)
            self.seconds = max(self.seconds, at)
            assert self.seconds < end, "did not come to an end in virtual time"
            future.set_result(None)
        return await task


@dataclass
class MemoryJournal:
    """A journal of entries in memory, encoded and chained like the real one; it outlives the executor."""

    entries: list[Entry] = field(default_factory=list)
    fail: BaseException | None = None
    # Called before and after each append; raising here is a crash at that moment.
    moment: Callable[[], None] = lambda: None

    def record(self, event: Event, *, timestamp_ms: int, trace_id: str = "", durable: bool = False) -> Entry:
        """Append, or fail as told."""
        del durable
        if self.fail is not None:
            raise self.fail
        previous = self.entries[-1].digest if self.entries else GENESIS
        entry = chained(
            event, seq=len(self.entries) + 1, timestamp_ms=timestamp_ms, trace_id=trace_id, previous=previous
        )
        self.moment()
        self.entries.append(entry)
        self.moment()
        return entry

    def events(self) -> list[Event]:
        """Return what was recorded, decoded from its text."""
        return [event_of(entry) for entry in self.entries]


def shuffled(seed: int) -> Callable[[list[Any]], list[Any]]:
    """Return a reordering that also repeats and drops nothing but the order's meaning."""

    def reorder(batch: list[Any]) -> list[Any]:
        chaos = random.Random(seed)
        doubled = batch + [one for one in batch if chaos.random() < 0.5]
        chaos.shuffle(doubled)
        return doubled

    return reorder


async def abandon_everything() -> None:
    """Let no task of the dead process go on."""
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    for task in others:
        with suppress(asyncio.CancelledError, Crash):
            await task
