"""What the lake holds beside candles: market data of other kinds, and what other sources said; listed and mended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from feature_store import clock
from feature_store.context.store import ObservationStore, read_day
from feature_store.errors import BadInputError, CorruptFileError, NotAllowedError
from feature_store.inspection import Kind as Fault
from feature_store.kinds.checking import LAST_MS, closed_ms, require_subject, sound_rows
from feature_store.kinds.definition import KINDS, Kind, Known, Subject
from feature_store.kinds.partition import (
    folder_of,
    names_between,
    path_of,
    read_partition,
    span_of,
    stretches,
    subjects_in,
)
from feature_store.kinds.records import KnownRecords
from feature_store.listing import Listing
from feature_store.storage import Place, is_being_written, leftovers, locked, storage_of, sweep
from feature_store.upkeep import DAY_MS, Progress

if TYPE_CHECKING:
    from feature_store.lake import CandleLake

OBSERVATIONS = "observations"
NAMES = (*[kind.name for kind in KINDS], OBSERVATIONS)
_REPAIR = "run: qtctl lake repair"
_KEPT = ".corrupt-"


@dataclass(frozen=True, slots=True)
class Holding:
    """What is held of one kind about one subject; without a kind, what one source said."""

    kind: Kind | None
    subject: Subject
    """Of a source: its name in the place of the venue, and no symbol."""
    folder: Place
    notes: Path
    """The folder of this machine beside it; the same, unless the lake lies in an object store."""

    @property
    def name(self) -> str:
        """The kind's name."""
        return OBSERVATIONS if self.kind is None else self.kind.name

    def named(self) -> dict[str, Any]:
        """Return what it is of, for machines."""
        timeframe = None if self.subject.timeframe is None else str(self.subject.timeframe)
        return {
            "kind": self.name,
            "venue": self.subject.venue,
            "symbol": self.subject.symbol,
            "timeframe": timeframe,
        }

    def files(self) -> list[Any]:
        """Return the files that readers take, oldest first."""
        return storage_of(self.folder).glob(self.folder, "*.parquet")

    def lock_of(self, path: Path) -> Path:
        """Return whose lock a writer of a file holds."""
        return path.parent / "append" if self.kind is None else path


@dataclass(frozen=True, slots=True)
class Flaw:
    """One file that is not as it should be; `why` is a short word for its name, `remedy` what to do."""

    holding: Holding
    place: Place
    fault: Fault
    found: str
    remedy: str
    why: str = ""

    @property
    def is_problem(self) -> bool:
        """Whether anything needs to be done."""
        return self.fault is not Fault.SET_ASIDE


@dataclass(frozen=True, slots=True)
class Mended:
    """What a repair did to one holding, and what is left to do."""

    holding: Holding
    set_aside: tuple[tuple[str, str], ...]
    """Each damaged file, by its new name, with what was found."""
    swept: int
    to_fetch: tuple[tuple[int, int], ...]
    """Ranges of times that have to be fetched again."""
    lost: tuple[str, ...]
    """Stretches that nobody tells again."""
    left: tuple[Flaw, ...]


@dataclass(frozen=True, slots=True)
class Let:
    """What retention took from one holding."""

    holding: Holding
    files: tuple[str, ...]
    rows: int


def holdings(lake: CandleLake, kinds: Sequence[str] = NAMES) -> list[Holding]:
    """Return what is held beside candles of the named kinds, also where nothing but a file set aside is left."""
    found = []
    for kind in KINDS:
        if kind.name in kinds:
            for subject in subjects_in(lake.place, kind, "*"):
                place, notes = folder_of(lake.place, kind, subject), folder_of(lake.root, kind, subject)
                found.append(Holding(kind, subject, place, notes))
    if OBSERVATIONS in kinds:
        folders = sorted(ObservationStore(lake.root).root.glob("source=*"))
        found += [Holding(None, Subject(one.name.partition("=")[2], ""), one, one) for one in folders]
    return found


def listed_beside(holding: Holding) -> Listing:
    """Return what is held, as far as it can be read."""
    files, size, damaged, rows, corrections = holding.files(), 0, 0, 0, 0
    times: list[int] = []
    for place in files:
        try:
            one = _summed(holding, place)
            size += storage_of(place).size(place)
        except (CorruptFileError, NotAllowedError):
            damaged += 1
            continue
        except FileNotFoundError:
            continue  # Retention was quicker.
        rows, corrections, times = rows + one[0], corrections + one[1], [*times, *one[2]]
    first, last = (min(times), max(times)) if times else (None, None)
    subject, timeframe = holding.subject, holding.subject.timeframe
    return Listing(
        holding.name, subject.venue, "" if timeframe is None else str(timeframe), subject.symbol, len(files), rows,
        size, first, last, None, corrections, damaged,
    )  # fmt: skip


