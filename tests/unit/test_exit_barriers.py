"""Where a position ends: the two prices and the time, at and beside each boundary."""

from __future__ import annotations

from decimal import Decimal

import pytest

from inference.domain.policy import Policy
from inference.domain.position import Position
from inference.domain.signal import Direction
from inference.exits.barriers import Barriers, barriers, is_held_too_long, time_barrier_ms
from tests.worker_values import T0, make_instrument

LONG, SHORT = Direction.LONG, Direction.SHORT
STEP = 300_000


def found(direction, price, atr, policy=Policy()):  # noqa: B008 - frozen
    return barriers(
        direction=direction, reference_price=Decimal(price), atr=Decimal(atr), policy=policy,
        instrument=make_instrument(),
    )  # fmt: skip


@pytest.mark.parametrize(("direction", "stop", "target"), [(LONG, "49700.0", "50400.0"), (SHORT, "50300.0", "49600.0")])
def test_stop_and_target_are_three_and_four_ranges_away(direction, stop, target):
    """A long stops below and wins above, a short the other way round."""
    assert found(direction, 50_000, 100) == Barriers(stop_price=Decimal(stop), target_price=Decimal(target))


def test_prices_lie_on_ticks():
    """The nearest tick is taken."""
    assert found(LONG, "100.03", "1.004") == Barriers(stop_price=Decimal("97.0"), target_price=Decimal("104.0"))


@pytest.mark.parametrize(
    ("direction", "price", "exists"),
    [(LONG, "300", False), (LONG, "300.1", True), (LONG, "299", False),
     (SHORT, "400", False), (SHORT, "400.1", True), (SHORT, "399", False)],
)  # fmt: skip
def test_a_price_of_zero_or_less_protects_nothing(direction, price, exists):
    """The lower of the two has to be worth something, however little."""
    assert (found(direction, price, 100) is not None) is exists


@pytest.mark.parametrize("direction", [LONG, SHORT])
@pytest.mark.parametrize("multiple", ["stop_atr_multiple", "target_atr_multiple"])
def test_a_price_that_rounds_to_the_reference_is_none(direction, multiple):
    """Each of the two has to lie beyond the price that it is measured from; one tick is enough."""
    assert found(direction, 50_000, 1, Policy(**{multiple: Decimal("0.01")})) is None
    assert found(direction, 50_000, 1, Policy(**{multiple: Decimal("0.1")})) is not None
    assert found(direction, 50_000, 0) is None
    assert found(direction, 50_000, -1) is None


@pytest.mark.parametrize(("late_ms", "candles"), [(0, 12), (1, 12), (STEP - 1, 12), (STEP, 13)])
def test_time_is_counted_from_the_candle_that_decided(late_ms, candles):
    """However late within its candle an entry filled, it is held for twelve candles."""
    position = Position(
        symbol="A", direction=LONG, quantity=Decimal(1), entry_price=Decimal(1), entry_time_ms=T0 + late_ms,
        trade_id="t",
    )  # fmt: skip
    due = T0 + candles * STEP

    assert time_barrier_ms(T0 + late_ms, policy=Policy(), timeframe_ms=STEP) == due
    assert is_held_too_long(position, candle_close_ms=due, policy=Policy(), timeframe_ms=STEP)
    assert not is_held_too_long(position, candle_close_ms=due - 1, policy=Policy(), timeframe_ms=STEP)
