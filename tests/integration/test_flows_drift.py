"""The drift flow compares what the champion sees now with what it was fitted on."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import msgspec
import numpy as np
import pytest

from feature_store.candle import CandleBlock, Series, Timeframe
from feature_store.features.definition import MODEL_INPUT_NAMES
from feature_store.lake import CandleLake
from flows.outcome import TRAINING_REPORT
from flows.registry import Registry, RunLog
from tests.stack_fixtures import QUIET, ROOT, ask
from tests.training_support import FIVE_MINUTES_MS, START_MS

CANDLES = 2400


@pytest.fixture
def champion(mlflow_server, real_candidate):
    """Promote the small candidate, whatever its figures: drift asks for a champion and its report only."""
    registry = Registry(mlflow_server.url)
    run_id = registry.start_run("champion of the drift test", {}, "For a test of drift.")
    registry.log(run_id, RunLog(texts={TRAINING_REPORT: msgspec.json.encode(real_candidate.report).decode()}))
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


def test_a_wilder_market_is_drift(champion, prefect_server, mlflow_server, real_candidate, tmp_path):
    """When the last day moves ten times as wide, the inputs that measure it drift, and the champion's run says so."""
    _fill(CandleLake(tmp_path / "lake"), real_candidate.report.symbols, wild_from=CANDLES - 400)
    env = {**os.environ, **QUIET, **prefect_server.env, "QUANTUM_HOME": str(tmp_path), "QT_VENUE": "sandbox"}
    code = "import json; from flows.drift import drift; print('indexes', json.dumps(drift()))"

    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**env, "QT_MLFLOW_URL": mlflow_server.url},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-3000:]
    indexes = json.loads(done.stdout.partition("indexes ")[2])
    assert set(indexes) == set(MODEL_INPUT_NAMES)
    assert max(name for name, index in indexes.items() if index > 1.0 and "volatility" in name)
    metrics = Registry(mlflow_server.url).metrics(champion.run_id)
    assert metrics["drift/psi_max"] == pytest.approx(max(indexes.values()))
    keys = {one["key"] for one in ask(f"{prefect_server.url}/api/artifacts/filter", {})}
    assert {"drift", "drift-summary"} <= keys
