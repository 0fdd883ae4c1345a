"""The store of market data beside candles: append with revisions, read as of any moment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from feature_store.errors import CorruptFileError
from feature_store.kinds.checking import closed_ms, require_subject, sound_rows
from feature_store.kinds.definition import Kind, Known, Subject
from feature_store.kinds.partition import (
    folder_of,
    names_between,
    names_in,
    path_of,
    read_partition,
    set_aside,
    stretches,
    subjects_in,
    update_partition,
)
from feature_store.kinds.records import KnownRecords, Records
from feature_store.partitions import Appended
from feature_store.storage import Place

Times = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class KindCoverage:
    """How much the store holds of a kind about a subject."""

    kind: str
    subject: Subject
    first_ms: int | None
    last_ms: int | None
    rows: int
    corrections: int


class KindStore:
    """
    Market data under `root/<kind>/exchange=…/[timeframe=…/]symbol=…/<stretch>.parquet`, beside the candles.

    Writers replace a file as a whole, one at a time; readers wait for nobody and see whole files. Appending twice
    changes nothing. A row that differs from the stored one is kept beside it as a new revision.

    Args:
        root: The lake's folder.
        place: Where the rows lie instead, in an object store; the folder then holds what this machine notes beside.
    """

    def __init__(self, root: Path, place: Place | None = None) -> None:
        self.root = root
        self.place: Place = root if place is None else place

    def append(
        self, subject: Subject, records: Records, *, arrived_ms: int, available_at_ms: int | Times | None = None
    ) -> int:
        """
        Merge rows of one kind and return how many say something new, corrections included.

        Args:
            subject: What they are about.
            records: The rows, in any order.
            arrived_ms: When they came: the venue's time for what a venue sent. Nothing may be from later; rows of
                kinds that are known at arrival, and corrections, are known from then on.
            available_at_ms: When they could be known, if that is recorded, for all or for each; else as their kind
                declares.

        Raises:
            BadInputError: A row makes no sense; nothing was written.
            CorruptFileError: A file on disk is damaged; it was left as it is.
        """
        return self.merge(subject, records, arrived_ms=arrived_ms, available_at_ms=available_at_ms).rows

    def merge(
        self, subject: Subject, records: Records, *, arrived_ms: int, available_at_ms: int | Times | None = None
    ) -> Appended:
        """Append, as `append` does, and tell corrections apart."""
        kind, sound = records.kind, sound_rows(subject, records, arrived_ms)
        rows = records.take(sound)
        known_ms = np.broadcast_to(np.int64(-1) if available_at_ms is None else available_at_ms, len(records))[sound]
        folder, added, corrections = folder_of(self.place, kind, subject), 0, 0
        for name, part in stretches(kind, rows):
            merge = _Merge(rows.take(part), known_ms[part], subject, arrived_ms)
            update_partition(path_of(folder, name), kind, merge)
            added += merge.added
            corrections += merge.corrections
        return Appended(added, corrections)

    def read(
        self,
        kind: Kind,
        subject: Subject,
        start_ms: int | None = None,
        end_ms: int | None = None,
        *,
        as_of_ms: int | None = None,
    ) -> Records:
        """
        Return the rows with times in `[start_ms, end_ms)`, in order; none when nothing is stored.

        With `as_of_ms`, only what was available at that moment, in the revision that was then the newest.
        """
        return self.read_known(kind, subject, start_ms, end_ms).latest(as_of_ms).records

    def read_known(
        self, kind: Kind, subject: Subject, start_ms: int | None = None, end_ms: int | None = None
    ) -> KnownRecords:
        """Return every revision of the rows with times in `[start_ms, end_ms)`, with when each could be known."""
        require_subject(kind, subject)
        folder = folder_of(self.place, kind, subject)
        names = names_between(kind, names_in(folder), start_ms, end_ms)
        if not names:
            return KnownRecords.empty(kind)
        parts = [read_partition(path_of(folder, name), kind) for name in names]
        known = parts[0].concat(*parts[1:])
        times = known.records.time_ms
        begin = 0 if start_ms is None else int(np.searchsorted(times, start_ms))
        end = len(times) if end_ms is None else int(np.searchsorted(times, end_ms))
        return known.take(slice(begin, max(begin, end)))

    def last(self, kind: Kind, subject: Subject) -> Records:
        """Return the rows of the newest time stored: one, of a book all levels; none when nothing is stored."""
        folder = folder_of(self.place, kind, subject)
        for name in reversed(names_in(folder)):
            records = read_partition(path_of(folder, name), kind).latest().records
            if len(records):
                return records.take(records.time_ms == records.time_ms[-1])
        return Records.empty(kind)

    def coverage(self, kind: Kind, subject: Subject) -> KindCoverage:
        """Return how much is stored."""
        known = self.read_known(kind, subject)
        times = known.latest().records.time_ms
        first, last = (int(times[0]), int(times[-1])) if len(times) else (None, None)
        return KindCoverage(kind.name, subject, first, last, len(times), len(known) - len(times))

    def set_aside_damaged(self, kind: Kind, subject: Subject) -> list[str]:
        """Rename files that cannot be read out of the way; return their new names."""
        folder, aside = folder_of(self.place, kind, subject), []
        for name in names_in(folder):
            try:
                read_partition(path_of(folder, name), kind)
            except CorruptFileError:
                aside.append(str(set_aside(path_of(folder, name))))
        return aside

    def subjects(self, kind: Kind) -> list[Subject]:
        """Return what the kind is stored of, in order."""
        return subjects_in(self.place, kind)


@dataclass(slots=True)
class _Merge:
    """Rows on their way into one file; it may be asked again, of newer content."""

    rows: Records
    known_ms: Times
    subject: Subject
    arrived_ms: int
    added: int = 0
    corrections: int = 0

    def __call__(self, stored: KnownRecords) -> KnownRecords | None:
        """Return what the file is to hold, or None where nothing is new."""
        fresh = _fresh(stored, self.rows, self.known_ms, self.subject, self.arrived_ms)
        self.added, self.corrections = len(fresh), int((fresh.revision > 0).sum())
        return stored.concat(fresh).in_order() if len(fresh) else None


def _fresh(stored: KnownRecords, rows: Records, known_ms: Times, subject: Subject, arrived_ms: int) -> KnownRecords:
    """Return the rows that say something new, with their revisions; `known_ms` is -1 where nothing is recorded."""
    newest = stored.latest()
    both = newest.records.concat(rows)
    order = both.order()  # Stable: of one key, the stored row comes before the new one.
    ordered = both.take(order)
    corrects = ordered.repeats_key()
    # Of a kind that holds changes only, what matters is the row before in time; else the same row as stored.
    redundant = ordered.repeats_values() & (corrects | rows.kind.changes_only)
    fresh = np.flatnonzero((order >= len(newest)) & ~redundant)
    corrects = corrects[fresh]
    taken, known_ms = ordered.take(fresh), known_ms[order[fresh] - len(newest)]
    available = _available(taken, known_ms, subject, arrived_ms)
    revision = np.zeros(len(fresh), np.int32)
    replaced = order[fresh[corrects] - 1]
    revision[corrects] = newest.revision[replaced] + 1
    # A correction is known from its arrival on, and never before what it corrects.
    arrival = np.where(known_ms < 0, arrived_ms, known_ms)[corrects]
    available[corrects] = np.maximum(newest.available_at_ms[replaced] + 1, arrival)
    return KnownRecords(taken, available, revision)


def _available(rows: Records, known_ms: Times, subject: Subject, arrived_ms: int) -> Times:
    """Return when each row could be known: nothing before it was complete."""
    complete = rows.time_ms + closed_ms(rows.kind, subject)
    declared = arrived_ms if rows.kind.known is Known.AT_ARRIVAL else complete + rows.kind.delay_ms
    return np.maximum(complete, np.where(known_ms < 0, declared, known_ms))
