"""Weights learned by stacking: what least squares makes of predictions that no member was fitted for."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LinearRegression

from flows.training.calibrate import skill_weights
from flows.training.dataset import Floats

_FOLDS = 5
# Members agree so much that plain least squares would give all to one or another by chance.
_RIDGE = 0.05


def stacking_weights(
    predictions: Mapping[str, Floats], outcome: Floats, fold: npt.NDArray[np.int64], *, shrinkage: float, cap: float
) -> dict[str, float]:
    """
    Return weights by non-negative least squares (Breiman, Stacked regressions, 1996), pulled to equal ones and capped.

    Each fold is left out once, and the coefficients are averaged: what one stretch of time says alone counts less.
    Where no member helps, weights are equal.

    Args:
        predictions: By member, [n], out of sample of the member and in one unit.
        outcome: What came, [n].
        fold: Which stretch of time each row belongs to, [n].
        shrinkage: 0 keeps the learned weights, 1 makes them equal.
        cap: The most that one member may have, at least an equal share.
    """
    names = sorted(predictions)
    table = np.stack([predictions[name] for name in names], axis=1)
    size = float(np.sqrt((table**2).mean()))
    total = np.zeros(len(names))
    for left_out in np.unique(fold) if size > 0 else ():
        kept = fold != left_out
        if kept.any():
            total += _coefficients(table[kept] / size, outcome[kept] / size)
    learned = dict(zip(names, total.tolist(), strict=True))
    return skill_weights({name: learned[name] for name in predictions}, shrinkage=shrinkage, cap=cap)


def time_folds(open_time_ms: npt.NDArray[np.int64], count: int = _FOLDS) -> npt.NDArray[np.int64]:
    """Return for each row which of `count` stretches of equal length it lies in."""
    first = open_time_ms.min() if len(open_time_ms) else 0
    last = open_time_ms.max() + 1 if len(open_time_ms) else 1
    return np.asarray((open_time_ms - first) * count // (last - first), np.int64)


def _coefficients(table: Floats, outcome: Floats) -> Floats:
    """Return the non-negative coefficients of a ridge regression, as rows added to least squares."""
    strength = np.sqrt(_RIDGE * len(table))
    rows = np.concatenate([table, strength * np.eye(table.shape[1])])
    answers = np.concatenate([outcome, np.zeros(table.shape[1])])
    fitted = LinearRegression(fit_intercept=False, positive=True).fit(rows, answers)
    return np.asarray(fitted.coef_, np.float64)
