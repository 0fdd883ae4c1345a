"""How a soak reads the memory of a worker: what only fills is no growth, and what grows is not taken for noise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.prove.proof import Size
from infra.prove.resident import Resident
from infra.prove.soak import SECONDS, SPEED

HOUR = 3_600.0
STEP_S = 30.0
MOMENTS = int(HOUR / STEP_S) + 1


def read(seconds: float, megabytes: list[float], *, speed: float = 60.0) -> Resident:
    """Return what was read of a run of so long, at even distances."""
    memory = Resident(speed)
    for place, mb in enumerate(megabytes):
        memory.note(seconds * place / (len(megabytes) - 1), round(mb * 2**20))
    return memory


@given(
    st.floats(-20, 20),
    st.lists(st.floats(0, 0.2), min_size=MOMENTS, max_size=MOMENTS),
    st.sets(st.integers(0, MOMENTS - 1), max_size=6),
)
def test_growth_is_read_through_noise_and_outliers(an_hour, noise, outliers):
    """A few moments of much memory, as collections leave them, say nothing of the growth."""
    grown = [150 + an_hour * place / (MOMENTS - 1) for place in range(MOMENTS)]
    moments = [
        mb + wobble + (40 if place in outliers else 0)
        for place, (mb, wobble) in enumerate(zip(grown, noise, strict=True))
    ]

    assert read(HOUR, moments).growth() == pytest.approx(an_hour, abs=2.0)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=40))
def test_however_much_fills_at_first_nothing_of_it_is_growth(filling):
    """Until a day of the market has passed memory fills; from then on only what still grows is told."""
    warm = int(Resident(60.0).warm_s / STEP_S)
    moments = [150.0 + filling[place % len(filling)] for place in range(warm)] + [250.0] * (MOMENTS - warm)

    assert read(HOUR, moments).growth() == 0.0


def test_a_leak_that_only_begins_to_show_is_read():
    """Two MB an hour over what a full run judges are more than the bar, and are told with their sign."""
    memory = read(HOUR, [150 + 2 * place / (MOMENTS - 1) for place in range(MOMENTS)])

    assert memory.growth() == pytest.approx(2.0, abs=0.01)
    assert memory.told() == "memory +2.00 MB an hour"


@pytest.mark.parametrize("seconds", [30.0, 600.0, 2_400.0])
def test_what_is_too_short_says_by_how_much_it_filled_and_nothing_of_an_hour(seconds):
    """Forty MB within a run that only fills are forty MB; as MB an hour they would be thousands."""
    memory = read(seconds, [130.0, 160.0, 165.0, 170.0])

    assert memory.growth() is None
    assert memory.told() == "memory +40.0 MB while it filled (judged from 44 minutes on)"


def test_a_full_run_is_long_enough_to_be_judged():
    """The hour of the proof goes on beyond what has to fill, by as long as is judged at least."""
    assert Resident(SPEED[Size.FULL]).judged_from_s <= SECONDS[Size.FULL]
    assert Resident(SPEED[Size.CI]).judged_from_s > SECONDS[Size.CI]


def test_time_that_runs_slower_fills_later():
    """At ten venue seconds in a second a day of the market takes six times as long as at sixty."""
    assert Resident(10.0).warm_s == 6 * Resident(60.0).warm_s == 8_640.0
    assert Resident(1_000.0).warm_s == 360.0
