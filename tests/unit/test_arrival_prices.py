"""What an execution is held against: the best prices while they are young, what was traded last after that."""

from __future__ import annotations

from decimal import Decimal
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.candle import Timeframe
from inference.bootstrap.venue_parts import make_executor as executor_of
from inference.domain.events import FillBooked
from inference.domain.market import Quote
from inference.domain.order import Purpose
from inference.domain.policy import Policy
from inference.domain.trade import ExitReason
from inference.exchange.venue_clock import TimeSample, VenueClock
from inference.execution.book import Book
from inference.execution.prices import Prices
from inference.feed.market_data import MarketData
from tests.worker_support import FakeClock, FakeGateway, MemoryJournal, make_executor
from tests.worker_values import make_approved

BTC = "BTC/USDT:USDT"


async def test_an_exit_between_two_candles_is_held_against_the_last_trade():
    """The quotes are ninety seconds old: what was traded last stands for them, and the slippage is recorded."""
    clock, journal = FakeClock(), MemoryJournal()
    gateway = FakeGateway(clock, marks={BTC: Decimal(50_000)})
    executor = make_executor(gateway, journal, traded={BTC: Decimal(50_100)}.get)
    await clock.drive(executor.start())
    executor.know({BTC: await gateway.quote(BTC)})
    await clock.drive(executor.enter(make_approved(), candle_close_ms=clock.now_ms()))
    await clock.drive(clock.sleep(90))
    gateway.marks[BTC] = Decimal(50_050)
    await clock.drive(executor.request_exit(BTC, ExitReason.TIME_BARRIER))

    told = {executor.book.order(one.fill.client_order_id).intent.purpose: one for one in journal.events()
            if isinstance(one, FillBooked)}  # fmt: skip
    assert told[Purpose.ENTRY].slippage == 0
    assert told[Purpose.EXIT].slippage == (Decimal(50) / Decimal(50_100)).quantize(Decimal("1e-8"))


@given(st.integers(0, 200_000), st.sampled_from([None, Decimal(7)]))
def test_young_quotes_come_first_and_the_last_trade_stands_for_old_ones(age_ms, traded):
    """Within a minute halfway between bid and ask, after that the last trade, and where there is none, nothing."""
    prices = Prices(lambda: 1_000_000 + age_ms, lambda _: traded)
    assert prices.arrival(BTC) == traded
    prices.know({BTC: Quote(symbol=BTC, bid=Decimal(1), ask=Decimal(3), event_time_ms=1_000_000)})

    assert prices.arrival(BTC) == (Decimal(2) if age_ms <= 60_000 else traded)


@pytest.mark.parametrize(("rate", "still_s", "gone_s"), [(1, 59, 61), (60, 1.9, 2.1)])
def test_what_was_streamed_is_told_while_it_is_young(rate, still_s, gone_s):
    """A minute of the venue's time, and two seconds of ours where its clock runs faster; nothing of other symbols."""
    clock, now = VenueClock(accelerated=True), [1.0]
    for seconds in (0.0, 1.0):
        clock.add(TimeSample(sent=seconds, received=seconds, venue_ms=int(1_000_000 + seconds * 1000 * rate)))
    market = MarketData(None, None, timeframe=Timeframe("5m"), clock=clock, monotonic=lambda: now[0])
    market._note_price(BTC, 50_000.5)
    market._note_price("ETH/USDT:USDT", 2_000.0)

    assert market.traded(BTC) == Decimal("50000.5")
    assert market.traded("SOL/USDT:USDT") is None
    now[0] = 1.0 + still_s
    assert market.traded(BTC) == Decimal("50000.5")
    now[0] = 1.0 + gone_s
    assert market.traded(BTC) is None


def test_the_worker_s_executor_hears_of_the_last_trade():
    """What puts the worker together hands the market's last trades on."""
    clock = FakeClock()
    gateway = FakeGateway(clock, marks={BTC: Decimal(50_000)})
    venue = SimpleNamespace(
        gateway=gateway,
        exchange=SimpleNamespace(sign=lambda *_: {}),
        transport=SimpleNamespace(no_room_for_entry=lambda: ""),
        market=SimpleNamespace(traded={BTC: Decimal(9)}.get),
    )
    settings = SimpleNamespace(venue="sandbox", timeframe=Timeframe("5m"))
    executor = executor_of(
        venue, settings, journal=MemoryJournal(), book=Book(), policy=Policy(), now_ms=clock.now_ms,
        order_took=lambda _: None, is_followed=lambda _: True,
    )  # fmt: skip

    assert executor._prices.arrival(BTC) == Decimal(9)
