"""How good predictions were: errors, correlations and calibration, each with an interval."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from flows.training.dataset import Floats, Rows
from flows.training.moments import BlockSums, Interval, Sampling, Statistic, Sums, interval_of, ratio


def ranks(values: Floats) -> Floats:
    """Return average ranks, ties sharing theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse].astype(np.float64)


def prediction_sums(rows: Rows, predicted: Floats, *, block_ms: int) -> BlockSums:
    """Return what every prediction statistic is computed from."""
    label = rows.label
    moved = (label != 0) & (predicted != 0)
    rank_p, rank_y = ranks(predicted), ranks(label)
    centred_p, centred_y = rank_p - rank_p.mean(), rank_y - rank_y.mean()
    return BlockSums.of(
        rows.open_time_ms,
        block_ms,
        {
            "n": np.ones(len(label)),
            "y": label,
            "p": predicted,
            "yy": label**2,
            "pp": predicted**2,
            "py": predicted * label,
            "absolute": np.abs(label - predicted),
            "hits": (moved & (np.sign(label) == np.sign(predicted))).astype(np.float64),
            "moved": moved.astype(np.float64),
            "ry": centred_y,
            "rp": centred_p,
            "ryy": centred_y**2,
            "rpp": centred_p**2,
            "rpy": centred_p * centred_y,
        },
    )


def _squared_error(s: Sums) -> Floats:
    return s["yy"] - 2 * s["py"] + s["pp"]


def _slope(s: Sums) -> Floats:
    spread = s["pp"] - s["p"] ** 2 / s["n"]
    # As below: rounding leaves a constant prediction with a spread of next to nothing.
    return ratio(s["py"] - s["p"] * s["y"] / s["n"], np.where(spread <= 1e-12 * s["pp"], 0.0, spread))


def _correlation(s: Sums, p: str, y: str, prefix: str = "") -> Floats:
    n = s["n"]
    covariance = s[f"{prefix}py"] - s[p] * s[y] / n
    spread = (s[f"{prefix}pp"] - s[p] ** 2 / n) * (s[f"{prefix}yy"] - s[y] ** 2 / n)
    # Rounding leaves a constant prediction with a spread of next to nothing.
    negligible = spread <= 1e-12 * s[f"{prefix}pp"] * s[f"{prefix}yy"]
    return ratio(covariance, np.where(negligible, 0.0, np.sqrt(np.maximum(spread, 0))))


STATISTICS: dict[str, Statistic] = {
    "rmse": lambda s: np.sqrt(_squared_error(s) / s["n"]),
    "mae": lambda s: s["absolute"] / s["n"],
    # Against the mean of what came, which nobody knew beforehand.
    "r2": lambda s: 1 - ratio(_squared_error(s), s["yy"] - s["y"] ** 2 / s["n"]),
    # Against "nothing will happen", which anybody could have said.
    "rmse_skill": lambda s: 1 - np.sqrt(ratio(_squared_error(s), s["yy"])),
    "ic": lambda s: _correlation(s, "p", "y"),
    "rank_ic": lambda s: _correlation(s, "rp", "ry", "r"),
    "hit_rate": lambda s: ratio(s["hits"], s["moved"]),
    # By how much an outcome rises where one more was expected: 1 says that sizes are right, 0 that they mean nothing.
    "calibration_slope": _slope,
}


def prediction_metrics(rows: Rows, predicted: Floats, sampling: Sampling) -> dict[str, float]:
    """Return every statistic of one predictor, each with `_low` and `_high` beside it."""
    return spreads(prediction_sums(rows, predicted, block_ms=sampling.block_ms).intervals(STATISTICS, sampling))


def spreads(intervals: Mapping[str, Interval]) -> dict[str, float]:
    """Return intervals by name as three figures each."""
    return {name: value for one, interval in intervals.items() for name, value in spread(one, interval).items()}


def spread(name: str, interval: Interval) -> dict[str, float]:
    """Return an interval as three figures."""
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def prefixed(prefix: str, figures: Mapping[str, float]) -> dict[str, float]:
    """Return the finite figures, named under a prefix; what has no value is left out rather than invented."""
    return {f"{prefix}/{name}": float(value) for name, value in figures.items() if math.isfinite(value)}


def size_curve(rows: Rows, predicted: Floats, bins: int = 10) -> tuple[tuple[float, float], ...]:
    """Return mean prediction and mean outcome in bins of equally many predictions, rising; none where none varies."""
    if not len(predicted) or np.ptp(predicted) == 0:
        return ()
    parts = [part for part in np.array_split(np.argsort(predicted, kind="stable"), bins) if len(part)]
    return tuple((float(predicted[part].mean()), float(rows.label[part].mean())) for part in parts)


