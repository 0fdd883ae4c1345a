"""Bringing the tables up to the journal: a batch is one transaction, with how far it came; begun again, it goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, select

from inference.journal.codec import Entry, entry_of
from inference.journal.reader import newest_lines
from inference.storage import schema
from inference.storage.database import Database
from inference.storage.errors import AnotherJournalError, SchemaError, StorageError
from inference.storage.loading import load
from inference.storage.migrating import Standing, require_current, standing_of, upgrade
from inference.storage.performance import ClosedTrade, Mark, day_row, notional_of
from inference.storage.performance import Standing as DayStanding
from inference.storage.projection import RULES, Projection, named_by
from inference.storage.reading_on import NOTHING, Kept, Taken, read_on
from inference.storage.records import CANCELLED, Row
from inference.storage.shadow_days import ShadowDays
from inference.storage.writing import write_rows

_ENTRIES_AT_ONCE = 2000
_LONGEST_PAUSE_S = 30.0


def kept_of(connection: Connection) -> Kept:
    """
    Return how far the tables tell the journal.

    Raises:
        SchemaError: Other rules made the rows.
    """
    row = connection.execute(select(schema.projection)).mappings().first()
    if row is None:
        return NOTHING
    if row["rules"] != RULES:
        raise SchemaError(
            f"The tables were made by edition {row['rules']} of the rules, this version has {RULES}; "
            "run `qtctl db rebuild`"
        )
    return Kept(
        seq=row["seq"],
        digest=row["digest"],
        line_offset=row["line_offset"],
        next_offset=row["next_offset"],
    )


def last_entry(journal: Path) -> Entry | None:
    """
    Return the newest whole entry of a journal; None of an empty or missing one.

    Raises:
        JournalError: It is not an entry.
    """
    return next((entry_of(line) for _, line in newest_lines(journal)), None)


class Projector:
    """
    Follows one journal into one database, beside its writer and without a word to it.

    Any number may follow at once: each batch is taken by one of them, from where the last one ended. `shadow` is the
    folder of the journal of opinions that are only compared, where that is followed too.
    """

    def __init__(
        self, database: Database, journal: Path, *, at_once: int = _ENTRIES_AT_ONCE, shadow: Path | None = None
    ) -> None:
        self._database = database
        self._journal = journal
        self._at_once = at_once
        self._shadow = None if shadow is None else ShadowDays(database, shadow)

    def prepare(self) -> None:
        """
        Make the tables where there are none.

        Raises:
            SchemaError: They are older or newer than this version, or another program's.
        """
        if not self._database.is_there or self._is_empty():
            upgrade(self._database)
        with self._database.reading() as connection:
            require_current(connection, self._database.name)

    def _is_empty(self) -> bool:
        with self._database.reading() as connection:
            return standing_of(connection) is Standing.EMPTY

    def begin_anew(self) -> None:
        """Forget every row; the next batch begins with the journal's first entry."""
        with self._database.writing() as connection:
            for table in reversed(schema.metadata.sorted_tables):
                connection.execute(delete(table))

    def advance(self) -> int:
        """
        Take in the next batch; return of how many entries, 0 where there is nothing new.

        Raises:
            AnotherJournalError: The tables tell another journal.
            JournalError: An entry is damaged, or of another version; what comes before it has been taken in.
            StorageError: The database refused; the batch has changed nothing.
        """
        with self._database.writing() as connection:
            kept = kept_of(connection)
            taken, failure = read_on(self._journal, kept, self._at_once)
            if taken:
                _apply(connection, self._database.dialect, [(one.entry, one.event) for one in taken])
                _keep(connection, self._database.dialect, taken[-1])
        if failure is not None:
            raise failure
        return len(taken)

    def catch_up(
        self, on_batch: Callable[[int], None] = lambda _: None, *, on_damage: Callable[[str], None] = lambda _: None
    ) -> int:
        """
        Take in all there is; return of how many entries of the account's journal.

        `on_damage` is told, once, why a day of the shadow's journal cannot be read on.
        """
        count = 0
        while taken := self.advance():
            count += taken
            on_batch(count)
        if self._shadow is not None:
            self._shadow.catch_up(on_damage)
        return count

    def follow(self, pause: Callable[[float], bool], *, every: float, on_trouble: Callable[[str], None]) -> None:
        """
        Make the tables where there are none, and take in what is written until `pause`, which waits, says so.

        A database that does not answer is asked again with growing pauses; the journal keeps what it misses.

        Raises:
            QuantumError: Going on would not help: the journal is another or damaged, the tables are of another version.
        """
        wait, is_prepared = every, False
        while True:
            try:
                if not is_prepared:
                    self.prepare()
                    is_prepared = True
                self.catch_up(on_damage=on_trouble)
                wait = every
            except (AnotherJournalError, SchemaError):
                raise
            except StorageError as error:
                on_trouble(str(error))
                wait = min(_LONGEST_PAUSE_S, max(1.0, wait * 2))
            if pause(wait):
                return


def _apply(connection: Connection, dialect: str, entries: Sequence[tuple[Entry, Any]]) -> None:
    projection = Projection(load(connection, named_by(event for _, event in entries)))
    for entry, event in entries:
        projection.take(entry, event)
    _forget_earlier_plans(connection, projection.planned_anew)
    for name, rows in projection.rows().items():
        write_rows(connection, dialect, schema.metadata.tables[name], rows)
    performance = [_performance(connection, day) for day in sorted(projection.days)]
    write_rows(connection, dialect, schema.daily_performance, performance)


def _forget_earlier_plans(connection: Connection, trades: Iterable[str]) -> None:
    for key in sorted(trades):
        for table in (schema.positions, schema.fills, schema.orders):
            connection.execute(delete(table).where(table.c.trade_id == key))


def _keep(connection: Connection, dialect: str, last: Taken) -> None:
    row = {
        "id": 1,
        "rules": RULES,
        "seq": last.entry.seq,
        "digest": last.entry.digest,
        "line_offset": last.line_offset,
        "next_offset": last.next_offset,
        "entry_at": last.entry.timestamp_ms,
    }
    write_rows(connection, dialect, schema.projection, [row])


def _performance(connection: Connection, day: date) -> Row:
    """Return a day's performance from the rows of that day."""
    trades, paid, marks, states = schema.trades, schema.funding_payments, schema.equity_curve, schema.risk_state
    closed = connection.execute(select(trades).where(trades.c.closed_on == day).order_by(trades.c.closed_seq))
    funding = connection.scalars(select(paid.c.amount).where(paid.c.paid_on == day))
    marked = connection.execute(
        select(marks.c.equity, marks.c.drawdown).where(marks.c.marked_on == day).order_by(marks.c.seq)
    )
    chosen = select(states.c.equity, states.c.total_exposure, states.c.approved, states.c.denied)
    decided = connection.execute(chosen.where(states.c.decided_on == day).order_by(states.c.seq))
    return day_row(
        day,
        trades=[
            ClosedTrade(
                is_entered=row.status != CANCELLED,
                pnl=row.pnl,
                fees=row.fees,
                roi=row.roi,
                notional=notional_of(row.entry_price, row.closed_quantity),
            )
            for row in closed
        ],
        funding=list(funding),
        marks=[Mark(equity=equity, drawdown=drawdown) for equity, drawdown in marked],
        standings=[
            DayStanding(equity=equity, exposure=exposure, approved=approved, denied=denied)
            for equity, exposure, approved, denied in decided
        ],
    )
