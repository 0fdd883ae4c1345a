"""Which symbols share a connection, where a venue takes but so many subscriptions on one; pure."""

from __future__ import annotations

from collections import deque
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


class Openings:
    """
    When connections may be opened, where a venue counts how many come within a minute and refuses the others.

    Pure; all connections of a venue ask the same one.
    """

    def __init__(self, per_minute: int | None = None) -> None:
        self._at: deque[float] = deque(maxlen=per_minute)
        self._is_bounded = per_minute is not None

    def wait_s(self, now: float) -> float:
        """Return in how many seconds one more may be opened; it is held to be opened then."""
        if not self._is_bounded:
            return 0.0
        is_full = len(self._at) == self._at.maxlen
        at = max(now, self._at[0] + 60.0) if is_full else now
        self._at.append(at)
        return at - now
