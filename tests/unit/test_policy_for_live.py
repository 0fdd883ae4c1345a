"""Real money is not begun with, nor entered further, by a policy that leaves a guard unset or is above a ceiling."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.bootstrap.policy_parts import Seed, StartedPolicy, seed_of
from inference.domain.decision import TradingState
from inference.domain.errors import PolicyError
from inference.domain.policy import Policy
from inference.policy.live import CEILINGS, NEEDS, unfit_for_live
from inference.policy.profiles import PROFILES
from inference.policy.store import PolicyStore
from inference.policy.versions import Source
from inference.policy.watch import PolicyWatch
from inference.settings import Mode, load_settings
from inference.supervision.followed_policy import FollowedPolicy
from inference.supervision.standing import Standing

FIT = PROFILES["cautious"].policy
UNFIT = {
    "governor_max_volatility": {"governor_max_volatility": None},
    "governor_drawdown_share": {"governor_drawdown_share": None},
    "governor_max_companions": {"governor_max_companions": None, "max_correlated_exposure": None},
    "breaker_losses": {"breaker_losses": None, "breaker_loss_share": None, "breaker_errors": None},
    "leverage": {"leverage": 11},
    "max_portfolio_heat": {"max_portfolio_heat": Decimal("0.21")},
    "risk_per_trade": {
        "risk_per_trade": Decimal("0.015"),
        "max_size_multiplier": Decimal("1.5"),
        "max_risk_per_trade": Decimal("0.05"),
    },
}
JUST_FIT = {
    "governor_max_companions": {"governor_max_companions": 0, "max_correlated_exposure": None},
    "breaker_loss_share": {"breaker_losses": None, "breaker_loss_share": Decimal("0.05")},
    "breaker_errors": {"breaker_losses": None, "breaker_errors": 5},
    "leverage": {"leverage": 10},
    "max_portfolio_heat": {"max_portfolio_heat": Decimal("0.20")},
    "risk_per_trade": {"risk_per_trade": Decimal("0.02"), "max_risk_per_trade": Decimal("0.02")},
    # What confidence may make of it is capped.
    "max_risk_per_trade": {
        "risk_per_trade": Decimal("0.02"),
        "max_size_multiplier": Decimal("1.5"),
        "max_risk_per_trade": Decimal("0.02"),
    },
}


@pytest.fixture
def live(tmp_path, monkeypatch):
    """Return the settings of a live worker of an empty home."""
    for name, value in {"MODE": "live", "VENUE": "binanceusdm", "API_KEY": "k", "API_SECRET": "s"}.items():
        monkeypatch.setenv(f"QT_{name}", value)
    return load_settings(home=tmp_path)


def seed(policy: Policy) -> Seed:
    return Seed(policy=policy, words="a test", is_asked=True)


def test_every_need_and_ceiling_is_tried_here():
    """A guard or a ceiling that is added needs a case of its own."""
    assert {one.rules[0] for one in NEEDS} | {one.name for one in CEILINGS} == set(UNFIT)


@pytest.mark.parametrize("name", UNFIT)
def test_a_start_with_real_money_names_what_is_unset_or_too_high(live, name):
    """The message names the rule; nothing is made of the seed, so that the next start may name another."""
    policy = replace(FIT, **UNFIT[name])
    with pytest.raises(PolicyError, match=rf"QT_MODE=live does not start by this policy: {name} .*QT_POLICY_PROFILE"):
        StartedPolicy(live, seed(policy))

    assert unfit_for_live(policy).count(";") == unfit_for_live(policy).count("; for example")
    assert not PolicyStore(live.policy_folder, now_ms=lambda: 0).exists


@pytest.mark.parametrize("name", JUST_FIT)
def test_what_lies_at_a_ceiling_or_has_one_of_the_numbers_trades(live, name):
    """Of guards that stand for each other one will do, and the most is allowed."""
    policy = replace(FIT, **JUST_FIT[name])

    assert unfit_for_live(policy) == ""
    assert StartedPolicy(live, seed(policy)).policy == policy


@pytest.mark.parametrize(("name", "is_fit"), [("default", False), ("source", False), ("cautious", True)])
def test_of_the_profiles_only_the_cautious_one_trades_real_money(live, monkeypatch, name, is_fit):
    """The default leaves guards unset, and that of the source documents is above every ceiling besides."""
    monkeypatch.setenv("QT_POLICY_PROFILE", name)
    settings = load_settings(home=live.home)
    if is_fit:
        assert StartedPolicy(settings, seed_of(settings, None)).policy == FIT
        return
    with pytest.raises(PolicyError) as refused:
        StartedPolicy(settings, seed_of(settings, None))
    named = {one for one in UNFIT if f"{one} is" in str(refused.value) or f"{one} or" in str(refused.value)}
    unset = {"governor_max_volatility", "governor_drawdown_share", "breaker_losses"}
    assert named == (
        unset | {"governor_max_companions"}
        if name == "default"
        else unset | {"leverage", "max_portfolio_heat", "risk_per_trade"}
    )


def test_a_store_that_is_unfit_is_told_how_to_be_changed(live):
    """Its version is in force, whatever the seed says: the message tells of `qtctl policy set`."""
    store = PolicyStore(live.policy_folder, now_ms=lambda: 0)
    store.append(Policy(), expected=0, author="anna", reason="a test", source=Source.SET)
    with pytest.raises(PolicyError, match="qtctl policy set"):
        StartedPolicy(live, seed(FIT))
    store.append(FIT, expected=1, author="anna", reason="a test", source=Source.SET)

    assert StartedPolicy(live, seed(FIT)).policy == FIT


def test_a_worker_with_open_trades_starts_and_holds_entries(live):
    """Whose position is open is guarded, by whatever policy: it starts, enters nothing, and says why."""
    started, notes, standing = StartedPolicy(live, seed(Policy()), guards=True), [], Standing()
    policies = FollowedPolicy(started.watch, standing, note=lambda *one: notes.append(one), as_live=True)
    policies.take(started.policy)

    assert standing.trading_state is TradingState.REDUCING
    assert [kind for kind, _ in notes] == ["policy.unfit_for_live"]


def test_the_test_network_asks_for_what_real_money_asks_for(live):
    """Who goes live next has filled the rules in already: the default does not start there either."""
    tested = live.model_copy(update={"mode": Mode.TESTNET})
    with pytest.raises(PolicyError, match="QT_MODE=testnet does not start by this policy"):
        StartedPolicy(tested, seed(Policy()))

    assert StartedPolicy(tested, seed(FIT)).policy == FIT


def test_the_sandbox_asks_for_nothing(tmp_path):
    """Where no money is real, the default trades."""
    settings = load_settings(home=tmp_path, venue_url="http://127.0.0.1:1")

    assert StartedPolicy(settings, seed(PROFILES["source"].policy)).policy.leverage == 30


@pytest.mark.parametrize("name", UNFIT)
@pytest.mark.parametrize("real_money", [True, False])
def test_an_update_that_is_unfit_holds_entries_until_another_is_fit(live, name, real_money):
    """It is in force, so that exits go by it; entries wait with the rule's name, and both ends are told once."""
    store, notes, standing = PolicyStore(live.policy_folder, now_ms=lambda: 0), [], Standing()
    store.append(FIT, expected=0, author="anna", reason="a test", source=Source.SET)
    watch = PolicyWatch(store, store.newest())
    policies = FollowedPolicy(watch, standing, note=lambda *one: notes.append(one), as_live=real_money)
    assert policies.take(FIT) is None
    bad = replace(FIT, **UNFIT[name])
    store.append(bad, expected=1, author="anna", reason="a test", source=Source.SET)
    taken = [policies.take(FIT), policies.take(bad), policies.take(bad)]

    assert taken == [bad, None, None]
    assert standing.trading_state is (TradingState.REDUCING if real_money else TradingState.ACTIVE)
    assert (f"{name} " in standing.reason) is real_money
    store.append(FIT, expected=2, author="anna", reason="a test", source=Source.SET)
    assert policies.take(bad) == FIT
    assert standing.trading_state is TradingState.ACTIVE
    told = [kind for kind, _ in notes]
    held = ["policy.unfit_for_live", "policy.updated", "policy.fit_for_live", "policy.updated"]
    assert told == (held if real_money else ["policy.updated"] * 2)


@given(
    st.decimals("0.001", "0.05", places=4), st.decimals("1", "1.5", places=2), st.decimals("0.001", "0.05", places=4)
)
def test_the_risk_that_is_held_against_the_ceiling_is_the_most_that_sizing_makes(base, factor, cap):
    """No choice of base, factor and cap gets more than 2 % of equity past it, and none of less is refused."""
    if base > cap:
        base, cap = cap, base
    heat = max(FIT.max_portfolio_heat, base)
    policy = replace(
        FIT, risk_per_trade=base, max_size_multiplier=factor, max_risk_per_trade=cap, max_portfolio_heat=heat
    )

    assert ("risk_per_trade" in unfit_for_live(policy)) is (min(base * factor, cap) > Decimal("0.02"))
