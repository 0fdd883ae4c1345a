"""Finding what was changed, removed, reordered or cut off in a journal."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from inference.domain.errors import JournalError
from inference.journal.codec import GENESIS, Entry, entry_of, expected_digest
from inference.journal.head import Head, read_head
from inference.journal.reader import torn_tail, whole_lines


class Damage(StrEnum):
    """What is wrong with the first bad entry."""

    UNREADABLE = "UNREADABLE"
    CHANGED = "CHANGED"
    REMOVED = "REMOVED"
    REORDERED = "REORDERED"
    TRUNCATED = "TRUNCATED"
    ANCHOR_DISAGREES = "ANCHOR_DISAGREES"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The first damage: what, at which entry (its number, counted from 1), and in words."""

    damage: Damage
    seq: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """How many entries hold, the digest they end on, and the first damage if there is one."""

    entries: int
    digest: str
    finding: Finding | None
    # Bytes of an unfinished last line: a crash, not damage, unless the anchor says that it was whole.
    torn_bytes: int = 0

    @property
    def is_whole(self) -> bool:
        """Whether every entry is as it was written and none is missing."""
        return self.finding is None


class BrokenChainError(JournalError):
    """The journal is not as it was written; `finding` says where."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(
            f"Journal entry {finding.seq} is {finding.damage.lower().replace('_', ' ')}: {finding.message}. "
            "Restore the journal from the backup; trading must not go on without its record"
        )
        self.finding = finding


def verified(
    lines: Iterable[bytes], head: Head | None, *, after: Head | None = None, anchors: Mapping[str, Head] | None = None
) -> Iterator[Entry]:
    """
    Yield each entry once it is proved to continue the chain; at the end, check the anchor.

    The chain begins with the first entry, or behind `after`, an entry that was verified before. `anchors` are others
    than the one beside the journal, by where they are kept.

    Raises:
        BrokenChainError: At the first entry that does not.
    """
    expected_seq, previous = (1, GENESIS) if after is None else (after.seq + 1, after.digest)
    vouched = _vouched(head, anchors or {})
    remaining = iter(lines)
    for line in remaining:
        entry = _read(line, expected_seq)
        _check_link(entry, expected_seq, previous, remaining)
        for where, digest in vouched.pop(entry.seq, ()):
            if entry.digest != digest:
                raise BrokenChainError(
                    Finding(
                        damage=Damage.ANCHOR_DISAGREES,
                        seq=entry.seq,
                        message=f"{where} holds digest {digest[:12]}, the file {entry.digest[:12]}: rewritten",
                    )
                )
        yield entry
        expected_seq, previous = expected_seq + 1, entry.digest

    beyond = max((seq for seq in vouched if seq >= expected_seq), default=None)
    if beyond is not None:
        raise BrokenChainError(
            Finding(
                damage=Damage.TRUNCATED,
                seq=expected_seq,
                message=f"the file ends after entry {expected_seq - 1}, {vouched[beyond][0][0]} vouches for {beyond}",
            )
        )


def _vouched(head: Head | None, anchors: Mapping[str, Head]) -> dict[int, list[tuple[str, str]]]:
    """Return by entry who vouches for it, and with which digest."""
    found = defaultdict(list)
    if head is not None:
        found[head.seq].append(("the anchor", head.digest))
    for where, one in anchors.items():
        found[one.seq].append((f"the anchor {where}", one.digest))
    return dict(found)


def verify(path: Path, head_path: Path, *, anchors: Mapping[str, Head] | None = None) -> Verification:
    """Check a whole journal against itself, its anchor, and those that are kept elsewhere."""
    count, digest = 0, GENESIS
    finding = None
    try:
        for entry in verified(whole_lines(path), read_head(head_path), anchors=anchors):
            count, digest = entry.seq, entry.digest
    except BrokenChainError as error:
        finding = error.finding
    torn = torn_tail(path)
    return Verification(entries=count, digest=digest, finding=finding, torn_bytes=torn.length if torn else 0)


def _read(line: bytes, expected_seq: int) -> Entry:
    try:
        return entry_of(line)
    except JournalError as error:
        raise BrokenChainError(Finding(damage=Damage.UNREADABLE, seq=expected_seq, message=str(error))) from error


def _check_link(entry: Entry, expected_seq: int, previous: str, remaining: Iterator[bytes]) -> None:
    if entry.digest != expected_digest(entry):
        found = Finding(damage=Damage.CHANGED, seq=expected_seq, message="its digest does not cover what it says")
    elif entry.seq > expected_seq:
        later = any(f'"seq":{expected_seq},'.encode() in line for line in remaining)
        found = Finding(
            damage=Damage.REORDERED if later else Damage.REMOVED,
            seq=expected_seq,
            message=f"entry {entry.seq} follows entry {expected_seq - 1}",
        )
    elif entry.seq < expected_seq:
        found = Finding(damage=Damage.REORDERED, seq=expected_seq, message=f"entry {entry.seq} stands in its place")
    elif entry.previous != previous:
        found = Finding(
            damage=Damage.CHANGED, seq=max(1, expected_seq - 1), message="its successor was chained to another digest"
        )
    else:
        return
    raise BrokenChainError(found)
