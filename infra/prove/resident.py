"""How much memory a process takes while it trades, and by how much that grows once it has filled."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

# What a worker keeps for a while fills first: closed trades and executions within minutes, candles of signals and each
# symbol's entries within a day of the market, which at sixty venue seconds in a second are 24 minutes.
_FILLS_FOR_VENUE_S = 86_400.0
# What is counted for minutes of our own clock: requests, and orders' outcomes.
_FILLS_FOR_S = 360.0
# The allocator takes memory by pieces of up to a MB: over less time than this, one of them looks like a leak.
_LEAST_JUDGED_S = 1_200.0
_MOMENTS_COMPARED = 400


@dataclass(slots=True)
class Resident:
    """
    Resident memory of one process, in MB, by seconds since it began to trade at so many venue seconds in a second.

    It is what the system states of that process alone, without its children or the exchange. Nothing is collected or
    given back for the measurement: memory that is held and not used is taken from the machine all the same.
    """

    speed: float
    at: list[float] = field(default_factory=list)
    mb: list[float] = field(default_factory=list)

    def note(self, seconds: float, resident: int) -> None:
        """Take in how many bytes were resident at a moment."""
        self.at.append(seconds)
        self.mb.append(resident / 2**20)

    @property
    def warm_s(self) -> float:
        """After how many seconds all that a worker keeps for a while is full."""
        return max(_FILLS_FOR_VENUE_S / self.speed, _FILLS_FOR_S)

    @property
    def judged_from_s(self) -> float:
        """How long a run has to be for its growth to mean anything."""
        return self.warm_s + _LEAST_JUDGED_S

    def growth(self) -> float | None:
        """Return the MB an hour: the median slope between any two moments of the warm part; None of a short run."""
        at, mb = np.array(self.at), np.array(self.mb)
        warm = at >= self.warm_s
        at, mb = at[warm], mb[warm]
        if len(at) < 2 or at[-1] - at[0] < 0.99 * _LEAST_JUDGED_S:
            return None
        # A few hundred moments have all the pairs that a median needs.
        every = max(1, len(at) // _MOMENTS_COMPARED)
        at, mb = at[::every], mb[::every]
        first, last = np.triu_indices(len(at), 1)
        return float(np.median((mb[last] - mb[first]) / (at[last] - at[first]))) * 3_600

    def told(self) -> str:
        """Return the growth in words, or what stands in its place where nothing can be said of it yet."""
        growth = self.growth()
        if growth is not None:
            return f"memory {growth:+.2f} MB an hour"
        filled = self.mb[-1] - self.mb[0]
        return f"memory {filled:+.1f} MB while it filled (judged from {self.judged_from_s / 60:.0f} minutes on)"
