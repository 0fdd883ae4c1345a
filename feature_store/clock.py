"""The only wall clock of the project."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def utc_now() -> datetime:
    """Return the wall-clock time as an aware datetime in UTC."""
    return datetime.now(UTC)


def utc_now_ms() -> int:
    """Return the wall-clock time in whole milliseconds since 1970 UTC."""
    return time.time_ns() // 1_000_000


def monotonic() -> float:
    """Return seconds on a clock that never steps back; only differences mean anything."""
    return time.monotonic()


def uptime() -> float:
    """Return seconds on a clock that never steps back and runs on while the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
