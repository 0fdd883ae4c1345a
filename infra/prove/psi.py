"""The population stability index of many columns: ours, as the drift flow computes it, beside Evidently's."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from infra.prove.drifting import DRIFTS, NAMES, RUNS
from infra.prove.proof import Proof, Size
from infra.prove.stage import ROOT, ProofError

ROWS = {Size.FULL: 500_000, Size.CI: 50_000}
MAX_RATIO = 0.025
# The same counts in the same bins; what is left is the order in which 21 terms are added.
MAX_APART = 1e-9
THRESHOLD = 0.1


@dataclass(frozen=True, slots=True)
class Side:
    """What one program found: an index for each column, the seconds it took, and its memory."""

    indexes: dict[str, float]
    seconds: float
    peak_mb: float


def prove(size: Size) -> Proof:
    """Run the three on the same columns, one after the other, each in a process of its own."""
    rows = ROWS[size]
    return judged(*(_run(side, rows) for side in ("evidently", "equal-width", "equal-share")), rows=rows)


def judged(evidently: Side, equal_width: Side, equal_share: Side, *, rows: int) -> Proof:
    """Hold ours against Evidently: as quick as the bar says, and of one opinion on every column."""
    wrong = [name for name in NAMES if verdict(equal_width, name) != verdict(evidently, name)]
    wrong += [name for name in NAMES if verdict(equal_share, name) != verdict(evidently, name)]
    untrue = [name for name in NAMES if verdict(evidently, name) != DRIFTS[name]]
    apart = max(abs(evidently.indexes[name] - equal_width.indexes[name]) for name in NAMES)
    slower = max(equal_width.seconds, equal_share.seconds)
    ratio = slower / evidently.seconds
    agree = not wrong and not untrue and apart <= MAX_APART
    said = f"{len(wrong)} verdicts differ" + (f" ({', '.join(wrong[:5])})" if wrong else "")
    drifted = sum(DRIFTS.values())
    runs = f"Evidently ran {RUNS['evidently']} time, ours {RUNS['equal-width']} and {RUNS['equal-share']} times"
    return Proof(
        name="psi",
        figure=f"{len(NAMES)} columns x {rows:,} rows on both sides: {ratio:.4f}x the time of Evidently, {said}",
        bar=f"<= {MAX_RATIO:g}x, same verdicts",
        holds=agree and ratio <= MAX_RATIO,
        is_speed=agree,
        details=(
            _cost("Evidently 0.7.23, DataDriftPreset(method='psi')", evidently),
            _cost("ours over Evidently's bins of equal width", equal_width) + f", indexes {apart:.1g} apart at most",
            _cost("ours over bins of equal shares, as drift has it", equal_share)
            + f", {_span(equal_share, evidently)}",
            f"{drifted} columns drift by construction, {len(DRIFTS) - drifted} do not; Evidently errs on {len(untrue)}",
            _drawn(evidently),
            f"each in a process of its own: {runs}; the median of each counts",
        ),
    )


def _drawn(evidently: Side) -> str:
    """Say how far from the threshold columns were drawn."""
    below = max(evidently.indexes[name] for name in NAMES if not DRIFTS[name])
    above = min(evidently.indexes[name] for name in NAMES if DRIFTS[name])
    return (
        f"drawn clear of the threshold of {THRESHOLD:g}: shifted by 0 to 0.1 standard deviations (Evidently's index "
        f"{below:.3f} at most), or by 0.5 to 1 and 1.5 times as wide ({above:.3f} at least); none lies between, where "
        "two ways to cut bins may differ"
    )


def _cost(what: str, side: Side) -> str:
    return f"{what}: {side.seconds:.2f} s, {side.peak_mb:.0f} MB"


def verdict(side: Side, name: str) -> bool:
    """Tell whether a column counts as drifted: from Evidently's own threshold on."""
    return side.indexes[name] >= THRESHOLD


def _span(ours: Side, theirs: Side) -> str:
    drifted = [ours.indexes[name] / theirs.indexes[name] for name in NAMES if verdict(theirs, name)]
    return f"indexes {min(drifted):.2f} to {max(drifted):.2f} times Evidently's where it drifts" if drifted else "-"


def _run(side: str, rows: int) -> Side:
    done = subprocess.run(
        [sys.executable, "-m", "infra.prove.drifting", side, str(rows)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    if done.returncode != 0:
        raise ProofError(f"{side} failed: {done.stderr[-1500:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return Side(**found)
