"""Rows of all series in one place: which are usable, and what the models see at each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from feature_store.candle import Series
from feature_store.errors import BadInputError
from feature_store.extensions.view import FeatureView
from feature_store.labels import forward_log_return
from flows.training.splits import Splits
from flows.training.traded import TradedCandles
from inference.models.ensemble import InputColumns
from inference.models.manifest import TimeWindow, split_input

Floats = npt.NDArray[np.float64]
Inputs = npt.NDArray[np.float32]
Times = npt.NDArray[np.int64]
Marks = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class LearnedLabels:
    """
    What members learn of each candle where that is not its forward return, NaN where it is not known.

    `end_ms` is the close of the last candle that each depends on, -1 where it is not known. `latest_end_ms` is when
    each would end at the latest, known before anything has come of it.
    """

    value: Floats
    end_ms: Times
    latest_end_ms: Times


@dataclass(frozen=True, slots=True, eq=False)
class TrainingFrame:
    """
    One series as arrays, oldest first.

    `inputs` are the model inputs of each closed candle, `log_return` its move, `close` its price; a gap is a jump in
    `open_time_ms`. `eligible` marks the candles that may be learned from and judged on, None all of them. `late` marks
    those that came after the next had closed, None none: to whoever decided meanwhile they were missing, so that they
    break windows as a gap does. `learned` is what members learn, None the forward return. `suspect` marks the candles
    whose prices their neighbours do not bear out; None says that nobody looked, which is not the same as none.
    """

    symbol: str
    open_time_ms: Times
    inputs: Inputs
    log_return: Floats
    close: Floats
    eligible: Marks | None = None
    late: Marks | None = None
    learned: LearnedLabels | None = None
    # Quote currency traded in each candle; None where it is not known.
    quote_volume: Floats | None = None
    # Prices to trade at; None where nothing is to be traded again.
    traded: TradedCandles | None = None
    suspect: Marks | None = None


class StoredFrame(Protocol):
    """A frame as the feature store gives it."""

    @property
    def open_time_ms(self) -> Times:
        """Open times, rising."""
        ...

    @property
    def inputs(self) -> Inputs:
        """Model inputs [n, M]."""
        ...

    @property
    def log_return(self) -> Floats:
        """Log returns of the candles."""
        ...

    @property
    def close(self) -> Floats:
        """Closes."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class FrameSet:
    """All series of a run, with the names of their inputs and the fingerprint of the features behind them."""

    frames: tuple[TrainingFrame, ...]
    input_names: tuple[str, ...]
    feature_fingerprint: str
    timeframe_ms: int

    def __post_init__(self) -> None:
        """Refuse frames that do not fit together."""
        if not self.frames:
            raise BadInputError("Training needs at least one series; ingest some candles first")
        for frame in self.frames:
            n = len(frame.open_time_ms)
            if frame.inputs.shape != (n, len(self.input_names)) or frame.close.shape != (n,):
                raise BadInputError(
                    f"{frame.symbol} needs inputs ({n}, {len(self.input_names)}) and closes ({n},), "
                    f"were {frame.inputs.shape} and {frame.close.shape}"
                )

    @classmethod
    def of_store(
        cls,
        stored: Mapping[Series, StoredFrame],
        *,
        view: FeatureView | None = None,
        extra: Mapping[Series, Inputs] | None = None,
        eligible: Mapping[Series, Marks] | None = None,
        late: Mapping[Series, Marks] | None = None,
        learned: Mapping[Series, LearnedLabels] | None = None,
        traded: Mapping[Series, TradedCandles] | None = None,
        suspect: Mapping[Series, Marks] | None = None,
    ) -> FrameSet:
        """
        Return what `FeatureStore.training_set` gave, as training reads it; series without candles are left out.

        With a view, `extra` holds the inputs that it adds, row for row. `eligible` marks the candles of each series
        that count; without it all do. `late` marks those that came too late to be decided on.
        `learned` is what members learn instead of the forward return, `traded` what can be traded again. `suspect`
        marks the candles whose prices are suspect; without it nobody knows.

        Raises:
            BadInputError: There are no candles at all, or the series have different timeframes.
        """
        timeframes = {series.timeframe for series in stored}
        if len(timeframes) > 1:
            raise BadInputError(f"One model learns one timeframe, were {', '.join(sorted(timeframes))}")
        added = extra or {}
        frames = tuple(
            TrainingFrame(
                series.symbol,
                one.open_time_ms,
                _beside(one, added.get(series)),
                one.log_return,
                one.close,
                None if eligible is None else eligible[series],
                None if late is None else late[series],
                None if learned is None else learned[series],
                getattr(one, "quote_volume", None),
                None if traded is None else traded[series],
                None if suspect is None else suspect[series],
            )
            for series, one in sorted(stored.items())
            if len(one.open_time_ms)
        )
        timeframe_ms = next(iter(timeframes)).milliseconds if timeframes else 0
        chosen = view or FeatureView()
        return cls(frames, chosen.input_names, chosen.fingerprint(), timeframe_ms)

    @property
    def symbols(self) -> tuple[str, ...]:
        """The series' symbols, in the order of the frames."""
        return tuple(frame.symbol for frame in self.frames)


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Places in a dataset: where they are, which series, when, and what came of it."""

    index: npt.NDArray[np.int64]
    series: npt.NDArray[np.int64]
    open_time_ms: Times
    label: Floats

    def __len__(self) -> int:
        return len(self.index)

    def take(self, chosen: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> Rows:
        """Return some of the rows."""
        return Rows(self.index[chosen], self.series[chosen], self.open_time_ms[chosen], self.label[chosen])


class Dataset:
    """The frames laid end to end, with labels and a mark on every row whose whole past and future are there."""

    def __init__(self, frames: FrameSet, *, horizon: int, window: int) -> None:
        self.symbols = frames.symbols
        self.input_names = frames.input_names
        self.timeframe_ms = frames.timeframe_ms
        self.window = window
        self.horizon = horizon
        parts = [
            _Part.of(frame, horizon=horizon, window=window, timeframe_ms=frames.timeframe_ms) for frame in frames.frames
        ]
        self.inputs_all: Inputs = np.concatenate([frame.inputs for frame in frames.frames]).astype(
            np.float32, copy=False
        )
        self.returns_all: Inputs = np.concatenate([part.returns for part in parts])
        self.open_time_ms = np.concatenate([frame.open_time_ms for frame in frames.frames])
        self.label = np.concatenate([part.label for part in parts])
        # What members learn, and when it is known; outcomes are judged by `label` in any case.
        self.learned = np.concatenate([part.learned for part in parts])
        self.learned_end_ms = np.concatenate([part.learned_end_ms for part in parts])
        self.latest_end_ms = np.concatenate([part.latest_end_ms for part in parts])
        self.complete = np.concatenate([part.complete for part in parts])
        self.excluded = np.concatenate([part.excluded for part in parts])
        self.series = np.repeat(np.arange(len(parts)), [len(part.label) for part in parts])
        marks = [frame.suspect for frame in frames.frames if frame.suspect is not None]
        # Of which candles prices are suspect; None where nobody looked at every series.
        self.suspect: Marks | None = np.concatenate(marks) if len(marks) == len(parts) else None
        self.quote_volume = np.concatenate(
            [np.full(len(f.close), np.nan) if f.quote_volume is None else f.quote_volume for f in frames.frames]
        )

    @property
    def start_ms(self) -> int:
        """
        Open time of the first candle from which any series is complete.

        Raises:
            BadInputError: None is.
        """
        if not self.complete.any():
            raise BadInputError(self._why_none())
        return int(self.open_time_ms[self.complete].min())

    def _why_none(self) -> str:
        columns = zip(self.input_names, self.inputs_all.T, strict=True)
        never = [name for name, values in columns if not np.isfinite(values).any()]
        why = f"{', '.join(never)} never had a value" if never else "series are too short, or have too many gaps"
        return (
            f"No candle has all inputs for {self.window} candles in a row: {why}; load more days, or read fewer inputs"
        )

    @property
    def end_ms(self) -> int:
        """Close time of the newest candle."""
        return int(self.open_time_ms.max()) + self.timeframe_ms

    def rows(self, window: TimeWindow, splits: Splits, *, stride: int = 1) -> Rows:
        """
        Return the usable rows of a window whose forward returns end inside it; what members learn makes no difference.

        With a stride, every n-th candle of the clock, the same for all series.
        """
        times = self.open_time_ms
        inside = (times >= window.start_ms) & (times < splits.last_row_ms(window))
        inside &= self.complete & np.isfinite(self.label)
        if stride > 1:
            inside &= (times // self.timeframe_ms) % stride == 0
        index = np.flatnonzero(inside)
        return Rows(index, self.series[index], times[index], self.label[index])

    def learned_rows(self, splits: Splits, *, stride: int = 1) -> Rows:
        """
        Return the rows of the fit window that members learn from: what is learned of them is known inside it.

        A row counts by when that would end at the latest. By when it did end, the last rows of the window would be
        those alone whose trades soon met a barrier.
        """
        rows = self.rows(splits.fit, splits, stride=stride)
        known = np.isfinite(self.learned[rows.index])
        return rows.take(known & (self.latest_end_ms[rows.index] <= splits.fit.end_ms))

    def coverage(self, window: TimeWindow) -> float:
        """Return the share of a window's candles, over all series, that are there and complete, of those that count."""
        candles = (window.end_ms - window.start_ms) // self.timeframe_ms
        inside = (self.open_time_ms >= window.start_ms) & (self.open_time_ms < window.end_ms)
        counting = candles * len(self.symbols) - int((inside & self.excluded).sum())
        return float((inside & self.complete).sum() / counting) if counting else 0.0

    def inputs(self, rows: Rows) -> Inputs:
        """Return the newest inputs at each row, [n, M]."""
        return self.inputs_all[rows.index]

    def columns(self, rows: Rows, names: Sequence[str]) -> Inputs:
        """
        Return named inputs at each row, means over the window among them, exactly as the worker computes them.

        Raises:
            BadInputError: A name is not an input, or averages over more than the window.
        """
        parts = [split_input(name) for name in names]
        select_columns(self.input_names, sorted({name for name, _ in parts}))
        if max(length for _, length in parts) > self.window:
            raise BadInputError(f"Means reach back {self.window} candles at most, were asked for {names}")
        picked = InputColumns(names, self.input_names)
        return np.concatenate([picked(self.inputs(part), self.windows(part)) for part in self.batches(rows)])

    def windows(self, rows: Rows) -> Inputs:
        """Return the inputs of the whole window at each row, [n, window, M]; large, so ask in batches."""
        return self.inputs_all[self._spans(rows)]

    def returns(self, rows: Rows) -> Inputs:
        """Return the log returns of the window at each row, [n, window]."""
        return self.returns_all[self._spans(rows)]

    def batches(self, rows: Rows, size: int = 2048) -> Iterator[Rows]:
        """Walk through rows in parts small enough to hold their windows."""
        for start in range(0, len(rows), size):
            yield rows.take(np.arange(start, min(start + size, len(rows))))

    def _spans(self, rows: Rows) -> npt.NDArray[np.int64]:
        return rows.index[:, None] + np.arange(1 - self.window, 1)


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    returns: Inputs
    label: Floats
    learned: Floats
    learned_end_ms: Times
    latest_end_ms: Times
    complete: Marks
    excluded: Marks

    @classmethod
    def of(cls, frame: TrainingFrame, *, horizon: int, window: int, timeframe_ms: int) -> _Part:
        times, close = frame.open_time_ms, frame.close
        follows = np.zeros(len(times), bool)
        follows[1:] = np.diff(times) == timeframe_ms
        if frame.late is not None:
            follows &= ~frame.late
        returns = np.where(follows, frame.log_return, np.nan)
        sound = follows & np.isfinite(returns) & np.isfinite(frame.inputs).all(axis=1)
        run = _run_lengths(sound)
        label = forward_log_return(close, times, horizon=horizon, timeframe_ms=timeframe_ms)
        excluded = np.zeros(len(times), bool) if frame.eligible is None else ~frame.eligible
        label_end_ms = times + (horizon + 1) * timeframe_ms
        learned = frame.learned or LearnedLabels(label, label_end_ms, label_end_ms)
        return cls(
            returns.astype(np.float32),
            label,
            learned.value,
            learned.end_ms,
            learned.latest_end_ms,
            (run >= window) & ~excluded,
            excluded,
        )


