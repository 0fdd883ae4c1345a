"""What the stack plans to start, and what it refuses before it starts anything."""

from __future__ import annotations

import asyncio
import json
import sqlite3

import pytest

from feature_store.errors import BadInputError
from infra.stack.demo import DemoOptions, check_options
from infra.stack.errors import StackError
from infra.stack.home import Home, Programs
from infra.stack.local_stack import LocalStack, check_disk, check_settings, make_stack, settle
from infra.stack.record import StackRecord, write_record
from infra.stack.services import MLFLOW, PREFECT, PREFECT_WORKER, SANDBOX, SHADOW, TABLES, WORKER, StackSettings, plan
from infra.stack.supervisor import Supervisor

PORTS = {SANDBOX: 9100, PREFECT: 4200, MLFLOW: 5000}


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path)


def planned(home: Home, **settings: object):
    return {service.name: service for service in plan(StackSettings(**settings), home, Programs(), PORTS)}


def test_nothing_calls_home(home):
    """Every service starts with telemetry off."""
    for service in planned(home).values():
        assert service.environment["DO_NOT_TRACK"] == "1"
        assert service.environment["MLFLOW_DISABLE_TELEMETRY"] == "true"
        assert service.environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"


def test_a_persons_own_settings_stay_out(home, monkeypatch):
    """A profile, key or address of another Prefect or MLflow does not reach into the stack."""
    monkeypatch.setenv("PREFECT_API_KEY", "secret")
    monkeypatch.setenv("PREFECT_API_URL", "https://elsewhere")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://elsewhere")
    services = planned(home)

    assert not any("PREFECT_API_KEY" in service.environment for service in services.values())
    assert services[PREFECT_WORKER].environment["PREFECT_API_URL"] == "http://127.0.0.1:4200/api"
    assert services[PREFECT_WORKER].environment["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:5000"


def test_the_worker_runs_in_its_own_light_environment(home):
    """The inference worker is started by the light environment's interpreter and finds venue and registry."""
    worker = planned(home)[WORKER]

    assert "/.venv-worker/bin/python" in worker.command[0]
    assert worker.environment["QT_VENUE_URL"] == "http://127.0.0.1:9100"
    assert worker.environment["QT_MLFLOW_URL"] == "http://127.0.0.1:5000"
    assert set(worker.needs) == {SANDBOX, MLFLOW}


def test_the_order_is_one_in_which_needs_come_first(home):
    """Whatever a service needs stands before it."""
    seen: set[str] = set()
    for name, service in planned(home).items():
        assert set(service.needs) <= seen
        seen.add(name)


def test_another_venue_needs_no_sandbox(home):
    """With a real venue the sandbox is not started and no sandbox key is handed out."""
    services = planned(home, venue="binanceusdm")

    assert SANDBOX not in services
    assert "QT_VENUE_URL" not in services[WORKER].environment
    assert services[WORKER].environment.get("QT_API_KEY") != "sandbox-key"


def test_challengers_get_a_process_where_they_are_to_be_scored_beside(home, monkeypatch):
    """With QT_SHADOW=beside a process that is told of no account comes with the worker, and else none does."""
    monkeypatch.delenv("QT_SHADOW", raising=False)
    assert SHADOW not in planned(home)

    monkeypatch.setenv("QT_SHADOW", "beside")
    services = planned(home)

    assert services[SHADOW].command[-1] == "--shadow"
    assert not any("QT_API" in name for name in services[SHADOW].environment)
    assert services[WORKER].environment["QT_SHADOW"] == "beside"


def test_tables_are_made_where_a_database_is_named(home, monkeypatch):
    """With QT_DATABASE_URL a follower that is told of no account comes with the worker, and else none does."""
    monkeypatch.delenv("QT_DATABASE_URL", raising=False)
    assert TABLES not in planned(home)

    monkeypatch.setenv("QT_DATABASE_URL", "postgresql://qt:secret@localhost/quantum")
    service = planned(home)[TABLES]

    assert service.command[-2:] == ("db", "follow")
    assert service.environment["QT_DATABASE_URL"].endswith("/quantum")
    assert not any("QT_API" in name for name in service.environment)
    assert "secret" not in repr(service)


@pytest.mark.parametrize(
    ("chosen", "running", "says"),
    [
        pytest.param("prefect-worker", (), "prefect-worker needs prefect-server", id="flows-without-prefect"),
        pytest.param("worker", ("sandbox",), "--services mlflow,worker", id="worker-without-mlflow"),
        pytest.param("worker", (), "worker needs mlflow and sandbox", id="worker-without-anything"),
    ],
)
def test_a_service_without_what_it_needs_is_refused(home, chosen, running, says):
    """What a service needs must be chosen with it or run already; the sentence says what to add."""
    ports = {name: PORTS[name] for name in running}
    with pytest.raises(BadInputError, match=says):
        plan(StackSettings(), home, Programs(), ports, (chosen,))


def test_a_setting_changes_the_digest_of_those_it_concerns(home):
    """Another speed restarts the sandbox and leaves Prefect and MLflow alone."""
    slow, fast = planned(home, speed=60.0), planned(home, speed=300.0)

    assert slow[SANDBOX].digest != fast[SANDBOX].digest
    assert slow[PREFECT].digest == fast[PREFECT].digest
    assert slow[MLFLOW].digest == fast[MLFLOW].digest


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (StackSettings(venue="nasdaq"), "binanceusdm"),
        (StackSettings(speed=0.0), "--speed"),
        (StackSettings(symbols=0), "--symbols"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, says):
    """Each refusal names the option and what it takes."""
    with pytest.raises(BadInputError, match=says):
        check_settings(settings)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (DemoOptions(days=0), "--days"),
        (DemoOptions(days=1501), "--days"),
        (DemoOptions(minutes=0), "--minutes"),
        (DemoOptions(minutes=float("nan")), "--minutes"),
        (DemoOptions(trades=-1), "--trades"),
    ],
)
def test_a_demonstration_that_cannot_be_is_refused(options, says):
    """Each refusal names the option and what it takes."""
    with pytest.raises(BadInputError, match=says):
        check_options(options)


