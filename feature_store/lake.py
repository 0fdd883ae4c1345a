"""The candle lake: closed candles as Parquet, one file for each series and month, many readers and writers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_store import clock
from feature_store.candle import CandleBlock, Series, require_named, validate
from feature_store.partitions import (
    AnyPlace,
    Appended,
    Rows,
    months_between,
    months_in,
    months_of,
    read_partition,
    series_folder,
    series_in,
    update_partition,
)
from feature_store.storage import ObjectPlace, Place, storage_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

BACKFILL_DELAY_MS = 1_000
"""A backfilled candle is taken to have been available this long after its close."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of a series the lake holds."""

    series: Series
    first_open_time_ms: int | None
    last_open_time_ms: int | None
    candles: int
    missing: int
    corrections: int


class CandleLake:
    """
    Candles under `root/exchange=…/timeframe=…/symbol=…/YYYY-MM.parquet`.

    Writers replace a month as a whole, one at a time; readers wait for nobody and see whole files. Appending twice
    changes nothing. A candle that differs from the stored one is kept beside it as a new revision.

    Args:
        root: The lake's folder.
        place: Where the candles lie instead, in an object store; the folder then holds what only this machine needs.
    """

    def __init__(self, root: Path, place: ObjectPlace | None = None) -> None:
        self.root = root
        self.place: Place = root if place is None else place

    def append(
        self, series: Series, block: CandleBlock, *, available_at_ms: int | npt.NDArray[np.int64] | None = None
    ) -> int:
        """
        Merge closed candles and return how many rows are new, corrections included.

        Args:
            series: Where they belong.
            block: Closed candles, oldest first.
            available_at_ms: When they could be known, all at once or each. Without it a new candle counts as known
                shortly after its close, and a correction from now on.

        Raises:
            BadInputError: A candle is impossible, unsorted or off the grid, or the series has no usable name; nothing
                was written.
            CorruptFileError: The partition on disk is damaged; it was left as it is.
        """
        return self.merge(series, block, available_at_ms=available_at_ms).rows

    def merge(
        self, series: Series, block: CandleBlock, *, available_at_ms: int | npt.NDArray[np.int64] | None = None
    ) -> Appended:
        """Append, as `append` does, and tell corrections apart."""
        require_named(series)
        validate(block, series.timeframe)
        rows_added, corrections, folder = 0, 0, series_folder(self.place, series)
        for month, rows in months_of(block):
            each = available_at_ms[rows] if isinstance(available_at_ms, np.ndarray) else available_at_ms
            merge = _Merge(series, block[rows], each)
            update_partition(folder / f"{month}.parquet", merge)
            rows_added += merge.added
            corrections += merge.corrections
        return Appended(rows_added, corrections)

    def read(
        self,
        series: Series,
        start_ms: int | None = None,
        end_ms: int | None = None,
        *,
        as_of_ms: int | None = None,
    ) -> CandleBlock:
        """
        Return the candles that open in `[start_ms, end_ms)`, oldest first; none when nothing is stored.

        With `as_of_ms`, only what was available at that moment, in the revision that was then the newest.
        """
        return self.read_rows(series, start_ms, end_ms).latest(as_of_ms).block

    def read_rows(self, series: Series, start_ms: int | None = None, end_ms: int | None = None) -> Rows:
        """Return every revision of the candles that open in `[start_ms, end_ms)`."""
        paths = {path.stem: path for path in self.paths(series)}
        months = months_between(start_ms, end_ms, list(paths))
        if not months:
            return Rows.empty()
        parts = [read_partition(paths[month]) for month in months]
        rows = parts[0].concat(*parts[1:])
        times = rows.block.open_time_ms
        begin = 0 if start_ms is None else int(np.searchsorted(times, start_ms))
        end = len(times) if end_ms is None else int(np.searchsorted(times, end_ms))
        return rows.part(begin, end)

    def read_many(
        self, series: Iterable[Series], start_ms: int | None = None, end_ms: int | None = None
    ) -> dict[Series, CandleBlock]:
        """Return the candles of several series."""
        return {one: self.read(one, start_ms, end_ms) for one in series}

    def last_open_time_ms(self, series: Series) -> int | None:
        """Return the open time of the newest stored candle, or None."""
        for path in reversed(self.paths(series)):
            rows = read_partition(path)
            if len(rows):
                return rows.block.last_open_time_ms
        return None

    def first_open_time_ms(self, series: Series) -> int | None:
        """Return the open time of the oldest stored candle, or None."""
        for path in self.paths(series):
            rows = read_partition(path)
            if len(rows):
                return rows.block.first_open_time_ms
        return None

    def coverage(self, series: Series) -> Coverage:
        """Return how much of a series is stored."""
        rows = self.read_rows(series)
        block = rows.latest().block
        first, last = block.first_open_time_ms, block.last_open_time_ms
        expected = 0 if first is None or last is None else (last - first) // series.timeframe.milliseconds + 1
        return Coverage(series, first, last, len(block), expected - len(block), len(rows) - len(block))

    def series(self) -> list[Series]:
        """Return the stored series, in order."""
        return series_in(self.place)

    def paths(self, series: Series) -> list[Any]:
        """Return the files of a series, oldest first."""
        return months_in(self.place, series)

    def read_path(self, path: Place) -> Rows:
        """Return every row of one file."""
        return read_partition(path)

    def set_aside(self, path: AnyPlace, why: str = "") -> AnyPlace:
        """Rename a damaged file out of the way, so that its month can be fetched again; return its new name."""
        because = f"-{why}" if why else ""
        name = f"{path.name}.corrupt{because}-{clock.utc_now():%Y%m%dT%H%M%S%f}"
        aside: AnyPlace = storage_of(path).rename(path, name)
        return aside

    def remove(self, path: Place) -> None:
        """Forget a month; who appends to it meanwhile begins it anew."""
        storage_of(path).remove(path)


