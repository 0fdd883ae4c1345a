"""What the exit rules that trade would have made of every stored candle: how trades end, and what is left of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from feature_store.candle import CandleBlock, Series
from feature_store.features.definition import INDEX
from feature_store.kinds.store import KindStore
from feature_store.lake import CandleLake
from feature_store.store import FeatureStore
from flows.learned_labels import stored_funding, stored_tick
from flows.training.costs import Funding, TradingCosts
from flows.training.labels import net_forward_log_return
from flows.training.overlap import average_uniqueness
from flows.training.triple_barrier import BarrierLabels, BarrierRule, Touched, triple_barrier
from inference.domain.exit_profile import BUILT_IN, ExitProfile
from inference.domain.policy import Policy

SIDES = {"long": 1, "short": -1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """
    How trades of one side ended, one for each candle whose outcome is known; means, in bps where they are returns.

    `uniqueness` is the share of a label that it shares with no other: its inverse says how many rows tell one story.
    """

    symbol: str
    side: str
    trades: int
    stopped: float
    reached_target: float
    timed_out: float
    candles_held: float
    gross_bps: float
    net_bps: float
    horizon_net_bps: float
    uniqueness: float
    funding_settlements: int


def outcomes(
    lake: CandleLake,
    store: FeatureStore,
    series: Sequence[Series],
    *,
    start_ms: int,
    policy: Policy,
    half_spread: float,
    exits: Mapping[str, ExitProfile] = BUILT_IN,
) -> list[Outcomes]:
    """
    Return the outcomes of both sides of each series, decided at candles that open at or after a moment.

    Stops and targets are placed by the average true range of the whole history, as the worker places them, also of what
    retention has removed, as far as the store remembers it, and on the newest tick among the stored filters, unrounded
    where none is stored. Costs are the policy's fees and slippage, the spread given here, and the funding that is
    stored.

    Raises:
        CorruptFileError: A file of candles, or what is remembered of removed ones, is damaged.
    """
    costs, kinds = TradingCosts.of(policy, half_spread=half_spread), KindStore(lake.root, lake.place)
    found = []
    for one in series:
        engine, block = store.warmed(one, lake.read(one))
        atr = np.ascontiguousarray(engine.advance(block)[:, INDEX["atr_14"]])
        first = int(np.searchsorted(block.open_time_ms, start_ms))
        funding = stored_funding(kinds, one)
        tick = stored_tick(kinds, one)
        rule = BarrierRule.of(policy, timeframe_ms=one.timeframe.milliseconds, price_tick=tick, exits=exits)
        found += [_side(one, name, block[first:], atr[first:], rule, costs, funding) for name in SIDES]
    return found


def _side(
    series: Series,
    side: str,
    block: CandleBlock,
    atr: np.ndarray[tuple[int], np.dtype[np.float64]],
    rule: BarrierRule,
    costs: TradingCosts,
    funding: Funding,
) -> Outcomes:
    step, direction = series.timeframe.milliseconds, SIDES[side]
    labels = triple_barrier(block, atr, rule, direction=direction, costs=costs, timeframe_ms=step, funding=funding)
    horizon = net_forward_log_return(
        block.close, block.open_time_ms, horizon=rule.holding_candles, timeframe_ms=step,
        direction=direction, costs=costs, funding=funding,
    )  # fmt: skip
    known = labels.touched != Touched.UNKNOWN
    starts = block.open_time_ms[known] + step
    return Outcomes(
        symbol=series.symbol,
        side=side,
        trades=int(known.sum()),
        stopped=_share(labels, Touched.STOP),
        reached_target=_share(labels, Touched.TARGET),
        timed_out=_share(labels, Touched.TIME),
        candles_held=_mean(labels.held[known]),
        gross_bps=1e4 * _mean(labels.gross_log_return[known]),
        net_bps=1e4 * _mean(labels.net_log_return[known]),
        horizon_net_bps=1e4 * _mean(horizon[np.isfinite(horizon)]),
        uniqueness=_mean(average_uniqueness(starts, labels.end_ms[known], step_ms=step)),
        funding_settlements=len(funding.time_ms),
    )


def _share(labels: BarrierLabels, barrier: Touched) -> float:
    return _mean(labels.touched[labels.touched != Touched.UNKNOWN] == barrier)


def _mean(values: np.ndarray[tuple[int], np.dtype[np.generic]]) -> float:
    return float(np.mean(values.astype(np.float64))) if len(values) else float("nan")
