"""An entry that waits, or rests, does not leave once the emergency stop has latched or the worker has halted."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from types import SimpleNamespace

import pytest

from feature_store.candle import Timeframe
from inference.bootstrap.venue_parts import VenueParts, make_executor
from inference.domain.order import OrderIntent, OrderReport, OrderStatus, OrderType, Purpose
from inference.domain.policy import EntryStyle, Policy
from inference.domain.trade import ExitReason
from inference.exchange.guarding import EntriesBarredError, guard_entries
from inference.execution.book import Book
from inference.execution.entry_door import Held
from inference.execution.executor import Executor
from tests import worker_support
from tests.unit.test_paper_desk import order
from tests.unit.test_paper_gateway import STOP, _Market, gateway_on
from tests.worker_support import FakeClock, FakeGateway, MemoryJournal
from tests.worker_values import make_approved

BTC = "BTC/USDT:USDT"
ENTRY, REDUCING = {"side": "BUY"}, {"side": "SELL", "reduceOnly": "true"}


def client() -> SimpleNamespace:
    """Return as much of a ccxt client as signs."""
    return SimpleNamespace(sign=lambda *_: {"url": "x"})


class WaitingGateway(FakeGateway):
    """A venue in memory that each entry reaches after three seconds, by a client that signs it only then."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock, marks={BTC: Decimal(50_000)})
        self.exchange = client()

    async def submit(self, intent: OrderIntent) -> OrderReport:
        """Wait, sign, and execute."""
        await self.clock.sleep(0 if intent.reduce_only else 3)
        self.exchange.sign("order", "fapiPrivate", "POST", REDUCING if intent.reduce_only else ENTRY)
        return await super().submit(intent)


def stop(executor: Executor) -> None:
    """Stop as a person does."""
    executor.bar_entries("EMERGENCY_STOP", "a person asked for it")


def halt(executor: Executor) -> None:
    """Halt as a worker does in which something failed."""
    executor.halt_entries("clock failed")


@pytest.mark.parametrize("end", [stop, halt])
async def test_an_entry_that_waits_does_not_leave_once_entries_are_barred(end):
    """Sent at 0 s, stopped at 1 s, signed at 3 s: the venue never hears of it, and its trade is one not entered."""
    clock = FakeClock()
    gateway = WaitingGateway(clock)
    executor = worker_support.make_executor(gateway, MemoryJournal())
    guard_entries(gateway.exchange, lambda: executor.door.why_barred)
    await clock.drive(executor.start())

    async def latch() -> None:
        await clock.sleep(1)
        end(executor)

    async def both() -> None:
        await asyncio.gather(executor.enter(make_approved(), candle_close_ms=clock.now_ms()), latch())
        await executor.settle(BTC)

    await clock.drive(both())

    assert gateway.submitted == []
    assert await clock.drive(gateway.positions()) == []
    assert [one.reason for one in executor.closed] == [ExitReason.NOT_ENTERED]
    assert list(executor.book.active()) == []


class RestingGateway(FakeGateway):
    """A venue in memory at which limit orders rest for ever."""

    def _fill(self, order, *, half=False):
        if not order.intent.rests:
            super()._fill(order, half=half)


@pytest.mark.parametrize("style", [EntryStyle.LIMIT, EntryStyle.POST_ONLY])
@pytest.mark.parametrize("end", [stop, halt])
async def test_an_entry_at_rest_is_taken_away_and_has_no_successor(style, end):
    """Halted five seconds into its thirty: it is cancelled within seconds, and nothing takes at market after them."""
    clock = FakeClock()
    gateway = RestingGateway(clock, marks={BTC: Decimal(50_000)})
    executor = worker_support.make_executor(gateway, MemoryJournal(), entry_style=style)
    await clock.drive(executor.start())
    running = asyncio.ensure_future(executor.run())
    await clock.drive(executor.enter(make_approved(), candle_close_ms=clock.now_ms()))
    await clock.drive(clock.sleep(5))
    rested = [one.status for one in gateway.orders.values()]

    end(executor)
    await clock.drive(clock.sleep(5))
    left = list(gateway.orders.values())
    await clock.drive(clock.sleep(90))

    assert rested == [OrderStatus.ACCEPTED]
    assert left == []
    assert [one.order_type for one in gateway.submitted] == [OrderType.LIMIT]
    assert not gateway.held.get(BTC)
    assert [one.reason for one in executor.closed] == [ExitReason.NOT_ENTERED]
    await clock.drive(executor.stop())
    await clock.drive(running)


