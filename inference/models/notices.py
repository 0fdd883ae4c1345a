"""What flows decided and found of models, handed to the worker's journal through files of the home."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from feature_store.files import replace_bytes
from feature_store.json_text import UNREADABLE

_SUFFIX = ".json"
_MAX_BYTES = 64 * 1024
_MAX_TEXT = 2000
# Figures are a document, which cannot be cut: of more than that none are told.
_MAX_FIGURES = 48 * 1024


class Notice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    One decision about a version: a verdict of the gates, a person's approval, or a rollback.

    `decided_at` is ISO 8601 in UTC, `digest` the SHA-256 of the bundle's manifest. A notice may be journaled twice
    after a crash; the pair of version and `decided_at` tells that it is one.
    """

    event: Literal["model.verdict", "model.approved", "model.rolled_back"]
    version: str
    digest: str
    verdict: str
    mode: str
    decided_at: str
    venue: str = ""
    by: str = ""
    replaced: str = ""
    missing: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()

    def detail(self) -> dict[str, str]:
        """Return it as a journal entry's words; what is empty is left out."""
        told = {
            "version": self.version,
            "digest": self.digest,
            "verdict": self.verdict,
            "mode": self.mode,
            "venue": self.venue,
            "decided_at": self.decided_at,
            "by": self.by,
            "replaced": self.replaced,
            "missing": ", ".join(self.missing),
            "reasons": " ".join(self.reasons),
        }
        return _words(told)

    @property
    def stem(self) -> str:
        """Name of its file, by which notices come in the order decided."""
        return f"{_digits(self.decided_at)}-{self.event.removeprefix('model.')}-{self.version}"


class JobNotice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    How a retraining job stands: queued, running, resumed, succeeded, failed, or withdrawn before it began.

    Moments are ISO 8601 in UTC, empty where there is none yet. What was told later counts.
    """

    event: Literal["model.retraining_changed"] = "model.retraining_changed"
    job_id: str
    type: str
    status: str
    trigger: str
    told_at: str
    models: tuple[str, ...]
    kept: tuple[str, ...] = ()
    metrics: dict[str, float] = {}
    version: str = ""
    replaced: str = ""
    promoted: bool | None = None
    reasons: tuple[str, ...] = ()
    error_message: str = ""
    resumes: int = 0
    queued_at: str = ""
    started_at: str = ""
    completed_at: str = ""

    def detail(self) -> dict[str, str]:
        """Return it as a journal entry's words; what is empty is left out."""
        told = {
            "job_id": self.job_id,
            "type": self.type,
            "status": self.status,
            "trigger": self.trigger,
            "told_at": self.told_at,
            "models": ",".join(self.models),
            "kept": ",".join(self.kept),
            "version": self.version,
            "replaced": self.replaced,
            "promoted": "" if self.promoted is None else str(self.promoted).lower(),
            "reasons": " ".join(self.reasons),
            "error_message": self.error_message,
            "resumes": str(self.resumes),
            "queued_at": self.queued_at,
            "started_at": self.started_at,
            "completed_at": self.completed_at,
        }
        return _words(told) | _figures("metrics", self.metrics)

    @property
    def stem(self) -> str:
        """See `Notice`."""
        return f"{_digits(self.told_at)}-{self.job_id}-{self.status}"


class DriftNotice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    What a drift check found of the model that trades, or of one that is held back.

    Each figure is a part (inputs, predictions, outcomes, performance), a name in it (a column, or empty for the whole
    of it), a statistic, its value, from where on it is drift (None: nothing is held against it), and how it stands.
    """

    event: Literal["model.drift_checked"] = "model.drift_checked"
    version: str
    role: Literal["champion", "challenger"]
    verdict: str
    hours: int
    window_ended_at: str
    checked_at: str
    retraining: str = ""
    false_alarm_rate: float = 0.0
    figures: tuple[tuple[str, str, str, float | None, float | None, str], ...] = ()

    def detail(self) -> dict[str, str]:
        """Return it as a journal entry's words; figures that are too many are told without those of columns."""
        told = {
            "version": self.version,
            "role": self.role,
            "verdict": self.verdict,
            "hours": str(self.hours),
            "window_ended_at": self.window_ended_at,
            "checked_at": self.checked_at,
            "retraining": self.retraining,
            "false_alarm_rate": str(self.false_alarm_rate),
        }
        figures = _figures("figures", self.figures) or _figures("figures", [one for one in self.figures if not one[1]])
        return _words(told) | figures

    @property
    def stem(self) -> str:
        """See `Notice`."""
        return f"{_digits(self.checked_at)}-drift-{self.role}-{self.version}"


AnyNotice = Notice | JobNotice | DriftNotice
_KINDS: dict[str, type[AnyNotice]] = {
    "model.verdict": Notice,
    "model.approved": Notice,
    "model.rolled_back": Notice,
    "model.retraining_changed": JobNotice,
    "model.drift_checked": DriftNotice,
}


class _Kind(msgspec.Struct):
    event: str = ""


def _digits(moment: str) -> str:
    return "".join(letter for letter in moment if letter.isdigit())


def _words(told: dict[str, str]) -> dict[str, str]:
    return {name: text[:_MAX_TEXT] for name, text in told.items() if text}


def _figures(name: str, figures: Any) -> dict[str, str]:
    text = msgspec.json.encode(figures).decode()
    return {name: text} if figures and len(text) <= _MAX_FIGURES else {}


def _read(content: bytes) -> AnyNotice | None:
    kind = _KINDS.get(msgspec.json.decode(content, type=_Kind).event)
    return None if kind is None else msgspec.json.decode(content, type=kind)


def leave_notice(folder: Path, notice: AnyNotice) -> Path:
    """
    Leave a notice for the worker of a home; it appears whole or not at all.

    Raises:
        OSError: The folder cannot be written.
    """
    path = folder / f"{notice.stem}{_SUFFIX}"
    replace_bytes(path, msgspec.json.encode(_fitting(notice)))
    return path


def _fitting(notice: AnyNotice) -> AnyNotice:
    """Return a notice without what its entry would leave out anyway, so that its file is none too large to be read."""
    match notice:
        case DriftNotice() if not _figures("figures", notice.figures):
            return replace(notice, figures=tuple(one for one in notice.figures if not one[1]))
        case JobNotice():
            metrics = notice.metrics if _figures("metrics", notice.metrics) else {}
            error = notice.error_message[:_MAX_TEXT]
            return replace(notice, metrics=metrics, error_message=error, reasons=_cut(notice.reasons))
        case Notice():
            return replace(notice, reasons=_cut(notice.reasons), missing=_cut(notice.missing))
    return notice


def _cut(texts: tuple[str, ...]) -> tuple[str, ...]:
    kept, left = [], _MAX_TEXT
    for text in texts:
        if left <= 0:
            break
        kept.append(text[:left])
        left -= len(text)
    return tuple(kept)


def notices_in(folder: Path) -> Iterator[tuple[Path, AnyNotice | None]]:
    """
    Yield every notice in the order decided, None for a file that is none; whoever journaled it removes it.

    A folder that is not there holds none; links, and files larger than 64 KiB, are not read.
    """
    try:
        found = sorted(path for path in folder.iterdir() if path.suffix == _SUFFIX and not path.name.startswith("."))
    except OSError:
        return
    for path in found:
        try:
            usable = path.is_file() and not path.is_symlink() and path.stat().st_size <= _MAX_BYTES
            yield path, _read(path.read_bytes()) if usable else None
        except OSError:
            continue  # Somebody else took it.
        except UNREADABLE:
            yield path, None
