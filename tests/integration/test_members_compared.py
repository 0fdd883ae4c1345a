"""Members that are compared with, modes of the ensemble, and heads: in the bundle, at load, and in shadow."""

from __future__ import annotations

import functools
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from flows.evidence import shadow_markdown, training_markdown
from flows.replay.shadow import shadow_candidate
from flows.training.config import MlpConfig
from flows.training.dataset import FrameSet
from flows.training.pack import PARITY
from flows.training.page import report_page
from flows.training.pipeline import train_candidate
from flows.training.report import TrainingReport
from flows.training.verdict import Finding, GateCheck, Verdict
from inference.domain.errors import BundleError
from inference.models.bundle import load_bundle, open_compared, read_manifest
from inference.models.ensemble import open_member
from tests.training_support import FINGERPRINT, bundle_inputs, make_frames, silent, small_config

_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []


@dataclass(frozen=True)
class Made:
    """A candidate that several tests look at."""

    path: Path
    report: TrainingReport
    frames: FrameSet
    config: object


@functools.cache
def _frames() -> FrameSet:
    return make_frames(series=4, candles=2400, edge=1.0)


@functools.cache
def _made(name: str) -> Made:
    """Train one candidate of each make once; its folder must be copied before it is changed."""
    changes = {
        "plain": {"members": ("xgboost", "lightgbm"), "weighting": "skill"},
        "compared": {"members": ("xgboost",), "compared": None, "heads": ("quantile", "direction")},
        "bagging": {"members": ("xgboost", "lightgbm", "forest", "mlp"), "ensemble_mode": "bagging"},
        "stacking": {
            "members": ("xgboost", "lightgbm", "linear"),
            "ensemble_mode": "stacking",
            "weighting": "stacking",
        },
    }[name]
    _FOLDERS.append(tempfile.TemporaryDirectory(prefix=f"bundle-{name}-"))
    path, config = Path(_FOLDERS[-1].name), small_config(mlp=MlpConfig(passes=40, l2=0.1), **changes)
    return Made(path, train_candidate(_frames(), config, path, silent), _frames(), config)


def _load(path: Path):
    return load_bundle(path, expected_fingerprint=FINGERPRINT)


def _copied(made: Made, target: Path) -> Path:
    target.mkdir()
    for file in made.path.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def test_four_more_are_trained_and_reported_without_a_vote():
    """They stand in manifest and report with what they read, weigh nothing, and have scores on both windows."""
    made = _made("compared")
    manifest = _load(made.path).manifest

    assert manifest.schema_version == 2
    assert [one.name for one in manifest.members] == ["xgboost"]
    assert [one.name for one in manifest.compared] == ["dlinear", "forest", "linear", "mlp"]
    assert all(one.weight == 0 and one.consumes for one in manifest.compared)
    assert {one.name: one.kind for one in manifest.compared}["dlinear"] == "onnx"
    assert all(0 <= one.parity <= PARITY for one in made.report.compared)
    for window in ("validation", "calibration"):
        for who in ("dlinear", "forest", "linear", "mlp", "zero", "persistence", "ridge"):
            assert f"{window}/{who}/rmse_skill" in made.report.metrics


def test_the_line_is_the_ridge_that_gates_ask_for():
    """The member `linear` can vote, the baseline `ridge` is judged by, and they are one line but for rounding."""
    metrics = _made("compared").report.metrics

    assert metrics["calibration/linear/ic"] == pytest.approx(metrics["calibration/ridge/ic"], abs=0.01)


def test_those_without_a_vote_are_asked_by_shadow_and_not_by_the_worker():
    """The worker's answer holds no word of theirs; shadow scores and trades each of them beside the ensemble."""
    made = _made("compared")
    answered = _load(made.path).score(*bundle_inputs(made.frames, 8))
    report = shadow_candidate(made.path, made.frames, made.report.windows.shadow, made.config)

    assert set(answered.members) == {"xgboost"}
    for who in ("dlinear", "forest", "linear", "mlp"):
        assert f"shadow/{who}/rmse_skill" in report.metrics
        assert f"shadow/ensemble_minus_{who}/net_per_slot_bps_low" in report.metrics
    assert report.metrics["shadow/linear/ic"] > 0.2
    assert {"quantile/coverage", "direction/brier"} <= {name.removeprefix("shadow/") for name in report.metrics}


