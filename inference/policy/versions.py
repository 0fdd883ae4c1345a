"""Versions of the policy: who made them, when and why, each chained to the one before."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec

from feature_store.errors import QuantumError
from feature_store.json_text import UNREADABLE
from inference.domain.errors import PolicyError
from inference.domain.policy import Policy
from inference.policy.values import plain, policy_of

FORMAT = 1
# What the first version names as its predecessor.
GENESIS = "0" * 64
_LONGEST_WORDS = 500


class StoreFault(StrEnum):
    """What is wrong with a store."""

    UNREADABLE = "UNREADABLE"
    DAMAGED = "DAMAGED"
    # There was one, as its snapshot shows.
    MISSING = "MISSING"
    # It ends before its snapshot does: an older one was put in its place.
    BEHIND = "BEHIND"
    # A later version of this program wrote it.
    NEWER = "NEWER"
    BUSY = "BUSY"


class PolicyStoreError(QuantumError):
    """The store of policies cannot be used; `fault` says what is wrong, the message what to do."""

    def __init__(self, fault: StoreFault, message: str) -> None:
        super().__init__(message)
        self.fault = fault


class PolicyConflictError(QuantumError):
    """Somebody else made a version meanwhile; nothing was changed."""


class Source(StrEnum):
    """How a version came about."""

    SEED = "seed"
    SET = "set"
    PROFILE = "profile"
    FILE = "file"
    ROLLBACK = "rollback"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyVersion:
    """
    One version: its number, counted from 1, its rules, and how it came about.

    `made_ms` is wall-clock time and orders nothing: numbers do. `of` names the profile, the file or the version that it
    was taken from. `previous` and `digest` chain versions: none can be changed or left out without it showing.
    """

    number: int
    policy: Policy
    author: str
    reason: str
    made_ms: int
    source: Source
    of: str
    previous: str
    digest: str


class _Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: int
    number: int
    rules: dict[str, Any]
    fingerprint: str
    author: str
    reason: str
    made_ms: int
    source: Source
    of: str
    previous: str
    digest: str = ""


class _Marked(msgspec.Struct, frozen=True):
    format: int


def next_version(
    before: PolicyVersion | None,
    policy: Policy,
    *,
    author: str,
    reason: str,
    made_ms: int,
    source: Source,
    of: str = "",
) -> PolicyVersion:
    """
    Return the version that follows.

    Raises:
        PolicyError: It changes nothing, or says nothing printable of who made it and why.
    """
    if before is not None and policy == before.policy:
        raise PolicyError(f"Nothing changed: policy version {before.number} says the same already")
    for what, text in (("author", author), ("reason", reason)):
        if not text.strip() or len(text) > _LONGEST_WORDS or not text.isprintable():
            raise PolicyError(
                f"A policy's {what} must be 1 to {_LONGEST_WORDS} printable characters in one line, was {text[:60]!r};"
                f" write --{what}"
            )
    number, previous = (1, GENESIS) if before is None else (before.number + 1, before.digest)
    made = PolicyVersion(
        number=number, policy=policy, author=author.strip(), reason=reason.strip(), made_ms=made_ms, source=source,
        of=of, previous=previous, digest="",
    )  # fmt: skip
    return version_of(_text(_entry(made)), unsigned=True)


def entry_text(version: PolicyVersion) -> str:
    """Return a version as the one JSON text that says it."""
    return _text(_entry(version))


def version_of(text: str | bytes, *, unsigned: bool = False) -> PolicyVersion:
    """
    Return the version that a text says; `unsigned` takes one that has no digest yet, and gives it one.

    Raises:
        PolicyStoreError: The text is no version, was changed, or was written by a later version of this program.
    """
    try:
        marked = msgspec.json.decode(text, type=_Marked).format
        if marked > FORMAT:
            raise PolicyStoreError(
                StoreFault.NEWER,
                f"The policy's versions have format {marked}, this program reads {FORMAT}; update it before it trades",
            )
        entry = msgspec.json.decode(text, type=_Entry)
    except UNREADABLE as error:
        raise damaged(f"a version cannot be read: {error}"[:300]) from error
    digest = hashlib.sha256(_text(msgspec.structs.replace(entry, digest="")).encode()).hexdigest()
    if not unsigned and digest != entry.digest:
        raise damaged(f"version {entry.number} was changed after it was made")
    try:
        policy = policy_of(entry.rules, f"Policy version {entry.number}")
    except PolicyError as error:
        raise PolicyStoreError(
            StoreFault.NEWER, f"{error}; a later version of this program wrote it: update before it trades"
        ) from error
    if policy.fingerprint != entry.fingerprint:
        raise PolicyStoreError(
            StoreFault.NEWER,
            f"Policy version {entry.number} has another fingerprint here: another version of this program wrote it;"
            " update before it trades",
        )
    return PolicyVersion(
        number=entry.number, policy=policy, author=entry.author, reason=entry.reason, made_ms=entry.made_ms,
        source=entry.source, of=entry.of, previous=entry.previous, digest=digest,
    )  # fmt: skip


def chained(versions: Iterable[PolicyVersion]) -> tuple[PolicyVersion, ...]:
    """
    Return versions that follow each other from the first one on.

    Raises:
        PolicyStoreError: One is missing, or follows another one than it says.
    """
    found: list[PolicyVersion] = []
    previous = GENESIS
    for place, one in enumerate(versions, start=1):
        if one.number != place or one.previous != previous:
            raise damaged(f"version {place} is missing or is not the one that was made")
        found.append(one)
        previous = one.digest
    return tuple(found)


def snapshot_text(versions: Sequence[PolicyVersion]) -> bytes:
    """Return all versions as one JSON document, for `versions_of_snapshot`."""
    document = {"format": FORMAT, "versions": [msgspec.Raw(entry_text(one).encode()) for one in versions]}
    return msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"


def versions_of_snapshot(text: bytes) -> tuple[PolicyVersion, ...]:
    """
    Return the versions of a snapshot, at least one.

    Raises:
        PolicyStoreError: It is not one, or not whole.
    """
    return chained(version_of(bytes(one)) for one in _entries_of(text))


def newest_of_snapshot(text: bytes) -> PolicyVersion:
    """
    Return the newest version of a snapshot; those before it are not looked at.

    Raises:
        PolicyStoreError: It is not one, or that version cannot be trusted.
    """
    return version_of(bytes(_entries_of(text)[-1]))


def differences(before: Policy, after: Policy) -> dict[str, tuple[object, object]]:
    """Return the rules in which two policies differ, each with its value in both."""
    earlier, later = _values(before), _values(after)
    return {name: (earlier[name], later[name]) for name in earlier if earlier[name] != later[name]}


def damaged(found: str) -> PolicyStoreError:
    """Return the error that says a store is damaged, and what to do."""
    return PolicyStoreError(
        StoreFault.DAMAGED,
        f"The policy store is damaged: {found}; put its file back, or run `qtctl policy recover` to go on from its"
        " snapshot",
    )


def _entries_of(text: bytes) -> list[msgspec.Raw]:
    try:
        document = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        entries = msgspec.json.decode(document.get("versions", b"[]"), type=list[msgspec.Raw])
    except UNREADABLE as error:
        raise damaged(f"its snapshot cannot be read: {error}"[:300]) from error
    if not entries:
        raise damaged("its snapshot holds no version")
    return entries


def _values(policy: Policy) -> Mapping[str, object]:
    return {name: getattr(policy, name) for name in policy.__slots__}


def _entry(version: PolicyVersion) -> _Entry:
    return _Entry(
        format=FORMAT, number=version.number, rules=plain(version.policy), fingerprint=version.policy.fingerprint,
        author=version.author, reason=version.reason, made_ms=version.made_ms, source=version.source, of=version.of,
        previous=version.previous, digest=version.digest,
    )  # fmt: skip


def _text(entry: _Entry) -> str:
    return msgspec.json.encode(entry, order="sorted").decode()
