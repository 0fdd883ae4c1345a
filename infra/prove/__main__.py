"""`python -m infra.prove NAME… [--size ci]`: run proofs, print each figure, fail where a bar is not held."""

from __future__ import annotations

import argparse
import os
import sys

from infra.prove.proof import Proof, Size
from infra.prove.running import COMPUTING, results


def main() -> int:
    """Run each named proof; a proof that raises has failed and does not stop the others."""
    parser = argparse.ArgumentParser(prog="infra.prove", description=__doc__)
    parser.add_argument("names", nargs="+", help="proofs to run, for example: footprint decision-latency")
    parser.add_argument(
        "--size", type=Size, default=Size.FULL, choices=list(Size), help="full, or what CI has time for"
    )
    parser.add_argument(
        "--lanes",
        type=int,
        default=min(os.cpu_count() or 1, 2),
        help="how many proofs that only compute may run beside each other (default: 2, or 1 on one core)",
    )
    parser.add_argument(
        "--report-speed",
        action="store_true",
        help="fail for bars of correctness only; print missed bars of speed or memory",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=float("inf"),
        help="begin no proof after so many minutes; those that are left are named as not run (default: no limit)",
    )
    arguments = parser.parse_args()

    # What computes comes first, so that it stands in one row, whatever the order of the names.
    names = sorted(arguments.names, key=lambda name: name not in COMPUTING)
    proofs: list[Proof] = []
    for proof, seconds in results(names, arguments.size, arguments.lanes, arguments.minutes * 60):
        for line in proof.details:
            print(f"   {line}")
        print(f"   took {seconds:.0f} s", flush=True)
        proofs.append(proof)

    ran = {proof.name for proof in proofs}
    for name in names:
        if name not in ran:
            print(f"NOT RUN  prove-{name}: no time was left for it ({arguments.minutes:g} minutes)")
    for proof in proofs:
        print(f"{proof.verdict} prove-{proof.name}: {proof.figure} (bar: {proof.bar})")
    sys.stdout.flush()
    missed = [proof for proof in proofs if not proof.holds]
    blocking = [proof for proof in missed if not (arguments.report_speed and proof.is_speed)]
    return 1 if blocking else 0


if __name__ == "__main__":
    raise SystemExit(main())
