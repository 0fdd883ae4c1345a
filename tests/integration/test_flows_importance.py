"""A training looks at what the champion learned from, whatever the registry holds of it."""

from __future__ import annotations

import json

import msgspec
import pytest
from msgspec.structs import replace

from flows.outcome import TRAINING_REPORT
from flows.registry import MODEL_NAME, Registry, RunLog
from tests.stack_fixtures import python_code
from tests.training_support import trained_report

_CODE = """
import json, sys
import msgspec
from prefect import flow
from flows.settings import FlowSettings
from flows.train import beside_champion
from flows.training.report import TrainingReport

@flow
def compare():
    return beside_champion(FlowSettings.of(), msgspec.json.decode(sys.argv[1], type=TrainingReport))

print(json.dumps(compare().metrics))
"""


def _report(**importance: float):
    report = trained_report({"threshold": 0.6})
    return replace(report, members=(replace(report.members[0], importance=importance), *report.members[1:]))


@pytest.mark.parametrize(
    ("logged", "expected"),
    [
        pytest.param(msgspec.json.encode(_report(rsi=0.9, atr=0.1)).decode(), 0.4, id="compared"),
        pytest.param(None, None, id="registered-by-hand"),
        pytest.param("no JSON at all", None, id="damaged"),
        pytest.param('{"members": 7}', None, id="another-shape"),
    ],
)
def test_a_champion_that_tells_nothing_stops_no_training(prefect_server, mlflow_server, tmp_path, logged, expected):
    """The distance is among the training's figures where the champion's report can be read, and else nothing is."""
    registry = Registry(mlflow_server.url)
    registry._ensure_model()
    before = registry.champion()
    run_id = registry.start_run("earlier", {}, "")
    registry.log(run_id, RunLog(texts={} if logged is None else {TRAINING_REPORT: logged}))
    version = registry._client.create_model_version(MODEL_NAME, f"runs:/{run_id}/none", run_id=run_id)
    registry.set_alias("champion", str(version.version))
    env = {**prefect_server.env, "QUANTUM_HOME": str(tmp_path), "QT_MLFLOW_URL": mlflow_server.url}
    try:
        done = python_code(_CODE, msgspec.json.encode(_report(rsi=0.5, atr=0.5)).decode(), env=env)
    finally:
        if before is not None:
            registry.set_alias("champion", before.version)
        else:
            registry.drop_alias("champion")

    assert done.returncode == 0, done.stderr[-3000:]
    metrics = json.loads(done.stdout.splitlines()[-1])
    assert metrics.pop("threshold") == 0.6
    named = {f"importance/{who}/distance_from_champion" for who in ("xgboost", "ensemble")}
    assert metrics == ({} if expected is None else dict.fromkeys(named, pytest.approx(expected)))
