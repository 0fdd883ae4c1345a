"""A demonstration interrupted while it trains, in every way it can be, and the next one, on real servers."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import psutil
import pytest

from infra.stack import processes
from infra.stack.home import Home
from infra.stack.record import read_record
from tests.stack_fixtures import ask, qtctl, start_mlflow, stop_process
from tests.worker_bundle import make_bundle

ROOT = Path(__file__).resolve().parents[2]
# A shell that started these tests in the background has them ignore Ctrl-C.
PLAY = (
    "import signal, sys; from infra.stack import commands; "
    "signal.signal(signal.SIGINT, signal.default_int_handler); "
    "sys.exit(commands.demo(sys.argv[1:], result_action='return_value'))"
)
MARKET = ("--edge", "0", "--symbols", "6", "--days", "12")
UNDER_WAY = {"RUNNING", "PENDING", "CANCELLING", "SCHEDULED"}
# A machine that runs other tests beside these has needed more than three minutes to begin a training.
PATIENCE_S = 400.0
# A quiet machine takes a tenth of it.
SECONDS = 150.0


class Played:
    """One demonstration in a process of its own, as `make demo` starts it."""

    def __init__(self, home: Home, size: str, *options: str) -> None:
        clean = {
            name: value for name, value in os.environ.items() if not name.startswith(("QT_", "PREFECT_", "MLFLOW_"))
        }
        self.home = home
        self._log = home.root / "demo.log"
        self.report = home.root / "report.json"
        self.report.unlink(missing_ok=True)
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PLAY, "--once", *MARKET, "--size", size, "--report", str(self.report), *options],
                cwd=ROOT,
                env=clean | {"QUANTUM_HOME": str(home.root)},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        """What it has printed so far."""
        return self._log.read_text(errors="replace")

    def until(self, what: str, found: Any) -> Any:
        """Wait until something is found; the demonstration must go on meanwhile."""
        deadline = time.perf_counter() + PATIENCE_S
        while time.perf_counter() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError, KeyError):
                if (answer := found()) is not None:
                    return answer
            time.sleep(0.2)
        raise AssertionError(f"{what} did not come:\n{self.said}")

    def until_it_trains(self) -> str:
        """Wait until the retrain run that it follows is fitting models, and return the run's id."""

        def trains() -> str | None:
            followed = re.findall(r"/flow-run/(\S+)", self.said)
            fitting = {"task_runs": {"state": {"type": {"any_": ["RUNNING"]}}, "name": {"any_": ["train-members"]}}}
            fits = followed and ask(f"{prefect_of(self.home)}/api/task_runs/filter", fitting)
            return followed[-1] if fits else None

        return str(self.until("Training", trains))


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory) -> Home:
    """One home for all; databases and deployments need making only once."""
    return Home(tmp_path_factory.mktemp("demo"))


@pytest.fixture
def home(shared_home) -> Iterator[Home]:
    """The home of all, left without a process: what one test failed at must not fail the next."""
    yield shared_home
    for process in all_of(shared_home):
        with contextlib.suppress(psutil.Error):
            process.kill()


