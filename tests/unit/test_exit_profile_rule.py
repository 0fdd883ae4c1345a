"""The policy rule `exit_profile`: what it may name, what is decided by it, and what a journal says of it."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from feature_store import terminal
from inference.decision import decide
from inference.domain.decision import Approved, DenyCode
from inference.domain.errors import PolicyError
from inference.domain.events import CandlesDecided, ExitObserved, TradePlanned
from inference.domain.exit_profile import CHALLENGE_100, DEFAULT, ExitProfile
from inference.domain.exit_state import CandleClosed, EmergencyCalled, Priced
from inference.domain.policy import BARRIERS, EntryStyle, Policy
from inference.execution.planning import trade_plan
from inference.journal.codec import chained, event_of
from inference.policy.values import policy_of, value_of_text
from inference.policy_commands import policy
from inference.supervision.followed_exits import FollowedExits
from inference.supervision.standing import Standing
from tests.worker_values import T0, make_candidate, make_snapshot

D = Decimal


def planned(rules: Policy, **changes):
    (decision,) = decide(make_snapshot(**changes), rules, T0)
    assert isinstance(decision, Approved)
    return trade_plan(
        decision, candle_close_ms=T0, now_ms=T0, style=EntryStyle.MARKET, patience_ms=0, arrival_price=None
    )


def entry_of(event):
    return chained(event, seq=1, timestamp_ms=T0, trace_id="t", previous="0" * 64)


def test_without_a_profile_no_word_of_one_is_written():
    """By default fingerprint, approval, plan and snapshot are written as before there were profiles."""
    assert Policy().exit_profile == BARRIERS
    assert "exit_profile" not in Policy().stated()
    plan = planned(Policy())
    assert plan.exits is UNSET
    event = CandlesDecided.of(make_snapshot(), Policy(), T0, decide(make_snapshot(), Policy(), T0))
    for text in (entry_of(TradePlanned(plan=plan)).text, entry_of(event).text):
        assert b"exit" not in bytes(text)


def test_a_profile_decides_the_stop_and_the_targets():
    """The stop is one R away, the plan's target the nearest, and the plan carries profile and facts."""
    plan = planned(Policy(exit_profile="CHALLENGE_100"))
    assert (plan.stop_price, plan.target_price) == (D("49705.0"), D("50305.0"))
    assert plan.exits is not UNSET
    assert plan.exits.profile == CHALLENGE_100
    assert (plan.exits.facts.reference_price, plan.exits.facts.planned_ms) == (D(50_005), T0)
    assert planned(Policy(exit_profile="DEFAULT")).target_price == D("50455.0")


def test_what_a_name_meant_is_recorded_with_the_decision():
    """A person's profile comes with the snapshot; without it the entry is refused, by its name."""
    mine = ExitProfile(name="PATIENT", stop_atr=D(2), targets=CHALLENGE_100.targets)
    rules = Policy(exit_profile="PATIENT")
    assert planned(rules, exits=mine).stop_price == D("49805.0")
    for snapshot in (make_snapshot(), make_snapshot(exits=DEFAULT)):
        (denied,) = decide(snapshot, rules, T0)
        assert not isinstance(denied, Approved)
        assert (denied.code, denied.context["exit_profile"]) == (DenyCode.STOP_UNUSABLE, "PATIENT")


@pytest.mark.parametrize("atr", [0.0, -1.0, 1e9])
def test_a_range_that_protects_nothing_is_refused(atr):
    """Whatever the range is, an entry without a usable stop is denied, not raised."""
    (denied,) = decide(make_snapshot((make_candidate(atr=atr),)), Policy(exit_profile="DEFAULT"), T0)
    assert not isinstance(denied, Approved)
    assert denied.code is DenyCode.STOP_UNUSABLE


@pytest.mark.parametrize(
    "event",
    [
        TradePlanned(plan=planned(Policy(exit_profile="CHALLENGE_100"))),
        ExitObserved(trade_id="a", seen=CandleClosed(close_ms=T0, close=D("1.5"))),
        ExitObserved(trade_id="a", seen=CandleClosed(close_ms=T0, close=None)),
        ExitObserved(trade_id="a", seen=Priced(at_ms=T0, price=D(2), liquidation_price=D(1))),
        ExitObserved(trade_id="a", seen=EmergencyCalled(at_ms=T0)),
    ],
)
def test_events_of_exits_come_back_as_they_were(event):
    """What is journaled of a profile is read back as the same value."""
    assert event_of(entry_of(event)) == event


