"""The feature store: features materialized for audit, read as of a moment, and framed for training."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import duckdb
import numpy as np
import pyarrow as pa

from feature_store.candle import CLOSE, COLUMNS, CandleBlock, Series
from feature_store.errors import CorruptFileError, FingerprintMismatchError
from feature_store.feature_files import made_from, read_features, write_features
from feature_store.features.definition import INDEX, fingerprint
from feature_store.features.engine import FEATURE_COUNT, Continuity, FeatureEngine, SeriesState, model_inputs
from feature_store.features.state import load_state, save_state, state_path
from feature_store.partitions import Rows, locked, months_of, read_table, runs, series_folder
from feature_store.queries import query

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from feature_store.lake import CandleLake

    Times = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float64]

SeriesProgress = Callable[[Series, int], None]


@dataclass(frozen=True, slots=True)
class Materialized:
    """What one run did for one series."""

    series: Series
    candles: int
    months_written: int
    resumed: bool
    continuity: Continuity


@dataclass(frozen=True, slots=True, eq=False)
class TrainingFrame:
    """
    One series as arrays, oldest first: features, model inputs, log returns, closes.

    `forward_log_return` is the label: ln of the close `horizon` candles later over this close, NaN where that very
    candle is missing or opens at or after the end of the frame.
    """

    series: Series
    open_time_ms: Times
    features: Floats
    inputs: npt.NDArray[np.float32]
    log_return: Floats
    close: Floats
    forward_log_return: Floats

    def __len__(self) -> int:
        return len(self.open_time_ms)


@dataclass(frozen=True, slots=True, eq=False)
class FeaturesAsOf:
    """The newest features of a series that could be known at a moment."""

    series: Series
    open_time_ms: int
    available_at_ms: int
    features: Floats
    inputs: npt.NDArray[np.float32]


class FeatureStore:
    """
    Features under `root` (QUANTUM_HOME/features): Parquet for audit, and the state that live computation goes on from.

    Computing features from candles is faster than reading them back, so reads compute: the files tell what was
    known, and `verify` compares them with what the lake gives.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def materialize(
        self, lake: CandleLake, series: Iterable[Series], progress: SeriesProgress | None = None
    ) -> dict[Series, Materialized]:
        """
        Write the features and the state of each series; months whose candles did not change are left alone.

        Where retention has removed the oldest candles, the stored state is continued, so that features with an
        infinite memory keep their values.

        Raises:
            CorruptFileError: A partition of the lake is damaged.
        """
        done = {}
        for one in series:
            done[one] = self._materialize(lake, one)
            if progress is not None:
                progress(one, done[one].candles)
        return done

    def _materialize(self, lake: CandleLake, series: Series) -> Materialized:
        path = state_path(self.root, series)
        with locked(path):
            rows = lake.read_rows(series).latest()
            state = self._state_beyond(rows.block, path, series)
            resumed = state is not None
            engine = FeatureEngine(series.timeframe, state)
            fresh = rows.take(rows.block.open_time_ms > (engine.last_open_time_ms or -1)) if resumed else rows
            features = engine.advance(fresh.block)
            written = self._write(series, fresh, features, merge=resumed)
            save_state(path, series, engine.state)
        return Materialized(series, len(rows), written, resumed, engine.continuity)

    def _state_beyond(self, block: CandleBlock, path: Path, series: Series) -> SeriesState | None:
        """Return the stored state if it remembers candles that the lake no longer has."""
        try:
            state = load_state(path, series)
        except (CorruptFileError, FingerprintMismatchError):
            return None
        first = block.first_open_time_ms
        known = None if state is None else state.continuity.first_open_time_ms
        return state if known is not None and first is not None and known < first else None

    def _write(self, series: Series, rows: Rows, features: Floats, *, merge: bool) -> int:
        written = 0
        digest = hashlib.sha256()
        for month, part in months_of(rows.block):
            path = self._path(series, month)
            times, values = rows.block.open_time_ms[part], rows.block.values[part]
            # Features depend on all earlier candles, so the digest of a month covers them too.
            digest.update(times.tobytes() + values.tobytes())
            name = f"{'continued-' if merge else ''}{digest.hexdigest()}"
            if made_from(path) == (fingerprint(), name):
                continue
            content = (times, rows.available_at_ms[part], features[part])
            if merge and path.exists():
                stored_times, stored_available, stored = read_features(path)
                older = stored_times < times[0]
                content = (
                    np.append(stored_times[older], times),
                    np.append(stored_available[older], rows.available_at_ms[part]),
                    np.concatenate([stored[older], features[part]]),
                )
            write_features(path, *content, name)
            written += 1
        return written

    def read(self, series: Series) -> tuple[Times, Floats]:
        """
        Return the materialized features of a series: open times and features [n, 49].

        Raises:
            CorruptFileError: A file is damaged, or of another feature set.
        """
        parts = [read_features(path) for path in sorted(series_folder(self.root, series).glob("????-??.parquet"))]
        if not parts:
            return np.empty(0, np.int64), np.empty((0, FEATURE_COUNT))
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[2] for part in parts])

    def state(self, series: Series) -> SeriesState | None:
        """
        Return the stored state of a series, or None.

        Raises:
            CorruptFileError: The file is damaged.
            FingerprintMismatchError: Another feature set wrote it.
        """
        return load_state(state_path(self.root, series), series)

    def verify(self, lake: CandleLake, series: Series) -> int:
        """Return how many materialized rows differ from what the lake's candles give now; 0 is parity to the bit."""
        times, stored = self.read(series)
        block = lake.read(series)
        computed = FeatureEngine(series.timeframe).advance(block)
        at = np.searchsorted(block.open_time_ms, times)
        found = (at < len(block)) & (block.open_time_ms[np.minimum(at, max(len(block) - 1, 0))] == times)
        same = np.zeros(len(times), np.bool_)
        left, right = stored[found], computed[at[found]]
        same[found] = ((left == right) | (np.isnan(left) & np.isnan(right))).all(axis=1)
        return int((~same).sum())

    def features_as_of(
        self, lake: CandleLake, series: Iterable[Series], as_of_ms: int
    ) -> dict[Series, FeaturesAsOf | None]:
        """
        Return the newest features of each series that could be known at a moment, None where there were none.

        Corrections that arrived later do not count: they were not known then.

        Raises:
            CorruptFileError: A partition of the lake is damaged.
        """
        wanted = list(series)
        found = known_candles(lake, wanted, as_of_ms)
        return {one: _newest(one, found.get(one)) for one in wanted}

    def training_frame(
        self, lake: CandleLake, series: Iterable[Series], start_ms: int, end_ms: int, horizon: int
    ) -> dict[Series, TrainingFrame]:
        """
        Return frames of the candles that open in `[start_ms, end_ms)`; earlier ones warm the features up.

        Nothing that opens at or after `end_ms` is read.

        Raises:
            CorruptFileError: A partition of the lake is damaged.
        """
        return {one: _frame(one, lake.read(one, None, end_ms), start_ms, horizon) for one in series}

    def _path(self, series: Series, month: str) -> Path:
        return series_folder(self.root, series) / f"{month}.parquet"


