"""How long the newest decisions took."""

from __future__ import annotations

from collections import deque


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
