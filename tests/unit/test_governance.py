"""The committee: what each role votes by, when it changes something, and what votes come to."""

from __future__ import annotations

import itertools
from dataclasses import replace
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.domain.errors import PolicyError
from inference.domain.governance import ALL, Role, Stance, Vote
from inference.domain.policy import Policy
from inference.domain.position import Account, Position
from inference.domain.signal import Direction
from inference.governance.briefing import Briefing, Model, Others, Record
from inference.governance.charter import Charter
from inference.governance.committee import convene, resolve
from inference.governance.federation import View, heard, read_views, write_view
from inference.governance.roles import (
    ROLES,
    audit,
    chief_executive,
    chief_investment_officer,
    chief_risk_officer,
    compliance,
)

CHARTER = Charter()
POLICY = Policy()
BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"
SOUND = Record(is_whole=True, unsynced=0, reproduced=True)
GOOD = Model(gated=True, is_poor=False, is_biased=False)


def account(equity: str = "10000", day: str = "10000") -> Account:
    return Account(equity=Decimal(equity), day_start_equity=Decimal(day), peak_equity=Decimal(day))


def briefing(**changes) -> Briefing:
    plain = Briefing(
        policy=POLICY,
        account=account(),
        positions={},
        in_flight={},
        volatility={BTC: Decimal("0.01"), ETH: Decimal("0.02")},
        regimes={BTC: "trend", ETH: "range"},
        real_money=False,
        record=SOUND,
        model=GOOD,
    )
    return replace(plain, **changes)


def others(**changes) -> Others:
    plain = Others(expected=4, heard=4, careful=0, exits_only=0, notional={}, equity=Decimal(40000))
    return replace(plain, **changes)


def position(symbol: str, notional: str) -> Position:
    return Position(
        symbol=symbol,
        direction=Direction.LONG,
        quantity=Decimal(notional),
        entry_price=Decimal(1),
        entry_time_ms=0,
        trade_id="t",
    )


def test_nothing_to_object_to():
    """Where all is well the stance is normal, the budget whole, and nothing is vetoed."""
    found = convene(briefing(), CHARTER, enforced=True)

    assert (found.stance, found.budget, found.vetoes) == (Stance.NORMAL, 1, {})
    assert [vote.role for vote in found.votes] == list(Role)


@pytest.mark.parametrize(
    ("changes", "stance"),
    [
        pytest.param({"account": account("9850")}, Stance.CAREFUL, id="half-of-the-days-limit"),
        pytest.param({"account": account("9851")}, Stance.NORMAL, id="less-than-half"),
        pytest.param({"account": account("0")}, Stance.EXITS_ONLY, id="nothing-left"),
        pytest.param({"model": None}, Stance.EXITS_ONLY, id="no-model"),
        pytest.param({"model": replace(GOOD, is_poor=True)}, Stance.CAREFUL, id="poor-model"),
        pytest.param({"model": replace(GOOD, is_biased=True)}, Stance.CAREFUL, id="biased-model"),
        pytest.param({"regimes": {BTC: "crash", ETH: "trend"}}, Stance.EXITS_ONLY, id="half-in-a-crash"),
        pytest.param({"regimes": {}}, Stance.NORMAL, id="no-regimes"),
        pytest.param({"others": others(heard=1)}, Stance.CAREFUL, id="no-quorum"),
        pytest.param({"others": others(heard=2)}, Stance.NORMAL, id="quorum"),
        pytest.param({"others": others(careful=2)}, Stance.NORMAL, id="half-is-careful"),
        pytest.param({"others": others(careful=2, exits_only=1)}, Stance.CAREFUL, id="most-are-careful"),
        pytest.param({"others": others(exits_only=3)}, Stance.EXITS_ONLY, id="most-take-exits-only"),
    ],
)
def test_chief_executive_sets_the_stance(changes, stance):
    """The stance follows the day's loss, the model, the market and the federation, and says why."""
    vote = chief_executive(briefing(**changes), CHARTER)

    assert vote.stance is stance
    assert bool(vote.because) is (stance is not Stance.NORMAL)


def test_risk_officer_shrinks_the_budget():
    """Whole up to a quarter of the day's limit, least at the limit's edge, none at it; no volatility, no entry."""
    budgets = [chief_risk_officer(briefing(account=account(equity)), CHARTER).budget for equity in ("9925", "9812.5")]
    edge = chief_risk_officer(briefing(account=account("9700.0001")), CHARTER).budget
    vote = chief_risk_officer(
        briefing(account=account("9700"), volatility={BTC: Decimal("NaN"), ETH: Decimal(0)}), CHARTER
    )

    assert budgets == [1, Decimal("0.625")]
    assert Decimal("0.25") < edge < Decimal("0.2501")
    assert vote.budget == 0
    assert set(vote.vetoes) == {BTC, ETH}


