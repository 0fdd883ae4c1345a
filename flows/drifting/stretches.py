"""Rows cut into stretches of one length, each sketched: the reference, and what is held against it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from feature_store.stability import Sketch
from flows.drifting.check import Stretches
from inference.models.manifest import TimeWindow

MOST_STRETCHES = 60
"""The newest of the reference are kept: a market of a year ago is no measure of what a day may differ by."""


def stretches_of(
    name: str,
    columns: Sequence[str],
    values: npt.NDArray[np.floating],
    times: npt.NDArray[np.int64],
    *,
    reference: TimeWindow,
    end_ms: int,
    length_ms: int,
) -> Stretches:
    """
    Cut rows into stretches of one length: back from the reference's end, and the newest that ends at `end_ms`.

    Args:
        name: Of the group.
        columns: Names, in the order of the columns of `values` [rows, columns].
        values: What is compared; what is not finite counts as missing.
        times: Open time of each row's candle.
        reference: What the newest stretch is held against.
        end_ms: Where the newest stretch ends.
        length_ms: How long each is.
    """
    until = min(reference.end_ms, end_ms - length_ms)
    count = min(max((until - reference.start_ms) // length_ms, 0), MOST_STRETCHES)
    begins = [until - (back + 1) * length_ms for back in reversed(range(count))]
    before = [sketches_of(values, times, begin, begin + length_ms) for begin in begins]
    return Stretches(name, tuple(columns), before, sketches_of(values, times, end_ms - length_ms, end_ms))


def sketches_of(
    values: npt.NDArray[np.floating], times: npt.NDArray[np.int64], start_ms: int, end_ms: int
) -> list[Sketch]:
    """Return a sketch of each column over the rows of `[start_ms, end_ms)`."""
    inside = values[(times >= start_ms) & (times < end_ms)]
    return [Sketch.of(inside[:, place]) for place in range(values.shape[1])]
