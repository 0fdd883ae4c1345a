"""What all rules of one shadow run share, and what one of them is worth there: by itself, and beside another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flows.training.calibrate import fit_rule, probabilities
from flows.training.config import TrainingConfig
from flows.training.dataset import Dataset, Floats, Rows
from flows.training.evaluate import calibration_metrics, prediction_metrics, spread
from flows.training.moments import Interval, Sampling
from flows.training.paired import (
    calibration_difference,
    performance_difference,
    score_difference,
    steadiness_difference,
)
from flows.training.performance import Account, capacity_interval, performance_metrics, steadiness
from flows.training.splits import Splits
from flows.training.trading import Trades, net_difference, simulate, trade_metrics
from inference.models.manifest import TimeWindow

Windows = tuple[tuple[Rows, Floats], tuple[Rows, Floats]]
"""The rows of the validation and of the calibration window, each with what was said of them."""


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """What a rule expected of each row, how probable it held a rise, and what it traded by that."""

    predicted: Floats
    probability_up: Floats
    trades: Trades


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """What all rules of one shadow run share."""

    dataset: Dataset
    splits: Splits
    rows: Rows
    window: TimeWindow
    sampling: Sampling
    cost: float

    @property
    def account(self) -> Account:
        """Return the capital and the time that every rule is measured on."""
        return Account(
            start_ms=self.window.start_ms,
            end_ms=self.window.end_ms,
            symbols=len(self.dataset.symbols),
            horizon_ms=self.splits.horizon_ms,
        )

    def trade(self, expected: Floats, probability_up: Floats, threshold: float) -> Trades:
        """Trade the window by a threshold."""
        return simulate(
            self.rows, expected, probability_up,
            threshold=threshold, cost=self.cost, horizon_ms=self.splits.horizon_ms,
        )  # fmt: skip

    def made_tradable(self, raw: Floats, learned: Windows, config: TrainingConfig) -> Judged:
        """Make a score tradable as the ensemble was, by what it said of the windows before, and trade it."""
        rule = fit_rule(learned, config, self.splits.horizon_ms)
        expected = raw * rule.scale
        probability_up = probabilities(rule.calibration, expected)
        return Judged(raw, probability_up, self.trade(expected, probability_up, rule.threshold))

    def scores(self, one: Judged) -> dict[str, float]:
        """Return what a rule is worth: its errors, its steadiness, its probabilities, and what it earned."""
        return (
            prediction_metrics(self.rows, one.predicted, self.sampling)
            | steadiness(self.rows, one.predicted, self.sampling)
            | calibration_metrics(self.rows, one.probability_up, self.sampling)
            | self._earned(one.trades)
        )

    def difference(self, ours: Judged, theirs: Judged) -> dict[str, float]:
        """Return how much better one rule was than another: money, risk, scores and probabilities, paired in time."""
        return (
            self.compare(ours.trades, theirs.trades)
            | performance_difference(ours.trades, theirs.trades, self.account, self.sampling)
            | score_difference(self.rows, ours.predicted, theirs.predicted, self.sampling)
            | steadiness_difference(self.rows, ours.predicted, theirs.predicted, self.sampling)
            | calibration_difference(self.rows, ours.probability_up, theirs.probability_up, self.sampling)
        )

    def compare(self, ours: Trades, theirs: Trades, share: float = 1.0) -> dict[str, float]:
        """Return how much more a rule earned than a share of another, in bps of notional per slot."""
        start, end = self.window.start_ms, self.window.end_ms
        slots = (end - start) / self.splits.horizon_ms * len(self.dataset.symbols)
        found = net_difference(
            ours, theirs, start_ms=start, end_ms=end, slots=slots, sampling=self.sampling, share=share
        )
        in_bps = Interval(value=found.value * 1e4, low=found.low * 1e4, high=found.high * 1e4)
        return spread("net_per_slot_bps", in_bps)

    def _earned(self, trades: Trades) -> dict[str, float]:
        held = performance_metrics(trades, self.account, self.sampling)
        # Rows lie series by series, oldest first; no open time needs more than 44 bits.
        keys = (self.rows.series << 44) | self.rows.open_time_ms
        entered = self.rows.index[np.searchsorted(keys, (trades.series << 44) | trades.entry_ms)]
        room = capacity_interval(trades, self.dataset.quote_volume[entered], self.sampling)
        return trade_metrics(trades, self.sampling) | held | spread("capacity_per_trade", room)
