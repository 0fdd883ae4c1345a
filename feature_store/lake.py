"""The candle lake: closed candles as Parquet, one file for each series and month, many readers and writers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from feature_store import clock
from feature_store.candle import CandleBlock, Series, validate
from feature_store.partitions import (
    Rows,
    locked,
    months_between,
    months_of,
    read_partition,
    series_folder,
    series_in,
    write_partition,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

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

    Writers hold a lock for each partition and replace it as a whole; readers take no lock and see whole files.
    Appending twice changes nothing. A candle that differs from the stored one is kept beside it as a new revision.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def append(self, series: Series, block: CandleBlock, *, available_at_ms: int | None = None) -> int:
        """
        Merge closed candles and return how many rows are new, corrections included.

        Args:
            series: Where they belong.
            block: Closed candles, oldest first.
            available_at_ms: When they could be known. Without it a new candle counts as known shortly after its
                close, and a correction from now on.

        Raises:
            BadInputError: A candle is impossible, unsorted or off the grid; nothing was written.
            CorruptFileError: The partition on disk is damaged; it was left as it is.
        """
        validate(block, series.timeframe)
        added = 0
        for month, rows in months_of(block):
            path = series_folder(self.root, series) / f"{month}.parquet"
            with locked(path):
                stored = read_partition(path)
                fresh = _fresh_rows(stored, block[rows], series, available_at_ms)
                if len(fresh):
                    write_partition(path, _merged(stored, fresh))
            added += len(fresh)
        return added

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
        months = months_between(start_ms, end_ms, self._months(series))
        if not months:
            return Rows.empty()
        folder = series_folder(self.root, series)
        parts = [read_partition(folder / f"{month}.parquet") for month in months]
        rows = parts[0].concat(*parts[1:])
        times = rows.block.open_time_ms
        begin = 0 if start_ms is None else int(np.searchsorted(times, start_ms))
        end = len(times) if end_ms is None else int(np.searchsorted(times, end_ms))
        return rows.take(np.arange(begin, end))

    def read_many(
        self, series: Iterable[Series], start_ms: int | None = None, end_ms: int | None = None
    ) -> dict[Series, CandleBlock]:
        """Return the candles of several series."""
        return {one: self.read(one, start_ms, end_ms) for one in series}

    def last_open_time_ms(self, series: Series) -> int | None:
        """Return the open time of the newest stored candle, or None."""
        folder = series_folder(self.root, series)
        for month in reversed(self._months(series)):
            rows = read_partition(folder / f"{month}.parquet")
            if len(rows):
                return rows.block.last_open_time_ms
        return None

    def first_open_time_ms(self, series: Series) -> int | None:
        """Return the open time of the oldest stored candle, or None."""
        folder = series_folder(self.root, series)
        for month in self._months(series):
            rows = read_partition(folder / f"{month}.parquet")
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
        return [one for one in series_in(self.root) if self._months(one)]

    def paths(self, series: Series) -> list[Path]:
        """Return the files of a series, oldest first."""
        folder = series_folder(self.root, series)
        return [folder / f"{month}.parquet" for month in self._months(series)]

    def read_path(self, path: Path) -> Rows:
        """Return every row of one file."""
        return read_partition(path)

    def set_aside(self, path: Path) -> Path:
        """Rename a damaged file out of the way, so that its month can be fetched again; return its new name."""
        with locked(path):
            aside = path.with_name(f"{path.name}.corrupt-{clock.utc_now():%Y%m%dT%H%M%S%f}")
            path.rename(aside)
        return aside

    def _months(self, series: Series) -> list[str]:
        return sorted(path.stem for path in series_folder(self.root, series).glob("????-??.parquet"))


def _fresh_rows(stored: Rows, block: CandleBlock, series: Series, available_at_ms: int | None) -> Rows:
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
    available_at_ms: int | None,
) -> npt.NDArray[np.int64]:
    close_ms = block.open_time_ms + series.timeframe.milliseconds
    arrived = clock.utc_now_ms() if available_at_ms is None else available_at_ms
    # Nothing is known before it happened, and a correction not before what it corrects.
    available = close_ms + BACKFILL_DELAY_MS if available_at_ms is None else np.maximum(close_ms, arrived)
    available[known] = np.maximum(previous_ms + 1, arrived)
    return available


def _merged(stored: Rows, fresh: Rows) -> Rows:
    rows = stored.concat(fresh)
    return rows.take(np.lexsort((rows.revision, rows.block.open_time_ms)))