def test_what_intervals_held_is_shown_to_people():
    """Coverage of the locked window, with its interval and what was asked, is on the page and in the shadow report."""
    made = _made("compared")
    report = shadow_candidate(made.path, made.frames, made.report.windows.shadow, made.config)
    check = GateCheck(name="a_gate", finding=Finding.HELD, value=1.0, bound=0.0, reason="So it is.")
    page = report_page(made.report, report, Verdict(checks=(check,)), version="7", selection={}, links={})
    low, held, high = (report.metrics[f"shadow/quantile/coverage{end}"] for end in ("_low", "", "_high"))

    assert 0 < low <= held <= high <= 1
    assert f"{held:.4g} [{low:.4g}, {high:.4g}]" in page.split("<h2>The predicted interval</h2>")[1].split("<h2>")[0]
    assert "Its interval held" in shadow_markdown(report, "http://run")
    assert "Its interval held" in training_markdown(made.report, "http://run")


def test_a_bundle_without_an_interval_shows_none():
    """Nothing is said of what was not asked for."""
    made = _made("plain")
    report = shadow_candidate(made.path, made.frames, made.report.windows.shadow, made.config)
    check = GateCheck(name="a_gate", finding=Finding.HELD, value=1.0, bound=0.0, reason="So it is.")
    page = report_page(made.report, report, Verdict(checks=(check,)), version="7", selection={}, links={})

    assert "The predicted interval" not in page
    assert "Its interval held" not in shadow_markdown(report, "http://run")


@pytest.mark.parametrize("name", ["forest.onnx", "dlinear.onnx", "quantile.ubj", "direction.ubj"])
def test_a_changed_file_without_a_vote_is_found_too(name, tmp_path):
    """No byte of a bundle goes unchecked, whoever would ask it."""
    copy = _copied(_made("compared"), tmp_path / "bundle")
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)

    with pytest.raises(BundleError, match=f"{name} has SHA-256"):
        _load(copy)


def test_intervals_hold_what_they_say():
    """The interval is sorted around its middle, and holds about as much of what came as was asked, out of sample."""
    made = _made("compared")
    answers = _load(made.path).score(*bundle_inputs(made.frames, 200)).heads
    metrics = made.report.metrics

    assert set(answers) == {"quantile_0.1", "quantile_0.5", "quantile_0.9", "direction"}
    assert (answers["quantile_0.1"] <= answers["quantile_0.5"]).all()
    assert (answers["quantile_0.5"] <= answers["quantile_0.9"]).all()
    assert ((answers["direction"] > 0) & (answers["direction"] < 1)).all()
    assert metrics["calibration/quantile/asked"] == pytest.approx(0.8)
    assert metrics["calibration/quantile/coverage_low"] <= 0.8 <= metrics["calibration/quantile/coverage_high"] + 0.05
    assert metrics["calibration/direction/brier"] < 0.25


def test_a_head_abstains_with_the_ensemble():
    """Where an input is missing no interval is given either."""
    made = _made("compared")
    inputs, windows, returns = bundle_inputs(made.frames, 3)
    windows[1, 5, 0] = np.inf
    output = _load(made.path).score(inputs, windows, returns)

    assert output.abstained.tolist() == [False, True, False]
    assert np.isnan(output.heads["quantile_0.9"]).tolist() == [False, True, False]
    assert np.isnan(output.heads["direction"]).tolist() == [False, True, False]


@pytest.mark.parametrize("name", ["forest", "linear", "mlp"])
def test_a_graph_over_rows_given_nan_answers_nan(name):
    """Clip, Relu and trees swallow an undefined input; the graph does not."""
    made = _made("compared")
    member = open_compared(made.path, read_manifest(made.path))[name]
    inputs, windows, returns = bundle_inputs(made.frames, 3)
    whole = member.predict(inputs, windows, returns)
    turned = member.predict(inputs[::-1].copy(), windows[::-1].copy(), returns[::-1].copy())[::-1]
    inputs[1, 2] = np.nan

    np.testing.assert_allclose(turned, whole, atol=1e-12)
    assert np.isnan(member.predict(inputs, windows, returns)).tolist() == [False, True, False]


