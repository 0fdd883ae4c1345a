"""What the journal says of model versions: which trades, which is compared, which is retired."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from typing import Any

from inference.journal.codec import Entry
from inference.storage.records import uuid_of

ACTIVE, SHADOW, RETIRED = "ACTIVE", "SHADOW", "RETIRED"
_LOADED, _UNLOADED, _VERDICT = "model.loaded", "model.unloaded", "model.verdict"
_APPROVED, _ROLLED_BACK = "model.approved", "model.rolled_back"
_PASSED = "passed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecord:
    """One version of a model; moments are UTC milliseconds of the journal, `detail` the newest words on it."""

    status: str
    first_seen_ms: int
    seq: int
    verdict: str | None = None
    source: str | None = None
    horizon: int | None = None
    approved_by: str | None = None
    promoted_ms: int | None = None
    loaded_ms: int | None = None
    retired_ms: int | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)

    def row(self, version: str, digest: str) -> dict[str, Any]:
        """Return the version's row."""
        return {
            "version": version,
            "digest": digest,
            "uuid": uuid_of("model", f"{version}:{digest}"),
            "status": self.status,
            "verdict": self.verdict,
            "source": self.source,
            "horizon": self.horizon,
            "detail": self.detail,
            "approved_by": self.approved_by,
            "first_seen_at": self.first_seen_ms,
            "promoted_at": self.promoted_ms,
            "loaded_at": self.loaded_ms,
            "retired_at": self.retired_ms,
            "seq": self.seq,
        }


def record_of(row: Mapping[str, Any]) -> ModelRecord:
    """Return what a row says."""
    return ModelRecord(
        status=row["status"],
        first_seen_ms=row["first_seen_at"],
        seq=row["seq"],
        verdict=row["verdict"],
        source=row["source"],
        horizon=row["horizon"],
        approved_by=row["approved_by"],
        promoted_ms=row["promoted_at"],
        loaded_ms=row["loaded_at"],
        retired_ms=row["retired_at"],
        detail=row["detail"],
    )


def models_after(
    known: MutableMapping[tuple[str, str], ModelRecord], kind: str, detail: Mapping[str, str], entry: Entry
) -> set[tuple[str, str]]:
    """Take in what was noted of a model; return the versions of which something is new."""
    version, digest = detail.get("version", ""), detail.get("digest", "")
    now_ms = entry.timestamp_ms
    if kind == _UNLOADED:
        return _retire(known, now_ms, lambda key: key[0] == version)
    if kind not in (_LOADED, _VERDICT, _APPROVED, _ROLLED_BACK) or not version:
        return set()
    key = version, digest
    before = known.get(key) or ModelRecord(status=SHADOW, first_seen_ms=now_ms, seq=entry.seq)
    changed = {key}
    after = replace(before, detail={**before.detail, **detail})
    if kind == _LOADED:
        changed |= _retire(known, now_ms, lambda other: other != key)
        horizon = detail.get("horizon", "")
        after = replace(
            after,
            status=ACTIVE,
            source=detail.get("source"),
            horizon=int(horizon) if horizon.isdecimal() else before.horizon,
            loaded_ms=now_ms,
            retired_ms=None,
        )
    elif kind == _VERDICT:
        passed = detail.get("verdict") == _PASSED
        after = replace(after, verdict=detail.get("verdict"), promoted_ms=now_ms if passed else before.promoted_ms)
    elif kind == _APPROVED:
        after = replace(after, approved_by=detail.get("by"))
    else:
        after = replace(after, status=RETIRED, verdict=detail.get("verdict") or before.verdict, retired_ms=now_ms)
    known[key] = after
    return changed


def _retire(known: MutableMapping[tuple[str, str], ModelRecord], now_ms: int, which: Any) -> set[tuple[str, str]]:
    gone = {key for key, record in known.items() if record.status == ACTIVE and which(key)}
    for key in gone:
        known[key] = replace(known[key], status=RETIRED, retired_ms=now_ms)
    return gone
