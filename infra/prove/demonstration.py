"""Run `qtctl demo --once` as a person would and read the report it writes."""

from __future__ import annotations

import json
import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from feature_store.clock import monotonic
from infra.prove.stage import QTCTL, ROOT, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """How one demonstration ended."""

    status: int
    seconds: float
    report: dict[str, Any]
    tail: str
    # In a fresh clone: how long the set-up took, and what still ran after the end.
    set_up: float | None = None
    left_behind: tuple[str, ...] = ()

    @property
    def trading(self) -> dict[str, Any]:
        """The report's trading figures, empty where nothing was traded."""
        return self.report.get("trading") or {}

    @property
    def worker(self) -> dict[str, Any]:
        """The worker's last status."""
        return self.report.get("worker") or {}

    @property
    def story(self) -> tuple[str, ...]:
        """What a reader wants to know of it, a line each."""
        seconds = self.report.get("seconds", {})
        steps = ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
        lines = [f"exit {self.status} after {self.seconds:.0f} s ({steps})", f"outcome: {self.report.get('outcome')}"]
        if self.set_up is not None:
            lines.append(
                f"in a fresh clone, set up in {self.set_up:.0f} s before; still running after: {self.left_behind}"
            )
        if reasons := self.report.get("gate_reasons"):
            lines += [f"gates: {reason}" for reason in str(reasons).splitlines()]
        for model in self.report.get("models", []):
            scores = ", ".join(f"{name} {value:.6g}" for name, value in model["scores"].items())
            lines.append(f"{model['role']} {model['name']}: {scores}")
        if not self.report:
            lines += self.tail.splitlines()[-15:]
        return tuple(lines)


def play(name: str, *options: str, timeout: float = 1500) -> Played:
    """Play one demonstration in a fresh home and return how it went."""
    with Stage(name) as stage:
        report = stage.home / "report.json"
        log = stage.home / "demo.log"
        command = [str(QTCTL), "demo", "--once", "--fresh", "--report", str(report), *options]
        return _played(command, ROOT, stage.environment, report, log, timeout)


def play_fresh_clone(name: str, *, timeout: float = 1500) -> Played:
    """Clone HEAD, set it up, and play `make demo` there as a newcomer does; the set-up is not counted."""
    with Stage(name) as stage, tempfile.TemporaryDirectory(prefix="fresh-demo-") as folder:
        clone = Path(folder) / "quantum-trader"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        environment = {k: v for k, v in stage.environment.items() if k not in {"QUANTUM_HOME", "VIRTUAL_ENV"}}
        began = monotonic()
        subprocess.run(["make", "setup"], cwd=clone, env=environment, timeout=timeout, check=True)
        setup = monotonic() - began
        report, log = stage.home / "report.json", stage.home / "demo.log"
        command = ["make", "demo", f"ARGS=--once --report {report}"]
        played = _played(command, clone, environment, report, log, timeout)
        left = sorted({_name_below(process, clone) for process in psutil.process_iter()} - {""})
        subprocess.run([".venv/bin/qtctl", "down"], cwd=clone, env=environment, capture_output=True, check=False)
        return replace(played, set_up=setup, left_behind=tuple(left))


def _name_below(process: psutil.Process, folder: Path) -> str:
    """Return the name of a process that runs from a folder, or in it; of any other, nothing."""
    try:
        told = [*process.cmdline(), process.cwd()]
        return process.name() if any(str(folder) in one for one in told) else ""
    except psutil.Error:
        return ""  # It ended, or is somebody else's: not one that we left.


def _played(
    command: list[str], folder: Path, environment: dict[str, str], report: Path, log: Path, timeout: float
) -> Played:
    began = monotonic()
    with log.open("wb") as out:
        done = subprocess.run(
            command, cwd=folder, env=environment, stdout=out, stderr=subprocess.STDOUT, timeout=timeout, check=False
        )
    return Played(
        status=done.returncode,
        seconds=monotonic() - began,
        report=json.loads(report.read_text()) if report.exists() else {},
        tail=log.read_text(errors="replace")[-4000:],
    )
