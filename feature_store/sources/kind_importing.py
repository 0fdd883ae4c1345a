"""Bringing market data beside candles that people already have into the lake."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from feature_store.candle import Timeframe
from feature_store.errors import BadInputError, CorruptFileError, LakeNotWritableError
from feature_store.kinds.checking import sound_rows
from feature_store.kinds.definition import Kind, Subject
from feature_store.kinds.records import Records
from feature_store.kinds.store import KindStore
from feature_store.sources.import_ledger import ImportLedger
from feature_store.sources.importing import Advance, Part, Refused, note_imported
from feature_store.sources.plausible import refuse_other_market


@dataclass(frozen=True, slots=True)
class KindSelection:
    """What of a source is wanted, and under which venue it is stored; None is all, or the recorded one."""

    kinds: tuple[Kind, ...]
    symbols: tuple[str, ...] | None = None
    timeframe: Timeframe | None = None
    venue: str | None = None

    def stored_as(self, kind: Kind, subject: Subject) -> Subject | None:
        """Return the subject in the lake for one of the source, or None where it is not wanted."""
        if kind not in self.kinds or (self.symbols is not None and subject.symbol not in self.symbols):
            return None
        if None not in (self.timeframe, subject.timeframe) and self.timeframe is not subject.timeframe:
            return None
        return Subject(self.venue or subject.venue, subject.symbol, subject.timeframe)

    @property
    def key(self) -> str:
        """What a ledger notes of it."""
        symbols = "all" if self.symbols is None else ",".join(sorted(self.symbols))
        return f"{self.venue or 'as-recorded'} {self.timeframe or 'all'} {symbols} {','.join(map(str, self.kinds))}"


@dataclass(frozen=True, slots=True)
class Held:
    """What a file holds of one kind and subject; `available_at_ms` where the file tells when each row came."""

    subject: Subject
    records: Records
    available_at_ms: npt.NDArray[np.int64] | None = None


class KindSource(Protocol):
    """Market data in files: what there is, and what one file holds."""

    @property
    def origin(self) -> str:
        """Path or address, as the ledger knows it."""

    def parts(self, selection: KindSelection) -> Sequence[Part]:
        """Return the files that may hold what is selected, in the order in which they are read."""

    def read(self, part: Part) -> Iterable[Held]:
        """
        Yield what one file holds, under unified names.

        Raises:
            BadInputError: The file cannot be used; nothing of it is imported.
            CorruptFileError: The file is damaged; nothing of it is imported.
        """


@dataclass(frozen=True, slots=True)
class KindImports:
    """What one import did; `rows` are new ones by kind, `corrections` those of them that differ from a stored one."""

    parts: int
    known: int
    rows: dict[str, int]
    subjects: int
    refused: tuple[Refused, ...]
    corrections: int = 0


@dataclass(slots=True)
class _Run:
    """What one import has brought so far; `spans` says from which file which stretch came."""

    spans: dict[tuple[Kind, Subject], list[tuple[int, int, str]]] = field(default_factory=dict)
    refused: list[Refused] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    corrections: int = 0
    known: int = 0
    read: int = 0


def import_kinds(
    store: KindStore,
    source: KindSource,
    selection: KindSelection,
    *,
    now_ms: int,
    again: bool = False,
    progress: Callable[[Advance], None] | None = None,
) -> KindImports:
    """
    Append the files of a source that were not imported before; each is judged whole before anything of it is stored.

    A file that contradicts rows of the lake is refused; with `again`, what differs is kept beside them as revisions.

    Args:
        store: Where the rows go.
        source: Where they are.
        selection: Which of them are wanted.
        now_ms: The present: a row from later is refused.
        again: Read also the files that were imported before, set damaged files of the lake aside, and take what differs
            from stored rows as corrections.
        progress: Told of each file.

    Raises:
        BadInputError: Nothing of what is wanted lies there.
        CorruptFileError: A file of the lake is damaged; it was left as it is.
        LakeNotWritableError: The lake cannot be written; what was imported stays.
    """
    ledger = ImportLedger(store.root, store.place, f"kinds {source.origin} {selection.key}")
    run, parts = _Run(), source.parts(selection)
    for done, part in enumerate(parts):
        if progress is not None:
            progress(Advance(done, len(parts), part.name, run.read))
        if not again and ledger.knows(part.name, part.fingerprint):
            run.known += 1
            continue
        corrects = again or (part.published and ledger.has(part.name))
        held = _usable(store, source, part, selection, run, now_ms=now_ms, corrects=corrects)
        if isinstance(held, Refused):
            run.refused.append(held)
            continue
        for one in held:
            _store(store, one, part, run, now_ms, mend=again)
        if held:
            # A file that held nothing of what is wanted is looked at again: it may be another choice's typing error.
            note_imported(ledger, part, store.root)
    if progress is not None:
        progress(Advance(len(parts), len(parts), "", run.read))
    if not (run.spans or run.known or run.refused):
        kinds = ", ".join(map(str, selection.kinds))
        wanted = kinds if selection.symbols is None else f"{kinds} of {', '.join(selection.symbols)}"
        raise BadInputError(f"Nothing was imported: {wanted} is in none of {len(parts)} files at {source.origin}")
    return KindImports(len(parts), run.known, run.rows, len(run.spans), tuple(run.refused), run.corrections)


def _usable(
    store: KindStore,
    source: KindSource,
    part: Part,
    selection: KindSelection,
    run: _Run,
    *,
    now_ms: int,
    corrects: bool,
) -> list[Held] | Refused:
    """Return what one file brings, or why nothing of it is to be stored."""
    try:
        held = _sound(source, part, selection, now_ms)
    except (BadInputError, CorruptFileError) as error:
        return Refused(part.name, str(error))
    try:
        # Damage that is found here is the lake's, which is no fault of the file: it ends the import.
        for one in held:
            _refuse_contradiction(store, one, run, corrects=corrects)
    except BadInputError as error:
        return Refused(part.name, str(error))
    return held


def _sound(source: KindSource, part: Part, selection: KindSelection, now_ms: int) -> list[Held]:
    """Return what one file brings, judged whole before a single row of it is stored."""
    found: dict[tuple[Kind, Subject], Held] = {}
    for held in source.read(part):
        kind = held.records.kind
        subject = selection.stored_as(kind, held.subject)
        if subject is None:
            continue
        for venue in (held.subject.venue, subject.venue):
            refuse_other_market(venue, subject.symbol)
        if (kind, subject) in found:
            raise BadInputError(f"{kind} of {subject.symbol} is there twice; a file holds each once")
        sound_rows(subject, held.records, now_ms)
        found[kind, subject] = Held(subject, held.records, held.available_at_ms)
    return [one for one in found.values() if len(one.records)]


def _store(store: KindStore, held: Held, part: Part, run: _Run, now_ms: int, *, mend: bool) -> None:
    kind, times, key = held.records.kind, held.records.time_ms, (held.records.kind, held.subject)
    try:
        if mend and key not in run.spans:
            store.set_aside_damaged(kind, held.subject)
        added = store.merge(held.subject, held.records, arrived_ms=now_ms, available_at_ms=held.available_at_ms)
    except OSError as error:
        raise LakeNotWritableError(f"{kind} of {held.subject.symbol}", store.root, error) from error
    run.read += len(held.records)
    run.rows[kind.name] = run.rows.get(kind.name, 0) + added.rows
    run.corrections += added.corrections
    run.spans.setdefault(key, []).append((int(times.min()), int(times.max()), part.name))


def _refuse_contradiction(store: KindStore, held: Held, run: _Run, *, corrects: bool) -> None:
    """Files that overlap each other, or what is stored, must agree: nobody can say which of them is right."""
    kind, times, name = held.records.kind, held.records.time_ms, f"{held.records.kind} of {held.subject.symbol}"
    brought = run.spans.get((kind, held.subject), [])
    if kind.changes_only or (corrects and not brought):
        return
    both = store.read(kind, held.subject, int(times.min()), int(times.max()) + 1).concat(held.records)
    both = both.take(both.order())
    differing = both.time_ms[both.repeats_key() & ~both.repeats_values()]
    for begin, end, other in brought:
        of_other = differing[(differing >= begin) & (differing <= end)]
        if len(of_other):
            raise BadInputError(f"{name}: the row at {of_other[0]} ms contradicts {other}; keep one of the files")
    if len(differing) == 0 or corrects:
        return
    # The newest candle that is stored may have been open when it was written.
    if kind.is_candle and differing[0] >= store.last(kind, held.subject).time_ms[-1]:
        return
    raise BadInputError(
        f"{name}: {len(differing)} rows differ from those that are stored, the first at "
        f"{np.datetime64(int(differing[0]), 'ms')} UTC ({differing[0]} ms). If these are right, --repair imports the "
        "file as corrections, beside what was known before"
    )
