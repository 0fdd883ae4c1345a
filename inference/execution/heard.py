"""A journal that others hear too: what execution records is told to who counts it."""

from __future__ import annotations

from collections.abc import Callable

from inference.domain.events import Event
from inference.execution.ports import Recorder


class HeardJournal:
    """Records, then tells; what could not be recorded is told all the same, since it happened."""

    def __init__(self, journal: Recorder, hear: Callable[[Event, int], None]) -> None:
        self._journal = journal
        self._hear = hear

    def record(self, event: Event, *, timestamp_ms: int, trace_id: str = "", durable: bool = False) -> object:
        """See the port."""
        try:
            return self._journal.record(event, timestamp_ms=timestamp_ms, trace_id=trace_id, durable=durable)
        finally:
            self._hear(event, timestamp_ms)
