"""What a process asks of the venue before it has any part: to answer, to tell the time, and what it lists."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

from feature_store.errors import UnknownSymbolError
from feature_store.venue.errors import ClockError, RetryableError, VenueError
from inference.bootstrap.lifetime import sleep_unless
from inference.domain.errors import SettingsError
from inference.telemetry.logs import logger

_log = logger("bootstrap")

_MAX_CLOCK_OFFSET_MS = 60_000
_ALARM_MS = 500.0
_CLOCK_OFF = "health.clock_off"


async def reach_venue(
    connect: Callable[[], Awaitable[object]], stop: asyncio.Event, waiting: Callable[[str], None]
) -> None:
    """Connect, again and again while the venue cannot be reached, until it can or somebody asks to stop."""
    pause = 0.5
    while not stop.is_set():
        try:
            await connect()
        except RetryableError as error:
            waiting(f"waiting for the venue: {error}"[:400])
            _log.warning("venue_not_reached", error=str(error)[:300], retry_in_seconds=pause)
            await sleep_unless(stop, pause)
            pause = min(10.0, pause * 1.7)
        else:
            return


async def follow_clock(
    sync: Callable[[], Awaitable[object]],
    *,
    accelerated: bool,
    error_ms: Callable[[], float] = lambda: 0.0,
    on_off: Callable[[str, Mapping[str, str]], None] = lambda *_: None,
) -> None:
    """
    Measure the venue's clock until cancelled; say so where it, or ours, turns out to have been wrong.

    `error_ms` is by how much of our time the newest answer contradicted what was believed. Half a second is what a
    request's window of two seconds can bear beside its way.
    """
    # A clock that runs fast is asked more often: what is unknown of its rate grows with time.
    pause = 2.0 if accelerated else 30.0
    was_off = False
    while True:
        try:
            await sync()
        except VenueError as error:
            _log.warning("venue_time_not_read", error=str(error)[:200])
        else:
            is_off = error_ms() > _ALARM_MS
            if is_off and not was_off:
                on_off(_CLOCK_OFF, {"error_ms": f"{error_ms():.0f}", "alarm_ms": f"{_ALARM_MS:.0f}"})
            was_off = is_off
        await asyncio.sleep(pause)


def chosen_symbols(wanted: Sequence[str], tradable: Collection[str], venue: str) -> tuple[str, ...]:
    """
    Return the symbols to follow: those wanted, or all that the venue lists.

    Raises:
        UnknownSymbolError: The venue does not list one of them.
        SettingsError: It lists nothing at all.
    """
    for symbol in wanted:
        if symbol not in tradable:
            raise UnknownSymbolError(symbol, venue, tradable)
    if not (wanted or tradable):
        raise SettingsError(f"Venue {venue} lists nothing that could be traded")
    return tuple(wanted or tradable)


def check_wall_clock(*, venue_ms: int, wall_ms: int) -> None:
    """
    Refuse to trade real money by a clock that is wrong.

    Raises:
        ClockError: The machine's clock and the venue's differ by more than is safe.
    """
    offset_ms = abs(venue_ms - wall_ms)
    if offset_ms > _MAX_CLOCK_OFFSET_MS:
        raise ClockError(
            f"This machine's clock is {offset_ms / 1000:.0f} s off the venue's; "
            "switch time synchronisation on (timedatectl set-ntp true), then start the worker again"
        )
