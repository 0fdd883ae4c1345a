"""How a choice is scored: walk-forward inside the stretch that a candidate's members may learn from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from flows.training.calibrate import probabilities
from flows.training.combine import Scored, combine
from flows.training.config import TrainingConfig
from flows.training.dataset import Dataset, Floats, FrameSet, Rows
from flows.training.folds import Fold, FoldRules, walk_forward
from flows.training.members.base import FittedMember
from flows.training.members.catalogue import trainer
from flows.training.splits import Splits, plan_splits
from flows.training.trading import simulate
from flows.tuning.exits import Said, TradedMarket, traded_net
from inference.models.ensemble import weighted_vote
from inference.models.manifest import TimeWindow
from inference.models.market_move import without_market

FOLDS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldScore:
    """
    What a choice earned on one fold, net of costs.

    Attributes:
        net_per_slot_bps: Net return per horizon of each series, traded or not, in basis points of notional.
        drawdown_bps: Deepest fall of the summed net return, in basis points of notional per series.
        ic: Correlation of expected and realised returns.
        trades: How many round trips.
    """

    net_per_slot_bps: float
    drawdown_bps: float
    ic: float
    trades: int


def fit_window(dataset: Dataset, config: TrainingConfig) -> TimeWindow:
    """
    Return what a candidate's members learn from, which is all that a tuning may look at.

    Raises:
        BadInputError: The candles are too few.
    """
    return plan_splits(dataset.start_ms, dataset.end_ms, config, timeframe_ms=dataset.timeframe_ms).fit


def tuning_folds(dataset: Dataset, config: TrainingConfig, count: int = FOLDS) -> tuple[Splits, ...]:
    """
    Cut the candidate's fit window, and nothing after it, into walk-forward folds.

    Each fold learns from all before its window, makes the ensemble's rule on the window's first half, and trades the
    second. The windows by which the candidate itself is weighed, calibrated and judged lie after all of them.

    Raises:
        BadInputError: The fit window is too short.
    """
    outer = plan_splits(dataset.start_ms, dataset.end_ms, config, timeframe_ms=dataset.timeframe_ms)
    rules = FoldRules(timeframe_ms=dataset.timeframe_ms, horizon=config.horizon, embargo=config.embargo)
    folds = walk_forward(outer.fit.start_ms, outer.fit.end_ms, rules, folds=count)
    return tuple(_split(fold, rules, outer.horizon_ms) for fold in folds)


def scores(
    frames: FrameSet, config: TrainingConfig, traded: TradedMarket | None = None, count: int = FOLDS
) -> Iterator[FoldScore]:
    """
    Train, weigh and trade a choice on one fold after the other, so that a poor one can be given up early.

    Trades are held for one horizon; given the candles, they are the worker's, and end where its exits end them.
    """
    dataset = Dataset(frames, horizon=config.horizon, window=config.window)
    for splits in tuning_folds(dataset, config, count):
        yield _score(dataset, splits, config, traded)


def _split(fold: Fold, rules: FoldRules, horizon_ms: int) -> Splits:
    (test,) = fold.tests
    step = rules.timeframe_ms
    candles = (test.end_ms - test.start_ms) // step
    quarter, half = (test.start_ms + round(candles * share) * step for share in (0.25, 0.5))
    pause = rules.embargo_ms
    return Splits(
        fit=fold.train[0],
        validation=TimeWindow(start_ms=test.start_ms, end_ms=quarter),
        calibration=TimeWindow(start_ms=quarter + pause, end_ms=half),
        shadow=TimeWindow(start_ms=half + pause, end_ms=test.end_ms),
        horizon_ms=horizon_ms,
    )


def _score(dataset: Dataset, splits: Splits, config: TrainingConfig, traded: TradedMarket | None) -> FoldScore:
    learned = dataset.learned_rows(splits)
    fitted = {name: trainer(name)(dataset, learned, config, lambda _step, _share: None) for name in config.members}
    windows = [
        dataset.rows(window, splits, stride=config.evaluation_stride)
        for window in (splits.validation, splits.calibration, splits.shadow)
    ]
    raw = [_predicted(fitted, dataset, rows, config.market_share_removed) for rows in windows]
    combined = combine(Scored(raw[0], raw[1]), windows[0], windows[1], config, splits.horizon_ms)
    expected = weighted_vote(combined.scaled(raw[2]), combined.weights) * combined.scale
    said = Said(expected, probabilities(combined.table, expected), combined.threshold)
    if traded is None:
        trades = simulate(
            windows[2], said.expected, said.probability_up,
            threshold=said.threshold, cost=config.round_trip_cost, horizon_ms=splits.horizon_ms,
        )  # fmt: skip
        net = trades.net
    else:
        net = traded_net(traded, config.traded_exits, said, windows[2], dataset.symbols, splits.shadow)
    return _scored(net, expected, windows[2], len(dataset.symbols), splits)


def _predicted(fitted: dict[str, FittedMember], dataset: Dataset, rows: Rows, market_share: float) -> dict[str, Floats]:
    return {
        name: without_market(member.predict(dataset, rows), rows.open_time_ms, market_share)
        for name, member in fitted.items()
    }


def _scored(net: Floats, expected: Floats, rows: Rows, series: int, splits: Splits) -> FoldScore:
    slots = (splits.shadow.end_ms - splits.shadow.start_ms) / splits.horizon_ms * series
    curve = np.concatenate([[0.0], np.cumsum(net)])
    varies = expected.std() > 0 and rows.label.std() > 0
    return FoldScore(
        net_per_slot_bps=float(net.sum() / slots * 1e4),
        drawdown_bps=float((np.maximum.accumulate(curve) - curve).max() / series * 1e4),
        ic=float(np.corrcoef(expected, rows.label)[0, 1]) if varies else 0.0,
        trades=len(net),
    )
