"""What the doctor says of homes that are broken in one way each."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from infra.stack import checks, reachability
from infra.stack.checks import Level
from infra.stack.home import Home, Programs
from infra.stack.record import read_record
from tests.sandbox_support import running_sandbox

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path)
    home.prepare()
    return home


def run_doctor(home: Home, **environment: str) -> tuple[int, dict[str, dict[str, str]]]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("QT_", "PREFECT_", "MLFLOW_"))}
    done = subprocess.run(
        [sys.executable, "-c", "from infra.stack.commands import doctor; doctor(['--json'])"],
        cwd=ROOT,
        env=clean | {"QUANTUM_HOME": str(home.root)} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, {one["check"]: one for one in json.loads(done.stdout)}


def test_a_new_home_is_fit():
    """On a machine that was set up, nothing fails for a home that does not exist yet."""
    code, findings = run_doctor(Home(ROOT / "var" / "no-such-home"))
    failed = [one for one in findings.values() if one["level"] == "fail"]

    assert failed == []
    assert code == 0
    assert {"python", "libgomp", "disk", "home", "lake", "journal", "venue sandbox", "Prefect", "MLflow"} <= set(
        findings
    )


def test_paper_trading_is_told_and_a_torn_account_fails(home):
    """In paper mode the doctor says whose prices count and what the wallet holds; half a file is a failure."""
    folder = home.root / "paper"
    folder.mkdir()
    (folder / "bitfinex.json").write_text('{"venue":"bitfinex","engine":{"wallet":"10012.5","opening_balance":"1"}}')
    whole = run_doctor(home, QT_MODE="paper")[1]
    (folder / "bitfinex.json").write_text('{"venue":"bitfinex","eng')
    torn = run_doctor(home)[1]

    assert whole["paper bitfinex"]["level"] == whole["mode paper"]["level"] == "ok"
    assert "10012.50 USDT" in whole["paper bitfinex"]["found"]
    assert "no key is used" in whole["mode paper"]["found"]
    assert torn["paper bitfinex"]["level"] == "fail"
    assert "move it away" in torn["paper bitfinex"]["mend"]
    assert "mode paper" not in torn


def test_a_torn_record_fails_and_says_how_to_mend_it(home):
    """Half a stack.json is a failure with the command that mends it."""
    home.record.write_text('{"stack_id": "0123456789abcdef", "serv')
    code, findings = run_doctor(home)

    assert code == 1
    assert findings["stack.json"]["level"] == "fail"
    assert "qtctl up" in findings["stack.json"]["mend"]


def test_a_process_that_is_gone_fails(home):
    """A recorded service without its process is named with its log."""
    service = {
        "pid": 2**22 - 1, "create_time": 1.0, "url": "http://127.0.0.1:9", "port": 9, "log": "/x/mlflow.log",
        "state": "running", "digest": "", "started_at": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    home.record.write_text(json.dumps({"stack_id": "0123456789abcdef", "services": {"mlflow": service}}))
    code, findings = run_doctor(home)

    assert code == 1
    assert findings["service mlflow"]["level"] == "fail"
    assert "/x/mlflow.log" in findings["service mlflow"]["mend"]
    assert findings["MLflow"]["level"] == "fail"


def test_a_damaged_sqlite_file_fails(home):
    """A database with overwritten pages does not pass, a whole one does."""
    for name in ("mlflow", "prefect"):
        with sqlite3.connect(home.root / name / f"{name}.db") as connection:
            connection.execute("CREATE TABLE t (x TEXT)")
            connection.executemany("INSERT INTO t VALUES (?)", [("y" * 500,)] * 200)
        connection.close()
    path = home.mlflow / "mlflow.db"
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(8192))
    found = {one.check: one.level for one in checks.sqlite_files(home)}

    assert found == {"sqlite mlflow/mlflow.db": Level.FAIL, "sqlite prefect/prefect.db": Level.OK}


def test_a_file_that_is_no_database_fails(home):
    """Something else under a database's name is a finding, not a crash."""
    (home.mlflow / "mlflow.db").write_bytes(b"not a database at all" * 100)

    assert [one.level for one in checks.sqlite_files(home)] == [Level.FAIL]