def test_a_bag_answers_with_the_mean_of_its_draws():
    """Each member that reads rows is three files, drawn apart, whose mean is the member's answer; trees to the bit."""
    made = _made("bagging")
    manifest = _load(made.path).manifest
    arrays = bundle_inputs(made.frames, 16)

    assert manifest.mode == "bagging"
    assert {one.name: one.draws for one in made.report.members} == dict.fromkeys(manifest_names(manifest), 3)
    assert {one.name: one.parity for one in made.report.members if "boost" in one.name or "gbm" in one.name} == {
        "xgboost": 0, "lightgbm": 0,
    }  # fmt: skip
    for entry in manifest.members:
        contents = [(made.path / file.name).read_bytes() for file in entry.files]
        bag = open_member(entry, contents[0], manifest.model_inputs, contents).predict(*arrays)
        plain = [
            open_member(_alone(entry, draw), content, manifest.model_inputs).predict(*arrays)
            for draw, content in zip(entry.draws, contents, strict=True)
        ]
        np.testing.assert_allclose(bag, entry.scale * np.mean(plain, axis=0), rtol=1e-12)
        assert len(set(contents)) == 3


def manifest_names(manifest) -> list[str]:
    return [one.name for one in manifest.members]


def _alone(entry, draw):
    import msgspec

    return msgspec.structs.replace(entry, file=draw.file, scale=draw.scale, draws=())


def test_a_stack_says_that_it_is_one():
    """Mode and weighting stand in manifest and report; on a linear market the line gets most of the weight."""
    made = _made("stacking")
    manifest = _load(made.path).manifest
    weights = {one.name: one.weight for one in manifest.members}

    assert (manifest.mode, manifest.weighting, made.report.mode) == ("stacking", "stacking", "stacking")
    assert sum(weights.values()) == pytest.approx(1)
    assert max(weights, key=weights.__getitem__) == "linear"


def _edited(made: Made, target: Path, **changes) -> Path:
    copy = _copied(made, target)
    manifest = json.loads((copy / "manifest.json").read_bytes()) | changes
    (copy / "manifest.json").write_text(json.dumps({name: one for name, one in manifest.items() if one is not None}))
    return copy


def test_a_bundle_of_schema_1_still_loads(tmp_path):
    """What an older version wrote, without modes, heads, draws or members without a vote, answers as it did."""
    made = _made("plain")
    members = json.loads((made.path / "manifest.json").read_bytes())["members"]
    old = [{name: one for name, one in member.items() if name not in ("consumes", "draws")} for member in members]
    nothing = dict.fromkeys(("mode", "compared", "heads"))
    copy = _edited(made, tmp_path / "old", schema_version=1, members=old, **nothing)
    arrays = bundle_inputs(made.frames, 8)

    assert _load(copy).manifest.mode == "voting"
    np.testing.assert_array_equal(
        _load(copy).score(*arrays).expected_return, _load(made.path).score(*arrays).expected_return
    )


@pytest.mark.parametrize(
    ("made", "changes", "message"),
    [
        pytest.param("compared", {"schema_version": 1}, "Schema version 1 knows voting members alone", id="too-old"),
        pytest.param(
            "bagging", {"mode": "stacking", "weighting": "skill"}, "learns its own weights", id="contradiction"
        ),
        pytest.param("bagging", {"mode": "boosting"}, "Invalid enum value 'boosting'", id="unknown-mode"),
        pytest.param("compared", {"weighting": "luck"}, "Invalid enum value 'luck'", id="unknown-weighting"),
    ],
)
def test_a_manifest_that_cannot_be_meant_is_refused(made, changes, message, tmp_path):
    """Modes, weightings and schema agree, or the bundle is refused."""
    with pytest.raises(BundleError, match=message):
        _load(_edited(_made(made), tmp_path / "bundle", **changes))


def test_a_forged_draw_is_found(tmp_path):
    """A draw that is left out, or that repeats another's file, is refused."""
    manifest = json.loads((_made("bagging").path / "manifest.json").read_bytes())
    manifest["members"][0]["draws"] = manifest["members"][0]["draws"][1:]

    with pytest.raises(BundleError, match="the first of which must be its file"):
        _load(_edited(_made("bagging"), tmp_path / "first", members=manifest["members"]))
    manifest["members"][0]["draws"] = manifest["members"][0]["draws"][:1] * 2
    manifest["members"][0]["file"] = manifest["members"][0]["draws"][0]["file"]
    with pytest.raises(BundleError, match="Each file has one owner"):
        _load(_edited(_made("bagging"), tmp_path / "second", members=manifest["members"]))
