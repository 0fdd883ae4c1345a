"""The equity marks that drawdowns are measured from."""

from __future__ import annotations

from decimal import Decimal

from inference.domain.events import AccountMarked

_DAY_MS = 86_400_000


def marked(previous: AccountMarked | None, previous_ms: int, *, equity: Decimal, now_ms: int) -> AccountMarked:
    """Return the marks after a new reading: the day's start moves at midnight UTC, the peak only up."""
    if previous is None:
        return AccountMarked(equity=equity, day_start_equity=equity, peak_equity=equity)
    same_day = previous_ms // _DAY_MS == now_ms // _DAY_MS
    return AccountMarked(
        equity=equity,
        day_start_equity=previous.day_start_equity if same_day else previous.equity,
        peak_equity=max(previous.peak_equity, equity),
    )
