"""Every command block of the README runs in a fresh folder and prints what the README says."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from infra.prove.proof import Proof, Size
from infra.prove.stage import ROOT

BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
TIMEOUT_S = 1800


@dataclass(frozen=True, slots=True)
class Step:
    """One command of the README and the lines it promises; `…` stands for anything."""

    command: str
    promised: tuple[str, ...]


def steps_of(text: str) -> list[Step]:
    """Return the commands of all console blocks, in order."""
    steps: list[Step] = []
    for block in BLOCK.findall(text):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *lines = part.rstrip("\n").split("\n")
            while command.endswith("\\") and lines:
                command = command[:-1] + lines.pop(0).strip()
            steps.append(Step(command, tuple(line for line in lines if line.strip() and line.strip() != "…")))
    return steps


def missing_lines(promised: tuple[str, ...], printed: str) -> list[str]:
    """Return the promised lines that were not printed, in order; a promise may hold `…` for what varies."""
    missing, rest = [], re.sub(r"\x1b\[[0-9;]*m", "", printed)
    for line in promised:
        pattern = r"\s+".join(
            ".*?".join(re.escape(piece) for piece in word.split("…")) for word in line.strip().split()
        )
        found = re.search(pattern, rest)
        if found is None:
            missing.append(line)
        else:
            rest = rest[found.end() :]
    return missing


def _folder(size: Size, temporary: str) -> Path:
    """Return where to run: a clone set up from nothing or, in CI, a clone that borrows this one's environments."""
    clone = Path(temporary) / "quantum-trader"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    if size is Size.CI:
        for name in (".venv", ".venv-worker"):
            (clone / name).symlink_to(ROOT / name)
            # A clone's files are newer than the environments; that alone is no reason to make them again.
            (ROOT / name / ".ready").touch()
    return clone


def prove(size: Size) -> Proof:
    """Run the blocks one after the other in one folder, as a newcomer reads them."""
    steps = steps_of((ROOT / "README.md").read_text())
    problems: list[str] = []
    with tempfile.TemporaryDirectory(prefix="readme-") as temporary:
        folder = _folder(size, temporary)
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("QT_", "PREFECT_", "MLFLOW_"))}
        environment["COLUMNS"] = "160"
        environment.pop("QUANTUM_HOME", None)
        try:
            for step in steps:
                done = subprocess.run(
                    ["bash", "-c", step.command],
                    cwd=folder,
                    env=environment,
                    capture_output=True,
                    text=True,
                    timeout=TIMEOUT_S,
                    check=False,
                )
                printed = done.stdout + done.stderr
                if done.returncode != 0:
                    problems.append(f"`{step.command}` ended with {done.returncode}: {printed[-600:]}")
                problems += [
                    f"`{step.command}` did not print: {line}" for line in missing_lines(step.promised, printed)
                ]
        finally:
            subprocess.run([folder / ".venv/bin/qtctl", "down"], cwd=folder, env=environment, check=False)
    return Proof(
        name="readme",
        figure=f"{len(steps)} commands ran, {len(problems)} promises broken",
        bar="every command runs and prints what the README says",
        holds=bool(steps) and not problems,
        details=tuple(problems),
    )
