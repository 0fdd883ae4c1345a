"""A straight line (ridge regression) through the newest row of all model inputs and the means of some."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import Ridge

from flows.training.config import TrainingConfig
from flows.training.dataset import Dataset, Rows
from flows.training.members.base import MemberSpec, Progress
from flows.training.members.graphs import Layer, RowScale, chain_graph
from flows.training.members.rows import FittedRows, lesson

_PENALTY = 0.01


def fit_linear(dataset: Dataset, rows: Rows, config: TrainingConfig, progress: Progress) -> FittedRows:
    """Fit with a penalty of a hundredth of the rows: inputs are many and alike."""
    learned = lesson(dataset, rows, config, stride=3)
    scale = RowScale.of(learned.columns)
    line = Ridge(alpha=_PENALTY * len(learned.target), fit_intercept=False)
    line.fit(scale.scaled(learned.columns), learned.target, sample_weight=learned.weights)
    progress("linear", 1.0)
    slopes = np.asarray(line.coef_, np.float64)
    size = np.abs(slopes).sum() or 1.0
    return FittedRows(
        "linear",
        lambda columns: line.predict(scale.scaled(columns)),
        chain_graph("linear", scale, [Layer(slopes[:, None], np.zeros(1))]),
        learned.names,
        learned.scale,
        dict(zip(learned.names, (np.abs(slopes) / size).tolist(), strict=True)),
    )


MEMBER = MemberSpec(
    fit=fit_linear,
    consumes="the newest value of every model input, and means of some over the window",
    role="compared",
    seconds=1.0,
)
