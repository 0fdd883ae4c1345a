"""How one month of a candle series is laid out on disk, read whole and replaced whole."""

from __future__ import annotations

import contextlib
import fcntl
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.candle import COLUMNS, CandleBlock, Series, Timeframe
from feature_store.errors import CorruptFileError, UnknownTimeframeError
from feature_store.files import replacing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

_TIME = pa.timestamp("ms", tz="UTC")
_FIELDS: list[Any] = [
    pa.field("open_time", _TIME, nullable=False),
    *[pa.field(name, pa.float64(), nullable=False) for name in COLUMNS],
    pa.field("available_at", _TIME, nullable=False),
    pa.field("revision", pa.int32(), nullable=False),
]
SCHEMA = pa.schema(_FIELDS)
_LAST_MS = 253_402_300_799_000  # The end of the year 9999.
REPAIR = "Nothing else is affected. Set it aside and fetch it again with: qtctl ingest --repair"


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Stored candles with when they could be known; a corrected candle has a row for each revision."""

    block: CandleBlock
    available_at_ms: npt.NDArray[np.int64]
    revision: npt.NDArray[np.int32]

    @classmethod
    def empty(cls) -> Self:
        """Return no rows."""
        return cls(CandleBlock.empty(), np.empty(0, np.int64), np.empty(0, np.int32))

    def __len__(self) -> int:
        return len(self.block)

    def take(self, rows: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> Rows:
        """Return chosen rows."""
        block = CandleBlock(self.block.open_time_ms[rows], self.block.values[rows])
        return Rows(block, self.available_at_ms[rows], self.revision[rows])

    def concat(self, *others: Rows) -> Rows:
        """Return these rows followed by others."""
        return Rows(
            self.block.concat(*[other.block for other in others]),
            np.concatenate([self.available_at_ms, *[other.available_at_ms for other in others]]),
            np.concatenate([self.revision, *[other.revision for other in others]]),
        )

    def latest(self, as_of_ms: int | None = None) -> Rows:
        """Return the newest revision of each candle, or the newest that was known at a moment."""
        known = self if as_of_ms is None else self.take(self.available_at_ms <= as_of_ms)
        times = known.block.open_time_ms
        if len(times) < 2:
            return known
        return known.take(np.append(times[1:] != times[:-1], [True]))


def series_folder(root: Path, series: Series) -> Path:
    """Return the folder of a series."""
    return (
        root / f"exchange={series.venue}" / f"timeframe={series.timeframe}" / f"symbol={quote(series.symbol, safe='')}"
    )


def series_in(root: Path) -> list[Series]:
    """Return the series that have a folder, in order."""
    found = []
    for folder in root.glob("exchange=*/timeframe=*/symbol=*"):
        venue, timeframe, symbol = (part.partition("=")[2] for part in folder.parts[-3:])
        with contextlib.suppress(UnknownTimeframeError):
            found.append(Series(venue, unquote(symbol), Timeframe.parse(timeframe)))
    return sorted(found)


def month_of(time_ms: int) -> str:
    """Return the name of the month that a moment lies in, `2025-03`."""
    inside = min(max(time_ms, 0), _LAST_MS)
    return f"{datetime.fromtimestamp(inside / 1000, UTC):%Y-%m}"


def months_between(start_ms: int | None, end_ms: int | None, existing: list[str]) -> list[str]:
    """Return the existing months that may hold candles opening in `[start_ms, end_ms)`."""
    first = month_of(start_ms) if start_ms is not None else ""
    last = month_of(end_ms - 1) if end_ms is not None else "9999-99"
    return [month for month in existing if first <= month <= last]


def months_of(block: CandleBlock) -> Iterator[tuple[str, slice]]:
    """Cut a block where a month begins."""
    months = block.open_time_ms.astype("datetime64[ms]").astype("datetime64[M]")
    begins = np.flatnonzero(np.append([True], months[1:] != months[:-1])).tolist() if len(block) else []
    for begin, end in zip(begins, [*begins[1:], len(block)], strict=True):
        yield str(months[begin]), slice(begin, end)


def runs(keys: Sequence[object]) -> Iterator[tuple[int, int]]:
    """Yield begin and end of each stretch of equal keys."""
    begins = [row for row in range(len(keys)) if row == 0 or keys[row] != keys[row - 1]]
    ends = [*begins[1:], len(keys)]
    yield from zip(begins, ends, strict=False)


def read_partition(path: Path) -> Rows:
    """
    Read one month; a file that is not there holds nothing.

    Raises:
        CorruptFileError: The file cannot be read, or is not one of ours.
    """
    table = read_table(path)
    if table is None:
        return Rows.empty()
    values = np.column_stack([table[name].to_numpy() for name in COLUMNS]) if len(table) else np.empty((0, 5))
    return Rows(
        CandleBlock(table["open_time"].cast(pa.int64()).to_numpy(), values),
        table["available_at"].cast(pa.int64()).to_numpy(),
        table["revision"].to_numpy(),
    )


def read_table(path: Path) -> pa.Table | None:
    """
    Read one month as an Arrow table, None where there is no file.

    Raises:
        CorruptFileError: The file cannot be read, or is not one of ours.
    """
    try:
        # DuckDB would read a page whose bytes were changed without a word; pyarrow compares checksums.
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read()
    except FileNotFoundError:
        return None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise CorruptFileError(path, f"not a whole Parquet file ({_first_line(error)})", REPAIR) from error
    if not table.schema.equals(SCHEMA):
        raise CorruptFileError(path, f"expected columns {SCHEMA.names}, found {table.schema.names}", REPAIR)
    return table


def write_partition(path: Path, rows: Rows) -> None:
    """Replace one month as a whole."""
    columns: list[Any] = [
        pa.array(rows.block.open_time_ms).cast(_TIME),
        *[pa.array(rows.block.values[:, column]) for column in range(len(COLUMNS))],
        pa.array(rows.available_at_ms).cast(_TIME),
        pa.array(rows.revision, pa.int32()),
    ]
    table = pa.Table.from_arrays(columns, schema=SCHEMA)
    with replacing(path) as temporary:
        # Dictionaries cost three times the time on floats and save nothing.
        pq.write_table(table, temporary, compression="zstd", use_dictionary=False, write_page_checksum=True)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of one partition; the kernel lets go of it when the process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
