"""How often a model that is not poor is shrunk, stopped, left or called biased, and how soon one that became so."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from statistics import median

import numpy as np
from scipy.stats import beta, binom

from inference.domain.fallback import Fallback
from inference.supervision.fallback import SHRINK_AT, STOP_AT, fallback_of
from inference.supervision.prediction_quality import MaturedCandle
from inference.supervision.quality_evidence import LIMIT, QualityEvidence
from infra.prove import supervision_bias
from infra.prove.proof import Proof, Size

RUNS = {Size.FULL: 1000, Size.CI: 200}
OUTCOMES = {Size.FULL: 1000, Size.CI: 400}
"""Independent outcomes of one life: one in each horizon, so that 1,000 of an hour are six weeks."""
CHANGED_AFTER = 200
CONFIDENCE = 0.95
LEAST_FOUND = 0.9
STEPS = (Fallback.SHRINK, Fallback.STOP, Fallback.BACK)
STATED: Mapping[Fallback, float] = {
    Fallback.SHRINK: 1 / SHRINK_AT,
    Fallback.STOP: 1 / STOP_AT,
    Fallback.BACK: 1 / LIMIT,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """How often a model is right, how sure it says it is, and how far its symbols move as one (0 to 1)."""

    right: float
    stated: float
    together: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """A model, what it becomes after `CHANGED_AFTER` outcomes, if anything, and how often it promised to be right."""

    name: str
    before: Model
    after: Model | None = None
    promised: float | None = None


UNCHANGED = (
    Life(name="a coin that says so", before=Model(right=0.5, stated=0.5)),
    Life(name="right as often as it says", before=Model(right=0.54, stated=0.54)),
    Life(name="the same, of one symbol", before=Model(right=0.54, stated=0.54, together=1.0)),
    # Right halfway between a coin and the promise: exactly as good as it has to be.
    Life(name="right halfway to what it promised", before=Model(right=0.54, stated=0.54), promised=0.58),
    Life(name="a coin that promised next to nothing", before=Model(right=0.5, stated=0.5), promised=0.5 + 1e-9),
    Life(name="better than it says", before=Model(right=0.58, stated=0.54, together=0.0)),
)
CHANGED = (
    Life(
        name="an edge that turned around (58 % to 42 %)",
        before=Model(right=0.58, stated=0.58),
        after=Model(right=0.42, stated=0.58),
    ),
    Life(name="a coin that says 70 %", before=Model(right=0.6, stated=0.6), after=Model(right=0.5, stated=0.7)),
    Life(
        name="a promise of 72 % that became a coin and says so",
        before=Model(right=0.72, stated=0.6),
        after=Model(right=0.5, stated=0.5),
        promised=0.72,
    ),
)
"""Changes that have to be found."""
SHOWN = (
    Life(
        name="58 % promised, 51 % kept, 51 % said",
        before=Model(right=0.58, stated=0.54),
        after=Model(right=0.51, stated=0.51),
        promised=0.58,
    ),
    Life(name="right in 45 %", before=Model(right=0.55, stated=0.55), after=Model(right=0.45, stated=0.55)),
    Life(name="a coin that says 60 %", before=Model(right=0.6, stated=0.6), after=Model(right=0.5, stated=0.6)),
    Life(name="a coin that says 55 %", before=Model(right=0.55, stated=0.55), after=Model(right=0.5, stated=0.55)),
)
"""Lesser ones; how often they are found is told."""
_SYMBOLS = 8


def live(life: Life, outcomes: int, seed: int) -> dict[Fallback, int]:
    """Return after how many outcomes each step was first asked for, in one life."""
    rng = np.random.default_rng(seed)
    evidence, first = QualityEvidence().held_to(life.promised), {}
    for place in range(outcomes):
        model = life.before if life.after is None or place < CHANGED_AFTER else life.after
        evidence = evidence.after(_outcome(rng, model, place))
        asked = fallback_of(evidence)
        if asked is not Fallback.NONE:
            # Whoever asks for a stricter step has asked for those before it.
            for step in STEPS[: STEPS.index(asked) + 1]:
                first.setdefault(step, place + 1)
        if asked is Fallback.BACK:
            break
    return first


def _outcome(rng: np.random.Generator, model: Model, place: int) -> MaturedCandle:
    as_one = rng.random() < model.together
    draws = np.full(_SYMBOLS, rng.random()) if as_one else rng.random(_SYMBOLS)
    right = draws < model.right
    said_up = rng.random(_SYMBOLS) < 0.5
    brier = float(np.mean((model.stated - right) ** 2))
    return MaturedCandle(
        model_version="1",
        said_ms=place,
        due_ms=place + 1,
        right=float(right.mean()),
        stated=model.stated,
        brier=brier,
        rose=float((right == said_up).mean()),
    )


def prove(size: Size) -> Proof:
    """Live many lives of each kind, each with a seed of its own."""
    runs, outcomes = RUNS[size], OUTCOMES[size]
    with ProcessPoolExecutor(os.cpu_count() or 1, mp_context=get_context("spawn")) as pool:

        def every(life: Life, number: int) -> list[dict[Fallback, int]]:
            seeds = range(100_000 * number, 100_000 * number + runs)
            many = outcomes if life.after is None else outcomes + CHANGED_AFTER
            return list(pool.map(partial(live, life, many), seeds, chunksize=16))

        quiet = {life.name: every(life, number) for number, life in enumerate(UNCHANGED)}
        changed = {life.name: every(life, 50 + number) for number, life in enumerate((*CHANGED, *SHOWN))}
        leans = supervision_bias.lived(pool, runs)
    quality, bias = judged(quiet, changed, outcomes), supervision_bias.judged(leans)
    return replace(
        quality,
        figure=f"{quality.figure}; {bias.figure}",
        bar=f"{quality.bar}; {bias.bar}",
        holds=quality.holds and bias.holds,
        details=(*quality.details, *bias.details),
    )


Lives = Mapping[str, Sequence[Mapping[Fallback, int]]]


def judged(quiet: Lives, changed: Lives, outcomes: int) -> Proof:
    """Hold the worst kind's counts against the stated rates, and the changes against the least share found."""
    runs = len(next(iter(quiet.values())))
    details: list[str] = []
    counts = {step: {name: sum(step in one for one in lives) for name, lives in quiet.items()} for step in STEPS}
    # The stated rate is a bound for each kind: as many are borne as 5 % of trials exceed where it is met exactly.
    bounds = {step: int(binom.ppf(CONFIDENCE ** (1 / len(quiet)), runs, STATED[step])) for step in STEPS}
    for step in STEPS:
        details += [
            f"{step}: {count} of {runs} ({name}), stated {STATED[step]:.1%}, at most {bounds[step]}, upper limit "
            f"{_upper(count, runs):.2%}"
            for name, count in counts[step].items()
        ]
    required = {life.name for life in CHANGED}
    missed = []
    for name, lives in changed.items():
        since = {
            step: [one[step] - CHANGED_AFTER for one in lives if one.get(step, 0) > CHANGED_AFTER] for step in STEPS
        }
        eligible = [one for one in lives if not 0 < one.get(Fallback.BACK, 0) <= CHANGED_AFTER]
        found = len(since[Fallback.BACK]) / len(eligible) if eligible else 0.0
        if name in required and found < LEAST_FOUND:
            missed.append(name)
        delays = ", ".join(f"{step} {median(since[step]):.0f}" for step in STEPS if since[step])
        details.append(f"{name}: left in {found:.1%} within {outcomes} outcomes; median outcomes until {delays}")
    worst = {step: max(counts[step].values()) for step in STEPS}
    within = all(worst[step] <= bounds[step] for step in STEPS)
    soonest = [median(_delays(changed[name], Fallback.BACK)) for name in required if name not in missed]
    return Proof(
        name="supervision",
        figure=(
            f"of {runs} lives of {outcomes} outcomes at most {worst[Fallback.SHRINK]} shrunk, {worst[Fallback.STOP]} "
            f"stopped, {worst[Fallback.BACK]} left where nothing was wrong; {len(required) - len(missed)} of "
            f"{len(required)} changes found, in the median after {min(soonest, default=0):.0f} to "
            f"{max(soonest, default=0):.0f} outcomes"
        ),
        bar=(
            f"<= {bounds[Fallback.SHRINK]}, {bounds[Fallback.STOP]} and {bounds[Fallback.BACK]}, what the stated 10 %, "
            f"3.3 % and 1 % allow; each change found in >= {LEAST_FOUND:.0%}"
        ),
        holds=within and not missed,
        details=tuple(details),
    )


def _delays(lives: Sequence[Mapping[Fallback, int]], step: Fallback) -> list[int]:
    """Return after how many outcomes since the change a step was asked for, of those that had not asked before."""
    return [one[step] - CHANGED_AFTER for one in lives if one.get(step, 0) > CHANGED_AFTER]


def _upper(count: int, runs: int) -> float:
    """Return the one-sided 95 % upper limit of a rate (Clopper and Pearson)."""
    return 1.0 if count >= runs else float(beta.ppf(CONFIDENCE, count + 1, runs - count))
