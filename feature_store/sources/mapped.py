"""Parquet and CSV files of anybody's making, with their columns told by who has them, as a source to import from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from feature_store.candle import COLUMNS, CandleBlock, Series, Timeframe
from feature_store.errors import BadInputError, CorruptFileError
from feature_store.sources.columns import FROM_FILE_NAME, NAMES, ColumnMap
from feature_store.sources.importing import Part, Selection
from feature_store.sources.recorded import NEEDED, files_of, unified_name

if TYPE_CHECKING:
    import numpy.typing as npt

LAYOUT = (
    f"expected .parquet or .csv files with the columns {', '.join(NEEDED)}; others are told with --columns, and what a "
    "file does not say with --venue, --symbols and --timeframe"
)
_REMEDY = "Get the file again."
_NANOSECONDS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
_LARGEST_MS = 2**53
_OPTIONS = {"exchange": "--venue", "symbol": "--symbols with one symbol", "timeframe": "--timeframe"}


@dataclass(frozen=True, slots=True)
class MappedFiles:
    """
    One file, or a folder of them, read by a map of columns.

    Venue, symbol and timeframe come from a column, from what is selected, or, a symbol, from the file's name.
    """

    path: Path
    columns: ColumnMap
    selection: Selection

    @property
    def origin(self) -> str:
        """The resolved path, and how it is read."""
        return f"{self.path.resolve()} {self.columns}"

    @property
    def layout(self) -> str:
        """What the files hold."""
        return LAYOUT

    def missing(self, _parts: Sequence[Part]) -> Sequence[str]:
        """Return nothing: what is not there was not promised."""
        return ()

    def parts(self, _selection: Selection) -> Sequence[Part]:
        """Return the files; which series they hold is known when they are read."""
        found = []
        for path in files_of(self.path):
            status = path.stat()
            found.append(Part(str(path), f"{status.st_size}-{status.st_mtime_ns}"))
        return found

    def read(self, part: Part) -> Iterator[tuple[Series, CandleBlock]]:
        """Yield the series of a file under unified names; rows keep the order that they have in it."""
        path = Path(part.name)
        table = _table(path)
        self._require_columns(path, table)
        times = _milliseconds(table[self.columns.of("ts")], self.columns.unit, path)
        values = np.column_stack([_numbers(table[self.columns.of(name)], name, path) for name in COLUMNS])
        if len(times) == 0:
            raise BadInputError(f"{path} holds no candle")
        keys = list(zip(*(self._names(table, name, path) for name in NAMES), strict=True))
        numbers = {key: number for number, key in enumerate(sorted(set(keys)))}
        series = np.array([numbers[key] for key in keys], np.int64)
        for (exchange, symbol, timeframe), number in numbers.items():
            rows = series == number
            venue, unified = unified_name(exchange, symbol)
            yield Series(venue, unified, Timeframe.parse(timeframe)), CandleBlock(times[rows], values[rows])

    def _require_columns(self, path: Path, table: pa.Table) -> None:
        wanted = [self.columns.of(name) for name in ("ts", *COLUMNS)]
        wanted += [name for ours, name in self.columns.theirs.items() if ours in NAMES and name != FROM_FILE_NAME]
        missing = [name for name in wanted if table.column_names.count(name) != 1]
        if missing:
            raise BadInputError(
                f"{path} does not have the columns {', '.join(missing)} once each, it has "
                f"{', '.join(table.column_names)}; say which is which with --columns"
            )

    def _names(self, table: pa.Table, ours: str, path: Path) -> list[str]:
        theirs = self.columns.of(ours)
        if ours == "symbol" and theirs == FROM_FILE_NAME:
            return [path.stem] * len(table)
        if theirs in table.column_names:
            names: list[Any] = pc.cast(table[theirs], pa.string()).to_pylist()
            if not all(names):
                raise BadInputError(f"{path} has rows without {theirs}; every row needs it")
            return [str(name) for name in names]
        chosen = self._chosen(ours)
        if chosen is None:
            raise BadInputError(
                f"{path} does not say its {ours}; name its column with --columns {ours}=…, or it with {_OPTIONS[ours]}"
            )
        return [chosen] * len(table)

    def _chosen(self, ours: str) -> str | None:
        match ours:
            case "exchange":
                return self.selection.venue
            case "symbol":
                symbols = self.selection.symbols
                return symbols[0] if symbols is not None and len(symbols) == 1 else None
            case _:
                return None if self.selection.timeframe is None else str(self.selection.timeframe)


def _table(path: Path) -> pa.Table:
    try:
        if path.suffix == ".csv":
            return pyarrow.csv.read_csv(path)
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            return file.read()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise CorruptFileError(path, f"not a whole file ({str(error).splitlines()[0][:160]})", _REMEDY) from error


def _numbers(column: Any, ours: str, path: Path) -> npt.NDArray[np.float64]:
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_decimal(column.type)):
        raise BadInputError(f"{path} holds something else than numbers for {ours}: {column.type}")
    # An absent price is no price: as NaN it is refused with its row.
    numbers: npt.NDArray[np.float64] = column.cast(pa.float64()).to_numpy()
    return numbers


def _milliseconds(column: Any, unit: str, path: Path) -> npt.NDArray[np.int64]:
    if column.null_count:
        raise BadInputError(f"{path} has rows without a time")
    if unit == "iso" and pa.types.is_string(column.type):
        column = _moments(column, path)
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("ms"))
    if pa.types.is_timestamp(column.type):
        moments: npt.NDArray[np.int64] = column.cast(pa.timestamp("ms", tz=column.type.tz)).cast(pa.int64()).to_numpy()
        return moments
    if unit == "iso" or not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise BadInputError(f"{path} holds times as {column.type}; say their unit with --columns ts=COLUMN:UNIT")
    times = _whole_milliseconds(column.to_numpy(), _NANOSECONDS[unit])
    if times is None:
        raise BadInputError(f"{path} holds times that are no whole milliseconds when read in {unit}")
    return times


def _whole_milliseconds(times: npt.NDArray[Any], nanoseconds: int) -> npt.NDArray[np.int64] | None:
    """Return times of a unit in milliseconds, None where they do not fall on any that a calendar holds."""
    latest = min(_LARGEST_MS * 1_000_000 // nanoseconds, 2**63 - 1)
    if not ((times >= -latest) & (times <= latest)).all():
        return None
    if np.issubdtype(times.dtype, np.floating):
        milliseconds = times * (nanoseconds / 1e6)
        rounded = np.rint(milliseconds)
        return rounded.astype(np.int64) if (np.abs(rounded - milliseconds) < 1e-3).all() else None
    exact = times.astype(np.int64)
    if nanoseconds >= 1_000_000:
        return exact * (nanoseconds // 1_000_000)
    finer = 1_000_000 // nanoseconds
    return exact // finer if (exact % finer == 0).all() else None


def _moments(column: Any, path: Path) -> Any:
    """Read written moments: with their offset, or all without one, as UTC."""
    for kind in (pa.timestamp("ms", tz="UTC"), pa.timestamp("ms")):
        try:
            return column.cast(kind)
        except pa.ArrowException:
            continue
    raise BadInputError(f"{path} holds times that are not all written as 2024-01-31T12:05:00Z, or all without the Z")
