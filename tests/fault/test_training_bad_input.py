"""Candles that nothing can be learned from are refused before an hour is spent on them, with what to do."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from feature_store.errors import BadInputError
from flows import model_commands
from flows.settings import FlowSettings
from flows.sizes import ensemble_of
from flows.training.dataset import FrameSet
from flows.training.pipeline import train_candidate
from inference.models.bundle import load_bundle
from tests.training_support import FINGERPRINT, make_frames, silent, small_config

CONFIG = small_config(members=("xgboost", "linear"))


def _changed(frames: FrameSet, place: int, **arrays) -> FrameSet:
    changed = list(frames.frames)
    changed[place] = replace(changed[place], **arrays)
    return replace(frames, frames=tuple(changed))


def _refusal(frames: FrameSet, folder) -> str:
    """Return why nothing was trained; nothing of a bundle is left behind."""
    with pytest.raises(BadInputError) as refused:
        train_candidate(frames, CONFIG, folder, silent)
    assert not (folder / "manifest.json").exists()
    return str(refused.value)


def test_a_price_that_never_moved(tmp_path):
    """A series whose price stands still is named, with what to do about it."""
    frames = make_frames(series=2, candles=1500)
    still = _changed(frames, 1, close=np.full(1500, 100.0), log_return=np.zeros(1500))

    assert re.search(
        r"S01/USDT:USDT never moved in the fit window.*leave it out of QT_SYMBOLS", _refusal(still, tmp_path)
    )


@pytest.mark.parametrize(("sign", "missing"), [(1, "fell"), (-1, "rose")])
def test_a_class_that_never_occurs(tmp_path, sign, missing):
    """Prices that only ever rose teach no probability of a rise."""
    frames = make_frames(series=1, candles=1500)
    move = sign * (0.001 + np.abs(frames.frames[0].log_return))
    one_way = _changed(frames, 0, close=100 * np.exp(np.cumsum(move)), log_return=move)

    assert re.search(f"no price ever {missing} over 12 candles.*load more days", _refusal(one_way, tmp_path))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_inputs_without_a_value(tmp_path, value):
    """An input that is never finite is named; so are those that are missing too often to leave rows."""
    frames = make_frames(series=1, candles=1500)
    inputs = frames.frames[0].inputs.copy()
    inputs[:, 3] = value
    assert re.search("volatility_20 never had a value", _refusal(_changed(frames, 0, inputs=inputs), tmp_path))

    inputs = frames.frames[0].inputs.copy()
    inputs[600:1400:60, 3] = value
    assert re.search(
        r"validation window has 0 usable rows.*volatility_20 in 14",
        _refusal(_changed(frames, 0, inputs=inputs), tmp_path),
    )


def test_a_few_undefined_inputs_are_left_out(tmp_path):
    """Candles that lack an input teach nothing and spoil nothing."""
    frames = make_frames(series=2, candles=1500)
    inputs = frames.frames[0].inputs.copy()
    inputs[[400, 401, 700], [0, 3, 5]] = [np.nan, np.inf, -np.inf]
    report = train_candidate(_changed(frames, 0, inputs=inputs), CONFIG, tmp_path, silent)

    assert report.rows["fit"] < train_candidate(frames, CONFIG, tmp_path, silent).rows["fit"]
    assert all(np.isfinite(value) for value in report.metrics.values())


def test_too_little_history(tmp_path):
    """Too few candles for four windows are refused with the way out."""
    assert re.search("too few.*load more days", _refusal(make_frames(series=3, candles=300), tmp_path))


def test_one_symbol_alone_can_be_learned(tmp_path):
    """One series is enough, where it is long enough: there is then no market to take off."""
    report = train_candidate(make_frames(series=1, candles=6000, edge=1.0), CONFIG, tmp_path, silent)

    assert load_bundle(tmp_path, expected_fingerprint=FINGERPRINT).manifest.symbols == ("S00/USDT:USDT",)
    assert report.metrics["calibration/ensemble/ic"] > 0


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("QT_MEMBERS", "xgboost,oracle", "QT_MEMBERS: .*Unknown member 'oracle'; choose from dlinear, forest"),
        ("QT_WEIGHTING", "luck", "QT_WEIGHTING: .*'skill', 'stacking', 'equal' or 'fixed'"),
        ("QT_ENSEMBLE_MODE", "boosting", "QT_ENSEMBLE_MODE: .*'voting', 'stacking' or 'bagging'"),
        ("QT_HEADS", "median", "QT_HEADS: .*quantile and direction"),
        ("QT_DEVICE", "tpu", "QT_DEVICE: .*'cpu' or 'gpu'"),
    ],
)
def test_a_setting_that_does_not_exist(monkeypatch, tmp_path, name, value, message):
    """The error names the variable, what it held and what there is."""
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path))
    monkeypatch.setenv(name, value)

    with pytest.raises(BadInputError, match=message):
        FlowSettings.of()


def test_what_is_chosen_reaches_the_training(monkeypatch, tmp_path):
    """The environment chooses, what a flow was told wins, and stacking brings its own weighting."""
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path))
    monkeypatch.setenv("QT_MEMBERS", "xgboost, forest")
    monkeypatch.setenv("QT_HEADS", "quantile")
    chosen = ensemble_of(FlowSettings.of(ensemble_mode="stacking"))

    assert chosen == {
        "device": "cpu", "heads": ("quantile",), "members": ("xgboost", "forest"),
        "ensemble_mode": "stacking", "weighting": "stacking",
    }  # fmt: skip
    assert "weighting" not in ensemble_of(FlowSettings.of(members="linear"))


def test_a_mode_and_a_weighting_that_contradict_each_other():
    """Stacking learns its weights: fixed ones beside it are refused."""
    with pytest.raises(BadInputError, match="Mode stacking learns its own weights, but weighting fixed"):
        ensemble_of(FlowSettings.of(ensemble_mode="stacking", weighting="fixed"))


def test_a_gpu_that_is_not_there(monkeypatch, tmp_path):
    """Asked for a GPU where PyTorch finds none, training says so, before anything is fitted, and does not go on."""
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BadInputError, match=r"A GPU was asked for.*choose QT_DEVICE=cpu"):
        ensemble_of(FlowSettings.of(device="gpu"))
    with pytest.raises(BadInputError, match="A GPU was asked for"):
        train_candidate(make_frames(series=1), small_config(device="gpu"), tmp_path, silent)


@pytest.mark.parametrize("command", ["train", "retrain"])
@pytest.mark.parametrize(
    ("option", "message"),
    [
        pytest.param("--members=oracle", "Unknown member 'oracle'; choose from", id="member"),
        pytest.param("--heads=median", "quantile and direction", id="head"),
    ],
)
def test_a_command_refuses_what_does_not_exist_before_it_asks_anybody(command, option, message, monkeypatch, tmp_path):
    """A wrong name is told before Prefect or MLflow is looked for."""
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path))
    monkeypatch.setattr(model_commands, "execute", lambda *_, **__: pytest.fail("went on"))

    with pytest.raises(BadInputError, match=message):
        getattr(model_commands, command)([option], exit_on_error=False, result_action="return_value")
    assert not list(tmp_path.iterdir())


def test_a_command_hands_on_what_was_chosen(monkeypatch, tmp_path):
    """Members, weighting, mode, heads and device reach the flow under the names of its parameters."""
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path))
    seen = {}
    monkeypatch.setattr(model_commands, "execute", lambda _run, chosen, **_: seen.update(chosen) or 0)
    options = ["--members", "forest,mlp", "--weighting", "equal", "--mode", "bagging", "--heads", "quantile"]
    model_commands.train([*options, "--device", "cpu"], exit_on_error=False, result_action="return_value")

    assert {name: seen[name] for name in ("members", "weighting", "ensemble_mode", "heads", "device")} == {
        "members": "forest,mlp", "weighting": "equal", "ensemble_mode": "bagging", "heads": "quantile", "device": "cpu",
    }  # fmt: skip
