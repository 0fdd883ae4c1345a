"""The stack's commands on the real Prefect and MLflow servers."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from infra.stack import processes
from infra.stack.home import Home
from infra.stack.record import StackRecord, read_record

ROOT = Path(__file__).resolve().parents[2]
# A shell that started these tests in the background has them ignore Ctrl-C, and nohup the end of a terminal.
CALL = (
    "import signal, sys; from infra.stack import commands; "
    "signal.signal(signal.SIGINT, signal.default_int_handler); signal.signal(signal.SIGHUP, signal.SIG_DFL); "
    "sys.exit(getattr(commands, sys.argv[1])(sys.argv[2:], result_action='return_value'))"
)
SERVERS = ("--services", "prefect-server,mlflow")


def environment(home: Home) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("QT_", "PREFECT_", "MLFLOW_"))}
    return clean | {"QUANTUM_HOME": str(home.root), "PYTHONUNBUFFERED": "1"}


def called(home: Home, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CALL, *arguments],
        cwd=ROOT,
        env=environment(home),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def qtctl(home: Home, *arguments: str, expect: int | None = 0) -> str:
    done = called(home, *arguments)
    assert expect is None or done.returncode == expect, done.stdout + done.stderr
    return done.stdout + done.stderr


def printed_by(home: Home, *arguments: str) -> str:
    done = called(home, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def record_of(home: Home) -> StackRecord:
    record, damage = read_record(home.record)
    assert damage is None
    assert record is not None
    return record


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = Home(tmp_path_factory.mktemp("stack"))
    yield home
    qtctl(home, "down", expect=None)


def test_up_is_ready_when_it_returns_and_repeating_it_changes_nothing(home):
    """Both servers answer at the printed addresses, on SQLite files under the home, and a second `up` restarts none."""
    printed = qtctl(home, "up", *SERVERS)
    first = record_of(home)
    for name, path in (("prefect-server", "/api/health"), ("mlflow", "/health")):
        url = first.services[name].url
        assert url in printed
        with urllib.request.urlopen(url + path, timeout=60) as answer:
            assert answer.status == 200
    qtctl(home, "up", *SERVERS)

    assert record_of(home).services == first.services
    assert (home.root / "prefect" / "prefect.db").exists()
    assert (home.root / "mlflow" / "mlflow.db").exists()


def test_status_tells_people_and_machines(home):
    """`status --json` lists what runs with address, health and memory."""
    qtctl(home, "up", *SERVERS)
    view = json.loads(qtctl(home, "status", "--json"))

    assert {one["health"] for one in view["services"].values()} == {"ready"}
    assert view["champion"] is None
    # Job execution would make it 2 GB.
    assert view["services"]["mlflow"]["memory_mb"] < 800


def test_a_killed_server_is_seen_and_only_it_is_started_anew(home):
    """After kill -9 of MLflow `status` fails, `doctor` names it, and `up` brings back that one server."""
    qtctl(home, "up", *SERVERS)
    before = record_of(home)
    killed = processes.marked(before.stack_id, ["mlflow"])
    for process in killed:
        process.kill()
    assert psutil.wait_procs(killed, timeout=100)[1] == []

    assert "gone" in qtctl(home, "status", expect=1)
    assert "service mlflow" in qtctl(home, "doctor", expect=1)

    said = qtctl(home, "up", *SERVERS)
    after = record_of(home)

    assert "mlflow had ended" in said
    assert after.services["prefect-server"] == before.services["prefect-server"]
    assert after.services["mlflow"].pid != before.services["mlflow"].pid


def test_down_leaves_nothing_behind(home):
    """After `down` no process carries the mark, and a second `down` is fine."""
    qtctl(home, "up", *SERVERS)
    stack_id = record_of(home).stack_id
    qtctl(home, "down")

    assert processes.marked(stack_id) == []
    qtctl(home, "down")


def test_starting_and_stopping_tell_machines(home):
    """`up --json` prints where everything is, `down --json` what was stopped; nothing else comes on standard output."""
    up = json.loads(printed_by(home, "up", "--services", "mlflow", "--json"))
    down = json.loads(printed_by(home, "down", "--json"))

    assert up["services"]["mlflow"]["health"] == "ready"
    assert up["services"]["mlflow"]["url"].startswith("http://127.0.0.1:")
    assert "mlflow" in down["stopped"]
    assert (down["killed"], down["mended"]) == ([], [])


def start_demo(home: Home) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CALL, "demo", "--once", "--symbols", "3", "--days", "2"],
        cwd=ROOT,
        env=environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for_servers(home: Home, demo: subprocess.Popen[str]) -> StackRecord:
    deadline = time.perf_counter() + 200
    while time.perf_counter() < deadline and demo.poll() is None:
        record, _ = read_record(home.record)
        if record is not None and {"sandbox", "prefect-server", "mlflow"} <= set(record.services):
            return record
        time.sleep(0.2)
    raise AssertionError(f"The demonstration started no servers: {demo.communicate()[0]}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_stops_everything(tmp_path, number):
    """Ctrl-C and SIGTERM end the demonstration in order, with a summary and no process left."""
    home = Home(tmp_path)
    with start_demo(home) as demo:
        record = wait_for_servers(home, demo)
        children = psutil.Process(demo.pid).children(recursive=True)
        demo.send_signal(number)
        output, _ = demo.communicate(timeout=200)

    assert "Summary" in output
    assert "Stopped by request" in output
    assert processes.marked(record.stack_id) == []
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


def test_a_closed_terminal_stops_everything(tmp_path):
    """When the terminal goes away the demonstration ends in order, although nobody is left to print to."""
    home = Home(tmp_path)
    report = tmp_path / "report.json"
    master, slave = pty.openpty()
    with subprocess.Popen(
        [
            sys.executable,
            "-c",
            CALL,
            "demo",
            "--symbols",
            "3",
            "--days",
            "2",
            "--report",
            str(report),
        ],
        cwd=ROOT,
        env=environment(home),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - this test has no threads
    ) as demo:
        os.close(slave)
        try:
            record = wait_for_servers(home, demo)
        finally:
            os.close(master)
        demo.wait(200)

    assert processes.marked(record.stack_id) == []
    assert json.loads(report.read_text())["outcome"] == "Stopped by request."


def test_a_killed_demo_is_recovered_from(tmp_path):
    """After kill -9 of the demonstration its servers are found again: `down` ends every one of them."""
    home = Home(tmp_path)
    with start_demo(home) as demo:
        record = wait_for_servers(home, demo)
        demo.kill()
        demo.wait()
    assert processes.marked(record.stack_id) != []
    said = qtctl(home, "down")

    assert "sandbox" in said
    assert processes.marked(record.stack_id) == []
    assert record_of(home).services == {}
