"""A process from its start to its end: begun, kept until somebody asks it to stop, and wound down whatever happened."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Collection
from contextlib import AsyncExitStack
from typing import Protocol


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
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return


async def end(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait until each has ended, however it ends."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
