"""How long the newest decisions, answers or orders took."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping


class Latencies:
    """A sliding window of durations and its percentiles."""

    def __init__(self, window: int = 512) -> None:
        self._milliseconds: deque[float] = deque(maxlen=window)

    def add(self, seconds: float) -> None:
        """Note one duration."""
        self._milliseconds.append(seconds * 1000)

    def percentile(self, share: float) -> float | None:
        """Return the smallest duration, in milliseconds, that this share of them does not exceed."""
        if not self._milliseconds:
            return None
        ordered = sorted(self._milliseconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    def figures(self) -> Mapping[str, float | None]:
        """Return what the status tells: the milliseconds that half, and 99 of a hundred, do not exceed."""
        return {"p50": self.percentile(0.5), "p99": self.percentile(0.99)}
