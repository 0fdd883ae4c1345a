"""The whole demonstration at its smallest size: real servers, a real training run, a real worker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.stack import processes
from infra.stack.home import Home
from infra.stack.record import read_record

ROOT = Path(__file__).resolve().parents[2]
CALL = (
    "import sys; from infra.stack import commands; sys.exit(commands.demo(sys.argv[1:], result_action='return_value'))"
)


def play(home: Home, *options: str) -> tuple[int, str, dict]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("QT_", "PREFECT_", "MLFLOW_"))}
    report = home.root / "report.json"
    done = subprocess.run(
        [sys.executable, "-c", CALL, "--once", "--report", str(report), *options],
        cwd=ROOT,
        env=clean | {"QUANTUM_HOME": str(home.root)},
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )
    output = done.stdout + done.stderr
    return done.returncode, output, json.loads(report.read_text()) if report.exists() else {}


@pytest.mark.timeout(600)
def test_a_market_without_an_edge_is_not_traded(tmp_path):
    """With --edge 0 Prefect trains, the gates refuse, the worker idles and says why, and nothing is left running."""
    home = Home(tmp_path)
    code, output, report = play(home, "--edge", "0", "--size", "tiny", "--days", "12", "--symbols", "6")
    record, _ = read_record(home.record)

    assert code == 3, output
    assert report["verdict"] == "refused"
    assert report["gate_reasons"]
    assert report["champion_version"] is None
    assert "idle" in report["outcome"]
    assert {model["role"] for model in report["models"]} == {"member", "ensemble", "baseline"}
    assert report["trading"]["closed_trades"] == 0
    assert report["journal_verified"] is True
    assert report["worker"]["cold_start_s"] > 0
    assert record is not None
    assert record.services == {}
    assert processes.marked(record.stack_id) == []
    for name in ("Prefect", "MLflow", "Sandbox exchange"):
        assert f"  {name}" in output
