"""How one month of a candle series is laid out on disk, read whole and replaced whole."""

from __future__ import annotations

import contextlib
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import quote, unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.candle import COLUMNS, CandleBlock, Series, Timeframe
from feature_store.errors import BadInputError, CorruptFileError, NotAllowedError, UnknownTimeframeError
from feature_store.files import replacing
from feature_store.storage import Place, locked, storage_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

__all__ = ["locked"]  # Who keeps months of another kind locks them in the same way.

AnyPlace = TypeVar("AnyPlace", bound=Place)
_TIME = pa.timestamp("ms", tz="UTC")
_FIELDS: list[Any] = [
    pa.field("open_time", _TIME, nullable=False),
    *[pa.field(name, pa.float64(), nullable=False) for name in COLUMNS],
    pa.field("available_at", _TIME, nullable=False),
    pa.field("revision", pa.int32(), nullable=False),
]
SCHEMA = pa.schema(_FIELDS)
_LAST_MS = 253_402_300_799_000  # The end of the year 9999.
_OWNER, _DIGEST = b"series", b"digest"
MONTHS = "????-??.parquet"
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

    def part(self, begin: int, end: int) -> Rows:
        """Return a stretch of these rows; nothing is copied."""
        rows = slice(begin, end)
        block = CandleBlock(self.block.open_time_ms[rows], self.block.values[rows])
        return Rows(block, self.available_at_ms[rows], self.revision[rows])

    def concat(self, *others: Rows) -> Rows:
        """Return these rows followed by others."""
        if not others:
            return self
        return Rows(
            self.block.concat(*[other.block for other in others]),
            np.concatenate([self.available_at_ms, *[other.available_at_ms for other in others]]),
            np.concatenate([self.revision, *[other.revision for other in others]]),
        )

    def until(self, as_of_ms: int | None) -> Rows:
        """Return the rows that were known at a moment, or all."""
        return self if as_of_ms is None else self.take(self.available_at_ms <= as_of_ms)

    def latest(self, as_of_ms: int | None = None) -> Rows:
        """Return the newest revision of each candle, or the newest that was known at a moment."""
        known = self.until(as_of_ms)
        times = known.block.open_time_ms
        is_last = times[1:] != times[:-1]
        return known if is_last.all() else known.take(np.append(is_last, [True]))

    def first_known(self, open_time_ms: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return when each of some stored candles first became available, whatever corrected it later."""
        # Revisions of a candle lie together, the first one first.
        return self.available_at_ms[np.searchsorted(self.block.open_time_ms, open_time_ms)]


@dataclass(frozen=True, slots=True)
class Appended:
    """How many rows are new, and how many of those correct a stored candle."""

    rows: int
    corrections: int


def series_folder(root: AnyPlace, series: Series) -> AnyPlace:
    """
    Return the folder of a series.

    Raises:
        BadInputError: The venue's name would lead out of the root.
    """
    if "/" in series.venue:
        raise BadInputError(f"Expected a venue such as binance, found {series.venue!r}")
    folder: Any = root / f"exchange={series.venue}" / f"timeframe={series.timeframe}"
    place: AnyPlace = folder / f"symbol={quote(series.symbol, safe='')}"
    return place


def series_in(root: Place, pattern: str = MONTHS) -> list[Series]:
    """Return the series that have a file of such a name, in order; without a pattern, a month."""
    folders = {path.parent for path in storage_of(root).glob(root, f"exchange=*/timeframe=*/symbol=*/{pattern}")}
    found = []
    for folder in folders:
        venue, timeframe, symbol = (part.partition("=")[2] for part in folder.parts[-3:])
        with contextlib.suppress(UnknownTimeframeError):
            found.append(Series(venue, unquote(symbol), Timeframe.parse(timeframe)))
    return sorted(found)


def months_in(root: Place, series: Series) -> list[Any]:
    """Return the files of a series, oldest first."""
    return storage_of(root).glob(series_folder(root, series), MONTHS)


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
    """Cut a block where a month begins; an empty one has no parts."""
    if len(block) == 0:
        return
    months = block.open_time_ms.astype("datetime64[ms]").astype("datetime64[M]")
    begins = np.flatnonzero(np.append([True], months[1:] != months[:-1])).tolist()
    for begin, end in zip(begins, [*begins[1:], len(block)], strict=True):
        yield str(months[begin]), slice(begin, end)


def runs(keys: Sequence[object]) -> Iterator[tuple[int, int]]:
    """Yield begin and end of each stretch of equal keys."""
    begins = [row for row in range(len(keys)) if row == 0 or keys[row] != keys[row - 1]]
    ends = [*begins[1:], len(keys)]
    yield from zip(begins, ends, strict=False)


def read_partition(path: Place) -> Rows:
    """
    Read one month; a file that is not there holds nothing.

    Raises:
        CorruptFileError: The file cannot be read, or is not one of ours.
    """
    table = read_table(path)
    return Rows.empty() if table is None else _rows(table)


def _rows(table: pa.Table) -> Rows:
    values = np.empty((len(table), len(COLUMNS)))
    for place, name in enumerate(COLUMNS):
        values[:, place] = table[name].to_numpy()
    return Rows(
        CandleBlock(table["open_time"].cast(pa.int64()).to_numpy(), values),
        table["available_at"].cast(pa.int64()).to_numpy(),
        table["revision"].to_numpy(),
    )


def read_table(path: Place) -> pa.Table | None:
    """
    Read one month as an Arrow table, None where there is no file.

    Raises:
        CorruptFileError: The file cannot be read, or is not one of ours.
        NotAllowedError: This user may not read it.
    """
    try:
        return _parse(path, storage_of(path).source(path))
    except FileNotFoundError:
        return None


def _parse(path: Place, source: Any) -> pa.Table:
    try:
        # DuckDB would read a page whose bytes were changed without a word; pyarrow compares checksums.
        # A month is a few hundred kilobytes: threads would cost more than they share.
        with pq.ParquetFile(source, page_checksum_verification=True) as file:
            table = file.read(use_threads=False)
        metadata = table.schema.metadata or {}
        found = ", ".join(f"{field.name} {field.type}" for field in table.schema)
    except FileNotFoundError:
        raise
    except PermissionError as error:
        raise NotAllowedError(path) from error
    except (pa.ArrowException, OSError, ValueError) as error:
        raise CorruptFileError(path, f"not a whole Parquet file ({_first_line(error)})", REPAIR) from error
    if not table.schema.equals(SCHEMA):
        expected = ", ".join(f"{field.name} {field.type}" for field in SCHEMA)
        raise CorruptFileError(path, f"expected columns {expected}, found {found}", REPAIR)
    owner = metadata.get(_OWNER, b"").decode(errors="replace")
    if owner and owner != owner_of(path):
        raise CorruptFileError(path, f"it holds candles of {owner}", REPAIR)
    # A changed footer can point at another column's page, whose own checksum is right.
    if metadata.get(_DIGEST, digest := _digest(table)) != digest:
        raise CorruptFileError(path, "its rows are not those that were written (their digest differs)", REPAIR)
    return table.replace_schema_metadata(None)


def _digest(table: pa.Table) -> bytes:
    digest = 0
    for name in SCHEMA.names:
        for chunk in table[name].chunks:
            digest = zlib.crc32(np.ascontiguousarray(chunk.to_numpy(zero_copy_only=False)).view(np.uint8).data, digest)
    return f"{digest:08x}".encode()


def update_partition(path: Place, change: Callable[[Rows], Rows | None]) -> None:
    """
    Replace one month by what `change` makes of it, while nobody else may; None leaves it as it is.

    Raises:
        CorruptFileError: The file is damaged; it was left as it is.
    """

    def exchange(source: Any) -> Callable[[Any], None] | None:
        rows = change(Rows.empty() if source is None else _rows(_parse(path, source)))
        return None if rows is None else lambda sink: _write(path, rows, sink)

    storage_of(path).exchange(path, exchange)


def write_partition(path: Path, rows: Rows) -> None:
    """Replace one month as a whole, whatever it holds; other writers are to be kept out by its lock."""
    with replacing(path) as temporary:
        _write(path, rows, temporary)


def _write(path: Place, rows: Rows, sink: Any) -> None:
    columns: list[Any] = [
        pa.array(rows.block.open_time_ms).cast(_TIME),
        *[pa.array(rows.block.values[:, column]) for column in range(len(COLUMNS))],
        pa.array(rows.available_at_ms).cast(_TIME),
        pa.array(rows.revision, pa.int32()),
    ]
    table = pa.Table.from_arrays(columns, schema=SCHEMA)
    table = table.replace_schema_metadata({_OWNER: owner_of(path).encode(), _DIGEST: _digest(table)})
    # Dictionaries cost three times the time on floats and save nothing.
    pq.write_table(
        table,
        sink,
        compression="zstd",
        use_dictionary=False,
        write_page_checksum=True,
        row_group_size=max(len(table), 1),
    )


def is_one_piece(path: Place) -> bool:
    """
    Tell whether a month is in the form that it is written in here: one row group, zstd, statistics, its owner's name.

    Raises:
        FileNotFoundError: There is no such month.
    """
    with pq.ParquetFile(storage_of(path).source(path)) as file:
        found = file.metadata
        if found.num_row_groups != 1 or not {_OWNER, _DIGEST} <= set(found.metadata or {}):
            return False
        columns = [found.row_group(0).column(number) for number in range(found.num_columns)]
    return all(column.compression == "ZSTD" and column.is_stats_set for column in columns)


def owner_of(path: Place) -> str:
    """Return the folders that a month lies in: which series it is of."""
    return "/".join(path.parts[-4:-1])


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
