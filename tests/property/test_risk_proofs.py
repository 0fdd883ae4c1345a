"""The proofs of risk see what they look for: a loosened limit, an executor that is not told, a market that ruins."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from decimal import Decimal

import pytest

from inference.decision import decide
from inference.domain.decision import Approved
from inference.domain.events import Noted, OrderIntended
from inference.domain.order import OrderIntent, OrderType, Purpose, Side
from inference.supervision.emergency_record import RESET, STOPPED
from infra.prove import limits, scenarios
from infra.prove.emergency_case import entered_after_stop
from infra.prove.emergency_faults import FAULTS, chosen
from infra.prove.limits_checks import checked
from infra.prove.limits_orders import one_life
from infra.prove.limits_world import World
from infra.prove.scenario_walk import ScenarioWalk, Seen


def test_a_hundred_lives_break_nothing():
    """Whatever a seed brings, no limit is broken and no exit blocked."""
    assert [one for seed in range(100) for world in (World(seed),) for _ in range(20) for one in world.step()] == []


@pytest.mark.parametrize(
    "name",
    [
        "exposure", "cluster", "beta", "liquidation", "breaker open", "governor's companions", "entries of an hour",
        "loss cooldown", "outside the windows", "not on the list", "Kelly", "bias", "committee's budget",
    ],
)  # fmt: skip
def test_a_loosened_limit_is_seen(name):
    """A chain that keeps to another limit than the policy's is found out."""
    assert limits.is_found(name)


def test_every_rule_that_is_checked_is_loosened_once():
    """But the venue's steps, and one position a symbol, which no rule of a policy loosens."""
    names: set[str] = set()

    def see(snapshot, policy):
        scene = world.scene(snapshot)
        approved = [one for one in decide(snapshot, policy, world.now_ms) if isinstance(one, Approved)]
        names.update(name for name, _, _ in checked(scene, approved) if approved)
        return snapshot, policy

    for seed in range(40):
        world = World(seed, see=see)
        for _ in range(20):
            world.step()

    assert names - set(limits._LOOSENED) == {"step", "tick", "one position a symbol"}
    assert set(limits._LOOSENED) <= names


@pytest.mark.parametrize("seed", range(8))
def test_a_barred_executor_sends_no_entry_and_leaves_everything(seed):
    """Through faults and deaths, entries stay barred and exits pass."""
    assert one_life(seed).wrong == []


def test_an_executor_that_is_not_told_is_seen():
    """Who looks would notice."""
    assert limits.one_life_is_found()


@pytest.mark.parametrize("scenario", scenarios.SCENARIOS[:8], ids=lambda one: one.name)
def test_a_scenario_ends_as_stated(scenario):
    """State and loss are those that are stated, on a market of one seed."""
    story = scenario.change(scenarios._synthetic(scenario.symbols, 5))
    seen = ScenarioWalk(story, scenario.policy, balance=scenario.balance).run()

    assert scenarios._judged(scenario, seen) == []


def test_a_loss_beyond_the_stated_one_is_seen():
    """The judge of scenarios tells what is not as stated."""
    scenario = replace(scenarios.SCENARIOS[2], most_loss=Decimal("0.001"), states=("HALTED by MANUAL",))
    story = scenario.change(scenarios._synthetic(scenario.symbols, 5))
    wrong = scenarios._judged(scenario, ScenarioWalk(story, scenario.policy, balance=scenario.balance).run())

    assert len(wrong) == 2


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("scenario", scenarios.SCENARIOS, ids=lambda one: one.name)
def test_a_scenario_accepts_no_state_that_it_does_not_state(scenario, recorded):
    """At most two, which the market's past tells apart; whoever may go on is never also right to be stopped."""
    states = scenario.right_states(recorded=recorded)
    seen = Seen(
        start_equity=Decimal(1), least_equity=Decimal(1), entries=1, denied_last=Counter({"WEEKLY_DRAWDOWN": 1})
    )
    wrong = scenarios._judged(replace(scenario, check=lambda _: []), seen, recorded=recorded)

    assert 1 <= len(states) <= 2
    assert not {"ACTIVE", "HALTED by DRAWDOWN"} <= set(states)
    assert wrong == [f"ended ACTIVE, held by WEEKLY_DRAWDOWN, not {' or '.join(states)}"]


@pytest.mark.parametrize("name", ["gap of 10 %", "100 positions, crash"])
def test_what_costs_more_than_a_day_may_is_held_back_by_the_day(name):
    """One state: the wall is not reached, and nobody goes on as if nothing had been lost."""
    (scenario,) = (one for one in scenarios.SCENARIOS if one.name == name)

    assert {scenario.right_states(recorded=one) for one in (False, True)} == {("ACTIVE, held by DAILY_DRAWDOWN",)}


def test_a_position_without_a_stop_is_seen():
    """A walk whose venue loses its stops is found out, whatever state it ends in."""
    scenario = scenarios.SCENARIOS[0]
    walk = ScenarioWalk(scenarios._synthetic(scenario.symbols, 5), scenario.policy, balance=scenario.balance)
    enter = walk._execution.enter

    def loses_stops(approved, *, now_ms):
        enter(approved, now_ms=now_ms)
        for algo in walk._exchange.open_algos(approved.symbol):
            walk._exchange.cancel_algo(client_algo_id=algo.client_algo_id, now_ms=now_ms)

    walk._execution.enter = loses_stops
    seen = walk.run()

    assert seen.unprotected > 0
    assert any("without a stop" in one for one in scenarios._judged(scenario, seen))


def test_every_row_of_faults_has_a_form():
    """23 rows, each with at least one form, and one of each where time is short."""
    assert {one.number for one in FAULTS} == set(range(1, 24))
    assert [one.number for one in chosen(every_form=False)] == list(range(1, 24))
    assert chosen(every_form=True) == FAULTS


def test_an_entry_after_a_stop_is_seen():
    """By the journal's order: before a stop and after its reset entries are well, between them they are not."""
    stop = Noted(event_type=STOPPED, detail={"key": "1"})
    reset = Noted(event_type=RESET, detail={"stops": "1"})

    def sent(key: str, purpose: Purpose = Purpose.ENTRY) -> OrderIntended:
        intent = OrderIntent(
            client_order_id=key, trade_id="t", trace_id="t", symbol="A", side=Side.BUY,
            order_type=OrderType.MARKET, purpose=purpose, quantity=Decimal(1),
        )  # fmt: skip
        return OrderIntended(intent=intent)

    events = [sent("a"), stop, sent("b"), sent("x", Purpose.EXIT), reset, sent("c")]

    assert entered_after_stop(events) == ["b"]
