"""prefect.yaml deploys against a plain server without a question, and what it deploys serves a person."""

from __future__ import annotations

import pytest

from tests.stack_fixtures import ROOT, ask, forget_deployments, prefect_command


@pytest.fixture(scope="module")
def deployed(prefect_server):
    forget_deployments(prefect_server)
    prefect_command(prefect_server, "work-pool", "create", "quantum", "--type", "process", "--overwrite")
    api = f"{prefect_server.url}/api"

    def deploy(**environment: str):
        prefect_command(prefect_server, "deploy", "--all", env=environment)
        return {one["name"]: one for one in ask(f"{api}/deployments/filter", {})}

    active = deploy()
    return active, deploy(QT_SCHEDULES="false")


def test_schedules(deployed):
    """Ingest runs each five minutes, retrain each four hours, drift each day; what works on order has no schedule."""
    active, _ = deployed
    crons = {name: [s["schedule"]["cron"] for s in one["schedules"]] for name, one in active.items()}

    assert crons.pop("ingest") == ["*/5 * * * *"]
    assert crons.pop("retrain") == ["0 */4 * * *"]
    assert crons.pop("drift") == ["30 0 * * *"]
    assert all(not rest for rest in crons.values())
    assert all(schedule["active"] for one in active.values() for schedule in one["schedules"])


def test_one_setting_pauses_all_schedules(deployed):
    """With QT_SCHEDULES=false every schedule is there but rests."""
    _, paused = deployed

    assert [schedule["active"] for one in paused.values() for schedule in one["schedules"]] == [False] * 3


def test_one_run_at_a_time(deployed):
    """No two runs of a kind overlap: a scheduled one that comes too early is cancelled, an ordered one waits."""
    active, _ = deployed
    strategy = {name: one["concurrency_options"]["collision_strategy"] for name, one in active.items()}

    assert {one["global_concurrency_limit"]["limit"] for one in active.values()} == {1}
    assert {strategy[name] for name in ("ingest", "retrain", "drift")} == {"CANCEL_NEW"}
    assert {strategy[name] for name in ("train", "shadow", "promote", "rollback")} == {"ENQUEUE"}


def test_described_for_people(deployed):
    """Every deployment says what it does, carries tags, and explains each of its parameters."""
    active, _ = deployed
    for name, one in active.items():
        assert one["description"], name
        assert one["tags"], name
        for parameter, schema in one["parameter_openapi_schema"]["properties"].items():
            assert schema.get("description"), (name, parameter)


def test_runs_from_the_repository(deployed):
    """A worker needs no network to find the code: it changes into the repository."""
    active, _ = deployed
    for one in active.values():
        assert one["pull_steps"] == [{"prefect.deployments.steps.set_working_directory": {"directory": str(ROOT)}}]
        assert one["work_pool_name"] == "quantum"
