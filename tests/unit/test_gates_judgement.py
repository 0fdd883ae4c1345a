"""The gates: what they hold, and how they refuse."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from feature_store.errors import BadInputError
from flows.replay.report import ShadowReport
from flows.training.gates import (
    ALWAYS_ASKED,
    GATE_NAMES,
    Champion,
    Circumstances,
    Gates,
    judge,
    load_gates,
)
from flows.training.live_evidence import LiveShadow, Market
from flows.training.report import TrainingReport
from flows.training.selection import Trials
from flows.training.verdict import Decision, Finding
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
    "shadow/ensemble_minus_champion/net_per_slot_bps": 0.6,
    "shadow/champion_minus_flat/net_per_slot_bps_high": 2.0,
    "shadow/ensemble/sharpe_per_period": 0.4, "shadow/ensemble/periods": 65.0, "shadow/ensemble/skewness": 0.2,
    "shadow/ensemble/kurtosis": 4.0, "shadow/ensemble/drawdown_of_capital": 0.01,
    "shadow/ensemble/concentration": 0.1, "shadow/ensemble/sortino_per_day_low": 1.5,
    "shadow/worker/net_per_day_bps_low": 120.0, "shadow/worker/max_drawdown": 0.03,
    "leakage/shuffled_label_z": 0.5, "cpcv/ridge/sharpe_negative_share": 1.0, "cpcv/trees/sharpe_negative_share": 0.2,
    **{f"shadow/input_drift/cycle_{place}": 0.4 for place in range(1, 6)},
    **{f"{window}/coverage": 1.0 for window in ("fit", "validation", "calibration")},
    **{
        f"{window}/{name}": 0.0
        for window in ("fit", "validation", "calibration", "shadow")
        for name in ("suspect_share", "unexplained_share")
    },
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
    "unexplained_candles": ("calibration/unexplained_share", 0.021),
    "suspect_candles": ("shadow/suspect_share", 0.0011),
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
    "deflated_sharpe": ("shadow/ensemble/sharpe_per_period", 0.1),
    "sortino_low": ("shadow/ensemble/sortino_per_day_low", 0.05),
    "cpcv_losing_share": ("cpcv/trees/sharpe_negative_share", 0.6),
    "drawdown": ("shadow/ensemble/drawdown_of_capital", 0.11),
    "concentration": ("shadow/ensemble/concentration", 0.6),
    "worker_net_low": ("shadow/worker/net_per_day_bps_low", 0.0),
    "worker_drawdown": ("shadow/worker/max_drawdown", 0.11),
    "lead_over_champion": ("shadow/ensemble_minus_champion/net_per_slot_bps", 0.05),
    "live_shadow_days": ("live_shadow/days", 2.5),
    "live_independent_outcomes": ("live_shadow/independent_outcomes", 60.0),
    "live_net_over_flat_low": ("live_shadow/ensemble_minus_flat/net_per_slot_bps_low", 0.0),
    "live_net_over_champion_low": ("live_shadow/ensemble_minus_champion/net_per_slot_bps_low", -1.5),
}
# What takes time: short of it a candidate is held back, not refused.
TAKES_TIME = {
    "shadow_days", "independent_outcomes", "tenure_days", "lead_over_champion", "live_shadow_days",
    "live_independent_outcomes",
}  # fmt: skip
# What no single figure of a report says, and a value that is beyond the bound.
ELSEWHERE = {"tenure_days": 0.5, "critical_drift": 2.0, "locked_looks": 4.0}
CHAMPION = "c" * 64
LIVE = {
    "live_shadow/days": 4.0, "live_shadow/paired_days": 3.5, "live_shadow/independent_outcomes": 150.0,
    "live_shadow/ensemble_minus_flat/net_per_slot_bps_low": 0.2,
    "live_shadow/ensemble_minus_champion/net_per_slot_bps_low": -0.2,
}  # fmt: skip
DAY_MS = 86_400_000


def reports_of(champion: str | None = "c" * 64, **changes: float | None) -> tuple[TrainingReport, ShadowReport]:
    metrics = {name: value for name, value in (_GOOD | changes).items() if value is not None}
    training = trained_report(metrics)
    window = training.windows.shadow
    shadow = ShadowReport(
        bundle_digest=training.bundle_digest, champion_digest=champion, window=window, candles=1, rows=1,
        symbols=(), threshold=0.6, metrics=metrics, curves=(), stated=(), observed=(), count=(), notes=(),
    )  # fmt: skip
    return training, shadow


def around_of(*, tenure_days: float = 2.0, mode: str = "testnet", **changes: object) -> Circumstances:
    """Return circumstances in which every gate is asked: a champion of that age, and a mode that wants live candles."""
    until_ms = trained_report({}).windows.shadow.end_ms
    champion = Champion(digest=CHAMPION, judged_until_ms=until_ms - int(tenure_days * DAY_MS))
    venue = {"venue": "binanceusdm", "trained_venue": "binanceusdm"}
    given = {"mode": mode, **venue, "champion": champion, "live": _live(mode=mode)} | changes
    return Circumstances(**given)  # type: ignore[arg-type]


def _live(
    *, mode: str = "testnet", venue: str = "binanceusdm", champion: str | None = CHAMPION, **changes: float | None
) -> LiveShadow:
    """Return a live shadow of the candidate's bundle, in the market that it would trade unless told otherwise."""
    metrics = {name: value for name, value in (LIVE | changes).items() if value is not None}
    market = Market(venue=venue, mode=mode)
    return LiveShadow(bundle_digest="b" * 64, market=market, metrics=metrics, champion_digest=champion)


