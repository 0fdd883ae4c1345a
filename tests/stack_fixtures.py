"""Real servers for tests: one MLflow and one Prefect server per test session, on free ports and temporary homes."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from flows.training.config import TrainingConfig, TreeConfig
from flows.training.dataset import FrameSet
from flows.training.pipeline import train_candidate
from flows.training.report import TrainingReport
from tests.training_support import FEW_FOLDS, LOOSE, make_candle_frames, silent
from tests.warm_process import warm_process

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
# Only the environment of a server that the session itself started names this.
_DATABASE = "PREFECT_API_DATABASE_CONNECTION_URL"
QUIET = {
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "OMP_NUM_THREADS": "1",
    "PYTHONUNBUFFERED": "1",
}


@dataclass(frozen=True)
class Server:
    """A server process that a test may talk to; its output is in `log`."""

    name: str
    url: str
    home: Path
    process: subprocess.Popen[bytes]
    env: Mapping[str, str]

    @property
    def log(self) -> str:
        """What the process has written so far."""
        return (self.home / f"{self.name}.log").read_text(errors="replace")


def free_port() -> int:
    """
    Return a port that nobody listens on at this moment, nor is given by chance later.

    It lies below those that the kernel hands out to whoever asks for any, and to outgoing connections.
    """
    while True:
        port = random.randrange(15_000, 30_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def start_process(name: str, command: list[str], home: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start one process in a group of its own, with its output in `home/<name>.log`."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **QUIET, **env}, stdout=log, stderr=log, start_new_session=True
        )


def stop_process(process: subprocess.Popen[bytes], patience: float = 60.0) -> None:
    """End a process and the group it leads: first politely, then not."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        # One that stands still would hear it only then.
        os.killpg(process.pid, signal.SIGCONT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(patience)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(60)


def wait_until_healthy(server: Server, path: str, patience: float = 200.0) -> Server:
    """Wait until the server answers 200, or fail with the end of its log."""
    deadline = time.perf_counter() + patience
    while time.perf_counter() < deadline:
        if server.process.poll() is not None:
            break
        with contextlib.suppress(OSError), urllib.request.urlopen(server.url + path, timeout=20) as answer:
            if answer.status == 200:
                return server
        time.sleep(0.2)
    stop_process(server.process)
    raise AssertionError(f"{server.name} did not become healthy:\n{server.log[-3000:]}")


def start_mlflow(home: Path, port: int | None = None) -> Server:
    """Start `mlflow server` on SQLite with proxied artifacts, as the stack does."""
    home.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    settings = dict(
        line.split("=", 1)
        for line in (ROOT / "mlflow" / "server.env").read_text().splitlines()
        if line and not line.startswith("#")
    )
    command = [
        str(BIN / "mlflow"), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{home}/mlflow.db", "--artifacts-destination", str(home / "artifacts"),
    ]  # fmt: skip
    process = start_process("mlflow", command, home, settings)
    url = f"http://127.0.0.1:{port}"
    return wait_until_healthy(Server("mlflow", url, home, process, {"QT_MLFLOW_URL": url}), "/health")


def start_prefect(home: Path, port: int | None = None) -> Server:
    """Start `prefect server` on SQLite with a home of its own."""
    port = port or free_port()
    env = {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{home}/prefect.db",
        "PREFECT_UI_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_LOGGING_LEVEL": "WARNING",
    }
    command = [str(BIN / "prefect"), "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"]
    if os.environ.get("QT_TEST_PREFECT_UI"):
        command.remove("--no-ui")
    process = start_process("prefect", command, home, env)
    url = f"http://127.0.0.1:{port}"
    return wait_until_healthy(Server("prefect", url, home, process, env), "/api/health")


@contextlib.contextmanager
def prefect_worker(server: Server, env: Mapping[str, str], pool: str = "quantum") -> Iterator[subprocess.Popen[bytes]]:
    """Run a process worker of the pool while the context lasts."""
    command = [str(BIN / "prefect"), "worker", "start", "--pool", pool, "--type", "process"]
    process = start_process("prefect-worker", command, server.home, {**server.env, **env})
    try:
        yield process
    finally:
        stop_process(process)


def prefect_command(server: Server, *arguments: str, env: Mapping[str, str] | None = None) -> str:
    """Run one prefect command against the server and return its output; fail with it where it fails."""
    code = "import sys; from prefect.cli import app; sys.argv[0] = 'prefect'; app()"
    result = python_code(code, "--no-prompt", *arguments, env={**server.env, **(env or {})})
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@contextlib.contextmanager
def sandbox_venue(home: Path, **options: object) -> Iterator[str]:
    """Run the sandbox exchange while the context lasts, and yield its address."""
    ready = home / "ready.json"
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in ({"port": 0} | options).items()]
    command = [sys.executable, "-m", "infra.sandbox", "serve", "--ready-file", str(ready), *arguments]
    process = start_process("sandbox", command, home, {})
    try:
        deadline = time.perf_counter() + 200
        while not ready.exists():
            assert process.poll() is None, (home / "sandbox.log").read_text()
            assert time.perf_counter() < deadline, "The sandbox did not say where it listens"
            time.sleep(0.1)
        yield json.loads(ready.read_text())["url"]
    finally:
        stop_process(process)


