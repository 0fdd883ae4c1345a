"""The way of an admitted request to the engine, which takes the venue's time; both fronts send by it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from feature_store import clock as wall
from infra.sandbox.arrivals import Reply

if TYPE_CHECKING:
    from infra.sandbox.server import Sandbox

_SHORTEST_S = 0.001


def send(
    sandbox: Sandbox,
    method: str,
    path: str,
    values: dict[str, str],
    *,
    delay_ms: int,
    answered: Callable[[Reply], None] = lambda _: None,
) -> None:
    """Let an admitted request reach the engine after milliseconds of the venue; `answered` is told what came of it."""
    loop = asyncio.get_running_loop()
    due_ms, end_ms = sandbox.advance() + delay_ms, sandbox.venue.market.end_ms
    if end_ms is not None:
        # Where a recording ends, time does; what would arrive later finds the market closed.
        due_ms = min(due_ms, end_ms)
    arrived = False

    def told(reply: Reply) -> None:
        nonlocal arrived
        arrived = True
        answered(reply)

    sandbox.venue.arrivals.send(
        method, path, values, due_ms=due_ms, legacy_conditionals=sandbox.legacy_conditionals, answered=told
    )

    def arrive() -> None:
        # Time moves on with each tick; a request may arrive between two of them.
        sandbox.advance()
        wait_on()

    def wait_on() -> None:
        # A loop may call a little too early; time that stands still is waited for by the ticks.
        if not arrived and sandbox.clock.held_since is None:
            seconds = sandbox.clock.seconds_until(due_ms + 1, wall.monotonic())
            loop.call_later(max(seconds, _SHORTEST_S), arrive)

    wait_on()


async def carried(sandbox: Sandbox, method: str, path: str, values: dict[str, str], *, delay_ms: int) -> Reply:
    """Send an admitted request and return what came of it."""
    coming: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    def answered(reply: Reply) -> None:
        if not coming.done():
            coming.set_result(reply)

    send(sandbox, method, path, values, delay_ms=delay_ms, answered=answered)
    return await coming