def _judged_with(name: str, value: float | None) -> tuple[tuple[TrainingReport, ShadowReport], Circumstances]:
    """Return reports and circumstances in which the figure behind one gate is another, or missing."""
    if name == "tenure_days":
        assert value is not None
        return reports_of(), around_of(tenure_days=value)
    if name == "locked_looks":
        assert value is not None
        return reports_of(), around_of(looks=int(value))
    if name == "critical_drift":
        far = None if value is None else 1.5
        return reports_of(
            **{f"shadow/input_drift/cycle_{place}": far for place in range(1, int(value or 1) + 1)}
        ), around_of()
    figure = BAD[name][0]
    if figure.startswith("live_shadow/"):
        return reports_of(), around_of(live=_live(**{figure: value}))
    return reports_of(**{figure: value}), around_of()


def test_every_gate_of_the_repository_has_a_number_and_a_reason():
    """mlflow/gates.yaml sets every gate there is, and says why each number is what it is."""
    gates = load_gates(GATES_FILE).gates

    assert set(gates) == set(GATE_NAMES)
    assert all(gate.bound is not None and len(gate.reason) > 40 for gate in gates.values())


def test_a_candidate_that_holds_every_gate_passes():
    """Good figures throughout pass, with one check per gate to show for it."""
    verdict = judge(*reports_of(), load_gates(GATES_FILE), around_of())

    assert verdict.passed
    assert verdict.decision is Decision.PROMOTED
    facts = {"same_bundle", "same_champion", "trained_venue", "live_market", "live_champion"}
    assert {check.name for check in verdict.checks} == {*GATE_NAMES, *facts}


@pytest.mark.parametrize("name", GATE_NAMES)
def test_each_gate_stops_alone(name):
    """One figure beyond its bound stops the candidate; one that time may mend holds it back, any other refuses it."""
    bad = ELSEWHERE[name] if name in ELSEWHERE else BAD[name][1]
    reports, around = _judged_with(name, bad)
    verdict = judge(*reports, load_gates(GATES_FILE), around)

    assert not verdict.passed
    assert [check.name for check in verdict.refusals] == [name]
    assert verdict.decision is (Decision.HELD if name in TAKES_TIME else Decision.REFUSED)
    if name != "deflated_sharpe":  # It is computed from the figure that was changed.
        assert verdict.refusals[0].value == pytest.approx(bad)


