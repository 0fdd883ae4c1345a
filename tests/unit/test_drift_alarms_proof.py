"""The proof of drift alarms counts what the check said, and fails for too many alarms or changes that were missed."""

from __future__ import annotations

import pytest

from infra.prove.drift_alarms import DAYS_SINCE, EDGE, PLANTED, UNCHANGED, Found, judged, look

QUIET = Found(performance=False, inputs=False, predictions=False, outcomes=False)
LOUD = Found(performance=False, inputs=True, predictions=False, outcomes=False)


@pytest.mark.parametrize(
    ("alarms", "found", "holds"),
    [
        pytest.param(2, 10, True, id="as-stated"),
        pytest.param(9, 10, False, id="too-many-alarms"),
        pytest.param(0, 5, False, id="changes-missed"),
    ],
)
def test_it_holds_what_it_says(alarms, found, holds):
    """False alarms beyond what the stated rate explains fail it, and so do planted changes that are not found."""
    powers = {change.name: (part, found) for change, part in PLANTED}
    proof = judged([LOUD] * alarms + [QUIET] * (200 - alarms), powers, 10)

    assert proof.holds is holds
    assert f"{alarms} false alarms in 200" in proof.figure
    assert not proof.is_speed


def test_a_market_goes_through_the_production_check():
    """One unchanged market is judged in every part, and the same seed is judged alike."""
    assert (EDGE, DAYS_SINCE) == (0.10, 10)
    assert look(UNCHANGED, 1) == look(UNCHANGED, 1)
