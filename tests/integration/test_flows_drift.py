"""The drift flow compares what the champion sees with when it was made, and an automation retrains on what it says."""

from __future__ import annotations

import json
import time
import urllib.request
from uuid import uuid4

import msgspec
import numpy as np
import pytest

from feature_store.candle import CandleBlock, Series, Timeframe
from feature_store.clock import utc_now
from feature_store.features.definition import MODEL_INPUT_NAMES
from feature_store.lake import CandleLake
from flows.outcome import TRAINING_CONFIG, TRAINING_REPORT
from flows.registry import Registry, RunLog
from tests.stack_fixtures import ask, forget_deployments, newest_artifacts, prefect_command, python_code
from tests.training_support import FIVE_MINUTES_MS, START_MS

CANDLES = 2400 + 288


@pytest.fixture
def champion(mlflow_server, real_candidate):
    """Promote the small candidate, whatever its figures: drift asks for a champion, its bundle and its reports."""
    registry = Registry(mlflow_server.url)
    run_id = registry.start_run("champion of the drift test", {}, "For a test of drift.")
    texts = {
        TRAINING_REPORT: msgspec.json.encode(real_candidate.report).decode(),
        TRAINING_CONFIG: msgspec.json.encode(real_candidate.config).decode(),
    }
    registry.log(run_id, RunLog(texts=texts))
    version = registry.register(run_id, real_candidate.bundle, tags={}, description="Champion of a test.")
    registry.finish_run(run_id)
    registry.promote(version.version)
    return version


def _fill(lake: CandleLake, symbols, *, wild_from: int) -> None:
    """Store random walks whose moves are ten times as wide from some candle on."""
    for number, symbol in enumerate(symbols):
        rng = np.random.default_rng(number)
        width = np.where(np.arange(CANDLES) < wild_from, 0.001, 0.01)
        close = 100 * np.exp(np.cumsum(rng.normal(0, 1, CANDLES) * width))
        opened = np.concatenate([[100.0], close[:-1]])
        high, low = np.maximum(opened, close) * 1.0002, np.minimum(opened, close) * 0.9998
        values = np.stack([opened, high, low, close, rng.uniform(1, 2, CANDLES)], axis=1)
        times = START_MS + FIVE_MINUTES_MS * np.arange(CANDLES, dtype=np.int64)
        lake.append(Series("sandbox", symbol, Timeframe.M5), CandleBlock(times, values))


def test_a_wilder_market_is_drift_and_asks_once(champion, prefect_server, mlflow_server, real_candidate, tmp_path):
    """When the last hours move ten times as wide, inputs drift, MLflow and Prefect say so, and it is retrained once."""
    _fill(CandleLake(tmp_path / "lake"), real_candidate.report.symbols, wild_from=CANDLES - 100)
    env = {**prefect_server.env, "QUANTUM_HOME": str(tmp_path), "QT_VENUE": "sandbox"}
    code = (
        "from feature_store.terminal import run; from flows.drift_command import drift\n"
        "print('statuses', *(run(drift, ['--hours', '6', '--json']) for _ in range(2)))"
    )

    done = python_code(code, env={**env, "QT_MLFLOW_URL": mlflow_server.url})

    assert done.returncode == 0, done.stderr[-3000:]
    *told, statuses = done.stdout.splitlines()
    first, second = map(json.loads, told)
    assert statuses == "statuses 3 3"
    assert first["verdict"] == "drifted"
    assert any("volatility" in name for name in first["drifted"]["inputs"])
    assert (first["retraining"], second["retraining"]) == ("wanted", "cooling-down")
    registry = Registry(mlflow_server.url)
    metrics = registry.metrics(champion.run_id)
    assert {f"drift/psi/{name}" for name in MODEL_INPUT_NAMES} & set(metrics)
    assert metrics["drift/inputs_score"] > metrics["drift/inputs_limit"]
    page = registry.read_text(champion.run_id, "drift/evidently.html")
    assert "<html" in page
    assert "wasserstein" in page.lower()
    stamped = registry.version(champion.version).tags["drift_verdict"].rpartition(" ")[2]
    assert registry.read_text(champion.run_id, f"drift/evidently/{stamped}.html") == page
    assert registry.version(champion.version).tags["drift_verdict"].startswith("drifted")
    assert {"drift", "drift-performance", "drift-summary"} <= set(newest_artifacts(prefect_server))
    events = _events(prefect_server, "quantum.drift.detected")
    assert [one["resource"]["quantum.retrain"] for one in events] == ["wanted", "cooling-down"]
    assert events[0]["payload"]["verdict"] == "drifted"


