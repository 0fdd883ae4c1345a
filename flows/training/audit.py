"""Auditors of a training run: what was fitted is fitted again beside a twin whose later candles are nonsense."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import msgspec
import numpy as np
import numpy.typing as npt

from flows.training.baselines import Ridge
from flows.training.combine import Combined
from flows.training.config import NetConfig, TrainingConfig, TreeConfig
from flows.training.dataset import Dataset, Floats, FrameSet, Rows, TrainingFrame, thinned
from flows.training.members.base import MemberTrainer
from flows.training.moments import BlockSums, Interval, Sampling, ratio
from flows.training.splits import Splits
from flows.training.tripwires import Trip
from inference.models.manifest import TimeWindow

_SERIES = 2
_FIT_CANDLES = 600
_AFTER_CANDLES = 200
_MOST_LABELS = 4_000
_MOST_ROWS = 20_000
# Of the next candles, how many an input is held against one by one.
_LEADS = 3

Learn = Callable[[FrameSet], Combined | None]


def twin(frames: FrameSet, from_ms: int, *, seed: int = 0) -> FrameSet:
    """Return the frames with nonsense in every candle that opens at or after a moment: inputs, moves and prices."""
    rng = np.random.default_rng(seed)
    return replace(frames, frames=tuple(_nonsense(frame, from_ms, rng) for frame in frames.frames))


def _nonsense(frame: TrainingFrame, from_ms: int, rng: np.random.Generator) -> TrainingFrame:
    late = frame.open_time_ms >= from_ms
    inputs, close, moves = frame.inputs.copy(), frame.close.copy(), frame.log_return.copy()
    inputs[late] = 100 * rng.standard_normal(inputs[late].shape)
    close[late] = np.exp(3 * rng.standard_normal(int(late.sum())))
    moves[late] = rng.standard_normal(int(late.sum()))
    return replace(frame, inputs=inputs, close=close, log_return=moves)


def excerpt(frames: FrameSet, start_ms: int, end_ms: int, series: int = _SERIES) -> FrameSet:
    """Return of the series with most to learn from the candles that open in `[start_ms, end_ms)`."""
    parts = []
    for frame in frames.frames:
        first, last = np.searchsorted(frame.open_time_ms, [start_ms, end_ms]).tolist()
        if last > first:
            parts.append(_between(frame, slice(first, last)))
    parts.sort(key=_usable, reverse=True)
    return replace(frames, frames=tuple(parts[:series]))


def _usable(frame: TrainingFrame) -> int:
    there = np.isfinite(frame.inputs).all(axis=1)
    return int((there if frame.eligible is None else there & frame.eligible).sum())


def _between(frame: TrainingFrame, part: slice) -> TrainingFrame:
    learned = frame.learned
    return TrainingFrame(
        frame.symbol,
        frame.open_time_ms[part],
        frame.inputs[part],
        frame.log_return[part],
        frame.close[part],
        None if frame.eligible is None else frame.eligible[part],
        None if frame.late is None else frame.late[part],
        None
        if learned is None
        else replace(
            learned, value=learned.value[part], end_ms=learned.end_ms[part], latest_end_ms=learned.latest_end_ms[part]
        ),
    )


def audit_labels(dataset: Dataset, frames: FrameSet) -> list[Trip]:
    """
    Look up what came of a sample of rows once more, price by price.

    A label is the log return from the close of its own candle to the close `horizon` candles later: one that begins
    earlier holds what inputs know, one that ends later is known later than folds and windows assume.
    """
    step, horizon, first = frames.timeframe_ms, dataset.horizon, 0
    wrong = checked = 0
    for frame in frames.frames:
        times, said = frame.open_time_ms, dataset.label[first : first + len(frame.close)]
        first += len(frame.close)
        sample = np.unique(np.linspace(0, len(times) - 1, min(len(times), _MOST_LABELS // len(frames.frames) + 1)))
        at = sample.astype(np.int64)
        then = np.searchsorted(times, times[at] + horizon * step)
        there = (then < len(times)) & (times[np.minimum(then, len(times) - 1)] == times[at] + horizon * step)
        told = np.isfinite(said[at])
        expected = np.log(frame.close[then[there & told]] / frame.close[at[there & told]])
        wrong += int((told & ~there).sum())
        wrong += int((np.abs(expected - said[at[there & told]]) > 1e-9).sum())
        checked += int(told.sum())
    if not wrong:
        return []
    return [
        Trip(
            wire="label",
            value=float(wrong),
            bound=0.0,
            told=(
                f"{wrong:,} of {checked:,} labels are not the log return from their candle's close to the close "
                f"{horizon} candles later: they begin before the decision, or end after the horizon"
            ),
            remedy="look at what computes labels (feature_store/labels.py and Dataset); no candidate of it may trade",
        )
    ]


def audit_inputs(dataset: Dataset, splits: Splits, config: TrainingConfig) -> list[Trip]:
    """
    Hold every input against what came: the return of each of the next candles alone, and that over the horizon.

    Shifted into the future, an input moves with a candle that has not begun as it should with its own. Judged by
    the lower ends of block-bootstrap intervals, on all rows that may be learned from or chosen by.
    """
    bounds = config.tripwires
    span = TimeWindow(start_ms=splits.fit.start_ms, end_ms=splits.calibration.end_ms)
    everything = dataset.rows(span, splits)
    rows = thinned(everything, max(-(-len(everything) // _MOST_ROWS), 1), dataset.timeframe_ms)
    if len(rows) < 50:
        return []
    sampling = Sampling(block_ms=2 * splits.horizon_ms, samples=config.bootstrap_samples, seed=config.seed)
    inputs = dataset.inputs(rows).astype(np.float64)
    trips = []
    for lead in range(1, min(_LEADS, dataset.horizon) + 1):
        came = dataset.returns_all[np.minimum(rows.index + lead, len(dataset.returns_all) - 1)].astype(np.float64)
        for name, found in _implausible(dataset, rows, inputs, came, bounds.next_candle_ic, sampling):
            trips.append(
                Trip(
                    wire="future_input",
                    value=found.value,
                    bound=bounds.next_candle_ic,
                    told=(
                        f"input {name} has a correlation of {found.value:.2f} (95 % from {abs_low(found):.2f}) with "
                        f"the return of candle t+{lead} alone: it is shifted into the future, or holds what comes"
                    ),
                    remedy=f"look at what computes {name}, and from when on it is known; leave it out until then",
                )
            )
    if trips:
        return trips
    for name, found in _implausible(dataset, rows, inputs, rows.label, bounds.input_ic, sampling):
        trips.append(
            Trip(
                wire="label_in_input",
                value=found.value,
                bound=bounds.input_ic,
                told=(
                    f"input {name} has a correlation of {found.value:.2f} (95 % from {abs_low(found):.2f}) with the "
                    f"return over the next {dataset.horizon} candles: the label is in it"
                ),
                remedy=f"look at what computes {name}; leave it out until then",
            )
        )
    return trips


def abs_low(found: Interval) -> float:
    """Return the end of an interval that lies nearer to zero, without its sign; 0 where zero is inside."""
    return min(abs(found.low), abs(found.high)) if found.low * found.high > 0 else 0.0


def _implausible(
    dataset: Dataset, rows: Rows, inputs: Floats, came: Floats, bound: float, sampling: Sampling
) -> Iterable[tuple[str, Interval]]:
    there = np.isfinite(came)
    values = _correlations(inputs[there], came[there])
    # Only what exceeds the bound is worth an interval.
    for column in np.flatnonzero(np.abs(values) > bound).tolist():
        sums = _sums(rows.open_time_ms[there], inputs[there, column], came[there], sampling.block_ms)
        found = sums.interval(
            lambda s: ratio(
                s["py"] - s["p"] * s["y"] / s["n"],
                np.sqrt(np.maximum((s["pp"] - s["p"] ** 2 / s["n"]) * (s["yy"] - s["y"] ** 2 / s["n"]), 0)),
            ),
            sampling,
        )
        if abs_low(found) > bound:
            yield dataset.input_names[column], found


def _sums(times: npt.NDArray[np.int64], said: Floats, came: Floats, block_ms: int) -> BlockSums:
    p, y = said - said.mean(), came - came.mean()
    columns = {"n": np.ones(len(p)), "p": p, "y": y, "pp": p**2, "yy": y**2, "py": p * y}
    return BlockSums.of(times, block_ms, columns)


def _correlations(inputs: Floats, came: Floats) -> Floats:
    p, y = inputs - inputs.mean(axis=0), came - came.mean()
    size = np.sqrt((p**2).sum(axis=0) * (y**2).sum())
    return np.asarray(np.divide(y @ p, size, out=np.zeros(len(size)), where=size > 0))


def audit_fitting(
    trainers: Mapping[str, MemberTrainer], frames: FrameSet, splits: Splits, config: TrainingConfig
) -> list[Trip]:
    """
    Fit every member and the ridge for a moment, once more beside a twin, and compare what they say of their rows.

    In the twin all that opens after the fit window is nonsense. A scaler, a choice of inputs or a net that looked
    there says something else.
    """
    start_ms = max(splits.fit.end_ms - (_FIT_CANDLES + config.window) * frames.timeframe_ms, splits.fit.start_ms)
    some = excerpt(
        frames,
        start_ms - config.window * frames.timeframe_ms,
        splits.fit.end_ms + _AFTER_CANDLES * frames.timeframe_ms,
    )
    if not some.frames:
        return []
    small = shrunk(config)
    own = msgspec.structs.replace(splits, fit=TimeWindow(start_ms=start_ms, end_ms=splits.fit.end_ms))
    said = [_said(trainers, one, own, small) for one in (some, twin(some, splits.fit.end_ms))]
    changed = sorted(name for name in said[0] if not _alike(said[0][name], said[1][name]))
    if not changed:
        return []
    return [
        Trip(
            wire="scaler",
            value=float(len(changed)),
            bound=0.0,
            told=(
                f"of the same rows {', '.join(changed[:5])}{', …' * (len(changed) > 5)} say something else where later "
                "candles are others: a scale, a choice of inputs or a weight is measured on what follows the fit window"
            ),
            remedy="measure it on the rows that `fit` is given, and on nothing else",
        )
    ]


def _alike(one: Floats, other: Floats) -> bool:
    """Tell whether two answers are the same, up to what nets on an accelerator differ by from run to run."""
    return bool(np.allclose(one, other, rtol=0, atol=1e-3 * float(np.nanstd(one)) + 1e-12, equal_nan=True))


def shrunk(config: TrainingConfig) -> TrainingConfig:
    """Return a configuration whose members are fitted for a moment only, whichever there are."""
    changes: dict[str, object] = {}
    for name in config.__struct_fields__:
        value = getattr(config, name)
        if isinstance(value, TreeConfig):
            changes[name] = msgspec.structs.replace(value, rounds=2, min_leaf_rows=20)
        elif isinstance(value, NetConfig):
            changes[name] = msgspec.structs.replace(
                value, max_steps=1, hidden=4, windows_per_batch=16, series_per_batch=2
            )
    return msgspec.structs.replace(config, **changes)


def _said(
    trainers: Mapping[str, MemberTrainer], frames: FrameSet, splits: Splits, config: TrainingConfig
) -> dict[str, Floats]:
    dataset = Dataset(frames, horizon=config.horizon, window=config.window)
    rows = dataset.learned_rows(splits)
    if len(rows) < 50:
        return {}
    sample = rows.take(np.unique(np.linspace(0, len(rows) - 1, 64).astype(np.int64)))
    said = {name: fit(dataset, rows, config, _unseen).predict(dataset, sample) for name, fit in trainers.items()}
    read = dataset.columns(sample, config.row_inputs(dataset.input_names)).astype(np.float64)
    # Each input in its own place, so that a tolerance by spread means one of its own.
    said |= {f"input {name}": read[:, place] for place, name in enumerate(config.row_inputs(dataset.input_names))}
    return said | {"ridge": Ridge.fit(dataset, rows, config).predict(dataset, sample)}


def _unseen(_step: str, _share: float) -> None:
    """Progress that nobody watches."""


def audit_rule(learn: Learn, frames: FrameSet, splits: Splits, window: int) -> list[Trip]:
    """
    Learn scales, weights, calibration and threshold again, beside a twin, from what the trained members say.

    In the twin all that opens after the calibration window is nonsense, the shadow window first of all. A calibrator
    that saw any of it is another.

    Args:
        learn: What combines the trained members on the windows of some frames; None where these hold too little.
        frames: Of the run.
        splits: Its windows.
        window: How many candles members read before each row.
    """
    some = excerpt(frames, splits.validation.start_ms - 2 * window * frames.timeframe_ms, splits.shadow.end_ms)
    if not some.frames:
        return []
    first, second = learn(some), learn(twin(some, splits.calibration.end_ms))
    if first is None:
        return []
    numbers = {} if second is None else _numbers(second)
    changed = [name for name, one in _numbers(first).items() if not np.array_equal(one, numbers.get(name, np.nan))]
    if not changed:
        return []
    return [
        Trip(
            wire="calibration",
            value=float(len(changed)),
            bound=0.0,
            told=(
                f"{', '.join(changed)} of the ensemble come out different where the candles after the calibration "
                "window are others: they are learned from the locked window, which must judge them"
            ),
            remedy="learn them from the validation and the calibration window alone",
        )
    ]


def _numbers(one: Combined) -> dict[str, npt.NDArray[np.float64]]:
    return {
        "scales": np.array([*one.scales.values(), one.scale]),
        "weights": np.array(list(one.weights.values())),
        "calibration": np.array([one.table.expected_return, one.table.probability_up]),
        "threshold": np.array([one.threshold]),
        "bound": np.array([one.bound]),
    }
