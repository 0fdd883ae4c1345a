"""Running the journal again: the worker's state from its events, and every decision from its snapshot."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from inference.decision import decide
from inference.domain.events import CandlesDecided
from inference.execution.book import Book
from inference.journal.codec import Entry, event_data, event_of
from inference.journal.reader import read_entries


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """A recorded decision that today's code does not make again."""

    seq: int
    recorded: bytes
    replayed: bytes


def replay_decisions(entries: Iterable[Entry]) -> tuple[int, list[Deviation]]:
    """Decide every recorded snapshot again; return how many were, and where a single byte differs."""
    count, deviations = 0, []
    for entry in entries:
        event = event_of(entry)
        if not isinstance(event, CandlesDecided):
            continue
        count += 1
        decisions = decide(event.snapshot, event.policy, event.now_ms)
        again = CandlesDecided.of(event.snapshot, event.policy, event.now_ms, decisions)
        recorded, replayed = bytes(entry.text), event_data(again)
        if recorded != replayed:
            deviations.append(Deviation(seq=entry.seq, recorded=recorded, replayed=replayed))
    return count, deviations


def rebuild_book(path: Path) -> Book:
    """Return orders, trades, cooldowns and marks as a journal tells them."""
    return Book.rebuilt(event_of(entry) for entry in read_entries(path))
