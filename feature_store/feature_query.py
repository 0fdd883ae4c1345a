"""The features of the lake as a table of DuckDB, computed by the kernel while a query reads them, and never stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa

from feature_store.errors import BadInputError, QuantumError
from feature_store.feature_parts import engine_and_rows, parts_of
from feature_store.features.definition import FEATURE_NAMES

if TYPE_CHECKING:
    from feature_store.candle import Series
    from feature_store.feature_parts import Warmed
    from feature_store.lake import CandleLake

TABLE = "features"
_TIME = pa.timestamp("ms", tz="UTC")
_NAMES = ("venue", "symbol", "timeframe")
_FIELDS: list[Any] = [
    *[pa.field(name, pa.string(), nullable=False) for name in _NAMES],
    pa.field("open_time", _TIME, nullable=False),
    pa.field("available_at", _TIME, nullable=False),
    *[pa.field(name, pa.float64()) for name in FEATURE_NAMES],
]
SCHEMA = pa.schema(_FIELDS)


class FeatureTable:
    """
    What DuckDB reads as a table: venue, symbol, timeframe, open_time, available_at (UTC), and the 49 features.

    A row is a closed candle in its newest revision; during warm-up a feature is NULL. Each scan computes series after
    series, some ten thousand candles at a time, however many there are.

    Args:
        lake: Where the candles are.
        series: Which of them.
        warmed: Gives the engine that remembers what retention removed before some candles, and those that follow it
            (FeatureStore.warmed).
        progress: Told of each series before it is computed.
    """

    def __init__(
        self,
        lake: CandleLake,
        series: Sequence[Series],
        warmed: Warmed,
        progress: Callable[[Series], object] = lambda _: None,
    ) -> None:
        self.failure: QuantumError | None = None
        self._lake, self._series, self._warmed, self._progress = lake, series, warmed, progress

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """Begin a scan; DuckDB asks for one whenever a query names the table."""
        return pa.RecordBatchReader.from_batches(SCHEMA, self._batches()).__arrow_c_stream__(requested_schema)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        for one in self._series:
            self._progress(one)
            try:
                yield from self._parts(one)
            except QuantumError as error:
                # On its way through DuckDB an error loses its kind and most of its words.
                self.failure = error
                raise

    def _parts(self, series: Series) -> Iterator[pa.RecordBatch]:
        engine, rows = engine_and_rows(self._lake, series, self._warmed)
        names = (series.venue, series.symbol, str(series.timeframe))
        for part in parts_of(rows):
            features = engine.advance(part.block)
            columns: list[Any] = [
                *[pa.repeat(pa.scalar(name), len(part)) for name in names],
                pa.array(part.block.open_time_ms).cast(_TIME),
                pa.array(part.available_at_ms).cast(_TIME),
                # SQL knows what is absent as NULL; NaN would be the largest of all numbers there.
                *[pa.array(features[:, place], from_pandas=True) for place in range(len(FEATURE_NAMES))],
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def answer(sql: str, table: FeatureTable) -> pa.Table:
    """
    Return what a query of the table `features` gives.

    Raises:
        BadInputError: It is no query that DuckDB can run; the message is DuckDB's.
        CorruptFileError: A partition of the lake is damaged.
    """
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register(TABLE, table)
        try:
            found = connection.sql(sql)
            return pa.table({"Success": [True]}) if found is None else _apart(found.to_arrow_table())
        except (duckdb.Error, pa.ArrowException) as error:
            if table.failure is not None:
                raise table.failure from error
            raise BadInputError(f"DuckDB cannot run this query: {str(error).strip()}") from error


def _apart(table: pa.Table) -> pa.Table:
    """Tell columns of one name apart, as a join makes them: symbol, symbol_1."""
    names: list[str] = []
    for name in table.column_names:
        number = next(n for n in range(len(names) + 1) if (f"{name}_{n}" if n else name) not in names)
        names.append(f"{name}_{number}" if number else name)
    return table.rename_columns(names)
