"""How much of a good result is luck in choosing: deflated Sharpe ratio, overfitting, many tests at once."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from flows.training.dataset import Floats

_NORMAL = NormalDist()
_EULER_MASCHERONI = 0.5772156649015329
_NAN = float("nan")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnMoments:
    """
    What a Sharpe ratio was computed from.

    `sharpe` is per period, not annualised; `kurtosis` is 3 for a normal distribution; `periods` is how many returns.
    """

    sharpe: float
    periods: float
    skewness: float = 0.0
    kurtosis: float = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trials:
    """
    How often something was tried on the same candles before this result was looked at.

    `count` includes the result itself. `sharpes` are per period, of those trials whose Sharpe ratio is known;
    `p_values` are of tests that their net return is no more than zero.
    """

    count: int = 1
    sharpes: tuple[float, ...] = ()
    p_values: tuple[float, ...] = ()


def expected_maximum_sharpe(trials: int, spread: float) -> float:
    """
    Return the largest Sharpe ratio that some trials without any skill would show, on average.

    With trials of standard deviation `spread` it is spread * ((1 - g) q(1 - 1/N) + g q(1 - 1/(N e))), where q is the
    normal quantile and g the Euler-Mascheroni constant: Bailey and López de Prado, "The Deflated Sharpe Ratio", 2014,
    equation 1. One trial is no choice and needs no deflation.
    """
    if trials <= 1 or spread <= 0:
        return 0.0
    ordinary = _NORMAL.inv_cdf(1 - 1 / trials)
    extreme = _NORMAL.inv_cdf(1 - 1 / (trials * math.e))
    return max(spread * ((1 - _EULER_MASCHERONI) * ordinary + _EULER_MASCHERONI * extreme), 0.0)


def probabilistic_sharpe(moments: ReturnMoments, benchmark: float = 0.0) -> float:
    """
    Return the probability that the true Sharpe ratio lies above a benchmark, NaN for fewer than three periods.

    Short samples, losses that come in lumps and fat tails all make it smaller: Bailey and López de Prado, "The Sharpe
    Ratio Efficient Frontier", 2012, equation 8.
    """
    known = (moments.sharpe, moments.periods, moments.skewness, moments.kurtosis, benchmark)
    if not all(map(math.isfinite, known)) or moments.periods < 3:
        return _NAN
    variance = 1 - moments.skewness * moments.sharpe + (moments.kurtosis - 1) / 4 * moments.sharpe**2
    # Moments of one and the same sample cannot make it negative; rounding can.
    distance = (moments.sharpe - benchmark) * math.sqrt(moments.periods - 1) / math.sqrt(max(variance, 1e-12))
    return _NORMAL.cdf(distance)


def spread_of_trials(trials: Trials, periods: float) -> float:
    """
    Return the standard deviation of the trials' Sharpe ratios per period.

    At least what chance alone gives trials without skill, 1/√(T - 1): retrainings on much the same candles look alike,
    and would otherwise deflate by nothing, however many trials there were of which no Sharpe ratio is known.
    """
    by_chance = 1 / math.sqrt(max(periods - 1, 1))
    known = [sharpe for sharpe in trials.sharpes if math.isfinite(sharpe)]
    return max(float(np.std(known, ddof=1)), by_chance) if len(known) >= 5 else by_chance


def deflated_sharpe(moments: ReturnMoments, trials: Trials) -> float:
    """
    Return the probability that the true Sharpe ratio is above what the best of so many tries shows by luck.

    Bailey and López de Prado, "The Deflated Sharpe Ratio", 2014, equation 2: the probabilistic Sharpe ratio against
    the expected maximum of the trials.
    """
    return probabilistic_sharpe(
        moments, expected_maximum_sharpe(trials.count, spread_of_trials(trials, moments.periods))
    )


def probability_of_overfitting(returns: Floats, *, groups: int = 8) -> float:
    """
    Return how often the best of some rules in one half of the time is below the median in the other half.

    Combinatorially symmetric cross-validation (Bailey, Borwein, López de Prado and Zhu, "The Probability of Backtest
    Overfitting", 2015): time is cut into `groups`, every choice of half of them is once the sample in which the best
    Sharpe ratio is chosen, and the rest is where its rank is looked up.

    Args:
        returns: Net returns [periods, rules] of each rule, zero where it did not trade.
        groups: An even number of stretches of time; 8 give 70 choices.

    Returns:
        A share in [0, 1], NaN for fewer than two rules or fewer than two periods a group.
    """
    periods, rules = returns.shape
    if rules < 2 or periods < 2 * groups or groups % 2:
        return _NAN
    parts = np.array_split(np.arange(periods), groups)
    n = np.array([len(part) for part in parts], np.float64)
    sums = np.stack([returns[part].sum(axis=0) for part in parts])
    squares = np.stack([(returns[part] ** 2).sum(axis=0) for part in parts])
    worse, splits = 0.0, 0
    for chosen in itertools.combinations(range(groups), groups // 2):
        inside = np.zeros(groups, dtype=bool)
        inside[list(chosen)] = True
        best = int(np.argmax(_sharpes(n[inside], sums[inside], squares[inside])))
        outside = _sharpes(n[~inside], sums[~inside], squares[~inside])
        below = (outside < outside[best]).sum() + 0.5 * ((outside == outside[best]).sum() - 1)
        relative_rank = (below + 1) / (rules + 1)
        # In the middle exactly it is neither: half of it counts.
        worse += 1.0 if relative_rank < 0.5 else 0.5 if relative_rank == 0.5 else 0.0
        splits += 1
    return worse / splits


def _sharpes(n: Floats, sums: Floats, squares: Floats) -> Floats:
    count = n.sum()
    mean = sums.sum(axis=0) / count
    spread = np.sqrt(np.maximum(squares.sum(axis=0) / count - mean**2, 0.0))
    # A rule that never trades has no spread: its ratio is nought, neither good nor bad.
    return np.asarray(np.where(spread > 0, mean / np.where(spread > 0, spread, 1.0), 0.0))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """
    Return p-values adjusted so that the chance of any false rejection among them keeps to the level.

    Holm, "A simple sequentially rejective multiple test procedure", 1979; it needs no independence.
    """
    count, running = len(p_values), 0.0
    adjusted = [0.0] * count
    for place, which in enumerate(sorted(range(count), key=lambda one: p_values[one])):
        running = max(running, min((count - place) * p_values[which], 1.0))
        adjusted[which] = running
    return tuple(adjusted)


def benjamini_hochberg(p_values: Sequence[float]) -> tuple[float, ...]:
    """
    Return p-values adjusted so that the expected share of false rejections among all keeps to the level.

    Benjamini and Hochberg, "Controlling the false discovery rate", 1995; for independent or positively dependent tests.
    """
    count, running = len(p_values), 1.0
    adjusted = [0.0] * count
    ordered = sorted(range(count), key=lambda one: p_values[one])
    for place in range(count - 1, -1, -1):
        running = min(running, count / (place + 1) * p_values[ordered[place]])
        adjusted[ordered[place]] = running
    return tuple(adjusted)


def selection_metrics(moments: ReturnMoments, trials: Trials) -> dict[str, float]:
    """Return what the trials make of a result, by name; what cannot be computed is left out."""
    spread = spread_of_trials(trials, moments.periods)
    alone = probabilistic_sharpe(moments)
    figures = {
        "trials": float(trials.count),
        "probabilistic_sharpe": alone,
        "expected_maximum_sharpe": expected_maximum_sharpe(trials.count, spread),
        "deflated_sharpe": deflated_sharpe(moments, trials),
    }
    if math.isfinite(alone):
        everyone = (1 - alone, *(value for value in trials.p_values if math.isfinite(value)))
        figures["net_p_value"] = everyone[0]
        figures["net_p_value_holm"] = holm(everyone)[0]
        figures["net_p_value_benjamini_hochberg"] = benjamini_hochberg(everyone)[0]
    return {name: value for name, value in figures.items() if math.isfinite(value)}
