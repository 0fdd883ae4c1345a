"""What a bundle answers beside the expected return: an interval, or the direction, each calibrated out of sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xgboost

from flows.training.calibrate import logistic_slope
from flows.training.config import TrainingConfig
from flows.training.dataset import Dataset, Floats, Rows
from flows.training.evaluate import calibration_metrics, spread
from flows.training.members.base import write_file
from flows.training.moments import BlockSums, Sampling
from inference.models.ensemble import open_head
from inference.models.manifest import HeadEntry, HeadKind


@dataclass(frozen=True, slots=True, eq=False)
class FittedHead:
    """A head's manifest entry and the bytes of its file."""

    entry: HeadEntry
    content: bytes

    def answers(self, dataset: Dataset, rows: Rows) -> dict[str, Floats]:
        """Return what the worker would answer at each row, by name."""
        return head_answers(self.entry, self.content, dataset, rows)


def fit_heads(
    dataset: Dataset, fit: Rows, validation: Rows, config: TrainingConfig, folder: Path
) -> tuple[FittedHead, ...]:
    """Fit the heads that are asked for on the fit window, calibrate them on validation, and write their files."""
    fitters: dict[HeadKind, Callable[..., FittedHead]] = {"quantile": _fit_quantile, "direction": _fit_direction}
    return tuple(fitters[kind](dataset, fit, validation, config, folder) for kind in config.heads)


def _fit_quantile(dataset: Dataset, fit: Rows, validation: Rows, config: TrainingConfig, folder: Path) -> FittedHead:
    """
    Fit quantiles of the whole return, the market's share included: that is what an interval has to hold.

    The interval is widened until it held as much of validation as it says (Romano, Patterson and Candes, 2019).
    """
    levels = config.head.levels
    size = float(max(fit.label.std(), 1e-9))
    settings = {"objective": "reg:quantileerror", "quantile_alpha": np.asarray(levels)}
    content = _boosted(dataset, fit, fit.label / size, config, settings)
    file = write_file(folder, "quantile.ubj", content)
    names = config.row_inputs(dataset.input_names)
    entry = HeadEntry(kind="quantile", file=file, scale=size, inputs=names, levels=levels)
    low, high = _interval(head_answers(entry, content, dataset, validation), levels)
    outside = np.sort(np.maximum(low - validation.label, validation.label - high))
    wanted = int(np.ceil((levels[-1] - levels[0]) * (len(outside) + 1)))
    widening = float(outside[min(wanted, len(outside)) - 1])
    return FittedHead(
        HeadEntry(kind="quantile", file=file, scale=size, inputs=names, levels=levels, widening=widening), content
    )


def _fit_direction(dataset: Dataset, fit: Rows, validation: Rows, config: TrainingConfig, folder: Path) -> FittedHead:
    """Fit the probability of a rise itself; its odds are scaled on validation, and to nothing where they mislead."""
    moved = fit.take(fit.label != 0)
    content = _boosted(dataset, moved, moved.label > 0, config, {"objective": "binary:logistic", "base_score": 0.5})
    file = write_file(folder, "direction.ubj", content)
    names = config.row_inputs(dataset.input_names)
    plain = HeadEntry(kind="direction", file=file, scale=1.0, inputs=names)
    told = np.clip(head_answers(plain, content, dataset, validation)["direction"], 1e-6, 1 - 1e-6)
    was = validation.label != 0
    scale = logistic_slope(np.log(told / (1 - told))[was], validation.label[was] > 0)
    return FittedHead(HeadEntry(kind="direction", file=file, scale=scale, inputs=names), content)


def _boosted(dataset: Dataset, rows: Rows, target: Any, config: TrainingConfig, settings: Mapping[str, Any]) -> bytes:
    sizes = config.head
    kept = (rows.open_time_ms // dataset.timeframe_ms) % sizes.row_stride == 0
    matrix = xgboost.QuantileDMatrix(
        dataset.columns(rows.take(kept), config.row_inputs(dataset.input_names)),
        label=np.asarray(target, np.float64)[kept],
        nthread=config.threads,
        max_bin=128,
    )
    shared = {
        "tree_method": "hist", "max_bin": 128, "max_depth": sizes.depth, "eta": sizes.learning_rate,
        "min_child_weight": sizes.min_leaf_rows if settings["objective"] == "reg:quantileerror" else 1.0,
        "subsample": 0.6, "colsample_bytree": 0.4, "lambda": 20.0, "seed": config.seed, "nthread": config.threads,
        "verbosity": 0,
    }  # fmt: skip
    booster = xgboost.train({**shared, **settings}, matrix, num_boost_round=sizes.rounds)
    return bytes(booster.save_raw("ubj"))


def head_answers(entry: HeadEntry, content: bytes, dataset: Dataset, rows: Rows) -> dict[str, Floats]:
    """Return what a head's file answers at each row, through the very code that the worker runs."""
    head = open_head(entry, content, dataset.input_names)
    parts = [head.predict(dataset.inputs(part), dataset.windows(part)) for part in dataset.batches(rows)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}


def head_metrics(
    heads: Sequence[HeadEntry], answers: Mapping[str, Floats], rows: Rows, sampling: Sampling
) -> dict[str, float]:
    """
    Return figures of the heads on rows that they were neither fitted nor calibrated on.

    `quantile/coverage` is the share of outcomes inside the outermost quantiles, with its interval, `quantile/asked`
    what it should be, `quantile/width_bps` their mean distance, `quantile/pinball_bps` the mean pinball loss. Of the
    direction the same figures as of the ensemble's probability.
    """
    found: dict[str, float] = {}
    for head in heads:
        if head.kind == "direction":
            told = answers["direction"]
            defined = np.isfinite(told)
            found |= {
                f"direction/{name}": value
                for name, value in calibration_metrics(rows.take(defined), told[defined], sampling).items()
            }
            continue
        low, high = _interval(answers, head.levels)
        defined = np.isfinite(low)
        kept, low, high = rows.take(defined), low[defined], high[defined]
        inside = (kept.label >= low) & (kept.label <= high)
        sums = BlockSums.of(
            kept.open_time_ms, sampling.block_ms, {"n": np.ones(len(kept)), "inside": inside.astype(np.float64)}
        )
        found |= {f"quantile/{k}": v for k, v in spread("coverage", sums.interval(_coverage, sampling)).items()}
        found["quantile/asked"] = head.levels[-1] - head.levels[0]
        found["quantile/width_bps"] = float((high - low).mean() * 1e4)
        losses = [
            pinball(kept.label, answers[f"quantile_{level:g}"][defined], level).mean() * 1e4 for level in head.levels
        ]
        found["quantile/pinball_bps"] = float(np.mean(losses))
    return found


def pinball(outcome: Floats, quantile: Floats, level: float) -> Floats:
    """Return the pinball loss of each row (Koenker and Bassett, 1978), in the unit of the outcome."""
    error = outcome - quantile
    return np.asarray(np.maximum(level * error, (level - 1) * error))


def _coverage(sums: Any) -> Any:
    return sums["inside"] / sums["n"]


def _interval(answers: Mapping[str, Floats], levels: tuple[float, ...]) -> tuple[Floats, Floats]:
    return answers[f"quantile_{levels[0]:g}"], answers[f"quantile_{levels[-1]:g}"]
