"""How much better one rule or prediction was than another, both from the same drawn blocks of time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from flows.training.dataset import Floats, Rows
from flows.training.evaluate import (
    STATISTICS,
    brier,
    calibration_error,
    calibration_sums,
    prediction_sums,
    spread,
    spreads,
)
from flows.training.moments import BlockSums, Sampling, Statistic, Sums, interval_of
from flows.training.performance import FEWEST_DAYS, Account, DailyIC, Periods, day_sums, icir
from flows.training.trading import Trades

_RATIOS = ("sharpe_per_day", "sortino_per_day")
_AMOUNTS = ("return_on_capital", "turnover_per_day", "exposure")
_SCORES = ("rmse_skill", "ic", "rank_ic", "hit_rate", "r2", "rmse", "mae")
_LESS_IS_BETTER = ("rmse", "mae")


def performance_difference(ours: Trades, theirs: Trades, account: Account, sampling: Sampling) -> dict[str, float]:
    """
    Return how much more of each figure of an account one rule has than another, from the same drawn periods.

    Positive is better for ours of the return, the Sharpe and Sortino ratios per day and of `drawdown_of_capital`, which
    is theirs minus ours. Of turnover and exposure it is neither: it says how much more was traded for it.
    """
    sampled = Periods.of(account, a=ours, b=theirs)
    a, b = sampled.statistics("a"), sampled.statistics("b")
    statistics = {name: _less(a[name], b[name], np.nan_to_num if name in _RATIOS else None) for name in a}
    wanted = {name: statistics[name] for name in (*_RATIOS, *_AMOUNTS)}
    (fell, falls), (others, their_falls) = (sampled.drawdowns(who, sampling) for who in ("a", "b"))
    drawn = None if falls is None or their_falls is None else their_falls - falls
    return {
        **spreads(sampled.sums.intervals(wanted, sampling)),
        **spread("drawdown_of_capital", interval_of(others - fell, drawn)),
    }


def _less(ours: Statistic, theirs: Statistic, filled: Callable[[Floats], Floats] | None) -> Statistic:
    # A rule that stays flat in all drawn periods has a ratio of nought.
    def difference(s: Sums) -> Floats:
        a, b = ours(s), theirs(s)
        return np.asarray(filled(a) - filled(b) if filled else a - b)

    return difference


def score_difference(rows: Rows, ours: Floats, theirs: Floats, sampling: Sampling) -> dict[str, float]:
    """
    Return how much better one prediction's scores are than another's, on the same rows and the same drawn blocks.

    Positive is better for ours: of RMSE and MAE the difference is theirs minus ours.
    """
    both = _joined(*(prediction_sums(rows, one, block_ms=sampling.block_ms) for one in (ours, theirs)))
    found = {name: _between(STATISTICS[name], -1.0 if name in _LESS_IS_BETTER else 1.0) for name in _SCORES}
    return _named(spreads(both.intervals(found, sampling)))


def calibration_difference(rows: Rows, ours: Floats, theirs: Floats, sampling: Sampling) -> dict[str, float]:
    """
    Return how much less one probability of a rise was off than another: Brier score and calibration error.

    Positive is better for ours. Nothing is said where no price moved.
    """
    both = _joined(*(calibration_sums(rows, one, block_ms=sampling.block_ms) for one in (ours, theirs)))
    if not len(both):
        return {}
    off = _between(calibration_error, -1.0)
    drawn = both.drawn(sampling)
    error = interval_of(both.total(off), None if drawn is None else off(drawn), is_leaning=True)
    return _named(spread("brier", both.interval(_between(brier, -1.0), sampling)) | spread("calibration_error", error))


def steadiness_difference(rows: Rows, ours: Floats, theirs: Floats, sampling: Sampling) -> dict[str, float]:
    """Return how much steadier one prediction was than another, by ICIR and rank ICIR of the days that both have."""
    found: dict[str, float] = {}
    for name, by_rank in (("icir_of_days", False), ("rank_icir_of_days", True)):
        a, b = (DailyIC.of(rows, one, by_rank=by_rank) for one in (ours, theirs))
        _, first, second = np.intersect1d(a.day_ms, b.day_ms, return_indices=True)
        if len(first) >= FEWEST_DAYS:
            sums = day_sums(a=a.ic[first], b=b.ic[second])
            found |= spread(name, sums.interval(_less(icir("a"), icir("b"), None), sampling))
    return _named(found)


def _joined(a: BlockSums, b: BlockSums) -> BlockSums:
    names = (*(f"a.{name}" for name in a.names), *(f"b.{name}" for name in b.names))
    return BlockSums(names, np.concatenate([a.sums, b.sums], 1))


def _between(statistic: Statistic, sign: float) -> Statistic:
    def difference(s: Sums) -> Floats:
        ours, theirs = (
            statistic({name[2:]: values for name, values in s.items() if name.startswith(who)}) for who in ("a.", "b.")
        )
        return np.asarray(sign * (ours - theirs))

    return difference


def _named(found: dict[str, float]) -> dict[str, float]:
    """Name figures as differences: whoever lists scores by name must not take one for a predictor's score."""
    ends = ("_low", "_high")
    return {
        next((f"{name.removesuffix(end)}_difference{end}" for end in ends if name.endswith(end)), f"{name}_difference"):
        value for name, value in found.items()
    }  # fmt: skip
