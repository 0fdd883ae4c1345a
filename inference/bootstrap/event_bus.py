"""The event bus in a worker's life: told what is journaled, beside trading, and listened to by nobody who trades."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

from feature_store.clock import monotonic
from inference.bus.address import open_bus
from inference.bus.local import LocalBus
from inference.bus.outbox import Outbox
from inference.bus.port import Retention
from inference.bus.publisher import Publisher
from inference.execution.entry_door import EntryDoor
from inference.settings import Settings
from inference.supervision.status import BusStatus
from inference.telemetry.logs import logger

_log = logger("bus")

LATE, RECOVERED = "health.bus_late", "health.bus_recovered"
_DAY_SECONDS = 86_400.0
_DRAIN_SECONDS = 2.0
# A hold is said again each second while it lasts; where nobody looks any more, nothing is entered either.
_HELD_SECONDS = 5.0


class Events:
    """Publishes a worker's journal, and holds entries while a bus that is required does not take it."""

    def __init__(self, settings: Settings, journal: Path) -> None:
        """
        Read which bus is meant; nothing is asked of it yet.

        Raises:
            SettingsError: There is none at that address, or its library is not installed.
        """
        address = settings.bus.get_secret_value() if settings.bus is not None else None
        self._bus = open_bus(address, settings.home)
        self._required = settings.bus_required
        self._bound_seconds = settings.bus_late_seconds
        retention = Retention(
            events=settings.bus_keep_events,
            age_seconds=settings.bus_keep_days * _DAY_SECONDS,
            needed_events=4 * settings.bus_keep_events,
        )
        self._outbox = Outbox(self._bus, journal, refill_entries=settings.bus_keep_events)
        self._publisher = Publisher(self._bus, self._outbox, monotonic=monotonic, retention=retention)
        self._late_since: float | None = None

    def start(self) -> None:
        """Publish from now on, in a thread."""
        self._publisher.start()

    def look(self, door: EntryDoor, note: Callable[[str, Mapping[str, str]], None]) -> None:
        """Say that the bus is late or well again, and hold or release entries where it is required."""
        state = self._publisher.state
        is_late = state.waiting_seconds > self._bound_seconds
        if is_late and self._late_since is None:
            self._late_since = monotonic() - state.waiting_seconds
            required = "entries are held" if self._required else "entries go on"
            note(LATE, {"reason": state.trouble[:300] or "it takes nothing", "consequence": required})
        if is_late and self._required:
            door.bus_is_down(seconds=_HELD_SECONDS)
        if not is_late and self._late_since is not None:
            late, self._late_since = monotonic() - self._late_since, None
            door.bus_is_well()
            note(RECOVERED, {"late_seconds": f"{late:.1f}"})

    @property
    def is_late(self) -> bool:
        """Whether something has waited longer for the bus than is allowed."""
        return self._late_since is not None

    def status(self) -> BusStatus:
        """Return what the status file shows."""
        state = self._publisher.state
        return BusStatus(
            where="local" if isinstance(self._bus, LocalBus) else "redis",
            required=self._required,
            published_seq=state.seq,
            published=state.published,
            waiting_seconds=round(state.waiting_seconds, 1),
            late=self.is_late,
            trouble=state.trouble[:300],
            refills=state.refills,
        )

    async def stop(self) -> None:
        """Publish what is left, for a moment at most; the next start goes on with the rest."""
        if not await asyncio.to_thread(self._publisher.stop, drain_seconds=_DRAIN_SECONDS):
            _log.warning("bus_not_told_all", consequence="the next start tells the rest")

    def close(self) -> None:
        """Let go of connections and files, unless an answer is still being waited for with them."""
        if not self._publisher.is_running:
            self._outbox.close()
            self._bus.close()
