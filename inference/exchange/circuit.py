"""A circuit breaker of one endpoint: what fails again and again is asked less, and is tried again by one request."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum


class CircuitState(StrEnum):
    """CLOSED lets all pass, OPEN none until its time is over, HALF_OPEN one, whose end decides."""

    CLOSED = "CLOSED"
    OPEN = "OPEN"
    HALF_OPEN = "HALF_OPEN"


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitRules:
    """When a circuit opens and for how long; the pause doubles with each try that fails."""

    failures: int = 5
    first_pause_s: float = 0.5
    longest_pause_s: float = 10.0
    # A try of which nothing is heard for so long is taken for lost, and another one may be made.
    try_within_s: float = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Circuit:
    """
    One endpoint's state; every method returns the next one, and the moment is an argument.

    `until` is when the pause, or the try under way, is over.
    """

    state: CircuitState = CircuitState.CLOSED
    failures: int = 0
    openings: int = 0
    until: float = 0.0

    def wait_s(self, now: float) -> float:
        """Return how long nothing may pass; 0 where a request may."""
        return 0.0 if self.state is CircuitState.CLOSED else max(0.0, self.until - now)

    def passing(self, now: float, rules: CircuitRules) -> Circuit:
        """Return the state once a request passes; of an open circuit whose pause is over, that is its try."""
        if self.state is CircuitState.CLOSED or self.wait_s(now) > 0:
            return self
        return replace(self, state=CircuitState.HALF_OPEN, until=now + rules.try_within_s)

    def succeeded(self) -> Circuit:
        """Return the state after the endpoint answered: whatever was, it works."""
        return Circuit()

    def given_up(self, now: float) -> Circuit:
        """Return the state after a try that was never made: another may be made at once."""
        return replace(self, state=CircuitState.OPEN, until=now) if self.state is CircuitState.HALF_OPEN else self

    def failed(self, now: float, rules: CircuitRules, *, jitter: float = 1.0) -> Circuit:
        """
        Return the state after a failure; `jitter`, around 1, keeps many from trying again at once.

        A failure while the circuit is open is one of a request that went out before, or that may pass always: it
        tells nothing new, and prolongs nothing.
        """
        if self.state is CircuitState.OPEN:
            return self
        failures = self.failures + 1
        if self.state is CircuitState.CLOSED and failures < rules.failures:
            return replace(self, failures=failures)
        pause = min(rules.longest_pause_s, rules.first_pause_s * 2 ** min(self.openings, 32)) * jitter
        return Circuit(
            state=CircuitState.OPEN, failures=failures, openings=self.openings + 1, until=now + max(pause, 0.0)
        )
