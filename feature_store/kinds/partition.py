"""How one stretch of a kind's rows is laid out on disk, read whole and replaced whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_store import clock
from feature_store.candle import Timeframe
from feature_store.errors import CorruptFileError, NotAllowedError, UnknownTimeframeError
from feature_store.kinds.definition import Content, Kind, Partition, Subject
from feature_store.kinds.records import KnownRecords, Records
from feature_store.partitions import AnyPlace
from feature_store.storage import Place, storage_of

_TIME = pa.timestamp("ms", tz="UTC")
_TYPES: dict[Content, Any] = {
    Content.NUMBER: pa.float64(),
    Content.WHOLE: pa.int64(),
    Content.FLAG: pa.bool_(),
    Content.TEXT: pa.string(),
}
_UNITS: dict[Partition, Any] = {"month": "M", "day": "D", "hour": "h"}
_WHOLE = "all"
_LAST_MS = 253_402_300_799_000  # The end of the year 9999.
_OWNER = b"subject"
REMEDY = "Nothing else is affected. Set it aside and fetch it again with: qtctl ingest --repair --kinds"


def schema_of(kind: Kind) -> pa.Schema:
    """Return the columns of a kind's files, with their units."""
    return pa.schema(
        [
            pa.field("time", _TIME, nullable=False, metadata={"meaning": kind.time}),
            *[
                pa.field(column.name, _TYPES[column.content], nullable=False, metadata={"unit": column.unit})
                for column in kind.columns
            ],
            pa.field("available_at", _TIME, nullable=False),
            pa.field("revision", pa.int32(), nullable=False),
        ]
    )


def folder_of(root: AnyPlace, kind: Kind, subject: Subject) -> AnyPlace:
    """Return the folder of what a kind holds of a subject."""
    folder: Any = root / kind.name / f"exchange={subject.venue}"
    if subject.timeframe is not None:
        folder = folder / f"timeframe={subject.timeframe}"
    place: AnyPlace = folder / f"symbol={quote(subject.symbol, safe='')}"
    return place


def subjects_in(root: Place, kind: Kind, pattern: str = "*.parquet") -> list[Subject]:
    """Return the subjects of a kind that have a file of such a name, in order; without a pattern, rows."""
    found: set[Subject] = set()
    levels = "exchange=*/timeframe=*/symbol=*" if kind.has_timeframe else "exchange=*/symbol=*"
    top = root / kind.name
    for path in storage_of(top).glob(top, f"{levels}/{pattern}"):
        parts = [part.partition("=")[2] for part in path.parent.parts[-3:]]
        try:
            timeframe = Timeframe.parse(parts[1]) if kind.has_timeframe else None
        except UnknownTimeframeError:
            continue
        venue = parts[0] if kind.has_timeframe else parts[1]
        found.add(Subject(venue, unquote(parts[2]), timeframe))
    return sorted(found, key=lambda one: one.key)


def names_in(folder: Place) -> list[str]:
    """Return the stretches that have a file, oldest first."""
    return sorted(path.stem for path in storage_of(folder).glob(folder, "*.parquet"))


def path_of(folder: Place, name: str) -> Place:
    """Return the file of a stretch."""
    return folder / f"{name}.parquet"


def span_of(kind: Kind, name: str) -> tuple[int, int] | None:
    """Return the times from which and until which the file of a name holds rows, None where it names no stretch."""
    if kind.partition == _WHOLE:
        return (0, _LAST_MS) if name == _WHOLE else None
    try:
        begin = np.datetime64(name, _UNITS[kind.partition])
    except ValueError:
        return None
    if str(begin) != name:
        return None
    first, after = (int(one.astype("datetime64[ms]").astype(np.int64)) for one in (begin, begin + 1))
    return first, after


def stretches(kind: Kind, records: Records) -> list[tuple[str, slice]]:
    """Cut rows in order of time where a file ends."""
    if len(records) == 0:
        return []
    if kind.partition == _WHOLE:
        return [(_WHOLE, slice(0, len(records)))]
    periods = records.time_ms.astype("datetime64[ms]").astype(f"datetime64[{_UNITS[kind.partition]}]")
    begins = np.flatnonzero(np.append([True], periods[1:] != periods[:-1])).tolist()
    return [
        (str(periods[begin]), slice(begin, end)) for begin, end in zip(begins, [*begins[1:], len(records)], strict=True)
    ]


