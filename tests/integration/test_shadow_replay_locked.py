"""A bundle scored on its locked window."""

from __future__ import annotations

import functools
import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from feature_store.errors import BadInputError
from flows.evidence import shadow_markdown
from flows.replay.report import ShadowReport
from flows.replay.shadow import shadow_candidate
from flows.replay.worker_account import Terms
from flows.training.config import TreeConfig
from flows.training.gates import judge, load_gates
from flows.training.pipeline import train_candidate
from flows.training.plots import shadow_plots
from flows.training.report import ReliabilityCurve
from flows.training.verdict import Finding
from inference.domain.errors import BundleError
from inference.domain.policy import Policy
from inference.models.manifest import TimeWindow
from tests.training_support import make_frames, silent, small_config, trained_candidate

GATES_FILE = Path(__file__).parents[2] / "mlflow" / "gates.yaml"


@functools.cache
def _shadow(*, champion: bool = False) -> ShadowReport:
    trained = trained_candidate()
    window = trained.report.windows.shadow
    return shadow_candidate(trained.path, trained.frames, window, trained.config, trained.path if champion else None)


def test_the_report_survives_the_way_through_json():
    """What is logged to MLflow is what was measured."""
    report = _shadow()

    assert msgspec.json.decode(msgspec.json.encode(report), type=ShadowReport) == report
    assert report.bundle_digest == trained_candidate().report.bundle_digest
    assert all(name.startswith("shadow/") for name in report.metrics)


def test_members_ensemble_and_baselines_are_all_scored():
    """Every member stands beside every naive rule, with error figures and, where it traded, its net."""
    metrics = _shadow().metrics
    whose = ("xgboost", "lightgbm", "nhits", "patchtst", "ensemble", "zero", "persistence", "ridge")

    assert all(f"shadow/{who}/{figure}" in metrics for who in whose for figure in ("rmse", "mae", "r2"))
    assert metrics["shadow/zero/trades"] == 0
    assert metrics["shadow/ensemble/trades"] > 0
    assert {curve.name for curve in _shadow().curves} == {"ensemble", "zero", "persistence", "ridge"}


def test_every_rule_has_every_score_with_its_interval():
    """Members, rules and the champion: errors, steadiness, probabilities and money, each with both ends."""
    metrics = _shadow(champion=True).metrics
    names = (
        "rmse", "mae", "r2", "ic", "brier", "calibration_error", "drawdown_of_capital", "turnover_per_day", "exposure",
        "return_on_capital",
    )  # fmt: skip
    whose = ("xgboost", "lightgbm", "nhits", "patchtst", "ensemble", "champion", "persistence", "ridge")
    absent = [
        (who, name, end) for who in whose for name in names for end in ("", "_low", "_high")
        if f"shadow/{who}/{name}{end}" not in metrics
    ]  # fmt: skip
    compared = [
        (who, name)
        for who in whose
        if who != "ensemble"
        for name in (
            "net_per_slot_bps",
            "brier_difference_low",
            "calibration_error_difference_high",
            "sortino_per_day",
            "drawdown_of_capital_low",
            "r2_difference",
            "exposure_high",
        )
        if f"shadow/ensemble_minus_{who}/{name}" not in metrics
    ]

    assert absent == compared == []


def test_each_member_has_a_reliability_curve_of_its_own():
    """Members, rules and the champion are calibrated one by one, by windows before, and their curves are published."""
    report = _shadow(champion=True)
    pictures = shadow_plots(report)
    page = shadow_markdown(report, "http://run")

    assert {"xgboost", "lightgbm", "nhits", "patchtst", "ridge", "champion"} <= set(report.reliability)
    assert "ensemble" not in report.reliability
    for curve in report.reliability.values():
        assert len(curve.stated) == len(curve.observed) == len(curve.count) == 10
        assert all(0 <= one <= 1 for one in (*curve.stated, *curve.observed))
    assert report.reliability["champion"] == ReliabilityCurve(
        stated=report.stated, observed=report.observed, count=report.count
    )
    assert pictures["shadow_reliability_of_each.png"].startswith(b"\x89PNG")
    assert "calibration error" in page
    assert page.count("| patchtst |") >= 3


def test_suspect_prices_of_the_locked_window_refuse():
    """Bad prices that lie where a candidate is judged are a figure of its report, and the gate says no."""
    trained = trained_candidate()
    window = trained.report.windows.shadow
    spoilt = trained.frames.frames[0]
    inside = np.flatnonzero(spoilt.open_time_ms >= window.start_ms)
    marks = np.zeros(len(spoilt.close), bool)
    marks[inside[::40]] = True
    frames = replace(trained.frames, frames=(replace(spoilt, suspect=marks), *trained.frames.frames[1:]))
    report = shadow_candidate(trained.path, frames, window, trained.config)
    checks = {check.name: check for check in judge(trained.report, report, load_gates(GATES_FILE)).checks}

    assert report.metrics["shadow/suspect_share"] == pytest.approx(marks.sum() / (4 * len(inside)), rel=0.02)
    assert checks["suspect_candles"].finding is Finding.FAILED
    assert checks["unexplained_candles"].finding is Finding.HELD
    assert trained.report.metrics["fit/suspect_share"] == 0


