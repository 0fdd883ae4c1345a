"""A fresh clone, one command, and the tests pass."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path

from feature_store.clock import monotonic
from infra.prove.proof import Proof, Size
from infra.prove.stage import ROOT

MAX_SECONDS = 25 * 60
# CI runs the whole suite itself, on a fresh clone; here another clone runs a few rooms, with what was set up already.
TESTS = {Size.FULL: "tests", Size.CI: "tests/contract tests/golden tests/architecture/test_light_worker.py"}
WITH = {Size.FULL: ", set-up included", Size.CI: ", in this checkout's environments"}


def prove(size: Size) -> Proof:
    """
    Clone HEAD into a new folder and run `make test` there; set-up is included in full size.

    REQUIRE_ALL is handed on, as CI sets it; without it a machine may lack what some tests need, and the figure says
    how many were deselected.
    """
    with tempfile.TemporaryDirectory(prefix="fresh-clone-") as folder:
        clone = Path(folder) / "quantum-trader"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        environment = dict(os.environ)
        if size is Size.CI:
            environment["PYTHONPATH"] = str(clone)
            for name in (".venv", ".venv-worker"):
                (clone / name).symlink_to(ROOT / name)
                (clone / name / ".ready").touch()
        began = monotonic()
        done = subprocess.run(
            ["make", "test", f"TESTS={TESTS[size]}"],
            cwd=clone,
            env=environment,
            capture_output=True,
            text=True,
            timeout=2 * MAX_SECONDS,
            check=False,
        )
        seconds = monotonic() - began
    last = next((line for line in reversed(done.stdout.splitlines()) if re.search(r"passed|failed|error", line)), "")
    return Proof(
        name="fresh-clone-tests",
        figure=f"exit {done.returncode} in {seconds:.0f} s{WITH[size]}: {last.strip('= ')}",
        bar=f"passes, nothing skipped, <= {MAX_SECONDS} s",
        holds=done.returncode == 0 and seconds <= MAX_SECONDS and "skipped" not in last,
        details=tuple(done.stdout.splitlines()[-5:]) if done.returncode else (),
    )
