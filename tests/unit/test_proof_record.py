"""A proof's comparison of journal and venue finds what was lost, doubled, bare or never intended."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from inference.domain.events import FillBooked, OrderIntended, OrderReported, TradeClosed
from inference.domain.order import Purpose
from inference.domain.signal import Direction
from inference.domain.trade import ExitReason, TradeResult
from infra.prove.record import closed_in, history_differences, standing_differences, versions_decided
from tests.worker_support import FakeClock, FakeGateway, MemoryJournal, make_executor
from tests.worker_values import make_approved

BTC = "BTC/USDT:USDT"


@pytest.fixture
async def story():
    """Return the events of one protected position, and what the venue says of it."""
    clock, journal = FakeClock(), MemoryJournal()
    gateway = FakeGateway(clock, marks={BTC: Decimal(50_000)})
    executor = make_executor(gateway, journal)
    await clock.drive(executor.start())
    await clock.drive(executor.enter(make_approved(), candle_close_ms=clock.now_ms()))
    for one in gateway.trades:
        executor.on_fill(one)
    audit = {
        "open_positions": [{"symbol": "BTCUSDT", "quantity": str(gateway.held[BTC])}],
        "open_algo_orders": 2,
        "fills": len(gateway.trades),
        "trades": [],
    }
    return journal.events(), audit


async def test_what_agrees_has_no_differences(story):
    """A position with its stop and target, told alike by both, is nothing to report."""
    events, audit = story

    assert standing_differences(events, audit) == []
    assert history_differences(events, audit) == []
    assert closed_in(events) == 0
    assert versions_decided(events) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"open_positions": []}, "positions at the venue {}"),
        ({"open_positions": [{"symbol": "BTCUSDT", "quantity": "0.08"}]}, "positions at the venue"),
        ({"open_algo_orders": 1}, "1 stops and targets rest at the venue, 2 in the journal"),
        ({"trades": [{"entry_client_ids": ["qt-other-E1"]}]}, "without an intent in the journal: ['qt-other-E1']"),
    ],
    ids=["lost", "doubled", "bare", "never-intended"],
)
async def test_what_the_venue_says_otherwise_is_found(story, change, says):
    """Whatever the venue holds more or less than the journal is named."""
    events, audit = story

    assert any(says in one for one in standing_differences(events, audit | change))


async def test_an_order_whose_fate_was_never_learned_is_found(story):
    """A journal that ends between the sending of a stop and its answer does not count as agreeing."""
    events, audit = story
    cut = [one for one in events if not (isinstance(one, OrderReported) and "-S" in one.report.client_order_id)]
    stops = [one.intent for one in events if isinstance(one, OrderIntended) and one.intent.purpose is Purpose.STOP]

    assert len(stops) == 1
    assert any(stops[0].client_order_id in one for one in standing_differences(cut, audit))


async def test_an_execution_that_the_journal_lacks_is_found(story):
    """Every execution and every round trip of the venue is in the journal, or it is reported."""
    events, audit = story
    without = [one for one in events if not isinstance(one, FillBooked)]

    assert len(history_differences(without, audit)) == 2
    assert history_differences(events, audit | {"trades": [{"entry_client_ids": []}]}) == [
        "1 round trips at the venue, 0 in the journal"
    ]


async def test_a_trade_that_was_only_planned_is_no_round_trip(story):
    """A worker that was killed between plan and sending closes the trade at its next start; the venue knows of none."""
    events, audit = story
    result = TradeResult(
        symbol=BTC, direction=Direction.LONG, reason=ExitReason.NOT_ENTERED, quantity=Decimal(0), entry_price=None,
        exit_price=None, pnl=Decimal(0), fees=Decimal(0), opened_at_ms=1, closed_at_ms=2, fills_complete=True,
    )  # fmt: skip
    never = TradeClosed(trade_id="never", result=result)
    entered = TradeClosed(trade_id="entered", result=replace(result, quantity=Decimal(1), reason=ExitReason.STOP))

    assert history_differences([*events, never], audit) == []
    assert closed_in([*events, never, entered]) == 1
