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
    # Since when it is held, on the caller's monotonic clock.
    held_since: float | None = None

    def now_ms(self, monotonic: float) -> int:
        """Virtual milliseconds since 1970 UTC."""
        if self.held_since is not None:
            monotonic = self.held_since
        return self.origin_ms + int((monotonic - self.origin_seconds) * 1000.0 * self.speed)

    def hold(self, monotonic: float, at_ms: int) -> None:
        """Stand still at a virtual time until `release`."""
        self.origin_ms, self.origin_seconds = at_ms, monotonic
        self.held_since = monotonic

    def release(self, monotonic: float) -> None:
        """Go on from where it was held."""
        if self.held_since is not None:
            self.origin_seconds += monotonic - self.held_since
            self.held_since = None

    def seconds_until(self, time_ms: int, monotonic: float) -> float:
        """Wall seconds until the virtual time, never below zero."""
        return max(0.0, (time_ms - self.now_ms(monotonic)) / 1000.0 / self.speed)

    def reported_ms(self, monotonic: float) -> int:
        """The time the venue tells its clients; differs from the truth by an injected skew."""
        return self.now_ms(monotonic) + self.skew_ms
