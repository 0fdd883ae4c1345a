"""`python -m infra.prove NAME… [--size ci]`: run proofs, print each figure, fail where a bar is not held."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from feature_store.clock import monotonic
from infra.prove.proof import Proof, Size

ROOT = Path(__file__).resolve().parents[2]


def _run(name: str, size: Size) -> Proof:
    module = importlib.import_module(f"infra.prove.{name.replace('-', '_')}")
    proof: Proof = module.prove(size)
    return proof


def main() -> int:
    """Run each named proof in turn; a proof that raises has failed and does not stop the others."""
    parser = argparse.ArgumentParser(prog="infra.prove", description=__doc__)
    parser.add_argument("names", nargs="+", help="proofs to run, for example: footprint decision-latency")
    parser.add_argument(
        "--size", type=Size, default=Size.FULL, choices=list(Size), help="full, or what CI has time for"
    )
    parser.add_argument(
        "--report-speed",
        action="store_true",
        help="fail for bars of correctness only; print missed bars of speed or memory",
    )
    arguments = parser.parse_args()

    results: list[Proof] = []
    for name in arguments.names:
        print(f"── prove-{name} ({arguments.size}) ──", flush=True)
        started = monotonic()
        try:
            proof = _run(name, arguments.size)
        except Exception as error:  # noqa: BLE001 - one broken proof must not hide the others' figures
            proof = Proof(name=name, figure=f"{type(error).__name__}: {error}", bar="runs to its end", holds=False)
        for line in proof.details:
            print(f"   {line}")
        print(f"   took {monotonic() - started:.0f} s", flush=True)
        results.append(proof)

    for proof in results:
        print(f"{'held    ' if proof.holds else 'NOT HELD'} prove-{proof.name}: {proof.figure} (bar: {proof.bar})")
    sys.stdout.flush()
    missed = [proof for proof in results if not proof.holds]
    blocking = [proof for proof in missed if not (arguments.report_speed and proof.is_speed)]
    return 1 if blocking else 0


if __name__ == "__main__":
    raise SystemExit(main())
