"""Markets in which nothing can be found: how often the gates promote a candidate of one, and at most how often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from infra.prove.gate_campaign import campaign
from infra.prove.gate_markets import has_recorded
from infra.prove.gate_records import RAN, restore, run_again
from infra.prove.gate_trials import EVERYONE, TREES, Outcome, Trial, upper_limit
from infra.prove.proof import Proof, Size
from infra.prove.recorded_markets import FOLDER_VARIABLE

# Seeds, and how many of them are trained with all four members. Even seeds are synthetic markets without an edge, odd
# ones recorded candles with their hours shuffled, where there are some.
SEEDS = {Size.FULL: range(50_000, 50_200), Size.CI: range(50_000, 50_003)}
DEEP = {Size.FULL: 20, Size.CI: 0}
MAX_RATE = 0.05
# How many of the outcomes that the repository keeps are run again.
AGAIN = 2


def prove(size: Size) -> Proof:
    """Take one candidate of each seed through training, shadow and gates; what was done already is not done again."""
    whole = size is Size.FULL
    laid = restore() if whole else frozenset()
    tried = trials(size)
    outcomes = campaign(tried, RAN)
    again = run_again(tried, laid, AGAIN)
    promoted = [one for one in outcomes if one.promoted]
    limit = upper_limit(len(promoted), len(outcomes))
    both = {one.trial.market for one in outcomes} == {"synthetic", "shuffled"}
    return Proof(
        name="null-gate",
        figure=f"{len(promoted)} of {len(outcomes)} promoted, a rate of at most {limit:.3f} (95 %, one-sided)",
        bar=f"at most {MAX_RATE:g}, on synthetic markets and on recorded ones"
        if whole
        else "none (too few to bound a rate by)",
        holds=((limit <= MAX_RATE and both) if whole else not promoted) and not again.different,
        details=(*_told(outcomes), *(f"promoted: {one.trial}" for one in promoted), *again.told(len(laid))),
    )


def trials(size: Size) -> list[Trial]:
    """Return the trials of a size, as this machine can run them."""
    recorded = has_recorded()
    return [
        Trial(
            market="shuffled" if recorded and seed % 2 else "synthetic",
            seed=seed,
            members=EVERYONE if place < DEEP[size] else TREES,
        )
        for place, seed in enumerate(SEEDS[size])
    ]


def _told(outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    shuffled = sum(one.trial.market == "shuffled" for one in outcomes)
    deep = sum(len(one.trial.members) > 2 for one in outcomes)
    lines = [
        f"{len(outcomes) - shuffled} synthetic markets with edge 0, {shuffled} of recorded candles, shuffled"
        + ("" if shuffled else f" ({FOLDER_VARIABLE} names no folder with any)"),
        f"{deep} candidates of four members, {len(outcomes) - deep} of trees",
    ]
    refusals = Counter(name for one in outcomes for name in one.refusals)
    if refusals:
        lines.append("refused by: " + ", ".join(f"{name} {count}" for name, count in refusals.most_common(8)))
    failed = [one.failed for one in outcomes if one.failed]
    lines += [f"{len(failed)} trainings ended themselves, the first: {failed[0]}"] if failed else []
    return (*lines, f"{sum(one.seconds for one in outcomes):.0f} s of processes")
