"""What cannot be learned from, kept or registered: a failed run with what to do, and nothing that is half there."""

from __future__ import annotations

import json
import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store.candle import CandleBlock
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
import json, os, resource, sys
from flows.train import train
whole = resource.getrlimit(resource.RLIMIT_FSIZE)
for name, environment in json.loads(sys.argv[1]).items():
    os.environ |= environment
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(environment.get("LARGEST_FILE", whole[0])), whole[1]))
    state = train(size="tiny", days=int(environment["QT_DAYS"]), members="xgboost", return_state=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, whole)
    print("state", json.dumps([name, state.type.value, state.message]))
"""


def stored(home: Path, blocks: dict) -> str:
    lake = CandleLake(home / "lake")
    for series, block in blocks.items():
        lake.append(series, block)
    return str(home)


def still() -> CandleBlock:
    """Return candles of a price that never moves, though it is traded."""
    block = market(CANDLES)
    return CandleBlock(block.open_time_ms, np.column_stack([np.full((CANDLES, 4), 100.0), np.ones(CANDLES)]))


def rising() -> CandleBlock:
    """Return candles of a price that only ever rises: of two classes there is one."""
    block = market(CANDLES)
    close = np.round(100 * np.exp(0.0005 * np.arange(CANDLES)), 6)
    opened = np.append(close[0], close[:-1])
    values = [opened, close * 1.0001, opened * 0.9999, close, block.values[:, 4] + 1]
    return CandleBlock(block.open_time_ms, np.column_stack(values))


def overwritten(home: Path, change: Callable[[pa.Table], pa.Table]) -> str:
    """Store candles, and let another hand write what no candle can be: nothing of ours would."""
    stored(home, {BTC: market(CANDLES)})
    for path in (home / "lake").rglob("*.parquet"):
        pq.write_table(change(pq.read_table(path)), path)
    return str(home)


def closing_at(value: float) -> Callable[[pa.Table], pa.Table]:
    def change(rows: pa.Table) -> pa.Table:
        close = rows.column("close").to_numpy().copy()
        close[5] = value
        place = rows.schema.get_field_index("close")
        return rows.set_column(place, rows.schema.field(place), pa.array(close))

    return change


def doubled(rows: pa.Table) -> pa.Table:
    return pa.concat_tables([rows.slice(0, 6), rows.slice(5)])


SHORT = {BTC: market(280), ETH: market(280)}
WHOLE = {BTC: market(CANDLES), ETH: market(CANDLES, seed=2)}
CASES = {
    "short": (lambda home: stored(home, SHORT), {"QT_DAYS": "1"}, "load more days"),
    "asked": (lambda home: stored(home, SHORT), {"QT_DAYS": "9"}, "ingest more with 'qtctl ingest --days'"),
    "still": (lambda home: stored(home, {BTC: still(), ETH: market(CANDLES)}), {}, "leave it out of QT_SYMBOLS"),
    "rising": (lambda home: stored(home, {BTC: rising()}), {}, "load more days or more symbols"),
    "nan": (lambda home: overwritten(home, closing_at(np.nan)), {}, "fetch it again with: qtctl ingest --repair"),
    "infinite": (lambda home: overwritten(home, closing_at(np.inf)), {}, "fetch it again with: qtctl ingest --repair"),
    "doubled": (lambda home: overwritten(home, doubled), {}, "fetch it again with: qtctl ingest --repair"),
    "full-disk": (lambda home: stored(home, WHOLE), {"LARGEST_FILE": "4096"}, "make room in QUANTUM_HOME"),
    "refusing": (lambda home: stored(home, WHOLE), {"QT_MLFLOW_URL": "refusing"}, "This user may not write"),
}
"""What a home holds, what else is set, and what the failed run says that there is to do."""


@dataclass(frozen=True)
class Ended:
    """How each run ended, where its aliases stood before and after, and what was left of candidates."""

    states: dict[str, tuple[str, str]]
    aliases: tuple[dict[str, object], dict[str, object]]
    left: list[Path]


@pytest.fixture(scope="module")
def ended(prefect_server, mlflow_server, tmp_path_factory) -> Ended:
    """Run flow `train` on all of them, one after the other in one process."""
    registry, homes = Registry(mlflow_server.url), tmp_path_factory.mktemp("homes")
    names = ("champion", "challenger", "previous")
    before = {alias: registry.by_alias(alias) for alias in names}
    with refusing_registry() as url:
        runs = {
            name: {"QT_DAYS": str(DAYS), **more, "QUANTUM_HOME": made(homes / name)}
            | {"QT_MLFLOW_URL": url if "QT_MLFLOW_URL" in more else mlflow_server.url}
            for name, (made, more, _) in CASES.items()
        }
        said = python(RUNS, json.dumps(runs), patience_s=900, **{**QUIET, **prefect_server.env})
    told = [json.loads(line.removeprefix("state ")) for line in said.splitlines() if line.startswith("state ")]
    after = {alias: registry.by_alias(alias) for alias in names}
    left = [path for path in homes.glob("*/candidates/*") if path.is_dir()]
    return Ended({name: (state, message) for name, state, message in told}, (before, after), left)


@pytest.mark.parametrize("name", CASES)
def test_what_cannot_be_trained_on_ends_in_a_failed_run(ended, name):
    """Prefect shows each run as failed, with what to do."""
    state, message = ended.states[name]

    assert state == "FAILED", message
    assert CASES[name][2] in message


def test_runs_that_failed_leave_nothing(ended):
    """No alias moved, and no folder of a candidate is left."""
    before, after = ended.aliases

    assert before == after
    assert not ended.left
