"""What is wrong with the files of a lake, each with what to do about it; looking changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from feature_store.candle import Series, validate
from feature_store.derived import BASE
from feature_store.errors import BadInputError, CorruptFileError, FingerprintMismatchError, NotAllowedError
from feature_store.feature_files import read_features
from feature_store.features.state import load_state, state_path
from feature_store.partitions import MONTHS, Rows, read_partition, series_folder
from feature_store.sources.deriving import apart
from feature_store.storage import Place, is_being_written, leftovers, storage_of

if TYPE_CHECKING:
    from feature_store.lake import CandleLake
    from feature_store.store import FeatureStore


class Kind(StrEnum):
    """What can be wrong."""

    DAMAGED = "damaged"
    NOT_ALLOWED = "not-allowed"
    LEFTOVER = "leftover"
    STRAY = "stray"
    DERIVED = "derived"
    DIFFERS = "differs"
    SET_ASIDE = "set-aside"
    """Not wrong: a file that a repair kept."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One file that is not as it should be; `why` is a short word for its name, `remedy` what to do."""

    series: Series
    place: Place
    kind: Kind
    found: str
    remedy: str
    why: str = ""

    @property
    def is_problem(self) -> bool:
        """Whether anything needs to be done."""
        return self.kind is not Kind.SET_ASIDE


_REPAIR = "run: qtctl lake repair"
_FEATURES = "remove it and run: qtctl features"


def inspect(lake: CandleLake, store: FeatureStore, series: Series) -> Iterator[Finding]:
    """Yield what is wrong with the files of a series: its candles, what lies beside them, and what was made of them."""
    for place in lake.paths(series):
        finding = inspect_month(place, series)
        if finding is not None:
            yield finding
    folder = series_folder(lake.place, series)
    yield from _beside(folder, series)
    yield from _derived(store, series)


def inspect_derived(lake: CandleLake, series: Series) -> Iterator[Finding]:
    """Yield where the candles of a derived series are not what its stored minutes add up to."""
    folder = series_folder(lake.place, series)
    try:
        count, times = apart(lake, series)
    except (CorruptFileError, NotAllowedError):
        return  # Whoever reads every file has told that already.
    if times:
        shown = ", ".join(str(np.datetime64(time, "ms").astype("datetime64[m]")) for time in times[:3])
        found = (
            f"{len(times)} candles differ from the {count} that the stored {BASE} candles add up to, "
            f"from {shown}{' …' if len(times) > 3 else ''} on"
        )
        remedy = (
            f"run: qtctl ingest --timeframe {BASE} --derive {series.timeframe}; what differs still then is made anew "
            "by it once this folder is moved away"
        )
        yield Finding(series, folder, Kind.DIFFERS, found, remedy)


def inspect_month(place: Place, series: Series) -> Finding | None:
    """Return what is wrong with one month of candles, None where nothing is."""
    try:
        rows = read_partition(place)
    except CorruptFileError as error:
        why = "other-series" if "holds candles of" in error.found else "unreadable"
        why = "columns" if "expected columns" in error.found else why
        return Finding(series, place, Kind.DAMAGED, error.found, _REPAIR, why)
    except NotAllowedError:
        remedy = "let the user who runs this read and write it"
        return Finding(series, place, Kind.NOT_ALLOWED, "this user may not read it", remedy)
    flaw = flaw_of(rows, series, place.stem)
    return None if flaw is None else Finding(series, place, Kind.DAMAGED, flaw[1], _REPAIR, flaw[0])


def flaw_of(rows: Rows, series: Series, month: str) -> tuple[str, str] | None:
    """Return a word and a sentence for what is wrong with the rows of a month, None where nothing is."""
    return next(_flaws(rows, series, month), None)


def _flaws(rows: Rows, series: Series, month: str) -> Iterator[tuple[str, str]]:
    times, revision, available = rows.block.open_time_ms, rows.revision, rows.available_at_ms
    if len(rows) == 0:
        yield "empty", "it holds no candle"
    months = times.astype("datetime64[ms]").astype("datetime64[M]")
    if (months != np.datetime64(month)).any():
        yield "other-month", f"it holds candles of {months[months != np.datetime64(month)][0]}"
    if (np.diff(times) < 0).any():
        yield "unsorted", "its candles are not in order"
    again = times[1:] == times[:-1]
    if (np.diff(revision)[again] == 0).any():
        yield "duplicates", "it holds the same candle twice"
    # What compaction forgot is missing at the beginning, never in between.
    if (np.diff(revision)[again] != 1).any():
        yield "revisions", "a revision is missing or out of order"
    if (available < times + series.timeframe.milliseconds).any() or (np.diff(available)[again] <= 0).any():
        yield "available", "a candle is said to have been known before it was over, or before what it corrects"
    try:
        for number in np.unique(revision).tolist():
            validate(rows.take(revision == number).block, series.timeframe)
    except BadInputError as error:
        yield "impossible", str(error)


def _beside(folder: Place, series: Series) -> Iterator[Finding]:
    for place in storage_of(folder).glob(folder, "*"):
        if place.name.startswith("."):
            continue
        if ".parquet.corrupt" in place.name:
            yield Finding(series, place, Kind.SET_ASIDE, "kept by a repair", "remove it when you do not need it")
        elif place.name.endswith(".parquet") and not _is_month(place.stem):
            found = "it is no month (YYYY-MM.parquet), and nobody reads it"
            yield Finding(series, place, Kind.STRAY, found, "run: qtctl lake compact, or move it away")
    for path in unfinished_months(folder):
        if not is_being_written(path):
            for left in leftovers(path):
                yield Finding(series, left, Kind.LEFTOVER, "a killed writer left it half written", _REPAIR)


def unfinished_months(folder: Place) -> list[Path]:
    """Return the months of a folder beside which lies a half-written file; an object store has none."""
    if not isinstance(folder, Path):
        return []
    return sorted({folder / f"{left.name.split('.')[1]}.parquet" for left in folder.glob(f".{MONTHS}.*.tmp")})


def stray_files(folder: Place) -> list[Place]:
    """Return the Parquet files of a series' folder that are no months."""
    return [place for place in storage_of(folder).glob(folder, "*.parquet") if not _is_month(place.stem)]


def _is_month(stem: str) -> bool:
    year, dash, month = stem.partition("-")
    return len(year) == 4 and dash == "-" and len(month) == 2 and (year + month).isdigit() and 1 <= int(month) <= 12


def _derived(store: FeatureStore, series: Series) -> Iterator[Finding]:
    for path in sorted(series_folder(store.root, series).glob(MONTHS)):
        try:
            times, _, _ = read_features(path)
        except CorruptFileError as error:
            yield Finding(series, path, Kind.DERIVED, error.found, _FEATURES)
            continue
        if (np.diff(times) <= 0).any():
            yield Finding(series, path, Kind.DERIVED, "its rows are not in order", _FEATURES)
    for path in (state_path(store.root, series), store.removed_path(series)):
        try:
            load_state(path, series)
        except CorruptFileError as error:
            yield Finding(series, path, Kind.DERIVED, error.found, _FEATURES)
        except FingerprintMismatchError as error:
            yield Finding(series, path, Kind.DERIVED, str(error), _FEATURES)
