"""The emergency stop under every fault of a venue, by the real worker: halted within two seconds, and kept."""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path

from feature_store.clock import monotonic
from infra.prove.emergency_case import BOUND_S, POLICY, Ending, flatten_under
from infra.prove.emergency_faults import Fault, chosen
from infra.prove.practice_bundle import practice_bundle
from infra.prove.proof import Proof, Size
from infra.prove.stage import Stage

_AT_ONCE = 2
_ENDS_S = 420.0


def prove(size: Size) -> Proof:
    """Stop a worker of its own under each fault; say where it was late, entered, or did not get there."""
    began = monotonic()
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    faults = chosen(every_form=size is Size.FULL)
    with Stage("emergency") as stage:
        bundle = practice_bundle(stage.home / "bundle")
        policy = stage.home / "policy.toml"
        policy.write_text(POLICY)
        found = asyncio.run(_run(faults, bundle, policy))
    wrong = [f"{_name(fault)}: {text}" for fault, ending in found for text in ending.wrong]
    for fault, ending in found:
        if ending.halted_s > BOUND_S:
            wrong.append(f"{_name(fault)}: halted after {ending.halted_s:.2f} s")
        if ending.acted_s > BOUND_S:
            wrong.append(f"{_name(fault)}: first action at the venue after {ending.acted_s:.2f} s")
    failed = {one.split(":", 1)[0] for one in wrong}
    numbers = {fault.number for fault, _ in found}
    killed = sum(fault.kills for fault, _ in found) + len(found)
    return Proof(
        name="emergency",
        figure=f"{len(numbers)} rows in {len(found)} forms: {len(failed)} not as they must be; halted within "
        f"{max(ending.halted_s for _, ending in found):.2f} s, first action at the venue within "
        f"{max(ending.acted_s for _, ending in found):.2f} s, all done {max(e.confirmed_s for _, e in found):.1f} s "
        f"after the fault at the latest; {killed} kills survived",
        bar=f"23 rows; <= {BOUND_S:g} s, <= {BOUND_S:g} s, no entry afterwards, done, still halted after kill -9",
        holds=not wrong and numbers == set(range(1, 24)),
        details=(
            f"{len(found)} workers in {monotonic() - began:.0f} s; a wait that a venue asks for is not counted:",
            *(
                f"{fault.number:>2} {fault.name:<22} {ending.positions} open, halted {ending.halted_s:5.2f} s, "
                f"acted {ending.acted_s:5.2f} s, done {ending.confirmed_s:5.1f} s after the fault"
                for fault, ending in found
            ),
            *wrong[:40],
        ),
    )


async def _run(faults: tuple[Fault, ...], bundle: Path, policy: Path) -> list[tuple[Fault, Ending]]:
    room = asyncio.Semaphore(_AT_ONCE)

    async def one(place: int, fault: Fault) -> Ending:
        stage = Stage(f"emergency/{place:02}-{fault.name}")
        shutil.rmtree(stage.home, ignore_errors=True)
        stage.home.mkdir(parents=True)
        try:
            async with room, asyncio.timeout(_ENDS_S):
                return await flatten_under(fault, stage, bundle, str(policy))
        except Exception as error:  # noqa: BLE001 - one that breaks off has failed, and must not hide the others.
            return Ending(wrong=[f"broke off: {type(error).__name__}: {error}"[:300]])

    endings = await asyncio.gather(*(one(place, fault) for place, fault in enumerate(faults)))
    return list(zip(faults, endings, strict=True))


def _name(fault: Fault) -> str:
    return f"{fault.number} {fault.name}"
