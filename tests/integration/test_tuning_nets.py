"""A net in a search: trained in each fold as a tree is, weighed as the trial says, and traded."""

from __future__ import annotations

import numpy as np
import optuna

from flows.training.config import NetConfig
from flows.tuning.objective import scores
from flows.tuning.space import Space, chosen
from tests.training_support import make_frames, small_config


def test_a_net_is_tried_as_a_tree_is() -> None:
    """Who votes, how long the net learns and what each weighs are the trial's, and every fold has a score."""
    net = NetConfig(max_steps=4, learning_rate=1e-3, hidden=8, windows_per_batch=32)
    base = small_config(nhits=net, evaluation_stride=6)
    frames = make_frames(series=2, candles=1600)
    trial = optuna.trial.FixedTrial({
        "votes/xgboost": "no", "votes/lightgbm": "yes", "votes/nhits": "yes",
        "weight/lightgbm": 0.2, "weight/nhits": 0.6,
        "lightgbm/rounds": 40, "lightgbm/depth": 2, "lightgbm/learning_rate": 0.05, "lightgbm/min_leaf_rows": 50,
        "lightgbm/row_fraction": 1.0, "lightgbm/column_fraction": 1.0, "lightgbm/l2": 1.0,
        "nhits/max_steps": 5, "nhits/learning_rate": 1e-3, "nhits/dropout": 0.1, "nhits/weight_decay": 1e-3,
    })  # fmt: skip
    space = Space(parts=("choice", "members", "weights"), members=("xgboost", "lightgbm", "nhits"))
    config = chosen(trial, base, space, frames.input_names)
    assert config.members == ("lightgbm", "nhits")
    assert config.nhits.max_steps == 5
    found = list(scores(frames, config))
    assert len(found) == 3
    assert np.isfinite([one.net_per_slot_bps for one in found]).all()
    assert list(scores(frames, config)) == found
