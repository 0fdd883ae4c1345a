"""What the journal says of learning, as rows: retraining jobs, drift checks, and opinions that were only compared."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from feature_store.json_text import UNREADABLE
from inference.domain.shadow import ShadowScored
from inference.journal.codec import Entry
from inference.storage.columns import LAST_MS
from inference.storage.records import Row

RETRAINING_CHANGED = "model.retraining_changed"
DRIFT_CHECKED = "model.drift_checked"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """
    A retraining job as it was told last; moments are UTC milliseconds of the flows' clock.

    `status` is queued, running, resumed, succeeded, failed, or withdrawn: ordered, and another went on in its place.
    """

    type: str
    status: str
    trigger: str
    models: Any
    kept: Any
    metrics: Any
    version: str | None
    replaced: str | None
    promoted: bool | None
    reasons: str | None
    error_message: str | None
    resumes: int
    queued_ms: int | None
    started_ms: int | None
    completed_ms: int | None
    told_ms: int
    seq: int
    last_seq: int

    def row(self, job_id: str) -> Row:
        """Return the job's row."""
        return {
            "job_id": job_id,
            "type": self.type,
            "status": self.status,
            "trigger": self.trigger,
            "models": self.models,
            "kept": self.kept,
            "metrics": self.metrics,
            "version": self.version,
            "replaced": self.replaced,
            "promoted": self.promoted,
            "reasons": self.reasons,
            "error_message": self.error_message,
            "resumes": self.resumes,
            "queued_at": self.queued_ms,
            "started_at": self.started_ms,
            "completed_at": self.completed_ms,
            "told_at": self.told_ms,
            "seq": self.seq,
            "last_seq": self.last_seq,
        }


def job_of(row: Mapping[str, Any]) -> JobRecord:
    """Return what a row says."""
    moments = {f"{name}_ms": row[f"{name}_at"] for name in ("queued", "started", "completed", "told")}
    others = set(JobRecord.__dataclass_fields__) - set(moments)
    return JobRecord(**moments, **{name: row[name] for name in others})


def jobs_after(known: MutableMapping[str, JobRecord], detail: Mapping[str, str], entry: Entry) -> set[str]:
    """
    Take in how a job stands; return the jobs of which something is new.

    What was told before is journaled again where a worker died in between: the later word of the flows stays.
    """
    job_id = detail.get("job_id", "")
    told_ms = _moment(detail.get("told_at")) or entry.timestamp_ms
    before = known.get(job_id)
    if not job_id or (before is not None and before.told_ms > told_ms):
        return set()
    known[job_id] = JobRecord(
        type=detail.get("type", ""),
        status=detail.get("status", ""),
        trigger=detail.get("trigger", ""),
        models=_words(detail.get("models")),
        kept=_words(detail.get("kept")),
        metrics=_document(detail.get("metrics"), {}),
        version=detail.get("version"),
        replaced=detail.get("replaced"),
        promoted={"true": True, "false": False}.get(detail.get("promoted", "")),
        reasons=detail.get("reasons"),
        error_message=detail.get("error_message"),
        resumes=_count(detail.get("resumes")) or 0,
        queued_ms=_moment(detail.get("queued_at")),
        started_ms=_moment(detail.get("started_at")),
        completed_ms=_moment(detail.get("completed_at")),
        told_ms=told_ms,
        seq=entry.seq if before is None else before.seq,
        last_seq=entry.seq,
    )
    return {job_id}


class DriftFigure(msgspec.Struct, frozen=True, array_like=True):
    """
    One figure of a drift check: of which part and column, by which statistic, and from where on it is drift.

    `name` is empty where the part is judged as a whole, `alarm_at` None where nothing is held against it.
    """

    part: str
    name: str
    statistic: str
    value: float | None
    alarm_at: float | None
    state: str


def drift_rows(detail: Mapping[str, str], entry: Entry) -> list[Row]:
    """Return a row for each figure of a drift check; none where its words are of another version."""
    try:
        figures = msgspec.json.decode(detail.get("figures", "[]"), type=list[DriftFigure])
    except UNREADABLE:
        return []
    common = {
        "seq": entry.seq,
        "version": detail.get("version", ""),
        "role": detail.get("role", ""),
        "verdict": detail.get("verdict", ""),
        "hours": _count(detail.get("hours")),
        "window_ended_at": _moment(detail.get("window_ended_at")),
        # Not when it was journaled: notices of days may have waited for a worker.
        "checked_at": _moment(detail.get("checked_at")) or entry.timestamp_ms,
    }
    return [
        {
            **common,
            "ordinal": ordinal,
            "part": one.part,
            "name": one.name,
            "statistic": one.statistic,
            "value": one.value,
            "alarm_at": one.alarm_at,
            "state": one.state,
        }
        for ordinal, one in enumerate(figures)
    ]


def shadow_rows(event: ShadowScored, entry: Entry) -> list[Row]:
    """Return a row for each opinion on each symbol, what a model abstained from included."""
    common = {
        "seq": entry.seq,
        "place": event.place,
        "candle_closed_at": event.candle_close_ms,
        "scored_at": entry.timestamp_ms,
    }
    width = len(event.symbols)
    return [
        {
            **common,
            "ordinal": number * width + place,
            "role": opinion.role.value,
            "version": opinion.version,
            "digest": opinion.digest,
            "symbol": symbol,
            "horizon": opinion.horizon,
            "threshold": opinion.threshold,
            "expected_return": opinion.expected_return[place],
            "probability_up": opinion.probability_up[place],
            "bid": event.bid[place],
            "ask": event.ask[place],
        }
        for number, opinion in enumerate(event.opinions)
        for place, symbol in enumerate(event.symbols)
    ]


def _words(text: str | None) -> list[str]:
    return [word for word in (text or "").split(",") if word]


def _document(text: str | None, otherwise: object) -> Any:
    try:
        return otherwise if text is None else msgspec.json.decode(text)
    except UNREADABLE:
        return otherwise


def _count(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() and len(text) < 10 else None


def _moment(text: str | None) -> int | None:
    try:
        moment = None if text is None else datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment is None:
        return None
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    found = (aware - _EPOCH) // timedelta(milliseconds=1)
    # A word of a notice, which anybody may have left: no table could hold it, and the journal keeps it for ever.
    return found if 0 <= found <= LAST_MS else None