@given(st.decimals(min_value="0.1", max_value=20000, places=2), st.decimals(min_value="0.1", max_value=20000, places=2))
def test_the_budget_never_grows_with_the_loss(one, other):
    """Who has lost more ventures no more."""
    less, more = sorted((one, other))
    poor = chief_risk_officer(briefing(account=account(str(less))), CHARTER).budget
    rich = chief_risk_officer(briefing(account=account(str(more))), CHARTER).budget

    assert poor <= rich


def test_investment_officer_shares_out_by_inverse_volatility():
    """What moves half as much may carry twice as much; a symbol at its cap is not entered."""
    charter = Charter(spread=Decimal(1))
    free = chief_investment_officer(briefing(), charter)
    full = chief_investment_officer(briefing(positions={ETH: position(ETH, "6667")}), charter)

    assert free.caps[BTC] == pytest.approx(2 * free.caps[ETH])
    assert sum(free.caps.values()) == pytest.approx(Decimal(20000))
    assert free.vetoes == {}
    assert set(full.vetoes) == {ETH}
    assert "it carries 6667.00 of 6666.67" in full.vetoes[ETH]


def test_what_others_carry_counts():
    """The desk's part of a symbol that other workers use up is not there for this one."""
    charter = Charter(spread=Decimal(1))
    vote = chief_investment_officer(
        briefing(others=others(notional={ETH: Decimal(33300)}, equity=Decimal(40000))), charter
    )

    assert vote.caps[ETH] == pytest.approx(Decimal(100000) / 3 - 33300)
    assert vote.caps[BTC] == pytest.approx(Decimal(40000) / 3)


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=3),
        st.decimals(min_value="0.0001", max_value="0.5", places=4),
        min_size=1,
        max_size=8,
    )
)
def test_caps_never_exceed_the_exposure(volatility):
    """No symbol may carry more than the policy allows in all, and an even market shares evenly."""
    vote = chief_investment_officer(briefing(volatility=volatility), CHARTER)
    whole = POLICY.max_exposure * 10000

    assert all(0 < cap <= whole for cap in vote.caps.values())


@pytest.mark.parametrize(
    ("changes", "vetoed"),
    [
        pytest.param({"policy": Policy(denied_symbols=(BTC,))}, {BTC}, id="denied"),
        pytest.param({"policy": Policy(allowed_symbols=(ETH,))}, {BTC}, id="not-allowed"),
        pytest.param({"policy": Policy(denied_symbols=("BTC",))}, {BTC}, id="asset-denied"),
        pytest.param({"policy": Policy(allowed_symbols=("ETH",))}, {BTC}, id="asset-not-allowed"),
        pytest.param({"policy": Policy(allowed_symbols=("BTC", "ETH"))}, set(), id="assets-allowed"),
        pytest.param({"real_money": True, "model": None}, {ALL}, id="live-without-a-model"),
        pytest.param({"real_money": True, "model": replace(GOOD, gated=False)}, {ALL}, id="live-ungated"),
        pytest.param({"model": replace(GOOD, gated=False)}, set(), id="sandbox-ungated"),
        pytest.param({"in_flight": {BTC: Decimal(20001)}}, {ALL}, id="beyond-the-exposure"),
        pytest.param({"in_flight": {BTC: Decimal(20000)}}, set(), id="at-the-exposure"),
    ],
)
def test_compliance_holds_lists_and_limits(changes, vetoed):
    """A veto names what it is about."""
    assert set(compliance(briefing(**changes), CHARTER).vetoes) == vetoed


@pytest.mark.parametrize(
    ("record", "vetoed"),
    [
        pytest.param(replace(SOUND, is_whole=False), True, id="damaged"),
        pytest.param(replace(SOUND, unsynced=10_001), True, id="lagging"),
        pytest.param(replace(SOUND, reproduced=False), True, id="not-reproduced"),
        pytest.param(replace(SOUND, reproduced=None), False, id="nothing-to-reproduce"),
    ],
)
def test_audit_vetoes_what_cannot_be_accounted_for(record, vetoed):
    """What will not be found in the journal later is not done."""
    vote = audit(briefing(record=record), CHARTER)

    assert (ALL in vote.vetoes) is vetoed
    assert (vote.stance is Stance.EXITS_ONLY) is vetoed


votes = st.builds(
    Vote,
    role=st.sampled_from(Role),
    policy=st.sampled_from(["now", "before"]),
    stance=st.sampled_from(Stance),
    budget=st.decimals(min_value=0, max_value=1, places=2),
    caps=st.dictionaries(st.sampled_from([BTC, ETH]), st.decimals(min_value=0, max_value=9, places=1), max_size=2),
    vetoes=st.dictionaries(st.sampled_from([BTC, ETH, ALL]), st.just("why"), max_size=2),
)


@given(st.lists(votes, max_size=8), st.randoms(use_true_random=False))
def test_the_order_of_votes_changes_nothing(cast, random):
    """A resolution is of votes, not of their order."""
    shuffled = list(cast)
    random.shuffle(shuffled)

    assert resolve(cast, policy="now", enforced=True) == resolve(shuffled, policy="now", enforced=True)


