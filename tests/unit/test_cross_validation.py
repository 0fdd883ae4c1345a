"""Skill out of fold, on markets of which the truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from flows.evidence import folds_table
from flows.training.config import FoldConfig
from flows.training.cross_validation import cross_validated
from flows.training.dataset import Dataset
from flows.training.refits import REFITS
from flows.training.splits import plan_splits
from tests.training_support import make_frames, small_config

CONFIG = small_config(folds=FoldConfig(walk_forward=3, groups=4, tested=2, rounds=10, most_rows=2_000))


def _judged(frames, config=CONFIG):
    dataset = Dataset(frames, horizon=config.horizon, window=config.window)
    splits = plan_splits(dataset.start_ms, dataset.end_ms, config, timeframe_ms=frames.timeframe_ms)
    return cross_validated(dataset, splits, config), splits


@pytest.mark.parametrize("refit", list(REFITS))
def test_an_edge_shows_and_noise_does_not(refit):
    """Where something can be known, every history finds it; where nothing can, folds lie on both sides of nothing."""
    edge, _ = _judged(make_frames(series=4, candles=3000, edge=1.0))
    noise, _ = _judged(make_frames(series=4, candles=3000, edge=0.0))

    for scheme in ("walk_forward", "cpcv"):
        assert edge.metrics[f"{scheme}/{refit}/ic_mean"] > 0.15
        assert edge.metrics[f"{scheme}/{refit}/ic_negative_share"] == 0
        assert abs(noise.metrics[f"{scheme}/{refit}/ic_mean"]) < 0.12
    assert edge.metrics[f"walk_forward/{refit}/ic_low"] > 0
    assert edge.metrics[f"cpcv/{refit}/net_per_slot_bps_mean"] > noise.metrics[f"cpcv/{refit}/net_per_slot_bps_mean"]
    assert edge.metrics["cpcv/paths"] == 3
    assert edge.net[refit].shape[0] == 3
    assert np.isfinite(edge.net[refit]).all()


def test_folds_never_see_the_locked_window():
    """Nonsense in the shadow window changes no figure of the folds."""
    frames = make_frames(series=2, candles=2000, edge=1.0)
    found, splits = _judged(frames)
    spoilt = []
    for frame in frames.frames:
        late = frame.open_time_ms >= splits.calibration.end_ms
        spoilt.append(
            replace(frame, inputs=np.where(late[:, None], 9, frame.inputs), close=np.where(late, 1.0, frame.close))
        )
    again, _ = _judged(replace(frames, frames=tuple(spoilt)))

    assert found.metrics == again.metrics
    assert found.metrics["walk_forward/folds"] == 3


def test_a_stretch_too_short_for_folds_says_so():
    """No folds are no figures, and the report says why there are none."""
    found, _ = _judged(make_frames(series=1, candles=800, edge=0.0), small_config(folds=FoldConfig(walk_forward=40)))

    assert found.metrics == {"walk_forward/folds": 0, "cpcv/paths": 0}
    assert folds_table(found.metrics) == "The stretch was too short for folds."


def test_the_report_tells_folds_and_histories():
    """A person reads one row for each scheme and refit, with how many histories lost."""
    found, _ = _judged(make_frames(series=2, candles=2000, edge=1.0))
    table = folds_table(found.metrics)

    assert table.count("\n") == 1 + 2 * len(REFITS)
    assert "walk-forward, 3 folds" in table
    assert "combinatorial, purged, 3 paths" in table
