"""What a worker runs by, as rows: each rule and setting with its value, since when, by whom and why."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from inference.journal.codec import Entry
from inference.storage.records import Row

POLICY_NOTES = ("policy.loaded", "policy.updated")
STARTED = "health.started"
_POLICY, _WORKER = "policy", "worker"
# Which version of the policy's store is followed, in the words of its note.
_VERSION = ("store", "version")
_OF_THE_WORKER = ("mode", "venue")
_OF_THE_VERSION = ("version", "fingerprint", "author", "reason", "source")


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingRecord:
    """A value that is in force; `changed_ms` is when it took effect, the others who made it so, as far as known."""

    value: Any
    version: int | None
    author: str | None
    reason: str | None
    changed_ms: int
    seq: int

    def row(self, scope: str, name: str) -> Row:
        """Return the setting's row."""
        return {
            "scope": scope,
            "name": name,
            "value": self.value,
            "version": self.version,
            "author": self.author,
            "reason": self.reason,
            "changed_at": self.changed_ms,
            "seq": self.seq,
        }


def setting_of(row: Mapping[str, Any]) -> SettingRecord:
    """Return what a row says."""
    return SettingRecord(
        value=row["value"],
        version=row["version"],
        author=row["author"],
        reason=row["reason"],
        changed_ms=row["changed_at"],
        seq=row["seq"],
    )


Settings = MutableMapping[tuple[str, str], SettingRecord]


def version_in_force(known: Settings, detail: Mapping[str, str], entry: Entry) -> set[tuple[str, str]]:
    """Take in what was noted of a version of the policy; one that was superseded before it took effect changes none."""
    if "fingerprint" not in detail or "superseded_by" in detail:
        return set()
    scope, name = _VERSION
    said = {one: detail[one] for one in _OF_THE_VERSION if one in detail}
    return _take(known, scope, {name: said}, _record(said, now_ms=entry.timestamp_ms, seq=entry.seq))


def rules_in_force(
    known: Settings, rules: Mapping[str, Any], *, fingerprint: str, now_ms: int, seq: int
) -> set[tuple[str, str]]:
    """
    Take in the rules of a policy that a decision was made by; return what changed.

    Author and reason are those of the version that is followed, where it is of this policy.
    """
    followed = known.get(_VERSION)
    said = followed.value if followed is not None and followed.value.get("fingerprint") == fingerprint else {}
    # As a database gives it back: a value that is the same must compare as the same.
    values = msgspec.json.decode(msgspec.json.encode(rules))
    return _take(known, _POLICY, values, _record(said, now_ms=now_ms, seq=seq))


def worker_in_force(known: Settings, detail: Mapping[str, str], entry: Entry) -> set[tuple[str, str]]:
    """Take in what a worker began with; return what changed."""
    values = {name: detail[name] for name in _OF_THE_WORKER if name in detail}
    return _take(known, _WORKER, values, _record({}, now_ms=entry.timestamp_ms, seq=entry.seq))


def _record(said: Mapping[str, str], *, now_ms: int, seq: int) -> SettingRecord:
    number = said.get("version", "")
    return SettingRecord(
        value=None,
        version=int(number) if number.isdecimal() and len(number) < 10 else None,
        author=said.get("author"),
        reason=said.get("reason"),
        changed_ms=now_ms,
        seq=seq,
    )


def _take(known: Settings, scope: str, values: Mapping[str, Any], made: SettingRecord) -> set[tuple[str, str]]:
    changed = set()
    for name, value in values.items():
        before = known.get((scope, name))
        if before is None or before.value != value:
            known[scope, name] = replace(made, value=value)
            changed.add((scope, name))
    return changed
