"""What the proof of training time fails by: time is the machine's, a worse loss is ours."""

from __future__ import annotations

import pytest

from infra.prove.training_time import BAR_S, SOURCE_S, Compared, verdict_of

NAN = float("nan")


@pytest.mark.parametrize(
    ("wall_s", "compared", "holds", "is_speed"),
    [
        pytest.param(BAR_S, Compared(0.99, 0.99, SOURCE_S), True, True, id="as-good"),
        pytest.param(BAR_S + 1, Compared(0.98, 0.99, SOURCE_S + 60), False, True, id="a-busy-machine"),
        pytest.param(BAR_S, Compared(0.991, 0.99, SOURCE_S), False, False, id="learns-worse"),
        pytest.param(BAR_S + 1, Compared(0.991, 0.99, SOURCE_S), False, False, id="both"),
        pytest.param(BAR_S, Compared(0.98, 0.99, SOURCE_S - 1), False, False, id="beside-too-short-a-run"),
        pytest.param(BAR_S, Compared(NAN, 0.99, SOURCE_S), False, False, id="no-loss"),
        pytest.param(BAR_S, Compared(0.98, NAN, SOURCE_S), False, False, id="none-to-compare-with"),
        pytest.param(BAR_S, None, True, True, id="nothing-beside-it"),
        pytest.param(BAR_S + 1, None, False, True, id="nothing-beside-it-and-slow"),
    ],
)
def test_only_time_is_excused(wall_s, compared, holds, is_speed):
    """With `--report-speed` a slow run is told of; one that learns worse than the longer run fails all the same."""
    assert verdict_of(wall_s, BAR_S, compared) == (holds, is_speed)
