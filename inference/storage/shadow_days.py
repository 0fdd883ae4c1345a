"""Bringing opinions that were only compared into their table, from the shadow's journal: a file and a chain a day."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

from sqlalchemy import Connection, select

from feature_store.errors import QuantumError
from inference.domain.errors import JournalError
from inference.domain.shadow import ShadowScored
from inference.storage import schema
from inference.storage.database import Database
from inference.storage.errors import AnotherJournalError, SchemaError, StorageError
from inference.storage.learning import shadow_rows
from inference.storage.projection import RULES
from inference.storage.reading_on import NOTHING, Kept, Taken, read_on
from inference.storage.writing import write_rows

# One entry holds the opinions of two models on each symbol.
_ENTRIES_AT_ONCE = 200


class ShadowDays:
    """
    Follows the folder of a shadow's journal into one database, beside its writer.

    A day whose file is gone keeps its rows until tables are made anew. One whose file is damaged, or is another than
    the one that was read, stays as far as it was told: nobody's money hangs on it, and all others go on.
    """

    def __init__(self, database: Database, folder: Path, *, at_once: int = _ENTRIES_AT_ONCE) -> None:
        self._database = database
        self._folder = folder
        self._at_once = at_once
        # Files that could not be read on, as they were then, so that they are told of once.
        self._damaged: dict[date, tuple[int, int]] = {}

    def catch_up(self, on_damage: Callable[[str], None] = lambda _: None) -> int:
        """
        Take in all there is; return of how many entries. `on_damage` is told why a day cannot be read on, once.

        Raises:
            SchemaError: Other rules made the rows.
            StorageError: The database refused; the batch has changed nothing.
        """
        count = 0
        for day, path, found in self._grown():
            while self._damaged.get(day) != found:
                taken, failure = self._advance(day, path)
                count += taken
                if failure is not None:
                    self._damaged[day] = found
                    on_damage(f"The shadow's journal of {day} is told up to its damage: {failure}")
                if not taken:
                    break
        return count

    def _grown(self) -> Iterator[tuple[date, Path, tuple[int, int]]]:
        """Yield the days of which there may be more than is told, oldest first, with the files' sizes and times."""
        try:
            stats = {path: path.stat() for path in self._folder.glob("*.jsonl")}
            found = {path: (one.st_size, one.st_mtime_ns) for path, one in stats.items()}
        except OSError as error:
            raise StorageError(f"The shadow's journal {self._folder} cannot be read: {error.strerror}") from error
        if not found:
            return
        with self._database.reading() as connection:
            rows = connection.execute(select(schema.shadow_days.c.day, schema.shadow_days.c.next_offset))
            told = {row.day: row.next_offset for row in rows}
        for path in sorted(found):
            day = _day_of(path)
            if day is not None and told.get(day) != found[path][0]:
                yield day, path, found[path]

    def _advance(self, day: date, path: Path) -> tuple[int, QuantumError | None]:
        with self._database.writing() as connection:
            taken, failure = read_on(path, _kept_of(connection, day), self._at_once)
            if taken:
                rows = [
                    {**row, "scored_on": day}
                    for one in taken
                    if isinstance(one.event, ShadowScored)
                    for row in shadow_rows(one.event, one.entry)
                ]
                write_rows(connection, self._database.dialect, schema.shadow_predictions, rows)
                _keep(connection, self._database.dialect, day, taken[-1])
        if failure is not None and not isinstance(failure, (JournalError, AnotherJournalError)):
            raise failure
        return len(taken), failure


def _day_of(path: Path) -> date | None:
    try:
        return date.fromisoformat(path.stem)
    except ValueError:
        return None


def _kept_of(connection: Connection, day: date) -> Kept:
    chosen = select(schema.shadow_days).where(schema.shadow_days.c.day == day)
    row = connection.execute(chosen).mappings().first()
    if row is None:
        return NOTHING
    if row["rules"] != RULES:
        raise SchemaError(
            f"The shadow's tables were made by edition {row['rules']} of the rules, this version has {RULES}; "
            "run `qtctl db rebuild`"
        )
    return Kept(seq=row["seq"], digest=row["digest"], line_offset=row["line_offset"], next_offset=row["next_offset"])


def _keep(connection: Connection, dialect: str, day: date, last: Taken) -> None:
    row = {
        "day": day,
        "rules": RULES,
        "seq": last.entry.seq,
        "digest": last.entry.digest,
        "line_offset": last.line_offset,
        "next_offset": last.next_offset,
    }
    write_rows(connection, dialect, schema.shadow_days, [row])
