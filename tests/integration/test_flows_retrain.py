"""The retrain flow, run as a deployment by a Prefect worker against a real exchange and a real registry."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec
import pytest

from flows.outcome import SHADOW_REPORT, TRAINING_REPORT, Promotion
from flows.registry import Registry
from flows.replay.report import ShadowReport
from flows.training.gates import ALWAYS_ASKED
from flows.training.report import TrainingReport
from tests.stack_fixtures import ask, forget_deployments, prefect_command, prefect_worker, qtctl, sandbox_venue

MEMBERS = ("xgboost", "lightgbm", "nhits", "patchtst")


@dataclass(frozen=True)
class Retrained:
    """One finished retraining and where its traces are."""

    api: str
    env: Mapping[str, str]
    status: int
    result: Promotion
    flow_run: dict[str, object]
    names: dict[str, str]
    artifacts: dict[str, dict[str, object]]
    registry: Registry


@pytest.fixture(scope="module")
def retrained(prefect_server, mlflow_server, tmp_path_factory) -> Retrained:
    home = tmp_path_factory.mktemp("home")
    api = f"{prefect_server.url}/api"
    forget_deployments(prefect_server)
    prefect_command(prefect_server, "work-pool", "create", "quantum", "--type", "process", "--overwrite")
    prefect_command(prefect_server, "deploy", "--all", env={"QT_SCHEDULES": "false"})
    with sandbox_venue(home / "sandbox", symbols=3, speed=60) as venue:
        env = {"QUANTUM_HOME": str(home), "QT_VENUE_URL": venue, "QT_MLFLOW_URL": mlflow_server.url}
        with prefect_worker(prefect_server, env):
            done = qtctl(
                *("retrain", "--deployment", "--days", "6", "--size", "tiny", "--json"),
                env={**prefect_server.env, "QUANTUM_HOME": str(home)},
            )
            assert done.returncode in (0, 3, 4), (
                done.stderr + (prefect_server.home / "prefect-worker.log").read_text()[-9000:]
            )
        runs = ask(f"{api}/flow_runs/filter", {"deployments": {"name": {"any_": ["retrain"]}}})
        (parent,) = runs
        children = ask(f"{api}/flow_runs/filter", {"flow_runs": {"parent_flow_run_id": {"any_": [parent["id"]]}}})
        # The registry is shared with other tests: what drift says of a champion of theirs is no part of this claim.
        children = [run for run in children if not run["name"].startswith("drift")]
        ids = [parent["id"], *(run["id"] for run in children)]
        scope = {"flow_runs": {"id": {"any_": ids}}}
        # A subflow is in its parent's tasks too, under its own name.
        tasks = [run for run in ask(f"{api}/task_runs/filter", scope) if not run["name"].lower().startswith("drift")]
        artifacts = ask(f"{api}/artifacts/filter", scope)
        yield Retrained(
            api=api,
            env={**prefect_server.env, **env},
            status=done.returncode,
            result=msgspec.json.decode(done.stdout, type=Promotion),
            flow_run=parent,
            names={run["name"]: run["state_type"] for run in [*children, *tasks]},
            artifacts={artifact["key"]: artifact for artifact in artifacts if artifact["key"]},
            registry=Registry(mlflow_server.url),
        )


def test_worker_executed_the_deployment(retrained):
    """The run belongs to the deployment, ran in the pool `quantum`, and completed: a refusal is no failure."""
    assert retrained.flow_run["deployment_id"]
    assert retrained.flow_run["work_pool_name"] == "quantum"
    assert retrained.flow_run["state_type"] == "COMPLETED"


def test_every_step_has_a_readable_name(retrained):
    """Steps are subflows and tasks that say what they worked on, and each completed."""
    expected = {"ingest-BTC/USDT:USDT-5m", "features-BTC/USDT:USDT-5m", "train-members", "score-in-shadow"}
    expected |= {f"{step} v{retrained.result.version}" for step in ("shadow", "promote")}
    expected |= {f"{step} sandbox 5m" for step in ("ingest", "features", "train")}

    assert expected <= set(retrained.names)
    assert {name: state for name, state in retrained.names.items() if state != "COMPLETED"} == {}


def test_artifacts_tell_the_story(retrained):
    """Progress, coverage, reports, gates and result are there, and the texts lead to the MLflow run."""
    progress = {f"progress-{step}" for step in ("ingest", "features", "train", "shadow", "retrain")}
    assert progress <= set(retrained.artifacts)
    assert {
        "coverage",
        "quality",
        "coverage-map",
        "coverage-picture",
        "features",
        "training-report",
        "shadow-report",
        "gates",
        "retrain-result",
    } <= set(retrained.artifacts)
    assert all(float(retrained.artifacts[key]["data"]) == 100 for key in progress)
    for key in ("training-report", "shadow-report", "verdict", "retrain-summary"):
        assert f"runs/{retrained.result.run_id}" in retrained.artifacts[key]["data"]
    for key in ("gates", "retrain-result"):
        assert f"runs/{retrained.result.run_id}" in retrained.artifacts[key]["description"]


def test_result_agrees_everywhere(retrained):
    """Exit status, printed JSON, artifact and registry tags say the same."""
    (row,) = json.loads(retrained.artifacts["retrain-result"]["data"])
    version = retrained.registry.version(retrained.result.version)

    assert msgspec.convert(row, Promotion) == retrained.result
    assert retrained.status == {"promoted": 0, "refused": 3, "held": 4}[retrained.result.verdict]
    assert version.tags["gate_verdict"] == retrained.result.verdict.value.replace("promoted", "passed")
    assert version.run_id == retrained.result.run_id
    assert int(version.tags["shadow_candles"]) > 0


def test_six_days_are_refused(retrained):
    """A candidate judged on a day or two of shadow is refused, the gate is named, and nothing trades."""
    assert not retrained.result.promoted
    assert any(reason.startswith("shadow_days was ") for reason in retrained.result.reasons)
    champion = retrained.registry.champion()
    assert champion is None or champion.version != retrained.result.version


def test_every_gate_is_shown(retrained):
    """The table names every gate that was held, with its figure and bound."""
    rows = json.loads(retrained.artifacts["gates"]["data"])

    assert {row["gate"] for row in rows} >= set(ALWAYS_ASKED)
    assert all({"held", "value", "bound", "why"} <= set(row) for row in rows)


def test_run_holds_scores_of_all_members_and_baselines(retrained):
    """One MLflow run carries the same figures for four members, the ensemble and the naive baselines."""
    metrics = retrained.registry.metrics(retrained.result.run_id)

    for window in ("calibration", "shadow"):
        for who in (*MEMBERS, "ensemble", "zero", "persistence", "ridge"):
            assert {f"{window}/{who}/{score}" for score in ("rmse", "mae", "r2")} <= set(metrics), (window, who)
        assert f"{window}/ensemble/hit_rate" in metrics


def test_run_holds_plots_and_reports(retrained, mlflow_server):
    """Calibration, cumulative net return and importance are drawn; both reports decode into what wrote them."""
    base = f"{mlflow_server.url}/api/2.0/mlflow/artifacts/list?run_id={retrained.result.run_id}&path=plots"
    plots = {file["path"] for file in ask(base)["files"]}
    training = retrained.registry.read_text(retrained.result.run_id, TRAINING_REPORT)
    shadow = retrained.registry.read_text(retrained.result.run_id, SHADOW_REPORT)

    wanted = ("calibration_curve", "cumulative_net_return", "feature_importance")
    assert {f"plots/{name}.png" for name in wanted} <= plots
    digest = msgspec.json.decode(training, type=TrainingReport).bundle_digest
    assert msgspec.json.decode(shadow, type=ShadowReport).bundle_digest == digest


def test_second_ingest_fetches_only_what_is_new(retrained):
    """Run again at once, ingest finds at most the candle or two that closed meanwhile on the fast clock."""
    done = qtctl("ingest", "--days", "6", "--json", env=retrained.env)

    assert done.returncode == 0, done.stderr
    added = json.loads(done.stdout)
    assert len(added) == 3
    assert all(0 <= candles <= 60 for candles in added.values())


def test_a_candidate_of_a_past_moment_and_another_label(retrained, mlflow_server):
    """`--as-of` ends every window by then, `--label barrier` trains, and the run's parameters record both."""
    read = retrained.registry.read_text
    newest = msgspec.json.decode(read(retrained.result.run_id, TRAINING_REPORT), type=TrainingReport).windows.shadow
    as_of = datetime.fromtimestamp((newest.end_ms - 86_400_000) / 1000, UTC)
    done = qtctl(
        *("train", "--as-of", as_of.isoformat(), "--label", "barrier", "--days", "5", "--size", "tiny", "--json"),
        env=retrained.env,
    )
    assert done.returncode == 0, done.stderr
    candidate = json.loads(done.stdout)
    scored = qtctl("shadow", candidate["version"], "--json", env=retrained.env)
    assert scored.returncode == 0, scored.stderr
    report = msgspec.json.decode(read(candidate["run_id"], TRAINING_REPORT), type=TrainingReport)
    run = ask(f"{mlflow_server.url}/api/2.0/mlflow/runs/get?run_id={candidate['run_id']}")["run"]
    params = {param["key"]: param["value"] for param in run["data"]["params"]}

    as_of_ms = int(as_of.timestamp() * 1000)
    assert as_of_ms - 600_000 < report.windows.shadow.end_ms <= as_of_ms
    assert datetime.fromisoformat(params["as_of"]) == as_of
    assert (params["label"], params["barriers.holding_candles"]) == ("barrier", "12")
    assert json.loads(scored.stdout)["shadow/ensemble/rmse"] > 0


