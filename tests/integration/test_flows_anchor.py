"""The flow anchor keeps the journal's head in MLflow, and `qtctl audit verify` holds the journal against it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from flows.registry import Registry
from inference import cli
from inference.journal.anchor import EXPERIMENT, anchor_key, journal_name
from tests.fault.test_journal_anchors import cut, write
from tests.stack_fixtures import QUIET, ROOT


@pytest.fixture
def anchored(prefect_server, mlflow_server):
    """Return a function that runs the flow for a home, as its schedule does."""

    def run(home) -> subprocess.CompletedProcess[str]:
        env = {
            **os.environ,
            **QUIET,
            **prefect_server.env,
            "QUANTUM_HOME": str(home),
            "QT_MLFLOW_URL": mlflow_server.url,
        }
        code = "from flows.anchor import anchor; print('anchored', anchor())"
        return subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, timeout=250, check=False
        )

    return run


def test_a_journal_cut_off_below_the_anchor_in_mlflow_is_found(anchored, mlflow_server, tmp_path, capsys, monkeypatch):
    """Kept once there is something, moved on with the journal, and never moved back by a journal that lost entries."""
    monkeypatch.delenv("QT_JOURNAL_ANCHOR", raising=False)
    monkeypatch.setenv("QT_MLFLOW_URL", mlflow_server.url)
    path = tmp_path / "journal" / "journal.jsonl"
    nothing = anchored(tmp_path)
    write(path, 6)
    first = anchored(tmp_path)
    write(path, 3, start=6)
    second = anchored(tmp_path)
    whole = cli.run(["audit", "verify", "--home", str(tmp_path)]), capsys.readouterr().out
    cut(path, 7)
    third = anchored(tmp_path)
    damaged = cli.run(["audit", "verify", "--home", str(tmp_path)]), capsys.readouterr().out

    for done, seq in ((nothing, 0), (first, 6), (second, 9)):
        assert f"anchored {seq}\n" in done.stdout, done.stderr[-2000:]
    assert whole[0] == 0
    assert "vouches for entry 9, and agrees" in whole[1]
    assert third.returncode != 0
    assert "vouches for 9" in third.stderr
    assert damaged[0] == 1
    assert "TRUNCATED" in damaged[1]
    tags = Registry(mlflow_server.url).experiment_tags(EXPERIMENT)
    assert '"seq":9' in tags[anchor_key(journal_name(path, None))]


def test_a_server_that_is_down_keeps_nobody_from_verifying(tmp_path, capsys, monkeypatch):
    """The journal is held against all else, and the answer says what it was not compared with."""
    monkeypatch.delenv("QT_JOURNAL_ANCHOR", raising=False)
    write(tmp_path / "journal" / "journal.jsonl", 3)

    status = cli.run(["audit", "verify", "--home", str(tmp_path), "--mlflow-url", "http://127.0.0.1:9"])

    assert status == 0
    assert "Not compared: the anchor in MLflow at http://127.0.0.1:9 cannot be read" in capsys.readouterr().out
