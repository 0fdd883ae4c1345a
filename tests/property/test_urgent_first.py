"""Whoever waits gets a turn, one at a time, the urgent first, whatever is cancelled meanwhile."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from inference.exchange.urgent_first import Hurry, UrgentFirst

WAITING = st.lists(st.tuples(st.sampled_from(Hurry), st.booleans()), max_size=12)


@given(WAITING)
def test_each_has_its_turn_in_order_of_hurry(waiting):
    """All but those that gave up are served alone, exits before entries before questions, equals as they came."""
    served = asyncio.run(play(waiting))
    stayed = [(hurry, number) for number, (hurry, gives_up) in enumerate(waiting) if not gives_up]
    assert served == sorted(stayed)


async def play(waiting):
    """Let all come while somebody has the turn, some give up, then look in which order the others are served."""
    lock, served, inside = UrgentFirst(), [], 0

    async def one(hurry, number):
        nonlocal inside
        async with lock.turn(hurry):
            inside += 1
            assert inside == 1
            await asyncio.sleep(0)
            served.append((hurry, number))
            inside -= 1

    async with lock.turn(Hurry.QUESTION):
        tasks = []
        for number, (hurry, _) in enumerate(waiting):
            tasks.append(asyncio.create_task(one(hurry, number)))
            await asyncio.sleep(0)
        for task, (_, gives_up) in zip(tasks, waiting, strict=True):
            if gives_up:
                task.cancel()
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await asyncio.gather(*tasks, return_exceptions=True)
        # Nobody is left with the turn.
        async with lock.turn(Hurry.QUESTION):
            pass
    return served


def test_one_that_gives_up_when_it_is_called_passes_its_turn_on():
    """A cancellation that meets the call leaves nobody waiting for ever."""

    async def story():
        lock, served = UrgentFirst(), []

        async def one(name):
            async with lock.turn(Hurry.EXIT):
                served.append(name)

        async with lock.turn(Hurry.QUESTION):
            first, second = asyncio.create_task(one("first")), asyncio.create_task(one("second"))
            await asyncio.sleep(0)
        # It was called by the end of the block, and has not run yet.
        first.cancel()
        async with asyncio.timeout(5):
            await second
        return served

    assert asyncio.run(story()) == ["second"]
