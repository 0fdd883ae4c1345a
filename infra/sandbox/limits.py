"""How often the venue may be asked: weights and orders counted, too much refused, and who goes on asking banned."""

from __future__ import annotations

from dataclasses import dataclass, field

_DAY, _MINUTE, _TEN = 86_400, 60, 10


@dataclass(frozen=True, slots=True)
class Limits:
    """What is allowed; None is without limit. `strikes` requests while told to wait lead to a ban."""

    weight_1m: int | None = None
    orders_10s: int | None = None
    orders_1m: int | None = None
    strikes: int = 3
    ban_seconds: float = 120.0


@dataclass(frozen=True, slots=True)
class TooMany:
    """A request is refused: the status, how long to wait, and whether the address is banned."""

    status: int
    retry_after_seconds: float


@dataclass(slots=True)
class RateLimiter:
    """
    Counts what was asked; refuses only where `limits` say so, or while `hold` lasts. Time is an argument.

    Used weight is told in headers in any case, as the live venue does.
    """

    limits: Limits = field(default_factory=Limits)
    refused: int = 0
    bans: int = 0
    _weight: tuple[int, int] = (0, 0)
    _tens: tuple[int, int] = (0, 0)
    _minutes: tuple[int, int] = (0, 0)
    _days: tuple[int, int] = (0, 0)
    _until: float = 0.0
    _banned_until: float = 0.0
    _strikes: int = 0

    def hold(self, now: float, seconds: float) -> None:
        """Refuse everything for so long, as though too much had been asked."""
        self._until = max(self._until, now + seconds)

    def lift(self) -> None:
        """Hold nothing against anybody any more."""
        self._until = self._banned_until = 0.0
        self._strikes = self.bans = 0

    def admit(self, now: float, weight: int, *, is_order: bool) -> TooMany | None:
        """Count one request; say so where it is one too many."""
        if now < self._banned_until:
            self.refused += 1
            return TooMany(418, self._banned_until - now)
        if now < self._until:
            return self._strike(now)
        self._strikes = 0
        minute, ten = int(now // _MINUTE), int(now // _TEN)
        self._weight = _counted(self._weight, minute, weight)
        if is_order:
            self._tens, self._minutes = _counted(self._tens, ten, 1), _counted(self._minutes, minute, 1)
            self._days = _counted(self._days, int(now // _DAY), 1)
        if _exceeds(self._weight[1], self.limits.weight_1m) or _exceeds(self._minutes[1], self.limits.orders_1m):
            self.hold(now, (minute + 1) * _MINUTE - now)
        elif _exceeds(self._tens[1], self.limits.orders_10s):
            self.hold(now, (ten + 1) * _TEN - now)
        else:
            return None
        self.refused += 1
        return TooMany(429, self._until - now)

    def headers(self, *, is_order: bool, by_day: bool = False) -> dict[str, str]:
        """Return what an answer says of what was used so far; spot counts orders by the day, not by the minute."""
        told = {"X-MBX-USED-WEIGHT-1M": str(self._weight[1])}
        if is_order:
            told["X-MBX-ORDER-COUNT-10S"] = str(self._tens[1])
            told |= {"X-MBX-ORDER-COUNT-1D": str(self._days[1])} if by_day else {}
            told |= {} if by_day else {"X-MBX-ORDER-COUNT-1M": str(self._minutes[1])}
        return told

    def told(self, *, by_day: bool) -> list[dict[str, object]]:
        """Return the same as an answer over a WebSocket says it."""
        long = ("DAY", 1, 200_000, self._days) if by_day else ("MINUTE", 1, 1_200, self._minutes)
        weight, tens = (6_000, 100) if by_day else (2_400, 300)
        rows = [
            ("REQUEST_WEIGHT", "MINUTE", 1, weight, self._weight),
            ("ORDERS", "SECOND", 10, tens, self._tens),
            ("ORDERS", *long),
        ]
        return [
            {"rateLimitType": kind, "interval": interval, "intervalNum": number, "limit": limit, "count": used[1]}
            for kind, interval, number, limit, used in rows
        ]

    def _strike(self, now: float) -> TooMany:
        self.refused += 1
        self._strikes += 1
        if self._strikes < self.limits.strikes:
            return TooMany(429, self._until - now)
        # Each ban is twice as long as the one before.
        self._banned_until = now + self.limits.ban_seconds * 2**self.bans
        self.bans += 1
        self._strikes, self._until = 0, 0.0
        return TooMany(418, self._banned_until - now)


def _counted(known: tuple[int, int], window: int, more: int) -> tuple[int, int]:
    return window, more + (known[1] if known[0] == window else 0)


def _exceeds(used: int, limit: int | None) -> bool:
    return limit is not None and used > limit
