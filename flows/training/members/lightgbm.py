"""LightGBM over the newest row of all model inputs and the means of some."""

from __future__ import annotations

from pathlib import Path

import lightgbm
import numpy as np

from flows.training.config import TrainingConfig
from flows.training.dataset import Dataset, Floats, Rows
from flows.training.members.base import Export, MemberSpec, Progress, write_file
from flows.training.members.target import TargetScale
from flows.training.overlap import row_weights
from inference.models.market_move import without_market


class FittedLightGBM:
    """Trees as LightGBM trained them."""

    name = "lightgbm"

    def __init__(self, booster: lightgbm.Booster, scale: TargetScale, input_names: tuple[str, ...]) -> None:
        self._booster = booster
        self._scale = scale
        self._input_names = input_names

    def predict(self, dataset: Dataset, rows: Rows) -> Floats:
        """Return the expected log return at each row."""
        raw = self._booster.predict(dataset.columns(rows, self._input_names), num_threads=1)
        return np.asarray(raw, np.float64) * self._scale.spread

    def export(self, folder: Path) -> Export:
        """Write `lightgbm.txt`."""
        file = write_file(folder, "lightgbm.txt", self._booster.model_to_string().encode("utf-8"))
        return Export(kind="lightgbm", file=file, inputs=self._input_names, raw_scale=self._scale.spread)

    def importance(self) -> dict[str, float]:
        """Return each input's share of what the splits gained; a leaf's line runs through inputs of its splits only."""
        gain = self._booster.feature_importance(importance_type="gain").astype(float)
        share = gain / (gain.sum() or 1.0)
        return dict(zip(self._input_names, share.tolist(), strict=True))


def fit_lightgbm(dataset: Dataset, rows: Rows, config: TrainingConfig, progress: Progress) -> FittedLightGBM:
    """Fit boosted trees to what is learned of the rows."""
    sizes = config.lightgbm
    names = config.member_inputs(dataset.input_names)
    learned = without_market(dataset.learned[rows.index], rows.open_time_ms, config.market_share_removed)
    scale = TargetScale.of(learned)
    kept = (rows.open_time_ms // dataset.timeframe_ms) % sizes.row_stride == 0
    read = rows.take(kept)
    data = lightgbm.Dataset(
        dataset.columns(read, names),
        label=scale.encode(learned[kept]),
        weight=row_weights(read, config, timeframe_ms=dataset.timeframe_ms, end_ms=dataset.learned_end_ms[read.index]),
        params={"verbosity": -1, "linear_tree": sizes.linear_leaves},
    )
    booster = lightgbm.train(
        {
            "objective": "l2",
            "boost_from_average": False,
            "max_depth": sizes.depth + 1,
            "num_leaves": 2**sizes.depth,
            "max_bin": 127,
            "learning_rate": sizes.learning_rate,
            "min_data_in_leaf": sizes.min_leaf_rows,
            "bagging_fraction": sizes.row_fraction,
            "bagging_freq": 1,
            "feature_fraction": sizes.column_fraction,
            "lambda_l2": sizes.l2,
            "linear_tree": sizes.linear_leaves,
            "linear_lambda": sizes.linear_l2,
            "seed": config.seed,
            "deterministic": True,
            "force_row_wise": True,
            "num_threads": config.threads,
            "verbosity": -1,
        },
        data,
        num_boost_round=sizes.rounds,
    )
    progress("lightgbm", 1.0)
    return FittedLightGBM(booster, scale, names)


MEMBER = MemberSpec(
    fit=fit_lightgbm,
    consumes="the newest value of every model input, and means of some over the window",
    share=0.25,
    seconds=6.0,
)