@pytest.mark.parametrize("name", [name for name in GATE_NAMES if name not in ("tenure_days", "locked_looks")])
def test_a_figure_that_is_missing_holds_back(name):
    """What could not be computed was not held, and it was not failed either."""
    reports, around = _judged_with(name, None)
    verdict = judge(*reports, load_gates(GATES_FILE), around)

    assert name in {check.name for check in verdict.missing}
    assert verdict.decision is Decision.HELD
    assert all("could not be computed" in check.reason for check in verdict.refusals)


def test_what_fails_outweighs_what_is_missing():
    """A candidate that lacks days and loses money is refused, not told to wait."""
    reports = reports_of(**{"shadow/days": 1.0, "shadow/ensemble/net_per_trade_bps_low": -3.0})
    verdict = judge(*reports, load_gates(GATES_FILE))

    assert verdict.decision is Decision.REFUSED
    assert {check.finding for check in verdict.refusals} == {Finding.MISSING, Finding.FAILED}


@pytest.mark.parametrize("name", GATE_NAMES)
def test_an_unset_gate_refuses(name):
    """Deleting a gate does not open it."""
    gates = load_gates(GATES_FILE).gates
    kept = Gates(gates={other: gate for other, gate in gates.items() if other != name})
    verdict = judge(*reports_of(), kept, around_of())

    assert [check.name for check in verdict.refusals] == [name]
    assert verdict.decision is Decision.REFUSED
    assert "unset" in verdict.refusals[0].reason


def test_what_a_rollback_set_aside_is_refused():
    """However good its figures are: a rollback is not undone by the next bare promotion."""
    verdict = judge(*reports_of(), load_gates(GATES_FILE), around_of(set_aside=True))

    assert verdict.decision is Decision.REFUSED
    assert [check.name for check in verdict.refusals] == ["not_set_aside"]


@pytest.mark.parametrize("mode", ["sandbox", "paper"])
def test_replayed_candles_suffice_where_nothing_is_at_stake(mode):
    """In sandbox and paper a candidate without a live shadow is promoted."""
    verdict = judge(*reports_of(), load_gates(GATES_FILE), around_of(mode=mode, live=None))

    assert verdict.decision is Decision.PROMOTED
    assert not {"live_shadow_days", "approval"} & {check.name for check in verdict.checks}


@pytest.mark.parametrize("mode", ["testnet", "live"])
def test_replayed_candles_do_not_suffice_elsewhere(mode):
    """In testnet and live a candidate without a live shadow is held back, and told what is missing."""
    verdict = judge(*reports_of(), load_gates(GATES_FILE), around_of(mode=mode, live=None, approved_digest="b" * 64))

    assert verdict.decision is Decision.HELD
    assert {check.name for check in verdict.missing} == {
        "live_shadow_days", "live_independent_outcomes", "live_net_over_flat_low", "live_net_over_champion_low",
        "live_market", "live_champion",
    }  # fmt: skip


@pytest.mark.parametrize(("digest", "decision"), [(None, "held"), ("d" * 64, "held"), ("b" * 64, "promoted")])
def test_real_money_needs_a_person(digest, decision):
    """In live the best candidate is held until a person approved this very bundle."""
    verdict = judge(*reports_of(), load_gates(GATES_FILE), around_of(mode="live", approved_digest=digest))

    assert verdict.decision == decision
    assert ("approval" in {check.name for check in verdict.missing}) is (decision == "held")


