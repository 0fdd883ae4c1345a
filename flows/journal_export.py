"""The journal and its tables as Parquet, for DuckDB and whatever else reads it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from decimal import ROUND_HALF_EVEN, Context, Decimal
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.errors import BadInputError
from inference.domain.errors import JournalError
from inference.journal.reader import whole_lines
from inference.journal.verify import verified
from inference.storage.database import open_database
from inference.storage.projector import Projector
from inference.storage.streaming import TABLES, ColumnKind, columns_of, rows_of

_JOURNAL = pa.schema(
    [
        ("seq", pa.int64()),
        ("type", pa.string()),
        ("timestamp", pa.timestamp("ms", tz="UTC")),
        ("trace_id", pa.string()),
        ("data", pa.string()),
        ("previous", pa.string()),
        ("digest", pa.string()),
    ]
)
# The widest decimal that DuckDB adds exactly: twenty digits before the point, eighteen behind it.
_MONEY = pa.decimal128(38, 18)
_DIGITS, _MOST = Decimal("1E-18"), Decimal("1E20")
_WIDE = Context(prec=200, rounding=ROUND_HALF_EVEN)
_TYPES = {
    ColumnKind.TEXT: pa.string(),
    ColumnKind.MONEY: _MONEY,
    ColumnKind.MOMENT: pa.timestamp("ms", tz="UTC"),
    ColumnKind.DAY: pa.date32(),
    ColumnKind.NUMBER: pa.float64(),
    ColumnKind.COUNT: pa.int64(),
    ColumnKind.FLAG: pa.bool_(),
    ColumnKind.DOCUMENT: pa.string(),
}
_ROWS, _BYTES = 20_000, 32 * 2**20


def export_parquet(journal: Path, folder: Path, *, shadow: Path | None = None) -> dict[str, int]:
    """
    Write the journal and the tables that it makes into a folder, one file each; return their numbers of rows.

    The tables are made for it from the journal's entries, and tell exactly those that are written beside them; opinions
    that were only compared come from `shadow`, the folder of their journal. Files of the same names are replaced
    together at the end, so that a reader never sees half of a file.

    Raises:
        BadInputError: There is no journal, the folder cannot be written, or a number has too many digits.
        JournalError: The journal is damaged, or of another version.
    """
    if not journal.exists():
        raise BadInputError(f"There is no journal at {journal}; name one with --journal, or its home with --home")
    counts: dict[str, int] = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as name:
            work = Path(name)
            with closing(open_database(None, work)) as database:
                projector = Projector(database, journal, shadow=shadow)
                projector.prepare()
                told = projector.catch_up()
                counts["journal"] = _write(work / "journal.parquet", _JOURNAL, _entries(journal, told))
                for table in TABLES:
                    kinds = columns_of(table)
                    schema = pa.schema([(column, _TYPES[kind]) for column, kind in kinds.items()])
                    with database.reading() as connection:
                        rows = (_plain(row, kinds) for row in rows_of(connection, table))
                        counts[table] = _write(work / f"{table}.parquet", schema, rows)
            for path in sorted(work.glob("*.parquet")):
                path.replace(folder / path.name)
    except OSError as error:
        raise BadInputError(f"Cannot write into {folder} ({error.strerror or error}); name another folder") from error
    return counts


def _entries(journal: Path, count: int) -> Iterator[Mapping[str, Any]]:

    for entry in verified(whole_lines(journal), None):
        if entry.seq > count:
            return
        yield {
            "seq": entry.seq,
            "type": entry.type,
            "timestamp": entry.timestamp_ms,
            "trace_id": entry.trace_id,
            "data": bytes(entry.text).decode(),
            "previous": entry.previous,
            "digest": entry.digest,
        }


def _write(path: Path, schema: pa.Schema, rows: Iterator[Mapping[str, Any]]) -> int:
    count = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for part in _parts(rows):
            writer.write_table(pa.Table.from_pylist(part, schema=schema))
            count += len(part)
    return count


def _parts(rows: Iterator[Mapping[str, Any]]) -> Iterator[Sequence[Mapping[str, Any]]]:
    part: list[Mapping[str, Any]] = []
    size = 0
    for row in rows:
        part.append(row)
        size += sum(len(value) for value in row.values() if isinstance(value, str))
        if len(part) >= _ROWS or size >= _BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def _plain(row: Mapping[str, Any], kinds: Mapping[str, ColumnKind]) -> Mapping[str, Any]:
    return {column: _value(row[column], kind) for column, kind in kinds.items()}


def _value(value: Any, kind: ColumnKind) -> Any:
    if value is None:
        return None
    if kind is ColumnKind.DOCUMENT:
        return msgspec.json.encode(value).decode()
    if kind is ColumnKind.MONEY:
        if abs(value) >= _MOST:
            raise JournalError(f"The journal holds the number {value}, which no column of Parquet holds exactly")
        return value.quantize(_DIGITS, context=_WIDE)
    return value
