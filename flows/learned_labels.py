"""What members learn where that is more than a forward return, with what it takes beside candles: tick and funding."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from feature_store.candle import CandleBlock, Series, Timeframe
from feature_store.features.definition import INDEX
from feature_store.kinds.definition import FILTERS, FUNDING, Subject
from feature_store.kinds.store import KindStore
from feature_store.lake import CandleLake
from feature_store.store import TrainingFrame
from flows.training.config import BarrierSizes, TrainingConfig
from flows.training.costs import Funding, TradingCosts
from flows.training.dataset import LearnedLabels
from flows.training.labels import net_forward_log_return
from flows.training.triple_barrier import BarrierRule, triple_barrier
from inference.domain.exit_profile import BUILT_IN, ExitProfile
from inference.domain.policy import Policy


def stored_funding(kinds: KindStore, series: Series, as_of_ms: int | None = None) -> Funding:
    """
    Return the funding that is stored of a series, or that could be known at a moment.

    Raises:
        CorruptFileError: A file is damaged.
    """
    records = kinds.read(FUNDING, Subject.of(FUNDING, series), as_of_ms=as_of_ms)
    return Funding(records.time_ms.astype(np.int64), np.asarray(records["funding_rate"], np.float64))


def stored_tick(kinds: KindStore, series: Series, as_of_ms: int | None = None) -> float:
    """
    Return the newest price tick that is stored of a series, or could be known at a moment; 0 where none is.

    Raises:
        CorruptFileError: A file is damaged.
    """
    ticks = np.asarray(kinds.read(FILTERS, Subject.of(FILTERS, series), as_of_ms=as_of_ms)["price_tick"], np.float64)
    told = ticks[np.isfinite(ticks)]
    return float(told[-1]) if len(told) else 0.0


def learned_labels(lake: CandleLake, series: Series, frame: TrainingFrame, config: TrainingConfig) -> LearnedLabels:
    """
    Return what members learn of each candle of a frame where that is `net` or `barrier`.

    Costs are the configuration's, and the funding that is stored; barriers lie where its multiples of the average true
    range put them, as that was known at each candle, and on the stored tick. All is for one who goes long.

    Raises:
        CorruptFileError: A stored file is damaged.
    """
    kinds, step, times = KindStore(lake.root, lake.place), series.timeframe.milliseconds, frame.open_time_ms
    costs = TradingCosts(taker_fee=config.fee_bps / 1e4, slippage=config.slippage_bps / 1e4, half_spread=0.0)
    funding = stored_funding(kinds, series, config.as_of_ms)
    if config.label == "net":
        net = net_forward_log_return(
            frame.close, times, horizon=config.horizon, timeframe_ms=step, direction=1, costs=costs, funding=funding
        )
        end_ms = times + (config.horizon + 1) * step
        return LearnedLabels(net, end_ms, end_ms)
    block = lake.read(series, int(times[0]), int(times[-1]) + 1) if len(times) else CandleBlock.empty()
    # A candle may have come since the frame was read.
    there = np.isin(block.open_time_ms, times)
    block = CandleBlock(block.open_time_ms[there], block.values[there])
    sizes = config.barriers or barrier_sizes(Policy(), series.timeframe)
    rule = BarrierRule(
        stop_atr_multiple=sizes.stop_atr_multiple,
        target_atr_multiple=sizes.target_atr_multiple,
        holding_candles=sizes.holding_candles,
        price_tick=stored_tick(kinds, series, config.as_of_ms),
    )
    atr = np.ascontiguousarray(frame.features[:, INDEX["atr_14"]])
    ended = triple_barrier(block, atr, rule, direction=1, costs=costs, timeframe_ms=step, funding=funding)
    return LearnedLabels(ended.net_log_return, ended.end_ms, times + (rule.holding_candles + 1) * step)


def barrier_sizes(policy: Policy, timeframe: Timeframe, exits: Mapping[str, ExitProfile] = BUILT_IN) -> BarrierSizes:
    """Return where a policy ends trades, as a training run records it; it may name one of `exits`."""
    rule = BarrierRule.of(policy, timeframe_ms=timeframe.milliseconds, exits=exits)
    return BarrierSizes(
        stop_atr_multiple=rule.stop_atr_multiple,
        target_atr_multiple=rule.target_atr_multiple,
        holding_candles=rule.holding_candles,
    )
