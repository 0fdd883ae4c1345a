"""What features are like, by month and series: statistics and sketches, computed by DuckDB, stored, and merged."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.candle import Series
from feature_store.errors import BadInputError, CorruptFileError
from feature_store.feature_files import made_from, read_features
from feature_store.features.definition import FEATURE_NAMES, MODEL_INPUT_NAMES, fingerprint
from feature_store.features.engine import model_inputs
from feature_store.files import replacing
from feature_store.partitions import locked, series_folder
from feature_store.queries import query
from feature_store.stability import GRID_SHIFT, Sketch

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    Floats = npt.NDArray[np.floating]

Kind = Literal["feature", "input"]
SHARES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
"""The quantiles that a profile holds."""

_MEMORY = "1500MB"
_REMEDY = "Remove it and run: qtctl features profile"
_FIELDS: list[Any] = [
    pa.field("kind", pa.string(), nullable=False),
    pa.field("name", pa.string(), nullable=False),
    pa.field("candles", pa.int64(), nullable=False),
    pa.field("missing", pa.int64(), nullable=False),
    pa.field("zeros", pa.int64(), nullable=False),
    pa.field("mean", pa.float64()),
    pa.field("squares", pa.float64()),
    pa.field("least", pa.float64()),
    pa.field("greatest", pa.float64()),
    pa.field("quantiles", pa.list_(pa.float64()), nullable=False),
    pa.field("buckets", pa.list_(pa.int64()), nullable=False),
    pa.field("counts", pa.list_(pa.int64()), nullable=False),
]
_GRID = str(GRID_SHIFT)


@dataclass(frozen=True, slots=True, eq=False)
class ColumnProfile:
    """
    What the values of one column are like. A value that is not finite is missing and enters nothing else.

    `squares` is the sum of squared distances from the mean. `quantiles` are those of `SHARES`: exact where one
    sample was measured, within `stability.GRID_ERROR` of the value where profiles were merged.
    """

    name: str
    candles: int
    zeros: int
    mean: float
    squares: float
    least: float
    greatest: float
    quantiles: tuple[float, ...]
    sketch: Sketch

    @property
    def missing(self) -> int:
        """How many values are not finite."""
        return self.sketch.missing

    @property
    def std(self) -> float:
        """Standard deviation of the sample; NaN for fewer than two values."""
        finite = self.candles - self.missing
        return math.sqrt(self.squares / (finite - 1)) if finite > 1 else math.nan

    @classmethod
    def merged(cls, profiles: Sequence[ColumnProfile]) -> ColumnProfile:
        """Return the profile of several samples of one column together; all but moments and quantiles is exact."""
        if len(profiles) == 1:
            return profiles[0]
        sketch = Sketch.merged(one.sketch for one in profiles)
        full = [one for one in profiles if one.candles > one.missing]
        sizes = [one.candles - one.missing for one in full]
        mean = math.fsum(one.mean * size for one, size in zip(full, sizes, strict=True)) / (sum(sizes) or math.nan)
        apart = [(one.mean - mean) ** 2 * size for one, size in zip(full, sizes, strict=True)]
        return cls(
            profiles[0].name,
            sum(one.candles for one in profiles),
            sum(one.zeros for one in profiles),
            mean,
            math.fsum([*(one.squares for one in full), *apart]) if full else math.nan,
            min((one.least for one in full), default=math.nan),
            max((one.greatest for one in full), default=math.nan),
            tuple(sketch.quantile(share) for share in SHARES),
            sketch,
        )


def measure(names: Sequence[str], values: Floats) -> list[ColumnProfile]:
    """Return the profile of each column of values [n, columns]; the statistics are computed by DuckDB."""
    columns = np.asfortranarray(values, np.float64)
    rows = {row["column_number"]: row for row in _statistics(columns)}
    return [_profile(name, rows.get(number), Sketch.of(columns[:, number])) for number, name in enumerate(names)]


class ProfileStore:
    """
    Profiles under `root` (QUANTUM_HOME/features/profiles): one Parquet file for each series and month.

    A month is measured again when the candles its features were made from have changed, or the feature set has.
    Files are replaced as a whole, so readers in other processes see the old profile or the new one.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def update(self, features: Path, series: Series) -> int:
        """
        Measure the months of a series whose materialized features are new or changed; return how many were.

        Args:
            features: Where features are materialized, QUANTUM_HOME/features.
            series: Whose.

        Raises:
            CorruptFileError: A file of features is damaged.
        """
        measured = 0
        for source in sorted(series_folder(features, series).glob("????-??.parquet")):
            path = series_folder(self.root, series) / source.name
            with locked(path):
                made = made_from(source)
                if made is not None and made == _made_from(path):
                    continue
                _, _, values = read_features(source)
                # Read before the features: if they are replaced meanwhile, the next run measures them again.
                _write(path, values, made or ("", ""))
            measured += 1
        return measured

    def months(self, series: Series) -> list[str]:
        """Return the months of a series that are profiled, oldest first."""
        return sorted(path.stem for path in series_folder(self.root, series).glob("????-??.parquet"))

    def read(self, series: Series, month: str, kind: Kind) -> list[ColumnProfile]:
        """
        Return the profiles of one month: of the 49 features, or of what models read.

        Raises:
            BadInputError: The month is not profiled.
            CorruptFileError: The file is damaged, or of another feature set or grid.
        """
        path = series_folder(self.root, series) / f"{month}.parquet"
        if not path.exists():
            known = ", ".join(self.months(series)[-6:]) or "none"
            raise BadInputError(
                f"There is no profile of {series.key} for {month!r} (YYYY-MM); there are: {known}. "
                "Run: qtctl features profile"
            )
        return list(_read(path, kind))

    def merged(self, wanted: Mapping[Series, Iterable[str]], kind: Kind) -> list[ColumnProfile]:
        """
        Return the profiles of several series and months together, column by column.

        Raises:
            BadInputError: Nothing is wanted, or a month is not profiled.
            CorruptFileError: A file is damaged, or of another feature set or grid.
        """
        parts = [self.read(series, month, kind) for series, months in wanted.items() for month in months]
        if not parts:
            raise BadInputError("No month is profiled; run: qtctl features profile")
        return [ColumnProfile.merged(column) for column in zip(*parts, strict=True)]

    def whole_months(self, series: Series, start_ms: int, end_ms: int) -> list[str]:
        """Return the profiled months that lie in `[start_ms, end_ms)` from their beginning to their end."""
        return [
            month
            for month in self.months(series)
            if month_start_ms(month) >= start_ms and month_start_ms(month_after(month)) <= end_ms
        ]


