"""Promotion as people meet it: a candidate with good evidence trades, one without is refused, a rollback undoes it."""

from __future__ import annotations

import json

import msgspec
import pytest

from flows.outcome import SHADOW_REPORT, TRAINING_CONFIG, TRAINING_REPORT
from flows.registry import PREVIOUS, Registry, RunLog
from flows.replay.report import ShadowReport
from flows.settings import FlowSettings
from flows.training.gates import judge, load_gates
from inference.models.manifest import TimeWindow
from tests.stack_fixtures import ask, qtctl

# Figures of an ensemble that any gate would let pass.
GOOD = {
    "shadow/coverage": 1.0,
    "shadow/days": 6.0,
    "shadow/independent_outcomes": 900.0,
    "shadow/abstained_share": 0.0,
    "shadow/ensemble/trades": 400.0,
    "shadow/ensemble/rmse_skill_low": 0.01,
    "shadow/ensemble/ic_low": 0.1,
    "shadow/ensemble/net_per_trade_bps_low": 5.0,
    "shadow/ensemble/calibration_error": 0.02,
    "shadow/ensemble_minus_flat/net_per_slot_bps_low": 1.0,
    "shadow/ensemble_minus_persistence/net_per_slot_bps_low": 1.0,
    "shadow/ensemble_minus_half_ridge/net_per_slot_bps_low": 0.5,
    "shadow/ensemble_minus_ridge/net_per_slot_bps_high": 0.5,
    "leakage/shuffled_label_z": 0.1,
}
PLAUSIBLE = {"ic": 0.12, "r2": 0.02, "hit_rate": 0.55}


@pytest.fixture
def env(prefect_server, mlflow_server, tmp_path):
    return {**prefect_server.env, "QUANTUM_HOME": str(tmp_path), "QT_MLFLOW_URL": mlflow_server.url}


@pytest.fixture
def candidate(mlflow_server, real_candidate):
    """Return a function that registers the small bundle with evidence of our choice."""
    registry = Registry(mlflow_server.url)

    def register(**changed: float):
        training = real_candidate.report
        whose = [*(member.name for member in training.members), "ensemble"]
        plausible = {
            f"{window}/{who}/{name}": value
            for window in ("validation", "calibration", "shadow")
            for who in whose
            for name, value in PLAUSIBLE.items()
        }
        coverage = {f"{window}/coverage": 1.0 for window in ("fit", "validation", "calibration")}
        highs = {name.replace("_low", "_high"): value * 2 for name, value in GOOD.items() if name.endswith("_low")}
        metrics = {
            **GOOD,
            **highs,
            **plausible,
            **coverage,
            **{name.replace("__", "/"): v for name, v in changed.items()},
        }
        training = msgspec.structs.replace(training, metrics=metrics)
        shadow = ShadowReport(
            bundle_digest=training.bundle_digest,
            champion_digest=None,
            window=TimeWindow(start_ms=training.windows.shadow.start_ms, end_ms=training.windows.shadow.end_ms),
            candles=1500,
            rows=4500,
            symbols=training.symbols,
            threshold=training.threshold,
            metrics=metrics,
            curves=(),
            stated=(),
            observed=(),
            count=(),
            notes=(),
        )
        texts = {TRAINING_REPORT: training, SHADOW_REPORT: shadow, TRAINING_CONFIG: real_candidate.config}
        run_id = registry.start_run("candidate with chosen evidence", {}, "For a test of promotion.")
        registry.log(run_id, RunLog(texts={path: msgspec.json.encode(one).decode() for path, one in texts.items()}))
        version = registry.register(run_id, real_candidate.bundle, tags={}, description="Not judged yet.")
        registry.finish_run(run_id)
        return version, judge(training, shadow, load_gates(FlowSettings().gates))

    return register


def test_good_evidence_is_promoted(candidate, env, mlflow_server):
    """A candidate that holds every gate of mlflow/gates.yaml becomes champion, described and tagged as such."""
    version, verdict = candidate()
    assert verdict.passed, [check for check in verdict.checks if not check.passed]

    done = qtctl("promote", version.version, "--json", env=env)

    assert done.returncode == 0, done.stderr
    champion = Registry(mlflow_server.url).champion()
    assert champion.version == version.version
    assert champion.tags["gate_verdict"] == "passed"
    assert json.loads(done.stdout)["promoted"] is True
    found = ask(
        f"{mlflow_server.url}/api/2.0/mlflow/model-versions/get?name=quantum-ensemble&version={version.version}"
    )
    assert "passed" in found["model_version"]["description"]


def test_a_single_gate_refuses(candidate, env, mlflow_server):
    """One figure on the wrong side is enough; the champion stays, and the exit status is 3."""
    first, _ = candidate()
    assert qtctl("promote", first.version, env=env).returncode == 0
    second, verdict = candidate(shadow__ensemble__net_per_trade_bps_low=-0.1)
    assert not verdict.passed

    done = qtctl("promote", env=env)

    registry = Registry(mlflow_server.url)
    assert done.returncode == 3
    assert "net_per_trade_low was -0.1, bound 0" in done.stdout
    assert registry.champion().version == first.version
    assert registry.version(second.version).tags["gate_verdict"] == "refused"
    assert "net_per_trade_low" in registry.version(second.version).tags["gate_reasons"]


def test_rollback_restores_what_traded_before(candidate, env, mlflow_server):
    """After two promotions a rollback lets the first trade again."""
    first, _ = candidate()
    second, _ = candidate()
    for version in (first, second):
        assert qtctl("promote", version.version, env=env).returncode == 0

    done = qtctl("rollback", "--json", env=env)

    registry = Registry(mlflow_server.url)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["version"] == first.version
    assert registry.champion().version == first.version
    assert registry.by_alias(PREVIOUS).version == second.version


def test_version_without_shadow_report_cannot_be_promoted(env, mlflow_server, real_candidate):
    """Promotion without evidence fails and says which report is missing."""
    registry = Registry(mlflow_server.url)
    run_id = registry.start_run("candidate without evidence", {}, "For a test of promotion.")
    registry.log(run_id, RunLog(texts={TRAINING_REPORT: msgspec.json.encode(real_candidate.report).decode()}))
    version = registry.register(run_id, real_candidate.bundle, tags={}, description="Not judged yet.")
    registry.finish_run(run_id)

    done = qtctl("promote", version.version, env=env)

    assert done.returncode == 1
    assert SHADOW_REPORT in done.stderr
