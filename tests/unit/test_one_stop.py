"""A venue that holds one stop in a direction (-4130): the older one goes before the one that covers all comes."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest

from inference.domain.order import OrderStatus, Purpose
from inference.domain.policy import EntryStyle
from inference.domain.trade import ExitReason
from inference.execution.next_step import MAX_REFUSALS
from inference.risk.errors import is_error
from tests.worker_support import FakeClock, FakeGateway, MemoryJournal, make_executor
from tests.worker_values import make_approved

BTC = "BTC/USDT:USDT"


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def gateway(clock):
    return FakeGateway(clock, marks={BTC: Decimal(50_000)})


async def entered(clock, gateway, *, style=EntryStyle.LIMIT, quantity="0.04"):
    executor = make_executor(gateway, MemoryJournal(), entry_style=style)
    await clock.drive(executor.start())
    await clock.drive(executor.enter(make_approved(quantity=quantity), candle_close_ms=clock.now_ms()))
    return executor


def stops(gateway) -> list[Decimal]:
    return [one.quantity for one in gateway.submitted if one.purpose is Purpose.STOP]


async def test_a_stop_refused_beside_an_older_one_comes_after_it_is_gone(clock, gateway):
    """The entry grew: the stop for all of it is refused, the older is cancelled, and the position is kept."""
    gateway.faults, gateway.one_stop = ["partial"], True
    began = clock.seconds
    executor = await entered(clock, gateway)
    (trade,) = executor.book.active()

    assert stops(gateway) == [Decimal("0.02"), Decimal("0.04"), Decimal("0.04")]
    assert [one.status for one in trade.of(Purpose.STOP)] == [
        OrderStatus.CANCELED,
        OrderStatus.REFUSED,
        OrderStatus.ACCEPTED,
    ]
    assert trade.exit_reason is None
    assert gateway.unprotected() == []
    # A poll after the refusal, and no more.
    assert clock.seconds - began < 1.0


async def test_a_position_that_grows_often_is_not_left_for_the_refusals(clock, gateway):
    """More stops are refused than an absence is believed after, each beside an older one: nothing is wrong."""
    gateway.faults, gateway.one_stop = ["partial"] * 15, True
    executor = await entered(clock, gateway, quantity="0.4")
    (trade,) = executor.book.active()

    assert sum(one.refusal == "-4130" for one in trade.of(Purpose.STOP)) > MAX_REFUSALS
    assert trade.exit_reason is None
    assert trade.open_quantity == Decimal("0.4")
    assert gateway.unprotected() == []


async def test_a_stop_refused_beside_one_of_somebody_else_ends_the_position(clock, gateway):
    """Where no stop of ours stands in the way, none can be had: the position is left after the usual refusals."""
    gateway.refusals = {Purpose.STOP: [-4130] * MAX_REFUSALS}
    executor = await entered(clock, gateway, style=EntryStyle.MARKET)

    assert len(stops(gateway)) == MAX_REFUSALS
    assert executor.closed[0].reason is ExitReason.UNPROTECTED
    assert gateway.held[BTC] == 0


async def test_a_stop_in_doubt_is_asked_for_where_another_is_refused_beside_it(clock, gateway):
    """What was executed and not answered is what stands in the way: it is found, and no third one is sent."""
    gateway.faults, gateway.query_faults, gateway.one_stop = ["", "exec_then_drop"], ["down"], True
    gateway.hold_stream = True
    executor = await entered(clock, gateway, style=EntryStyle.MARKET)
    running = asyncio.ensure_future(executor.run())
    await clock.drive(clock.sleep(3))
    (trade,) = executor.book.active()

    assert len(stops(gateway)) == 2
    assert trade.exit_reason is None
    assert gateway.unprotected() == []
    await clock.drive(executor.stop())
    await clock.drive(running)


def test_a_stop_refused_beside_another_trips_no_breaker():
    """It is part of trading at such a venue, and no error of execution."""
    assert not is_error("-4130")
    assert is_error("-1111")
