"""A tripwire in Prefect and MLflow: the run fails by name, nothing is registered; and looks at a window are counted."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import mlflow
import msgspec
import pytest

from feature_store.lake import CandleLake
from flows.locked import LOCKED_USES, looks_at, with_looks
from flows.outcome import SHADOW_REPORT
from flows.registry import Registry
from flows.replay.report import ShadowReport
from inference.models.manifest import TimeWindow
from tests.feature_support import BTC, ETH, market
from tests.stack_fixtures import QUIET, ROOT, ask, newest_artifacts

CODE = """
import json
from msgspec.structs import replace
from feature_store.clock import utc_now
from flows import train as module
from flows.registry import Registry
from flows.retraining.work import table_of
from flows.settings import FlowSettings
from flows.shadow import shadow
from flows.training.tripwires import TripwireError
from tests.training_support import LOOSE

honest, versions = module.training_config, []


def trees_within(bounds):
    return lambda *given, **named: replace(honest(*given, **named), members=("xgboost",), tripwires=bounds)


def train(bounds):
    module.training_config = trees_within(bounds)
    try:
        return module.train(venue="sandbox", days=6, size="tiny")
    finally:
        versions.append(len(Registry(FlowSettings.of().registry_address).versions()))


versions.append(len(Registry(FlowSettings.of().registry_address).versions()))
wires = ()
try:
    train(replace(LOOSE, independent_outcomes=1000.0))
except TripwireError as error:
    wires = error.wires
candidate = train(replace(LOOSE, audits=True))
looks = [shadow(version=candidate.version)["shadow/locked_uses"] for _ in range(2)]
jobs = table_of(FlowSettings.of())
job = jobs.add("full", "demand", ("xgboost",), {}, utc_now()).job_id
jobs.change(job, status="running")
looks += [shadow(version=candidate.version, job=job)["shadow/locked_uses"] for _ in range(2)]
print("result", json.dumps([wires, versions, candidate.run_id, looks]))
"""


@pytest.fixture(scope="module")
def played(prefect_server, mlflow_server, tmp_path_factory):
    """One training that a tripwire stops, one that goes through, and four looks at the locked window of that."""
    home = tmp_path_factory.mktemp("home")
    lake = CandleLake(home / "lake")
    for seed, series in enumerate((BTC, ETH)):
        lake.append(series, market(1800, seed=seed))
    env = {
        **os.environ, **QUIET, **prefect_server.env, "QUANTUM_HOME": str(home), "QT_MLFLOW_URL": mlflow_server.url,
        "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=ROOT, env=env, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.partition("result ")[2])


def test_nothing_is_registered_by_a_run_that_was_stopped(played):
    """The wire is named, and there is one version more only after the run that went through."""
    wires, (before, stopped, through), _, _ = played

    assert wires == ["too_few_outcomes"]
    assert (stopped - before, through - before) == (0, 1)


def test_prefect_shows_why(prefect_server, played):
    """The flow run has failed, its message names the wire, and an artifact says what to do."""
    runs = ask(
        f"{prefect_server.url}/api/flow_runs/filter",
        {"flows": {"name": {"any_": ["train"]}}, "sort": "START_TIME_DESC", "limit": 20},
    )
    (state,) = (run["state"] for run in runs if "too_few_outcomes" in (run["state"]["message"] or ""))
    artifact = newest_artifacts(prefect_server)["training-failure"]

    assert state["type"] == "FAILED"
    assert "What to do: load more days" in state["message"]
    assert "Training was stopped: too_few_outcomes" in artifact["data"]
    assert "load more days with --days" in artifact["data"]
    assert "nothing was registered" in artifact["description"]


def test_mlflow_shows_why(mlflow_server, played):
    """The run in MLflow has failed, and carries the wire as a tag and the same text as a file."""
    client = mlflow.MlflowClient(tracking_uri=mlflow_server.url)
    experiments = [one.experiment_id for one in client.search_experiments()]
    found = client.search_runs(experiments, "tags.tripwires = 'too_few_outcomes'")

    assert [run.info.status for run in found] == ["FAILED"]
    text = Registry(mlflow_server.url).read_text(found[0].info.run_id, "reports/tripwires.md")
    assert "Nothing was registered, no alias moved" in text


def test_each_look_at_the_locked_window_is_counted(mlflow_server, played):
    """A further look is allowed, and seen: in figures, tags and report; a job that goes on again looks once."""
    _, _, run_id, looks = played
    registry = Registry(mlflow_server.url)
    report = msgspec.json.decode(registry.read_text(run_id, SHADOW_REPORT), type=ShadowReport)

    assert looks == [1, 2, 3, 3]
    assert registry.metrics(run_id)[LOCKED_USES] == 3
    assert len(looks_at(registry.run_tags(run_id))) == 3
    assert any(note.startswith("**This is look 3") for note in report.notes)
    assert "**This is look 3" in registry.read_text(run_id, "reports/shadow.md")


def test_figures_of_the_folds_are_logged(mlflow_server, played):
    """What folds say is beside all other figures of the run, and in its report for people."""
    registry = Registry(mlflow_server.url)
    metrics = registry.metrics(played[2])

    assert metrics["cpcv/paths"] == 3
    assert {"walk_forward/ridge/ic_mean", "cpcv/trees/net_per_slot_bps_negative_share"} <= set(metrics)
    assert "### Out of fold, with cheap refits" in registry.read_text(played[2], "reports/training.md")


def test_the_first_look_needs_no_remark():
    """A report of the first look is as it was, with its count."""
    report = ShadowReport(
        bundle_digest="a", champion_digest=None, window=TimeWindow(start_ms=0, end_ms=1), candles=1, rows=1,
        symbols=("A",), threshold=0.6, metrics={"shadow/days": 1.0}, curves=(), stated=(), observed=(), count=(),
        notes=("kept",),
    )  # fmt: skip
    first = with_looks(report, 1)

    assert first.notes == ("kept",)
    assert first.metrics == {"shadow/days": 1.0, LOCKED_USES: 1.0}
    assert len(with_looks(report, 3).notes) == 2
