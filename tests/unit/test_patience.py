"""Waits that end in time, and from when a position's five seconds without a stop count."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.domain.events import OrderIntended, OrderReported, TradePlanned
from inference.domain.order import OrderReport, OrderStatus, OrderType, Purpose
from inference.domain.policy import EntryStyle
from inference.execution.book import Book
from inference.execution.patience import ExecutionSettings, within
from inference.execution.planning import trade_plan
from inference.execution.protection import Protection
from inference.execution.steps import intent_of
from tests.worker_support import FakeClock
from tests.worker_values import make_approved

SETTINGS = ExecutionSettings()


async def test_what_ends_in_time_is_returned_and_its_error_raised():
    """The work's own value or error comes through, whatever the clock says afterwards."""
    clock = FakeClock()

    async def work(*, fails):
        await clock.sleep(1)
        if fails:
            raise ZeroDivisionError
        return 7

    assert await clock.drive(within(2, work(fails=False), sleep=clock.sleep)) == 7
    with pytest.raises(ZeroDivisionError):
        await clock.drive(within(2, work(fails=True), sleep=clock.sleep))


@pytest.mark.parametrize("gives_up", [True, False], ids=["cancelled", "failing-on-the-way-out"])
async def test_what_takes_longer_is_cancelled_at_the_end_of_its_time(gives_up):
    """The wait ends when its time is over, even where the work does not take being cancelled well."""
    clock, ended = FakeClock(), []

    async def work():
        try:
            await clock.sleep(60)
        except asyncio.CancelledError:
            ended.append(clock.seconds)
            if gives_up:
                raise
            raise ValueError("on the way out") from None

    began = clock.seconds
    with pytest.raises(TimeoutError, match="2 s"):
        await clock.drive(within(2, work(), sleep=clock.sleep))
    await asyncio.sleep(0)
    assert clock.seconds - began == pytest.approx(2)
    assert ended == [clock.seconds]


async def test_who_is_cancelled_while_waiting_takes_the_work_along():
    """No question goes on for somebody who is gone."""
    clock, ended = FakeClock(), []

    async def work():
        try:
            await clock.sleep(60)
        finally:
            ended.append(True)

    waiting = asyncio.create_task(within(30, work(), sleep=clock.sleep))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.sleep(0)
    assert ended == [True]


@given(st.integers(0, 1_000_000))
def test_a_question_waits_no_less_after_more_silences_and_never_for_ever(silences):
    """Two quick questions, then longer ones, so that a slow venue is heard; at most four times the first."""
    waits = [SETTINGS.question_patience(one) for one in (silences, silences + 1)]
    assert SETTINGS.question_seconds <= waits[0] <= waits[1] <= 4 * SETTINGS.question_seconds
    assert SETTINGS.question_patience(1) == SETTINGS.question_seconds


def filled(*, rests=False, stop=None):
    """Return a trade whose entry filled whole, with a stop for a part of it where one is asked for."""
    plan = trade_plan(
        make_approved(), candle_close_ms=0, now_ms=0, style=EntryStyle.MARKET, patience_ms=0, arrival_price=None
    )
    book = Book()
    book.apply(TradePlanned(plan=plan))
    entry = intent_of(book.trades[plan.trade_id], Purpose.ENTRY, plan.quantity)
    if rests:
        entry = replace(entry, order_type=OrderType.LIMIT, limit_price=Decimal(50_000))
    book.apply(OrderIntended(intent=entry))
    book.apply(OrderReported(report=reported(entry, OrderStatus.FILLED, plan.quantity)))
    if stop is not None:
        intent = intent_of(book.trades[plan.trade_id], Purpose.STOP, Decimal(stop))
        book.apply(OrderIntended(intent=intent))
        book.apply(OrderReported(report=reported(intent, OrderStatus.ACCEPTED, Decimal(0))))
    return book.trades[plan.trade_id]


def reported(intent, status, quantity):
    return OrderReport(
        client_order_id=intent.client_order_id,
        venue_order_id="1",
        symbol=intent.symbol,
        status=status,
        filled=quantity,
        average_price=None,
        event_time_ms=0,
    )


@pytest.mark.parametrize(
    ("trade", "sent_at", "until"),
    [
        pytest.param(filled(), 96.0, 101.0, id="since-it-was-sent"),
        pytest.param(filled(), None, 105.0, id="sent-in-another-life"),
        pytest.param(filled(rests=True), 40.0, 105.0, id="rested-before-it-filled"),
        pytest.param(filled(stop="0.01"), 40.0, 105.0, id="grown-beyond-its-stop"),
        pytest.param(filled(stop="0.04"), 40.0, math.inf, id="protected"),
    ],
)
def test_from_when_a_position_is_bare(trade, sent_at, until):
    """At the worst since its entry at market was sent; where that cannot be, since it was first seen so."""
    now = [100.0]
    protection = Protection(SETTINGS, lambda: now[0], sent_at=lambda _: sent_at)
    assert protection.bare_until(trade) == until
    now[0] = 104.0
    assert protection.bare_until(trade) == until, "the clock goes on, it does not begin anew"
    assert protection.is_overdue(trade) is (until < 104.0)
