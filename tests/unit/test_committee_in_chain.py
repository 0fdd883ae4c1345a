"""When the committee changes a decision: by a veto, a smaller budget, a cap; and when it only says what it would do."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from inference.decision import decide
from inference.domain.bias import BiasMode
from inference.domain.decision import Approved, DenyCode
from inference.domain.events import CandlesDecided
from inference.domain.governance import ALL, Resolution, Stance
from inference.domain.policy import Policy
from inference.governance.briefing import Model
from inference.governance.charter import Charter
from inference.governance.committee import convene
from inference.governance.roles import ROLES
from inference.journal.codec import GENESIS, chained, entry_of, event_of, line_of
from inference.journal.replay import replay_decisions
from inference.supervision.committee_watch import RESOLVED, CommitteeWatch, volatility_of
from tests.unit.test_governance import BTC, account, briefing
from tests.worker_values import T0, make_candidate, make_snapshot

# What is risked at the stop is what limits its sizes: 15 of 10,000.
POLICY = Policy(committee_mode=BiasMode.ENFORCE, risk_per_trade=Decimal("0.0015"))


def resolution(**changes) -> Resolution:
    plain = Resolution(stance=Stance.NORMAL, budget=Decimal(1), caps={}, vetoes={}, votes=(), enforced=True)
    return replace(plain, **changes)


def decided(found) -> object:
    (decision,) = decide(make_snapshot((make_candidate(BTC),), resolution=found), POLICY, T0)
    return decision


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        pytest.param({"stance": Stance.EXITS_ONLY}, DenyCode.COMMITTEE_VETO, id="stance"),
        pytest.param({"vetoes": {BTC: "audit: no record"}}, DenyCode.COMMITTEE_VETO, id="symbol"),
        pytest.param({"vetoes": {ALL: "audit: no record"}}, DenyCode.COMMITTEE_VETO, id="everything"),
        pytest.param({"caps": {BTC: Decimal(100)}}, DenyCode.COMMITTEE_CAP, id="cap"),
        pytest.param({"budget": Decimal(0)}, DenyCode.QUANTITY_BELOW_STEP, id="no-budget"),
    ],
)
def test_a_resolution_refuses(changes, code):
    """By a code of its own, with what was compared; without it the same entry is approved."""
    assert isinstance(decided(UNSET), Approved)
    assert decided(resolution(**changes)).code is code


def test_other_symbols_are_not_meant():
    """A veto and a cap are of their symbol."""
    found = decided(resolution(vetoes={"ETH/USDT:USDT": "why"}, caps={"ETH/USDT:USDT": Decimal(0)}))

    assert found == decided(UNSET)


@given(st.decimals(min_value=0, max_value=1, places=3), st.decimals(min_value=0, max_value=5000, places=0))
def test_no_resolution_makes_an_entry_larger(budget, cap):
    """Whatever is resolved, what is entered is at most what would be without it, within its budget and cap."""
    free, bound = decided(UNSET), decided(resolution(budget=budget, caps={BTC: cap}))

    if isinstance(bound, Approved):
        assert bound.quantity <= free.quantity
        assert bound.risk <= budget * 15
        assert bound.quantity * bound.reference_price <= cap


@pytest.mark.parametrize("role", ROLES)
def test_each_role_changes_a_decision(role):
    """What one role alone objects to, the chain refuses or makes smaller; without that cause it does not."""
    causes = {
        "chief_executive": {"regimes": {BTC: "crash"}},
        "chief_risk_officer": {"account": account("9850")},
        "chief_investment_officer": {},
        "compliance": {"policy": replace(POLICY, denied_symbols=(BTC,))},
        "audit": {"record": replace(briefing().record, is_whole=False)},
    }
    asked = briefing(**{"policy": POLICY, "volatility": {BTC: Decimal("0.01")}} | causes[role.value])
    # All others vote on a state that they have nothing against.
    calm = briefing(policy=asked.policy, volatility={})
    roles = {one: (lambda _, charter, ask=ask: ask(calm, charter)) for one, ask in ROLES.items()} | {role: ROLES[role]}
    found = convene(asked, Charter(max_share=Decimal("0.05")), enforced=True, roles=roles)
    free = decided(UNSET)
    alone = decided(found)

    if isinstance(alone, Approved):
        assert alone.quantity < free.quantity
    else:
        assert alone.code in (DenyCode.COMMITTEE_VETO, DenyCode.COMMITTEE_CAP)
        assert role.value in alone.context.get("why", role.value)


def test_an_enforced_resolution_is_journaled_with_the_decision():
    """It survives the journal's text, and the decision is made again from it to the byte."""
    watch = CommitteeWatch(lambda *_: None)
    found = watch.attend(briefing(policy=POLICY, account=account("9850")))
    snapshot = make_snapshot((make_candidate(BTC),), resolution=found)
    event = CandlesDecided.of(snapshot, POLICY, T0, decide(snapshot, POLICY, T0))
    entry = entry_of(line_of(chained(event, seq=1, timestamp_ms=T0, trace_id="", previous=GENESIS)))

    assert event_of(entry) == event
    assert replay_decisions([entry]) == (1, [])


def test_changes_are_told_and_nothing_else():
    """One entry for each change of what is resolved; numbers that move tell nothing; observed, no decision holds it."""
    told: list[tuple[str, dict[str, str]]] = []
    watch = CommitteeWatch(lambda kind, detail: told.append((kind, dict(detail))), Charter())
    for equity in ("10000", "9999", "9850", "9849", "10000"):
        assert watch.attend(briefing(account=account(equity))) is UNSET
    assert watch.attend(briefing(policy=POLICY, model=Model(gated=True, is_poor=True, is_biased=False))) is not UNSET

    assert [(kind, one["stance"], one["mode"]) for kind, one in told] == [
        (RESOLVED, "NORMAL", "observe"),
        (RESOLVED, "CAREFUL", "observe"),
        (RESOLVED, "NORMAL", "observe"),
        (RESOLVED, "CAREFUL", "enforce"),
    ]
    assert "of the day's limit is lost" in told[1][1]["because"]


def test_volatility_is_a_share_of_price():
    """The average true range by the close; a price that is none has none."""
    assert volatility_of([make_candidate(BTC, atr=500.0)]) == {BTC: Decimal("0.01")}
