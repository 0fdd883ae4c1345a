"""An exit that is refused again and again: tried less and less often, and at once when the venue is well again."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.venue.errors import AccountError
from inference.domain.order import OrderIntent, OrderReport, OrderStatus, OrderType, Purpose
from inference.domain.trade import ExitReason
from inference.execution.exit_pauses import QUICK_TRIES, ExitPauses, pause_seconds
from inference.execution.ports import VenuePosition
from tests.unit.test_entry_holds import BTC, ETH
from tests.unit.test_exits_followed import approved
from tests.worker_support import FakeClock, FakeGateway, MemoryJournal, VenueOrder, make_executor
from tests.worker_values import make_approved

LONGEST = 15.0


class RefusingGateway(FakeGateway):
    """A venue that refuses the account's orders of one symbol, or all it asks, while told to."""

    refused: tuple[str, ...] = ()
    refuses_reads = False
    # Symbols whose exits it takes and lets end unfilled, as where nobody stands on the other side.
    empty: tuple[str, ...] = ()
    # The same of targets, those that fired and those taken at market.
    empty_targets: tuple[str, ...] = ()

    async def submit(self, intent: OrderIntent) -> OrderReport:
        """Refuse as a venue does that knows the key no more."""
        if intent.symbol in self.refused:
            await self._request()
            self.submitted.append(intent)
            raise AccountError("Invalid API-key, IP, or permissions for action", code=-2015)
        return await super().submit(intent)

    def _fill(self, order: VenueOrder, *, half: bool = False) -> None:
        nobody = {Purpose.EXIT: self.empty, Purpose.TARGET: self.empty_targets}
        if order.intent.symbol in nobody.get(order.intent.purpose, ()):
            self._end(order, OrderStatus.EXPIRED)
        else:
            super()._fill(order, half=half)

    async def positions(self) -> list[VenuePosition]:
        """See `submit`."""
        if self.refuses_reads:
            raise AccountError("Invalid API-key, IP, or permissions for action", code=-2015)
        return await super().positions()


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def gateway(clock):
    return RefusingGateway(clock, marks={BTC: Decimal(50_000), ETH: Decimal(50_000)})


async def leaving(clock, gateway, *, seconds: float):
    """Return an executor whose exit of BTC was refused for so long, and the task in which it runs."""
    executor = make_executor(gateway, MemoryJournal(), exit_pause_seconds=LONGEST)
    await clock.drive(executor.start())
    await clock.drive(executor.enter(make_approved(), candle_close_ms=clock.now_ms()))
    gateway.refused = (BTC,)
    running = asyncio.ensure_future(executor.run())
    await clock.drive(executor.request_exit(BTC, ExitReason.TIME_BARRIER))
    await clock.drive(clock.sleep(seconds), limit_seconds=seconds + 60)
    return executor, running


def exits(gateway) -> int:
    return sum(one.purpose is Purpose.EXIT for one in gateway.submitted)


async def stopped(clock, executor, running) -> None:
    await clock.drive(executor.stop())
    await clock.drive(running)


async def test_hours_of_refusals_are_few_orders_and_the_stop_stays(clock, gateway):
    """Two hours make as many exits as the bound allows, and the first good answer ends the trade within it."""
    executor, running = await leaving(clock, gateway, seconds=7_200)
    sent = exits(gateway)

    assert QUICK_TRIES < sent <= QUICK_TRIES + 10 + 7_200 / LONGEST
    assert gateway.unprotected() == []
    gateway.refused = ()
    began = clock.seconds
    while executor.book.positions():
        await clock.drive(clock.sleep(0.1))
    assert clock.seconds - began <= LONGEST + 1.5
    assert exits(gateway) == sent + 1
    await stopped(clock, executor, running)


async def test_a_venue_that_answers_again_is_asked_at_once(clock, gateway):
    """Nothing could be read for a while; with the first reading that works, the exit goes out, whatever its pause."""
    executor, running = await leaving(clock, gateway, seconds=600)
    gateway.refuses_reads = True
    await clock.drive(clock.sleep(60))
    # Just refused once more: the whole pause is still to come.
    sent = exits(gateway)
    while exits(gateway) == sent:
        await clock.drive(clock.sleep(0.05))
    gateway.refused, gateway.refuses_reads, began = (), False, clock.seconds
    while executor.book.positions():
        await clock.drive(clock.sleep(0.05))

    assert clock.seconds - began <= 3.0
    await stopped(clock, executor, running)


