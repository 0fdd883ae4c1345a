"""Keeping the lake in order while others use it: months rewritten, and old ones let go."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from feature_store.candle import Series
from feature_store.errors import BadInputError, CorruptFileError, NotAllowedError
from feature_store.inspection import Finding, Kind, flaw_of, inspect, stray_files, unfinished_months
from feature_store.partitions import (
    Rows,
    is_one_piece,
    month_of,
    months_of,
    read_partition,
    series_folder,
    update_partition,
)
from feature_store.storage import Place, locked, storage_of, sweep

if TYPE_CHECKING:
    import numpy.typing as npt

    from feature_store.lake import CandleLake
    from feature_store.store import FeatureStore

Progress = Callable[[int, int, str], object]
"""Told how many of how many are done, and what is next."""

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Compacted:
    """What compaction made of one month."""

    path: Place
    rows_dropped: int
    bytes_before: int
    bytes_after: int


@dataclass(frozen=True, slots=True)
class Together:
    """What putting one series together did: months written anew, rows taken in, and files refused with the reason."""

    months: tuple[Compacted, ...]
    absorbed: int
    refused: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Retained:
    """What retention took from one series."""

    series: Series
    months: tuple[str, ...]
    candles: int


def compact(path: Place, *, forget_before_ms: int | None = None, everything: bool = True) -> Compacted | None:
    """
    Write one month anew, in the form that is read fastest; no candle changes.

    Args:
        path: The month's file.
        forget_before_ms: Drop revisions that were no longer the newest at this moment. By default none is dropped.
        everything: Write it also where nothing is gained.

    Returns:
        What was gained; None where it was left as it is.

    Raises:
        CorruptFileError: The file is damaged; it was left as it is.
    """
    before, dropped, written = storage_of(path).size(path), 0, False

    def change(stored: Rows) -> Rows | None:
        nonlocal dropped, written
        kept = stored if forget_before_ms is None else stored.take(~_outdated(stored, forget_before_ms))
        dropped = len(stored) - len(kept)
        written = len(kept) > 0 and (everything or dropped > 0 or not is_one_piece(path))
        return kept if written else None

    update_partition(path, change)
    return Compacted(path, dropped, before, storage_of(path).size(path)) if written else None


def put_together(
    lake: CandleLake, series: Series, *, forget_before_ms: int | None = None, everything: bool = False
) -> Together:
    """Take files that are no month into theirs, and write months anew that are not one piece."""
    absorbed, months, refused = 0, [], []
    for stray in stray_files(series_folder(lake.place, series)):
        try:
            absorbed += absorb(lake, series, stray)
        except (BadInputError, CorruptFileError, NotAllowedError) as error:
            refused.append(str(error))
    for path in lake.paths(series):
        try:
            done = compact(path, forget_before_ms=forget_before_ms, everything=everything)
        except FileNotFoundError:
            continue  # Retention was quicker.
        except (CorruptFileError, NotAllowedError) as error:
            refused.append(str(error))
            continue
        if done is not None:
            months.append(done)
    return Together(tuple(months), absorbed, tuple(refused))


def absorb(lake: CandleLake, series: Series, stray: Place) -> int:
    """
    Move the candles of a file that is no month into their months, with every revision; return how many rows were new.

    The file is removed once all of it is stored.

    Raises:
        BadInputError: It says something else of a candle than the lake; nothing was changed, and it stays.
        CorruptFileError: It is no whole file of this series' candles; it stays.
    """
    rows, added = read_partition(stray), 0
    rows = rows.take(np.lexsort((rows.revision, rows.block.open_time_ms)))
    parts = [(month, rows.take(np.arange(part.start, part.stop))) for month, part in months_of(rows.block)]
    folder = series_folder(lake.place, series)
    for month, part in parts:
        if (flaw := flaw_of(part, series, month)) is not None:
            raise BadInputError(f"{stray} cannot be taken into the lake: {flaw[1]}")
        _Absorb(stray, part)(read_partition(folder / f"{month}.parquet"))
    for month, part in parts:
        absorbing = _Absorb(stray, part)
        update_partition(folder / f"{month}.parquet", absorbing)
        added += absorbing.added
    storage_of(stray).remove(stray)
    return added


@dataclass(slots=True)
class _Absorb:
    """Adds the candles that a month lacks."""

    stray: Place
    rows: Rows
    added: int = 0

    def __call__(self, stored: Rows) -> Rows | None:
        known = np.isin(self.rows.block.open_time_ms, stored.block.open_time_ms)
        said = {(time, *row) for time, row in _said(stored)}
        for time, row in _said(self.rows.take(known)):
            if (time, *row) not in said:
                raise BadInputError(
                    f"{self.stray} contradicts the lake on the candle at {time} ms; import it with "
                    "'qtctl ingest --from', which keeps both, or remove it"
                )
        fresh = self.rows.take(~known)
        self.added = len(fresh)
        both = stored.concat(fresh)
        return both.take(np.lexsort((both.revision, both.block.open_time_ms))) if self.added else None


def _said(rows: Rows) -> Iterator[tuple[int, tuple[float, ...]]]:
    for time, row in zip(rows.block.open_time_ms.tolist(), rows.block.values.tolist(), strict=True):
        yield time, tuple(row)


@dataclass(frozen=True, slots=True)
class Repaired:
    """What a repair did to one series, and what is left to do."""

    series: Series
    set_aside: tuple[tuple[str, str], ...]
    """Each damaged file, by its new name, with what was found."""
    swept: int
    to_fetch: tuple[tuple[int, int], ...]
    """Ranges of open times that have to be fetched again."""
    left: tuple[Finding, ...]
    """What a repair cannot mend."""


def repair(lake: CandleLake, store: FeatureStore, series: Series) -> Repaired:
    """Set damaged months aside, under names that say why, and remove what killed writers left half written."""
    aside: list[tuple[str, str]] = []
    fetch: list[tuple[int, int]] = []
    left: list[Finding] = []
    for finding in inspect(lake, store, series):
        if finding.kind is Kind.DAMAGED:
            aside.append((str(lake.set_aside(finding.place, finding.why)), finding.found))
            fetch.append(_range_of(finding.place.stem))
        elif finding.kind is Kind.DERIVED and isinstance(finding.place, Path):
            # Made from candles: nothing is lost with it.
            finding.place.unlink(missing_ok=True)
            aside.append((f"{finding.place} (removed)", finding.found))
        elif finding.is_problem and finding.kind is not Kind.LEFTOVER:
            left.append(finding)
    return Repaired(series, tuple(aside), sweep_leftovers(lake, series), tuple(fetch), tuple(left))


def _range_of(month: str) -> tuple[int, int]:
    begin = np.datetime64(month, "M")
    first, after = (int(one.astype("datetime64[ms]").astype(np.int64)) for one in (begin, begin + 1))
    return first, after


def sweep_leftovers(lake: CandleLake, series: Series) -> int:
    """Remove what killed writers left half written in the folder of a series; return how many files that were."""
    folder, swept = series_folder(lake.place, series), 0
    for path in unfinished_months(folder):
        # Whoever holds the lock is not at work on another half-written file of this month.
        with locked(path):
            swept += sweep(path)
    return swept


def _outdated(rows: Rows, before_ms: int) -> npt.NDArray[np.bool_]:
    """Tell which rows had been corrected already at a moment."""
    times = rows.block.open_time_ms
    outdated = np.zeros(len(rows), np.bool_)
    outdated[:-1] = (times[1:] == times[:-1]) & (rows.available_at_ms[1:] <= before_ms)
    return outdated


def retain(
    lake: CandleLake, store: FeatureStore, series: Iterable[Series], keep_days: int, progress: Progress | None = None
) -> list[Retained]:
    """
    Remove the months that lie wholly before the last days of a market, once the features' state remembers them.

    The days are counted back from the newest candle of the venue and timeframe, so that a delisted symbol ages too.

    Args:
        lake: Where candles are stored.
        store: Where the state of the features is kept.
        series: Which series may lose months.
        keep_days: How many days stay, at least.
        progress: Told of each series.

    Raises:
        CorruptFileError: A month is damaged; it and what comes after it stay.
    """
    wanted, done = list(series), []
    newest: dict[tuple[str, str], int] = {}
    for one in lake.series():
        market = (one.venue, one.timeframe)
        newest[market] = max(newest.get(market, 0), lake.last_open_time_ms(one) or 0)
    for number, one in enumerate(wanted):
        if progress is not None:
            progress(number, len(wanted), one.symbol)
        keep_from = month_of(newest.get((one.venue, one.timeframe), 0) - keep_days * DAY_MS)
        paths = [path for path in lake.paths(one) if path.stem < keep_from]
        if paths:
            store.materialize(lake, [one])
            gone = [read_partition(path).latest().block for path in paths]
            candles = sum(map(len, gone))
            store.keep_memory(one, gone[0].concat(*gone[1:]))
            for path in paths:
                lake.remove(path)
            done.append(Retained(one, tuple(path.stem for path in paths), candles))
    return done