def month_start_ms(month: str) -> int:
    """Return when a month begins: `2025-03` is 2025-03-01 00:00 UTC."""
    return int(np.datetime64(month, "M").astype("datetime64[ms]").astype(np.int64))


def month_after(month: str) -> str:
    """Return the month that follows."""
    return str(np.datetime64(month, "M") + np.timedelta64(1, "M"))


def _statistics(columns: Floats) -> list[dict[str, Any]]:
    numbers = np.repeat(np.arange(columns.shape[1], dtype=np.int16), len(columns))
    with duckdb.connect(config={"memory_limit": _MEMORY, "threads": 2}) as connection:
        table = pa.table({"column_number": pa.array(numbers), "value": pa.array(columns.ravel(order="F"))})
        connection.register("measured", table)
        found = connection.sql(query("column_statistics"), params={"shares": list(SHARES)}).to_arrow_table()
    rows: list[dict[str, Any]] = found.to_pylist()
    return rows


def _profile(name: str, row: Mapping[str, Any] | None, sketch: Sketch) -> ColumnProfile:
    figures = row or {}

    def number(key: str) -> float:
        value = figures.get(key)
        return math.nan if value is None else float(value)

    return ColumnProfile(
        name,
        int(figures.get("n", 0)),
        int(figures.get("zeros", 0)),
        number("mean"),
        number("squares"),
        number("least"),
        number("greatest"),
        tuple(figures.get("quantiles") or [math.nan] * len(SHARES)),
        sketch,
    )


def _write(path: Path, features: Floats, made: tuple[str, str]) -> None:
    kinds: list[tuple[Kind, tuple[str, ...], Floats]] = [
        ("feature", FEATURE_NAMES, features),
        ("input", MODEL_INPUT_NAMES, model_inputs(np.ascontiguousarray(features, np.float64))),
    ]
    rows = [
        {
            "kind": kind,
            "name": one.name,
            "candles": one.candles,
            "missing": one.missing,
            "zeros": one.zeros,
            "mean": one.mean,
            "squares": one.squares,
            "least": one.least,
            "greatest": one.greatest,
            "quantiles": list(one.quantiles),
            "buckets": one.sketch.buckets.tolist(),
            "counts": one.sketch.counts.tolist(),
        }
        for kind, names, values in kinds
        for one in measure(names, values)
    ]
    metadata: dict[bytes | str, bytes | str] = {
        "feature_fingerprint": made[0],
        "candle_digest": made[1],
        "grid_shift": _GRID,
    }
    table = pa.Table.from_pylist(rows, schema=pa.schema(_FIELDS, metadata=metadata))
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)


def _metadata(path: Path) -> dict[bytes, bytes]:
    try:
        return pq.read_schema(path).metadata or {}
    except (FileNotFoundError, OSError, pa.ArrowException):
        return {}


def _made_from(path: Path) -> tuple[str, str] | None:
    """Return fingerprint and candle digest of a profile, or None where there is no readable one on our grid."""
    metadata = _metadata(path)
    if metadata.get(b"grid_shift", b"").decode() != _GRID:
        return None
    return metadata.get(b"feature_fingerprint", b"").decode(), metadata.get(b"candle_digest", b"").decode()


def _read(path: Path, kind: Kind) -> Iterator[ColumnProfile]:
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read()
    except (pa.ArrowException, OSError) as error:
        raise CorruptFileError(path, f"not a whole Parquet file ({str(error)[:200]})", _REMEDY) from error
    made = _made_from(path)
    if made is None or made[0] != fingerprint() or table.schema.names != [field.name for field in _FIELDS]:
        raise CorruptFileError(path, "it was made with another feature set or grid", _REMEDY)
    for row in table.to_pylist():
        if row["kind"] == kind:
            sketch = Sketch(np.array(row["buckets"], np.int64), np.array(row["counts"], np.int64), row["missing"])
            yield _profile(row["name"], {**row, "n": row["candles"]}, sketch)