@dataclass(slots=True)
class _Merge:
    """Adds candles to a month; it may be asked again, of newer rows."""

    series: Series
    block: CandleBlock
    available_at_ms: int | npt.NDArray[np.int64] | None
    added: int = 0
    corrections: int = 0

    def __call__(self, stored: Rows) -> Rows | None:
        fresh = _fresh_rows(stored, self.block, self.series, self.available_at_ms)
        self.added, self.corrections = len(fresh), int((fresh.revision > 0).sum())
        return _merged(stored, fresh) if len(fresh) else None


def _fresh_rows(
    stored: Rows, block: CandleBlock, series: Series, available_at_ms: int | npt.NDArray[np.int64] | None
) -> Rows:
    """Return the rows of a block that say something new."""
    newest = stored.latest()
    at = np.searchsorted(newest.block.open_time_ms, block.open_time_ms)
    known = np.zeros(len(block), np.bool_)
    inside = at < len(newest)
    known[inside] = newest.block.open_time_ms[at[inside]] == block.open_time_ms[inside]
    same = np.zeros(len(block), np.bool_)
    same[known] = (newest.block.values[at[known]] == block.values[known]).all(axis=1)
    revision = np.zeros(len(block), np.int32)
    revision[known] = newest.revision[at[known]] + 1
    available = _available(block, known, newest.available_at_ms[at[known]], series, available_at_ms)
    return Rows(block, available, revision).take(~same)


def _available(
    block: CandleBlock,
    known: npt.NDArray[np.bool_],
    previous_ms: npt.NDArray[np.int64],
    series: Series,
    available_at_ms: int | npt.NDArray[np.int64] | None,
) -> npt.NDArray[np.int64]:
    close_ms = block.open_time_ms + series.timeframe.milliseconds
    arrived = np.broadcast_to(clock.utc_now_ms() if available_at_ms is None else available_at_ms, close_ms.shape)
    # Nothing is known before it happened, and a correction not before what it corrects.
    available = close_ms + BACKFILL_DELAY_MS if available_at_ms is None else np.maximum(close_ms, arrived)
    available[known] = np.maximum(previous_ms + 1, arrived[known])
    return available


def _merged(stored: Rows, fresh: Rows) -> Rows:
    rows = stored.concat(fresh)
    return rows.take(np.lexsort((rows.revision, rows.block.open_time_ms)))
