"""The real worker in its own light environment, started and killed by a proof."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra.prove.stage import WORKER_PYTHON, Stage, wait_until


class RunningWorker:
    """One worker process after another under a stage's home."""

    def __init__(
        self,
        stage: Stage,
        urls: dict[str, str],
        *,
        policy: str | None = None,
        bundle: Path | None = None,
        python: Path = WORKER_PYTHON,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """
        Remember where the servers are; nothing starts yet. With a `bundle` no registry is asked.

        Another `python` is for settings that ask for libraries which the light environment does without.
        """
        self.stage = stage
        self.python = python
        self.policy = policy
        self.bundle = bundle
        self.environment = stage.environment | {
            "QT_MODE": "sandbox",
            "QT_VENUE": "sandbox",
            "QT_VENUE_URL": urls["sandbox"],
        }
        if bundle is None:
            self.environment["QT_MLFLOW_URL"] = urls["mlflow"]
        self.environment |= settings or {}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start a worker; its output goes to the stage's log."""
        command = [str(self.python), "-m", "inference.cli", "worker"]
        if self.policy is not None:
            command += ["--policy", self.policy]
        if self.bundle is not None:
            command += ["--bundle", str(self.bundle)]
        (self.stage.home / "worker" / "status.json").unlink(missing_ok=True)
        with (self.stage.home / "worker.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, env=self.environment, cwd=self.stage.home, stdout=log, stderr=log, start_new_session=True
            )

    def wait_for(self, *states: str, seconds: float = 60) -> dict[str, Any]:
        """Wait until the worker reports one of the states and return its status."""

        def reached() -> bool:
            if self.process is not None and self.process.poll() is not None:
                tail = (self.stage.home / "worker.log").read_text(errors="replace")[-1500:]
                raise RuntimeError(f"The worker ended with {self.process.returncode}: {tail}")
            return self.stage.worker_status().get("state") in states

        wait_until(reached, seconds=seconds, what=f"a worker that reports {' or '.join(states)}")
        return self.stage.worker_status()

    def kill(self) -> None:
        """End it as a power cut would."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def stop(self, seconds: float = 20) -> int:
        """Ask it to stop and return its exit status."""
        if self.process is None:
            return 0
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)
