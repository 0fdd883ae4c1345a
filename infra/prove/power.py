"""Markets with an edge of five strengths: how often the gates promote, and how much of what there is is earned."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np

from infra.prove.gate_campaign import campaign
from infra.prove.gate_records import RAN, restore, run_again
from infra.prove.gate_trials import EVERYONE, ROOT, TREES, Outcome, Trial, lower_limit, upper_limit
from infra.prove.proof import Proof, Size
from infra.sandbox.market.equations import DEFAULT_EDGE

mpl.use("Agg")
import matplotlib.pyplot as plt

EDGES = {Size.FULL: (0.15, 0.25, 0.35, DEFAULT_EDGE, 0.55), Size.CI: (DEFAULT_EDGE,)}
SEEDS = {Size.FULL: range(60_000, 60_040), Size.CI: range(60_000, 60_002)}
# How many seeds of the default strength are trained with all four members besides.
DEEP = {Size.FULL: 8, Size.CI: 0}
ORACLE = (2.0, 3.0)
"""Between which the oracle's Sharpe ratio a day has to lie, for the default strength to be what is claimed."""
MIN_PROMOTED = 0.8
MIN_SHARE = 0.8
# How many of the outcomes that the repository keeps are run again.
AGAIN = 2


def prove(size: Size) -> Proof:
    """Take one candidate of each edge and seed through training, shadow and gates; publish the curve."""
    trials = [Trial(market="synthetic", edge=edge, seed=seed) for edge in EDGES[size] for seed in SEEDS[size]]
    everyone = [
        Trial(market="synthetic", edge=DEFAULT_EDGE, seed=seed, members=EVERYONE) for seed in SEEDS[size][: DEEP[size]]
    ]
    whole = size is Size.FULL
    laid = restore() if whole else frozenset()
    outcomes = campaign([*trials, *everyone], RAN)
    again = run_again(trials, laid, AGAIN)
    outcomes, deep = outcomes[: len(trials)], outcomes[len(trials) :]
    points = {edge: [one for one in outcomes if one.trial.edge == edge] for edge in EDGES[size]}
    at_default = points[DEFAULT_EDGE]
    rate = float(np.mean([one.promoted for one in at_default]))
    share = share_of_oracle(at_default)
    oracle = float(np.mean([one.oracle_sharpe for one in at_default]))
    page = _publish(points, ROOT / "var-prove" / f"power-{size}")
    return Proof(
        name="power",
        figure=f"at edge {DEFAULT_EDGE:g} {rate:.0%} of {len(at_default)} promoted, the ensemble's Sharpe is"
        f" {share:.0%} of the oracle's ({oracle:.1f} a day)",
        bar=f">= {MIN_PROMOTED:.0%} promoted, >= {MIN_SHARE:.0%} of the oracle's {ORACLE[0]:g} to {ORACLE[1]:g}"
        if whole
        else "one promoted at least; five days of two seeds say nothing of the share",
        holds=(
            (rate >= MIN_PROMOTED and share >= MIN_SHARE and ORACLE[0] <= oracle <= ORACLE[1]) if whole else rate > 0
        )
        and not again.different,
        details=(
            *(_line(edge, found) for edge, found in points.items()),
            f"members: {', '.join(TREES)}",
            *([f"with {', '.join(EVERYONE)}: {_line(DEFAULT_EDGE, deep)}"] if deep else []),
            f"curve: {page}",
            *again.told(len(laid)),
        ),
    )


def share_of_oracle(outcomes: Sequence[Outcome]) -> float:
    """
    Return the ensemble's Sharpe ratio as a share of the oracle's, each the mean over all seeds.

    A ratio of means: of five days each, single ratios are mostly noise.
    """
    oracle = float(np.mean([one.oracle_sharpe for one in outcomes]))
    ours = float(np.mean([one.sharpe for one in outcomes if not one.failed] or [0.0]))
    return ours / oracle if oracle > 0 else 0.0


def _line(edge: float, found: Sequence[Outcome]) -> str:
    promoted = sum(one.promoted for one in found)
    low, high = lower_limit(promoted, len(found), 0.975), upper_limit(promoted, len(found), 0.975)
    nets = np.array([[one.net, one.oracle_net] for one in found]).mean(axis=0)
    return (
        f"edge {edge:g}: {promoted} of {len(found)} promoted [{low:.2f}, {high:.2f}], net {nets[0]:.2f} of the oracle's"
        f" {nets[1]:.2f}, Sharpe a day {np.mean([one.sharpe for one in found]):.2f} of"
        f" {np.mean([one.oracle_sharpe for one in found]):.2f}"
    )


def _publish(points: dict[float, list[Outcome]], folder: Path) -> Path:
    """Write the power curve as a picture and a table; return the picture's path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "power.md").write_text("\n".join(f"- {_line(edge, found)}" for edge, found in points.items()) + "\n")
    edges = list(points)
    counts = [(sum(one.promoted for one in found), len(found)) for found in points.values()]
    rates = np.array([k / n for k, n in counts])
    bands = np.array([[lower_limit(k, n, 0.975), upper_limit(k, n, 0.975)] for k, n in counts]).T
    figure, axes = plt.subplots(figsize=(7, 4))
    axes.errorbar(edges, rates, yerr=np.abs(bands - rates), marker="o", capsize=3, label="promoted, 95 % interval")
    axes.plot(edges, [share_of_oracle(found) for found in points.values()], "s--", label="Sharpe, share of oracle's")
    axes.axhline(MIN_PROMOTED, color="grey", linewidth=0.8)
    axes.set(xlabel="edge of the market", ylabel="share", ylim=(-0.05, 1.05), title="What the gates let through")
    axes.legend()
    figure.tight_layout()
    path = folder / "power.png"
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
