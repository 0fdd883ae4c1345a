"""What all series of a moment have in common, taken off what is learned and what is said of each."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def without_market(values: Floats, open_time_ms: npt.NDArray[np.int64], share: float) -> Floats:
    """
    Return values with a share of their mean over all series of the same moment taken off.

    What the whole market does in the next hour is most of an outcome and hardly foreseeable; without it the same
    candles say more about what is. What a model says of all series alike is mostly what it learned of chance, and
    would be one large bet instead of many small ones. A series that is alone at its moment keeps all of its value;
    one without a value (NaN) counts for nothing.
    """
    known = np.isfinite(values)
    if share == 0.0 or not known.any():
        return values
    _, moment = np.unique(open_time_ms[known], return_inverse=True)
    count = np.bincount(moment)
    mean = np.bincount(moment, weights=values[known]) / count
    out = values.copy()
    out[known] -= (share * (1 - 1 / count) * mean)[moment]
    return out
