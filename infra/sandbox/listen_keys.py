"""The one listen key of the account: how long it lives, and on which clock."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

MINUTES = 60.0


@dataclass(slots=True)
class ListenKey:
    """
    A key lives an hour from when it was made or renewed.

    As a rule an hour of the wall, so that clients need not know how fast this venue's time runs; with `on_venue_time`
    an hour of the venue.
    """

    minutes: float = MINUTES
    on_venue_time: bool = False
    key: str | None = None
    _renewed: float = 0.0
    _renewed_ms: int = 0

    def renew(self, monotonic: float, venue_ms: int) -> str:
        """Return the live key, or make one; either way its life begins anew."""
        if self.key is None:
            self.key = secrets.token_hex(32)
        self._renewed, self._renewed_ms = monotonic, venue_ms
        return self.key

    def has_expired(self, monotonic: float, venue_ms: int) -> bool:
        """Whether there is a key and its time is over."""
        age = (venue_ms - self._renewed_ms) / 1000 if self.on_venue_time else monotonic - self._renewed
        return self.key is not None and age > self.minutes * 60
