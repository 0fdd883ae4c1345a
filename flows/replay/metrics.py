"""What a backtest is worth: return and risk of the account, and figures of its trades."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from flows.replay.outcome import BacktestRun, BacktestTrade

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

DAYS_PER_YEAR = 365
"""Crypto trades every day; returns without a trade count as zero."""
_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True, eq=False)
class TradeTable:
    """Trades as columns: money in quote currency, `notional` at entry, times in milliseconds, direction 1 or -1."""

    net: Floats
    fees: Floats
    funding: Floats
    notional: Floats
    exit_notional: Floats
    direction: Ints
    opened_ms: Ints
    closed_ms: Ints

    def __len__(self) -> int:
        return len(self.net)

    @classmethod
    def of(cls, run: BacktestRun) -> Self:
        """Return the trades of a run as columns."""
        trades = run.trades
        return cls(
            net=np.array([float(one.net) for one in trades]),
            fees=np.array([float(one.fees) for one in trades]),
            funding=np.array([float(one.funding) for one in trades]),
            notional=np.array([float(one.quantity * one.entry_price) for one in trades]),
            exit_notional=np.array([float(one.quantity * one.exit_price) for one in trades]),
            direction=np.array([1 if one.direction.value == "LONG" else -1 for one in trades], np.int64),
            opened_ms=np.array([one.opened_ms for one in trades], np.int64),
            closed_ms=np.array([one.closed_ms for one in trades], np.int64),
        )

    def take(self, chosen: npt.NDArray[np.bool_]) -> TradeTable:
        """Return some of the trades."""
        return TradeTable(
            self.net[chosen], self.fees[chosen], self.funding[chosen], self.notional[chosen],
            self.exit_notional[chosen], self.direction[chosen], self.opened_ms[chosen], self.closed_ms[chosen],
        )  # fmt: skip


def daily_returns(time_ms: Ints, equity: Floats) -> tuple[Ints, Floats]:
    """
    Return the days (UTC, as their number since 1970) and the account's simple return on each.

    A day ends with the last equity at or before midnight; the first and the last may be shorter than a day.
    """
    days = (time_ms - 1) // _DAY_MS
    last = np.flatnonzero(np.append(np.diff(days) > 0, True))
    marks = np.concatenate([[equity[0]], equity[last]])
    with np.errstate(divide="ignore", invalid="ignore"):
        returns = np.where(marks[:-1] > 0, marks[1:] / marks[:-1] - 1, 0.0)
    found = days[last]
    # The opening mark may stand on a midnight, where it belongs to the day before and says nothing.
    inside = slice(1 if len(last) > 1 and last[0] == 0 else 0, None)
    return found[inside], returns[inside]


def sharpe(returns: Floats) -> float:
    """Annualised mean over standard deviation of daily returns (Sharpe 1994, no risk-free rate); NaN below two days."""
    if len(returns) < 2 or returns.std(ddof=1) == 0:
        return math.nan
    return float(returns.mean() / returns.std(ddof=1) * math.sqrt(DAYS_PER_YEAR))


def sortino(returns: Floats) -> float:
    """As `sharpe` over the root mean square of losing days (Sortino and Price 1994); NaN where no day lost."""
    downside = math.sqrt(float((np.minimum(returns, 0) ** 2).mean())) if len(returns) > 1 else 0.0
    return float(returns.mean() / downside * math.sqrt(DAYS_PER_YEAR)) if downside > 0 else math.nan


def drawdown(equity: Floats) -> tuple[float, int]:
    """Return the deepest fall from a peak as a fraction of it, and for how many marks equity was longest below one."""
    peak = np.maximum.accumulate(equity)
    places = np.arange(len(equity))
    since = places - np.maximum.accumulate(np.where(equity >= peak, places, 0))
    return float((1 - equity / peak).max()), int(since.max())


def figures(table: TradeTable, time_ms: Ints, equity: Floats, exposure: Floats) -> dict[str, float]:
    """
    Return all figures of a run by name; those that cannot be told, such as a win rate without trades, are left out.

    `turnover_per_day` is what was bought and sold over mean equity and days; `exposure` the mean gross notional over
    equity; `time_in_market` the share of candles with a position.
    """
    days = (time_ms[-1] - time_ms[0]) / _DAY_MS
    _, returns = daily_returns(time_ms, equity)
    fall, longest = drawdown(equity)
    step_days = float(np.median(np.diff(time_ms))) / _DAY_MS
    mean_equity = float(equity.mean())
    found = {
        "trades": float(len(table)),
        "days": float(days),
        "start_equity": float(equity[0]),
        "end_equity": float(equity[-1]),
        "net_profit": float(equity[-1] - equity[0]),
        "net_return": float(equity[-1] / equity[0] - 1),
        "sharpe": sharpe(returns),
        "sortino": sortino(returns),
        "max_drawdown": fall,
        "longest_drawdown_days": longest * step_days,
        "calmar": _annual(equity, float(days)) / fall if fall > 0 else math.nan,
        "exposure": float((exposure / np.maximum(equity, 1e-9)).mean()),
        "time_in_market": float((exposure > 0).mean()),
        "turnover_per_day": float((table.notional.sum() + table.exit_notional.sum()) / mean_equity / days),
        "fees": float(table.fees.sum()),
        "funding": float(table.funding.sum()),
    }
    return {name: value for name, value in (found | trade_figures(table)).items() if math.isfinite(value)}


def trade_figures(table: TradeTable) -> dict[str, float]:
    """Return what can be said of trades without the account that made them; nothing where there are none."""
    if not len(table):
        return {}
    won, lost = table.net[table.net > 0].sum(), -table.net[table.net < 0].sum()
    return {
        "win_rate": float((table.net > 0).mean()),
        "net_per_trade_bps": float((table.net / table.notional).mean() * 1e4),
        "profit_factor": float(won / lost) if lost > 0 else math.nan,
        "best_trade": float(table.net.max()),
        "worst_trade": float(table.net.min()),
        "average_minutes": float((table.closed_ms - table.opened_ms).mean() / 60_000),
        "longs": float((table.direction > 0).sum()),
        "shorts": float((table.direction < 0).sum()),
    }


def grouped(run: BacktestRun, by: Callable[[BacktestTrade], str]) -> list[dict[str, float | str]]:
    """Return one row of figures for each group of trades, most profitable first, and a total."""
    table = TradeTable.of(run)
    keys = np.array([by(one) for one in run.trades], np.str_)
    rows = [_row(str(key), table.take(keys == key)) for key in np.unique(keys)]
    rows.sort(key=lambda row: -float(row["net_profit"]))
    return [*rows, _row("TOTAL", table)]


def _row(key: str, table: TradeTable) -> dict[str, float | str]:
    some = trade_figures(table)
    return {
        "key": key,
        "trades": len(table),
        "net_profit": float(table.net.sum()),
        "net_per_trade_bps": some.get("net_per_trade_bps", 0.0),
        "win_rate": some.get("win_rate", 0.0),
        "wins": int((table.net > 0).sum()),
        "losses": int((table.net < 0).sum()),
        "average_minutes": some.get("average_minutes", 0.0),
        "fees": float(table.fees.sum()),
        "funding": float(table.funding.sum()),
    }


def _annual(equity: Floats, days: float) -> float:
    if days <= 0 or equity[-1] <= 0:
        return math.nan
    growth = math.log(equity[-1] / equity[0]) * DAYS_PER_YEAR / days
    return math.expm1(growth) if growth < 500 else math.inf
