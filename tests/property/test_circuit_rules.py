"""Whatever fails and whenever, a circuit keeps its promises."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from inference.exchange.circuit import Circuit, CircuitRules, CircuitState

RULES = CircuitRules(failures=3, first_pause_s=1.0, longest_pause_s=8.0, try_within_s=5.0)


class CircuitLife(RuleBasedStateMachine):
    """Requests pass, end well or badly or never, while time goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.circuit = Circuit()
        self.now = 0.0
        self.under_way = 0
        self.failures_in_a_row = 0
        self.tries_at: float | None = None

    @rule(seconds=st.floats(0, 20))
    def wait(self, seconds):
        """Time goes on."""
        self.now += seconds

    @rule()
    def ask(self):
        """A request that is not urgent comes by."""
        if self.circuit.wait_s(self.now) > 0:
            return
        before = self.circuit
        self.circuit = self.circuit.passing(self.now, RULES)
        self.under_way += 1
        if before.state is not CircuitState.CLOSED:
            # One try at a time: the next passes only once this one is answered or lost.
            assert self.circuit.wait_s(self.now) == pytest.approx(RULES.try_within_s)

    @precondition(lambda self: self.under_way)
    @rule()
    def answer(self):
        """One under way is answered."""
        self.under_way -= 1
        self.failures_in_a_row = 0
        self.circuit = self.circuit.succeeded()
        assert self.circuit == Circuit()

    @precondition(lambda self: self.under_way)
    @rule(jitter=st.floats(0.8, 1.2))
    def fail(self, jitter):
        """One under way fails."""
        self.under_way -= 1
        self.failures_in_a_row += 1
        before = self.circuit
        self.circuit = self.circuit.failed(self.now, RULES, jitter=jitter)
        if before.state is CircuitState.OPEN:
            assert self.circuit == before
        if before.state is CircuitState.HALF_OPEN:
            assert self.circuit.state is CircuitState.OPEN

    @rule()
    def give_up(self):
        """A try that was never made leaves room for another at once."""
        self.circuit = self.circuit.given_up(self.now)

    @invariant()
    def stays_closed_below_the_threshold(self):
        """Fewer failures in a row than the rules say never open it."""
        if self.failures_in_a_row < RULES.failures and self.circuit.openings == 0:
            assert self.circuit.state is CircuitState.CLOSED

    @invariant()
    def never_shut_for_ever(self):
        """At any moment the longest wait is bounded, so that every endpoint recovers by itself."""
        longest = max(RULES.longest_pause_s * 1.2, RULES.try_within_s)
        assert 0 <= self.circuit.wait_s(self.now) <= longest + 1e-9
        assert self.circuit.wait_s(self.now + longest + 1) == 0


TestCircuitLife = CircuitLife.TestCase


@pytest.mark.parametrize("failures", [1, 2, 3, 5])
def test_opens_at_the_threshold_and_not_before(failures):
    """As many failures in a row as the rules say open it."""
    circuit = Circuit()
    for _ in range(failures):
        circuit = circuit.failed(0.0, RULES)

    assert (circuit.state is CircuitState.OPEN) == (failures >= RULES.failures)


def test_pauses_double_and_end():
    """Each try that fails doubles the pause, up to the longest, and one answer forgets it all."""
    circuit, now, pauses = Circuit(), 0.0, []
    for _ in range(RULES.failures):
        circuit = circuit.failed(now, RULES)
    for _ in range(6):
        pauses.append(circuit.wait_s(now))
        now += circuit.wait_s(now)
        circuit = circuit.passing(now, RULES).failed(now, RULES)

    assert pauses == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    assert circuit.passing(now + 8.0, RULES).succeeded() == Circuit()


@given(st.integers(0, 10_000))
def test_long_outages_do_not_overflow(openings):
    """However often it opened, a pause is a number within bounds."""
    circuit = Circuit(state=CircuitState.HALF_OPEN, failures=9, openings=openings, until=0.0)

    assert 0 < circuit.failed(0.0, RULES).wait_s(0.0) <= RULES.longest_pause_s
