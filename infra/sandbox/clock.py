"""The venue's clock: a fixed virtual start that runs faster than the wall."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class VirtualClock:
    """
    Virtual time as a function of a monotonic reading that the caller passes in.

    It stands still while the venue is down: a restored venue goes on from the time it saved.
    """

    origin_ms: int
    origin_seconds: float
    speed: float
    skew_ms: int = 0

    def now_ms(self, monotonic: float) -> int:
        """Virtual milliseconds since 1970 UTC."""
        return self.origin_ms + int((monotonic - self.origin_seconds) * 1000.0 * self.speed)

    def seconds_until(self, time_ms: int, monotonic: float) -> float:
        """Wall seconds until the virtual time, never below zero."""
        return max(0.0, (time_ms - self.now_ms(monotonic)) / 1000.0 / self.speed)

    def reported_ms(self, monotonic: float) -> int:
        """The time the venue tells its clients; differs from the truth by an injected skew."""
        return self.now_ms(monotonic) + self.skew_ms