async def test_an_order_that_the_venue_takes_lets_every_exit_try_once(clock, gateway):
    """The other symbol trades: the refused exit tries, and where it is refused again it waits as long as before."""
    executor, running = await leaving(clock, gateway, seconds=600)
    sent = exits(gateway)
    while exits(gateway) == sent:
        await clock.drive(clock.sleep(0.05))
    sent = exits(gateway)
    await clock.drive(executor.reconcile())
    executor.is_reconciled = True
    assert await clock.drive(executor.enter(make_approved(ETH), candle_close_ms=clock.now_ms()))
    await clock.drive(clock.sleep(5.0))

    assert sent < exits(gateway) <= sent + 3
    assert gateway.unprotected() == []
    await stopped(clock, executor, running)


async def test_the_first_refusals_are_answered_at_once(clock, gateway):
    """What most refusals need is another try within seconds: nine of them end the trade as fast as ever."""
    executor = make_executor(gateway, MemoryJournal())
    await clock.drive(executor.start())
    await clock.drive(executor.enter(make_approved(), candle_close_ms=clock.now_ms()))
    gateway.refusals[Purpose.EXIT] = [-1111] * (QUICK_TRIES - 1)
    began = clock.seconds
    await clock.drive(executor.request_exit(BTC, ExitReason.TIME_BARRIER))

    assert executor.closed[0].reason is ExitReason.TIME_BARRIER
    assert clock.seconds - began <= 3.0


async def test_a_venue_that_says_there_is_nothing_to_reduce_and_holds_it_all_is_asked_less_and_less(clock, gateway):
    """A reading that lags, or other orders that rest: the position and its stop stand, and no exits are poured out."""
    executor = make_executor(gateway, MemoryJournal(), exit_pause_seconds=LONGEST)
    await clock.drive(executor.start())
    await clock.drive(executor.enter(make_approved(), candle_close_ms=clock.now_ms()))
    gateway.refusals[Purpose.EXIT] = [-2022] * 1_000
    running = asyncio.ensure_future(executor.run())
    await clock.drive(executor.request_exit(BTC, ExitReason.TIME_BARRIER))
    await clock.drive(clock.sleep(600), limit_seconds=700)

    assert QUICK_TRIES < exits(gateway) <= QUICK_TRIES + 10 + 600 / (LONGEST / 2)
    assert gateway.unprotected() == []
    gateway.refusals.clear()
    while executor.book.positions():
        await clock.drive(clock.sleep(0.1))
    await stopped(clock, executor, running)


@pytest.mark.parametrize("answers", [True, False], ids=["answered", "told-by-the-stream"])
async def test_exits_that_end_unfilled_are_sent_less_and_less(clock, gateway, answers):
    """Two positions that nobody takes: each exit ends with nothing executed, which is no reason to pour out more."""
    executor = make_executor(gateway, MemoryJournal(), exit_pause_seconds=LONGEST)
    await clock.drive(executor.start())
    for symbol in (BTC, ETH):
        await clock.drive(executor.enter(make_approved(symbol), candle_close_ms=clock.now_ms()))
    gateway.empty = (BTC, ETH)
    if not answers:
        gateway.faults = ["exec_then_drop"] * 1_000
    running = asyncio.ensure_future(executor.run())
    await clock.drive(executor.request_exit(BTC, ExitReason.TIME_BARRIER))
    first = exits(gateway)
    await clock.drive(executor.request_exit(ETH, ExitReason.TIME_BARRIER))
    await clock.drive(clock.sleep(600), limit_seconds=700)

    assert first == QUICK_TRIES
    assert 2 * QUICK_TRIES < exits(gateway) <= 2 * (QUICK_TRIES + 10 + 600 / LONGEST)
    assert gateway.unprotected() == []
    gateway.empty, gateway.faults, began = (), [], clock.seconds
    while executor.book.positions():
        await clock.drive(clock.sleep(0.1))
    assert clock.seconds - began <= LONGEST + 1.5
    await stopped(clock, executor, running)


