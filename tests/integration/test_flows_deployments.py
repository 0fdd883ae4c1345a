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
    """Ingest each five minutes, live outcomes each quarter, audits daily, universe weekly; the rest on order."""
    active, _ = deployed
    crons = {name: [s["schedule"]["cron"] for s in one["schedules"]] for name, one in active.items()}

    assert crons.pop("ingest") == ["*/5 * * * *"]
    assert crons.pop("market-data") == ["17 * * * *"]
    assert crons.pop("retrain") == ["0 */4 * * *"]
    assert crons.pop("profile") == ["10 0 * * *"]
    assert crons.pop("skew") == ["50 0 * * *"]
    assert crons.pop("staleness") == ["25,55 * * * *"]
    assert crons.pop("anchor") == ["5-59/10 * * * *"]
    assert crons.pop("drift") == ["30 0 * * *"]
    assert crons.pop("live-shadow") == ["*/15 * * * *"]
    assert crons.pop("universe") == ["20 0,6,12,18 * * 1"]
    assert crons.pop("sources") == ["*/15 * * * *"]
    assert all(not rest for rest in crons.values())
    active = {name: schedule["active"] for name, one in active.items() for schedule in one["schedules"]}
    assert not active.pop("sources"), "A source that nobody chose is asked"
    assert all(active.values())


def test_sources_are_asked_where_they_are_chosen(prefect_server, deployed):
    """QT_SOURCES turns the schedule of other sources on, and QT_SCHEDULES=false off again."""
    for paused, expected in (("true", True), ("false", False)):
        env = {"QT_SOURCES": "coingecko,rss", "QT_SCHEDULES": paused}
        prefect_command(prefect_server, "deploy", "--name", "sources", env=env)
        found = {one["name"]: one for one in ask(f"{prefect_server.url}/api/deployments/filter", {})}
        assert [schedule["active"] for schedule in found["sources"]["schedules"]] == [expected]


def test_one_setting_pauses_all_schedules(deployed):
    """With QT_SCHEDULES=false every schedule is there but rests."""
    active, paused = deployed
    scheduled = sum(len(one["schedules"]) for one in active.values())

    assert [schedule["active"] for one in paused.values() for schedule in one["schedules"]] == [False] * scheduled


def test_one_run_at_a_time(deployed):
    """No two runs of a kind overlap: a scheduled one that comes too early is cancelled, an ordered one waits."""
    active, _ = deployed
    strategy = {name: one["concurrency_options"]["collision_strategy"] for name, one in active.items()}

    assert {one["global_concurrency_limit"]["limit"] for one in active.values()} == {1}
    again = ("ingest", "market-data", "retrain", "profile", "skew", "drift", "sources", "staleness", "anchor")
    assert {strategy[name] for name in again} == {"CANCEL_NEW"}
    assert {strategy[name] for name in ("train", "shadow", "promote", "approve", "rollback", "import")} == {"ENQUEUE"}


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
