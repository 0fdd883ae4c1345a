"""Nets that start from the weights of a former one, and weights that are another net's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from feature_store.errors import BadInputError
from flows.training.dataset import Dataset, Rows
from flows.training.members.neural import put_weights
from flows.training.members.nhits import fit_nhits
from flows.training.members.patchtst import fit_patchtst
from flows.training.splits import plan_splits
from tests.training_support import make_frames, silent, small_config

FIT = {"nhits": fit_nhits, "patchtst": fit_patchtst}


@pytest.fixture(scope="module")
def lesson() -> tuple[Dataset, Rows]:
    """A few days of two series, and the rows that members are fitted on."""
    frames, config = make_frames(series=2, candles=1500), small_config()
    dataset = Dataset(frames, horizon=config.horizon, window=config.window)
    splits = plan_splits(dataset.start_ms, dataset.end_ms, config, timeframe_ms=dataset.timeframe_ms)
    return dataset, dataset.learned_rows(splits)


@pytest.mark.parametrize("name", sorted(FIT))
def test_a_net_begins_where_the_former_one_ended(lesson, name):
    """With steps of no length it is the former one; with real ones equal runs are equal, and a cold one is another."""
    config = small_config()
    sizes = replace(getattr(config, name), max_steps=3)
    former = FIT[name](*lesson, replace(config, seed=1, **{name: sizes}), silent).weights()
    still = replace(config, seed=2, **{name: replace(sizes, learning_rate=0.0)})
    moving = replace(config, seed=2, **{name: sizes})

    learned = [key for key, one in former.items() if one.dtype == np.float32 and "running" not in key]

    same = FIT[name](*lesson, still, silent, former).weights()
    first, second = (FIT[name](*lesson, moving, silent, former).weights() for _ in range(2))
    cold = FIT[name](*lesson, moving, silent).weights()

    assert all(np.array_equal(same[key], former[key]) for key in learned)
    assert all(np.array_equal(first[key], second[key]) for key in former)
    assert any(not np.array_equal(first[key], former[key]) for key in former)
    assert any(not np.array_equal(first[key], cold[key]) for key in former)


def net() -> torch.nn.Module:
    """Return a net of one layer."""
    return torch.nn.Linear(3, 2)


def weights() -> dict[str, np.ndarray]:
    """Return what it can begin with."""
    return {"weight": np.ones((2, 3), np.float32), "bias": np.zeros(2, np.float32)}


def test_weights_are_copied():
    """What is done to the arrays afterwards does not reach the net."""
    model, start = net(), weights()
    put_weights(model, start)
    start["weight"][:] = 7

    assert torch.equal(model.weight, torch.ones(2, 3))


@pytest.mark.parametrize(
    ("start", "why"),
    [
        pytest.param({}, "another net", id="nothing"),
        pytest.param({"weight": np.ones((2, 3))}, "another net", id="one-is-missing"),
        pytest.param(weights() | {"more": np.ones(1)}, "another net", id="one-too-many"),
        pytest.param(weights() | {"weight": np.ones((3, 2), np.float32)}, "another net", id="another-shape"),
        pytest.param(weights() | {"bias": np.array([0.0, np.nan], np.float32)}, "not all numbers", id="not-a-number"),
        pytest.param(weights() | {"bias": np.array([0.0, np.inf], np.float32)}, "not all numbers", id="infinite"),
        pytest.param(weights() | {"bias": np.array([0, 1])}, "another net", id="whole-numbers"),
        pytest.param(weights() | {"bias": np.array(["a", "b"])}, "another net", id="text"),
        pytest.param(weights() | {"bias": np.array([{}, None], object)}, "another net", id="objects"),
    ],
)
def test_weights_of_another_net_are_refused_whole(start, why):
    """Other names, shapes or types, and what is no number, change nothing in the net."""
    model = net()
    before = {name: one.clone() for name, one in model.state_dict().items()}

    with pytest.raises(BadInputError, match=why):
        put_weights(model, start)

    assert all(torch.equal(one, before[name]) for name, one in model.state_dict().items())
