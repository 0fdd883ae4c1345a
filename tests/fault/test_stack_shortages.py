"""A full disk, a port snatched away, a computation that does not listen: nothing runs on, one sentence is said."""

from __future__ import annotations

import os
import resource
import secrets
import socket
import subprocess
import sys
import time

import psutil
import pytest

from infra.stack import processes
from infra.stack.home import Home
from infra.stack.local_stack import make_stack
from infra.stack.record import read_record
from infra.stack.services import SANDBOX, Health, Service, StackSettings
from infra.stack.supervisor import Supervisor
from tests.stack_fixtures import BIN, QUIET, ROOT

# Of its own, so that two sessions of tests on one machine leave each other alone.
MARK = secrets.token_hex(8)
# A worker that waits for its runs, as Prefect's does, and a run that no request reaches.
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
WAITING = f"""
import signal, subprocess, sys
run = subprocess.Popen([sys.executable, "-c", {DEAF!r}], start_new_session=True, stdout=subprocess.PIPE)
run.stdout.readline()
signal.signal(signal.SIGTERM, lambda *_: None)
print("ready", flush=True)
run.wait()
"""


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path)
    home.prepare()
    yield home
    record, _ = read_record(home.record)
    for process in processes.marked(MARK) + (processes.marked(record.stack_id) if record is not None else []):
        process.kill()


def qtctl_on_a_full_disk(home: Home, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command that, with all it starts, may make files but write nothing into them."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "QT_", "QUANTUM_"))}
    return subprocess.run(
        [str(BIN / "qtctl"), *arguments],
        cwd=ROOT,
        env={**clean, **QUIET, "QUANTUM_HOME": str(home.root)},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
    )


@pytest.mark.parametrize("command", [("up",), ("demo", "--once")], ids=["up", "demo"])
def test_a_full_disk_is_one_sentence(home, command):
    """Where nothing more can be written nothing is started, and the last line says what to do."""
    done = qtctl_on_a_full_disk(home, *command)
    said = (done.stdout + done.stderr).splitlines()

    assert done.returncode == 1
    assert [line for line in said if "free some space" in line] == said[-1:]
    assert str(home.root) in said[-1]
    assert "Traceback" not in done.stderr
    assert not home.record.exists()
    assert list(home.logs.iterdir()) == []


async def test_what_runs_can_be_stopped_on_a_full_disk(home):
    """`qtctl down` stops everything although it cannot note that it did; the next command mends the record."""
    supervisor = Supervisor(home, print)
    supervisor.load()
    sleeper = Service(
        name="sleeper",
        command=(sys.executable, "-c", "import time; time.sleep(600)"),
        environment=dict(os.environ),
        directory=home.root,
        log=home.logs / "sleeper.log",
        health=Health("process", "sleeper"),
    )
    await supervisor.up([sleeper])
    done = qtctl_on_a_full_disk(home, "down")

    assert done.returncode == 0, done.stderr
    assert done.stdout == "Stopped sleeper.\n"
    assert processes.marked(supervisor.record.stack_id) == []
    assert Supervisor(home, print).load() == ["Service sleeper had ended without being stopped."]


def test_a_home_that_cannot_be_is_one_sentence(tmp_path):
    """A home below a file is refused with the setting that names it."""
    (tmp_path / "file").touch()
    done = qtctl_on_a_full_disk(Home(tmp_path / "file" / "home"), "demo", "--once")

    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "set QUANTUM_HOME to a folder that is" in done.stderr


@pytest.mark.timeout(300)
async def test_a_port_snatched_while_its_server_starts_is_replaced(home):
    """A port that was free when it was chosen and taken a moment later costs one sentence and another port."""
    said: list[str] = []
    stack = make_stack(home, StackSettings(symbols=3), said.append)
    stack.prepare((SANDBOX,))
    port = int(stack.urls[SANDBOX].rpartition(":")[2])
    said.clear()
    with socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        thief.bind(("127.0.0.1", port))
        thief.listen()
        await stack.start_servers()
        other = stack.supervisor.record.services[SANDBOX].port
        await stack.stop()

    assert f"Another program took port {port} while sandbox was starting; trying another." in said
    assert other != port
    assert processes.marked(stack.supervisor.record.stack_id) == []


def test_a_deaf_run_is_ended_and_its_patient_parent_is_not_blamed(home, monkeypatch):
    """A child that ignores the request is killed after the grace; the parent that only waits for it ends by itself."""
    monkeypatch.setattr(processes, "_PARENT_PATIENCE_S", 100.0)
    log = home.logs / "waiting.log"
    pid = processes.start(
        (sys.executable, "-c", WAITING),
        environment={**os.environ, processes.MARK: MARK, processes.SERVICE: "waiting"},
        directory=home.root,
        log=log,
    )
    deadline = time.perf_counter() + 200
    while "ready" not in processes.tail(log) and time.perf_counter() < deadline:
        time.sleep(0.05)

    assert len(processes.marked(MARK)) == 2
    assert processes.end(MARK, "waiting", grace_s=0.3) == []
    assert processes.marked(MARK) == []
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
