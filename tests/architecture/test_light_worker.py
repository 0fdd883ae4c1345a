"""The worker's environment and imports stay light."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WORKER_PYTHON = ROOT / ".venv-worker" / "bin" / "python"
HEAVY = (
    *("prefect", "torch", "neuralforecast", "sklearn", "pandas", "mlflow", "duckdb", "polars", "pyarrow", "ray"),
    *("sqlalchemy", "alembic"),
)


def _run(code: str) -> str:
    done = subprocess.run([WORKER_PYTHON, "-c", code], cwd="/", capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


@pytest.mark.parametrize("name", HEAVY)
def test_heavy_library_is_not_installed(name):
    """What trains is not merely unused by the worker: it is not there."""
    # A folder on the path that is only called the same, as mlflow/ here, has no origin.
    found = _run(f"import importlib.util as u; spec = u.find_spec({name!r}); print(bool(spec and spec.origin))")

    assert found.strip() == "False"


def test_importing_the_worker_loads_nothing_heavy():
    """A fresh interpreter that imports the worker has none of the heavy libraries in memory."""
    loaded = _run(
        "import sys, inference.worker, inference.bootstrap.wiring; "
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )

    assert loaded.strip() == "[]"
