"""What a champion delivered, block of time by block of time, as the sequential test looks at it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from flows.training.dataset import Rows
from flows.training.trading import Trades

Floats = npt.NDArray[np.float64]

BLOCK_HORIZONS = 6
"""How many horizons are one block: long enough that blocks share hardly any outcome, short enough to have many."""
_FEWEST_ROWS = 10


def block_measures(
    rows: Rows,
    expected: Floats,
    probability_up: Floats,
    trades: Trades,
    *,
    start_ms: int,
    end_ms: int,
    horizon_ms: int,
    series: int,
) -> dict[str, Floats]:
    """
    Return each measure of `degrading.MEASURES` for every whole block in `[start_ms, end_ms)`, oldest first.

    All series of a block count together: what moved everything at once is one event. A block with too few outcomes, or
    none that moved, has NaN; one in which nothing was traded earned 0. `rmse_skill` is by how much the root of the mean
    squared error is smaller than that of expecting nothing, as a share: errors themselves follow the volatility of
    the block, and would call a lively day a bad model.

    Args:
        rows: Matured rows with their forward log returns.
        expected: Expected log return of each row.
        probability_up: Calibrated probability of a rise of each row.
        trades: What the threshold rule made of them, net of costs.
        start_ms: Where blocks begin.
        end_ms: Where they end; an unfinished last block is left for the next check.
        horizon_ms: How far ahead labels look.
        series: How many series could be traded.
    """
    block_ms = BLOCK_HORIZONS * horizon_ms
    count = max((end_ms - start_ms) // block_ms, 0)
    place = (rows.open_time_ms - start_ms) // block_ms
    moved = (place >= 0) & (place < count) & (rows.label != 0) & np.isfinite(expected)
    place, label, expected, up = place[moved], rows.label[moved], expected[moved], probability_up[moved]
    n = np.bincount(place, minlength=count).astype(np.float64)
    enough = n >= _FEWEST_ROWS

    def mean(values: Floats) -> Floats:
        total = np.bincount(place, weights=values, minlength=count)
        return np.where(enough, total / np.maximum(n, 1), np.nan)

    rose = label > 0
    hit = np.where(expected != 0, np.sign(expected) == np.sign(label), 0.5).astype(np.float64)
    sums: Floats = np.zeros(count)
    if len(trades):
        entered = (trades.entry_ms - start_ms) // block_ms
        inside = (entered >= 0) & (entered < count)
        sums = np.bincount(entered[inside], weights=trades.net[inside], minlength=count).astype(np.float64)
    net = np.where(enough, sums / (BLOCK_HORIZONS * series) * 1e4, np.nan)
    return {
        "net_per_slot_bps": net,
        "net_below_flat_bps": net,
        "ic": _correlation(mean, expected, label),
        "rmse_skill": 1 - np.sqrt(mean((label - expected) ** 2) / mean(label**2)),
        "hit_rate_above_half": mean(hit) - 0.5,
        "brier_gain": mean(0.25 - (up - rose) ** 2),
        "calibration": mean(np.where(up > 0.5, rose, ~rose) - np.maximum(up, 1 - up)),
    }


def _correlation(mean: Callable[[Floats], Floats], expected: Floats, label: Floats) -> Floats:
    p, y = mean(expected), mean(label)
    covariance = mean(expected * label) - p * y
    spread = (mean(expected**2) - p**2) * (mean(label**2) - y**2)
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Floats = np.where(spread > 0, covariance / np.sqrt(np.maximum(spread, 0.0)), np.nan)
    return found
