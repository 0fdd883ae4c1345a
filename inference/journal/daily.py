"""A journal of one file a day, for records that are read by the day and that nobody's money hangs on."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from inference.domain.errors import JournalError
from inference.domain.events import Event
from inference.journal.writer import JournalWriter


def day_of(time_ms: int) -> str:
    """Return the day of a moment, of UTC, as files are named by it."""
    return datetime.fromtimestamp(time_ms / 1000, tz=UTC).strftime("%Y-%m-%d")


class DailyJournal:
    """
    Appends each event to the file of its day, each file a chain of its own.

    Opening one verifies that day only, however long the record has become. Nothing is opened before it is needed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._day = ""
        self._writer: JournalWriter | None = None

    def record(self, event: Event, *, timestamp_ms: int) -> None:
        """
        Append one event, and make it durable.

        Raises:
            JournalError: It could not be recorded; the next one is tried anew.
        """
        day = day_of(timestamp_ms)
        if self._writer is None or day != self._day:
            self.close()
            self._writer, self._day = JournalWriter.open(self.folder / f"{day}.jsonl"), day
        try:
            self._writer.record(event, timestamp_ms=timestamp_ms)
            self._writer.sync()
        except JournalError:
            self.close()
            raise

    def close(self) -> None:
        """Let another process write."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
