"""The gates: what they hold, and how they refuse."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from feature_store.errors import BadInputError
from flows.replay.report import ShadowReport
from flows.training.gates import GATE_NAMES, Gates, judge, load_gates
from flows.training.report import TrainingReport
from inference.models.manifest import TimeWindow
from tests.training_support import trained_report

GATES_FILE = Path(__file__).parents[2] / "mlflow" / "gates.yaml"
_GOOD = {
    "shadow/coverage": 1.0, "shadow/days": 5.0, "shadow/independent_outcomes": 250.0, "shadow/abstained_share": 0.0,
    "shadow/ensemble/trades": 200.0, "shadow/ensemble/rmse_skill_low": 0.004, "shadow/ensemble/ic_low": 0.05,
    "shadow/ensemble/net_per_trade_bps_low": 2.0, "shadow/ensemble_minus_flat/net_per_slot_bps_low": 0.4,
    "shadow/ensemble/calibration_error": 0.03, "shadow/ensemble_minus_persistence/net_per_slot_bps_low": 0.4,
    "shadow/ensemble_minus_half_ridge/net_per_slot_bps_low": 0.3,
    "shadow/ensemble_minus_ridge/net_per_slot_bps_high": 0.5,
    "shadow/ensemble_minus_champion/net_per_slot_bps_low": 0.1,
    "leakage/shuffled_label_z": 0.5,
    **{f"{window}/coverage": 1.0 for window in ("fit", "validation", "calibration")},
    **{
        f"{window}/{who}/{statistic}": value
        for window in ("validation", "calibration", "shadow")
        for who in ("xgboost", "lightgbm", "ensemble")
        for statistic, value in (("ic", 0.2), ("r2", 0.03), ("hit_rate", 0.56))
    },
}  # fmt: skip

# For each gate, the figure that it looks at and a value that it must not let pass.
BAD = {
    "coverage": ("calibration/coverage", 0.94),
    "shadow_days": ("shadow/days", 2.9),
    "independent_outcomes": ("shadow/independent_outcomes", 99.0),
    "shadow_trades": ("shadow/ensemble/trades", 29.0),
    "abstained_share": ("shadow/abstained_share", 0.02),
    "plausible_ic": ("validation/lightgbm/ic", 0.51),
    "plausible_r2": ("calibration/xgboost/r2", 0.26),
    "plausible_hit_rate": ("shadow/ensemble/hit_rate", 0.71),
    "shuffled_labels": ("leakage/shuffled_label_z", 4.1),
    "rmse_skill_low": ("shadow/ensemble/rmse_skill_low", 0.0),
    "ic_low": ("shadow/ensemble/ic_low", 0.0),
    "net_per_trade_low": ("shadow/ensemble/net_per_trade_bps_low", -0.1),
    "net_over_flat_low": ("shadow/ensemble_minus_flat/net_per_slot_bps_low", 0.0),
    "calibration_error": ("shadow/ensemble/calibration_error", 0.09),
    "net_over_persistence_low": ("shadow/ensemble_minus_persistence/net_per_slot_bps_low", 0.0),
    "net_over_half_ridge_low": ("shadow/ensemble_minus_half_ridge/net_per_slot_bps_low", 0.0),
    "net_over_ridge_high": ("shadow/ensemble_minus_ridge/net_per_slot_bps_high", -0.1),
    "net_over_champion_low": ("shadow/ensemble_minus_champion/net_per_slot_bps_low", -1.1),
}


def _reports(champion: str | None = "c" * 64, **changes: float | None) -> tuple[TrainingReport, ShadowReport]:
    metrics = {name: value for name, value in (_GOOD | changes).items() if value is not None}
    training = trained_report(metrics)
    window = training.windows.shadow
    shadow = ShadowReport(
        bundle_digest=training.bundle_digest, champion_digest=champion, window=window, candles=1, rows=1,
        symbols=(), threshold=0.6, metrics=metrics, curves=(), stated=(), observed=(), count=(), notes=(),
    )  # fmt: skip
    return training, shadow


def test_every_gate_of_the_repository_has_a_number_and_a_reason():
    """mlflow/gates.yaml sets every gate there is, and says why each number is what it is."""
    gates = load_gates(GATES_FILE).gates

    assert set(gates) == set(GATE_NAMES)
    assert all(gate.bound is not None and len(gate.reason) > 40 for gate in gates.values())


def test_a_candidate_that_holds_every_gate_passes():
    """Good figures throughout pass, with one check per gate to show for it."""
    verdict = judge(*_reports(), load_gates(GATES_FILE))

    assert verdict.passed
    assert {check.name for check in verdict.checks} == {*GATE_NAMES, "same_bundle"}


@pytest.mark.parametrize("name", GATE_NAMES)
def test_each_gate_refuses_alone(name):
    """One figure beyond its bound refuses the candidate, and that gate is the one that says so."""
    figure, bad = BAD[name]
    verdict = judge(*_reports(**{figure: bad}), load_gates(GATES_FILE))

    assert not verdict.passed
    assert [check.name for check in verdict.refusals] == [name]
    assert verdict.refusals[0].value == bad


@pytest.mark.parametrize("name", GATE_NAMES)
def test_a_figure_that_is_missing_refuses(name):
    """What could not be computed was not held."""
    verdict = judge(*_reports(**{BAD[name][0]: None}), load_gates(GATES_FILE))

    assert name in {check.name for check in verdict.refusals}
    assert all("could not be computed" in check.reason for check in verdict.refusals)


@pytest.mark.parametrize("name", GATE_NAMES)
def test_an_unset_gate_refuses(name):
    """Deleting a gate does not open it."""
    gates = load_gates(GATES_FILE).gates
    verdict = judge(*_reports(), Gates(gates={other: gate for other, gate in gates.items() if other != name}))

    assert [check.name for check in verdict.refusals] == [name]
    assert "unset" in verdict.refusals[0].reason


def test_without_a_champion_there_is_nothing_to_be_inferior_to():
    """The first candidate is judged against naive rules and staying flat alone."""
    verdict = judge(*_reports(champion=None), load_gates(GATES_FILE))

    assert verdict.passed
    assert "net_over_champion_low" not in {check.name for check in verdict.checks}


def test_a_shadow_of_another_window_or_bundle_refuses():
    """Good figures of something else are no evidence."""
    training, shadow = _reports()
    other = msgspec.structs.replace(shadow, bundle_digest="d" * 64)
    moved = msgspec.structs.replace(shadow, window=TimeWindow(start_ms=0, end_ms=1))

    for one in (other, moved):
        assert [check.name for check in judge(training, one, load_gates(GATES_FILE)).refusals] == ["same_bundle"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("gates: {coverage: {bound: much, reason: x}}", "Expected `float", id="bound-is-a-word"),
        pytest.param("gates: {coverage: {bound: 0.9}}", "reason", id="no-reason"),
        pytest.param("gates: {coverage: {bound: 0.9, reason: x, note: y}}", "unknown field", id="unknown-field"),
        pytest.param("gates: {luck: {bound: 1, reason: x}}", "'luck'", id="unknown-gate"),
        pytest.param("gates: {coverage: {bound: .nan, reason: x}}", "not finite", id="bound-is-nan"),
        pytest.param("gates: {coverage: {bound: -.inf, reason: x}}", "not finite", id="bound-that-all-hold"),
        pytest.param("gates: [", "Cannot use the gates", id="no-yaml"),
        pytest.param("", "Cannot use the gates", id="empty"),
    ],
)
def test_an_unusable_file_of_gates_is_refused(tmp_path, text, message):
    """A mistake in the file is one sentence that says what is wrong, never a gate that stands open."""
    path = tmp_path / "gates.yaml"
    path.write_text(text)

    with pytest.raises(BadInputError, match=message):
        load_gates(path)


def test_absent_gates_are_an_error(tmp_path):
    """Without the file nothing is judged."""
    with pytest.raises(BadInputError, match="Restore it, or name another"):
        load_gates(tmp_path / "gates.yaml")


@pytest.mark.parametrize(
    ("compared", "figures", "passes"),
    [
        (None, {}, False),
        ("b" * 64, {}, False),
        ("c" * 64, {}, True),
        (None, {"shadow/champion_unusable": 1.0}, True),
    ],
)
def test_evidence_against_another_champion_than_todays_refuses(compared, figures, passes):
    """A shadow that saw no champion, or one since replaced, proves nothing against the one that trades now."""
    training, shadow = _reports(compared, **figures)

    verdict = judge(training, shadow, load_gates(GATES_FILE), champion_digest="c" * 64)

    assert verdict.passed is passes


def test_a_champion_of_the_same_bundle_needs_no_comparison():
    """A bundle is not held against itself."""
    training, shadow = _reports(None)

    assert judge(training, shadow, load_gates(GATES_FILE), champion_digest=training.bundle_digest).passed


@pytest.mark.parametrize("name", ["shadow/ensemble/ic_low", "shadow/independent_outcomes", "shadow/days"])
def test_an_infinite_figure_refuses(name):
    """Infinity is no measurement, on whichever side of the bound it lies."""
    training, shadow = _reports(**{name: float("inf")})

    assert not judge(training, shadow, load_gates(GATES_FILE)).passed
