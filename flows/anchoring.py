"""Whether a journal still holds what an anchor said of it, and how far it may be vouched for now."""

from __future__ import annotations

from pathlib import Path

from inference.journal.codec import entry_of
from inference.journal.head import Head, read_head
from inference.journal.reader import newest_lines, whole_lines
from inference.journal.verify import BrokenChainError, Damage, Finding, verified


def anchored_head(journal: Path, known: Head | None, where: str) -> Head | None:
    """
    Return how far a journal is durable, once all behind the last anchor is proved to go on from it.

    Nothing before that anchor is read again, but of a journal that has none yet everything. None where nothing is
    durable yet.

    Raises:
        BrokenChainError: The journal is damaged, was cut off below the anchor, or written anew.
        JournalError: Its own anchor cannot be read.
    """
    # The anchor first: what is appended meanwhile it does not vouch for yet.
    head = read_head(journal.with_suffix(".head"))
    if known is None:
        for _ in verified(whole_lines(journal), head):
            pass
        return head
    later: list[bytes] = []
    for _, line in newest_lines(journal):
        later.append(line)
        if entry_of(line).seq <= known.seq:
            break
    later.reverse()
    found = entry_of(later[0]) if later else None
    if found is None or found.seq != known.seq:
        ends_after = 0 if found is None else found.seq
        told = f"the file ends after entry {ends_after}, the anchor {where} vouches for {known.seq}"
        raise BrokenChainError(Finding(damage=Damage.TRUNCATED, seq=ends_after + 1, message=told))
    before = Head(seq=found.seq - 1, digest=found.previous)
    for _ in verified(later, head, after=before, anchors={where: known}):
        pass
    if head is None or head.seq < known.seq:
        told = f"the anchor beside it ends at entry {0 if head is None else head.seq}, {where} vouches for {known.seq}"
        raise BrokenChainError(Finding(damage=Damage.ANCHOR_DISAGREES, seq=known.seq, message=told))
    return head
