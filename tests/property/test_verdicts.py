"""One answer from many checks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flows.training.verdict import Decision, Finding, GateCheck, Verdict, decide

FINDINGS = st.lists(st.sampled_from(Finding), max_size=12)
_RANK = {Decision.REFUSED: 0, Decision.HELD: 1, Decision.PROMOTED: 2}


def _check(finding: Finding, name: str = "gate") -> GateCheck:
    return GateCheck(name=name, finding=finding, value=1.0, bound=1.0, reason="a reason")


@given(FINDINGS)
def test_a_failed_gate_refuses_whatever_else_was_found(findings):
    """Adding a gate that fails never promotes, and never holds back."""
    assert decide([*findings, Finding.FAILED]) is Decision.REFUSED


@given(FINDINGS)
def test_missing_evidence_never_promotes(findings):
    """Adding a gate without evidence never promotes, and makes no refusal milder."""
    before, after = decide(findings), decide([*findings, Finding.MISSING])

    assert after is not Decision.PROMOTED
    if findings:
        assert _RANK[after] <= _RANK[before]


@given(FINDINGS, FINDINGS)
def test_more_gates_never_help(findings, more):
    """Each gate can only cost; their order does not matter."""
    if findings:
        assert _RANK[decide(findings + more)] <= _RANK[decide(findings)]
    assert decide(findings + more) is decide(more + findings)


@given(FINDINGS)
def test_only_gates_that_were_all_held_promote(findings):
    """And nothing at all shows nothing."""
    verdict = Verdict(checks=tuple(map(_check, findings)))

    assert verdict.passed is (bool(findings) and set(findings) == {Finding.HELD})
    assert set(verdict.missing) <= set(verdict.refusals)
