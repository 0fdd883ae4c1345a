"""What recordings hold and lack, asked of DuckDB alone: the independent check of import and quality reports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from feature_store.candle import Series, Timeframe
from feature_store.lake import CandleLake
from feature_store.partitions import SCHEMA, read_table
from feature_store.queries import query
from feature_store.sources.recorded import NEEDED, Naming, unified_name

_MEMORY = "1500MB"


@dataclass(frozen=True, slots=True)
class AbsentRows:
    """Open times that a series lacks, and which of them are outages of its venue."""

    open_time_ms: tuple[int, ...]
    outage_ms: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RowsApart:
    """How many stored rows no recording has, and how many recorded rows are not stored."""

    invented: int
    lost: int


def candle_files(folder: Path) -> list[Path]:
    """Return the Parquet files of a folder that hold recorded candles, in order."""
    with duckdb.connect() as connection:
        return [path for path in sorted(folder.glob("*.parquet")) if _has_candles(connection, path)]


def absent_rows(paths: Sequence[Path], naming: Naming = unified_name) -> dict[Series, AbsentRows]:
    """Return what each series lacks between its first and last candle in each file."""
    with _recordings(paths) as connection:
        table = connection.sql(query("absent_rows")).to_arrow_table()
    found: dict[Series, tuple[list[int], list[int]]] = {}
    columns = [table[name].to_pylist() for name in ("exchange", "symbol", "timeframe", "ts", "is_outage")]
    for exchange, symbol, timeframe, ts, is_outage in zip(*columns, strict=True):
        every, outage = found.setdefault(_series(exchange, symbol, timeframe, naming), ([], []))
        every.append(ts)
        if is_outage:
            outage.append(ts)
    return {one: AbsentRows(tuple(every), tuple(outage)) for one, (every, outage) in found.items()}


def rows_apart(lake: CandleLake, paths: Sequence[Path], naming: Naming = unified_name) -> RowsApart:
    """Compare every row of the lake, corrections included, with every row of the recordings that went into it."""
    with _recordings(paths) as connection:
        names = connection.sql("SELECT DISTINCT exchange, symbol, timeframe FROM recorded").fetchall()
        of_series = {_series(name[0], name[1], name[2], naming): (name[0], name[1], name[2]) for name in names}
        connection.register("stored", pa.concat_tables(_stored(lake, of_series)))
        ((invented, lost),) = connection.sql(query("rows_apart")).fetchall()
    return RowsApart(invented, lost)


def _stored(lake: CandleLake, of_series: dict[Series, tuple[str, str, str]]) -> Iterator[pa.Table]:
    yield _named(SCHEMA.empty_table(), ("", "", ""))  # A lake without a file has columns too.
    for one in lake.series():
        # A series that no recording names keeps its own name, so that its rows count as invented.
        name = of_series.get(one, (one.venue, one.symbol, str(one.timeframe)))
        for table in map(read_table, lake.paths(one)):
            if table is not None:
                yield _named(table, name)


def _named(table: pa.Table, name: tuple[str, str, str]) -> pa.Table:
    for column, value in zip(NEEDED[:3], name, strict=True):
        table = table.append_column(column, pa.repeat(value, len(table)))
    return table


@contextmanager
def _recordings(paths: Sequence[Path]) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config={"memory_limit": _MEMORY, "threads": 2}) as connection:
        recorded: Any = connection.sql(query("recorded_rows"), params={"paths": [str(path) for path in paths]})
        recorded.create("recorded")
        yield connection


def _has_candles(connection: duckdb.DuckDBPyConnection, path: Path) -> bool:
    try:
        columns = connection.sql("SELECT * FROM read_parquet($path) LIMIT 0", params={"path": str(path)}).columns
    except duckdb.Error:
        return False
    return set(NEEDED) <= set(columns)


def _series(exchange: str, symbol: str, timeframe: str, naming: Naming) -> Series:
    venue, unified = naming(exchange, symbol)
    return Series(venue, unified, Timeframe.parse(timeframe))
