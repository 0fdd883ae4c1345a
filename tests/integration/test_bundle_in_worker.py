"""The bundle in the worker's own environment, where nothing that trains is installed."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np

from inference.models.bundle import load_bundle
from tests.training_support import FINGERPRINT, bundle_inputs, trained_candidate

ROOT = Path(__file__).parents[2]
WORKER_PYTHON = ROOT / ".venv-worker" / "bin" / "python"
_SCRIPT = """
import json, sys, time
from pathlib import Path
import numpy as np
from inference.models.bundle import load_bundle

path, arrays, fingerprint = sys.argv[1:]
stored = np.load(arrays)
started = time.process_time()
bundle = load_bundle(Path(path), expected_fingerprint=fingerprint)
loaded = time.process_time() - started
output = bundle.score(stored["inputs"], stored["windows"], stored["returns"])
times = []
for _ in range(60):
    started = time.process_time()
    bundle.score(stored["inputs"], stored["windows"], stored["returns"])
    times.append(time.process_time() - started)
heavy = ("torch", "neuralforecast", "pandas", "sklearn", "mlflow", "prefect", "polars", "pyarrow", "duckdb", "flows")
print(json.dumps({
    "expected": output.expected_return.tolist(), "probability": output.probability_up.tolist(),
    "load_seconds": loaded, "median_ms": 1000 * float(np.median(times)),
    "heavy": sorted(set(heavy) & set(sys.modules)),
}))
"""


def test_the_worker_scores_a_hundred_symbols_as_training_did(tmp_path):
    """Without torch, pandas or scikit-learn: the same numbers, verified in a second's work, scored in milliseconds'."""
    trained = trained_candidate()
    inputs, windows, returns = bundle_inputs(trained.frames, 100)
    np.savez(tmp_path / "arrays.npz", inputs=inputs, windows=windows, returns=returns)
    done = subprocess.run(
        [WORKER_PYTHON, "-c", _SCRIPT, str(trained.path), str(tmp_path / "arrays.npz"), FINGERPRINT],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    ours = load_bundle(trained.path, expected_fingerprint=FINGERPRINT).score(inputs, windows, returns)

    assert found["heavy"] == []
    np.testing.assert_allclose(found["expected"], ours.expected_return, atol=1e-5 * ours.expected_return.std())
    np.testing.assert_allclose(found["probability"], ours.probability_up, atol=1e-4)
    # Time of the processor that it used, which others on a busy machine do not lengthen; doubled twice all the same.
    assert found["load_seconds"] < 4
    assert found["median_ms"] < 60
