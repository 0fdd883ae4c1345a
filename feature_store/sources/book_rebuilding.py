"""Rebuilding an order book from a recorded snapshot and the changes that followed it."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from feature_store.errors import BadInputError

EVERY_MS = 1_000
"""A snapshot is taken of each second in which the book changed."""
LEVELS = 20


@dataclass(frozen=True, slots=True)
class Change:
    """
    Levels that changed at once: for each, whether it is a bid, its price, and what is left there.

    `after_id` is the change that it follows, as the venue states it or as its numbers say.
    """

    time_ms: int
    arrived_ms: int
    after_id: int
    last_id: int
    levels: Sequence[tuple[bool, float, float]]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The best levels of both sides, the best one first, after the last change of a second."""

    time_ms: int
    arrived_ms: int
    update_id: int
    bids: list[tuple[float, float]]
    asks: list[tuple[float, float]]


@dataclass(slots=True)
class _Book:
    """What is left at each price."""

    bids: dict[float, float] = field(default_factory=dict)
    asks: dict[float, float] = field(default_factory=dict)

    def apply(self, levels: Sequence[tuple[bool, float, float]]) -> None:
        """Take over what is left at some prices."""
        for is_bid, price, quantity in levels:
            side = self.bids if is_bid else self.asks
            if quantity > 0:
                side[price] = quantity
            else:
                side.pop(price, None)

    def taken(self, change: Change) -> Snapshot:
        """Return the best levels after a change."""
        bids = heapq.nlargest(LEVELS, self.bids.items())
        asks = heapq.nsmallest(LEVELS, self.asks.items())
        if bids and asks and bids[0][0] >= asks[0][0]:
            raise BadInputError(f"the book crosses at {change.time_ms} ms: bid {bids[0][0]}, ask {asks[0][0]}")
        return Snapshot(change.time_ms, change.arrived_ms, change.last_id, bids, asks)


def rebuilt(base_id: int, base: Sequence[tuple[bool, float, float]], changes: Sequence[Change]) -> Iterator[Snapshot]:
    """
    Yield a snapshot of each second in which the book changed.

    Args:
        base_id: The last change that the recorded snapshot holds.
        base: Its levels.
        changes: What followed, in order; those that the snapshot holds already are left out.

    Raises:
        BadInputError: A change is missing, or the book crosses.
    """
    book, last_id, last = _Book(), base_id, None
    book.apply(base)
    for change in changes:
        if change.last_id <= last_id:
            continue
        if change.after_id > last_id:
            raise BadInputError(f"changes of the book after {last_id} and up to {change.after_id} are missing")
        if last is not None and change.time_ms // EVERY_MS != last.time_ms // EVERY_MS:
            yield book.taken(last)
        book.apply(change.levels)
        last_id, last = change.last_id, change
    if last is not None:
        yield book.taken(last)
