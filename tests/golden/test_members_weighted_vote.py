"""The source system's worked example of a weighted vote (SPEC ML-018)."""

from __future__ import annotations

import numpy as np
import pytest

from feature_store.errors import BadInputError
from flows.training.members.catalogue import spec
from inference.models.ensemble import weighted_vote

SCORES = {"xgboost": 0.75, "lightgbm": 0.82, "nhits": 0.88, "patchtst": 0.70}
FIXED_WEIGHTS = {name: spec(name).share for name in SCORES}


def test_weighted_vote_reproduces_the_worked_example():
    """0.75, 0.82, 0.88 and 0.70 at 25, 25, 30 and 20 % give 0.7965, which rounds to a LONG at 0.80."""
    vote = float(weighted_vote(SCORES, FIXED_WEIGHTS))

    assert vote == pytest.approx(0.7965, abs=1e-12)
    assert round(vote, 2) == 0.80
    parts = {name: SCORES[name] * FIXED_WEIGHTS[name] for name in SCORES}
    assert parts == pytest.approx({"xgboost": 0.1875, "lightgbm": 0.2050, "nhits": 0.2640, "patchtst": 0.1400})


def test_weighted_vote_is_taken_row_by_row():
    """Arrays of scores vote as single scores do."""
    scores = {name: np.array([value, -value]) for name, value in SCORES.items()}

    np.testing.assert_allclose(weighted_vote(scores, FIXED_WEIGHTS), [0.7965, -0.7965])


def test_a_vote_without_a_weight_is_refused():
    """A member that votes without a weight, or has a weight without a vote, is an error and never a zero."""
    with pytest.raises(BadInputError, match="must name the same members"):
        weighted_vote(SCORES, {"xgboost": 1.0})
