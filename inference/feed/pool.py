"""Which symbols share a connection, where a venue takes but so many subscriptions on one; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Spread:
    """Groups of symbols, one for each connection, and the symbols for which there is no room in any."""

    groups: tuple[tuple[str, ...], ...]
    left_over: tuple[str, ...]


def spread(symbols: Sequence[str], *, per_connection: int, connections: int) -> Spread:
    """
    Spread symbols over as few connections as carry them, as evenly as can be, in their order.

    Evenly, so that a connection that dies takes no more than its share with it.
    """
    kept = symbols[: max(per_connection, 0) * max(connections, 0)]
    if not kept:
        return Spread((), tuple(symbols))
    count = -(-len(kept) // per_connection)
    cuts = [number * len(kept) // count for number in range(count + 1)]
    groups = tuple(tuple(kept[begin:end]) for begin, end in pairwise(cuts))
    return Spread(groups, tuple(symbols[len(kept) :]))