@pytest.mark.parametrize("answers", [True, False], ids=["answered", "told-by-the-stream"])
async def test_targets_at_market_that_end_unfilled_are_sent_less_and_less(clock, gateway, answers):
    """A target that fired in vain is taken at market in turns that grow longer; an exit of the whole waits for none."""
    executor = make_executor(gateway, MemoryJournal(), exit_pause_seconds=LONGEST)
    await clock.drive(executor.start())
    await clock.drive(executor.enter(approved("CHALLENGE_100"), candle_close_ms=clock.now_ms()))
    gateway.empty_targets = (BTC,)
    if not answers:
        gateway.faults = ["exec_then_drop"] * 1_000
    running = asyncio.ensure_future(executor.run())
    gateway.move(BTC, Decimal(50_310))
    await clock.drive(clock.sleep(600), limit_seconds=700)
    sent = sum(one.order_type is OrderType.MARKET and one.purpose is Purpose.TARGET for one in gateway.submitted)

    assert QUICK_TRIES < sent <= QUICK_TRIES + 10 + 600 / LONGEST
    assert gateway.unprotected() == []
    gateway.faults, began = [], clock.seconds
    await clock.drive(executor.request_exit(BTC, ExitReason.TIME_BARRIER))
    assert executor.book.positions() == {}
    assert clock.seconds - began <= 3.0
    await stopped(clock, executor, running)


async def test_an_exit_that_fills_in_part_goes_on_at_once(clock, gateway):
    """A part of each is executed: that is the way out, and no pause keeps the rest of it back."""
    executor = make_executor(gateway, MemoryJournal(), exit_pause_seconds=LONGEST)
    await clock.drive(executor.start())
    await clock.drive(executor.enter(make_approved(), candle_close_ms=clock.now_ms()))
    gateway.empty = (BTC,)
    running = asyncio.ensure_future(executor.run())
    await clock.drive(executor.request_exit(BTC, ExitReason.TIME_BARRIER))
    await clock.drive(clock.sleep(300), limit_seconds=400)
    gateway.empty, gateway.faults, sent = (), ["partial"] * 3, exits(gateway)
    while exits(gateway) == sent:
        await clock.drive(clock.sleep(0.05))
    began = clock.seconds
    while executor.book.positions():
        await clock.drive(clock.sleep(0.05))

    assert exits(gateway) == sent + 4
    assert clock.seconds - began <= 1.0
    await stopped(clock, executor, running)


@given(st.integers(0, 10**6), st.floats(0, 1), st.floats(0.1, 1e4))
def test_a_pause_is_bounded_and_never_shorter_than_half_of_the_one_without_chance(refusals, chance, longest):
    """Whatever chance says, no pause is above its bound, and none before the quick tries are over."""
    full = pause_seconds(refusals, 1.0, longest=longest)

    assert full / 2 <= pause_seconds(refusals, chance, longest=longest) <= full <= longest
    assert full <= pause_seconds(refusals + 1, 1.0, longest=longest)
    assert (full == 0.0) is (refusals < QUICK_TRIES)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["refused", "accepted", "answer", "forget"]), st.sampled_from("ab"), st.floats(0, 60)
        ),
        max_size=60,
    ),
    st.floats(0, 1),
)
def test_no_exit_waits_longer_than_the_bound(steps, chance):
    """Whatever happens in whatever order: after the bound every trade may try, after a good answer at once."""
    pauses, now = ExitPauses(longest_seconds=LONGEST, chance=lambda: chance), 0.0
    for what, trade, seconds in steps:
        now += seconds
        match what:
            case "refused":
                pauses.note_refusal(trade, now)
            case "accepted":
                pauses.note_accepted(trade)
                assert not pauses.waits(trade, now)
            case "answer":
                pauses.note_answer()
                assert not any(pauses.waits(one, now) for one in "ab")
            case _:
                pauses.forget(trade)
                assert not pauses.waits(trade, now)
        assert not any(pauses.waits(one, now + LONGEST) for one in "ab")
