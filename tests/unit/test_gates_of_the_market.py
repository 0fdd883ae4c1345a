"""Gates on the market that a candidate learned from: drift of its inputs, folds, and looks at its locked window."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.evidence import reasons_of
from flows.training.gates import CPCV_REFITS, Gates, judge, load_gates
from flows.training.refits import REFITS
from flows.training.verdict import Decision
from tests.unit.test_gates_judgement import GATES_FILE, around_of, reports_of


@pytest.mark.parametrize(
    ("cycles", "decision"),
    [
        pytest.param({1: 1.2}, Decision.PROMOTED, id="one-odd-day"),
        pytest.param({1: 1.2, 3: 9.0}, Decision.REFUSED, id="two-of-the-newest-three"),
        pytest.param({4: 9.0, 5: 9.0}, Decision.PROMOTED, id="older-days-do-not-count"),
        pytest.param({1: 1.0, 2: 1.0}, Decision.PROMOTED, id="at-the-limit-is-chance"),
        pytest.param({2: None}, Decision.HELD, id="a-day-that-could-not-be-judged"),
        pytest.param({1: float("inf")}, Decision.HELD, id="infinite-is-no-measurement"),
        pytest.param({1: 1.2, 2: 1.2, 3: None}, Decision.HELD, id="what-is-not-known-is-not-counted"),
    ],
)
def test_drift_of_the_newest_days_is_counted(cycles, decision):
    """Two of the newest three days beyond what chance explains refuse; a day without a figure holds back."""
    figures = {f"shadow/input_drift/cycle_{place}": share for place, share in cycles.items()}
    assert judge(*reports_of(**figures), load_gates(GATES_FILE), around_of()).decision is decision


def test_drift_over_no_number_of_days_is_unset():
    """A gate that counts days refuses where nobody said of how many, as without a bound."""
    gates = load_gates(GATES_FILE).gates
    without = msgspec.structs.replace(gates["critical_drift"], over=None)
    verdict = judge(*reports_of(), Gates(gates=gates | {"critical_drift": without}), around_of())

    assert verdict.decision is Decision.REFUSED
    assert [check.name for check in verdict.refusals] == ["critical_drift"]
    assert "unset" in verdict.refusals[0].reason


@given(st.lists(st.floats(0, 5) | st.none(), min_size=7, max_size=7), st.integers(1, 7), st.integers(0, 7))
def test_more_drift_never_helps(shares, place, bound):
    """Whatever is known of the days, one that drifts further makes no verdict milder."""
    rank = [Decision.REFUSED, Decision.HELD, Decision.PROMOTED]
    gates = load_gates(GATES_FILE).gates
    asked = Gates(
        gates=gates | {"critical_drift": msgspec.structs.replace(gates["critical_drift"], bound=bound, over=7)}
    )
    known = {f"shadow/input_drift/cycle_{at}": share for at, share in enumerate(shares, 1)}
    worse = known | {f"shadow/input_drift/cycle_{place}": 6.0} if shares[place - 1] is not None else known
    before, after = (judge(*reports_of(**figures), asked, around_of()).decision for figures in (known, worse))

    assert rank.index(after) <= rank.index(before)


def test_the_better_refit_speaks_for_the_folds():
    """One of two cheap models that earns in most histories shows that something can be learned; both exist."""
    shares = {f"cpcv/{refit}/sharpe_negative_share": 0.6 for refit in CPCV_REFITS}

    assert set(CPCV_REFITS) == set(REFITS)
    assert judge(*reports_of(), load_gates(GATES_FILE), around_of()).passed
    refused = judge(*reports_of(**shares), load_gates(GATES_FILE), around_of())
    assert [check.name for check in refused.refusals] == ["cpcv_losing_share"]


def test_the_verdict_says_why_in_words():
    """Whoever reads the reasons learns the figure, the bound and what it means, in one sentence after another."""
    figures = {f"shadow/input_drift/cycle_{place}": 2.0 for place in (1, 2)}
    drifted, looked = reasons_of(judge(*reports_of(**figures), load_gates(GATES_FILE), around_of(looks=5)))

    assert drifted.startswith("critical_drift was 2, bound 1. Of the newest three days")
    assert looked.startswith("locked_looks was 5, bound 3. How often its locked window was looked at")
    assert all("\n" not in reason and len(reason) < 600 for reason in (drifted, looked))