def _beside(stored: StoredFrame, added: Inputs | None) -> Inputs:
    return stored.inputs if added is None else np.concatenate([stored.inputs, added], axis=1)


def _run_lengths(marks: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return for each place how many marks in a row end there."""
    places = np.arange(1, len(marks) + 1)
    last_break = np.maximum.accumulate(np.where(marks, 0, places))
    return places - last_break


def select_columns(input_names: Sequence[str], chosen: Sequence[str]) -> list[int]:
    """
    Return the positions of chosen inputs.

    Raises:
        BadInputError: A chosen input is not among them.
    """
    missing = sorted(set(chosen) - set(input_names))
    if missing:
        raise BadInputError(f"Inputs {missing} do not exist; choose from {', '.join(input_names)}")
    return [input_names.index(name) for name in chosen]


def joined(first: Rows, second: Rows) -> Rows:
    """Return the rows of two windows as those of one."""
    pairs = ((first.index, second.index), (first.series, second.series), (first.open_time_ms, second.open_time_ms))
    index, series, times = (np.concatenate(pair) for pair in pairs)
    return Rows(index, series, times, np.concatenate([first.label, second.label]))


def thinned(rows: Rows, stride: int, timeframe_ms: int) -> Rows:
    """Return the rows of every n-th candle of the clock: neighbours share nearly all of their labels."""
    return rows.take((rows.open_time_ms // timeframe_ms) % stride == 0)
