"""What training libraries write, in forms that members may take, passes inspection; with other widths it does not."""

from __future__ import annotations

import lightgbm
import numpy as np
import pytest
import xgboost

from inference.models.inspection.lightgbm_text import inspect_lightgbm
from inference.models.inspection.onnx_graph import inspect_onnx
from inference.models.inspection.refusal import Fault, InspectionError
from inference.models.inspection.xgboost_model import inspect_xgboost

RNG = np.random.default_rng(3)
X = RNG.normal(size=(300, 5)).astype(np.float32)
Y = X[:, 0] + 0.1 * RNG.normal(size=300)

XGBOOSTS = {
    "squared-error": {},
    "quantiles": {"objective": "reg:quantileerror", "quantile_alpha": [0.1, 0.5, 0.9]},
    "direction": {"objective": "binary:logistic"},
    "forest": {"num_parallel_tree": 3, "subsample": 0.5},
    "stumps-that-never-split": {"min_child_weight": 1e9},
    "deep": {"max_depth": 10, "grow_policy": "lossguide", "gamma": 0.01},
}
LIGHTGBMS = {
    "l2": {"objective": "l2"},
    "linear": {"objective": "l2", "linear_tree": True},
    "quantile": {"objective": "quantile", "alpha": 0.1},
    "direction": {"objective": "binary"},
    "never-splits": {"objective": "l2", "min_data_in_leaf": 1000},
    "linear-never-splits": {"objective": "l2", "linear_tree": True, "min_data_in_leaf": 1000},
    "forest": {"objective": "l2", "boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5},
}


@pytest.mark.parametrize("name", XGBOOSTS)
def test_boosters_of_xgboost_pass(name):
    """Heads, forests and stumps are trees like any other; a booster over other inputs than named is refused."""
    label = (Y > 0).astype(float) if name == "direction" else Y
    booster = xgboost.train({"nthread": 1, "max_depth": 3, **XGBOOSTS[name]}, xgboost.DMatrix(X, label), 5)
    content = bytes(booster.save_raw("ubj"))
    inspect_xgboost(content, 5, name)

    with pytest.raises(InspectionError) as refused:
        inspect_xgboost(content, 6, name)
    assert refused.value.fault is Fault.WRONG_WIDTH


@pytest.mark.parametrize("name", LIGHTGBMS)
def test_boosters_of_lightgbm_pass(name):
    """Linear leaves, quantiles, forests and trees of one leaf pass; a booster over other inputs is refused."""
    label = (Y > 0).astype(float) if name == "direction" else Y
    options = {"verbosity": -1, "num_threads": 1, "num_leaves": 8, **LIGHTGBMS[name]}
    linear = {"linear_tree": options.get("linear_tree", False), "verbosity": -1}
    booster = lightgbm.train(options, lightgbm.Dataset(X, label, params=linear), num_boost_round=4)
    content = booster.model_to_string().encode()
    inspect_lightgbm(content, 5, name)

    with pytest.raises(InspectionError) as refused:
        inspect_lightgbm(content, 6, name)
    assert refused.value.fault is Fault.WRONG_WIDTH


def test_graphs_of_scikit_learn_pass():
    """A random forest, a small net and a line, converted to ONNX, are arithmetic on their own numbers."""
    from skl2onnx import to_onnx
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.linear_model import Ridge
    from sklearn.neural_network import MLPRegressor

    models = (
        RandomForestRegressor(5, max_depth=4, random_state=0),
        MLPRegressor(hidden_layer_sizes=(8,), max_iter=500, tol=1e-2, random_state=0),
        Ridge(),
    )
    inspected = []
    for model in models:
        model.fit(X, Y)
        inspect_onnx(to_onnx(model, X[:1]).SerializeToString(), type(model).__name__)
        inspected.append(type(model).__name__)

    assert inspected == ["RandomForestRegressor", "MLPRegressor", "Ridge"]
