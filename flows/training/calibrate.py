"""From raw predictions to a calibrated rule: scales, weights, probabilities and threshold, on rows no member saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from feature_store.errors import BadInputError
from flows.training.config import TrainingConfig
from flows.training.dataset import Floats, Rows, joined
from flows.training.moments import BlockSums
from flows.training.trading import simulate
from inference.models.manifest import CalibrationTable
from inference.models.market_move import without_market

THRESHOLDS = tuple(round(0.51 + 0.01 * step, 2) for step in range(25))
"""Every confidence that is tried; a training's `threshold_bounds` say which of them it may choose."""
# Thresholds to each side that a threshold is judged with.
_NEIGHBOURS = 3
_SCALE_BOUNDS = (0.05, 1.5)
_POINTS = 101


def shrinking_scale(
    predicted: Floats, rows: Rows, market_share: float, bounds: tuple[float, float] = _SCALE_BOUNDS
) -> float:
    """
    Return the factor that makes predictions right on average, from rows they were not fitted on.

    The least-squares slope through zero: noise that a member learned makes its predictions too large, and the slope
    takes that back. Most of the market's common move is left out, on both sides: it is mostly chance, and one day of
    it would move the slope more than all skill. Bounded below, so that a member without skill whispers instead of
    vanishing.
    """
    own = without_market(predicted, rows.open_time_ms, market_share)
    size = float(own @ own)
    slope = float(own @ without_market(rows.label, rows.open_time_ms, market_share)) / size if size > 0 else 0.0
    return float(np.clip(slope, *bounds))


def skill_weights(skill: Mapping[str, float], *, shrinkage: float, cap: float) -> dict[str, float]:
    """
    Return weights in proportion to positive skill, pulled to equal ones and capped.

    Without any skill they are equal. What the cap takes goes to the others, as far as each has room.
    """
    names = list(skill)
    equal = np.full(len(names), 1 / len(names))
    positive = np.array([max(skill[name], 0.0) if np.isfinite(skill[name]) else 0.0 for name in names])
    raw = positive / positive.sum() if positive.sum() > 0 else equal
    weights = _capped((1 - shrinkage) * raw + shrinkage * equal, max(cap, 1 / len(names)))
    return dict(zip(names, weights.tolist(), strict=True))


def _capped(weights: Floats, cap: float) -> Floats:
    held = np.minimum(weights, cap)
    room = cap - held
    # With a cap of at least an equal share there is always as much room as there is excess.
    excess = weights.sum() - held.sum()
    shared = held + (excess * room / room.sum() if excess > 0 and room.sum() > 0 else 0.0)
    return np.asarray(shared / shared.sum())


def fixed_weights(fixed: Mapping[str, float], members: Sequence[str]) -> dict[str, float]:
    """Return given weights, made to sum to one over the members that there are."""
    total = sum(fixed[name] for name in members)
    return {name: fixed[name] / total for name in members}


def fit_calibration(expected: Floats, label: Floats, method: Literal["logistic", "isotonic"]) -> CalibrationTable:
    """
    Return the curve from expected return to probability of a rise.

    Both methods are symmetric: minus the return, minus the odds. A month's drift is no reason to be long, and
    symmetry doubles what is learned from each outcome.
    """
    moved = label != 0
    x, rose = expected[moved], label[moved] > 0
    reach = float(np.quantile(np.abs(x), 0.995)) if len(x) else 0.0
    grid = np.linspace(-1.0, 1.0, _POINTS) * max(reach, 1e-9)
    logistic = method == "logistic"
    probability = _sigmoid(logistic_slope(x, rose) * grid) if logistic else _isotonic(x, rose, grid)
    probability = np.maximum.accumulate(np.clip(probability, 0.02, 0.98))
    return CalibrationTable(
        method=method, expected_return=tuple(grid.tolist()), probability_up=tuple(probability.tolist())
    )


def probabilities(table: CalibrationTable, expected: Floats) -> Floats:
    """Return the calibrated probability of a rise, as the worker computes it."""
    return np.interp(expected, table.expected_return, table.probability_up)


def _sigmoid(z: Floats) -> Floats:
    return 1 / (1 + np.exp(-z))


