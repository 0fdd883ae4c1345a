"""What the stack asks of MLflow's server: the champion, the newest candidate and their figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from infra.stack.rest import JsonApi, NotFoundError, RequestRefusedError

MODEL = "quantum-ensemble"
CHAMPION = "champion"
_BASE = "/api/2.0/mlflow"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVersion:
    """One registered version with what its run measured."""

    version: str
    run_id: str
    tags: Mapping[str, str]
    metrics: Mapping[str, float]

    @property
    def verdict(self) -> str:
        """What the gates decided: passed, held, refused, or nothing yet."""
        return self.tags.get("gate_verdict", "not judged")


class MlflowServer:
    """One MLflow server."""

    def __init__(self, api: JsonApi) -> None:
        self._api = api

    async def champion(self) -> ModelVersion | None:
        """Return the version that trades, or None while nothing was promoted."""
        try:
            found = await self._api.get(f"{_BASE}/registered-models/alias", name=MODEL, alias=CHAMPION)
        except NotFoundError:
            return None
        except RequestRefusedError as error:
            # A model that exists without the alias is a "bad request" to MLflow.
            if "alias" in str(error):
                return None
            raise
        return await self._version(found["model_version"])

    async def newest(self) -> ModelVersion | None:
        """Return the version that was registered last, promoted or not."""
        found = await self._api.get(
            f"{_BASE}/model-versions/search", filter=f"name='{MODEL}'", max_results=1, order_by="version_number DESC"
        )
        versions = found.get("model_versions") or []
        return await self._version(versions[0]) if versions else None

    async def _version(self, raw: dict[str, Any]) -> ModelVersion:
        metrics: dict[str, float] = {}
        if raw.get("run_id"):
            run = await self._api.get(f"{_BASE}/runs/get", run_id=raw["run_id"])
            rows = run["run"]["data"].get("metrics") or []
            metrics = {row["key"]: float(row["value"]) for row in rows}
        return ModelVersion(
            version=str(raw["version"]),
            run_id=str(raw.get("run_id") or ""),
            tags={tag["key"]: tag["value"] for tag in raw.get("tags") or []},
            metrics=metrics,
        )
