"""What the stack asks of Prefect's server: deployments, flow runs, their tasks and progress."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec

from infra.stack.errors import StackError
from infra.stack.rest import JsonApi, NotFoundError

TERMINAL: Final = frozenset({"COMPLETED", "FAILED", "CANCELLED", "CRASHED"})
_UNDER_WAY: Final = ["RUNNING", "PENDING", "CANCELLING"]


class FlowRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a flow."""

    id: str
    name: str
    state_type: str | None = None
    state_name: str | None = None
    state: dict[str, Any] | None = None

    @property
    def message(self) -> str:
        """What the last state says, in Prefect's words."""
        return str((self.state or {}).get("message") or "")

    @property
    def is_over(self) -> bool:
        """Whether no further state can follow."""
        return self.state_type in TERMINAL


class TaskRun(msgspec.Struct, frozen=True, kw_only=True):
    """One task within a flow run."""

    id: str
    name: str
    flow_run_id: str | None = None
    state_type: str | None = None
    start_time: datetime | None = None
    total_run_time: float = 0.0


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """A progress artifact: how much of a long step is done."""

    key: str
    percent: float
    description: str


class PrefectServer:
    """One Prefect server."""

    def __init__(self, api: JsonApi) -> None:
        self._api = api

    async def start_deployment(self, name: str, parameters: dict[str, Any]) -> FlowRun:
        """
        Create a run of a deployment, which a worker of its pool will execute.

        Raises:
            StackError: The deployment does not exist.
        """
        try:
            deployment = await self._api.get(f"/api/deployments/name/{name}")
        except NotFoundError:
            raise StackError(f"Prefect has no deployment {name}; run `prefect --no-prompt deploy --all`") from None
        known = set((deployment.get("parameter_openapi_schema") or {}).get("properties") or parameters)
        body = {
            "parameters": {key: value for key, value in parameters.items() if key in known},
            "state": {"type": "SCHEDULED"},
        }
        return msgspec.convert(
            await self._api.post(f"/api/deployments/{deployment['id']}/create_flow_run", body), FlowRun, strict=False
        )

    async def has_deployment(self, name: str) -> bool:
        """Tell whether a deployment exists."""
        try:
            await self._api.get(f"/api/deployments/name/{name}")
        except NotFoundError:
            return False
        return True

    async def flow_run(self, run_id: str) -> FlowRun:
        """Read one flow run."""
        return msgspec.convert(await self._api.get(f"/api/flow_runs/{run_id}"), FlowRun, strict=False)

    async def under_way(self, flow: str, now: datetime) -> FlowRun | None:
        """Return a run of a flow that is being executed, else one that is due to be, else None."""
        executed = {"state": {"type": {"any_": _UNDER_WAY}}}
        due = {"state": {"type": {"any_": ["SCHEDULED"]}}, "expected_start_time": {"before_": now.isoformat()}}
        for runs in (executed, due):
            body = {
                "flows": {"name": {"any_": [flow]}},
                "flow_runs": runs,
                "sort": "EXPECTED_START_TIME_ASC",
                "limit": 1,
            }
            if rows := await self._api.post("/api/flow_runs/filter", body):
                return msgspec.convert(rows[0], FlowRun, strict=False)
        return None

    async def with_subflows(self, run_id: str) -> list[str]:
        """Return a flow run's id and those of the flows that it called."""
        found = [run_id]
        asked = [run_id]
        while asked:
            body = {"flow_runs": {"parent_flow_run_id": {"any_": asked}}}
            asked = [child["id"] for child in await self._api.post("/api/flow_runs/filter", body)]
            found += asked
        return found

    async def task_runs(self, flow_runs: list[str]) -> list[TaskRun]:
        """Return the tasks of some flow runs, the earliest first."""
        body = {"flow_runs": {"id": {"any_": flow_runs}}, "sort": "EXPECTED_START_TIME_ASC", "limit": 200}
        return msgspec.convert(await self._api.post("/api/task_runs/filter", body), list[TaskRun], strict=False)

    async def progress(self, flow_runs: list[str]) -> list[Progress]:
        """Return the progress artifacts of some flow runs, in the order of their creation."""
        body = {"flow_runs": {"id": {"any_": flow_runs}}, "artifacts": {"key": {"like_": "progress-"}}, "limit": 200}
        rows = await self._api.post("/api/artifacts/filter", body)
        latest = {row["key"]: row for row in sorted(rows, key=lambda row: str(row["created"]))}
        return [
            Progress(
                key=key, percent=min(100.0, float(row["data"] or 0.0)), description=str(row.get("description") or key)
            )
            for key, row in latest.items()
        ]

    async def failure(self, flow_runs: list[str]) -> str:
        """Return the last error line that the runs logged, or nothing."""
        body = {
            "logs": {"flow_run_id": {"any_": flow_runs}, "level": {"ge_": 40}},
            "sort": "TIMESTAMP_DESC",
            "limit": 1,
        }
        rows = await self._api.post("/api/logs/filter", body)
        return str(rows[0]["message"]).strip() if rows else ""

    async def end_interrupted_runs(self, now: datetime) -> int:
        """
        Close what an earlier, stopped stack left behind: runs that nobody executes, and those whose time passed.

        They would hold their deployment's concurrency slot, and each missed schedule would start at once.

        Returns:
            How many flow runs were closed; their tasks are closed with them.
        """
        under_way = {"state": {"type": {"any_": _UNDER_WAY}}}
        missed = {"state": {"type": {"any_": ["SCHEDULED"]}}, "expected_start_time": {"before_": now.isoformat()}}
        closed = 0
        for body, kind, state, why in (
            ({"task_runs": under_way}, "task_runs", "CRASHED", "The stack was stopped while this ran."),
            ({"flow_runs": under_way}, "flow_runs", "CRASHED", "The stack was stopped while this ran."),
            ({"flow_runs": missed}, "flow_runs", "CANCELLED", "The stack was stopped when this was due."),
        ):
            rows = await self._api.post(f"/api/{kind}/filter", body | {"limit": 200})
            for row in rows:
                order = {"state": {"type": state, "message": why}, "force": True}
                await self._api.post(f"/api/{kind}/{row['id']}/set_state", order)
            closed += len(rows) if kind == "flow_runs" else 0
        return closed
