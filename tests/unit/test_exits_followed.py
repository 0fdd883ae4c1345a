"""The worker tells exit profiles what closed, and a trade's story says by which of its exits it ended."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.candle import CandleBlock, Timeframe
from inference.decision import decide
from inference.domain.decision import Approved
from inference.domain.events import ExitObserved, OrderIntended, TradePlanned
from inference.domain.exit_state import CandleClosed, EmergencyCalled, Priced
from inference.domain.order import OrderType, Purpose
from inference.domain.policy import Policy
from inference.domain.trade import ExitReason
from inference.exchange.capabilities import CAPABILITIES
from inference.execution.book import Book
from inference.execution.planning import trade_plan
from inference.execution.steps import intent_of
from inference.feed.batches import BatchAssembler, CandleBatch
from inference.feed.recent import RecentCandles
from inference.feed.seen_closes import seen_closes
from inference.journal.codec import event_of
from inference.journal.reader import read_entries
from inference.policy.exit_venues import no_exit_profiles
from inference.telemetry.story import event_line
from tests.worker_stage import History, process, staged
from tests.worker_values import T0, make_snapshot

BTC = "BTC/USDT:USDT"
STEP = 300_000
D = Decimal


def approved(name: str) -> Approved:
    (decision,) = decide(make_snapshot(), Policy(exit_profile=name), T0)
    assert isinstance(decision, Approved)
    return decision


def batch(number: int, *closes: float, late: bool = False) -> CandleBatch:
    """Return the batch of a close, with a block of so many closes that ends there, or a candle before where late."""
    ends = T0 + (number - late) * STEP
    times = np.array([ends - (len(closes) - place) * STEP for place in range(len(closes))], np.int64)
    values = np.array([[close, close, close, close, 1.0] for close in closes]).reshape(len(closes), 5)
    blocks = {BTC: CandleBlock(times, values)} if closes else {}
    return CandleBatch(close_time_ms=T0 + number * STEP, blocks=blocks, late=())


def test_what_closed_is_told_oldest_first():
    """Candles of a gap come one by one, the newest once more as a price; time passes where none is there."""
    seen = seen_closes(batch(3, 1.5, 2.5), [BTC, "X"], timeframe=Timeframe("5m"))
    times = [T0 + 2 * STEP, T0 + 3 * STEP]
    assert seen[BTC] == (
        CandleClosed(close_ms=times[0], close=D("1.5")), CandleClosed(close_ms=times[1], close=D("2.5")),
        Priced(at_ms=times[1], price=D("2.5")),
    )  # fmt: skip
    assert seen["X"] == (CandleClosed(close_ms=times[1], close=None),)
    late = seen_closes(batch(3, 1.5, late=True), [BTC], timeframe=Timeframe("5m"))[BTC]
    assert late[1] == CandleClosed(close_ms=times[1], close=None)


@given(st.lists(st.floats(), max_size=4))
def test_no_number_of_a_feed_breaks_the_exits(closes):
    """Whatever floats candles hold, what is no price is a candle without a close."""
    told = seen_closes(batch(4, *closes), [BTC], timeframe=Timeframe("5m"))[BTC]
    prices = [one.close for one in told if isinstance(one, CandleClosed)]
    assert len(prices) == max(1, len(closes))
    assert all(one is None or (one.is_finite() and one > 0) for one in prices)


def closed_after_a_history(*closes: float) -> CandleBatch:
    """Return the batch that the feed hands out of some closes that follow a history at 50,000."""
    times = T0 + STEP * np.arange(-70, len(closes))
    numbers = np.array([50_000.0] * 70 + list(closes))
    block = CandleBlock(times, np.column_stack([numbers, numbers, numbers, numbers, np.ones(len(times))]))
    recent = RecentCandles(Timeframe("5m"))
    recent.add(BTC, block[:70])
    feed = BatchAssembler(last_open_ms={BTC: T0 - STEP}, timeframe=Timeframe("5m"), recent=recent)
    for one in block[70:].candles():
        feed.offer(BTC, one)
    return feed.take(T0 + len(closes) * STEP)


def test_what_no_market_has_made_has_no_close_for_the_exits():
    """A refused candle is one without a close; as the newest it leaves nothing that counts as a price."""
    absurd = closed_after_a_history(50_100.0, 1e8)
    told = seen_closes(absurd, [BTC], timeframe=Timeframe("5m"))[BTC]
    assert told == (
        CandleClosed(close_ms=T0 + STEP, close=D("50100.0")), CandleClosed(close_ms=T0 + 2 * STEP, close=None),
    )  # fmt: skip


@pytest.mark.parametrize("close", [1e8, 400.0])
async def test_no_absurd_close_moves_a_stop_or_ends_a_trade(tmp_path, close):
    """Far above it would pull the stop after it, far below it would look like a liquidation; neither happens."""
    with staged(tmp_path, History()) as (worker, clock, gateway):
        worker.plan = replace(worker.plan, policy=Policy(exit_profile="CHALLENGE_100"))
        await clock.drive(worker.executor.start())
        await clock.drive(worker.executor.enter(approved("CHALLENGE_100"), candle_close_ms=T0))
        gateway.move(BTC, D(50_010))
        await clock.drive(worker.executor.settle(BTC))
        (before,) = worker.executor.book.active()
        worker._leave_overdue(closed_after_a_history(50_010.0, close))
        await clock.drive(worker.executor.settle(BTC))

        (trade,) = worker.executor.book.active()
        assert trade.exit_state.stop_price == before.exit_state.stop_price
        assert not trade.exit_state.closing
        assert trade.open_quantity == before.open_quantity > 0


async def test_the_worker_moves_the_stop_and_keeps_the_time(tmp_path):
    """A close moves the stop of a profiled trade; the time of its profile ends it, not the policy's."""
    with staged(tmp_path, History()) as (worker, clock, gateway):
        worker.plan = replace(worker.plan, policy=Policy(max_holding_candles=1, exit_profile="CHALLENGE_100"))
        await clock.drive(worker.executor.start())
        await clock.drive(worker.executor.enter(approved("CHALLENGE_100"), candle_close_ms=T0))
        gateway.move(BTC, D(50_310))
        await clock.drive(worker.executor.settle(BTC))
        worker._leave_overdue(batch(2, 50_400.0))
        await clock.drive(worker.executor.settle(BTC))
        (trade,) = worker.executor.book.active()
        assert trade.exit_state is not None
        assert trade.exit_state.stop_price == D("50200.0")
        assert worker.executor.book.timed() == {}
        trades = worker.executor.book.trades
        await process(worker, batch(24, 50_400.0), until=lambda: trades[trade.plan.trade_id].exit_state.closing)
        await clock.drive(worker.executor.settle(BTC))

        assert worker.executor.closed[0].reason is ExitReason.TIME_BARRIER
        events = [event_of(one) for one in read_entries(tmp_path / "journal.jsonl")]
        assert [event.seen.close_ms for event in events if isinstance(event, ExitObserved)] == [
            T0 + 2 * STEP, T0 + 24 * STEP,
        ]  # fmt: skip
        assert worker.exits.profile.name == "CHALLENGE_100"


