"""How much of a label is its own: concurrency, average uniqueness, and weights made of them (Lopez de Prado, 2018)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from feature_store.errors import BadInputError
from flows.training.config import TrainingConfig
from flows.training.dataset import Floats, Rows, Times
from inference.models.manifest import TimeWindow

_MOST_CANDLES = 50_000_000


def concurrency(start_ms: Times, end_ms: Times, *, step_ms: int) -> npt.NDArray[np.int64]:
    """
    Return how many labels are open in each candle, from the earliest start to the latest end.

    A label is open in `[start_ms, end_ms)`: from the close at which it was decided to the close at which it is known.

    Raises:
        BadInputError: A label ends before it starts, or starts or ends off the grid of candles.
    """
    first, last = _places(start_ms, end_ms, step_ms)
    if len(first) == 0:
        return np.empty(0, np.int64)
    change = np.bincount(first, minlength=int(last.max()) + 1)
    change -= np.bincount(last, minlength=len(change))
    return np.asarray(np.cumsum(change)[:-1], np.int64)


def average_uniqueness(start_ms: Times, end_ms: Times, *, step_ms: int) -> Floats:
    """
    Return for each label of one series the mean over its candles of one over the labels open there.

    1 for a label that shares none of its candles, 1 / n for one of n that all span the same. Rows may come in any
    order; see `concurrency` for what is refused.
    """
    first, last = _places(start_ms, end_ms, step_ms)
    open_labels = concurrency(start_ms, end_ms, step_ms=step_ms)
    shares = np.divide(1.0, open_labels, out=np.zeros(len(open_labels)), where=open_labels > 0)
    total = np.concatenate([[0.0], np.cumsum(shares)])
    return np.asarray((total[last] - total[first]) / (last - first))


def time_decay(uniqueness: Floats, oldest: float) -> Floats:
    """
    Return weights that fall in a straight line from 1 for the newest label to `oldest` for the oldest.

    Age is counted in unique labels, not in candles. Below zero, `oldest` is the share of all labels, the oldest ones,
    that get no weight. Labels come oldest first.

    Raises:
        BadInputError: `oldest` lies outside (-1, 1].
    """
    if not -1 < oldest <= 1:
        raise BadInputError(f"The weight of the oldest label lies in (-1, 1], was {oldest}")
    age = np.cumsum(uniqueness)
    if len(age) == 0:
        return np.empty(0)
    slope = (1 - oldest) / age[-1] if oldest >= 0 else 1 / ((oldest + 1) * age[-1])
    return np.asarray(np.maximum(1 + slope * (age - age[-1]), 0.0))


def overlapping(start_ms: Times, end_ms: Times, window: TimeWindow) -> npt.NDArray[np.bool_]:
    """Mark the labels that are open at any time in a window: what learning must drop where the window judges."""
    return np.asarray((start_ms < window.end_ms) & (end_ms > window.start_ms))


def row_weights(rows: Rows, config: TrainingConfig, *, timeframe_ms: int, end_ms: Times | None = None) -> Floats | None:
    """
    Return what each row counts in learning, 1 on average, or None where all count alike.

    Overlap is counted within a series and among these rows alone: what other windows hold changes nothing. Labels end
    at `end_ms`, one horizon after they start where it is not given.
    """
    if config.row_weighting == "equal":
        return None
    weights = np.empty(len(rows))
    for one in np.unique(rows.series):
        own = np.flatnonzero(rows.series == one)
        start_ms = rows.open_time_ms[own] + timeframe_ms
        ends_ms = start_ms + config.horizon * timeframe_ms if end_ms is None else end_ms[own]
        weights[own] = average_uniqueness(start_ms, ends_ms, step_ms=timeframe_ms)
    return np.asarray(weights / weights.mean())


def _places(start_ms: Times, end_ms: Times, step_ms: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    if len(start_ms) == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    first, last = start_ms - start_ms.min(), end_ms - start_ms.min()
    if (end_ms <= start_ms).any() or (first % step_ms).any() or (last % step_ms).any():
        raise BadInputError(f"Labels start and end on closes {step_ms} ms apart, and end after they start")
    if last.max() // step_ms > _MOST_CANDLES:
        raise BadInputError(f"Labels reach over {last.max() // step_ms:,} candles; are their times milliseconds?")
    return first // step_ms, last // step_ms
