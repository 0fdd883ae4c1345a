"""What training learns from, cut short: labels net of costs, barriers, and weights wait for their outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from feature_store.features.definition import INDEX
from feature_store.features.engine import FeatureEngine
from flows.training.costs import Funding, TradingCosts
from flows.training.labels import net_forward_log_return
from flows.training.overlap import average_uniqueness
from flows.training.triple_barrier import BarrierRule, triple_barrier
from inference.domain.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    import numpy.typing as npt

    from feature_store.candle import CandleBlock, Series

    Column = npt.NDArray[Any]

COSTS = TradingCosts(taker_fee=0.0005, half_spread=0.0001, slippage=0.0002)
_FUNDING_MS = 8 * 3_600_000


class Comparing(Protocol):
    """What counts values and remembers those that the future changed."""

    def compare(self, name: str, before: Column, after: Column) -> None:
        """Compare what was known with what is said of it later."""
        ...


def every_label_waits(
    series: Series, block: CandleBlock, cuts: Iterable[int], tally: Comparing, *, horizon: int
) -> None:
    """A label of any kind is there once its last candle has closed and never before, and then it stays."""
    step = series.timeframe.milliseconds
    whole = label_columns(series, block, horizon)
    for cut in cuts:
        now_ms = int(block.open_time_ms[cut - 1]) + step
        early = label_columns(series, block[:cut], horizon)
        known = {name: (ends[:cut] <= now_ms) & (ends[:cut] >= 0) for name, (_, ends) in whole.items()}
        for name, (values, _) in whole.items():
            tally.compare(name, early[name][0], np.where(known[name], values[:cut], np.nan))
        starts, name = block.open_time_ms[:cut] + step, "net return of barriers, long"
        ends = whole[name][1][:cut]
        of_all, of_known = np.full(cut, np.nan), np.full(cut, np.nan)
        rows = known[name]
        of_all[rows] = average_uniqueness(starts[rows], ends[rows], step_ms=step)
        rows = early[name][1] >= 0
        of_known[rows] = average_uniqueness(starts[rows], early[name][1][rows], step_ms=step)
        tally.compare("uniqueness of what is known", of_known, of_all)


def label_columns(series: Series, block: CandleBlock, horizon: int) -> dict[str, tuple[Column, Column]]:
    """Return labels by name, each with the moments from which its rows are known, -1 where never."""
    step, times = series.timeframe.milliseconds, block.open_time_ms
    atr = np.ascontiguousarray(FeatureEngine(series.timeframe).advance(block)[:, INDEX["atr_14"]])
    # All boundaries up to the newest close: the rate of one is known when it is due.
    boundaries = np.unique((times + step) // _FUNDING_MS) * _FUNDING_MS
    funding = Funding(boundaries, 1e-4 * np.cos(boundaries / _FUNDING_MS))
    rule = BarrierRule.of(Policy(), timeframe_ms=step)
    columns: dict[str, tuple[Column, Column]] = {}
    for direction, side in ((1, "long"), (-1, "short")):
        net = net_forward_log_return(
            block.close, times, horizon=horizon, timeframe_ms=step, direction=direction, costs=COSTS, funding=funding
        )
        columns[f"net label, {side}"] = (net, times + (horizon + 1) * step)
        ended = triple_barrier(block, atr, rule, direction=direction, costs=COSTS, timeframe_ms=step, funding=funding)
        for name, values in (
            ("net return", ended.net_log_return), ("gross return", ended.gross_log_return),
            ("price", ended.exit_price), ("result", ended.result),
            ("barrier", np.where(ended.touched, ended.touched, np.nan)),
            ("holding time", np.where(ended.held, ended.held, np.nan)),
        ):  # fmt: skip
            columns[f"{name} of barriers, {side}"] = (values.astype(np.float64), ended.end_ms)
    return columns
