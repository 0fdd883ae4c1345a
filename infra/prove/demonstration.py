"""Run `qtctl demo --once` as a person would and read the report it writes."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import Any

from feature_store.clock import monotonic
from infra.prove.stage import QTCTL, ROOT, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """How one demonstration ended."""

    status: int
    seconds: float
    report: dict[str, Any]
    tail: str

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
        began = monotonic()
        with log.open("wb") as out:
            done = subprocess.run(
                [QTCTL, "demo", "--once", "--fresh", "--report", str(report), *options],
                cwd=ROOT,
                env=stage.environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                timeout=timeout,
                check=False,
            )
        seconds = monotonic() - began
        return Played(
            status=done.returncode,
            seconds=seconds,
            report=json.loads(report.read_text()) if report.exists() else {},
            tail=log.read_text(errors="replace")[-4000:],
        )
