"""The proof on the stability index fails where time, a verdict or an index is not what it should be."""

from __future__ import annotations

import numpy as np
import pytest

from infra.prove.drifting import DRIFTS, NAMES, columns, equal_share, equal_width
from infra.prove.psi import Side, judged


def _side(seconds: float, *, but: dict[str, float] | None = None) -> Side:
    return Side({name: 0.3 if DRIFTS[name] else 0.02 for name in NAMES} | (but or {}), seconds, 100.0)


def test_it_holds_where_all_agree():
    """Forty times as quick and of one opinion holds."""
    proof = judged(_side(40.0), _side(0.9), _side(0.5), rows=1)

    assert proof.holds
    said = "\n".join(proof.details)
    assert "threshold of 0.1: shifted by 0 to 0.1 standard deviations (Evidently's index 0.020 at most)" in said
    assert "(0.300 at least)" in said
    assert "Evidently ran 1 time, ours 3 and 3 times" in said


@pytest.mark.parametrize(
    ("equal_width_side", "equal_share_side", "is_speed"),
    [
        pytest.param(_side(1.1), _side(0.5), True, id="slow"),
        pytest.param(_side(0.9), _side(1.1), True, id="slow-as-drift-has-it"),
        pytest.param(_side(0.9, but={NAMES[0]: 0.11}), _side(0.5), False, id="another-verdict"),
        pytest.param(_side(0.9), _side(0.5, but={NAMES[0]: 0.11}), False, id="another-verdict-as-drift-has-it"),
        pytest.param(_side(0.9, but={NAMES[0]: 0.021}), _side(0.5), False, id="another-index"),
    ],
)
def test_it_fails(equal_width_side, equal_share_side, is_speed):
    """Too slow, another verdict, or another index over the same bins: each alone fails, and only time is speed."""
    proof = judged(_side(40.0), equal_width_side, equal_share_side, rows=1)

    assert not proof.holds
    assert proof.is_speed is is_speed


def test_evidently_must_see_what_was_done():
    """Where the peer itself misses a drift that was put in, its verdict proves nothing."""
    drifted = next(name for name in NAMES if DRIFTS[name])
    sides = [_side(seconds, but={drifted: 0.02}) for seconds in (40.0, 0.9, 0.5)]

    assert not judged(*sides, rows=1).holds


@pytest.mark.parametrize("side", [equal_width, equal_share])
def test_known_drifts_are_told_apart(side):
    """Both of our indexes say of every column what was done to it."""
    found = side(*columns(20_000))

    assert {name: bool(np.greater_equal(found[name], 0.1)) for name in NAMES} == DRIFTS