def known_candles(lake: CandleLake, series: Iterable[Series], as_of_ms: int) -> Mapping[Series, Rows]:
    """
    Return the candles of several series that were known at a moment, through one DuckDB query.

    Raises:
        CorruptFileError: A partition of the lake is damaged.
    """
    wanted = list(series)
    parts = [
        table.append_column("series", pa.repeat(number, len(table)))
        for number, one in enumerate(wanted)
        for table in map(read_table, lake.paths(one))
        if table is not None
    ]
    if not parts:
        return {}
    with duckdb.connect() as connection:
        connection.register("candle_revisions", pa.concat_tables(parts))
        table = connection.sql(query("candles_as_of"), params={"as_of": as_of_ms}).to_arrow_table()
    columns = [table[name].to_numpy() for name in COLUMNS]
    times, available = table["open_time_ms"].to_numpy(), table["available_at_ms"].to_numpy()
    numbers = table["series"].to_pylist()
    result = {}
    for begin, end in runs(numbers):
        block = CandleBlock(times[begin:end], np.column_stack([column[begin:end] for column in columns]))
        result[wanted[numbers[begin]]] = Rows(block, available[begin:end], np.zeros(end - begin, np.int32))
    return result


def _newest(series: Series, rows: Rows | None) -> FeaturesAsOf | None:
    if rows is None or len(rows) == 0:
        return None
    features = FeatureEngine(series.timeframe).advance(rows.block)[-1:]
    return FeaturesAsOf(
        series,
        int(rows.block.open_time_ms[-1]),
        int(rows.available_at_ms.max()),
        features[0],
        model_inputs(features)[0],
    )


def _frame(series: Series, block: CandleBlock, start_ms: int, horizon: int) -> TrainingFrame:
    features = FeatureEngine(series.timeframe).advance(block)
    begin = int(np.searchsorted(block.open_time_ms, start_ms))
    times, close = block.open_time_ms[begin:], block.values[begin:, CLOSE]
    kept = np.ascontiguousarray(features[begin:])
    target = times + horizon * series.timeframe.milliseconds
    at = np.searchsorted(times, target)
    known = at < len(times)
    known[known] = times[at[known]] == target[known]
    forward = np.full(len(times), np.nan)
    forward[known] = np.log(close[at[known]] / close[known])
    return TrainingFrame(
        series, times, kept, model_inputs(kept), np.ascontiguousarray(kept[:, INDEX["log_return_1"]]), close, forward
    )
