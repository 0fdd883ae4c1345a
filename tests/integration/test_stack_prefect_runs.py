"""What a stopped stack leaves in Prefect is closed, on the real server."""

from __future__ import annotations

import urllib.parse
from datetime import UTC, datetime, timedelta

import pytest

from infra.stack.errors import ServiceDownError, StackError
from infra.stack.ports import any_free
from infra.stack.prefect_api import PrefectServer
from infra.stack.rest import JsonApi
from tests.stack_fixtures import prefect_server  # noqa: F401 - a fixture

NOW = datetime(2030, 1, 1, tzinfo=UTC)


async def new_run(api: JsonApi, state: str, when: datetime) -> str:
    flow = await api.post("/api/flows/", {"name": "stack-test"})
    body = {"flow_id": flow["id"], "state": {"type": state, "state_details": {"scheduled_time": when.isoformat()}}}
    return (await api.post("/api/flow_runs/", body))["id"]


async def test_interrupted_runs_are_closed_and_later_ones_left(prefect_server):  # noqa: F811 - the fixture
    """A run nobody executes and one whose time passed are closed; one that is still to come stays scheduled."""
    async with JsonApi("Prefect", prefect_server.url) as api:
        server = PrefectServer(api)
        running = await new_run(api, "RUNNING", NOW)
        missed = await new_run(api, "SCHEDULED", NOW - timedelta(minutes=5))
        coming = await new_run(api, "SCHEDULED", NOW + timedelta(minutes=5))

        assert (await server.under_way("stack-test", NOW)).id == running
        assert await server.end_interrupted_runs(NOW) >= 2
        assert (await server.flow_run(running)).state_type == "CRASHED"
        assert (await server.flow_run(missed)).state_type == "CANCELLED"
        assert (await server.flow_run(coming)).state_type == "SCHEDULED"
        assert await server.under_way("stack-test", NOW) is None


async def test_progress_is_the_newest_of_each_step(prefect_server):  # noqa: F811 - the fixture
    """Of several progress artifacts under one key the newest counts, and other artifacts do not."""
    async with JsonApi("Prefect", prefect_server.url) as api:
        run = await new_run(api, "RUNNING", NOW)
        for key, percent in (("progress-train", 10.0), ("progress-train", 55.5), ("report", 1.0)):
            body = {"flow_run_id": run, "key": key, "type": "progress", "data": percent, "description": key}
            await api.post("/api/artifacts/", body)
        progress = await PrefectServer(api).progress(await PrefectServer(api).with_subflows(run))

        assert [(step.key, step.percent) for step in progress] == [("progress-train", 55.5)]


async def test_a_deployment_that_is_missing_is_one_sentence(prefect_server):  # noqa: F811 - the fixture
    """The error names the deployment and the command that makes it."""
    async with JsonApi("Prefect", prefect_server.url) as api:
        with pytest.raises(StackError, match=r"no/such.*prefect --no-prompt deploy --all"):
            await PrefectServer(api).start_deployment("no/such", {})


async def test_a_server_that_is_down_is_one_sentence():
    """Silence is named with the address that was asked and the command that helps."""
    url = f"http://127.0.0.1:{any_free()}"
    async with JsonApi("Prefect", url) as api:
        with pytest.raises(ServiceDownError, match=f"{urllib.parse.quote(url, safe=':/')}.*qtctl up"):
            await PrefectServer(api).flow_run("x")
