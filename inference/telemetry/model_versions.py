"""The registry as a table: each version with its state, its label, and what it was trained and judged by."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import aiohttp
from rich.console import Console
from rich.table import Column, Table

from inference.models.registry import MlflowRegistry
from inference.telemetry.model_reference import Places
from inference.telemetry.printed import print_json

_STATES = {"champion": "ACTIVE", "challenger": "SHADOW"}


def list_versions(places: Places, *, as_json: bool) -> int:
    """
    Print every registered version, the newest first.

    Raises:
        NothingPromotedError: None was ever registered.
        RegistryUnavailableError: MLflow does not answer, or no address of it is known.
    """
    rows = asyncio.run(_rows(places))
    if as_json:
        print_json(rows)
        return 0
    table = Table("version", Column("tag", overflow="fold"), "state", "aliases", "verdict", "trained")
    for row in rows:
        table.add_row(
            row["id"], row["tag"], row["state"], ", ".join(row["aliases"]), row["gate_verdict"], row["trained_at"][:16]
        )
    Console().print(table)
    return 0


async def _rows(places: Places) -> list[dict[str, Any]]:
    async with aiohttp.ClientSession() as session:
        registry = MlflowRegistry(session, url=places.registry_url, model_name=places.model_name)
        return [version_row(one, await _logged(registry, one)) for one in await registry.versions()]


async def _logged(registry: MlflowRegistry, version: Mapping[str, Any]) -> Mapping[str, Any]:
    run_id = str(version.get("run_id") or "")
    return await registry.run(run_id) if run_id else {}


def version_row(version: Mapping[str, Any], logged: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return one version by the fields of a model registry's table, from what MLflow says of it and of its run.

    `state` is ACTIVE (the alias champion), SHADOW (challenger) or RETIRED, `is_active` 1 or 0; exactly one version can
    be active, as an alias points at one. `trained_at` is when its training began, UTC (ISO 8601); of a version that
    was registered by hand and does not say, when it was registered.
    """
    tags = {str(tag.get("key")): str(tag.get("value")) for tag in version.get("tags") or ()}
    aliases = [str(one) for one in version.get("aliases") or ()]
    params = _by_key(logged.get("params"))
    registered = datetime.fromtimestamp(int(version.get("creation_timestamp") or 0) / 1000, UTC)
    trained = _moment(str(params.get("created_at") or "")) or registered
    return {
        "id": str(version["version"]),
        "version": tags.get("artefact_version", ""),
        "tag": tags.get("tag", ""),
        "path": str(version.get("source") or ""),
        "params": params,
        "metrics": _by_key(logged.get("metrics")),
        "trained_at": trained.isoformat(timespec="seconds"),
        "is_active": int("champion" in aliases),
        "state": next((state for alias, state in _STATES.items() if alias in aliases), "RETIRED"),
        "aliases": sorted(aliases),
        "gate_verdict": tags.get("gate_verdict", ""),
    }


def _moment(text: str) -> datetime | None:
    try:
        told = datetime.fromisoformat(text)
        return told.astimezone(UTC) if told.tzinfo is not None else told.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def _by_key(entries: Sequence[Mapping[str, Any]] | None) -> dict[str, Any]:
    return {str(one.get("key")): one.get("value") for one in entries or ()}