def test_a_torn_candle_file_is_named(home):
    """A Parquet file without its footer is found without reading the others whole."""
    folder = home.root / "lake" / "exchange=sandbox"
    folder.mkdir(parents=True)
    body = b"x" * 40
    (folder / "whole.parquet").write_bytes(b"PAR1" + body + (20).to_bytes(4, "little") + b"PAR1")
    (folder / "torn.parquet").write_bytes(b"PAR1" + body)
    (folder / "empty.parquet").write_bytes(b"")
    finding = checks.lake(home)

    assert finding.level is Level.FAIL
    assert "2 of 3" in finding.found
    assert "qtctl ingest" in finding.mend


def test_a_home_below_a_file_fails(tmp_path):
    """A home that cannot be made is said so, with what to set."""
    (tmp_path / "file").touch()
    finding = checks.home_is_writable(Home(tmp_path / "file" / "home"))

    assert finding.level is Level.FAIL
    assert "QUANTUM_HOME" in finding.mend


def test_an_unknown_venue_fails(home):
    """A venue we cannot connect to is named together with those we can."""
    code, findings = run_doctor(home, QT_VENUE="nasdaq")

    assert code == 1
    assert "binanceusdm" in findings["venue nasdaq"]["mend"]


@pytest.mark.parametrize("name", ["sandbox", "sandbox-bitfinex"])
async def test_every_sandbox_is_known(monkeypatch, name):
    """One process speaks for each venue that it plays; whose clock is its own is not held to ours."""
    monkeypatch.setenv("QT_VENUE", name)
    async with running_sandbox(symbols=1, history_days=1) as sandbox:
        monkeypatch.setenv("QT_VENUE_URL", sandbox.url)
        finding = await reachability.venue(None)

    assert finding.level is Level.OK
    assert "its clock is its own" in finding.found


async def test_a_clock_that_is_off_fails(monkeypatch):
    """A venue whose clock is minutes from ours is a failure that says by how much, and how to mend it."""
    async with running_sandbox(symbols=1, history_days=1) as sandbox:
        clock = reachability.VenueClock(f"{sandbox.url}/fapi/v1/time", "serverTime")
        monkeypatch.setattr(reachability, "_CLOCKS", {"binanceusdm": clock})
        monkeypatch.setenv("QT_VENUE", "binanceusdm")
        finding = await reachability.venue(None)

    assert finding.level is Level.FAIL
    assert "our clock is" in finding.found
    assert "set-ntp" in finding.mend


def test_servers_that_do_not_answer_fail(home):
    """Addresses from the environment are asked, and silence is a failure."""
    code, findings = run_doctor(home, QT_MLFLOW_URL="http://127.0.0.1:9", QT_VENUE_URL="http://127.0.0.1:9")

    assert code == 1
    assert findings["MLflow"]["level"] == "fail"
    assert findings["venue sandbox"]["level"] == "fail"


def test_other_versions_than_pinned_fail(tmp_path):
    """A package that is not at its pinned version is named with both versions."""
    site = tmp_path / ".venv" / "lib" / "python3.11" / "site-packages" / "demo_pkg-1.0.dist-info"
    site.mkdir(parents=True)
    (site / "METADATA").write_text("Metadata-Version: 2.1\nName: demo_pkg\nVersion: 1.0\n")
    (tmp_path / "constraints.txt").write_text("demo-pkg==2.0\n")
    finding = checks.environment(Programs(tmp_path), ".venv")

    assert finding.level is Level.FAIL
    assert "demo-pkg 1.0 (pinned 2.0)" in finding.found


def test_looking_changes_nothing(home):
    """The doctor reads a damaged record and leaves it as it is."""
    home.record.write_text("{")
    run_doctor(home)

    assert home.record.read_text() == "{"
    assert read_record(home.record)[1] is not None
