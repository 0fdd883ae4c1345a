from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from infra.prove import stateful
from infra.prove.proof import Size
from infra.prove.stateful_machine import Trading

Trading.TestCase.settings = settings(
    max_examples=12, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestTrading = Trading.TestCase


def test_the_proof_counts_its_steps_and_tells_what_broke(monkeypatch):
    """A run that breaks an invariant says which, at which step; one that breaks none says how far it came."""
    made, seen, failure = stateful._run(0, 30)
    assert made >= 30
    assert failure == ""
    assert seen["processes killed"] > 0

    def broken(self):
        raise AssertionError("belief and venue differ")

    monkeypatch.setattr(Trading, "check_belief", broken)
    monkeypatch.setattr(Trading, "steps", 0)
    assert "belief and venue differ" in stateful._run(0, 10)[2]
    assert stateful.STEPS[Size.CI] >= 20_000


@pytest.mark.parametrize("seldom", stateful._TRIED)
def test_a_run_in_which_something_was_not_tried_proves_nothing_of_it(seldom):
    """Steps without orders, orders that ended partly filled, faults or kills are said to lack them."""
    enough = {what: 20_000 // often for what, often in stateful._TRIED.items()}

    assert stateful.untried(20_000, enough) == []
    assert stateful.untried(20_000, enough | {seldom: enough[seldom] - 1}) == [seldom]
    assert "orders filled in part" in stateful.untried(20_000, {})