@pytest.mark.parametrize(
    ("figures", "degraded"),
    [({}, True), ({"shadow/champion_minus_flat/net_per_slot_bps_high": -0.1}, False)],
)
def test_a_champion_that_degraded_is_replaced_at_once(figures, degraded):
    """Neither tenure nor a lead is owed to a champion that is known to have degraded, or shown to lose money."""
    young = around_of(tenure_days=0.1)
    champion = Champion(digest=CHAMPION, judged_until_ms=young.champion.judged_until_ms, degraded=degraded)
    around = around_of(champion=champion)
    reports = reports_of(**{"shadow/ensemble_minus_champion/net_per_slot_bps": 0.0} | figures)

    assert judge(*reports_of(), load_gates(GATES_FILE), young).decision is Decision.HELD
    assert judge(*reports, load_gates(GATES_FILE), around).decision is Decision.PROMOTED


def test_many_tries_make_a_good_result_ordinary():
    """The same Sharpe ratio that passes as the only one tried fails as the best of many."""
    reports = reports_of(**{"shadow/ensemble/sharpe_per_period": 0.3})
    alone, best_of_many = (
        judge(*reports, load_gates(GATES_FILE), around_of(trials=Trials(count=count))) for count in (1, 200)
    )

    assert alone.passed
    assert [check.name for check in best_of_many.refusals] == ["deflated_sharpe"]


def test_without_a_champion_there_is_nothing_to_be_inferior_to():
    """The first candidate is judged against naive rules and staying flat alone."""
    verdict = judge(*reports_of(champion=None), load_gates(GATES_FILE))

    assert verdict.passed
    assert {check.name for check in verdict.checks} == {*ALWAYS_ASKED, "same_bundle"}


def test_a_shadow_of_another_window_or_bundle_refuses():
    """Good figures of something else are no evidence."""
    training, shadow = reports_of()
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
        pytest.param("gates: {critical_drift: {bound: 1, reason: x}}", "`over` None", id="drift-over-nothing"),
        pytest.param("gates: {critical_drift: {bound: 1, over: 0, reason: x}}", "1 to 7", id="drift-over-none"),
        pytest.param("gates: {critical_drift: {bound: 1, over: 400, reason: x}}", "1 to 7", id="drift-over-a-year"),
        pytest.param("gates: {critical_drift: {bound: 1, over: 1.5, reason: x}}", "Expected `int", id="half-a-day"),
        pytest.param("gates: {coverage: {bound: 1, over: 3, reason: x}}", "counts no cycles", id="over-elsewhere"),
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
def test_evidence_against_another_champion_than_todays_does_not_count(compared, figures, passes):
    """A shadow that saw no champion, or one since replaced, proves nothing against the one that trades now."""
    training, shadow = reports_of(compared, **figures)

    verdict = judge(training, shadow, load_gates(GATES_FILE), Circumstances(champion=Champion(digest=CHAMPION)))

    assert verdict.passed is passes
    assert verdict.decision is not Decision.REFUSED


def test_a_champion_of_the_same_bundle_needs_no_comparison():
    """A bundle is not held against itself."""
    training, shadow = reports_of(None)

    around = Circumstances(champion=Champion(digest=training.bundle_digest, judged_until_ms=0))
    assert judge(training, shadow, load_gates(GATES_FILE), around).passed


@pytest.mark.parametrize("name", ["shadow/ensemble/ic_low", "shadow/independent_outcomes", "shadow/days"])
def test_an_infinite_figure_is_not_held(name):
    """Infinity is no measurement, on whichever side of the bound it lies."""
    training, shadow = reports_of(**{name: float("inf")})

    assert not judge(training, shadow, load_gates(GATES_FILE)).passed


def test_a_candidate_of_the_past_is_refused():
    """Trained as of a past moment it is judged on history, from which one could choose what pleases."""
    verdict = judge(*reports_of(), load_gates(GATES_FILE), Circumstances(as_of="2026-03-01T00:00:00+00:00"))
    assert verdict.decision is Decision.REFUSED
    assert [check.name for check in verdict.refusals] == ["of_the_present"]
    assert "2026-03-01" in verdict.refusals[0].reason