@given(st.lists(votes, max_size=8))
def test_no_vote_is_outvoted_by_a_milder_one(cast):
    """The strictest counts in everything, and a role without a vote under the policy in force vetoes all."""
    found = resolve(cast, policy="now", enforced=True)
    counted = {vote.role for vote in cast if vote.policy == "now"}

    for vote in found.votes:
        assert found.stance.strictness >= vote.stance.strictness
        assert found.budget <= vote.budget
        assert set(vote.vetoes) <= set(found.vetoes)
        assert all(found.caps[symbol] <= cap for symbol, cap in vote.caps.items())
    if counted != set(Role):
        assert found.stance is Stance.EXITS_ONLY
        assert found.veto_of("ANY") is not None


def test_roles_decide_under_one_policy():
    """A vote that was cast under another policy is none: its role is silent, and that vetoes everything."""
    late = [
        ask(briefing(policy=Policy(leverage=2) if role is Role.AUDIT else POLICY), CHARTER)
        for role, ask in ROLES.items()
    ]
    found = resolve(late, policy=POLICY.fingerprint, enforced=True)

    assert found.stance is Stance.EXITS_ONLY
    assert found.vetoes == {ALL: "audit: no vote under the policy in force"}


def test_a_role_that_fails_is_silent():
    """A role whose numbers come to nothing closes the door, and the resolution names it."""

    def broken(_briefing, _charter):
        raise ZeroDivisionError("nothing to divide by")

    found = convene(briefing(), CHARTER, enforced=True, roles={**ROLES, Role.AUDIT: broken})

    assert found.budget == 0
    assert "audit: ZeroDivisionError" in found.vetoes[ALL]


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({"careful_loss": Decimal(0)}, id="no-share"),
        pytest.param({"least_budget": Decimal("NaN")}, id="no-number"),
        pytest.param({"full_budget_loss": Decimal(1)}, id="a-line-without-length"),
        pytest.param({"spread": Decimal("0.5")}, id="less-than-its-part"),
        pytest.param({"majority": Decimal(1)}, id="majority-of-more-than-all"),
        pytest.param({"unsynced": -1}, id="fewer-than-none"),
    ],
)
def test_charters_out_of_bounds_are_refused(given):
    """The refusal names the value."""
    with pytest.raises(PolicyError, match=next(iter(given))):
        Charter(**given)


@pytest.mark.parametrize(
    "given", [{"budget": Decimal(2)}, {"caps": {BTC: Decimal(-1)}}, {"caps": {BTC: Decimal("NaN")}}]
)
def test_votes_out_of_bounds_are_refused(given):
    """No vote asks for more than the policy, or for less than nothing."""
    with pytest.raises(ValueError, match=r"budget|cap"):
        Vote(**({"role": Role.AUDIT, "policy": "p", "caps": {}, "vetoes": {}} | given))


def view(worker: str, said_ms: int = 1000, **changes) -> View:
    return View(
        **(
            {
                "worker": worker,
                "said_ms": said_ms,
                "stance": Stance.NORMAL,
                "equity": Decimal(100),
                "notional": {BTC: Decimal(7)},
            }
            | changes
        )
    )


def test_views_are_exchanged_through_a_folder(tmp_path):
    """Each worker's newest view is read; what is no view is named and nothing else."""
    write_view(tmp_path, view("a"))
    write_view(tmp_path, view("a", 2000, equity=Decimal("0.1")))
    write_view(tmp_path, view("b"))
    (tmp_path / "c.json").write_bytes(b'{"worker": "c"')
    (tmp_path / "d.json").write_bytes(msgspec.json.encode(view("a", 9000)))
    (tmp_path / "e.json").write_bytes(msgspec.json.encode(view("e", notional={BTC: Decimal(-1)})))

    views, unread = read_views(tmp_path)

    assert views == [view("a", 2000, equity=Decimal("0.1")), view("b")]
    assert unread == ["c.json", "d.json", "e.json"]
    assert read_views(tmp_path / "none") == ([], [])


@given(
    st.lists(
        st.builds(
            view,
            st.sampled_from("abcx"),
            st.integers(0, 3000),
            stance=st.sampled_from(Stance),
            equity=st.decimals(min_value=0, max_value=9, places=1),
        ),
        max_size=8,
    )
)
def test_only_members_are_heard_and_each_once(views):
    """Strangers, oneself, the stale and those of the future are not counted, and no order matters."""
    found = heard(views, own="a", members="abc", now_ms=2000, fresh_ms=1000, ahead_ms=500)
    fresh = [one for one in views if one.worker in "bc" and 1000 <= one.said_ms <= 2500]

    assert (found.expected, found.heard) == (2, len({one.worker for one in fresh}))
    assert found.careful + found.exits_only <= found.heard
    assert found.notional == ({BTC: 7 * found.heard} if fresh else {})
    distinct = len({(one.worker, one.said_ms) for one in fresh}) == len(fresh)
    if distinct and len(views) <= 4:
        for order in itertools.permutations(views):
            assert heard(order, own="a", members="abc", now_ms=2000, fresh_ms=1000, ahead_ms=500) == found
