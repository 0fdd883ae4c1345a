"""Features of any number of series from the lake to Parquet, in memory that does not grow with their number."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa

from feature_store import feature_parts
from feature_store.feature_files import write_sheet
from feature_store.feature_parts import begun, engine_and_rows, parts_of
from feature_store.features.engine import FEATURE_COUNT, FeatureEngine
from feature_store.files import Sheet, replacing

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from feature_store.candle import Series
    from feature_store.feature_parts import Warmed
    from feature_store.lake import CandleLake
    from feature_store.partitions import Rows

_NOT_MONTHLY = "streamed"
_BYTES_A_NUMBER = 9  # Eight, and what a page and its checksum take.
_BYTES_OF_HEADS = 1 << 18


@dataclass(slots=True)
class _Room:
    """What one thread uses again for each series."""

    features: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    sheet: Sheet = field(default_factory=Sheet)

    def table(self, rows: int) -> npt.NDArray[np.float64]:
        """Return room for the features of so many candles [49, rows], column by column."""
        if self.features.size < rows * FEATURE_COUNT:
            self.features = np.empty(rows * FEATURE_COUNT)
        return self.features[: rows * FEATURE_COUNT].reshape(FEATURE_COUNT, rows)


class FeatureStream:
    """
    Writes one Parquet file of features for each series, several series at a time: files to work with, not to keep.

    A thread reads, computes and writes one series after the other, and uses its memory again, since memory that a
    process has not touched before is slower than the kernel. Files are not compressed, are written past the page
    cache where the file system lets us, and appear under their name once they are whole; after a power failure they
    are to be made anew.

    Args:
        lake: Where the candles are.
        target: Folder of the files.
        warmed: Gives the engine that remembers what retention removed before some candles, and those that follow it
            (FeatureStore.warmed); by default the stored candles are all there were.
        threads: How many series at a time.
    """

    def __init__(self, lake: CandleLake, target: Path, *, warmed: Warmed = begun, threads: int = 2) -> None:
        self.lake = lake
        self.target = target
        self.threads = threads
        self._warmed = warmed
        self._rooms = threading.local()

    def run(self, series: Sequence[Series], progress: Callable[[Series, int], object] | None = None) -> int:
        """
        Write the features of some series; return how many candles they have.

        Raises:
            CorruptFileError: A partition of the lake is damaged; what was written before stays.
        """
        done = 0
        with ThreadPoolExecutor(self.threads) as pool:
            for one, candles in zip(series, pool.map(self._write, series), strict=True):
                done += candles
                if progress is not None:
                    progress(one, candles)
        return done

    def path(self, series: Series) -> Path:
        """Return the file of a series."""
        return self.target / f"{series.venue}-{series.timeframe}-{quote(series.symbol, safe='')}.parquet"

    def _write(self, series: Series) -> int:
        engine, rows = engine_and_rows(self.lake, series, self._warmed)
        room = self._room()
        with replacing(self.path(series), is_synced=False) as temporary:
            if len(rows) > feature_parts.PART:
                write_sheet(temporary, _parts(engine, rows, room), _NOT_MONTHLY)
                return len(rows)
            room.sheet.make_room(len(rows) * (FEATURE_COUNT + 2) * _BYTES_A_NUMBER + _BYTES_OF_HEADS)
            sink = pa.FixedSizeBufferWriter(pa.py_buffer(room.sheet.memory))
            write_sheet(sink, _parts(engine, rows, room), _NOT_MONTHLY)
            room.sheet.write(temporary, sink.tell())
        return len(rows)

    def _room(self) -> _Room:
        room: _Room | None = getattr(self._rooms, "room", None)
        if room is None:
            room = self._rooms.room = _Room()
        return room


def _parts(engine: FeatureEngine, rows: Rows, room: _Room) -> Iterator[tuple[Any, Any, list[Any]]]:
    for part in parts_of(rows):
        features = engine.advance(part.block, room.table(len(part)).T)
        yield part.block.open_time_ms, part.available_at_ms, list(features.T)
