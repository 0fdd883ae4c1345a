"""From closed candles in memory to decisions for a hundred symbols: features, four members, the whole chain."""

from __future__ import annotations

from infra.prove.clocked import clocked
from infra.prove.practice import SERVERS, retrain
from infra.prove.proof import Proof, Size
from infra.prove.stage import ProofError, Stage

MAX_P99_MS = 50.0
CANDLES = {Size.FULL: 1000, Size.CI: 300}


def prove(size: Size) -> Proof:
    """Measure in the worker's own environment, on a four-member bundle of the real pipeline."""
    with Stage("decision-latency") as stage:
        stage.up(SERVERS, symbols=20)
        retrain(stage, size="full" if size is Size.FULL else "quick", days=12)
        bundles = sorted(path.parent for path in (stage.home / "mlflow").rglob("bundle/manifest.json"))
        if not bundles:
            raise ProofError(f"No bundle was logged under {stage.home / 'mlflow'}")
        figures = clocked(stage, "decision_clock", bundles[-1], CANDLES[size])
    return Proof(
        name="decision-latency",
        figure=f"p99 {figures['p99_ms']:.1f} ms, p50 {figures['p50_ms']:.1f} ms for {figures['symbols']} symbols",
        bar=f"p99 <= {MAX_P99_MS:g} ms",
        is_speed=True,
        holds=figures["p99_ms"] <= MAX_P99_MS and figures["decisions"] > 0,
        details=(f"{figures['decisions']} decisions over {CANDLES[size]} candles",),
    )