def test_the_worker_s_own_decisions_are_replayed():
    """The window is traded by the worker's decisions too: figures, account and terms stand in the report."""
    report = _shadow()

    assert report.worker is not None
    assert report.worker.policy_fingerprint == Policy().fingerprint
    assert report.worker.time_ms[0] == report.window.start_ms
    assert report.worker.time_ms[-1] == report.window.end_ms
    assert report.metrics["shadow/worker/trades"] > 0
    gained = report.worker.equity[-1] / report.worker.equity[0] - 1
    assert report.metrics["shadow/worker/net_return"] == pytest.approx(gained)
    low, value, high = (report.metrics[f"shadow/worker/net_per_day_bps{end}"] for end in ("_low", "", "_high"))
    assert low < value < high
    assert value == pytest.approx(1e4 * gained / report.metrics["shadow/days"])
    page = shadow_markdown(report, "http://run")
    assert "What the worker would have made of it" in page
    assert f"{report.worker.equity[-1]:,.2f}" in page


def test_other_rules_make_another_account():
    """The rules that are named are those that trade: a cap on positions binds, and the fingerprint says so."""
    trained = trained_candidate()
    terms = Terms(policy=Policy(max_positions=1, cooldown_seconds=3600))
    report = shadow_candidate(trained.path, trained.frames, trained.report.windows.shadow, trained.config, terms=terms)

    assert report.worker is not None
    assert report.worker.policy_fingerprint == terms.policy.fingerprint
    assert report.metrics["shadow/worker/trades"] < _shadow().metrics["shadow/worker/trades"]
    assert report.metrics["shadow/ensemble/trades"] == _shadow().metrics["shadow/ensemble/trades"]


def test_without_prices_nothing_is_replayed_and_the_gates_hold_back():
    """Frames that hold no prices to trade at give a note, no figures, and so no promotion."""
    trained = trained_candidate()
    bare = replace(trained.frames, frames=tuple(replace(one, traded=None) for one in trained.frames.frames))
    report = shadow_candidate(trained.path, bare, trained.report.windows.shadow, trained.config)

    assert report.worker is None
    assert not any(name.startswith("shadow/worker/") for name in report.metrics)
    assert any("were not replayed" in note for note in report.notes)
    missing = {check.name for check in judge(trained.report, report, load_gates(GATES_FILE)).missing}
    assert {"worker_net_low", "worker_drawdown"} <= missing


def test_a_champion_equal_to_the_candidate_differs_by_nothing():
    """Paired with itself a bundle neither gains nor loses, and the interval says so."""
    report = _shadow(champion=True)

    assert report.champion_digest == report.bundle_digest
    ends = [report.metrics[f"shadow/ensemble_minus_champion/net_per_slot_bps{end}"] for end in ("", "_low", "_high")]
    assert ends == [0, 0, 0]


def test_a_window_that_training_saw_is_refused():
    """Scoring what was learned from proves nothing, not even when only the last label reached into it."""
    trained = trained_candidate()
    seen = trained.report.windows.calibration

    with pytest.raises(BadInputError, match="has seen candles"):
        shadow_candidate(trained.path, trained.frames, seen, trained.config)
    touching = TimeWindow(start_ms=seen.end_ms, end_ms=seen.end_ms + 100 * 300_000)
    with pytest.raises(BadInputError, match="has seen candles"):
        shadow_candidate(trained.path, trained.frames, touching, trained.config)


def test_a_window_without_outcomes_is_refused():
    """Candles whose horizon has not passed cannot be scored yet."""
    trained = trained_candidate()
    end_ms = trained.report.windows.shadow.end_ms
    late = TimeWindow(start_ms=end_ms - 13 * 300_000, end_ms=end_ms)

    with pytest.raises(BadInputError, match="matured rows"):
        shadow_candidate(trained.path, trained.frames, late, trained.config)


def test_a_damaged_champion_does_not_stop_the_candidate(tmp_path):
    """A champion that can no longer be trusted is noted and not compared with."""
    trained = trained_candidate()
    broken = shutil.copytree(trained.path, tmp_path / "champion")
    (broken / "xgboost.ubj").write_bytes(b"x")
    report = shadow_candidate(trained.path, trained.frames, trained.report.windows.shadow, trained.config, broken)

    assert report.champion_digest is None
    assert any("could not be compared" in note for note in report.notes)


def test_a_damaged_candidate_is_not_scored(tmp_path):
    """What is judged is what would trade: a bundle that does not verify is an error."""
    trained = trained_candidate()
    broken = shutil.copytree(trained.path, tmp_path / "bundle")
    (broken / "nhits.onnx").write_bytes(b"x")

    with pytest.raises(BundleError, match=r"nhits\.onnx"):
        shadow_candidate(broken, trained.frames, trained.report.windows.shadow, trained.config)


@pytest.mark.parametrize(("edge", "seeds", "passes"), [(0.5, (1, 2), True), (0.0, (1, 2, 3), False)])
def test_the_gates_pass_an_edge_and_refuse_noise(tmp_path, edge, seeds, passes):
    """Trained, scored and judged as in production: a market with an edge passes, one without is refused."""
    config = small_config(
        members=("xgboost", "lightgbm"),
        xgboost=TreeConfig(rounds=150, learning_rate=0.06, min_leaf_rows=60, column_fraction=0.8),
        lightgbm=TreeConfig(rounds=150, learning_rate=0.06, min_leaf_rows=500, column_fraction=0.8, linear_leaves=True),
        fit_share=0.5,
        bootstrap_samples=500,
    )
    verdicts = {}
    for seed in seeds:
        frames = make_frames(series=12, candles=6000, edge=edge, seed=seed)
        path = tmp_path / str(seed)
        training = train_candidate(frames, config, path, silent)
        shadow = shadow_candidate(path, frames, training.windows.shadow, config)
        verdict = judge(training, shadow, load_gates(GATES_FILE))
        verdicts[seed] = (verdict.decision.value, [(check.name, check.value) for check in verdict.refusals])

    expected = "promoted" if passes else "refused"
    assert {seed: word for seed, (word, _) in verdicts.items()} == dict.fromkeys(seeds, expected), verdicts
