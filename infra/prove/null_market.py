"""A market in which nothing can be found: nothing may be promoted, and the worker says that it idles."""

from __future__ import annotations

from infra.prove.demonstration import Played, play
from infra.prove.proof import Proof, Size

SEEDS = {Size.FULL: (11, 12, 13), Size.CI: (11,)}


def _refused_and_idle(played: Played) -> bool:
    return (
        played.status == 3
        and not played.report.get("champion_version")
        and bool(played.report.get("gate_reasons"))
        and played.worker.get("state") == "idle"
        and bool(played.worker.get("reason"))
    )


def prove(size: Size) -> Proof:
    """Play it with `--edge 0` once per seed; CI has time for one seed."""
    seeds = SEEDS[size]
    played = {seed: play(f"null-market-{seed}", "--edge", "0", "--seed", str(seed)) for seed in seeds}
    refused = sum(_refused_and_idle(one) for one in played.values())
    details = tuple(f"seed {seed}: {line}" for seed, one in played.items() for line in one.story)
    return Proof(
        name="null-market",
        figure=f"{refused} of {len(seeds)} seeds refused, with an idle worker that says why",
        bar=f"{len(seeds)} of {len(seeds)}",
        holds=refused == len(seeds),
        details=details,
    )
