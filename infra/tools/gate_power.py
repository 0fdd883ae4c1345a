"""How often the gates let a candidate through: whole trainings on synthetic markets of many seeds."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from flows.replay.shadow import shadow_candidate
from flows.training.config import TrainingConfig
from flows.training.gates import Verdict, judge, load_gates
from flows.training.pipeline import train_candidate
from infra.prove.gate_markets import synthetic_frames
from infra.sandbox.market.equations import DEFAULT_EDGE

_GATES = Path(__file__).parents[2] / "mlflow" / "gates.yaml"


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, score and judge one candidate for each seed; the last line counts those that passed."""
    parser = argparse.ArgumentParser(
        prog="python -m infra.tools.gate_power",
        description="Train one candidate for each seed and hold it against the gates; some 80 s of one core each.",
        epilog="Example: python -m infra.tools.gate_power --edge 0.45 --seeds 31-42",
    )
    parser.add_argument("--edge", type=float, default=DEFAULT_EDGE, help=f"strength of the truth ({DEFAULT_EDGE})")
    parser.add_argument("--seeds", type=seeds_of, default="31-33", help="seeds, as 31-42 or 5,8,13 (31-33)")
    parser.add_argument("--symbols", type=int, default=20, help="how many symbols (20)")
    parser.add_argument("--days", type=int, default=30, help="how many days (30)")
    asked = parser.parse_args(arguments)

    passed = 0
    columns = (TextColumn("seed"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        for seed in progress.track(asked.seeds):
            verdict, net = _judged(asked.symbols, asked.days, asked.edge, seed)
            passed += verdict.passed
            told = "passed" if verdict.passed else "refused: " + ", ".join(check.name for check in verdict.refusals)
            progress.console.print(f"seed {seed}: net of the ensemble {net}; {told}")
    sys.stdout.write(f"{passed} of {len(asked.seeds)} candidates passed at edge {asked.edge:g}\n")
    return 0


def seeds_of(text: str) -> list[int]:
    """
    Return the seeds of a list of numbers and ranges.

    Raises:
        ArgumentTypeError: It is no such list, or an empty one.
    """
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        last = last if dash else first
        if not first.isdecimal() or not last.isdecimal() or int(last) < int(first):
            raise argparse.ArgumentTypeError(f"expected seeds as 31-42 or 5,8,13, was {text!r}")
        seeds += range(int(first), int(last) + 1)
    return seeds


def _judged(symbols: int, days: int, edge: float, seed: int) -> tuple[Verdict, str]:
    config = TrainingConfig(created_at="1970-01-01T00:00:00+00:00", code_version="gate-power")
    frames, _truth = synthetic_frames(symbols, days, edge, seed)
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder)
        training = train_candidate(frames, config, bundle, lambda _step, _share: None)
        shadow = shadow_candidate(bundle, frames, training.windows.shadow, config)
    verdict = judge(training, shadow, load_gates(_GATES))
    over_ridge = [shadow.metrics[f"shadow/ensemble_minus_ridge/net_per_slot_bps{end}"] for end in ("", "_low", "_high")]
    flat = shadow.metrics["shadow/ensemble_minus_flat/net_per_slot_bps"]
    return (
        verdict,
        f"{flat:.2f} bps per slot, {over_ridge[0]:+.2f} [{over_ridge[1]:+.2f}, {over_ridge[2]:+.2f}] to ridge",
    )


if __name__ == "__main__":
    raise SystemExit(main())
