"""A check that nothing can be learned from labels that belong to another day."""

from __future__ import annotations

import numpy as np
import xgboost

from flows.training.config import TrainingConfig
from flows.training.dataset import Dataset, Floats, Rows
from flows.training.evaluate import STATISTICS, prediction_sums
from flows.training.members.target import TargetScale
from flows.training.moments import Sampling
from flows.training.splits import Splits
from inference.models.manifest import TimeWindow

_ROUNDS = 40


def shuffled_label_metrics(dataset: Dataset, splits: Splits, config: TrainingConfig) -> dict[str, float]:
    """
    Return the correlation that trees reach on labels moved elsewhere in time, and its distance from zero.

    All labels of the fit and validation windows are rotated by the same large offset, so that every series keeps its
    own rhythm and the series keep moving together, but no label belongs to its inputs any more. What is still
    predicted on validation leaks through the windows. `z` is that correlation in standard errors.
    """
    fit = dataset.learned_rows(splits, stride=config.horizon // 2)
    validation = dataset.rows(splits.validation, splits, stride=config.horizon // 4 or 1)
    moved = _rotated_labels(dataset, splits)
    fit, validation = _relabelled(fit, moved), _relabelled(validation, moved)
    if len(fit) < 50 or len(validation) < 50:
        return {}

    names = config.row_inputs(dataset.input_names)
    target = TargetScale.of(fit.label)
    settings = {
        "max_depth": 3, "max_bin": 64, "eta": 0.1, "min_child_weight": 50,
        "nthread": config.threads, "seed": config.seed, "verbosity": 0,
    }  # fmt: skip
    inputs, label = dataset.columns(fit, names), target.encode(fit.label)
    matrix = xgboost.QuantileDMatrix(inputs, label=label, max_bin=64, nthread=config.threads)
    booster = xgboost.train(settings, matrix, num_boost_round=_ROUNDS)
    predicted = booster.inplace_predict(dataset.columns(validation, names)).astype(np.float64)
    sampling = Sampling(block_ms=2 * splits.horizon_ms, samples=config.bootstrap_samples, seed=config.seed)
    ic = prediction_sums(validation, predicted, block_ms=sampling.block_ms).interval(STATISTICS["ic"], sampling)
    error = (ic.high - ic.low) / 3.92
    return {"shuffled_label_ic": ic.value, "shuffled_label_z": ic.value / error if error > 0 else float("nan")}


def _rotated_labels(dataset: Dataset, splits: Splits) -> Floats:
    span = TimeWindow(start_ms=splits.fit.start_ms, end_ms=splits.validation.end_ms)
    moved = np.full(len(dataset.label), np.nan)
    for number in range(len(dataset.symbols)):
        inside = np.flatnonzero(
            (dataset.series == number) & (dataset.open_time_ms >= span.start_ms) & (dataset.open_time_ms < span.end_ms)
        )
        moved[inside] = np.roll(dataset.learned[inside], int(len(inside) * 0.45))
    return moved


def _relabelled(rows: Rows, label: Floats) -> Rows:
    changed = Rows(rows.index, rows.series, rows.open_time_ms, label[rows.index])
    return changed.take(np.isfinite(changed.label))
