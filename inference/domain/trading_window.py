"""When entries are allowed: hours of weekdays, and days off, in UTC."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import lru_cache

from inference.domain.errors import PolicyError

DAY_MS = 86_400_000
_MINUTE_MS = 60_000
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WINDOW = re.compile(r"([a-z]{3})(?:-([a-z]{3}))? ([0-9]{2}):([0-9]{2})-([0-9]{2}):([0-9]{2})")
_FORM = "'mon-fri 08:00-20:00' or 'sat 00:00-24:00' (UTC)"
# 1970-01-01 was a Thursday.
_EPOCH_WEEKDAY = 3


@dataclass(frozen=True, slots=True)
class TradingWindow:
    """
    Hours of weekdays, the end left out. Monday is day 0; minutes count from midnight UTC.

    Hours that end before they begin run past midnight into the next day.
    """

    days: frozenset[int]
    begins_minute: int
    ends_minute: int

    @classmethod
    def parse(cls, text: str) -> TradingWindow:
        """
        Return the window that a text says; days run on past Sunday, as in `sat-mon`.

        Raises:
            PolicyError: The text names no day, no time of day, or no time at all.
        """
        found = _WINDOW.fullmatch(text.strip().lower())
        if found is None:
            raise PolicyError(f"Trading window {text!r} is not understood; write {_FORM}")
        first, last = found[1], found[2] or found[1]
        if first not in _DAYS or last not in _DAYS:
            raise PolicyError(f"Trading window {text!r} names no weekday; write {_FORM}, days are {', '.join(_DAYS)}")
        begins, ends = _minute(found[3], found[4], text), _minute(found[5], found[6], text)
        if begins in (ends, 24 * 60):
            raise PolicyError(f"Trading window {text!r} holds no time; write {_FORM}")
        start, stop = _DAYS.index(first), _DAYS.index(last)
        days = frozenset((start + step) % 7 for step in range((stop - start) % 7 + 1))
        return cls(days=days, begins_minute=begins, ends_minute=ends)

    def holds(self, now_ms: int) -> bool:
        """Whether a moment lies within."""
        day, minute = weekday_of(now_ms), now_ms % DAY_MS // _MINUTE_MS
        if self.begins_minute < self.ends_minute:
            return day in self.days and self.begins_minute <= minute < self.ends_minute
        # It began yesterday, or begins today and goes on past midnight.
        began_today = day in self.days and minute >= self.begins_minute
        return began_today or ((day - 1) % 7 in self.days and minute < self.ends_minute)


@lru_cache(maxsize=64)
def windows_of(texts: tuple[str, ...]) -> tuple[TradingWindow, ...]:
    """
    Return the windows that texts say; the same texts are read once.

    Raises:
        PolicyError: One of them is not understood.
    """
    return tuple(TradingWindow.parse(text) for text in texts)


@lru_cache(maxsize=64)
def days_of(texts: tuple[str, ...]) -> frozenset[int]:
    """
    Return days as numbers of days since 1970, UTC.

    Raises:
        PolicyError: A text is no date.
    """
    return frozenset(_day_number(text) for text in texts)


def weekday_of(now_ms: int) -> int:
    """Return a moment's weekday in UTC, Monday 0."""
    return (now_ms // DAY_MS + _EPOCH_WEEKDAY) % 7


def is_open(now_ms: int, *, windows: Sequence[str], days_off: Sequence[str]) -> bool:
    """Whether entries are allowed at a moment: on no day off, and in some window where there are any."""
    if days_off and now_ms // DAY_MS in days_of(tuple(days_off)):
        return False
    return not windows or any(one.holds(now_ms) for one in windows_of(tuple(windows)))


def moment_text(now_ms: int) -> str:
    """Return a moment as weekday, date and time, UTC; what no calendar holds is given in milliseconds."""
    try:
        at = datetime.fromtimestamp(now_ms / 1000, tz=UTC)
    except (OverflowError, OSError, ValueError):
        return f"{now_ms} ms"
    return f"{_DAYS[at.weekday()]} {at:%Y-%m-%d %H:%M:%S}"


def _minute(hours: str, minutes: str, text: str) -> int:
    minute = int(hours) * 60 + int(minutes)
    if int(minutes) > 59 or minute > 24 * 60:
        raise PolicyError(f"Trading window {text!r} has a time that no day has; write {_FORM}")
    return minute


def _day_number(text: str) -> int:
    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise PolicyError(f"Day off {text!r} is no date; write it as 2026-12-25") from None
    return (day - date(1970, 1, 1)).days
