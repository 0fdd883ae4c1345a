"""Features of many series at once, on several threads, in one table whose columns lie side by side."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import numpy as np

from feature_store.errors import BadInputError
from feature_store.features.engine import FEATURE_COUNT, FeatureEngine

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from feature_store.candle import CandleBlock, Timeframe

    Floats = npt.NDArray[np.float64]


def features_of(
    blocks: Sequence[CandleBlock], timeframe: Timeframe, *, threads: int = 1, out: Floats | None = None
) -> Floats:
    """
    Return the features of several series, one behind the other: [49, candles of all].

    Each series is computed by itself, as `FeatureEngine` does. The kernel runs without Python's lock.

    Args:
        blocks: One block for each series, from its beginning.
        timeframe: Of all of them.
        threads: How many series are computed at a time.
        out: Where the features go; memory that was used before is several times as fast as new memory.

    Raises:
        BadInputError: A block could not have come from a market, or `out` has another shape.
    """
    edges = [0, *accumulate(len(block) for block in blocks)]
    if out is None:
        out = np.empty((FEATURE_COUNT, edges[-1]))
    if out.shape != (FEATURE_COUNT, edges[-1]):
        raise BadInputError(f"Features of {edges[-1]} candles need room [49, {edges[-1]}], was given {out.shape}")
    goals = [out[:, begin:end].T for begin, end in pairwise(edges)]
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(lambda block, goal: FeatureEngine(timeframe).advance(block, goal), blocks, goals):
            pass
    return out
