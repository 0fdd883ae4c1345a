"""Look-ahead planted into a training is named by the wire that is for it, and an honest training trips none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from feature_store.candle import CandleBlock
from flows.auditing import audit_frames, audited_frames
from flows.frames import recent_frames
from flows.settings import FlowSettings
from flows.training.audit import audit_inputs, audit_labels, twin
from flows.training.dataset import Dataset
from flows.training.pipeline import train_candidate
from flows.training.splits import plan_splits
from flows.training.tripwire_bounds import TripwireBounds
from flows.training.tripwires import Asked, TripwireError
from infra.prove.planting import KINDS, PLANTED
from tests.integration.test_training_as_of import BLOCKS, BTC, ETH, STEP, TIMES, VIEW
from tests.integration.test_training_as_of import _home as lake_home
from tests.training_support import make_frames, silent, small_config

FRAMES = make_frames(series=3, candles=2400, edge=0.5)
CONFIG = small_config(members=("xgboost", "lightgbm"), tripwires=TripwireBounds(independent_outcomes=10))
IN_MEMORY = [one for one in PLANTED if not one.in_lake]


def test_six_kinds_are_planted():
    """All that can look ahead in making a training set has a plant of its own."""
    assert KINDS == ("label", "scaler", "universe", "resampling", "as-of join", "calibration")


def test_an_honest_training_trips_nothing(tmp_path):
    """With the bounds of production, on a market with an edge, a run goes through and logs what folds say."""
    report = train_candidate(FRAMES, CONFIG, tmp_path, silent, Asked(days=8, series=3))

    assert report.metrics["cpcv/paths"] == 3
    assert np.isfinite(report.metrics["walk_forward/ridge/ic_mean"])
    assert (tmp_path / "manifest.json").exists()


@pytest.mark.parametrize("planted", IN_MEMORY, ids=[one.what for one in IN_MEMORY])
def test_a_plant_is_named_and_leaves_no_bundle(tmp_path, planted):
    """The run is stopped by the wire that is for it."""
    with planted.plant(), pytest.raises(TripwireError) as stopped:
        train_candidate(FRAMES, CONFIG, tmp_path, silent)

    assert set(stopped.value.wires) & set(planted.wires), stopped.value


def test_every_tripwire_is_reached_by_a_training(tmp_path):
    """Too few outcomes and fewer series than asked for stop a run before anything is trained."""
    short = replace(FRAMES, frames=tuple(_until(frame, 1400) for frame in FRAMES.frames[:1]))
    with pytest.raises(TripwireError) as stopped:
        train_candidate(
            short, small_config(members=("xgboost",), tripwires=TripwireBounds()), tmp_path, silent,
            Asked(days=30, series=3),
        )  # fmt: skip

    assert stopped.value.wires == ("coverage", "too_few_outcomes")
    assert not list(tmp_path.iterdir())


def _until(frame, count):
    return replace(
        frame, open_time_ms=frame.open_time_ms[:count], inputs=frame.inputs[:count],
        log_return=frame.log_return[:count], close=frame.close[:count],
    )  # fmt: skip


def test_a_score_too_good_to_be_true_stops_a_training(tmp_path):
    """An edge that no market has is not believed, though no single input shows it."""
    bounds = TripwireBounds(
        independent_outcomes=2, next_candle_ic=0.9, input_ic=0.9, score_ic=0.2, score_r2=0.9, score_hit_rate=0.9
    )
    config = small_config(members=("xgboost",), tripwires=bounds)
    with pytest.raises(TripwireError, match="the correlation of ridge on the validation window is") as stopped:
        train_candidate(make_frames(series=4, candles=2400, edge=1.0), config, tmp_path, silent)

    assert stopped.value.wires == ("too_good",)
    assert not (tmp_path / "manifest.json").exists()


def test_one_input_that_leads_is_named():
    """Of all inputs the one that was moved into the future is named, with how far."""
    moved = []
    for frame in FRAMES.frames:
        inputs = frame.inputs.copy()
        inputs[:-2, 0] = frame.inputs[2:, 0]
        moved.append(replace(frame, inputs=inputs))
    frames = replace(FRAMES, frames=tuple(moved))
    dataset = Dataset(frames, horizon=12, window=64)
    splits = plan_splits(dataset.start_ms, dataset.end_ms, CONFIG, timeframe_ms=frames.timeframe_ms)
    (trip,) = audit_inputs(dataset, splits, CONFIG)

    assert trip.wire == "future_input"
    assert "input last_return" in trip.told
    assert "candle t+2 alone" in trip.told


def test_labels_over_gaps_are_looked_up():
    """Labels that end past a missing candle are known wrong; honest ones, with gaps, are right."""
    kept = np.delete(np.arange(2400), [500, 501, 1300])
    gapped = [
        replace(
            frame, open_time_ms=frame.open_time_ms[kept], inputs=frame.inputs[kept],
            log_return=frame.log_return[kept], close=frame.close[kept],
        )
        for frame in FRAMES.frames
    ]  # fmt: skip
    frames = replace(FRAMES, frames=tuple(gapped))
    dataset = Dataset(frames, horizon=12, window=64)

    assert audit_labels(dataset, frames) == []
    dataset.label[:] = np.nan_to_num(dataset.label)
    (trip,) = audit_labels(dataset, frames)
    assert trip.wire == "label"


def test_a_twin_differs_from_its_moment_on_alone():
    """What the auditors compare with has the same past."""
    from_ms = int(FRAMES.frames[0].open_time_ms[1000])
    for frame, other in zip(FRAMES.frames, twin(FRAMES, from_ms).frames, strict=True):
        np.testing.assert_array_equal(frame.inputs[:1000], other.inputs[:1000])
        np.testing.assert_array_equal(frame.close[:1000], other.close[:1000])
        assert (frame.inputs[1000:] != other.inputs[1000:]).all()


@pytest.mark.parametrize("view", [{}, VIEW], ids=["plain", "view"])
def test_rows_made_again_are_the_rows(tmp_path, monkeypatch, view):
    """Candles that came late, were corrected, or are of others: what was known then is what training reads."""
    for name, value in view.items():
        monkeypatch.setenv(name, value)
    settings = lake_home(tmp_path)

    assert audit_frames(settings, CONFIG, recent_frames(settings, 12)) == []
    assert audited_frames(settings, CONFIG).symbols == (BTC.symbol, ETH.symbol)


@pytest.mark.parametrize("kind", ["resampling", "as-of join"])
def test_rows_that_knew_more_are_named(tmp_path, monkeypatch, kind):
    """Bars read before they closed, and corrections before they came, are told apart."""
    for name, value in VIEW.items():
        monkeypatch.setenv(name, value)
    settings = lake_home(tmp_path)
    # One more correction, of candles that every later row looks back on.
    block = BLOCKS[BTC][500:520]
    moved = CandleBlock(block.open_time_ms, block.values * 1.01)
    settings.candle_lake().append(BTC, moved, available_at_ms=int(TIMES[560]))
    planted = next(one for one in PLANTED if one.kind == kind)
    with planted.plant(), pytest.raises(TripwireError) as stopped:
        audited_frames(settings, CONFIG)

    assert planted.wires[0] in stopped.value.wires
    if kind == "resampling":
        assert "rsi@15m" in str(stopped.value)


def test_peers_that_came_later_are_named(tmp_path, monkeypatch):
    """An input of another symbol whose candle always comes last is named by when it came, not by when it opened."""
    for name, value in VIEW.items():
        monkeypatch.setenv(name, value)
    settings = FlowSettings.of(venue="sandbox", timeframe="5m", days=2, symbols="all", home=tmp_path)
    for series, delay_ms in ((BTC, 1_000), (ETH, 13_000)):
        block = BLOCKS[series]
        settings.candle_lake().append(series, block, available_at_ms=block.open_time_ms + STEP + delay_ms)
        moved = CandleBlock(block.open_time_ms[420:422], block.values[420:422] * 1.004)
        settings.candle_lake().append(series, moved, available_at_ms=int(TIMES[440]))
    assert audit_frames(settings, CONFIG, recent_frames(settings, 12)) == []
    planted = next(one for one in PLANTED if one.what == "peers before they came")
    with planted.plant(), pytest.raises(TripwireError) as stopped:
        audited_frames(settings, CONFIG)

    assert "as_of_join" in stopped.value.wires
    assert "resampling" not in stopped.value.wires
    assert f"rsi@{ETH.symbol}" in str(stopped.value)
