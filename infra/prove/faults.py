"""Every fault that is known to happen at a venue, alone and in pairs, against the real executor and the real client."""

from __future__ import annotations

import asyncio
import logging
import random
import shutil
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from feature_store.clock import monotonic
from infra.prove.fault_rows import ROWS
from infra.prove.fault_story import Row, live
from infra.prove.own_venue import own_venue
from infra.prove.proof import Proof, Size
from infra.prove.stage import Stage

BOUND_S = 6.0
"""How long a position may be without a stop: five seconds for a stop, and one to leave."""
PAIRS_CI = 24
_SEED = 11
_AT_ONCE = 8
_ENDS_S = 150.0


def prove(size: Size) -> Proof:
    """Trade once for each fault and for each pair of them; say what was not as it must be."""
    began = monotonic()
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    with Stage("faults") as stage:
        cases = [(row,) for row in ROWS] + pairs(size)
        journals = stage.home / "journals"
        shutil.rmtree(journals, ignore_errors=True)
        for number in range(len(cases)):
            (journals / str(number)).mkdir(parents=True)
        found = asyncio.run(_run(cases, journals))
    wrong = [f"{_name(rows)}: {text}" for rows, ending in found for text in ending.wrong]
    naked = {_name(rows): ending.naked_s for rows, ending in found}
    wrong += [f"{name}: {seconds:.1f} s without a stop" for name, seconds in naked.items() if seconds > BOUND_S]
    alone = [(rows[0], ending) for rows, ending in found if len(rows) == 1]
    numbers = {row.number for row, _ in alone}
    failed = {one.split(":", 1)[0] for one in wrong}
    return Proof(
        name="faults",
        figure=f"{len(numbers)} rows in {len(alone)} forms, {len(found) - len(alone)} pairs: {len(failed)} without "
        f"the stated reaction, longest without a stop {max(naked.values()):.1f} s, longest recovery "
        f"{max(ending.recovered_s for _, ending in found):.1f} s",
        bar=f"23 rows, {'all pairs' if size is Size.FULL else f'{PAIRS_CI} pairs'}; 0, <= {BOUND_S:g} s",
        holds=not wrong and numbers == set(range(1, 24)),
        details=(
            f"{len(found)} trades on as many venues in {monotonic() - began:.0f} s; time to recover of each:",
            *(f"{row.number:>2} {row.name:<24} {ending.recovered_s:5.1f} s" for row, ending in alone),
            *wrong[:60],
        ),
    )


def pairs(size: Size) -> list[tuple[Row, ...]]:
    """Return every pair of rows, each in a form drawn by a fixed seed; in CI a drawn few of them."""
    rng = random.Random(_SEED)
    forms = {number: [row for row in ROWS if row.number == number] for number in {row.number for row in ROWS}}
    every = [(rng.choice(forms[one]), rng.choice(forms[two])) for one, two in combinations(sorted(forms), 2)]
    return list(every) if size is Size.FULL else list(rng.sample(every, PAIRS_CI))


@dataclass(frozen=True, slots=True)
class _Ending:
    """What is left of a story once it was told."""

    wrong: tuple[str, ...]
    naked_s: float = 0.0
    recovered_s: float = 0.0


async def _run(cases: list[tuple[Row, ...]], folder: Path) -> list[tuple[tuple[Row, ...], _Ending]]:
    room = asyncio.Semaphore(_AT_ONCE)

    async def one(number: int, rows: tuple[Row, ...]) -> _Ending:
        try:
            async with room, own_venue() as venue, asyncio.timeout(_ENDS_S):
                story = await live(rows, venue, folder / str(number) / "journal.jsonl")
        except Exception as error:  # noqa: BLE001 - one that breaks off has failed, and must not hide the others.
            return _Ending((f"broke off: {type(error).__name__}: {error}"[:300],))
        return _Ending(tuple(story.wrong), story.notes.get("naked_s", 0.0), story.recovered_s)

    stories = await asyncio.gather(*(one(number, rows) for number, rows in enumerate(cases)))
    return list(zip(cases, stories, strict=True))


def _name(rows: tuple[Row, ...]) -> str:
    return " + ".join(f"{row.number} {row.name}" for row in rows)
