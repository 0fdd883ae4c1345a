"""What flows hand to each other and to people: a candidate, and whether it was promoted."""

from __future__ import annotations

import msgspec


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
