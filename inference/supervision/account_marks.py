"""The equity marks that drawdowns are measured from."""

from __future__ import annotations

from decimal import Decimal

from msgspec import UnsetType

from inference.domain.events import AccountMarked
from inference.domain.position import Account

_DAY_MS = 86_400_000
# 1970 began on a Thursday.
_DAYS_FROM_MONDAY = 3


def day_of(time_ms: int) -> int:
    """Return the number of a UTC day."""
    return time_ms // _DAY_MS


def week_of(time_ms: int) -> int:
    """Return the number of a week that begins on Monday, midnight UTC."""
    return (day_of(time_ms) + _DAYS_FROM_MONDAY) // 7


def marked(previous: AccountMarked | None, previous_ms: int, *, equity: Decimal, now_ms: int) -> AccountMarked:
    """
    Return the marks after a new reading: the day starts at midnight UTC, the week on Mondays, the peak only rises.

    A clock that goes backwards begins no new day: what was lost stays lost.
    """
    if previous is None:
        return AccountMarked(equity=equity, day_start_equity=equity, peak_equity=equity, week_start_equity=equity)
    week_start = previous.week_start_equity
    if isinstance(week_start, UnsetType):
        # Marked before weeks were counted: what the day began with is the oldest that is known.
        week_start = previous.day_start_equity
    return AccountMarked(
        equity=equity,
        day_start_equity=previous.equity if day_of(now_ms) > day_of(previous_ms) else previous.day_start_equity,
        peak_equity=max(previous.peak_equity, equity),
        week_start_equity=previous.equity if week_of(now_ms) > week_of(previous_ms) else week_start,
    )


def account_of(mark: AccountMarked) -> Account:
    """Return the account as a decision sees it."""
    return Account(
        equity=mark.equity,
        day_start_equity=mark.day_start_equity,
        peak_equity=mark.peak_equity,
        week_start_equity=mark.week_start_equity,
    )