def test_deployments_are_made_again_for_a_new_database(home):
    """Whoever moved a damaged prefect.db away gets the deployments back with the new one, and only then."""
    stack = make_stack(home, StackSettings(), lambda _: None)
    home.prepare()
    mark = home.prefect / "deployed.digest"
    mark.write_text("what was deployed")
    sqlite3.connect(home.prefect_database).close()
    stack.prepare()
    kept = mark.exists()
    home.prefect_database.unlink()
    stack.prepare()

    assert kept
    assert not mark.exists()


def test_a_missing_environment_is_one_sentence(tmp_path):
    """Without its environments the stack says which programs are missing and how to install them."""
    with pytest.raises(StackError, match=r"\.venv/bin/prefect.*make setup"):
        Programs(tmp_path).check(with_worker=True)


def test_a_nearly_full_disk_is_refused(home):
    """Where less is free than a run needs, nothing is started."""
    with pytest.raises(StackError, match="free"):
        check_disk(home, least=10**18)


def test_a_home_that_cannot_be_written_is_one_sentence(tmp_path):
    """A home below a file names QUANTUM_HOME."""
    (tmp_path / "file").touch()
    with pytest.raises(StackError, match="QUANTUM_HOME"):
        Home(tmp_path / "file" / "home").prepare()


def with_market(home: Home, **settings: object) -> None:
    home.prepare()
    (home.sandbox / "state.json").write_text("{}")
    write_record(home.record, StackRecord(stack_id="0" * 16, settings=json.loads(json.dumps(settings))))


def test_what_is_not_said_stays_as_it_is(home):
    """A second run goes on with the market of the first."""
    with_market(home, venue="sandbox", symbols=30, seed=3, speed=120.0, edge=0.5)
    settings = settle(home, symbols=None, seed=None, speed=None)

    assert (settings.symbols, settings.seed, settings.speed, settings.edge) == (30, 3, 120.0, 0.5)


def test_speed_may_change_and_the_market_may_not(home):
    """Another speed is fine; another seed would mix two markets, so it is refused with the way out."""
    with_market(home, venue="sandbox", symbols=30, seed=3, speed=120.0)

    assert settle(home, speed=600.0).speed == 600.0
    with pytest.raises(BadInputError, match="--fresh"):
        settle(home, seed=4)
    assert settle(home, seed=4, fresh=True).seed == 4
    assert settle(home, seed=4, fresh=True).symbols == StackSettings().symbols


@pytest.mark.parametrize(
    ("said", "asked", "deployed"),
    [
        (None, True, "true"),
        ("false", True, "false"),
        (" False ", True, "false"),
        ("0", True, "false"),
        ("", True, "true"),
        ("true", False, "false"),
    ],
)
def test_one_setting_pauses_what_is_deployed(home, tmp_path, monkeypatch, said, asked, deployed):
    """QT_SCHEDULES=false in the environment of `qtctl up` pauses every schedule, and what is paused stays so."""
    for folder in (tmp_path / "code" / "flows", tmp_path / "code" / ".venv" / "bin", home.logs, home.prefect):
        folder.mkdir(parents=True, exist_ok=True)
    (tmp_path / "code" / "prefect.yaml").write_text("deployments: []")
    program = tmp_path / "code" / ".venv" / "bin" / "prefect"
    program.write_text(f'#!/bin/sh\necho "$QT_SCHEDULES" > {tmp_path}/told\n')
    program.chmod(0o755)
    monkeypatch.delenv("QT_SCHEDULES", raising=False)
    if said is not None:
        monkeypatch.setenv("QT_SCHEDULES", said)
    stack = LocalStack(home, StackSettings(), print, Programs(tmp_path / "code"), Supervisor(home, print))

    assert asyncio.run(stack.deploy(schedules=asked))
    assert (tmp_path / "told").read_text().strip() == deployed
    assert not asyncio.run(stack.deploy(schedules=asked))
