"""What training learns of centre, spread and weight comes from the fit window alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.training.baselines import Ridge
from flows.training.dataset import Dataset, FrameSet
from flows.training.members.lightgbm import fit_lightgbm
from flows.training.members.neural import NetScale, candles_of
from flows.training.members.target import TargetScale
from flows.training.members.xgboost import fit_xgboost
from flows.training.overlap import row_weights
from flows.training.splits import plan_splits
from inference.models.market_move import without_market
from tests.training_support import make_frames, silent, small_config

CONFIG = small_config(row_weighting="uniqueness")
FRAMES = make_frames(series=2, candles=1200, edge=1.0)
MEMBERS = {"xgboost": fit_xgboost, "lightgbm": fit_lightgbm}


def _learned(frames: FrameSet, splits) -> dict[str, np.ndarray]:
    """Return every number that is measured on rows before a net sees its first batch."""
    dataset = Dataset(frames, horizon=CONFIG.horizon, window=CONFIG.window)
    rows = dataset.rows(splits.fit, splits)
    label = without_market(rows.label, rows.open_time_ms, CONFIG.market_share_removed)
    target, ridge = TargetScale.of(label), Ridge.fit(dataset, rows, CONFIG)
    picked = candles_of(dataset, rows)
    net = NetScale.of(dataset.returns_all[picked], dataset.inputs_all[picked])
    return {
        "target": np.array([target.centre, target.spread]),
        "ridge": np.concatenate([ridge.centre, ridge.spread, ridge.coefficients]),
        "returns": np.array([net.return_centre, net.return_spread]),
        "inputs": np.concatenate([net.input_centre, net.input_spread]),
        "weights": row_weights(rows, CONFIG, timeframe_ms=dataset.timeframe_ms),
    }


def _splits(frames: FrameSet):
    dataset = Dataset(frames, horizon=CONFIG.horizon, window=CONFIG.window)
    return plan_splits(dataset.start_ms, dataset.end_ms, CONFIG, timeframe_ms=frames.timeframe_ms)


def _poisoned(frames: FrameSet, from_ms: int, factor: float, seed: int) -> FrameSet:
    """Return the frames with nonsense in every row from a moment on: inputs, returns and prices."""
    rng = np.random.default_rng(seed)
    changed = []
    for frame in frames.frames:
        late = frame.open_time_ms >= from_ms
        inputs, close, returns = frame.inputs.copy(), frame.close.copy(), frame.log_return.copy()
        inputs[late] = factor * rng.standard_normal(inputs[late].shape)
        close[late] = np.exp(rng.standard_normal(late.sum())) * 1e6
        returns[late] = factor * rng.standard_normal(late.sum())
        changed.append(replace(frame, inputs=inputs, close=close, log_return=returns))
    return replace(frames, frames=tuple(changed))


@settings(max_examples=10, deadline=None)
@given(factor=st.floats(0.01, 1e6), seed=st.integers(0, 1000))
def test_poison_after_the_fit_window_changes_no_training_statistic(factor, seed):
    """Whatever stands in validation, calibration and shadow rows, what is fitted on is measured to the same bits."""
    splits = _splits(FRAMES)
    clean, poisoned = _learned(FRAMES, splits), _learned(_poisoned(FRAMES, splits.fit.end_ms, factor, seed), splits)

    for name, values in clean.items():
        np.testing.assert_array_equal(poisoned[name], values, err_msg=name)


@pytest.mark.parametrize("member", list(MEMBERS))
def test_poison_after_the_fit_window_changes_no_tree(member, tmp_path):
    """Trees learned beside poisoned later windows are the same file, byte for byte."""
    splits = _splits(FRAMES)
    files = []
    for frames in (FRAMES, _poisoned(FRAMES, splits.fit.end_ms, 1e3, 1)):
        dataset = Dataset(frames, horizon=CONFIG.horizon, window=CONFIG.window)
        fitted = MEMBERS[member](dataset, dataset.rows(splits.fit, splits), CONFIG, silent)
        fitted.export(tmp_path)
        files.append(next(tmp_path.iterdir()).read_bytes())

    assert files[0] == files[1]


def test_the_poison_would_show():
    """The check bites: poison inside the fit window moves every statistic but the weights, which know times alone."""
    splits = _splits(FRAMES)
    inside_ms = splits.fit.end_ms - 200 * FRAMES.timeframe_ms
    clean, poisoned = _learned(FRAMES, splits), _learned(_poisoned(FRAMES, inside_ms, 10.0, 1), splits)

    assert {name for name, values in clean.items() if not np.array_equal(poisoned[name], values)} == {
        "target", "ridge", "returns", "inputs",
    }  # fmt: skip


def test_weights_reach_the_trees(tmp_path):
    """With rows weighted by uniqueness the trees are others than with equal rows, where overlap is uneven."""
    gaps = np.arange(200, 700, 29)
    frames = replace(FRAMES, frames=tuple(_without(frame, gaps) for frame in FRAMES.frames))
    dataset = Dataset(frames, horizon=CONFIG.horizon, window=12)
    splits = _splits(FRAMES)
    rows = dataset.rows(splits.fit, splits)
    answers = {}
    for name, fit in MEMBERS.items():
        for weighting in ("equal", "uniqueness"):
            config = small_config(row_weighting=weighting, summary_lengths=(8,))
            answers[name, weighting] = fit(dataset, rows, config, silent).predict(dataset, rows)

    for name in MEMBERS:
        assert np.isfinite(answers[name, "uniqueness"]).all()
        assert not np.array_equal(answers[name, "equal"], answers[name, "uniqueness"])


def _without(frame, rows):
    kept = np.delete(np.arange(len(frame.close)), rows)
    return replace(
        frame, open_time_ms=frame.open_time_ms[kept], inputs=frame.inputs[kept],
        log_return=frame.log_return[kept], close=frame.close[kept],
    )  # fmt: skip
