"""The threshold rule traded over past rows: one position per series at a time, held for the horizon, costs paid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flows.training.dataset import Floats, Rows, Times
from flows.training.moments import BlockSums, Interval, Sampling, ratio


@dataclass(frozen=True, slots=True, eq=False)
class Trades:
    """Closed round trips, in order of entry; returns are simple, as a fraction of notional."""

    series: npt.NDArray[np.int64]
    entry_ms: Times
    direction: npt.NDArray[np.int64]
    gross: Floats
    net: Floats

    def __len__(self) -> int:
        return len(self.net)


def simulate(
    rows: Rows, expected: Floats, probability_up: Floats, *, threshold: float, cost: float, horizon_ms: int
) -> Trades:
    """
    Trade rows as the worker would: confident enough, and expecting more than the round trip costs.

    Entry is at the close of the row's candle, exit one horizon later; a series in a trade takes no other.
    """
    confidence = np.maximum(probability_up, 1 - probability_up)
    direction = np.where(probability_up > 0.5, 1, -1)
    with np.errstate(invalid="ignore"):
        wanted = (confidence >= threshold) & (np.expm1(direction * expected) > cost)
    candidates = np.flatnonzero(wanted)
    candidates = candidates[np.lexsort((rows.open_time_ms[candidates], rows.series[candidates]))]
    entered = candidates[_first_free(rows.series[candidates], rows.open_time_ms[candidates], horizon_ms)]
    entered = entered[np.argsort(rows.open_time_ms[entered], kind="stable")]
    # A short of notional 1 gains what the price loses, simply, not in logarithms.
    gross = direction[entered] * np.expm1(rows.label[entered])

    return Trades(rows.series[entered], rows.open_time_ms[entered], direction[entered], gross, gross - cost)


def _first_free(series: npt.NDArray[np.int64], times: Times, horizon_ms: int) -> list[int]:
    taken, last_series, free_ms = [], -1, 0
    for place, (one, time_ms) in enumerate(zip(series.tolist(), times.tolist(), strict=True)):
        if one != last_series:
            last_series, free_ms = one, time_ms
        if time_ms >= free_ms:
            taken.append(place)
            free_ms = time_ms + horizon_ms
    return taken


def net_per_trade(trades: Trades, sampling: Sampling) -> Interval:
    """Return the mean net return of a trade with its interval, blocks of time drawn together."""
    sums = BlockSums.of(trades.entry_ms, sampling.block_ms, {"n": np.ones(len(trades)), "net": trades.net})
    return sums.interval(lambda s: ratio(s["net"], s["n"]), sampling)


def net_difference(
    ours: Trades,
    theirs: Trades,
    *,
    start_ms: int,
    end_ms: int,
    slots: float,
    sampling: Sampling,
    share: float = 1.0,
) -> Interval:
    """
    Return how much more one rule earned than a share of what another did, per slot, paired block by block.

    A slot is one horizon of one series: what could have been traded, whether it was or not.
    """
    block_ms = sampling.block_ms
    blocks = max((end_ms - start_ms + block_ms - 1) // block_ms, 1)
    difference = np.zeros(blocks)
    for trades, sign in ((ours, 1.0), (theirs, -share)):
        if len(trades):
            place = (trades.entry_ms - start_ms) // block_ms
            difference += sign * np.bincount(place, weights=trades.net, minlength=blocks)[:blocks]
    sums = BlockSums(("net", "slots"), np.stack([difference, np.full(blocks, slots / blocks)], axis=1))
    return sums.interval(lambda s: ratio(s["net"], s["slots"]), sampling)


def trade_metrics(trades: Trades, sampling: Sampling) -> dict[str, float]:
    """Return counts and net figures in bps; a rule that never trades has none of the averages."""
    figures: dict[str, float] = {"trades": float(len(trades)), "net_return": float(trades.net.sum())}
    if len(trades):
        interval = net_per_trade(trades, sampling)
        curve = np.cumsum(trades.net)
        figures |= {
            "gross_per_trade_bps": float(trades.gross.mean() * 1e4),
            "net_per_trade_bps": interval.value * 1e4,
            "net_per_trade_bps_low": interval.low * 1e4,
            "net_per_trade_bps_high": interval.high * 1e4,
            "trade_hit_rate": float((trades.net > 0).mean()),
            "max_drawdown": float((np.maximum.accumulate(np.maximum(curve, 0)) - curve).max()),
        }
    return figures
