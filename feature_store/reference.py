"""The same 49 features as plain SQL: the readable reference of the kernel, and its oracle."""

from __future__ import annotations

from collections.abc import Mapping

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from feature_store.candle import COLUMNS, CandleBlock
from feature_store.features.definition import FEATURE_NAMES
from feature_store.queries import query


def features_in_sql(blocks: Mapping[str, CandleBlock]) -> dict[str, npt.NDArray[np.float64]]:
    """Return the features of each named block [n, 49], computed by DuckDB; a hundred times slower than the kernel."""
    names = [name for name, block in blocks.items() for _ in range(len(block))]
    values = np.concatenate([block.values for block in blocks.values()])
    candles = pa.table(
        {
            "series": pa.array(names, pa.string()),
            "open_time_ms": pa.array(np.concatenate([block.open_time_ms for block in blocks.values()])),
            **{column: pa.array(np.ascontiguousarray(values[:, place])) for place, column in enumerate(COLUMNS)},
        }
    )
    with duckdb.connect() as connection:
        connection.register("candles", candles)
        table = connection.sql(query("features")).to_arrow_table()
    found = np.column_stack([table[name].to_numpy() for name in FEATURE_NAMES])
    series = np.array(table["series"].to_pylist())
    return {name: found[series == name] for name in blocks}
