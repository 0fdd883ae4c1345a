"""A process from its start to its end: begun, kept until somebody asks it to stop, and wound down whatever happened."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Collection
from contextlib import AsyncExitStack
from typing import Protocol

_AGAIN_SECONDS = 1.0


class Life(Protocol):
    """What a process does with its life."""

    async def start(self, stack: AsyncExitStack) -> None:
        """Build all parts; what has to be closed at the end goes on the stack."""
        ...

    async def until_stopped(self) -> None:
        """Work until somebody asks to stop."""
        ...

    async def wind_down(self) -> None:
        """End what is under way; called also where the start failed or was cut short."""
        ...


async def live(begin: Callable[[asyncio.Event], Life]) -> int:
    """
    Run until SIGTERM or SIGINT; return the exit status.

    Raises:
        QuantumError: It cannot start; the message says why and what to do.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    life = begin(stop)
    async with AsyncExitStack() as stack:
        starting = asyncio.create_task(life.start(stack))
        asked = asyncio.create_task(stop.wait())
        await asyncio.wait({starting, asked}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
        try:
            await starting
            await life.until_stopped()
        except asyncio.CancelledError:
            if not stop.is_set():
                raise
        finally:
            asked.cancel()
            await life.wind_down()
    return 0


async def sleep_unless(stop: asyncio.Event, seconds: float) -> None:
    """Sleep, but not beyond the moment at which somebody asks to stop."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return


async def end(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait until each has ended, however it ends."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class Services:
    """
    What runs for as long as a process lives, each under its name.

    `guard` awaits a piece of work and says what it means that it failed; the service is begun again a second later.
    """

    def __init__(self, guard: Callable[[str, Awaitable[None]], Awaitable[None]]) -> None:
        self._guard = guard
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self, name: str, make: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        """Run something from now on; return what can be ended by itself."""

        async def keep() -> None:
            while True:
                await self._guard(name, make())
                await asyncio.sleep(_AGAIN_SECONDS)

        task = asyncio.create_task(keep(), name=name)
        self._tasks.append(task)
        return task

    async def end(self, *, but: Collection[str] = ()) -> None:
        """End all, but those that are named."""
        await end([task for task in self._tasks if task.get_name() not in but])
