"""How far a candidate's importances lie from the champion's."""

from __future__ import annotations

from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from flows.evidence import training_markdown
from flows.training.importance import distances_from_champion, importance_distance, told_distances
from tests.training_support import trained_report

shares = st.dictionaries(st.sampled_from("abcdefgh"), st.floats(0, 1e308), max_size=8)


@given(shares, shares, shares)
def test_a_distance_is_one(one, two, three):
    """Between 0 and 1, none from itself, alike both ways, and no way round is shorter."""
    there, back = importance_distance(one, two), importance_distance(two, one)
    over, on = importance_distance(one, three), importance_distance(three, two)

    assert there == back
    assert there is None or 0 <= there <= 1
    assert importance_distance(one, one) in (None, 0)
    assert None in (there, over, on) or there <= over + on + 1e-9


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        pytest.param({"rsi": 1.0, "atr": 1.0}, {"rsi": 30.0, "atr": 30.0}, 0.0, id="only-shares-count"),
        pytest.param({"rsi": 0.6, "atr": 0.4}, {"rsi": 0.4, "atr": 0.6}, 0.2, id="a-fifth-moved"),
        pytest.param({"rsi": 1.0}, {"atr": 1.0}, 1.0, id="other-inputs"),
        pytest.param({"rsi": 1.0}, {"rsi": 0.75, "new": 0.25}, 0.25, id="an-input-came"),
        pytest.param({}, {"rsi": 1.0}, None, id="a-net-says-nothing"),
        pytest.param({"rsi": 0.0}, {"rsi": 1.0}, None, id="nothing-was-learned"),
        pytest.param({"rsi": nan}, {"rsi": 1.0}, None, id="no-number"),
        pytest.param({"rsi": 1.0}, {"rsi": inf}, None, id="infinite"),
        pytest.param({"rsi": -1.0, "atr": 2.0}, {"rsi": 1.0}, None, id="a-negative-share"),
    ],
)
def test_distances_that_one_can_reckon_oneself(before, after, expected):
    """The distance is the part of what was learned that changed its input; what is no share has none."""
    assert importance_distance(before, after) == (None if expected is None else pytest.approx(expected))


def test_members_that_both_have_are_compared():
    """Each member has its figure, the ensemble their weighted mean, and the report says them in words."""
    xgboost, lightgbm = trained_report({}).members
    net = replace(xgboost, name="nhits", weight=0.4)
    forest = replace(xgboost, name="forest", weight=0.0, importance={"rsi": 1.0})

    def made(rsi: float, light: float, *, compared: tuple = ()):
        return replace(
            trained_report({"threshold": 0.6}),
            members=(
                replace(xgboost, weight=0.45, importance={"rsi": rsi, "atr": 1 - rsi}),
                replace(lightgbm, weight=0.15, importance={"rsi": light, "atr": 1 - light}),
                net,
            ),
            compared=compared,
        )

    candidate = made(0.5, 0.9, compared=(forest,))
    found = distances_from_champion(candidate, made(0.7, 0.5, compared=(forest,)))
    told = training_markdown(replace(candidate, metrics=candidate.metrics | found), "http://run")

    assert told_distances(found) == {
        "ensemble": pytest.approx(0.25),
        "forest": 0.0,
        "lightgbm": pytest.approx(0.4),
        "xgboost": pytest.approx(0.2),
    }
    assert told_distances(distances_from_champion(candidate, made(0.7, 0.5))).keys() == {
        "ensemble",
        "lightgbm",
        "xgboost",
    }
    assert distances_from_champion(trained_report({}), candidate) == {}
    assert "Learned from other inputs than the champion" in told
    assert "Learned from other inputs" not in training_markdown(candidate, "http://run")
