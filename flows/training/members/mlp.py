"""A small multilayer perceptron over the newest row of all model inputs and the means of some."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor

from flows.training.config import TrainingConfig
from flows.training.dataset import Dataset, Rows
from flows.training.members.base import MemberSpec, Progress
from flows.training.members.graphs import Layer, RowScale, chain_graph
from flows.training.members.rows import FittedRows, lesson


def fit_mlp(dataset: Dataset, rows: Rows, config: TrainingConfig, progress: Progress) -> FittedRows:
    """Fit one hidden layer by a stated number of passes: what it has then is compared, not the best of many stops."""
    sizes = config.mlp
    learned = lesson(dataset, rows, config, stride=sizes.row_stride)
    scale = RowScale.of(learned.columns)
    net = MLPRegressor(
        hidden_layer_sizes=(sizes.hidden,),
        alpha=sizes.l2,
        learning_rate_init=sizes.learning_rate,
        batch_size=min(sizes.rows_per_batch, len(learned.target)),
        max_iter=sizes.passes,
        n_iter_no_change=sizes.passes,
        random_state=config.seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        net.fit(scale.scaled(learned.columns), learned.target, sample_weight=learned.weights)
    progress("mlp", 1.0)
    layers = [
        Layer(np.asarray(weights, np.float64), np.asarray(bias, np.float64))
        for weights, bias in zip(net.coefs_, net.intercepts_, strict=True)
    ]
    return FittedRows(
        "mlp",
        lambda columns: net.predict(scale.scaled(columns)),
        chain_graph("mlp", scale, layers),
        learned.names,
        learned.scale,
    )


MEMBER = MemberSpec(
    fit=fit_mlp,
    consumes="the newest value of every model input, and means of some over the window",
    role="compared",
    seconds=3.0,
)