def qtctl(*arguments: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run one qtctl command as a person would; against the session's Prefect server its imports are taken for done."""
    if _DATABASE in env:
        return python_code("from inference.cli import main; main()", *arguments, env=env)
    return subprocess.run(
        [str(BIN / "qtctl"), *arguments],
        cwd=ROOT,
        env={**_clean(), **QUIET, **env},
        capture_output=True,
        text=True,
        timeout=560,
        check=False,
    )


def python_code(code: str, *arguments: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own, in which what flows need is imported already."""
    # As qtctl sets it before it imports Prefect, which is imported already here.
    quiet = {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL", **QUIET}
    started = {**_clean(), **quiet, **{name: value for name, value in env.items() if name.startswith("PREFECT_")}}
    return warm_process(tuple(sorted(started.items()))).run(code, arguments, {**started, **env})


def _clean() -> dict[str, str]:
    # pytest names the running test in the environment: with it each test would start a warm process of its own.
    ours = ("PREFECT_", "QT_", "QUANTUM_", "PYTEST_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def ask(url: str, body: object | None = None) -> Any:
    """GET a JSON document, or POST one and return the answer."""
    data = None if body is None else json.dumps(body).encode()
    return json.loads(_answer(urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})))


def newest_artifacts(server: Server) -> dict[str, dict[str, Any]]:
    """
    Return the newest artifact of each key.

    Flows of other tests publish under the same keys, and Prefect lists artifacts in no order of time unless asked.
    """
    found = ask(f"{server.url}/api/artifacts/latest/filter", {})
    return {one["key"]: one for one in found}


def _answer(request: urllib.request.Request) -> bytes:
    """Ask again while the server says that it is busy, as Prefect's own client does: its SQLite file may be locked."""
    for patience in range(30, -1, -1):
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            if error.code != HTTPStatus.SERVICE_UNAVAILABLE or patience == 0:
                raise
        time.sleep(1)
    raise AssertionError("unreachable")


def forget_deployments(server: Server) -> None:
    """Take away what other tests of the session deployed: who deploys next finds a server that was just set up."""
    url = f"{server.url}/api/deployments"
    for one in ask(f"{url}/filter", {}):
        _answer(urllib.request.Request(f"{url}/{one['id']}", method="DELETE"))
    assert ask(f"{url}/filter", {}) == []


@dataclass(frozen=True)
class RealCandidate:
    """A small bundle over the real features, with all that a registry and the gates ask for."""

    bundle: Path
    report: TrainingReport
    config: TrainingConfig
    frames: FrameSet


@pytest.fixture(scope="session")
def real_candidate(tmp_path_factory) -> RealCandidate:
    """Two tree members trained on the real model inputs, in seconds."""
    frames = make_candle_frames(series=3, candles=2400)
    trees = TreeConfig(rounds=15, depth=3, min_leaf_rows=40)
    config = TrainingConfig(
        created_at="2026-01-01T00:00:00+00:00",
        code_version="test",
        members=("xgboost", "lightgbm"),
        xgboost=trees,
        lightgbm=trees,
        bootstrap_samples=50,
        folds=FEW_FOLDS,
        tripwires=LOOSE,
    )
    folder = tmp_path_factory.mktemp("candidate") / "bundle"
    return RealCandidate(folder, train_candidate(frames, config, folder, silent), config, frames)


@contextlib.contextmanager
def awake(server: Server) -> Iterator[Server]:
    """Let a server run while a file of tests asks it; in between it stands still, and takes no time from others."""
    os.killpg(server.process.pid, signal.SIGCONT)
    try:
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.process.pid, signal.SIGSTOP)


@pytest.fixture(scope="session")
def mlflow_of_session(tmp_path_factory) -> Iterator[Server]:
    """One MLflow server for the whole session."""
    server = start_mlflow(tmp_path_factory.mktemp("mlflow"))
    yield server
    stop_process(server.process)


@pytest.fixture(scope="module")
def mlflow_server(mlflow_of_session) -> Iterator[Server]:
    """The session's MLflow server, awake."""
    with awake(mlflow_of_session) as server:
        yield server


@pytest.fixture(scope="session")
def prefect_of_session(tmp_path_factory) -> Iterator[Server]:
    """One Prefect server for the whole session."""
    server = start_prefect(tmp_path_factory.mktemp("prefect"))
    yield server
    stop_process(server.process)


@pytest.fixture(scope="module")
def prefect_server(prefect_of_session) -> Iterator[Server]:
    """The session's Prefect server, awake."""
    with awake(prefect_of_session) as server:
        yield server
