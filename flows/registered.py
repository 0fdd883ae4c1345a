"""What the MLflow registry holds, as values: versions, runs, and what is logged to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from feature_store.errors import QuantumError
from flows.replay.live_figures import MetricPoint
from inference.models.set_aside import REJECTED

MODEL_NAME = "quantum-ensemble"
ARTEFACT_VERSION = "artefact_version"
"""The tag of a version that names it by when it was trained."""


def artefact_version(created_at: str) -> str:
    """Name a version by when it was trained (ISO 8601), to the second of UTC: `quantum-ensemble_v20251213_041028`."""
    return f"{MODEL_NAME}_v{datetime.fromisoformat(created_at).astimezone(UTC):%Y%m%d_%H%M%S}"


class RegistryError(QuantumError):
    """The registry answered, but refused or lacks what was asked; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredVersion:
    """One version of the registered model, with the run that explains it."""

    version: str
    run_id: str
    aliases: tuple[str, ...]
    tags: Mapping[str, str]

    @property
    def bundle_digest(self) -> str:
        """SHA-256 of the bundle's manifest, as it was tagged at registration."""
        return self.tags.get("bundle_digest", "")

    @property
    def is_rejected(self) -> bool:
        """Whether a rollback set it aside."""
        return self.tags.get("status") == REJECTED

    @property
    def tagged_digest(self) -> str | None:
        """The same for `load_bundle` to expect; None of a version that was registered by hand and has no such tag."""
        return self.bundle_digest or None


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackPlan:
    """Which version a rollback sets aside and which trades instead; `was_done` where that was carried out before."""

    aside: RegisteredVersion
    target: RegisteredVersion
    was_done: bool = False


@dataclass(frozen=True, slots=True)
class RunSummary:
    """One run of the experiment: its id, its tags, and the last value of each metric."""

    run_id: str
    tags: Mapping[str, str]
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLog:
    """What a step has to say to a run: flat values, points of a course, texts and pictures by path in its artifacts."""

    params: Mapping[str, Any] | None = None
    metrics: Mapping[str, float] | None = None
    points: Sequence[MetricPoint] | None = None
    tags: Mapping[str, str] | None = None
    texts: Mapping[str, str] | None = None
    images: Mapping[str, bytes] | None = None
    # When the metrics were true, for those that are logged again and again; 0 for those of one moment.
    time_ms: int = 0
