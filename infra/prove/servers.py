"""A sandbox exchange and a Prefect server of a proof's own, where the stack's options do not reach far enough."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from infra.prove.stage import ROOT, ProofError, Stage, wait_until
from infra.stack.ports import HOST, any_free

_PATIENCE_S = 120.0
_GRACE_S = 20.0


class Servers:
    """Start servers in the home of a stage; all of them end with the context."""

    def __init__(self, stage: Stage) -> None:
        self._home = stage.home
        self._environment = stage.environment | {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        """Nothing runs yet."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Stop them: first politely, then not."""
        for process in self._running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in self._running:
            try:
                process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def sandbox(self, **options: object) -> str:
        """Start an exchange with options of `qtctl sandbox serve`, underscores for hyphens; return its address."""
        ready = self._home / "sandbox.ready"
        ready.unlink(missing_ok=True)
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        command = [sys.executable, "-m", "infra.sandbox", "serve", "--port=0", f"--ready-file={ready}", *flags]
        self._start("sandbox", command, {})
        wait_until(ready.exists, seconds=_PATIENCE_S, what="the sandbox exchange")
        return str(json.loads(ready.read_text())["url"])

    def prefect(self) -> str:
        """Start a Prefect server with a database of its own; return the address of its API."""
        port = any_free()
        home = self._home / "prefect"
        home.mkdir(parents=True, exist_ok=True)
        environment = {
            "PREFECT_HOME": str(home),
            "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home / 'prefect.db'}",
            "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        }
        prefect = str(Path(sys.executable).with_name("prefect"))
        self._start("prefect", [prefect, "server", "start", "--host", HOST, "--port", str(port)], environment)
        api = f"http://{HOST}:{port}/api"
        wait_until(lambda: _answers(f"{api}/health"), seconds=_PATIENCE_S, what="the Prefect server")
        return api

    def _start(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        with (self._home / f"{name}.log").open("wb") as log:
            self._running.append(
                subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env=self._environment | environment,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )


def listener(url: str) -> psutil.Process:
    """
    Return the process of ours that listens at a local address.

    Raises:
        ProofError: None does.
    """
    port = int(url.rpartition(":")[2])
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if any(one.laddr and one.laddr.port == port and one.status == "LISTEN" for one in child.net_connections()):
                return child
    raise ProofError(f"Nobody of ours listens at {url}")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except OSError:
        return False