@pytest.mark.parametrize("venue", sorted(CAPABILITIES))
def test_a_venue_that_holds_no_such_orders_says_so(venue):
    """Spot, and where targets rest as limit orders, no exit profile is carried out; the venue is named."""
    can, reason = CAPABILITIES[venue], no_exit_profiles(venue)
    assert (reason == "") == (can.reduce_only and can.target_type is OrderType.TAKE_PROFIT_MARKET)
    assert not reason or reason.startswith(venue)


def test_the_story_names_the_exits():
    """The profile, its targets, why a stop moved and what was seen are told in words."""
    decision = approved("CHALLENGE_100")
    plan = trade_plan(
        decision, candle_close_ms=T0, now_ms=T0, style=Policy().entry_style, patience_ms=0, arrival_price=None
    )
    assert "exit profile CHALLENGE_100, whose targets take 30" in event_line(T0, TradePlanned(plan=plan))
    seen = [
        (CandleClosed(close_ms=T0, close=D("1.50")), "a candle closed at 1.5"),
        (CandleClosed(close_ms=T0, close=None), "the time of a candle passed"),
        (Priced(at_ms=T0, price=D(2)), "a price of 2"),
        (EmergencyCalled(at_ms=T0), "an emergency was called"),
    ]
    for one, words in seen:
        assert words in event_line(T0, ExitObserved(trade_id="a", seen=one))
    book = Book.rebuilt([TradePlanned(plan=plan)])
    intent = intent_of(book.trades[plan.trade_id], Purpose.STOP, D(1))
    moved = replace(intent, because=ExitReason.BREAK_EVEN)
    assert event_line(T0, OrderIntended(intent=moved)).endswith(", BREAK_EVEN.")
    assert event_line(T0, OrderIntended(intent=replace(intent, target=2))).endswith(", target 2.")
