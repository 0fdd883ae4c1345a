"""Skill out of fold: cheap refits walked forward, and backtest statistics over the histories of combinatorial folds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_store.errors import BadInputError
from flows.training.config import TrainingConfig
from flows.training.dataset import Dataset, Floats, Inputs, Rows, Times, thinned
from flows.training.evaluate import STATISTICS, prediction_sums, prefixed, spread
from flows.training.folds import Fold, FoldRules, combinatorial, paths, walk_forward
from flows.training.moments import Sampling
from flows.training.refits import REFITS
from flows.training.splits import Splits
from flows.training.trading import Trades, simulate
from inference.models.manifest import TimeWindow
from inference.models.market_move import without_market

# What a refit says is traded where it is as loud as this share of what it said in training was not.
_QUIET_SHARE = 0.9
_FEWEST_ROWS = 50
_YEAR_MS = 365 * 86_400_000


@dataclass(frozen=True, slots=True, eq=False)
class CrossValidation:
    """
    What folds tell of a stretch.

    `metrics` are flat: `walk_forward/<refit>/<statistic>_mean`, `_std` and `_negative_share` over the folds, the same
    under `cpcv/` over the histories. `net` holds the net return of each history per block of two horizons, for
    statistics of many trials: [histories, blocks] by refit.
    """

    metrics: Mapping[str, float]
    net: Mapping[str, Floats]


def cross_validated(dataset: Dataset, splits: Splits, config: TrainingConfig) -> CrossValidation:
    """
    Fit cheap models again on every fold of the stretch before the shadow window, and test them out of fold.

    All that a fold uses is measured on its training rows: scales of inputs and targets, and how loud a prediction has
    to be to be traded. Where the stretch is too short for folds, `walk_forward/folds` and `cpcv/paths` are 0.
    """
    sizes, rules = config.folds, FoldRules(
        timeframe_ms=dataset.timeframe_ms, horizon=config.horizon, embargo=config.embargo
    )  # fmt: skip
    span = TimeWindow(start_ms=splits.fit.start_ms, end_ms=splits.calibration.end_ms)
    try:
        forward = walk_forward(span.start_ms, span.end_ms, rules, folds=sizes.walk_forward)
        crossed = combinatorial(span.start_ms, span.end_ms, rules, groups=sizes.groups, tested=sizes.tested)
    except BadInputError:
        forward, crossed = (), ()
    metrics = {"walk_forward/folds": float(len(forward)), "cpcv/paths": float(len(paths(crossed)))}
    net: dict[str, Floats] = {}
    if not forward:
        return CrossValidation(metrics, net)
    stretch = _Stretch.of(dataset, span, splits, config)
    for name in REFITS:
        tested = [one for one in (stretch.tested(name, fold) for fold in forward) if one is not None]
        metrics |= _summary(f"walk_forward/{name}", [stretch.scores(one) for one in tested])
        if tested:
            metrics |= _pooled(f"walk_forward/{name}", stretch, tested)
        histories = [one for one in stretch.histories(name, crossed) if one is not None]
        metrics |= _summary(f"cpcv/{name}", [stretch.scores(one) for one in histories])
        if histories:
            net[name] = np.stack([stretch.net_of_blocks(one) for one in histories])
    return CrossValidation(metrics, net)


@dataclass(frozen=True, slots=True, eq=False)
class _Tested:
    """Rows that one fold or history tested, in order of time, with what was said of them and what was traded."""

    rows: Rows
    predicted: Floats
    trades: Trades
    tested_ms: int


@dataclass(frozen=True, slots=True, eq=False)
class _Stretch:
    rows: Rows
    inputs: Inputs
    learned: Floats
    # When each row's label is known, and when what is learned of it is at the latest.
    known_ms: Times
    learned_ms: Times
    span: TimeWindow
    config: TrainingConfig
    horizon_ms: int
    series: int

    @classmethod
    def of(cls, dataset: Dataset, span: TimeWindow, splits: Splits, config: TrainingConfig) -> _Stretch:
        everything = dataset.rows(span, splits)
        stride = max(-(-len(everything) // config.folds.most_rows), 1)
        rows = thinned(everything, stride, dataset.timeframe_ms)
        return cls(
            rows,
            dataset.columns(rows, config.row_inputs(dataset.input_names))
            if len(rows)
            else np.empty((0, 0), np.float32),
            dataset.learned[rows.index],
            rows.open_time_ms + dataset.timeframe_ms + splits.horizon_ms,
            dataset.latest_end_ms[rows.index],
            span,
            config,
            splits.horizon_ms,
            len(dataset.symbols),
        )

    def tested(self, refit: str, fold: Fold) -> _Tested | None:
        """Return how a refit did on a fold's test rows; None where there are too few to learn from or test on."""
        on = np.flatnonzero(fold.tests_on(self.rows.open_time_ms, self.known_ms))
        found = self._predicted(refit, fold, on)
        return None if found is None else self._traded(on, *found, fold.tests)

    def histories(self, refit: str, folds: Sequence[Fold]) -> list[_Tested | None]:
        """Return one test of the whole stretch for each history that the folds make."""
        windows = {group: window for fold in folds for group, window in zip(fold.groups, fold.tests, strict=True)}
        placed = {
            group: np.flatnonzero(Fold((group,), (), (window,)).tests_on(self.rows.open_time_ms, self.known_ms))
            for group, window in windows.items()
        }
        said: dict[tuple[int, int], tuple[Floats, Floats]] = {}
        for number, fold in enumerate(folds):
            found = self._predicted(refit, fold, np.concatenate([placed[group] for group in fold.groups]))
            if found is None:
                continue
            cuts = np.cumsum([len(placed[group]) for group in fold.groups])[:-1]
            for group, predicted, side in zip(
                fold.groups, np.split(found[0], cuts), np.split(found[1], cuts), strict=True
            ):
                said[number, group] = predicted, side
        return [self._history(path, placed, windows, said) for path in paths(folds)]

    def _history(
        self,
        path: Mapping[int, int],
        placed: Mapping[int, npt.NDArray[np.int64]],
        windows: Mapping[int, TimeWindow],
        said: Mapping[tuple[int, int], tuple[Floats, Floats]],
    ) -> _Tested | None:
        if any((number, group) not in said for group, number in path.items()):
            return None
        parts = [said[number, group] for group, number in path.items()]
        on = np.concatenate([placed[group] for group in path])
        predicted, side = (np.concatenate(one) for one in zip(*parts, strict=True))
        return self._traded(on, predicted, side, [windows[group] for group in path])

    def _predicted(self, refit: str, fold: Fold, on: npt.NDArray[np.int64]) -> tuple[Floats, Floats] | None:
        """Return what is said of some rows, and on which side of the market each would be, 0 where it is too quiet."""
        known = fold.learns_from(self.rows.open_time_ms, np.maximum(self.learned_ms, self.known_ms))
        from_rows = np.flatnonzero(known & np.isfinite(self.learned))
        if len(from_rows) < _FEWEST_ROWS or len(on) < _FEWEST_ROWS:
            return None
        learned = without_market(
            self.learned[from_rows], self.rows.open_time_ms[from_rows], self.config.market_share_removed
        )
        predict = REFITS[refit](self.inputs[from_rows], learned, self.config)
        loud = float(np.quantile(np.abs(predict(self.inputs[from_rows])), _QUIET_SHARE))
        predicted = predict(self.inputs[on])
        return predicted, np.where(np.abs(predicted) >= loud, np.sign(predicted), 0.0)

    def _traded(
        self, on: npt.NDArray[np.int64], predicted: Floats, side: Floats, windows: Iterable[TimeWindow]
    ) -> _Tested:
        rows = self.rows.take(on)
        # A side is taken for certain: how loud a prediction has to be was settled before.
        trades = simulate(
            rows, side, (1 + side) / 2,
            threshold=0.75, cost=self.config.round_trip_cost, horizon_ms=self.horizon_ms,
        )  # fmt: skip
        return _Tested(rows, predicted, trades, sum(one.end_ms - one.start_ms for one in windows))

    def scores(self, one: _Tested) -> dict[str, float]:
        """Return correlation, skill and hit rate, and after costs the net of a slot and the Sharpe ratio of a year."""
        sums = prediction_sums(one.rows, one.predicted, block_ms=2 * self.horizon_ms)
        found = {name: sums.total(STATISTICS[name]) for name in ("ic", "rank_ic", "rmse_skill", "hit_rate")}
        slots = one.tested_ms / self.horizon_ms * self.series
        net = self.net_of_blocks(one, only_tested=True)
        found["net_per_slot_bps"] = float(one.trades.net.sum() / slots * 1e4)
        deviation = float(net.std())
        found["sharpe"] = (
            float(net.mean() / deviation * np.sqrt(_YEAR_MS / (2 * self.horizon_ms))) if deviation > 0 else 0.0
        )
        return found

    def net_of_blocks(self, one: _Tested, *, only_tested: bool = False) -> Floats:
        """Return the net return of each block of two horizons, per series; with `only_tested`, of those with rows."""
        block_ms = 2 * self.horizon_ms
        count = -(-(self.span.end_ms - self.span.start_ms) // block_ms)
        place = (one.trades.entry_ms - self.span.start_ms) // block_ms
        net = np.bincount(place, weights=one.trades.net, minlength=count) / self.series
        if not only_tested:
            return np.asarray(net, np.float64)
        return np.asarray(net[np.unique((one.rows.open_time_ms - self.span.start_ms) // block_ms)], np.float64)


def _summary(prefix: str, scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name in scores[0] if scores else ():
        values = np.array([one[name] for one in scores if np.isfinite(one[name])])
        if len(values):
            found |= {
                f"{name}_mean": float(values.mean()),
                f"{name}_std": float(values.std()),
                f"{name}_negative_share": float((values < 0).mean()),
            }
    return prefixed(prefix, found)


def _pooled(prefix: str, stretch: _Stretch, tested: Sequence[_Tested]) -> dict[str, float]:
    """Return the correlation over all folds together, with its interval: folds that only follow each other are one."""
    rows = Rows(*(np.concatenate([getattr(one.rows, field) for one in tested]) for field in Rows.__dataclass_fields__))
    sampling = Sampling(
        block_ms=2 * stretch.horizon_ms, samples=stretch.config.bootstrap_samples, seed=stretch.config.seed
    )
    sums = prediction_sums(rows, np.concatenate([one.predicted for one in tested]), block_ms=sampling.block_ms)
    return prefixed(prefix, spread("ic", sums.interval(STATISTICS["ic"], sampling)))
