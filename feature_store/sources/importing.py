"""Bringing candles that people already have into the lake: what a source of them is, and how it is imported."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from feature_store.candle import CandleBlock, Series, Timeframe, require_named, validate
from feature_store.errors import BadInputError, CorruptFileError, LakeNotWritableError
from feature_store.lake import CandleLake
from feature_store.sources.contradicting import Stretch, agreed
from feature_store.sources.deriving import refuse_derived
from feature_store.sources.import_ledger import ImportLedger, Span
from feature_store.sources.ingest import note_foreign, set_aside_damaged
from feature_store.sources.plausible import (
    refuse_future,
    refuse_other_market,
    refuse_other_timeframe,
    refuse_other_units,
)


@dataclass(frozen=True, slots=True)
class Part:
    """
    One file of a source; `fingerprint` changes with its content and is empty where that is not known.

    A file that is `published` comes with its maker's checksum: another content under its name is a restatement.
    """

    name: str
    fingerprint: str
    published: bool = False


@dataclass(frozen=True, slots=True)
class Selection:
    """Which series of a source are wanted, and under which venue they are stored; None is all, or the recorded one."""

    symbols: tuple[str, ...] | None = None
    timeframe: Timeframe | None = None
    venue: str | None = None

    def stored_as(self, series: Series) -> Series | None:
        """Return the series in the lake for one of the source, or None where it is not wanted."""
        if self.symbols is not None and series.symbol not in self.symbols:
            return None
        if self.timeframe is not None and series.timeframe != self.timeframe:
            return None
        return Series(self.venue or series.venue, series.symbol, series.timeframe)


class CandleSource(Protocol):
    """Candles in files: what there is, and what one file holds."""

    @property
    def origin(self) -> str:
        """Path or address, as the ledger knows it."""

    @property
    def layout(self) -> str:
        """How the files are called and what they hold, in words for whom nothing was found."""

    def parts(self, selection: Selection) -> Sequence[Part]:
        """Return the files that may hold what is selected, in the order in which they are read."""

    def missing(self, parts: Sequence[Part]) -> Sequence[str]:
        """Return in words what was looked for by its name and is not among the files."""

    def read(self, part: Part) -> Iterable[tuple[Series, CandleBlock]]:
        """
        Yield the series of one file, under unified names.

        Raises:
            BadInputError: The file cannot be used; nothing of it is imported.
            CorruptFileError: The file is damaged; nothing of it is imported.
        """


@dataclass(frozen=True, slots=True)
class Refused:
    """A file of which nothing was imported, and why."""

    part: str
    reason: str


@dataclass(frozen=True, slots=True)
class Imports:
    """
    What one import did.

    `appended` are rows that are new, of which `corrections` differ from a candle that was stored before. `known_series`
    are those of files that were imported before, as far as that is noted. `missing` says what a source lacks.
    """

    parts: int
    known: int
    candles: int
    appended: int
    series: tuple[Series, ...]
    refused: tuple[Refused, ...]
    corrections: int = 0
    known_series: tuple[Series, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Advance:
    """How far an import is: files done of how many, the next one, and candles or other rows read so far."""

    done: int
    total: int
    name: str
    rows: int


@dataclass(frozen=True, slots=True)
class _Usable:
    """What is to be stored of a series, and from when to when its file has candles of it."""

    series: Series
    block: CandleBlock
    span: Span


@dataclass(slots=True)
class _Run:
    """
    What one import has brought so far; `spans` says from which file which stretch of a series came.

    `noted` says the same of imports before.
    """

    noted: dict[Series, list[Stretch]]
    spans: dict[Series, list[Stretch]] = field(default_factory=dict)
    refused: list[Refused] = field(default_factory=list)
    known: int = 0
    known_series: set[Series] = field(default_factory=set)
    candles: int = 0
    appended: int = 0
    corrections: int = 0


def import_candles(
    lake: CandleLake,
    source: CandleSource,
    selection: Selection,
    *,
    now_ms: int,
    again: bool = False,
    progress: Callable[[Advance], None] | None = None,
) -> Imports:
    """
    Append the files of a source that were not imported before; each is judged whole before anything of it is stored.

    A file that contradicts older candles of the lake is refused. What the lake holds is not touched: a newest candle
    that differs, or any one with `again`, is kept beside it as a new revision. Where the lake can no longer be written,
    the months of a file that were written before that stay; importing it again completes it.

    Args:
        lake: Where the candles go.
        source: Where they are.
        selection: Which of them are wanted.
        now_ms: The present; a candle that has not closed yet is left out, one that opens later is refused.
        again: Read also the files that were imported before, set damaged files of the lake aside, and take what differs
            from stored candles as corrections.
        progress: Told how far it is before each file, and at the end.

    Raises:
        BadInputError: Nothing of what is wanted lies there.
        CorruptFileError: A file of the lake is damaged; it was left as it is.
        LakeNotWritableError: The lake cannot be written; what was imported stays.
    """
    ledger = ImportLedger(lake.root, lake.place, f"{source.origin} {_key(selection)}")
    parts = source.parts(selection)
    run = _Run(_noted(ledger, parts, again=again))
    for done, part in enumerate(parts):
        if progress is not None:
            progress(Advance(done, len(parts), part.name, run.candles))
        if not again and ledger.knows(part.name, part.fingerprint):
            run.known += 1
            run.known_series.update(ledger.series_of(part.name))
            continue
        corrects = again or (part.published and ledger.has(part.name))
        blocks = _usable_blocks(lake, source, part, selection, run, now_ms=now_ms, corrects=corrects)
        if isinstance(blocks, Refused):
            run.refused.append(blocks)
            continue
        for one in blocks:
            _store(lake, one, part, run, mend=again and one.series not in run.spans)
        if blocks:
            # A file that held nothing of what is wanted is looked at again: it may be another choice's typing error.
            note_imported(ledger, part, lake.root, {one.series: one.span for one in blocks})
    if progress is not None:
        progress(Advance(len(parts), len(parts), "", run.candles))
    if not (run.spans or run.known or run.refused):
        wanted = ", ".join(selection.symbols or ("any symbol",)) + (
            f" {selection.timeframe}" if selection.timeframe else ""
        )
        raise BadInputError(
            f"Nothing was imported: {wanted} is in none of {len(parts)} files at {source.origin}; {source.layout}"
        )
    return Imports(
        len(parts),
        run.known,
        run.candles,
        run.appended,
        tuple(sorted(run.spans)),
        tuple(run.refused),
        run.corrections,
        tuple(sorted(run.known_series)),
        tuple(source.missing(parts)),
    )


def sound(series: Series, block: CandleBlock, now_ms: int) -> CandleBlock:
    """
    Return the closed candles of a block, if all of it could have come from the market it names.

    Raises:
        BadInputError: It could not; the message says why.
    """
    refuse_other_market(series.venue, series.symbol)
    times = block.open_time_ms
    refuse_other_units(series.symbol, times)
    refuse_future(series.symbol, times, now_ms)
    refuse_other_timeframe(series.symbol, series.timeframe, times)
    try:
        validate(block, series.timeframe)
    except BadInputError as error:
        raise BadInputError(f"{series.symbol}: {error}") from error
    return block.until(series.timeframe.floor_ms(now_ms))


def note_imported(ledger: ImportLedger, part: Part, root: Path, series: Mapping[Series, Span] | None = None) -> None:
    """
    Note that all of a file is in the lake, and from when to when it has candles of which series.

    Raises:
        LakeNotWritableError: The note cannot be written; what was imported stays.
    """
    try:
        ledger.note(part.name, part.fingerprint, series)
    except OSError as error:
        raise LakeNotWritableError(f"the note on {part.name}", root, error) from error


def _noted(ledger: ImportLedger, parts: Sequence[Part], *, again: bool) -> dict[Series, list[Stretch]]:
    """Return what imports before brought of each series; it binds where the file lies there and is not read again."""
    fingerprints = {part.name: part.fingerprint for part in parts}
    noted: dict[Series, list[Stretch]] = {}
    for name, series, (first_ms, last_ms) in ledger.spans():
        binds = not again and ledger.knows(name, fingerprints.get(name, ""))
        noted.setdefault(series, []).append(Stretch(first_ms, last_ms, name, binds))
    return noted


def _store(lake: CandleLake, usable: _Usable, part: Part, run: _Run, *, mend: bool) -> None:
    """Append the candles of a file; with `mend`, damaged files of the series are set aside before."""
    series, block = usable.series, usable.block
    try:
        if mend:
            set_aside_damaged(lake, series)
        note_foreign(lake, series, block)
        added = lake.merge(series, block)
    except OSError as error:
        raise LakeNotWritableError(series.symbol, lake.root, error) from error
    run.appended += added.rows
    run.corrections += added.corrections
    run.candles += len(block)
    run.spans.setdefault(series, []).append(Stretch(*usable.span, part.name))


def _usable_blocks(
    lake: CandleLake,
    source: CandleSource,
    part: Part,
    selection: Selection,
    run: _Run,
    *,
    now_ms: int,
    corrects: bool,
) -> list[_Usable] | Refused:
    """Return what is to be stored of one file, or why nothing of it is."""
    try:
        blocks = _sound_blocks(lake, source, part, selection, now_ms)
    except (BadInputError, CorruptFileError) as error:
        return Refused(part.name, str(error))
    try:
        # Damage that is found here is the lake's, which is no fault of the file: it ends the import.
        return [_agreed(lake, series, block, run, corrects=corrects) for series, block in blocks]
    except BadInputError as error:
        return Refused(part.name, str(error))


def _agreed(lake: CandleLake, series: Series, block: CandleBlock, run: _Run, *, corrects: bool) -> _Usable:
    brought = [*run.noted.get(series, ()), *run.spans.get(series, ())]
    span = int(block.open_time_ms[0]), int(block.open_time_ms[-1])
    return _Usable(series, agreed(lake, series, block, brought, corrects=corrects), span)


def _sound_blocks(
    lake: CandleLake, source: CandleSource, part: Part, selection: Selection, now_ms: int
) -> list[tuple[Series, CandleBlock]]:
    """Return what one file brings, judged whole before a single candle of it is stored."""
    blocks: dict[Series, CandleBlock] = {}
    for named, block in source.read(part):
        series = selection.stored_as(named)
        if series is None:
            continue
        require_named(series)
        refuse_other_market(series.venue, series.symbol)
        refuse_derived(lake, series)
        if series in blocks:
            raise BadInputError(f"{series.symbol} is there twice; a file holds each series once, oldest first")
        blocks[series] = sound(named, block, now_ms)
    return [(series, block) for series, block in blocks.items() if len(block)]


def _key(selection: Selection) -> str:
    symbols = "all" if selection.symbols is None else ",".join(sorted(selection.symbols))
    return f"{selection.venue or 'as-recorded'} {selection.timeframe or 'all'} {symbols}"
