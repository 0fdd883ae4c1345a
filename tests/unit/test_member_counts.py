"""What is counted of each member: its answers, those that are no numbers, its agreement with the vote, its time."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.features.definition import fingerprint
from inference.bootstrap.reporting import member_status
from inference.models.bundle import load_bundle
from inference.models.ensemble import EnsembleOutput
from inference.models.timed_members import MemberTimes
from inference.supervision.member_counts import ENSEMBLE, MemberCounts, answers_of
from infra.stack.overview import members_told
from tests.worker_bundle import make_bundle

NAN = float("nan")
returns = st.lists(st.sampled_from([-0.02, -0.0, 0.0, 0.01, NAN, float("inf")]), min_size=5, max_size=5)


def output(expected: list[float], **members: list[float]) -> EnsembleOutput:
    return EnsembleOutput(
        expected_return=np.asarray(expected),
        probability_up=np.full(len(expected), 0.5),
        members={name: np.asarray(values) for name, values in members.items()},
        consensus=np.zeros(len(expected), np.int64),
    )


def test_answers_are_told_apart():
    """A number counts as a prediction; it agrees where its sign is that of the vote, which may have none."""
    found = answers_of(output([0.01, -0.01, NAN, 0.02], trees=[0.02, 0.01, 0.5, 0.01], net=[NAN, -0.1, NAN, -0.1]))

    assert {name: (one.predictions, one.not_finite, one.voted, one.agreed) for name, one in found.items()} == {
        "trees": (4, 0, 3, 2),
        "net": (2, 2, 2, 1),
        ENSEMBLE: (3, 1, 3, 3),
    }


@given(returns, returns)
def test_every_row_is_counted_once(expected, values):
    """Predictions and what is none add up to the rows, and nobody agrees more often than there was a vote."""
    for one in answers_of(output(expected, trees=values)).values():
        assert one.predictions + one.not_finite == 5
        assert one.agreed <= one.voted <= one.predictions


def test_counts_go_on_with_the_next_model():
    """Sums are over all models since the start, and a member that has left keeps its own."""
    counts = MemberCounts()
    counts.add(answers_of(output([0.01, 0.02], trees=[0.01, NAN], net=[0.1, -0.1])), {"trees": 0.002, ENSEMBLE: 0.01})
    counts.add(answers_of(output([0.01, 0.02], trees=[0.01, 0.02])), {"trees": 0.004})
    shown = member_status(counts)
    told = members_told(msgspec.to_builtins(shown)).splitlines()

    assert (shown["trees"].predictions, shown["trees"].not_finite, shown["net"].predictions) == (3, 1, 2)
    assert shown["trees"].seconds == pytest.approx(0.006)
    assert told[0] == "trees: 3 predictions, 1 not finite, 100% with the vote, 4.0 ms a candle"
    assert told[1] == "net: 2 predictions, 50% with the vote"
    assert members_told({}) == ""


def test_measuring_changes_no_answer(tmp_path):
    """A bundle whose members are timed says the same to the bit, and each member took what the clock says."""
    path = make_bundle(tmp_path / "bundle")
    plain, timed = (load_bundle(path, expected_fingerprint=fingerprint()) for _ in range(2))
    ticks = iter(range(1000))
    times = MemberTimes(timed, lambda: float(next(ticks)))
    manifest = plain.manifest
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(3, len(manifest.model_inputs)))
    windows = rng.normal(size=(3, manifest.window, len(manifest.model_inputs)))
    moves = rng.normal(size=(3, manifest.window))
    before, after = (one.score(inputs, windows, moves) for one in (plain, timed))

    assert np.array_equal(before.expected_return, after.expected_return, equal_nan=True)
    assert np.array_equal(before.probability_up, after.probability_up)
    assert times.take() == dict.fromkeys(before.members, 1.0)
    assert times.take() == {}
