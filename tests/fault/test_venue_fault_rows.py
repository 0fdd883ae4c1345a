"""Each row of faults that venues are known to throw, once, against the real executor and client."""

from __future__ import annotations

import asyncio

import pytest

from infra.prove.fault_rows import ROWS
from infra.prove.fault_story import live
from infra.prove.faults import BOUND_S
from infra.prove.own_venue import own_venue

NUMBERS = sorted({row.number for row in ROWS})
FIRST = {number: next(row for row in ROWS if row.number == number) for number in NUMBERS}


@pytest.fixture(scope="module")
def endings(tmp_path_factory):
    """Return how each row's first form ended; all of them run at once, each on a venue of its own."""

    async def one(number, room):
        folder = tmp_path_factory.mktemp(f"row{number}")
        async with room, own_venue() as venue, asyncio.timeout(120):
            return await live((FIRST[number],), venue, folder / "journal.jsonl")

    async def every():
        room = asyncio.Semaphore(8)
        return await asyncio.gather(*(one(number, room) for number in NUMBERS))

    return dict(zip(NUMBERS, asyncio.run(every()), strict=True))


def test_there_is_a_form_of_every_row():
    """The table has 23 rows, and each can be brought about."""
    assert list(range(1, 24)) == NUMBERS


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: f"{number}-{FIRST[number].name}")
def test_a_fault_meets_its_stated_reaction(endings, number):
    """Belief is the venue's, nothing executed twice, nothing long without a stop, and the reaction is seen."""
    story = endings[number]

    assert story.wrong == []
    assert story.notes["naked_s"] <= BOUND_S
    assert story.venue.audit()["duplicate_client_ids"] == []
