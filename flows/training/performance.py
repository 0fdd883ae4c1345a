"""What a rule would have done to an account: return, risk, turnover and capacity after costs, each with an interval."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np

from flows.training.dataset import Floats, Rows, Times
from flows.training.evaluate import STATISTICS, WITH_INTERVAL, prediction_sums, ranks, spread
from flows.training.moments import BlockSums, Interval, Sampling, Statistic, Sums, ratio
from flows.training.selection import ReturnMoments, probabilistic_sharpe
from flows.training.trading import Trades

_DAY_MS = 86_400_000
DAYS_PER_YEAR = 365
"""These markets trade every day; a Sharpe ratio per year is the one per day times the square root of this."""
_DIFFERENCES = (*WITH_INTERVAL, "rmse", "mae")


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """
    The stretch of time and the capital that a rule is measured on.

    Capital is one notional for each symbol, so that being in every symbol at once is an exposure of one and nothing is
    borrowed. A period is as long as a block of the bootstrap, two horizons: returns are counted where a trade began,
    and neighbouring periods hardly share one.
    """

    start_ms: int
    end_ms: int
    symbols: int
    horizon_ms: int

    @property
    def period_ms(self) -> int:
        """Length of a period in milliseconds."""
        return 2 * self.horizon_ms

    @property
    def periods(self) -> int:
        """How many periods there are, the last of which may be cut short."""
        return max(-(-(self.end_ms - self.start_ms) // self.period_ms), 1)

    @property
    def periods_per_day(self) -> float:
        """How many periods make a day."""
        return _DAY_MS / self.period_ms

    @property
    def days(self) -> float:
        """How many days it lasts."""
        return (self.end_ms - self.start_ms) / _DAY_MS

    def returns(self, trades: Trades) -> Floats:
        """Return the net return on capital of each period [periods], zero where nothing was traded."""
        if not len(trades):
            return np.zeros(self.periods)
        place = np.clip((trades.entry_ms - self.start_ms) // self.period_ms, 0, self.periods - 1)
        return np.bincount(place, weights=trades.net, minlength=self.periods) / max(self.symbols, 1)


@dataclass(frozen=True, slots=True, eq=False)
class _Periods:
    sums: BlockSums
    per_day: float

    @classmethod
    def of(cls, account: Account, **returns: Floats) -> Self:
        columns: dict[str, Floats] = {"n": np.ones(account.periods)}
        for who, values in returns.items():
            columns |= {f"{who}1": values, f"{who}2": values**2, f"{who}d": np.minimum(values, 0) ** 2}
        return cls(BlockSums(tuple(columns), np.stack(list(columns.values()), axis=1)), account.periods_per_day)

    def sharpe(self, who: str = "r") -> Statistic:
        return lambda s: math.sqrt(self.per_day) * _sharpe(s, who)

    def sortino(self, who: str = "r") -> Statistic:
        return lambda s: math.sqrt(self.per_day) * ratio(s[f"{who}1"] / s["n"], np.sqrt(s[f"{who}d"] / s["n"]))


def _sharpe(s: Sums, who: str) -> Floats:
    mean = s[f"{who}1"] / s["n"]
    variance = s[f"{who}2"] / s["n"] - mean**2
    return ratio(mean, np.where(variance > 1e-12 * s[f"{who}2"] / s["n"], np.sqrt(np.maximum(variance, 0)), 0.0))


def performance_metrics(trades: Trades, account: Account, sampling: Sampling) -> dict[str, float]:
    """
    Return what a rule did to the account, after costs; ratios are left out (NaN) where nothing was traded.

    Sharpe and Sortino ratios are per day (`_per_day`, with an interval) and per year (`_per_year`), from returns of
    periods taken as independent: √(periods in a day) and √365 times the ratio of one period. No interest is deducted.
    `drawdown_of_capital` is the deepest fall of the summed returns from their peak so far, `exposure` the share of
    time and symbols in a trade, `turnover_per_day` what is bought and sold a day as a multiple of capital, and
    `concentration` how far the most traded symbol is above its equal share: 0 is evenly spread, 1 all in one.
    """
    returns = account.returns(trades)
    sampled = _Periods.of(account, r=returns)
    moments = moments_of(returns)
    curve = np.cumsum(returns)
    figures = {
        "periods": float(len(returns)),
        "return_on_capital": float(returns.sum()),
        "sharpe_per_period": moments.sharpe,
        "skewness": moments.skewness,
        "kurtosis": moments.kurtosis,
        "probabilistic_sharpe": probabilistic_sharpe(moments),
        **spread("sharpe_per_day", sampled.sums.interval(sampled.sharpe(), sampling)),
        **spread("sortino_per_day", sampled.sums.interval(sampled.sortino(), sampling)),
        "drawdown_of_capital": float((np.maximum.accumulate(np.maximum(curve, 0)) - curve).max()),
        "turnover_per_day": 2 * len(trades) / max(account.symbols, 1) / account.days,
        "exposure": len(trades) * account.horizon_ms / max(account.symbols, 1) / (account.end_ms - account.start_ms),
        "net_exposure": _net_exposure(trades, account),
        "concentration": concentration(trades, account.symbols),
    }
    for name in ("sharpe", "sortino"):
        figures[f"{name}_per_year"] = figures[f"{name}_per_day"] * math.sqrt(DAYS_PER_YEAR)
    return figures


def performance_difference(ours: Trades, theirs: Trades, account: Account, sampling: Sampling) -> dict[str, float]:
    """Return how much larger one rule's Sharpe ratio per day is than another's, both from the same drawn periods."""
    sampled = _Periods.of(account, a=account.returns(ours), b=account.returns(theirs))
    a, b = sampled.sharpe("a"), sampled.sharpe("b")

    # A rule that stays flat in all drawn periods has a ratio of nought.
    def difference(s: Sums) -> Floats:
        return np.asarray(np.nan_to_num(a(s)) - np.nan_to_num(b(s)))

    return spread("sharpe_per_day", sampled.sums.interval(difference, sampling))


def moments_of(returns: Floats) -> ReturnMoments:
    """Return Sharpe ratio, skewness and kurtosis of the returns of periods; NaN where they do not vary."""
    centred = returns - returns.mean() if len(returns) else returns
    deviation = float(np.sqrt((centred**2).mean())) if len(returns) else 0.0
    if len(returns) < 3 or deviation <= 1e-12 * float(np.abs(returns).max(initial=0.0)):
        nan = float("nan")
        return ReturnMoments(sharpe=nan, periods=float(len(returns)), skewness=nan, kurtosis=nan)
    z = centred / deviation
    return ReturnMoments(
        sharpe=float(returns.mean()) / deviation,
        periods=float(len(returns)),
        skewness=float((z**3).mean()),
        kurtosis=float((z**4).mean()),
    )


def concentration(trades: Trades, symbols: int) -> float:
    """Return how far the most traded symbol is above its equal share, from 0 (equal) to 1; NaN without trades."""
    if not len(trades):
        return float("nan")
    if symbols <= 1:
        return 0.0  # With one symbol there was nothing to spread over.
    largest = float(np.bincount(trades.series).max()) / len(trades)
    return max((largest - 1 / symbols) / (1 - 1 / symbols), 0.0)


def _net_exposure(trades: Trades, account: Account) -> float:
    held = float(trades.direction.sum()) * account.horizon_ms
    return held / max(account.symbols, 1) / (account.end_ms - account.start_ms)


def capacity(trades: Trades, quote_volume: Floats, *, participation: float = 0.01) -> float:
    """
    Return the notional of one trade that takes no more than a share of what was traded, in the median entry.

    Args:
        trades: The entries.
        quote_volume: Quote currency traded in the candle of each entry [trades], NaN where it is not known.
        participation: The share; one hundredth is commonly held to leave prices alone.

    Returns:
        Quote currency, NaN without a trade of known volume.
    """
    known = quote_volume[np.isfinite(quote_volume) & (quote_volume >= 0)]
    return float(participation * np.median(known)) if len(trades) and len(known) else float("nan")


def score_difference(rows: Rows, ours: Floats, theirs: Floats, sampling: Sampling) -> dict[str, float]:
    """
    Return how much better one prediction's scores are than another's, on the same rows and the same drawn blocks.

    Positive is better for ours: of RMSE and MAE the difference is theirs minus ours.
    """
    a = prediction_sums(rows, ours, block_ms=sampling.block_ms)
    b = prediction_sums(rows, theirs, block_ms=sampling.block_ms)
    both = BlockSums(
        (*(f"a.{name}" for name in a.names), *(f"b.{name}" for name in b.names)), np.concatenate([a.sums, b.sums], 1)
    )
    found: dict[str, float] = {}
    for name in _DIFFERENCES:
        sign = -1.0 if name in ("rmse", "mae") else 1.0
        # Under names of their own: whoever lists scores by name must not take a difference for a predictor's score.
        found |= spread(f"{name}_difference", both.interval(_minus(STATISTICS[name], sign), sampling))
    return found


def _minus(statistic: Statistic, sign: float) -> Statistic:
    def difference(s: Sums) -> Floats:
        ours, theirs = (
            statistic({name[2:]: values for name, values in s.items() if name.startswith(who)}) for who in ("a.", "b.")
        )
        return sign * (ours - theirs)

    return difference


@dataclass(frozen=True, slots=True, eq=False)
class DailyIC:
    """The correlation of prediction and outcome on each UTC day [days], and the days' first moments."""

    day_ms: Times
    ic: Floats

    @classmethod
    def of(cls, rows: Rows, predicted: Floats, *, least_rows: int = 30, by_rank: bool = False) -> Self:
        """Leave out days with fewer rows than that, or on which either did not vary; `by_rank` compares ranks."""
        day = rows.open_time_ms // _DAY_MS
        days, found = [], []
        for one in np.unique(day):
            here = day == one
            p, y = predicted[here], rows.label[here]
            if len(p) >= least_rows and np.ptp(p) > 0 and np.ptp(y) > 0:
                days.append(int(one) * _DAY_MS)
                found.append(float(np.corrcoef(*((ranks(p), ranks(y)) if by_rank else (p, y)))[0, 1]))
        return cls(np.array(days, np.int64), np.array(found, np.float64))

    @property
    def icir(self) -> float:
        """Mean of the days' IC over their standard deviation: how steady it is; NaN for fewer than three days."""
        deviation = float(self.ic.std(ddof=1)) if len(self.ic) >= 3 else 0.0
        return float(self.ic.mean()) / deviation if deviation > 0 else float("nan")


def steadiness(rows: Rows, predicted: Floats) -> dict[str, float]:
    """Return the ICIR of a prediction's days, of values and of ranks."""
    return {
        "icir_of_days": DailyIC.of(rows, predicted).icir,
        "rank_icir_of_days": DailyIC.of(rows, predicted, by_rank=True).icir,
    }


def quantile_coverage(rows: Rows, low: Floats, high: Floats, sampling: Sampling) -> dict[str, float]:
    """Return how often the outcome lay between two predicted quantiles, with an interval, and their mean distance."""
    inside = ((rows.label >= low) & (rows.label <= high)).astype(np.float64)
    sums = BlockSums.of(rows.open_time_ms, sampling.block_ms, {"n": np.ones(len(inside)), "inside": inside})
    covered: Interval = sums.interval(lambda s: ratio(s["inside"], s["n"]), sampling)
    return {**spread("quantile_coverage", covered), "quantile_width": float((high - low).mean())}