def test_a_held_challenger_is_asked_too(prefect_server, mlflow_server, real_candidate, tmp_path):
    """A challenger that is held back is compared with its own training: its run, its tag and the report say so."""
    registry = Registry(mlflow_server.url)
    before = registry.champion()
    if before is not None:
        registry.drop_alias("champion")
    run_id = registry.start_run("challenger of the drift test", {}, "For a test of drift.")
    texts = {
        TRAINING_REPORT: msgspec.json.encode(real_candidate.report).decode(),
        TRAINING_CONFIG: msgspec.json.encode(real_candidate.config).decode(),
    }
    registry.log(run_id, RunLog(texts=texts))
    held = registry.register(run_id, real_candidate.bundle, tags={"gate_verdict": "held"}, description="Challenger.")
    registry.finish_run(run_id)
    _fill(CandleLake(tmp_path / "lake"), real_candidate.report.symbols, wild_from=CANDLES - 100)
    env = {**prefect_server.env, "QUANTUM_HOME": str(tmp_path), "QT_VENUE": "sandbox"}
    code = (
        "from feature_store.terminal import run; from flows.drift_command import drift\n"
        "print('statuses', *(run(drift, ['--hours', hours, '--json']) for hours in ('6', '2000')))"
    )

    done = python_code(code, env={**env, "QT_MLFLOW_URL": mlflow_server.url})

    registry.drop_alias("challenger")
    if before is not None:
        registry.set_alias("champion", before.version)
    assert done.returncode == 0, done.stderr[-3000:]
    *told, statuses = done.stdout.splitlines()
    found, unknown = (json.loads(one) for one in told)
    assert statuses == "statuses 0 0"
    assert (found["verdict"], found["challenger"]["version"]) == ("no-champion", held.version)
    assert found["challenger"]["verdict"] == "drifted"
    assert any("volatility" in name for name in found["challenger"]["drifted"])
    assert "reach into the window the challenger was fitted on" in unknown["challenger"]["summary"]
    metrics = registry.metrics(held.run_id)
    assert metrics["drift/inputs_score"] > metrics["drift/inputs_limit"]
    assert not any(name.startswith("drift/performance") for name in metrics)
    assert "could not be judged" in registry.read_text(held.run_id, "drift/summary.md")
    assert registry.version(held.version).tags["drift_verdict"].startswith("too-few")
    assert "challenger that is held back" in newest_artifacts(prefect_server)["drift-summary"]["data"]