@pytest.mark.parametrize("text", ["", "A B", "1A", "a-b", "x" * 41, "ÄB", "none "])
def test_what_is_no_name_is_refused(text):
    """A rule that cannot name anything is refused with its name; one that is written small is not."""
    if text == "none ":
        assert value_of_text("exit_profile", " challenge_100 ") == "CHALLENGE_100"
        return
    with pytest.raises(PolicyError, match="exit_profile"):
        policy_of({"exit_profile": text})


@given(st.one_of(st.integers(), st.booleans(), st.none(), st.lists(st.text()), st.floats()))
def test_another_kind_of_value_is_no_name(value):
    """Whatever a document holds there that is no text, the rule is refused and named."""
    with pytest.raises(PolicyError, match="exit_profile"):
        policy_of({"exit_profile": value})


def test_a_fee_that_pays_needs_the_barriers():
    """A stop that moves to where fees are paid needs fees; the message says so."""
    with pytest.raises(PolicyError, match="taker_fee"):
        Policy(exit_profile="DEFAULT", taker_fee=D("-0.001"))


def test_qtctl_refuses_a_profile_that_there_is_not(tmp_path, monkeypatch, capsys):
    """A name that nothing has, a file that cannot be used and one without targets make no version; a good one does."""
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path))

    def run(*arguments):
        status = terminal.run(policy, arguments)
        captured = capsys.readouterr()
        return status, captured.out + captured.err

    status, words = run("set", "exit_profile=chalenge_100", "--reason", "r")
    assert status == 2
    assert "did you mean CHALLENGE_100" in words
    (tmp_path / "rules.toml").write_text('exit_profile = "NOBODYS"\n')
    assert "NOBODYS" in run("validate", str(tmp_path / "rules.toml"))[1]
    (tmp_path / "policy").mkdir(exist_ok=True)
    file = tmp_path / "policy" / "exits.toml"
    file.write_text("[profiles.PATIENT]\nstop_atr = 4\n")
    assert "has no target" in run("set", "exit_profile=patient", "--reason", "r")[1]
    file.write_text("[profiles.PATIENT]\nstop_atr = 4\ntargets = [{ r = 1, share = 1 }]\n")
    assert run("set", "exit_profile=patient", "--reason", "r")[0] == 0
    assert "exit_profile = PATIENT" in run("show", "--section", "exits")[1]
    listed = run("exits")[1]
    assert all(name in listed for name in ("BARRIERS", "DEFAULT", "CHALLENGE_100", "PATIENT", "policy/exits.toml"))
    assert '"stop_atr"' in run("exits", "--json")[1]
    file.write_text("[profiles.BARRIERS]\n")
    assert "built in" in run("exits")[1]


def test_a_profile_that_cannot_be_followed_holds_entries_and_is_told_once():
    """A name without a profile, or a place that carries none out, objects; the barriers never do."""
    standing, told = Standing(), []
    exits = FollowedExits(standing, note=lambda kind, detail: told.append((kind, detail)), unsupported="no way")
    exits.follow(Policy())
    assert (exits.profile, told) == (UNSET, [])
    for rules in (Policy(exit_profile="MINE"), Policy(exit_profile="DEFAULT"), Policy(exit_profile="DEFAULT")):
        exits.follow(rules)
        assert exits.profile is UNSET
        assert rules.exit_profile in standing.reason
    assert [kind for kind, _ in told] == ["policy.exit_profile_refused"]
    exits.follow(Policy())
    assert standing.reason == ""


def test_a_file_that_is_edited_changes_nothing_before_the_next_version():
    """What a name means is read with a version of the policy, and told; the next version reads it again."""
    found = {"MINE": ExitProfile(name="MINE", targets=CHALLENGE_100.targets)}
    told, rules = [], Policy(exit_profile="MINE")
    exits = FollowedExits(Standing(), note=lambda kind, detail: told.append(detail), read=lambda: found)
    exits.follow(rules)
    found = {"MINE": ExitProfile(name="MINE", targets=CHALLENGE_100.targets, stop_atr=D(5))}
    exits.follow(rules)
    assert (exits.profile.stop_atr, len(told)) == (D(3), 1)
    exits.follow(Policy(exit_profile="MINE", leverage=2))
    assert (exits.profile.stop_atr, len(told)) == (D(5), 2)