def of_home(home: Home) -> list[psutil.Process]:
    """Return every process that was told of this home, whoever started it."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get("QUANTUM_HOME") == str(home.root) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def all_of(home: Home) -> list[psutil.Process]:
    """Return also the servers, which know the stack by its mark."""
    record, _ = read_record(home.record)
    return of_home(home) + (processes.marked(record.stack_id) if record is not None else [])


def prefect_of(home: Home) -> str:
    record, _ = read_record(home.record)
    if record is None:
        raise KeyError("prefect-server")
    return str(record.services["prefect-server"].url)


def retrain_runs(home: Home) -> list[dict[str, Any]]:
    """Return the runs of the flow, the oldest first."""
    body = {"flows": {"name": {"any_": ["retrain"]}}, "sort": "START_TIME_ASC", "limit": 100}
    rows: list[dict[str, Any]] = ask(f"{prefect_of(home)}/api/flow_runs/filter", body)
    return rows


@pytest.mark.timeout(900)
def test_after_a_power_cut_the_dead_run_is_closed_and_ctrl_c_ends_the_next(home):
    """
    Everything is killed while it trains: the next demonstration says so, closes that run and begins exactly one other.

    While it trains, `qtctl up` is refused. Ctrl-C in the middle of that leaves no process behind, within seconds.
    """
    first = Played(home, "quick")
    dead = first.until_it_trains()
    victims = all_of(home)
    for process in victims:
        with contextlib.suppress(psutil.Error):
            process.kill()
    first.process.wait(PATIENCE_S)
    psutil.wait_procs(victims, timeout=100)
    assert all_of(home) == []

    second = Played(home, "quick")
    alive = second.until_it_trains()
    runs = {run["id"]: run["state_type"] for run in retrain_runs(home)}
    members = all_of(home)
    intruder = qtctl("up", env={"QUANTUM_HOME": str(home.root)})
    second.process.send_signal(signal.SIGINT)
    second.process.wait(PATIENCE_S)

    assert second.said.count("An earlier demonstration here was interrupted") == 1
    assert "had ended without being stopped" in second.said
    assert "flow runs that had been interrupted" in second.said
    assert runs[dead] == "CRASHED"
    assert [state for state in runs.values() if state in UNDER_WAY] == ["RUNNING"]
    assert runs[alive] == "RUNNING"
    assert "Stopped by request" in second.said
    assert "was killed" not in second.said
    assert "Traceback" not in second.said
    assert len(members) >= 6
    assert intruder.returncode == 1
    assert "A demonstration" in intruder.stderr
    assert all_of(home) == []


@pytest.mark.timeout(900)
def test_a_demonstration_killed_alone_is_taken_over_by_the_next(home):
    """Only `qtctl demo` is killed while Prefect trains: the next one restarts nothing and follows that very run."""
    first = Played(home, "tiny")
    followed = first.until_it_trains()
    before, _ = read_record(home.record)
    first.process.kill()
    first.process.wait(PATIENCE_S)

    second = Played(home, "tiny")
    second.until("The worker", lambda: True if "Starting the inference worker" in second.said else None)
    runs = {run["id"]: run["state_type"] for run in retrain_runs(home)}
    after, _ = read_record(home.record)
    second.process.wait(PATIENCE_S)
    report = json.loads(second.report.read_text())

    assert second.said.count("An earlier demonstration here was interrupted") == 1
    assert "A retraining is under way here already; following it" in second.said
    assert runs[followed] == "COMPLETED"
    assert not UNDER_WAY & set(runs.values())
    assert {name: service.pid for name, service in after.services.items() if name != "worker"} == {
        name: service.pid for name, service in before.services.items()
    }
    assert second.process.returncode == 3, second.said
    assert report["verdict"] == "refused"
    assert report["seconds"]["start"] < SECONDS
    assert all_of(home) == []
    assert not home.demo_mark.exists()


@pytest.mark.timeout(900)
def test_a_second_demonstration_begins_within_seconds(tmp_path):
    """With a champion there, servers and worker are up within seconds, interrupted or not, and nothing is trained."""
    home = Home(tmp_path)
    with_champion(home)
    first = Played(home, "tiny", "--minutes", "10")
    first.until("The worker", lambda: True if home.worker_status.exists() else None)
    for process in all_of(home):
        with contextlib.suppress(psutil.Error):
            process.kill()
    first.process.wait(PATIENCE_S)

    second = Played(home, "tiny", "--minutes", "0.02")
    second.process.wait(PATIENCE_S)
    report = json.loads(second.report.read_text())

    assert "A champion is here already" in second.said
    assert "Retraining" not in first.said + second.said
    assert second.process.returncode == 0, second.said
    assert report["champion_version"] == "1"
    assert "retrain" not in report["seconds"]
    assert report["seconds"]["start"] + report["seconds"]["worker"] < SECONDS
    assert report["journal_verified"] is True
    assert all_of(home) == []


def with_champion(home: Home) -> None:
    """Register a bundle as champion in the home's own MLflow, as an earlier demonstration would have."""
    home.prepare()
    server = start_mlflow(home.mlflow)
    client = mlflow.MlflowClient(tracking_uri=server.url, registry_uri=server.url)
    client.create_registered_model("quantum-ensemble")
    run = client.create_run(client.create_experiment("quantum-trader"))
    client.log_artifacts(run.info.run_id, str(make_bundle(home.root / "bundle")), "ensemble/artifacts/bundle")
    version = client.create_model_version(
        "quantum-ensemble",
        f"{run.info.artifact_uri}/ensemble",
        run_id=run.info.run_id,
        tags={"gate_verdict": "passed"},
    )
    client.set_registered_model_alias("quantum-ensemble", "champion", version.version)
    stop_process(server.process)
