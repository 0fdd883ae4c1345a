"""Whether a service is ready to be used."""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from feature_store.json_text import UNREADABLE
from infra.stack.services import WORK_POOL, Health

_TIMEOUT = aiohttp.ClientTimeout(total=5.0)


async def is_ready(health: Health, started_at: datetime) -> bool:
    """Ask the service itself; no answer means no."""
    match health.kind:
        case "http":
            return await _answers(health.target)
        case "prefect-worker":
            return await _worker_is_online(health.target, started_at)
        case "worker":
            return await asyncio.to_thread(_status_is_fresh, Path(health.target), started_at)
        case "process":
            return True
        case _:
            raise ValueError(f"Unknown kind of health check {health.kind!r}")


async def _answers(url: str) -> bool:
    try:
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as session, session.get(url) as response:
            return response.status < 400
    except (TimeoutError, aiohttp.ClientError):
        return False


async def _worker_is_online(api: str, started_at: datetime) -> bool:
    url = f"{api}/work_pools/{WORK_POOL}/workers/filter"
    try:
        async with (
            aiohttp.ClientSession(timeout=_TIMEOUT) as session,
            session.post(url, json={"workers": {"status": {"any_": ["ONLINE"]}}}) as response,
        ):
            if response.status != 200:
                return False
            workers: list[dict[str, Any]] = await response.json()
    except (TimeoutError, aiohttp.ClientError):
        return False
    # The server counts a worker that ended half a minute ago as online; its last heartbeat is older than ours.
    return any(datetime.fromisoformat(worker["last_heartbeat_time"]) >= started_at for worker in workers)


def _status_is_fresh(path: Path, started_at: datetime) -> bool:
    try:
        if path.stat().st_mtime < started_at.timestamp():
            return False
        status = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, *UNREADABLE):
        return False
    return status.get("state") not in {"starting", "stopped", None}
