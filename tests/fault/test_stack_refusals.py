"""What `qtctl up` and `qtctl demo` refuse before they start anything."""

from __future__ import annotations

import os

import pytest

from infra.stack.home import Home
from infra.stack.record import read_record
from infra.stack.supervisor import Supervisor
from tests.stack_fixtures import qtctl


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path)
    home.prepare()
    return home


@pytest.mark.parametrize("command", [("up",), ("demo", "--once")], ids=["up", "demo"])
@pytest.mark.parametrize("name", ["mlflow", "prefect"])
def test_a_damaged_database_is_named_and_left_alone(home, command, name):
    """No server is started on a file that is no database; one sentence says how to begin anew, and no byte changes."""
    path = home.root / name / f"{name}.db"
    damaged = os.urandom(20_000)
    path.write_bytes(damaged)
    done = qtctl(*command, env={"QUANTUM_HOME": str(home.root)})
    record, _ = read_record(home.record)

    assert done.returncode == 1
    assert f"mv {path} {path}.damaged" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert path.read_bytes() == damaged
    assert record is not None
    assert record.services == {}


@pytest.mark.parametrize(
    ("command", "environment", "says"),
    [
        pytest.param(("up", "--venue", "kraken"), {}, "binanceusdm", id="up-venue"),
        pytest.param(("up",), {"QT_VENUE": "kraken"}, "binanceusdm", id="up-venue-setting"),
        pytest.param(("up",), {"QT_TIMEFRAME": "7m"}, "QT_TIMEFRAME", id="up-timeframe"),
        pytest.param(("up", "--services", "broker"), {}, "prefect-worker", id="up-service"),
        pytest.param(("demo",), {"QT_TIMEFRAME": "7m"}, "QT_TIMEFRAME", id="demo-timeframe"),
        pytest.param(("demo", "--size", "huge"), {}, '"tiny"', id="demo-size"),
        pytest.param(("demo", "--days", "0"), {}, "--days", id="demo-days"),
        pytest.param(("demo", "--speed", "-1"), {}, "--speed", id="demo-speed"),
        pytest.param(("demo", "--replay", "/no/such"), {}, "--replay", id="demo-replay"),
    ],
)
def test_what_cannot_work_starts_nothing(tmp_path, command, environment, says):
    """The option or setting is named with what it takes, with the exit status for bad usage."""
    done = qtctl(*command, env={"QUANTUM_HOME": str(tmp_path), **environment})

    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize(
    "command", [("up",), ("demo", "--once"), ("down", "--unless-demo")], ids=["up", "demo", "down-unless-demo"]
)
def test_while_a_demonstration_is_under_way_nothing_else_starts(home, command):
    """One sentence says so at once; nothing is started, stopped or noted."""
    with Supervisor(home, print).exclusive("demo"):
        done = qtctl(*command, env={"QUANTUM_HOME": str(home.root)})

    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"A demonstration, or another command that starts services, is under way in {home.root}" in done.stderr
    assert done.stdout == ""
    assert not home.record.exists()
    assert not home.demo_mark.exists()


def test_a_demonstration_can_be_stopped_from_elsewhere(home):
    """`qtctl down` stops what runs though a demonstration holds on to it."""
    with Supervisor(home, print).exclusive("demo"):
        done = qtctl("down", env={"QUANTUM_HOME": str(home.root)})

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
