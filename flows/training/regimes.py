"""Regime thresholds learned on the fit window, and how predictions fare in each regime."""

from __future__ import annotations

import numpy as np

from feature_store.errors import BadInputError
from flows.training.dataset import Dataset, Floats, Rows
from inference.regime.market import MarketRegime, RegimeThresholds, efficiency_ratio, regimes, volatility

# The most efficient third of the fit window's stretches counts as trends, as volatility is cut into thirds.
_TREND_QUANTILE = 2 / 3
_TERCILES = (1 / 3, 2 / 3)
_LEAST_ROWS = 30


def learn_regimes(dataset: Dataset, fit: Rows) -> RegimeThresholds:
    """
    Learn where regimes part from the returns before each row of the fit window, and from nothing else.

    Raises:
        BadInputError: No series moved.
    """
    moves, ratios = _measured(dataset, fit)
    moving = moves > 0
    if not moving.any():
        raise BadInputError("No series moves in the fit window: there is nothing to learn from constant prices")
    by_symbol = {
        dataset.symbols[number]: _edges(moves[own])
        for number in np.unique(fit.series)
        if (own := moving & (fit.series == number)).sum() >= _LEAST_ROWS
    }
    efficiency = float(np.clip(np.quantile(ratios[moving], _TREND_QUANTILE), 1e-6, 1 - 1e-6))
    return RegimeThresholds(efficiency=efficiency, volatility=_edges(moves[moving]), by_symbol=by_symbol)


def regime_metrics(dataset: Dataset, rows: Rows, expected: Floats, thresholds: RegimeThresholds) -> dict[str, float]:
    """Return each regime's share of the rows, and how often the sign of what was expected came true in it."""
    found = np.concatenate([
        np.array(regimes(dataset.returns(part), [dataset.symbols[one] for one in part.series], thresholds))
        for part in dataset.batches(rows)
    ])  # fmt: skip
    right = np.sign(expected) == np.sign(rows.label)
    moved = rows.label != 0
    metrics = {}
    for regime in MarketRegime:
        inside = found == regime.value
        metrics[f"{regime}/share"] = float(inside.mean())
        if (inside & moved).any():
            metrics[f"{regime}/hit_rate"] = float(right[inside & moved].mean())
    return metrics


def _measured(dataset: Dataset, rows: Rows) -> tuple[Floats, Floats]:
    parts = [dataset.returns(part) for part in dataset.batches(rows)]
    return (
        np.concatenate([volatility(part) for part in parts]),
        np.concatenate([efficiency_ratio(part) for part in parts]),
    )


def _edges(moves: Floats) -> tuple[float, float]:
    low, high = np.quantile(moves, _TERCILES)
    return float(low), float(high)
