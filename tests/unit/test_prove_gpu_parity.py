"""What the proof of two devices says: nothing without a GPU, and of each member whether both learned the same."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.prove import __main__ as proving
from infra.prove.gpu_parity import (
    LOSS_TOLERANCE,
    NOTHING,
    TOLERANCE,
    Answers,
    Compared,
    apart,
    compare,
    gpu_members,
    judged,
    nothing_shown,
)


def compared(**changes: float) -> Compared:
    """Return a member that agrees on both devices, changed as the test needs it."""
    plain = {"apart": 0.01, "seeds_apart": 0.05, "loss_more": 0.0, "cpu_s": 9.0, "gpu_s": 3.0}
    return Compared(name="nhits", **(plain | changes))


def test_without_a_gpu_nothing_is_claimed(monkeypatch, capsys):
    """The last line says that nothing was shown, does not call it held, and the command succeeds."""
    monkeypatch.setattr(proving, "results", lambda *_: iter([(nothing_shown(), 0.0)]))
    monkeypatch.setattr(sys, "argv", ["infra.prove", "gpu-parity"])

    assert proving.main() == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"no claim prove-gpu-parity: {NOTHING}")


def test_every_member_that_a_gpu_trains_is_held():
    """Nets are; trees and straight lines, which stay on the CPU, are not."""
    assert set(gpu_members()) == {"dlinear", "nhits", "patchtst"}


@pytest.mark.parametrize(
    ("changes", "holds"),
    [
        pytest.param({}, True, id="alike"),
        pytest.param({"apart": TOLERANCE}, True, id="at-the-tolerance"),
        pytest.param({"apart": 2 * TOLERANCE}, False, id="too-far-apart"),
        pytest.param({"apart": 2 * TOLERANCE, "seeds_apart": 3 * TOLERANCE}, True, id="nearer-than-two-seeds"),
        pytest.param({"loss_more": 2 * LOSS_TOLERANCE}, False, id="learned-less"),
        pytest.param({"loss_more": -1.0}, True, id="learned-more"),
        pytest.param({"apart": float("nan")}, False, id="not-a-number"),
        pytest.param({"loss_more": float("nan")}, False, id="no-loss"),
        pytest.param({"apart": float("inf"), "seeds_apart": float("inf")}, False, id="nothing-was-answered"),
    ],
)
def test_what_is_held(changes, holds):
    """Two devices have to be as near as two seeds, or within the tolerance; what is undefined never holds."""
    proof = judged([compared(), compared(**changes)], "a GPU", "small")

    assert proof.holds is holds
    assert proof.shows


def test_a_member_is_held_against_the_same_seed_and_beside_another():
    """The GPU trains with the seed of the CPU, and the yardstick with the next one."""
    asked = []

    def answer(name, where, seed):
        asked.append((where, seed))
        return Answers(np.array([0.0, 1.0]) + (where == "gpu"), 1.0 - 0.1 * (where == "gpu"), 1.0)

    found = compare("nhits", answer)

    assert asked == [("cpu", 7), ("gpu", 7), ("cpu", 8)]
    assert (found.apart, found.seeds_apart) == (2.0, 0.0)
    assert found.loss_more == pytest.approx(-0.1)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20), st.floats(1e-3, 1e3))
def test_being_apart_has_no_unit(values, unit):
    """Nothing is apart from itself, and the measure does not change with the unit; without spread it is undefined."""
    one = np.array(values)
    other = one[::-1]
    if one.std() < 1e-6:
        return

    assert apart(one, one) == 0
    assert apart(one * unit, other * unit) == pytest.approx(apart(one, other))


def test_answers_that_are_no_numbers_are_infinitely_apart():
    """A net that learned nothing, or answers with NaN, agrees with nobody."""
    assert apart(np.zeros(3), np.zeros(3)) == float("inf")
    assert apart(np.array([1.0, 2.0]), np.array([1.0, np.nan])) == float("inf")
