"""What a rule would have done to an account: return, risk, turnover and capacity after costs, each with an interval."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from flows.training.dataset import Floats, Rows, Times
from flows.training.evaluate import ranks, spread, spreads
from flows.training.moments import (
    BlockSums,
    Interval,
    Sampling,
    Statistic,
    Sums,
    draw_orders,
    draw_weights,
    interval_of,
    ratio,
)
from flows.training.selection import ReturnMoments, probabilistic_sharpe
from flows.training.trading import Trades

_DAY_MS = 86_400_000
FEWEST_DAYS = 3
"""Of fewer days nothing can be said of how steady a prediction is."""
DAYS_PER_YEAR = 365
"""These markets trade every day; a Sharpe ratio per year is the one per day times the square root of this."""
MOST_SORTINO = 100.0
"""Per day; beyond it the ratio tells how little was lost by chance, and not how much was gained."""


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
        return self.by_period(trades, trades.net) / max(self.symbols, 1)

    def by_period(self, trades: Trades, values: Floats) -> Floats:
        """Add up a value of each trade over the period in which it began [periods]."""
        if not len(trades):
            return np.zeros(self.periods)
        place = np.clip((trades.entry_ms - self.start_ms) // self.period_ms, 0, self.periods - 1)
        return np.bincount(place, weights=values, minlength=self.periods).astype(np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Periods:
    """
    What some rules did in each period of an account, period by period, to be drawn together.

    `drawdown_of_capital` depends on the order of periods, and is drawn apart: of histories that are as long, made of
    the same periods in an order that chance chose.
    """

    sums: BlockSums
    account: Account
    returns: Mapping[str, Floats]

    @classmethod
    def of(cls, account: Account, **rules: Trades) -> Self:
        """Add up what each rule traded, under one letter each."""
        columns: dict[str, Floats] = {"n": np.ones(account.periods)}
        returns = {who: account.returns(trades) for who, trades in rules.items()}
        for who, values in returns.items():
            columns |= {f"{who}1": values, f"{who}2": values**2, f"{who}d": np.minimum(values, 0) ** 2}
            columns[f"{who}c"] = account.by_period(rules[who], np.ones(len(rules[who])))
            columns[f"{who}s"] = account.by_period(rules[who], rules[who].direction.astype(np.float64))
        return cls(BlockSums(tuple(columns), np.stack(list(columns.values()), axis=1)), account, returns)

    def statistics(self, who: str) -> dict[str, Statistic]:
        """Return the figures of one rule that do not depend on the order of periods, by name."""
        account = self.account
        per_day, slots = math.sqrt(account.periods_per_day), max(account.symbols, 1) * account.days
        held = account.horizon_ms / _DAY_MS

        def whole(column: str, share: float) -> Statistic:
            return lambda s: s[f"{who}{column}"] / s["n"] * account.periods * share

        return {
            "return_on_capital": whole("1", 1.0),
            "sharpe_per_day": lambda s: per_day * _sharpe(s, who),
            "sortino_per_day": lambda s: np.minimum(per_day * _sortino(s, who), MOST_SORTINO),
            "turnover_per_day": whole("c", 2 / slots),
            "exposure": whole("c", held / slots),
            "net_exposure": whole("s", held / slots),
        }

    def drawdowns(self, who: str, sampling: Sampling) -> tuple[float, Floats | None]:
        """Return the deepest fall of one rule, and those of drawn histories; None where there is but one period."""
        returns = self.returns[who]
        if len(returns) < 2:
            return drawdown(returns), None
        curves = np.cumsum(returns[draw_orders(len(returns), sampling.samples, sampling.seed)], axis=1)
        return drawdown(returns), _deepest(curves)


def drawdown(returns: Floats) -> float:
    """Return the deepest fall of summed returns from their peak so far, the beginning included."""
    return float(_deepest(np.cumsum(returns)[None])[0])


def _deepest(curves: Floats) -> Floats:
    return np.asarray((np.maximum.accumulate(np.maximum(curves, 0), axis=1) - curves).max(axis=1))


def _sharpe(s: Sums, who: str) -> Floats:
    mean = s[f"{who}1"] / s["n"]
    variance = s[f"{who}2"] / s["n"] - mean**2
    return ratio(mean, np.where(variance > 1e-12 * s[f"{who}2"] / s["n"], np.sqrt(np.maximum(variance, 0)), 0.0))


def _sortino(s: Sums, who: str) -> Floats:
    mean, falls = s[f"{who}1"] / s["n"], np.sqrt(s[f"{who}d"] / s["n"])
    # What gained and never fell has no fall to divide by, and is not unknown for that: the caller bounds it.
    return np.where((falls == 0) & (mean > 0), np.inf, ratio(mean, falls))


def performance_metrics(trades: Trades, account: Account, sampling: Sampling) -> dict[str, float]:
    """
    Return what a rule did to the account, after costs; ratios are left out (NaN) where nothing was traded.

    Sharpe and Sortino ratios are per day (`_per_day`, with an interval) and per year (`_per_year`), from returns of
    periods taken as independent: √(periods in a day) and √365 times the ratio of one period. No interest is deducted.
    A rule that gained and never lost in a period has a Sortino ratio of `MOST_SORTINO`, the largest that is told.
    `drawdown_of_capital` is the deepest fall of the summed returns from their peak so far; its interval is of the same
    periods in any order, so that losses that came in a row may lie above it. `exposure` is the share of time and
    symbols in a trade, `turnover_per_day` what is bought and sold a day as a multiple of capital, and
    `concentration` how far the most traded symbol is above its equal share: 0 is evenly spread, 1 all in one.
    """
    sampled = Periods.of(account, r=trades)
    returns = sampled.returns["r"]
    moments = moments_of(returns)
    figures = {
        "periods": float(len(returns)),
        **spreads(sampled.sums.intervals(sampled.statistics("r"), sampling)),
        **spread("drawdown_of_capital", interval_of(*sampled.drawdowns("r", sampling))),
        "sharpe_per_period": moments.sharpe,
        "skewness": moments.skewness,
        "kurtosis": moments.kurtosis,
        "probabilistic_sharpe": probabilistic_sharpe(moments),
        "concentration": concentration(trades, account.symbols),
    }
    for name in ("sharpe", "sortino"):
        figures[f"{name}_per_year"] = figures[f"{name}_per_day"] * math.sqrt(DAYS_PER_YEAR)
    return figures


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
    known = quote_volume[_is_known(quote_volume)]
    return float(participation * np.median(known)) if len(trades) and len(known) else float("nan")


def capacity_interval(
    trades: Trades, quote_volume: Floats, sampling: Sampling, *, participation: float = 0.01
) -> Interval:
    """Return the same with its interval, entries of a block of time drawn together."""
    known = _is_known(quote_volume)
    value = capacity(trades, quote_volume, participation=participation)
    if not known.any():
        return interval_of(value, None)
    volume, entry_ms = quote_volume[known], trades.entry_ms[known]
    _, block = np.unique((entry_ms - entry_ms.min()) // sampling.block_ms, return_inverse=True)
    if block.max() < 1:
        return interval_of(value, None)
    order = np.argsort(volume, kind="stable")
    volume, block = volume[order], block[order]
    medians = np.full(sampling.samples, np.nan)
    # A sample holds an entry as often as its block was drawn.
    for place, times in enumerate(draw_weights(int(block.max()) + 1, sampling.samples, sampling.seed)):
        until = np.cumsum(times[block])
        middle = np.searchsorted(until, [(until[-1] - 1) // 2, until[-1] // 2], side="right")
        medians[place] = volume[middle].mean()
    return interval_of(value, participation * medians)


def _is_known(quote_volume: Floats) -> npt.NDArray[np.bool_]:
    return np.isfinite(quote_volume) & (quote_volume >= 0)


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
        deviation = float(self.ic.std(ddof=1)) if len(self.ic) >= FEWEST_DAYS else 0.0
        return float(self.ic.mean()) / deviation if deviation > 0 else float("nan")

    def steadiness(self, sampling: Sampling) -> Interval:
        """Return the ICIR with its interval, days drawn with replacement: of few days it is wide, as it should be."""
        if len(self.ic) < FEWEST_DAYS:
            return interval_of(float("nan"), None)
        sums = day_sums(a=self.ic)
        return interval_of(self.icir, icir("a")(sums.drawn(sampling) or {}))


def day_sums(**correlations: Floats) -> BlockSums:
    """Return the days' IC of some predictions, under one letter each, as blocks to be drawn."""
    columns: dict[str, Floats] = {"n": np.ones(len(next(iter(correlations.values()))))}
    for who, ic in correlations.items():
        columns |= {f"{who}1": ic, f"{who}2": ic**2}
    return BlockSums(tuple(columns), np.stack(list(columns.values()), axis=1))


