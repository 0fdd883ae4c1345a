"""From distances to one verdict of a known false-alarm rate: the reference says how far stretches lie apart."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr, stdtrit

Floats = npt.NDArray[np.float64]

FEWEST_STRETCHES = 10
"""Below so many reference stretches no limit is stated: how far they lie apart would be a guess."""
# The least deviation of a root, and that as a share of its mean: what hardly ever moves is not held to the last digit.
_LEAST_DEVIATION, _LEAST_SHARE = 0.05, 0.05
_DRAWS, _SEED = 200_000, 20_260_101
_EULER = 0.5772156649015329


@dataclass(frozen=True, slots=True, eq=False)
class Calibrated:
    """
    The distances of many columns, judged together.

    `score` is the largest surprise over all columns and statistics, `limit` what it exceeds with the stated rate where
    nothing changed. `surprise` holds that of each distance, `limits` the distance at which each alone would reach the
    limit; both are shaped as the distances were, [columns, statistics].
    """

    score: float
    limit: float
    surprise: Floats
    limits: Floats

    @property
    def found(self) -> bool:
        """Whether the newest stretch lies further off than chance explains."""
        return self.score > self.limit


def calibrated(before: Floats, now: Floats, powers: Floats, *, rate: float) -> Calibrated:
    """
    Judge the distances of the newest stretch by those of the reference stretches.

    Rows of one stretch depend on each other, and columns on each other, by nobody knows how much. Stretches of equal
    length carry the same dependence, so how far each reference stretch lies from the others is how far the newest may
    lie by chance. A distance grows as chi-square, or as the root of one, so its cube root (of the square) is nearly
    normal (Wilson and Hilferty, 1931); in units of its spread over the other stretches it is a Student's t. The largest
    surprise over everything is one number for each stretch, whatever the number of columns.
    Its limit is the prediction limit of one further Gumbel value after as many as there are reference stretches.

    Args:
        before: Distances of the reference stretches [stretches, columns, statistics].
        now: Distances of the newest stretch [columns, statistics].
        powers: Of each statistic, the power that makes it nearly normal.
        rate: The false-alarm rate of one such judgement.

    Raises:
        ValueError: There are fewer stretches than `FEWEST_STRETCHES`, or no columns.
    """
    stretches = len(before)
    if stretches < FEWEST_STRETCHES or not now.size:
        raise ValueError(f"A limit needs {FEWEST_STRETCHES} stretches and a column, were {before.shape}")
    roots, newest = np.maximum(before, 0.0) ** powers, np.maximum(now, 0.0) ** powers
    total, squares = roots.sum(axis=0), (roots**2).sum(axis=0)
    # Leaving each stretch out of what it is held against makes it what the newest is: one that was not looked at.
    mean, spread = _moments(total - roots, squares - roots**2, stretches - 1)
    largest = _surprise(roots, mean, spread, stretches - 1).reshape(stretches, -1).max(axis=1)
    mean, spread = _moments(total, squares, stretches)
    surprise = _surprise(newest, mean, spread, stretches)
    limit = float(largest.mean() + gumbel_prediction(stretches, rate) * largest.std(ddof=1))
    reach = -stdtrit(stretches - 1, np.exp(-max(limit, 1.0)))
    limits = np.maximum(mean + reach * spread * np.sqrt(1 + 1 / stretches), 0.0) ** (1 / powers)
    return Calibrated(float(surprise.max()), limit, surprise, limits)


def _moments(total: Floats, squares: Floats, count: int) -> tuple[Floats, Floats]:
    mean = total / count
    variance = np.maximum(squares / count - mean**2, 0.0) * count / (count - 1)
    return mean, np.maximum(np.sqrt(variance), _LEAST_DEVIATION + _LEAST_SHARE * mean)


def _surprise(values: Floats, mean: Floats, spread: Floats, count: int) -> Floats:
    """Minus the logarithm of the probability of a value as far out, after `count` others."""
    t = (values - mean) / (spread * np.sqrt(1 + 1 / count))
    surprise: Floats = -np.log(np.maximum(stdtr(count - 1, -t), 1e-300))
    return surprise


@lru_cache(maxsize=64)
def gumbel_prediction(count: int, rate: float) -> float:
    """
    Return by how many standard deviations one further Gumbel value exceeds the mean of `count` with probability `rate`.

    Largest values of many are of Gumbel's kind; location and scale cancel, so the quantile is that of standard values,
    drawn with a fixed seed (a prediction limit: Hahn and Meeker, Statistical Intervals, 1991).
    """
    rng = np.random.default_rng([_SEED, count])
    draws = np.empty(_DRAWS)
    for start in range(0, _DRAWS, 10_000):
        known = rng.gumbel(-_EULER, 1.0, (10_000, count))
        further = rng.gumbel(-_EULER, 1.0, 10_000)
        draws[start : start + 10_000] = (further - known.mean(axis=1)) / known.std(axis=1, ddof=1)
    return float(np.quantile(draws, 1 - rate))
