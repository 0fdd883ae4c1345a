"""What cannot be learned from, kept or registered: a failed run with what to do, and nothing that is half there."""

from __future__ import annotations

import json
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from feature_store.lake import CandleLake
from flows.failures import StorageError, storage_errors
from flows.registry import Registry, RegistryError
from flows.retraining.work import job_of, table_of
from flows.settings import FlowSettings
from flows.training.pipeline import train_candidate
from inference.models.manifest import MANIFEST_NAME
from tests.feature_support import BTC, ETH, market, python
from tests.stack_fixtures import QUIET
from tests.training_support import make_frames, silent, small_config

DAYS = 6
CANDLES = DAYS * 288


@contextmanager
def no_room(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size: to a program the same as a disk that has no room left."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def refusing_registry() -> Iterator[str]:
    """Run a server that answers as MLflow does where somebody may read and not write."""

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if "alias" in self.path or "experiments" in self.path:
                self._answer(404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "No such thing"})
                return
            version = {"name": "quantum-ensemble", "version": "1"}
            self._answer(200, {"registered_model": {"name": "quantum-ensemble"}, "model_version": version})

        def do_POST(self) -> None:
            self._answer(403, {"error_code": "PERMISSION_DENIED", "message": "This user may not write"})

        def _answer(self, status: int, body: dict[str, object]) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def export_without_room(folder) -> None:
    frames, config = make_frames(series=2, candles=1200, edge=1.0), small_config(members=("xgboost", "lightgbm"))
    with storage_errors(), no_room(4096):
        train_candidate(frames, config, folder, silent)


def test_a_disk_that_fills_during_export_leaves_no_bundle(tmp_path):
    """The error says what to do, and a folder without a manifest is no bundle to anybody."""
    with pytest.raises(StorageError, match="make room in QUANTUM_HOME"):
        export_without_room(tmp_path / "bundle")
    assert not (tmp_path / "bundle" / MANIFEST_NAME).exists()


def fill_up(settings) -> None:
    order = {"trigger": "schedule", "kind": None, "models": ("xgboost",), "parameters": {}, "resume": None}
    with job_of(settings, **order, tell=lambda _: None) as steps:
        steps.keep("fit-xgboost", b"small")
        with storage_errors(), no_room(64 * 1024):
            steps.keep("fit-nhits", b"large" * 100_000)


def test_a_disk_that_fills_fails_the_job_and_loses_no_step(tmp_path):
    """What was kept before stays, what did not fit is as if it had never been, and the job's row says why."""
    settings = FlowSettings.of(home=tmp_path)
    with pytest.raises(StorageError):
        fill_up(settings)
    (job,) = table_of(settings).jobs()

    assert job.status == "failed"
    assert "make room in QUANTUM_HOME" in str(job.error_message)
    assert list(table_of(settings).steps(job.job_id)) == ["fit-xgboost"]
    assert [path.name for path in (settings.jobs / job.job_id).iterdir()] == ["fit-xgboost.kept"]


def test_a_registry_that_rejects_writes_says_so():
    """Opening a run, moving an alias and registering are refused in its words; asked again it would not help."""
    with refusing_registry() as url:
        registry = Registry(url)
        for change in (
            lambda: registry.start_run("a candidate", {}, "For a test."),
            lambda: registry.set_alias("champion", "1"),
            lambda: registry.promote("1"),
        ):
            with pytest.raises(RegistryError, match=r"refused to .*This user may not write"):
                change()


RUNS = """
import json, os, sys
from flows.train import train
for name, environment in json.loads(sys.argv[1]).items():
    os.environ |= environment
    state = train(size="tiny", days=int(environment["QT_DAYS"]), return_state=True)
    print("state", json.dumps([name, state.type.value, state.message]))
"""


def stored(home, blocks: dict) -> str:
    lake = CandleLake(home / "lake")
    for series, block in blocks.items():
        lake.append(series, block)
    return str(home)


def test_what_cannot_be_trained_on_ends_in_a_failed_run(prefect_server, mlflow_server, tmp_path):
    """Too little history, less than was asked for, and a registry that refuses: each run failed, with what to do."""
    registry = Registry(mlflow_server.url)
    before = {alias: registry.by_alias(alias) for alias in ("champion", "challenger", "previous")}
    with refusing_registry() as url:
        runs = {
            "short": {"QUANTUM_HOME": stored(tmp_path / "short", {BTC: market(280), ETH: market(280)}), "QT_DAYS": "1"},
            "asked": {"QUANTUM_HOME": stored(tmp_path / "asked", {BTC: market(280), ETH: market(280)}), "QT_DAYS": "9"},
            "refusing": {"QUANTUM_HOME": stored(tmp_path / "refusing", {BTC: market(CANDLES)}), "QT_MLFLOW_URL": url,
                         "QT_DAYS": str(DAYS)},
        }  # fmt: skip
        said = python(RUNS, json.dumps(runs), **{**QUIET, **prefect_server.env, "QT_MLFLOW_URL": mlflow_server.url})
    states = [json.loads(line.removeprefix("state ")) for line in said.splitlines() if line.startswith("state ")]
    messages = {name: message for name, _, message in states}

    assert {name: state for name, state, _ in states} == dict.fromkeys(runs, "FAILED")
    assert "load more days" in messages["short"], messages
    assert "ingest more with 'qtctl ingest --days'" in messages["asked"], messages
    assert "This user may not write" in messages["refusing"], messages
    assert {alias: registry.by_alias(alias) for alias in before} == before
    assert not [path for path in tmp_path.glob("*/candidates/*") if path.is_dir()]
