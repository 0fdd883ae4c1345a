"""The feature store: features materialized for audit, read as of a moment, and framed for training."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import duckdb
import numpy as np
import pyarrow as pa

from feature_store.candle import CLOSE, COLUMNS, VOLUME, CandleBlock, Series
from feature_store.decided import features_as_decided
from feature_store.errors import CorruptFileError, FingerprintMismatchError
from feature_store.feature_files import made_from, read_features, write_features
from feature_store.features.definition import INDEX, fingerprint
from feature_store.features.engine import FEATURE_COUNT, Continuity, FeatureEngine, SeriesState, model_inputs
from feature_store.features.state import load_state, save_state, state_path
from feature_store.labels import forward_log_return
from feature_store.observations import Known, joined
from feature_store.partitions import Rows, locked, months_of, read_table, runs, series_folder
from feature_store.queries import query
from feature_store.requested import require_horizon, require_moment, require_stretch, stored_ones

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

    Features, inputs and log returns of a row are those of the moment at which its candle first became available: of a
    candle that came later, or was corrected later, it holds nothing. Closes are in their newest revision: what came of
    a decision is told best by what is known last. Where so many candles changed that what was known could not be
    computed within bounds (`feature_store.decided`), features are NaN, and nothing is learned from the row.
    `forward_log_return` is the label: ln of the close `horizon` candles later over this close, NaN where a candle on
    the way is missing or opens at or after the end of the frame.
    """

    series: Series
    open_time_ms: Times
    features: Floats
    inputs: npt.NDArray[np.float32]
    log_return: Floats
    close: Floats
    forward_log_return: Floats
    # What was traded in each candle, in the quote currency: volume times close. None where it is not known.
    quote_volume: Floats | None = None

    def __len__(self) -> int:
        return len(self.open_time_ms)


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSet:
    """
    A frame with what else was known when each of its candles could first be decided on.

    `decided_at_ms` is when the candle first became available, whatever corrected it later, and the moment of the
    frame's features too. `known` has a row for each candle: of every table of observations its newest values then, null
    where it had said nothing yet.
    `is_late` marks candles that came after the next one had closed: nobody could have decided on them in time, and what
    else was known by then tells some of their outcome, so their label is NaN.
    """

    frame: TrainingFrame
    decided_at_ms: Times
    is_late: npt.NDArray[np.bool_]
    known: pa.Table

    def __len__(self) -> int:
        return len(self.frame)


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
            state = self._base(rows.block, series) or self._state_beyond(rows.block, path, series)
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

    def keep_memory(self, series: Series, gone: CandleBlock) -> None:
        """
        Store what the features remember of candles that are about to be removed, so that all later ones keep theirs.

        Args:
            series: Whose.
            gone: The oldest candles of the lake, up to where it will begin.

        Raises:
            CorruptFileError: What was stored when candles were removed before is damaged.
        """
        path = self.removed_path(series)
        with locked(path):
            engine, rest = self.warmed(series, gone)
            engine.advance(rest)
            save_state(path, series, engine.state)

    def warmed(self, series: Series, block: CandleBlock) -> tuple[FeatureEngine, CandleBlock]:
        """
        Return an engine that remembers what retention removed before these candles, and the candles that follow it.

        Raises:
            CorruptFileError: What was stored when candles were removed is damaged.
        """
        engine = FeatureEngine(series.timeframe, self._base(block, series))
        last = engine.last_open_time_ms
        return engine, block if last is None else block.since(last + 1)

    def _base(self, block: CandleBlock, series: Series) -> SeriesState | None:
        """Return what is remembered of removed candles; none where they are all there, or are again."""
        try:
            state = load_state(self.removed_path(series), series)
        except FingerprintMismatchError:
            return None  # Another feature set remembers other things; its memory begins with the first candle there is.
        first, known = block.first_open_time_ms, None if state is None else state.continuity.first_open_time_ms
        return state if known is not None and first is not None and known < first else None

    def removed_path(self, series: Series) -> Path:
        """Return where the memory of candles that retention removed is stored."""
        return state_path(self.root / "removed", series)

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
        engine, block = self.warmed(series, block)
        # Of candles that retention removed, the stored rows are all there is.
        begin = 0 if engine.last_open_time_ms is None else int(np.searchsorted(times, engine.last_open_time_ms + 1))
        times, stored = times[begin:], stored[begin:]
        computed = engine.advance(block)
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
            BadInputError: A series is not stored, or the moment is not in milliseconds.
            CorruptFileError: A partition of the lake is damaged.
        """
        require_moment("as_of_ms", as_of_ms)
        wanted = stored_ones(lake, series)
        found = known_candles(lake, wanted, as_of_ms)
        return {one: self._newest(one, found.get(one)) for one in wanted}

    def training_frame(
        self, lake: CandleLake, series: Iterable[Series], start_ms: int, end_ms: int, horizon: int
    ) -> dict[Series, TrainingFrame]:
        """
        Return frames of the candles that open in `[start_ms, end_ms)`; earlier ones warm the features up.

        Nothing that opens at or after `end_ms` is read, and no row's features know of a correction or a late candle
        that arrived after it was decided on.

        Raises:
            BadInputError: A series is not stored, or the stretch or horizon cannot be.
            CorruptFileError: A partition of the lake is damaged.
        """
        series = _asked(lake, series, start_ms, end_ms, horizon)
        return {one: self._frame(one, lake.read_rows(one, None, end_ms), start_ms, horizon) for one in series}

    def training_set(
        self,
        lake: CandleLake,
        series: Iterable[Series],
        start_ms: int,
        end_ms: int,
        horizon: int,
        *,
        as_of_ms: int | None = None,
        observations: Sequence[Known] = (),
    ) -> dict[Series, TrainingSet]:
        """
        Return frames of the candles that open in `[start_ms, end_ms)`, with what else was known at each decision.

        Each row's features are those of its decision: a correction or a late candle that arrived after it changes
        nothing of them, so a row equals `features_as_of` its decision. With `as_of_ms`, everything else, labels and
        closes, is as it could have been known at that moment too: candles and observations that became available later,
        corrections included, do not count.

        Raises:
            BadInputError: Two tables of observations have one name, a series is not stored, or the stretch, horizon or
                moment cannot be.
            CorruptFileError: A partition of the lake is damaged.
        """
        series = _asked(lake, series, start_ms, end_ms, horizon, as_of_ms)
        sets: dict[Series, TrainingSet] = {}
        for one in series:
            rows = lake.read_rows(one, None, end_ms).until(as_of_ms)
            frame = self._frame(one, rows, start_ms, horizon)
            decided = rows.first_known(frame.open_time_ms)
            late = decided > frame.open_time_ms + 2 * one.timeframe.milliseconds
            frame.forward_log_return[late] = np.nan
            known = joined(observations, [one.symbol] * len(frame), decided, as_of_ms)
            sets[one] = TrainingSet(frame, decided, late, known)
        return sets

    def _newest(self, series: Series, rows: Rows | None) -> FeaturesAsOf | None:
        engine, block = self.warmed(series, CandleBlock.empty() if rows is None else rows.block)
        if rows is None or len(block) == 0:
            return None
        features = engine.advance(block)[-1:]
        known_ms = int(rows.available_at_ms.max())
        return FeaturesAsOf(series, int(block.open_time_ms[-1]), known_ms, features[0], model_inputs(features)[0])

    def _frame(self, series: Series, rows: Rows, start_ms: int, horizon: int) -> TrainingFrame:
        engine, block = self.warmed(series, rows.latest().block)
        if engine.last_open_time_ms is not None:
            rows = rows.take(rows.block.open_time_ms > engine.last_open_time_ms)
        features = features_as_decided(engine, block, rows, start_ms)
        return _framed(series, block, features, start_ms, horizon)

    def _path(self, series: Series, month: str) -> Path:
        return series_folder(self.root, series) / f"{month}.parquet"


def _asked(
    lake: CandleLake, series: Iterable[Series], start_ms: int, end_ms: int, horizon: int, as_of_ms: int | None = None
) -> list[Series]:
    require_stretch(start_ms, end_ms)
    require_horizon(horizon)
    if as_of_ms is not None:
        require_moment("as_of_ms", as_of_ms)
    return stored_ones(lake, series)


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


def _framed(series: Series, block: CandleBlock, features: Floats, start_ms: int, horizon: int) -> TrainingFrame:
    begin = int(np.searchsorted(block.open_time_ms, start_ms))
    times, close = block.open_time_ms[begin:], block.values[begin:, CLOSE]
    kept = np.ascontiguousarray(features[begin:])
    traded = block.values[begin:, VOLUME] * close
    forward = forward_log_return(close, times, horizon=horizon, timeframe_ms=series.timeframe.milliseconds)
    return TrainingFrame(
        series,
        times,
        kept,
        model_inputs(kept),
        np.ascontiguousarray(kept[:, INDEX["log_return_1"]]),
        close,
        forward,
        traded,
    )
