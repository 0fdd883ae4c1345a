"""XGBoost over the newest row of all model inputs and the means of some."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xgboost

from flows.training.config import TrainingConfig
from flows.training.dataset import Dataset, Floats, Rows
from flows.training.members.base import Export, MemberSpec, Progress, write_file
from flows.training.members.target import TargetScale
from flows.training.overlap import row_weights
from inference.models.market_move import without_market


class FittedXGBoost:
    """Trees as XGBoost trained them."""

    name = "xgboost"

    def __init__(self, booster: xgboost.Booster, scale: TargetScale, input_names: tuple[str, ...]) -> None:
        self._booster = booster
        self._scale = scale
        self._input_names = input_names

    def predict(self, dataset: Dataset, rows: Rows) -> Floats:
        """Return the expected log return at each row."""
        raw = self._booster.predict(xgboost.DMatrix(dataset.columns(rows, self._input_names)))
        return np.asarray(raw, np.float64) * self._scale.spread

    def export(self, folder: Path) -> Export:
        """Write `xgboost.ubj`."""
        file = write_file(folder, "xgboost.ubj", bytes(self._booster.save_raw("ubj")))
        return Export(kind="xgboost", file=file, inputs=self._input_names, raw_scale=self._scale.spread)

    def importance(self) -> dict[str, float]:
        """Return each input's share of the gain."""
        gain = self._booster.get_score(importance_type="total_gain")
        values = {name: float(np.sum(gain.get(f"f{index}", 0.0))) for index, name in enumerate(self._input_names)}
        total = sum(values.values()) or 1.0
        return {name: value / total for name, value in values.items()}


def fit_xgboost(dataset: Dataset, rows: Rows, config: TrainingConfig, progress: Progress) -> FittedXGBoost:
    """Fit boosted trees to what is learned of the rows."""
    sizes = config.xgboost
    names = config.member_inputs(dataset.input_names)
    learned = without_market(dataset.learned[rows.index], rows.open_time_ms, config.market_share_removed)
    scale = TargetScale.of(learned)
    kept = (rows.open_time_ms // dataset.timeframe_ms) % sizes.row_stride == 0
    read = rows.take(kept)
    matrix = xgboost.QuantileDMatrix(
        dataset.columns(read, names),
        label=scale.encode(learned[kept]),
        weight=row_weights(read, config, timeframe_ms=dataset.timeframe_ms, end_ms=dataset.learned_end_ms[read.index]),
        nthread=config.threads,
        max_bin=128,
    )
    booster = xgboost.train(
        {
            "objective": "reg:squarederror",
            "base_score": 0.0,
            "tree_method": "hist",
            "max_bin": 128,
            "max_depth": sizes.depth,
            "eta": sizes.learning_rate,
            "min_child_weight": sizes.min_leaf_rows,
            "subsample": sizes.row_fraction,
            "colsample_bytree": sizes.column_fraction,
            "lambda": sizes.l2,
            "seed": config.seed,
            "nthread": config.threads,
            "verbosity": 0,
        },
        matrix,
        num_boost_round=sizes.rounds,
    )
    progress("xgboost", 1.0)
    return FittedXGBoost(booster, scale, names)


MEMBER = MemberSpec(
    fit=fit_xgboost,
    consumes="the newest value of every model input, and means of some over the window",
    share=0.25,
    seconds=6.0,
)
