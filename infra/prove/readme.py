"""Every command of the README runs in a fresh folder and prints what the README says; every name in it exists."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from infra.prove.proof import Proof, Size
from infra.prove.readme_names import named_in, unknown_names
from infra.prove.readme_text import Step, broken_promises, read
from infra.prove.stage import ROOT

TIMEOUT_S = 1800
COLUMNS = 160
# What our own `make` was told is not what a newcomer tells his; where packages come from is the machine's.
_OURS = frozenset(
    {"QUANTUM_HOME", "MARKET_DATA_DIR", "PYTHONPATH", "MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES"}
    | {"SIZE", "TESTS", "ARGS", "REQUIRE_ALL", "PROVE_FLAGS"}
)


def _borrow(folder: Path, environment: Mapping[str, str]) -> None:
    """Lend a clone this repository's environments, which then run the clone's own code."""
    for name in (".venv", ".venv-worker"):
        (folder / name).symlink_to(ROOT / name)
        # A clone's files are newer than the environments; that alone is no reason to make them again.
        (ROOT / name / ".ready").touch()
        # As the set-up does, for code that lies in another place.
        warm = [str(folder / name / "bin" / "python"), "-m", "feature_store.features.warm"]
        subprocess.run(warm, cwd=folder, env=environment, stdout=subprocess.DEVNULL, check=True)


def environment_of(size: Size, folder: Path) -> dict[str, str]:
    """Return the environment of a newcomer's shell in a folder."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in _OURS and not name.startswith(("QT_", "PREFECT_", "MLFLOW_"))
    }
    # Borrowed environments would otherwise import what they were installed from.
    ours = {"PYTHONPATH": str(folder)} if size is Size.CI else {}
    return kept | ours | {"COLUMNS": str(COLUMNS)}


def try_out(step: Step, folder: Path, environment: Mapping[str, str], *, seconds: float = TIMEOUT_S) -> list[str]:
    """Type a command in and return what is not as the README says."""
    with subprocess.Popen(
        ["bash", "-c", step.command],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            printed, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            # Whatever the command started holds its output open, and would be waited for.
            os.killpg(process.pid, signal.SIGKILL)
            return [f"`{step.command}` did not end within {seconds:g} s"]
    problems = [f"`{step.command}` {problem}" for problem in broken_promises(step.promised, printed)]
    if process.returncode != 0:
        problems.append(f"`{step.command}` ended with {process.returncode}: {printed[-600:]}")
    return problems


def prove(size: Size) -> Proof:
    """
    Run the blocks one after the other in a new clone, as a newcomer reads them, and look each name up.

    In full the clone sets its environments up; CI lends it this repository's.
    """
    with tempfile.TemporaryDirectory(prefix="readme-") as temporary:
        folder = Path(temporary) / "quantum-trader"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
        environment = environment_of(size, folder)
        if size is Size.CI:
            _borrow(folder, environment)
        readme = read((folder / "README.md").read_text())
        problems = [*readme.faults, *unknown_names(readme.prose, named_in(folder))]
        try:
            for step in readme.steps:
                print(f"   $ {step.command}", flush=True)
                problems += try_out(step, folder, environment)
        finally:
            subprocess.run([folder / ".venv/bin/qtctl", "down"], cwd=folder, env=environment, check=False)
    return Proof(
        name="readme",
        figure=f"{len(readme.steps)} commands ran, {len(problems)} promises broken",
        bar="every command runs and prints what the README says, every name in it exists",
        holds=bool(readme.steps) and not problems,
        details=tuple(problems),
    )
