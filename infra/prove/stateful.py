"""The executor and the matching engine under random faults, by hypothesis: every invariant at each step."""

from __future__ import annotations

import multiprocessing
import traceback
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from feature_store.clock import monotonic
from infra.prove.proof import Proof, Size
from infra.prove.stateful_machine import Trading

STEPS = {Size.FULL: 400_000, Size.CI: 20_000}
_PROCESSES = 2
# Each at least once in so many steps.
_TRIED = {"orders executed": 100, "orders filled in part": 1_000, "faults met": 100, "processes killed": 100}
_STEPS_EACH, _EXAMPLES = 50, 60


def prove(size: Size) -> Proof:
    """Run as many histories as the steps take, in two processes, each history of its own seed."""
    began = monotonic()
    steps, seen, failures = 0, Counter[str](), list[str]()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(_PROCESSES, mp_context=context) as pool:
        for made, what, failure in pool.map(_run, range(_PROCESSES), [STEPS[size] // _PROCESSES] * _PROCESSES):
            steps += made
            seen += Counter(what)
            failures += [failure] if failure else []
    seconds = monotonic() - began
    return Proof(
        name="stateful",
        figure=f"{steps} steps: {len(failures)} broken invariants ({seen['orders executed']} orders executed, "
        f"{seen['orders filled in part']} in part, {seen['faults met']} faults met, {seen['processes killed']} "
        "processes killed or restarted)",
        bar=f">= {STEPS[size]} steps, 0",
        # Where next to nothing was executed or went wrong, nothing was tried.
        holds=steps >= STEPS[size] and not failures and not untried(steps, seen),
        details=(
            f"{seen['trades']} trades, {steps / seconds:.0f} steps a second",
            *(f"too few {what}" for what in untried(steps, seen)),
            *failures,
        ),
    )


def untried(steps: int, seen: Mapping[str, int]) -> list[str]:
    """Return what happened too seldom in so many steps for them to have proved anything of it."""
    return [what for what, often in _TRIED.items() if seen.get(what, 0) * often < steps]


def _run(process: int, wanted: int) -> tuple[int, dict[str, int], str]:
    """Run histories until enough steps are made; return how many, what happened in them, and what broke."""
    kept = settings(
        max_examples=_EXAMPLES,
        stateful_step_count=_STEPS_EACH,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    turn = 0
    while Trading.steps < wanted:
        # Of the same seed the same histories: what fails here fails everywhere.
        machine = seed(turn * _PROCESSES + process)(type("Trading", (Trading,), {}))
        try:
            run_state_machine_as_test(machine, settings=kept)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what the proof is for
            at = traceback.extract_tb(error.__traceback__)[-1]
            notes = "\n".join(getattr(error, "__notes__", []))
            broken = f"{type(error).__name__}: {error or at.line} ({at.filename}:{at.lineno})\n{notes}"
            return Trading.steps, dict(Trading.seen), broken
        turn += 1
    return Trading.steps, dict(Trading.seen), ""
