"""
Two identical trainings in two processes: the same trees to the byte, the same nets, the same verdict.

`python -m infra.prove.determinism FOLDER SIZE` is one of the two: it trains, scores in shadow, judges, and writes what
it found beside the bundle.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from flows.replay.shadow import shadow_candidate
from flows.settings import TrainingSize
from flows.training.gates import judge, load_gates
from inference.models.bundle import bundle_digest, read_manifest
from infra.prove.proof import Proof, Size
from infra.prove.small_candidate import config_of, market, train

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = 1e-5
"""The most that a net's predictions may differ between the two, in standard deviations of its predictions."""
FIGURES = 1e-3
"""The most that a gate's figure may differ, as a share of it: what nets differ by moves what is computed from them."""

# Symbols, days and size of a training: what `qtctl train --size quick` takes, and what tries the machinery.
_SCALES: dict[Size, tuple[int, int, TrainingSize]] = {Size.FULL: (10, 20, "quick"), Size.CI: (4, 8, "tiny")}
_SEED = 7
_PATIENCE_S = 1500


def prove(size: Size) -> Proof:
    """Train twice, under different hash seeds and in different folders; CI trains the smallest size."""
    symbols, days, name = _SCALES[size]
    with tempfile.TemporaryDirectory() as folder:
        runs = [Path(folder) / one for one in ("first", "second")]
        processes = [_start(run, size, hash_seed) for run, hash_seed in zip(runs, ("1", "2"), strict=True)]
        for process in processes:
            out, _ = process.communicate(timeout=_PATIENCE_S)
            if process.returncode != 0:
                raise RuntimeError(f"A training failed: {out[-2000:]}")
        compared = _compare(*runs)
    return Proof(
        name="determinism",
        figure=(
            f"{compared.trees} tree files equal to the byte, nets within {compared.worst:.2g} of their spread "
            f"({compared.same_nets} of {compared.nets} files equal to the byte), verdict the same: {compared.verdict}"
        ),
        bar=(
            f"every tree file equal to the byte, nets within {TOLERANCE:g}, "
            f"the same verdict with figures within {FIGURES:.1%}"
        ),
        holds=not compared.faults,
        details=(
            f"two processes, seed {_SEED}, size {name}, {symbols} symbols, {days} days",
            f"bundle digests: {'equal' if compared.same_digest else 'different'}",
            f"data fingerprints: {'equal' if compared.same_data else 'different'}",
            *compared.faults,
        ),
    )


class _Compared(msgspec.Struct, kw_only=True):
    """What the two runs have in common."""

    trees: int = 0
    nets: int = 0
    same_nets: int = 0
    worst: float = 0.0
    same_digest: bool = False
    same_data: bool = False
    verdict: str = ""
    faults: list[str] = []


def _compare(first: Path, second: Path) -> _Compared:
    bundles = first / "bundle", second / "bundle"
    manifests = [read_manifest(one) for one in bundles]
    found = _Compared(
        same_digest=bundle_digest(bundles[0]) == bundle_digest(bundles[1]),
        same_data=manifests[0].data_fingerprint == manifests[1].data_fingerprint,
    )
    if not found.same_data:
        found.faults.append("the two did not learn from the same data")
    names = [{path.name for path in one.iterdir()} for one in bundles]
    if names[0] != names[1]:
        found.faults.append(f"files in one bundle alone: {sorted(names[0] ^ names[1])}")
    for name in sorted(names[0] & names[1]):
        same = (bundles[0] / name).read_bytes() == (bundles[1] / name).read_bytes()
        if name.endswith((".ubj", ".txt")):
            found.trees += same
            if not same:
                found.faults.append(f"{name} differs")
        elif name.endswith(".onnx"):
            found.nets += 1
            found.same_nets += same
    golden = [dict(np.load(one / "golden.npz")) for one in bundles]
    for name, ours in golden[0].items():
        theirs = golden[1].get(name)
        spread = max(float(ours.std()), 1e-9)
        alike = theirs is not None and theirs.shape == ours.shape
        off = float(np.abs(ours - theirs).max()) / spread if alike else np.inf
        found.worst = max(found.worst, off)
        if not off <= TOLERANCE:
            found.faults.append(f"{name} differs by {off:.3g} of its spread")
    _compare_verdicts(found, *(_read(one) for one in (first, second)))
    return found


def _compare_verdicts(found: _Compared, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    found.verdict = str(ours["decision"])
    if ours["decision"] != theirs["decision"]:
        found.faults.append("the gates decided differently")
    for one, other in zip(ours["checks"], theirs["checks"], strict=True):
        if one["finding"] != other["finding"] or not np.isclose(
            _value(one), _value(other), rtol=FIGURES, equal_nan=True
        ):
            found.faults.append(f"gate {one['name']}: {one['value']} and {other['value']}")


def _value(check: dict[str, Any]) -> float:
    value = check["value"]
    return float("nan") if value is None else float(value)


def _start(run: Path, size: Size, hash_seed: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "infra.prove.determinism", str(run), size.value],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _read(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode((run / "verdict.json").read_bytes())
    return found


def _train(run: Path, size: Size) -> None:
    symbols, days, name = _SCALES[size]
    run.mkdir(parents=True)
    frames, config = market(symbols, days, _SEED), config_of(name, _SEED)
    training = train(frames, config, run / "bundle")
    shadow = shadow_candidate(run / "bundle", frames, training.windows.shadow, config)
    verdict = judge(training, shadow, load_gates(ROOT / "mlflow" / "gates.yaml"))
    said = {"decision": verdict.decision, "checks": verdict.checks}
    (run / "verdict.json").write_bytes(msgspec.json.encode(said))


if __name__ == "__main__":
    _train(Path(sys.argv[1]), Size(sys.argv[2]))