class CalibrationCurve:
    """Stated against observed probability, in bins of equally many predictions; `bins` are the places in each."""

    def __init__(self, probability_up: Floats, rose: npt.NDArray[np.bool_], bins: int = 10) -> None:
        order = np.argsort(probability_up, kind="stable")
        self.bins = parts = [part for part in np.array_split(order, bins) if len(part)]
        self.stated = [float(probability_up[part].mean()) for part in parts]
        self.observed = [float(rose[part].mean()) for part in parts]
        self.count = [len(part) for part in parts]

    @property
    def error(self) -> float:
        """Mean distance between stated and observed probability, weighted by how often it was stated."""
        if not self.count:
            return float("nan")
        distance = np.abs(np.subtract(self.stated, self.observed))
        return float(np.average(distance, weights=self.count))


def reliability(rows: Rows, probability_up: Floats) -> CalibrationCurve:
    """Return stated against observed probability of a rise, of the rows on which the price moved."""
    moved = rows.label != 0
    return CalibrationCurve(probability_up[moved], rows.label[moved] > 0)


def calibration_sums(rows: Rows, probability_up: Floats, *, block_ms: int) -> BlockSums:
    """
    Return what Brier score and calibration error are computed from, of the rows on which the price moved.

    Bins are those of all rows, whatever blocks are drawn.
    """
    moved = rows.label != 0
    stated, rose = probability_up[moved], rows.label[moved] > 0
    columns: dict[str, Floats] = {"n": np.ones(len(stated)), "squared": (stated - rose) ** 2}
    for place, part in enumerate(CalibrationCurve(stated, rose).bins):
        columns[f"gap{place}"] = gap = np.zeros(len(stated))
        gap[part] = stated[part] - rose[part]
    return BlockSums.of(rows.open_time_ms[moved], block_ms, columns)


def brier(s: Sums) -> Floats:
    """Return the mean squared distance of stated probability and what came."""
    return s["squared"] / s["n"]


def calibration_error(s: Sums) -> Floats:
    """Return the mean distance of stated and observed probability over the bins."""
    return np.asarray(sum(np.abs(values) for name, values in s.items() if name.startswith("gap")) / s["n"])


def calibration_metrics(rows: Rows, probability_up: Floats, sampling: Sampling) -> dict[str, float]:
    """
    Return Brier score, its skill against a coin, and the calibration error, each with its interval.

    A whole market that drifts for some days moves every bin at once; `calibration_error_centred` measures the bins
    after that common shift is taken off, which is what a model can be held to.
    """
    curve = reliability(rows, probability_up)
    if not curve.count:
        return {}
    sums = calibration_sums(rows, probability_up, block_ms=sampling.block_ms)
    gap = np.subtract(curve.observed, curve.stated)
    centred = np.average(np.abs(gap - np.average(gap, weights=curve.count)), weights=curve.count)
    drawn = sums.drawn(sampling)
    error = interval_of(curve.error, None if drawn is None else calibration_error(drawn), is_leaning=True)
    return {
        **spreads(sums.intervals({"brier": brier, "brier_skill": lambda s: 1 - brier(s) / 0.25}, sampling)),
        "calibration_error": error.value,
        # A distance is never negative.
        "calibration_error_low": max(error.low, 0.0) if math.isfinite(error.low) else error.low,
        "calibration_error_high": error.high,
        "calibration_error_centred": float(centred),
    }


def independent_outcomes(rows: Rows, *, horizon_ms: int) -> float:
    """
    Return how many outcomes the rows are worth: horizons that do not overlap, times series that do not move together.

    With n series of average correlation r a moment is worth n / (1 + (n - 1) r) outcomes.
    """
    if not len(rows):
        return 0.0
    grid = (rows.open_time_ms - rows.open_time_ms.min()) // horizon_ms
    on_grid = (rows.open_time_ms - rows.open_time_ms.min()) % horizon_ms == 0
    times, series = np.unique(grid[on_grid]), np.unique(rows.series)
    table = np.full((len(times), len(series)), np.nan)
    table[np.searchsorted(times, grid[on_grid]), np.searchsorted(series, rows.series[on_grid])] = rows.label[on_grid]
    whole = table[np.isfinite(table).all(axis=1)]
    n = len(series)
    correlation = 0.0
    if n > 1 and len(whole) > 2:
        matrix = np.corrcoef(whole.T)
        correlation = float(np.nanmean(matrix[~np.eye(n, dtype=bool)]))
    return float(len(times) * n / (1 + (n - 1) * min(max(correlation, 0.0), 1.0)))
