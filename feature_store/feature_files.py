"""Materialized features on disk: one Parquet file for each series and month, for audit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.errors import CorruptFileError
from feature_store.features.definition import FEATURE_NAMES, fingerprint
from feature_store.files import replacing

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    Times = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float64]

_TIME = pa.timestamp("ms", tz="UTC")
_FIELDS: list[Any] = [
    pa.field("open_time", _TIME, nullable=False),
    pa.field("available_at", _TIME, nullable=False),
    *[pa.field(name, pa.float64(), nullable=False) for name in FEATURE_NAMES],
]
_REMEDY = "Remove it and run: qtctl features"


def write_features(path: Path, open_time_ms: Times, available_at_ms: Times, features: Floats, digest: str) -> None:
    """Replace one month; `digest` names the candles that the features [n, 49] were made from."""
    columns = [np.ascontiguousarray(features[:, column]) for column in range(features.shape[1])]
    write_columns(path, open_time_ms, available_at_ms, columns, digest)


def write_columns(
    path: Path, open_time_ms: Times, available_at_ms: Times, features: Sequence[Floats], digest: str
) -> None:
    """Replace one file by features that are given column by column."""
    table = _table(open_time_ms, available_at_ms, features, digest)
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", use_dictionary=False, write_page_checksum=True)


def write_sheet(sink: Any, parts: Iterable[tuple[Times, Times, Sequence[Floats]]], digest: str) -> None:
    """
    Write features for programs that read them once, not compressed, a row group for each part.

    A compressor takes most of the time of a run and finds little in numbers that never repeat.

    Args:
        sink: Path, or what pyarrow writes to.
        parts: Open times, available times and features column by column, the oldest first.
        digest: What the features were made from.
    """
    with pq.ParquetWriter(
        sink,
        _schema(digest),
        compression="none",
        use_dictionary=False,
        write_page_checksum=True,
        write_statistics=["open_time", "available_at"],
    ) as writer:
        for open_time_ms, available_at_ms, features in parts:
            writer.write_table(_table(open_time_ms, available_at_ms, features, digest), max(len(open_time_ms), 1))


def _table(open_time_ms: Times, available_at_ms: Times, features: Sequence[Floats], digest: str) -> pa.Table:
    columns: list[Any] = [
        pa.array(open_time_ms).cast(_TIME),
        pa.array(available_at_ms).cast(_TIME),
        *[pa.array(column) for column in features],
    ]
    return pa.Table.from_arrays(columns, schema=_schema(digest))


def _schema(digest: str) -> pa.Schema:
    return pa.schema(_FIELDS, metadata={"feature_fingerprint": fingerprint(), "candle_digest": digest})


def made_from(path: Path) -> tuple[str, str] | None:
    """Return fingerprint and candle digest of a month, or None where there is no readable file of ours."""
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (FileNotFoundError, OSError, pa.ArrowException):
        return None
    return metadata.get(b"feature_fingerprint", b"").decode(), metadata.get(b"candle_digest", b"").decode()


def read_features(path: Path) -> tuple[Times, Times, Floats]:
    """
    Return open times, available times and features [n, 49] of a month.

    Raises:
        CorruptFileError: The file is damaged, or of another feature set.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise CorruptFileError(path, f"not a whole Parquet file ({str(error)[:200]})", _REMEDY) from error
    found = (table.schema.metadata or {}).get(b"feature_fingerprint", b"").decode()
    if found != fingerprint() or table.schema.names != [field.name for field in _FIELDS]:
        raise CorruptFileError(path, f"made with feature set {found[:12] or 'unknown'}", _REMEDY)
    features = np.column_stack([table[name].to_numpy() for name in FEATURE_NAMES])
    times = table["open_time"].cast(pa.int64()).to_numpy()
    return times, table["available_at"].cast(pa.int64()).to_numpy(), features