async def test_a_reset_of_the_stop_does_not_undo_a_halt():
    """What failed in the worker bars entries until its next start, whatever a person resets."""
    executor = worker_support.make_executor(FakeGateway(FakeClock(), marks={}), MemoryJournal())
    halt(executor)
    stop(executor)
    stopped = executor.door.why_barred
    executor.admit_entries()

    assert stopped == "EMERGENCY_STOP, a person asked for it"
    assert executor.door.why_barred == "HALTED, clock failed"
    assert executor.door.held(BTC) == Held("HALTED", "clock failed")


async def test_what_was_entered_is_protected_all_the_same():
    """Stops and exits are no entries: they leave while everything else is barred."""
    clock = FakeClock()
    gateway = WaitingGateway(clock)
    executor = worker_support.make_executor(gateway, MemoryJournal())
    guard_entries(gateway.exchange, lambda: "" if gateway.submitted == [] else "EMERGENCY_STOP")
    await clock.drive(executor.start())
    await clock.drive(executor.enter(make_approved(), candle_close_ms=clock.now_ms()))
    executor.bar_entries("EMERGENCY_STOP", "a person asked for it")
    await clock.drive(executor.request_exit(BTC, ExitReason.EMERGENCY))

    assert [one.purpose for one in gateway.submitted] == [Purpose.ENTRY, Purpose.STOP, Purpose.TARGET, Purpose.EXIT]
    assert [one.reason for one in executor.closed] == [ExitReason.EMERGENCY]


@pytest.mark.parametrize(
    ("request_of", "is_entry"),
    [
        (("order", "fapiPrivate", "POST", ENTRY), True),
        (("order", "private", "POST", ENTRY), True),
        (("auth/w/order/submit", ["private"], "POST", {"flags": 0}), True),
        (("order", "fapiPrivate", "POST", REDUCING), False),
        (("order", "private", "POST", {"side": "SELL"}), False),
        (("auth/w/order/submit", ["private"], "POST", {"flags": 1024}), False),
        (("order", "fapiPrivate", "DELETE", {}), False),
        (("order", "fapiPrivate", "GET", {}), False),
    ],
)
def test_a_client_of_the_worker_signs_no_entry_while_entries_are_barred(request_of, is_entry):
    """The executor's door is asked by the client that the worker trades with, at every venue."""
    exchange, clock = client(), FakeClock()
    venue = VenueParts(
        exchange,
        SimpleNamespace(no_room_for_entry=lambda: ""),
        FakeGateway(clock, marks={BTC: Decimal(50_000)}),
        SimpleNamespace(traded=lambda _: None),
    )
    executor = make_executor(
        venue,
        SimpleNamespace(venue="binanceusdm", timeframe=Timeframe.M5),
        journal=MemoryJournal(),
        book=Book(),
        policy=Policy(),
        now_ms=clock.now_ms,
        order_took=lambda _: None,
        is_followed=lambda _: True,
    )
    assert exchange.sign(*request_of) == {"url": "x"}
    executor.bar_entries("EMERGENCY_STOP", "a person asked for it")
    if is_entry:
        with pytest.raises(EntriesBarredError, match="EMERGENCY_STOP, a person asked for it"):
            exchange.sign(*request_of)
    else:
        assert exchange.sign(*request_of) == {"url": "x"}
    executor.admit_entries()
    assert exchange.sign(*request_of) == {"url": "x"}


async def test_on_paper_the_stop_is_asked_once_the_quote_is_here(tmp_path):
    """A quote that takes long lets an entry out no more than a full rate budget does; a stop is taken."""
    market, barred = _Market(), [""]
    gateway = gateway_on(market, tmp_path)
    gateway.guard_entries(lambda: barred[0])
    await gateway.connect()
    await gateway.submit(order("E1"))
    quote = market.quote

    async def slow(symbol):
        barred[0] = "EMERGENCY_STOP, a person asked for it"
        return await quote(symbol)

    market.quote = slow
    with pytest.raises(EntriesBarredError, match="a person asked for it"):
        await gateway.submit(order("E2"))

    assert await gateway.query(order("E2")) is None
    assert (await gateway.submit(STOP)).client_order_id == "S1"
