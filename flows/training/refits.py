"""Models that are cheap enough to be fitted again on every fold: a straight line, and a few small trees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import xgboost

from flows.training.config import TrainingConfig
from flows.training.dataset import Floats, Inputs
from flows.training.members.target import TargetScale

_RIDGE = 0.01

Predict = Callable[[Inputs], Floats]


class Refit(Protocol):
    """What fits a cheap model to inputs [n, k] and what is learned of them [n]; nothing else may be looked at."""

    def __call__(self, inputs: Inputs, learned: Floats, config: TrainingConfig) -> Predict:
        """Return what predicts log returns [m] from inputs [m, k]."""
        ...


def refit_ridge(inputs: Inputs, learned: Floats, config: TrainingConfig) -> Predict:  # noqa: ARG001 - one protocol
    """Fit ridge regression on inputs standardised by these rows alone."""
    x = inputs.astype(np.float64)
    centre, spread = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-9)
    z = np.clip((x - centre) / spread, -5, 5)
    target = TargetScale.of(learned)
    gram = z.T @ z + _RIDGE * len(z) * np.eye(z.shape[1])
    coefficients = np.linalg.solve(gram, z.T @ target.encode(learned)) * target.spread
    return lambda asked: np.asarray(np.clip((asked - centre) / spread, -5, 5) @ coefficients, np.float64)


def refit_trees(inputs: Inputs, learned: Floats, config: TrainingConfig) -> Predict:
    """Fit a few shallow boosted trees."""
    target = TargetScale.of(learned)
    settings = {
        "max_depth": 3, "max_bin": 64, "eta": 0.1, "min_child_weight": max(len(learned) // 200, 5),
        "subsample": 0.7, "colsample_bytree": 0.4, "base_score": 0.0,
        "nthread": config.threads, "seed": config.seed, "verbosity": 0,
    }  # fmt: skip
    matrix = xgboost.QuantileDMatrix(inputs, label=target.encode(learned), max_bin=64, nthread=config.threads)
    booster = xgboost.train(settings, matrix, num_boost_round=config.folds.rounds)
    return lambda asked: np.asarray(booster.inplace_predict(asked), np.float64) * target.spread


REFITS: dict[str, Refit] = {"ridge": refit_ridge, "trees": refit_trees}