def icir(who: str) -> Statistic:
    """Return the ICIR as a statistic of `day_sums`; NaN where one day was drawn over and over."""

    def of(s: Sums) -> Floats:
        mean, square = s[f"{who}1"] / s["n"], s[f"{who}2"] / s["n"]
        variance = square - mean**2
        deviation = np.sqrt(np.maximum(variance, 0) * s["n"] / np.maximum(s["n"] - 1, 1))
        return ratio(mean, np.where(variance > 1e-9 * square, deviation, 0.0))

    return of


def steadiness(rows: Rows, predicted: Floats, sampling: Sampling) -> dict[str, float]:
    """Return the ICIR of a prediction's days, of values and of ranks, each with its interval."""
    return {
        **spread("icir_of_days", DailyIC.of(rows, predicted).steadiness(sampling)),
        **spread("rank_icir_of_days", DailyIC.of(rows, predicted, by_rank=True).steadiness(sampling)),
    }


def quantile_coverage(rows: Rows, low: Floats, high: Floats, sampling: Sampling) -> dict[str, float]:
    """Return how often the outcome lay between two predicted quantiles, with an interval, and their mean distance."""
    inside = ((rows.label >= low) & (rows.label <= high)).astype(np.float64)
    sums = BlockSums.of(rows.open_time_ms, sampling.block_ms, {"n": np.ones(len(inside)), "inside": inside})
    covered: Interval = sums.interval(lambda s: ratio(s["inside"], s["n"]), sampling)
    return {**spread("quantile_coverage", covered), "quantile_width": float((high - low).mean())}