def test_a_job_between_takes_the_deep_members_over(retrained, tmp_path):
    """Trees are fitted on the newest candles, nets are those of the job before, to the byte; all are judged anew."""
    before = json.loads(qtctl("jobs", "--json", env=retrained.env).stdout)
    done = qtctl(
        *("retrain", "--kind", "incremental", "--days", "6", "--size", "tiny", "--json"),
        env=retrained.env,
    )
    assert done.returncode in (0, 3, 4), done.stderr
    result = msgspec.json.decode(done.stdout, type=Promotion)
    job = json.loads(qtctl("jobs", "--json", env=retrained.env).stdout)[0]
    reports = [
        msgspec.json.decode(retrained.registry.read_text(run, TRAINING_REPORT), type=TrainingReport)
        for run in (retrained.result.run_id, result.run_id)
    ]
    bundles = []
    for version in (retrained.result.version, result.version):
        (tmp_path / version).mkdir()
        bundles.append(retrained.registry.download_bundle(version, tmp_path / version))

    assert job["type"] == "incremental"
    assert job["kept"] == ["nhits", "patchtst"]
    assert job["job_id"] not in {one["job_id"] for one in before}
    assert result.version != retrained.result.version
    assert set(reports[1].kept_members) <= {"nhits", "patchtst"}
    assert "shadow/ensemble/rmse" in retrained.registry.metrics(result.run_id)
    for name in ("nhits.onnx", "patchtst.onnx"):
        assert (bundles[0] / name).read_bytes() == (bundles[1] / name).read_bytes()
