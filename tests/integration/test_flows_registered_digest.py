"""Flows that open a registered bundle hold it against the digest that the registry tagged it with."""

from __future__ import annotations

import os
import subprocess
import sys

import msgspec
import pytest

from flows.outcome import TRAINING_CONFIG, TRAINING_REPORT
from flows.registry import Registry, RunLog
from flows.replay.worker_account import Terms
from flows.settings import FlowSettings
from flows.shadow import Downloaded, download, score
from inference.domain.errors import BundleError
from tests.stack_fixtures import QUIET, ROOT

OTHER = "0" * 64


@pytest.fixture(scope="module")
def spoilt(mlflow_server, real_candidate):
    """Promote a version whose tag names another bundle than the one that lies there."""
    registry = Registry(mlflow_server.url)
    run_id = registry.start_run("a bundle that was exchanged", {}, "For a test of digests.")
    texts = {
        TRAINING_REPORT: msgspec.json.encode(real_candidate.report).decode(),
        TRAINING_CONFIG: msgspec.json.encode(real_candidate.config).decode(),
    }
    registry.log(run_id, RunLog(texts=texts))
    version = registry.register(
        run_id, real_candidate.bundle, tags={"bundle_digest": OTHER}, description="For a test of digests."
    )
    registry.finish_run(run_id)
    registry.promote(version.version)
    return version


def test_backtest_and_drift_refuse_an_exchanged_bundle(spoilt, mlflow_server, prefect_server, tmp_path):
    """Neither is traded on stored candles, nor compared with the market, what was not registered."""
    code = (
        "from flows.backtest import backtest; from flows.drift import drift\n"
        f"for run in (lambda: backtest(version='{spoilt.version}'), drift):\n"
        "    try: run()\n"
        "    except Exception as told: print('TOLD', str(told).replace(chr(10), ' '))"
    )
    env = {
        **os.environ, **QUIET, **prefect_server.env,
        "QUANTUM_HOME": str(tmp_path), "QT_VENUE": "sandbox", "QT_MLFLOW_URL": mlflow_server.url,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, timeout=280, check=False
    )
    told = [line for line in done.stdout.splitlines() if line.startswith("TOLD")]

    assert len(told) == 2, done.stderr[-3000:]
    assert all(f"expected {OTHER}" in line for line in told), told


def test_shadow_refuses_an_exchanged_bundle(spoilt, mlflow_server, real_candidate, tmp_path):
    """What is judged is what was registered; an exchanged champion is noted and not compared with."""
    frames, report, config = real_candidate.frames, real_candidate.report, real_candidate.config
    settings = FlowSettings.of(mlflow_url=mlflow_server.url)
    found = download.fn(settings, spoilt, tmp_path)
    assert found.digest == OTHER
    with pytest.raises(BundleError, match=f"expected {OTHER}"):
        score.fn(found, None, frames, report, config, Terms())
    right = Downloaded(real_candidate.bundle, report.bundle_digest)
    scored = score.fn(right, found, frames, report, config, Terms())

    assert scored.bundle_digest == report.bundle_digest
    assert scored.champion_digest is None
    assert any("could not be compared" in note and OTHER in note for note in scored.notes)
    assert score.fn(right, right, frames, report, config, Terms()).champion_digest == report.bundle_digest
