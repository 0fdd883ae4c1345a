"""What flows hand to each other: a candidate, its reports, and whether it was promoted."""

from __future__ import annotations

import msgspec

# What a candidate's MLflow run holds, by path.
TRAINING_REPORT, TRAINING_CONFIG = "reports/training.json", "reports/config.json"
SHADOW_REPORT = "reports/shadow.json"


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A registered version with the run and the bundle behind it."""

    version: str
    run_id: str
    bundle_digest: str


class Promotion(msgspec.Struct, frozen=True, kw_only=True):
    """How judging a version ended; `reasons` name every gate that was not held."""

    promoted: bool
    version: str
    run_id: str
    reasons: tuple[str, ...]
    replaced: str | None = None