def names_between(kind: Kind, names: list[str], start_ms: int | None, end_ms: int | None) -> list[str]:
    """Return the stretches that may hold rows with times in `[start_ms, end_ms)`."""
    if kind.partition == _WHOLE:
        return names
    first = "" if start_ms is None else _name(kind, start_ms)
    last = "~" if end_ms is None else _name(kind, end_ms - 1)
    return [name for name in names if first <= name <= last]


def read_partition(path: Place, kind: Kind) -> KnownRecords:
    """
    Read one file; one that is not there holds nothing.

    Raises:
        CorruptFileError: The file cannot be read, or is not one of the kind's.
        NotAllowedError: This user may not read it.
    """
    try:
        return _parse(path, kind, storage_of(path).source(path))
    except FileNotFoundError:
        return KnownRecords.empty(kind)


def update_partition(path: Place, kind: Kind, change: Callable[[KnownRecords], KnownRecords | None]) -> None:
    """
    Replace one file by what `change` makes of it, while nobody else may; None leaves it as it is.

    `change` may be asked again, of newer content.

    Raises:
        CorruptFileError: The file is damaged; it was left as it is.
    """

    def exchange(source: Any) -> Callable[[Any], None] | None:
        known = change(KnownRecords.empty(kind) if source is None else _parse(path, kind, source))
        return None if known is None else lambda sink: _write(path, known, sink)

    storage_of(path).exchange(path, exchange)


def _parse(path: Place, kind: Kind, source: Any) -> KnownRecords:
    schema = schema_of(kind)
    try:
        with pq.ParquetFile(source, page_checksum_verification=True) as file:
            table = file.read()
    except FileNotFoundError:
        raise
    except PermissionError as error:
        raise NotAllowedError(path) from error
    except (pa.ArrowException, OSError, ValueError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise CorruptFileError(path, f"not a whole Parquet file ({lines[0]})", REMEDY) from error
    if not table.schema.equals(schema):
        raise CorruptFileError(path, f"expected columns {schema.names}, found {table.schema.names}", REMEDY)
    # Files of before do not say whose they are.
    owner = (table.schema.metadata or {}).get(_OWNER, b"").decode(errors="replace")
    if owner and owner != owner_of(path, kind):
        raise CorruptFileError(path, f"it holds rows of {owner}", REMEDY)
    columns = {column.name: _numpy(table[column.name], column.content) for column in kind.columns}
    records = Records.of(kind, table["time"].cast(pa.int64()).to_numpy(), **columns)
    return KnownRecords(records, table["available_at"].cast(pa.int64()).to_numpy(), table["revision"].to_numpy())


def to_table(known: KnownRecords) -> pa.Table:
    """Return rows as an Arrow table with the columns of the kind's files."""
    kind, records = known.records.kind, known.records
    columns: list[Any] = [
        pa.array(records.time_ms).cast(_TIME),
        *[_arrow(records[column.name], column.content) for column in kind.columns],
        pa.array(known.available_at_ms).cast(_TIME),
        pa.array(known.revision, pa.int32()),
    ]
    return pa.Table.from_arrays(columns, schema=schema_of(kind))


def set_aside(path: AnyPlace) -> AnyPlace:
    """Rename a damaged file out of the way, so that its stretch can be fetched again; return its new place."""
    aside: AnyPlace = storage_of(path).rename(path, f"{path.name}.corrupt-{clock.utc_now():%Y%m%dT%H%M%S%f}")
    return aside


def owner_of(path: Place, kind: Kind) -> str:
    """Return the folders that a file lies in: of what and of whom its rows are."""
    return "/".join(path.parts[-5 if kind.has_timeframe else -4 : -1])


def _write(path: Place, known: KnownRecords, sink: Any) -> None:
    owner = owner_of(path, known.records.kind).encode()
    table = to_table(known).replace_schema_metadata({_OWNER: owner})
    pq.write_table(table, sink, compression="zstd", use_dictionary=False, write_page_checksum=True)


def _name(kind: Kind, time_ms: int) -> str:
    clipped = min(max(time_ms, 0), _LAST_MS)
    return str(np.datetime64(clipped, "ms").astype(f"datetime64[{_UNITS[kind.partition]}]"))


def _numpy(column: Any, content: Content) -> Any:
    if content is Content.TEXT:
        return np.array(column.to_pylist(), np.str_)
    return column.to_numpy()


def _arrow(values: Any, content: Content) -> Any:
    return pa.array(values.tolist(), pa.string()) if content is Content.TEXT else pa.array(values)