def _summed(holding: Holding, place: Any) -> tuple[int, int, list[int]]:
    """Return how many rows a file has, how many of them are corrections, and the first and last time."""
    if holding.kind is None:
        table = read_day(place) or pa.table({"available_at": [], "revision": []})
        times, revision = table["available_at"].cast(pa.int64()).to_numpy(), table["revision"].to_numpy()
        return len(table), int((revision > 0).sum()), [int(times.min()), int(times.max())] if len(times) else []
    known = read_partition(place, holding.kind)
    times = known.records.time_ms
    ends = [int(times.min()), int(times.max())] if len(times) else []
    return len(known), len(known) - len(known.latest()), ends


def inspect_beside(holding: Holding) -> Iterator[Flaw]:
    """Yield what is wrong with the files of a holding; looking changes nothing."""
    for place in holding.files():
        try:
            found = _flaw_of(holding, place)
        except CorruptFileError as error:
            why = "columns" if "expected columns" in error.found else "unreadable"
            found = ("other-subject" if "holds rows of" in error.found else why), error.found
        except NotAllowedError:
            remedy = "let the user who runs this read and write it"
            yield Flaw(holding, place, Fault.NOT_ALLOWED, "this user may not read it", remedy)
            continue
        if found is not None:
            yield Flaw(holding, place, Fault.DAMAGED, found[1], _REPAIR, found[0])
    for place in storage_of(holding.folder).glob(holding.folder, f"*.parquet{_KEPT}*"):
        yield Flaw(holding, place, Fault.SET_ASIDE, "kept by a repair", "remove it when you do not need it")
    for path in _unfinished(holding):
        if not is_being_written(holding.lock_of(path)):
            for left in leftovers(path):
                yield Flaw(holding, left, Fault.LEFTOVER, "a killed writer left it half written", _REPAIR)


def _flaw_of(holding: Holding, place: Any) -> tuple[str, str] | None:
    if holding.kind is None:
        table = read_day(place)
        return None if table is None else next(_flaws_of_day(table, place.stem), None)
    if span_of(holding.kind, place.stem) is None:
        return "name", f"it is no {holding.kind.partition} by its name, and its rows are read with those of others"
    # Retention may have been quicker: what is not there any more has no flaw.
    known = read_partition(place, holding.kind)
    if len(known) == 0 and not storage_of(place).glob(place.parent, place.name):
        return None
    return next(_flaws(holding.kind, holding.subject, known, place.stem), None)


def _flaws(kind: Kind, subject: Subject, known: KnownRecords, name: str) -> Iterator[tuple[str, str]]:
    records, revision, available = known.records, known.revision, known.available_at_ms
    if len(known) == 0:
        yield "empty", "it holds no row"
    other = [found for found, _ in stretches(kind, records) if found != name]
    if other:
        yield "other-stretch", f"it holds rows of {other[0]}"
    if not np.array_equal(records.order(), np.arange(len(records))):
        yield "unsorted", "its rows are not in order"
    again = records.repeats_key()[1:]
    if (np.diff(revision)[again] == 0).any():
        yield "duplicates", "it holds the same row twice"
    if (np.diff(revision)[again] != 1).any() or (revision < 0).any():
        yield "revisions", "a revision is missing or out of order"
    early = available < records.time_ms + closed_ms(kind, subject)
    if early.any() or (np.diff(available)[again] <= 0).any():
        yield "available", "a row is said to have been known before it was complete, or before what it corrects"
    try:
        require_subject(kind, subject)
        for number in np.unique(revision).tolist():
            # What a candle of the far future is was refused when it came; here only the clock of then is not known.
            sound_rows(subject, records.take(revision == number), 2 * LAST_MS)
    except BadInputError as error:
        yield "impossible", str(error)


