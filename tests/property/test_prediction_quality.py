"""How good live opinions were, once their horizon has ended."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.candle import Timeframe
from inference.bootstrap.reporting import quality_status
from inference.domain.bias import BiasRules
from inference.domain.decision import Candidate
from inference.domain.policy import Policy
from inference.domain.signal import Direction
from inference.supervision.model_supervisor import ModelSupervisor
from inference.supervision.prediction_quality import matured, opinions_at, prediction_quality
from infra.stack.overview import quality_told
from tests.worker_support import FIVE_MINUTES_MS
from tests.worker_values import T0, make_signal

NAMES = [f"S{number}/USDT:USDT" for number in range(6)]
LONG, SHORT, FLAT = Direction.LONG, Direction.SHORT, Direction.FLAT


def candidate(symbol: str, direction: Direction, close: float, *, probability: float = 0.7, version: str = "1"):
    signal = make_signal(symbol, direction=direction, probability=probability, model_version=version)
    return Candidate(signal=signal, atr=1.0, close=close, threshold=0.6)


def make_supervisor() -> ModelSupervisor:
    return ModelSupervisor(BiasRules(), Policy(), timeframe=Timeframe.M5, on_event=lambda *_: None)


said = st.tuples(st.sampled_from(list(Direction)), st.floats(0.5, 1), st.floats(1, 1e6))


@given(st.dictionaries(st.sampled_from(NAMES), said), st.dictionaries(st.sampled_from(NAMES), st.floats(1, 1e6)))
def test_shares_are_shares_and_both_sides_add_up(opinions, closes):
    """Figures lie between 0 and 1, and whoever says the opposite of everything is right in all other cases."""
    opposite = {LONG: SHORT, SHORT: LONG, FLAT: FLAT}
    ours = [candidate(name, side, close, probability=sure) for name, (side, sure, close) in opinions.items()]
    theirs = [
        candidate(name, opposite[side], close, probability=sure) for name, (side, sure, close) in opinions.items()
    ]
    made, mirrored = (opinions_at(one, said_ms=T0, due_ms=T0) for one in (ours, theirs))
    found, other = ((matured(one, closes) if one else None) for one in (made, mirrored))

    assert (made is None) == all(side is FLAT for side, _, _ in opinions.values())
    assert (found is None) == (other is None)
    assert found is None or found.right + other.right == pytest.approx(1)
    assert found is None or found.stated == other.stated
    assert found is None or all(0 <= value <= 1 for value in (found.right, found.stated, found.brier))


def test_opinions_are_judged_at_the_end_of_their_horizon():
    """Two of three are right after two candles; whoever abstained and whose price did not move is not judged."""
    supervisor = make_supervisor()
    first = [
        candidate(NAMES[0], LONG, 100.0),
        candidate(NAMES[1], SHORT, 100.0),
        candidate(NAMES[2], LONG, 100.0, probability=0.85),
        candidate(NAMES[3], FLAT, 100.0),
        candidate(NAMES[4], LONG, 100.0),
    ]
    later = [
        candidate(name, FLAT, close) for name, close in zip(NAMES, (101.0, 99.0, 99.0, 150.0, 100.0), strict=False)
    ]
    supervisor.watch(first, close_ms=T0, horizon=2)
    supervisor.watch(first, close_ms=T0 + FIVE_MINUTES_MS, horizon=2)
    before = quality_status(supervisor)
    supervisor.watch(later, close_ms=T0 + 2 * FIVE_MINUTES_MS, horizon=2)
    found = quality_status(supervisor)

    assert before is None
    assert (found.right, found.stated, found.candles) == (0.6667, 0.75, 1)
    assert found.brier == pytest.approx((0.09 + 0.09 + 0.7225) / 3, abs=1e-4)
    assert quality_told(msgspec.to_builtins(found)) == "opinions: 66.7% right, 75.0% stated, over 1 matured candles"
    assert quality_told({}) == ""


def test_a_candle_that_never_came_judges_nothing():
    """Opinions that were due in a gap are dropped rather than held against another horizon."""
    supervisor = make_supervisor()
    supervisor.watch([candidate(NAMES[0], LONG, 100.0)], close_ms=T0, horizon=1)
    supervisor.watch([candidate(NAMES[0], FLAT, 101.0)], close_ms=T0 + 2 * FIVE_MINUTES_MS, horizon=1)

    assert supervisor.quality is None


def test_another_model_is_judged_by_its_own_opinions():
    """What the last model got right does not speak for the next."""
    supervisor = make_supervisor()
    supervisor.watch([candidate(NAMES[0], LONG, 100.0)], close_ms=T0, horizon=1)
    supervisor.watch([candidate(NAMES[0], LONG, 101.0, version="2")], close_ms=T0 + FIVE_MINUTES_MS, horizon=1)
    early = supervisor.quality
    supervisor.watch([candidate(NAMES[0], LONG, 100.0, version="2")], close_ms=T0 + 2 * FIVE_MINUTES_MS, horizon=1)

    assert early is None
    assert (supervisor.quality.right, supervisor.quality.candles) == (0.0, 1)
    assert prediction_quality([], "2") is None