def test_without_a_champion_the_run_completes_and_says_so(prefect_server, mlflow_server, tmp_path):
    """Nothing was promoted: a completed run, one sentence as result and artifact, no event, and status 0."""
    registry = Registry(mlflow_server.url)
    before = registry.champion()
    if before is not None:
        registry.drop_alias("champion")
    if registry.by_alias("challenger") is not None:
        registry.drop_alias("challenger")
    code = (
        "import json, msgspec; from flows.drift import drift; from feature_store.terminal import run\n"
        "from flows.drift_command import drift as command\n"
        "state = drift(return_state=True)\n"
        "print(json.dumps([state.type.value, msgspec.to_builtins(state.result())]))\n"
        "print('status', run(command, []))"
    )

    done = python_code(
        code, env={**prefect_server.env, "QUANTUM_HOME": str(tmp_path), "QT_MLFLOW_URL": mlflow_server.url}
    )

    assert done.returncode == 0, done.stderr[-3000:]
    kind, result = json.loads(next(line for line in done.stdout.splitlines() if line.startswith('["')))
    sentence = "Nothing was promoted yet: there is no champion to compare with"
    assert kind == "COMPLETED"
    assert (result["verdict"], result["summary"], result["retraining"]) == ("no-champion", sentence, "not-needed")
    assert (result["version"], result["drifted"]) == (None, {})
    assert "status 0" in done.stdout
    assert f"{sentence}." in done.stdout.splitlines()
    assert newest_artifacts(prefect_server)["drift-summary"]["data"] == f"{sentence}."
    assert registry.champion() is None
    if before is not None:
        registry.set_alias("champion", before.version)


def _events(server, name: str, patience: float = 30.0) -> list[dict]:
    """Return the events of a name, the earliest first, once there are two: the server takes them in the background."""
    deadline = time.perf_counter() + patience
    found: list[dict] = []
    while len(found) < 2 and time.perf_counter() < deadline:
        found = ask(f"{server.url}/api/events/filter", {"filter": {"event": {"name": [name]}}})["events"]
        time.sleep(0.2)
    return sorted(found, key=lambda one: one["occurred"])


def test_an_automation_retrains_on_what_is_wanted(prefect_server):
    """An event that wants a retraining has one, booked under its own trigger; others, and those that rest, none."""
    forget_deployments(prefect_server)
    prefect_command(prefect_server, "work-pool", "create", "quantum", "--type", "process", "--overwrite")
    resting = _automations(prefect_server, QT_SCHEDULES="false")
    ours = _automations(prefect_server)
    booked = []
    for number, event in enumerate(("quantum.model.degraded", "quantum.drift.detected"), start=1):
        for label in ("cooling-down", "under-way", "wanted"):
            _send(prefect_server, event, label)
        booked.append([one["parameters"] for one in _triggered(prefect_server, number)])

    assert [one["enabled"] for one in resting] == [False, False]
    named = {one["name"]: one["enabled"] for one in ours}
    assert named == {"retrain on degradation": True, "retrain on drift": True}
    by_degradation, by_both = booked
    assert by_degradation == [{"trigger": "degradation"}]
    assert sorted(one["trigger"] for one in by_both) == ["degradation", "drift"]


def _automations(server, **environment: str) -> list[dict]:
    """Deploy the retraining, and return the automations that run it."""
    prefect_command(server, "deploy", "--name", "retrain", env=environment)
    (deployment,) = ask(f"{server.url}/api/deployments/filter", {})
    every = ask(f"{server.url}/api/automations/filter", {})
    return [one for one in every if one["actions"][0].get("deployment_id") == deployment["id"]]


def _send(server, event: str, label: str) -> None:
    resource = {"prefect.resource.id": "quantum-ensemble.version.7", "quantum.retrain": label}
    one = {"occurred": utc_now().isoformat(), "event": event, "resource": resource, "id": str(uuid4()), "payload": {}}
    order = urllib.request.Request(
        f"{server.url}/api/events", json.dumps([one]).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(order, timeout=60) as answer:
        assert answer.status == 204


def _triggered(server, count: int, patience: float = 60.0) -> list[dict]:
    """Return the runs that an automation ordered, once there are so many and time for another has passed."""
    deadline = time.perf_counter() + patience
    found: list[dict] = []
    while len(found) < count and time.perf_counter() < deadline:
        time.sleep(0.5)
        found = _ordered(server)
    time.sleep(2)
    return _ordered(server)


def _ordered(server) -> list[dict]:
    runs = ask(f"{server.url}/api/flow_runs/filter", {"deployments": {"name": {"any_": ["retrain"]}}})
    return [one for one in runs if (one.get("created_by") or {}).get("type") == "AUTOMATION"]