def logistic_slope(x: Floats, rose: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> float:
    """Return the slope, never negative, of a logistic curve through one half at zero, fitted by Newton's method."""
    spread = float(np.sqrt((x**2).mean())) if len(x) else 0.0
    if spread == 0:
        return 0.0
    z, slope = x / spread, 0.0
    for _ in range(50):
        p = _sigmoid(slope * z)
        step = float(((rose - p) * z).sum() / max((p * (1 - p) * z**2).sum(), 1e-9))
        slope = float(np.clip(slope + step, -5, 5))
        if abs(step) < 1e-9:
            break
    # A curve that falls would say: do the opposite of what the model says. Then say nothing.
    return max(slope, 0.0) / spread


def _isotonic(x: Floats, rose: np.ndarray[tuple[int], np.dtype[np.bool_]], grid: Floats) -> Floats:
    """Return pool-adjacent-violators fitted to outcomes and their mirror images, at the grid."""
    both, outcome = np.concatenate([x, -x]), np.concatenate([rose, ~rose]).astype(np.float64)
    order = np.argsort(both, kind="stable")
    parts = np.array_split(order, min(200, max(len(order) // 50, 2)))
    centres = np.array([both[part].mean() for part in parts])
    values, counts = [float(outcome[part].mean()) for part in parts], [len(part) for part in parts]
    pooled: list[tuple[float, int, int]] = []
    for value, count in zip(values, counts, strict=True):
        mean, weight, width = value, count, 1
        while pooled and pooled[-1][0] >= mean:
            before, heavier, wider = pooled.pop()
            mean = (mean * weight + before * heavier) / (weight + heavier)
            weight, width = weight + heavier, width + wider
        pooled.append((mean, weight, width))
    fitted = np.repeat([mean for mean, _, _ in pooled], [width for _, _, width in pooled])
    return np.asarray(np.interp(grid, centres, fitted), np.float64)


def thresholds_within(bounds: tuple[float, float]) -> tuple[float, ...]:
    """
    Return the confidences that are tried within bounds, both included, the least first.

    Raises:
        BadInputError: None is.
    """
    least, most = bounds
    found = tuple(one for one in THRESHOLDS if least <= one <= most)
    if not found:
        raise BadInputError(
            f"threshold_bounds must hold a confidence from {THRESHOLDS[0]} to {THRESHOLDS[-1]}, in hundredths, was "
            f"{least} to {most}"
        )
    return found


def choose_threshold(
    rows: Rows,
    expected: Floats,
    probability_up: Floats,
    *,
    cost: float,
    horizon_ms: int,
    min_trades: int,
    bounds: tuple[float, float] = (THRESHOLDS[0], THRESHOLDS[-1]),
) -> float:
    """
    Return the confidence within bounds from which trading paid most, net of costs, one standard error deducted.

    The middle of the best stretch of thresholds, not the best one: a peak that its neighbours do not share is chance.
    Where no threshold paid, the most cautious: then the gates have their say, not the threshold.

    Raises:
        BadInputError: No confidence that is tried lies within the bounds.
    """
    tried = thresholds_within(bounds)
    cautious = np.full(len(tried), np.nan)
    for place, threshold in enumerate(tried):
        trades = simulate(rows, expected, probability_up, threshold=threshold, cost=cost, horizon_ms=horizon_ms)
        if len(trades) >= min_trades:
            blocks = BlockSums.of(trades.entry_ms, 2 * horizon_ms, {"net": trades.net}).sums[:, 0]
            cautious[place] = blocks.sum() - np.sqrt(len(blocks)) * blocks.std()
    paid = np.flatnonzero(cautious > 0)
    if not len(paid):
        return tried[-1]
    stretch = [float(np.nanmean(cautious[max(place - _NEIGHBOURS, 0) : place + _NEIGHBOURS + 1])) for place in paid]
    return tried[int(paid[int(np.argmax(stretch))])]


@dataclass(frozen=True, slots=True)
class Rule:
    """One score made tradable: its scale, its calibration and its threshold."""

    scale: float
    calibration: CalibrationTable
    threshold: float


def fit_rule(windows: tuple[tuple[Rows, Floats], tuple[Rows, Floats]], config: TrainingConfig, horizon_ms: int) -> Rule:
    """
    Make a score tradable, from what it said of the validation and the calibration window.

    Both windows together: each alone holds some seventy independent hours, too few to place a threshold by.
    """
    rows = joined(windows[0][0], windows[1][0])
    score = np.concatenate([windows[0][1], windows[1][1]])
    # A mean of members that each erred on their own is too timid: it may be stretched again.
    scale = shrinking_scale(score, rows, config.market_share_removed, (0.05, 3.0))
    expected = score * scale
    table = fit_calibration(expected, rows.label, config.calibration_method)
    threshold = choose_threshold(
        rows,
        expected,
        probabilities(table, expected),
        cost=config.round_trip_cost,
        horizon_ms=horizon_ms,
        min_trades=config.min_threshold_trades,
        bounds=config.threshold_bounds,
    )
    return Rule(scale, table, threshold)
