"""The skew flow shows what decisions read other than the lake says, and fails where nothing explains it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from feature_store.partitions import locked, read_partition, write_partition
from feature_store.skew import Cause
from tests.integration.test_skew_causes import BTC, COUNT, Pipeline, stored
from tests.stack_fixtures import QUIET, ROOT, newest_artifacts


def _run(prefect_server, home) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **QUIET, **prefect_server.env, "QUANTUM_HOME": str(home), "QT_VENUE": "sandbox"}
    code = "import json; from flows.skew import skew; print('found', json.dumps(skew()))"
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, timeout=200, check=False
    )


@pytest.fixture
def artifacts(prefect_server):
    """Return a function that reads the newest artifact of a key."""

    def read(key: str) -> str:
        return newest_artifacts(prefect_server)[key]["data"]

    return read


def test_explained_differences_pass_and_others_fail(prefect_server, artifacts, tmp_path):
    """A worker that began elsewhere is shown and passes; a poisoned file fails the run, and the table names it."""
    nothing = _run(prefect_server, tmp_path)
    lake = stored(tmp_path)
    Pipeline(tmp_path, begin=50).decide(3)
    explained = _run(prefect_server, tmp_path)
    causes = json.loads(artifacts("skew-causes"))
    path = lake.paths(BTC)[-1]
    with locked(path):
        rows = read_partition(path)
        rows.block.values[COUNT + 1, 4] *= 3
        write_partition(path, rows)
    poisoned = _run(prefect_server, tmp_path)

    assert nothing.returncode == 0, nothing.stderr[-2000:]
    assert json.loads(nothing.stdout.partition("found ")[2]) == {}
    assert explained.returncode == 0, explained.stderr[-2000:]
    assert json.loads(explained.stdout.partition("found ")[2]) == {Cause.OTHER_START.value: 6}
    assert [(one["cause"], one["candles"], one["series"]) for one in causes] == [(Cause.OTHER_START.value, 6, 2)]
    assert poisoned.returncode != 0
    assert "nothing explains it" in poisoned.stderr
    assert json.loads(artifacts("skew"))[0]["cause"] == Cause.UNEXPLAINED.value
    assert "unexplained" in artifacts("skew-summary")
