"""Bringing the tables up to the journal: a batch is one transaction, with how far it came; begun again, it goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from feature_store.errors import QuantumError
from inference.domain.errors import JournalError
from inference.journal.codec import GENESIS, Entry, entry_of
from inference.journal.head import Head
from inference.journal.reader import newest_lines
from inference.journal.verify import verified
from inference.storage import schema
from inference.storage.database import Database
from inference.storage.errors import AnotherJournalError, SchemaError, StorageError
from inference.storage.loading import load
from inference.storage.migrating import Standing, require_current, standing_of, upgrade
from inference.storage.performance import ClosedTrade, Mark, day_row, notional_of
from inference.storage.performance import Standing as DayStanding
from inference.storage.projection import RULES, Projection, named_by, read_event
from inference.storage.records import CANCELLED, Row

_ENTRIES_AT_ONCE = 2000
_BYTES_AT_ONCE = 16 * 2**20
# Rows that are told once and never again; all other tables hold what may still change.
_TOLD_ONCE = frozenset({"fills", "signals", "equity_curve", "risk_state", "funding_payments", "events"})
_LONGEST_PAUSE_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """How far the tables tell the journal: its last entry, where its line begins, and where the next one will."""

    seq: int
    digest: str
    line_offset: int
    next_offset: int


NOTHING = Kept(seq=0, digest=GENESIS, line_offset=0, next_offset=0)


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

    Any number may follow at once: each batch is taken by one of them, from where the last one ended.
    """

    def __init__(self, database: Database, journal: Path, *, at_once: int = _ENTRIES_AT_ONCE) -> None:
        self._database = database
        self._journal = journal
        self._at_once = at_once

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
            taken, failure = _read(self._journal, kept, self._at_once)
            if taken:
                _apply(connection, self._database.dialect, [(one.entry, one.event) for one in taken])
                _keep(connection, self._database.dialect, taken[-1])
        if failure is not None:
            raise failure
        return len(taken)

    def catch_up(self, on_batch: Callable[[int], None] = lambda _: None) -> int:
        """Take in all there is; return of how many entries."""
        count = 0
        while taken := self.advance():
            count += taken
            on_batch(count)
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
                self.catch_up()
                wait = every
            except (AnotherJournalError, SchemaError):
                raise
            except StorageError as error:
                on_trouble(str(error))
                wait = min(_LONGEST_PAUSE_S, max(1.0, wait * 2))
            if pause(wait):
                return


@dataclass(frozen=True, slots=True)
class _Taken:
    entry: Entry
    event: Any
    line_offset: int
    next_offset: int


def _read(journal: Path, kept: Kept, at_once: int) -> tuple[list[_Taken], QuantumError | None]:
    """Return what follows, verified and decoded, and what stands in the way of more."""
    lines = _Lines(journal, kept)
    taken: list[_Taken] = []
    try:
        for entry in verified(lines.following(at_once), None, after=Head(seq=kept.seq, digest=kept.digest)):
            # One by one: what was read before a damaged entry is taken in.
            taken.append(_Taken(entry, read_event(entry), lines.line_offset, lines.next_offset))  # noqa: PERF401
    except (JournalError, StorageError) as error:
        return taken, error
    except OSError as error:
        return taken, StorageError(f"The journal {journal} cannot be read: {error.strerror}")
    return taken, None


class _Lines:
    """The whole lines of a journal behind the last one that was kept; says where the newest one lies."""

    def __init__(self, journal: Path, kept: Kept) -> None:
        self.line_offset, self.next_offset = kept.line_offset, kept.next_offset
        self._journal = journal
        self._kept = kept

    def following(self, at_once: int) -> Iterator[bytes]:
        if not self._journal.exists():
            if self._kept.seq:
                raise self._another("is missing")
            return
        with self._journal.open("rb") as file:
            self._check_seam(file.seek(0, 2), file)
            file.seek(self.next_offset)
            end = self.next_offset + _BYTES_AT_ONCE
            for _ in range(at_once):
                line = file.readline()
                if not line.endswith(b"\n") or self.next_offset >= end:
                    return
                self.line_offset, self.next_offset = self.next_offset, self.next_offset + len(line)
                yield line

    def _check_seam(self, size: int, file: Any) -> None:
        """The entry that was taken in last stands where it stood, or the file is not the one that was read."""
        if not self._kept.seq:
            return
        if size < self.next_offset:
            raise self._another("is shorter than what was read of it")
        file.seek(self.line_offset)
        try:
            found = entry_of(file.read(self.next_offset - self.line_offset))
        except JournalError:
            raise self._another("has no entry where the last one was read") from None
        if (found.seq, found.digest) != (self._kept.seq, self._kept.digest):
            raise self._another(f"has another entry {self._kept.seq}")

    def _another(self, found: str) -> AnotherJournalError:
        return AnotherJournalError(
            f"The tables tell a journal up to entry {self._kept.seq}, and {self._journal} {found}; "
            "run `qtctl db rebuild` if this is the right journal, or name the other with --journal"
        )


def _apply(connection: Connection, dialect: str, entries: Sequence[tuple[Entry, Any]]) -> None:
    projection = Projection(load(connection, named_by(event for _, event in entries)))
    for entry, event in entries:
        projection.take(entry, event)
    _forget_earlier_plans(connection, projection.planned_anew)
    for name, rows in projection.rows().items():
        _write(connection, dialect, schema.metadata.tables[name], rows)
    performance = [_performance(connection, day) for day in sorted(projection.days)]
    _write(connection, dialect, schema.daily_performance, performance)


def _forget_earlier_plans(connection: Connection, trades: Iterable[str]) -> None:
    for key in sorted(trades):
        for table in (schema.positions, schema.fills, schema.orders):
            connection.execute(delete(table).where(table.c.trade_id == key))


def _write(connection: Connection, dialect: str, table: Table, rows: Sequence[Row]) -> None:
    if not rows:
        return
    insert: Any = postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
    if table.name not in _TOLD_ONCE:
        keys = [column.name for column in table.primary_key]
        changed = {name: insert.excluded[name] for name in rows[0] if name not in keys}
        insert = insert.on_conflict_do_update(index_elements=keys, set_=changed)
    connection.execute(insert, list(rows))


def _keep(connection: Connection, dialect: str, last: _Taken) -> None:
    row = {
        "id": 1,
        "rules": RULES,
        "seq": last.entry.seq,
        "digest": last.entry.digest,
        "line_offset": last.line_offset,
        "next_offset": last.next_offset,
        "entry_at": last.entry.timestamp_ms,
    }
    _write(connection, dialect, schema.projection, [row])


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
