"""A random forest over the newest row of all model inputs and the means of some."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.ensemble import RandomForestRegressor

from flows.training.config import TrainingConfig
from flows.training.dataset import Dataset, Rows
from flows.training.members.base import MemberSpec, Progress
from flows.training.members.graphs import Tree, forest_graph
from flows.training.members.rows import FittedRows, lesson


def fit_forest(dataset: Dataset, rows: Rows, config: TrainingConfig, progress: Progress) -> FittedRows:
    """Fit a random forest (Breiman, 2001) on rows whose labels do not overlap: deep trees learn overlap by heart."""
    sizes = config.forest
    learned = lesson(dataset, rows, config, stride=sizes.row_stride)
    forest = RandomForestRegressor(
        n_estimators=sizes.trees,
        max_depth=sizes.depth,
        min_samples_leaf=min(sizes.min_leaf_rows, max(len(learned.target) // 4, 1)),
        max_features=sizes.column_fraction,
        max_samples=sizes.row_fraction,
        random_state=config.seed,
        n_jobs=config.threads,
    )
    forest.fit(learned.columns, learned.target, sample_weight=learned.weights)
    progress("forest", 1.0)
    return FittedRows(
        "forest",
        forest.predict,
        forest_graph("forest", [_tree(one.tree_) for one in forest.estimators_], width=len(learned.names)),
        learned.names,
        learned.scale,
        dict(zip(learned.names, forest.feature_importances_.tolist(), strict=True)),
    )


def _tree(found: Any) -> Tree:
    return Tree(
        np.asarray(found.feature, np.int64),
        np.asarray(found.threshold, np.float64),
        np.asarray(found.children_left, np.int64),
        np.asarray(found.children_right, np.int64),
        np.asarray(found.value, np.float64)[:, 0, 0],
    )


MEMBER = MemberSpec(
    fit=fit_forest,
    consumes="the newest value of every model input, and means of some over the window",
    role="compared",
    seconds=5.0,
)