def _flaws_of_day(table: pa.Table, name: str) -> Iterator[tuple[str, str]]:
    times = table["available_at"].cast(pa.int64()).to_numpy()
    if len(times) == 0:
        yield "empty", "it holds no observation"
    days = times.astype("datetime64[ms]").astype("datetime64[D]").astype(str)
    if (days != name).any():
        yield "other-day", f"it holds what arrived on {days[days != name][0]}"
    if (np.diff(times) < 0).any():
        yield "unsorted", "its rows are not in the order of their arrival"
    if not np.isfinite(table["value"].to_numpy()).all() or (table["revision"].to_numpy() < 0).any():
        yield "impossible", "a value is no number, or a revision is below 0"
    columns = [table[column].to_pylist() for column in ("available_at", "item", "revision", "subject", "metric")]
    # What a source is asked more than once in a millisecond is not told apart, but only polls are stored then.
    said = [row for row in zip(*columns, strict=True) if row[1] != "polled"]
    if len(set(said)) < len(said):
        yield "duplicates", "it holds the same figure twice"


def mend(holding: Holding) -> Mended:
    """Set damaged files aside, under names that say why, and remove what killed writers left half written."""
    aside: list[tuple[str, str]] = []
    fetch: list[tuple[int, int]] = []
    lost: list[str] = []
    left: list[Flaw] = []
    for flaw in inspect_beside(holding):
        if flaw.fault is Fault.DAMAGED:
            with suppress(FileNotFoundError):  # Somebody else was quicker.
                aside.append((str(_set_aside(holding, flaw)), flaw.found))
                span = None if holding.kind is None else span_of(holding.kind, flaw.place.stem)
                if holding.kind is None or holding.kind.known is Known.AT_ARRIVAL:
                    lost.append(flaw.place.stem)
                elif span is not None:
                    fetch.append(span)
        elif flaw.is_problem and flaw.fault is not Fault.LEFTOVER:
            left.append(flaw)
    swept = 0
    for path in _unfinished(holding):
        # Whoever holds the lock is not at work on another half-written file of this one.
        with locked(holding.lock_of(path)):
            swept += sweep(path)
    return Mended(holding, tuple(aside), swept, tuple(fetch), tuple(lost), tuple(left))


def _set_aside(holding: Holding, flaw: Flaw) -> Place:
    name = f"{flaw.place.name}{_KEPT}{flaw.why}-{clock.utc_now():%Y%m%dT%H%M%S%f}"
    if holding.kind is None and isinstance(flaw.place, Path):
        with locked(holding.lock_of(flaw.place)):
            return flaw.place.rename(flaw.place.with_name(name))
    place: Place = storage_of(flaw.place).rename(flaw.place, name)
    return place


def _unfinished(holding: Holding) -> list[Path]:
    """Return the files of this machine beside which lies a half-written one."""
    return sorted({holding.notes / left.name[1:].rsplit(".", 2)[0] for left in holding.notes.glob(".*.tmp")})


def let_go(lake: CandleLake, chosen: Sequence[Holding], keep_days: int, progress: Progress | None = None) -> list[Let]:
    """
    Remove the files that lie wholly before the last days of their kind and venue; ingest does not ask for them again.

    Raises:
        BadInputError: Filters or observations are among them: of those, all is kept.
        CorruptFileError: A file is damaged; it and all that is younger stay.
    """
    kept = sorted({one.name for one in chosen if one.kind is None or one.kind.partition == "all"})
    if kept:
        raise BadInputError(f"All is kept of {' and '.join(kept)}; name other kinds")
    newest: dict[tuple[str, str], int] = {}
    for one in holdings(lake, sorted({one.name for one in chosen})):
        market = (one.name, one.subject.venue)
        newest[market] = max(newest.get(market, 0), _last_ms(one))
    done = []
    for number, one in enumerate(chosen):
        kind = one.kind
        if kind is None:
            continue
        if progress is not None:
            progress(number, len(chosen), one.name)
        keep_from = newest.get((one.name, one.subject.venue), 0) - keep_days * DAY_MS
        names = [place.stem for place in one.files() if span_of(kind, place.stem) is not None]
        staying = set(names_between(kind, names, keep_from, None))
        gone = [path_of(one.folder, name) for name in names if name not in staying]
        rows = 0
        for path in gone:
            rows += len(read_partition(path, kind).latest())
            storage_of(path).remove(path)
        if gone:
            done.append(Let(one, tuple(path.stem for path in gone), rows))
    return done


def _last_ms(holding: Holding) -> int:
    if holding.kind is None:
        return 0
    for place in reversed(holding.files()):
        times = read_partition(place, holding.kind).records.time_ms
        if len(times):
            return int(times.max())
    return 0
