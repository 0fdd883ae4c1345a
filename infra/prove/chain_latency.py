"""From closed candles to decisions through everything that the chain has: features, four members, all rules on."""

from __future__ import annotations

from flows.settings import TrainingSize
from infra.prove.clocked import clocked
from infra.prove.proof import Proof, Size
from infra.prove.small_candidate import config_of, market, train
from infra.prove.stage import Stage

MAX_WHOLE_MS, MAX_CHAIN_MS = 20.0, 5.0
LEAST_SHARE = 0.7
"""Of all candidates, those that came as far as the limits; the others have a position or an entry already."""
CANDLES = {Size.FULL: 2000, Size.CI: 400}
_TRAINED: dict[Size, TrainingSize] = {Size.FULL: "full", Size.CI: "quick"}
_SYMBOLS, _DAYS, _SEED = 20, 12, 7


def prove(size: Size) -> Proof:
    """Measure in the worker's own environment, on a four-member bundle of the real pipeline."""
    with Stage("chain-latency") as stage:
        bundle = stage.home / "bundle"
        train(market(_SYMBOLS, _DAYS, _SEED), config_of(_TRAINED[size], _SEED), bundle)
        found = clocked(stage, "chain_clock", bundle, CANDLES[size])
    whole, chain = found["whole_p99_ms"], found["chain_p99_ms"]
    share = found["met_the_limits"] / found["decisions"]
    is_long = share >= LEAST_SHARE and found["approved"] >= found["candles"]
    return Proof(
        name="chain-latency",
        figure=f"p99 {whole:.1f} ms whole, {chain:.2f} ms the chain alone, for {found['symbols']} symbols",
        bar=f"p99 <= {MAX_WHOLE_MS:g} ms and {MAX_CHAIN_MS:g} ms, {LEAST_SHARE:.0%} of candidates came to the limits",
        # A way that was cut short is no slow machine, but a figure that says nothing.
        is_speed=is_long,
        holds=whole <= MAX_WHOLE_MS and chain <= MAX_CHAIN_MS and is_long,
        details=(
            f"p50 {found['whole_p50_ms']:.1f} ms whole, {found['chain_p50_ms']:.2f} ms the chain alone",
            f"{share:.0%} of {found['decisions']} decisions came to the limits, {found['approved']} were approved",
            f"limits out of the way ({found['approved_unhindered']} approved): p99 {found['unhindered_p99_ms']:.2f} ms",
            f"while candles are on their way: correlations, p99 {found['prepared_p99_ms']:.1f} ms",
        ),
    )
