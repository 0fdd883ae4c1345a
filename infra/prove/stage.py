"""A local stack of its own for one proof: its own home, its own ports, gone when the proof ends."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from feature_store.clock import monotonic
from feature_store.errors import QuantumError

ROOT = Path(__file__).resolve().parents[2]
QTCTL = Path(sys.executable).with_name("qtctl")
WORKER_PYTHON = ROOT / ".venv-worker" / "bin" / "python"
KEPT_LOGS = ROOT / "var-prove"


class ProofError(QuantumError):
    """A proof could not be carried out; its message says at which step."""


class Stage:
    """Start services under a home of their own and speak to them."""

    def __init__(self, name: str) -> None:
        """`name` becomes the folder under var-prove/ whose logs stay for reading."""
        self.home = KEPT_LOGS / name
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(("QT_", "PREFECT_", "MLFLOW_"))}
        self.environment |= {"QUANTUM_HOME": str(self.home), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}

    def __enter__(self) -> Self:
        """
        Begin with an empty home, in which nothing runs that an earlier proof started and was killed before it ended.

        Raises:
            ProofError: Another proof runs in this home, or what an earlier one left there does not end.
        """
        self._lock = hold_alone(self.home)
        try:
            if self.home.exists():
                self.qtctl("down", check=False)
            end_left_over(self.home)
            if self.home.exists():
                shutil.rmtree(self.home)
            self.home.mkdir(parents=True)
        except BaseException:
            os.close(self._lock)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Stop whatever still runs."""
        try:
            self.qtctl("down", check=False)
            end_left_over(self.home)
        finally:
            os.close(self._lock)

    def qtctl(self, *arguments: str, timeout: float = 600, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one qtctl command in this home."""
        done = subprocess.run(
            [QTCTL, *arguments],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode != 0:
            tail = (done.stdout + done.stderr)[-2000:]
            raise ProofError(f"qtctl {' '.join(arguments)} ended with {done.returncode}: {tail}")
        return done

    def up(self, services: str, **options: object) -> dict[str, str]:
        """Start services and return their addresses by name."""
        flags = [part for name, value in options.items() for part in (f"--{name}", str(value))]
        self.qtctl("up", "--services", services, *flags)
        record = json.loads((self.home / "stack.json").read_text())
        return {name: one["url"] for name, one in record["services"].items() if one.get("url")}

    def worker_status(self) -> dict[str, Any]:
        """Return the worker's status file, or an empty one while there is none."""
        try:
            status: dict[str, Any] = json.loads((self.home / "worker" / "status.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return status


def hold_alone(home: Path) -> int:
    """
    Take a home for one proof, for as long as the returned descriptor is open, or this process lives.

    Raises:
        ProofError: Another proof that still runs has taken it.
    """
    home.parent.mkdir(parents=True, exist_ok=True)
    path = home.with_name(f"{home.name}.lock")
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock, 20, 0).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        raise ProofError(
            f"Another proof (process {holder}) runs in {home}; wait until it has ended, or stop it with Ctrl-C, "
            "then run this one again"
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)
    return lock


def left_over(home: Path) -> list[psutil.Process]:
    """Return the processes that work in a home, by what their environment says; never this one or who started it."""
    ours = {os.getpid(), *(one.pid for one in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        if process.pid in ours:
            continue
        # Those of other people cannot be looked into, and some end meanwhile.
        with contextlib.suppress(psutil.Error, OSError):
            told = process.environ().get("QUANTUM_HOME")
            if told and Path(told).is_relative_to(home) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def end_left_over(home: Path, patience: float = 10.0) -> list[int]:
    """
    End whatever still works in a home: asked first, then killed; return the processes by number.

    A worker that outlived its proof goes on trading, and what it writes would be taken for this proof's own.

    Raises:
        ProofError: Something does not end; the message names it.
    """
    found = left_over(home)
    for signal_one in (psutil.Process.terminate, psutil.Process.kill):
        for process in found:
            with contextlib.suppress(psutil.Error):
                signal_one(process)
        psutil.wait_procs(found, timeout=patience)
        if not (still := left_over(home)):
            return [process.pid for process in found]
        found += [process for process in still if process not in found]
    numbers = " ".join(str(process.pid) for process in still)
    raise ProofError(
        f"An earlier proof left processes in {home} that do not end: {numbers}; end them (kill -9 {numbers})"
    )


def get(url: str, timeout: float = 20) -> Any:
    """Return the JSON a local server answers."""
    with urllib.request.urlopen(url, timeout=timeout) as answer:
        return json.load(answer)


def post(url: str, body: object, timeout: float = 20) -> Any:
    """Send JSON to a local server and return its JSON answer."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        return json.load(answer)


def wait_until(holds: Callable[[], bool], *, seconds: float, what: str, every: float = 0.1) -> float:
    """
    Wait until a condition holds and return how long that took, in seconds.

    Raises:
        ProofError: It did not hold in time.
    """
    started = monotonic()
    while not holds():
        if monotonic() - started > seconds:
            raise ProofError(f"Waited {seconds:.0f} s in vain for: {what}")
        time.sleep(every)
    return monotonic() - started
