"""Run a clock in the worker's own environment and read what it printed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from infra.prove.stage import ROOT, WORKER_PYTHON, ProofError, Stage

_PATIENCE_S = 600


def clocked(stage: Stage, module: str, bundle: Path, candles: int) -> dict[str, Any]:
    """
    Return the figures of a module of `infra.prove` that times a bundle over so many candles.

    Raises:
        ProofError: It failed; the message is the end of what it said.
    """
    done = subprocess.run(
        [WORKER_PYTHON, "-m", f"infra.prove.{module}", bundle, str(candles)],
        cwd=ROOT,
        env=stage.environment,
        capture_output=True,
        text=True,
        timeout=_PATIENCE_S,
        check=False,
    )
    if done.returncode != 0:
        raise ProofError(f"The measurement failed: {done.stderr[-1500:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found
