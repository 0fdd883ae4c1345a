"""The profile flow measures what is stored and shows it in Prefect."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np

from feature_store.candle import CandleBlock, Series, Timeframe
from feature_store.features.definition import FEATURE_NAMES, MODEL_INPUT_NAMES
from feature_store.lake import CandleLake
from tests.stack_fixtures import QUIET, ROOT, newest_artifacts
from tests.training_support import FIVE_MINUTES_MS, START_MS


def test_profiles_are_shown_as_tables(prefect_server, tmp_path):
    """It measures the months of every series, publishes a row for each feature and input, and twice changes nothing."""
    times = START_MS + FIVE_MINUTES_MS * np.arange(400, dtype=np.int64)
    close = 100 + np.sin(np.arange(400) / 9)
    block = CandleBlock(times, np.stack([close, close + 1, close - 1, close, np.ones(400)], axis=1))
    lake = CandleLake(tmp_path / "lake")
    for symbol in ("BTC/USDT:USDT", "ETH/USDT:USDT"):
        lake.append(Series("sandbox", symbol, Timeframe.M5), block)
    env = {**os.environ, **QUIET, **prefect_server.env, "QUANTUM_HOME": str(tmp_path), "QT_VENUE": "sandbox"}
    code = (
        "import json; from flows.feature_profile import profile; print('measured', json.dumps([profile(), profile()]))"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, timeout=200, check=False
    )

    assert done.returncode == 0, done.stderr[-3000:]
    first, second = json.loads(done.stdout.partition("measured ")[2])
    assert set(first) == {"BTC/USDT:USDT", "ETH/USDT:USDT"}
    assert min(first.values()) >= 1
    assert set(second.values()) == {0}
    artifacts = newest_artifacts(prefect_server)
    assert [row["name"] for row in json.loads(artifacts["profile-features"]["data"])] == list(FEATURE_NAMES)
    assert [row["name"] for row in json.loads(artifacts["profile-inputs"]["data"])] == list(MODEL_INPUT_NAMES)
