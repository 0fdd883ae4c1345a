"""A venue whose time waits for its clients, so that what they do can be held against a replay."""

from __future__ import annotations

from dataclasses import dataclass

from infra.sandbox.clock import VirtualClock

# How long clients have to be silent, once they have asked for something, before time goes on, and how long they are
# waited for: a client reckons when a candle closes by a clock that may lag behind one that stops and goes.
QUIET_SECONDS = 1.5
PATIENCE_SECONDS = 4.0


@dataclass(slots=True)
class Lockstep:
    """Stands still after each closed candle and each fill; times passed in are seconds of a monotonic wall clock."""

    clock: VirtualClock
    on: bool
    # Whether time goes on when somebody says so, and not when clients are silent.
    led_by_hand: bool = False
    # Whether every price is waited at, and not only what closes and what happens: for who works an order by the price.
    each_tick: bool = False
    _asked_at: float = 0.0

    def heard(self, now: float) -> None:
        """Note that a client asked for something other than the time."""
        self._asked_at = now

    def after_tick(self, now: float, ticked_ms: int, *, matters: bool) -> None:
        """Stand still at a tick, for good where it matters: what closed, triggered or filled is answered first."""
        self.clock.hold(now, ticked_ms)
        if not (matters or self.each_tick):
            self.clock.release(now)

    def go_on(self, now: float) -> bool:
        """Let time pass again and say whether it stood still."""
        stood = self.clock.held_since is not None
        self.clock.release(now)
        return stood

    def release_if_quiet(self, now: float) -> None:
        """Let time pass again once clients have answered what they were told, or have nothing to say."""
        since = self.clock.held_since
        if since is None or self.led_by_hand:
            return
        answered = self._asked_at > since and now - self._asked_at >= QUIET_SECONDS
        if answered or now - max(since, self._asked_at) >= PATIENCE_SECONDS:
            self.clock.release(now)
