from __future__ import annotations

import random
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from inference.domain.order import Fill, OrderIntent, OrderReport, OrderStatus, OrderType, Purpose, Side
from inference.execution import lifecycle
from inference.execution.lifecycle import TRANSITIONS, Order

QUANTITY = Decimal(10)


def make_order() -> Order:
    intent = OrderIntent(
        client_order_id="qt-a-E1",
        trade_id="a",
        trace_id="t",
        symbol="BTC/USDT:USDT",
        side=Side.BUY,
        order_type=OrderType.MARKET,
        purpose=Purpose.ENTRY,
        quantity=QUANTITY,
    )
    return lifecycle.sent(Order(intent=intent), intent)


def make_report(status: OrderStatus, filled: int) -> OrderReport:
    return OrderReport(
        client_order_id="qt-a-E1",
        venue_order_id="1",
        symbol="BTC/USDT:USDT",
        status=status,
        filled=Decimal(filled),
        average_price=Decimal(100) if filled else None,
        event_time_ms=0,
    )


def make_fill(number: int, quantity: int) -> Fill:
    return Fill(
        fill_id=str(number),
        client_order_id="qt-a-E1",
        venue_order_id="1",
        symbol="BTC/USDT:USDT",
        side=Side.BUY,
        quantity=Decimal(quantity),
        price=Decimal(100 + number),
        fee=Decimal(1),
        is_maker=False,
        event_time_ms=0,
    )


VENUE_STATUSES = st.sampled_from(sorted(set(OrderStatus) - {OrderStatus.INTENDED, OrderStatus.IN_FLIGHT}))
reports = st.builds(make_report, VENUE_STATUSES, st.integers(0, 10))
fills = st.builds(make_fill, st.integers(1, 5), st.just(2))
news = st.lists(st.one_of(reports, fills), max_size=25)


def tell(order: Order, one: OrderReport | Fill) -> Order:
    return lifecycle.book(order, one) if isinstance(one, Fill) else lifecycle.apply(order, one)


@given(news)
def test_executed_quantity_never_falls(batch):
    """Whatever the venue repeats, reorders or invents, what was executed is never forgotten."""
    order = make_order()
    for one in batch:
        after = tell(order, one)
        assert after.executed >= order.executed
        order = after


@given(news)
def test_every_change_is_in_the_table(batch):
    """A state is only ever followed by one that the table allows, a full fill aside."""
    order = make_order()
    for one in batch:
        after = tell(order, one)
        allowed = TRANSITIONS[order.status] | {order.status}
        assert after.status in allowed or (after.status is OrderStatus.FILLED and after.executed >= QUANTITY)
        order = after


@given(news)
def test_repeating_news_changes_nothing(batch):
    """Saying everything twice leaves the same order."""
    once, twice = make_order(), make_order()
    for one in batch:
        once, twice = tell(once, one), tell(tell(twice, one), one)

    assert once == twice


@given(st.integers(0, 4), st.integers(0, 1000))
def test_one_true_story_ends_the_same_in_any_order(filled, seed):
    """The reports of one consistent life lead to one end, however they are shuffled and repeated."""
    story = [
        make_report(OrderStatus.ACCEPTED, 0),
        *(make_report(OrderStatus.PARTIALLY_FILLED, 2 * count) for count in range(1, filled + 1)),
        *(make_fill(count, 2) for count in range(1, filled + 1)),
        make_report(OrderStatus.EXPIRED, 2 * filled),
    ]
    straight = make_order()
    for one in story:
        straight = tell(straight, one)
    chaos = random.Random(seed)
    mixed = story + chaos.sample(story, k=len(story) // 2)
    chaos.shuffle(mixed)
    order = make_order()
    for one in mixed:
        order = tell(order, one)

    assert order == straight or (order.status, order.executed, dict(order.fills)) == (
        straight.status,
        straight.executed,
        dict(straight.fills),
    )


def test_a_late_acceptance_does_not_reopen_a_filled_order():
    """NEW arriving after FILLED changes nothing, and a smaller cumulative quantity is old news."""
    order = lifecycle.apply(make_order(), make_report(OrderStatus.FILLED, 10))
    assert lifecycle.apply(order, make_report(OrderStatus.ACCEPTED, 0)) == order
    partial = lifecycle.apply(make_order(), make_report(OrderStatus.PARTIALLY_FILLED, 6))
    assert lifecycle.apply(partial, make_report(OrderStatus.PARTIALLY_FILLED, 4)).filled == 6


def test_a_fill_that_overtakes_a_cancel_is_booked():
    """A cancelled order that turns out filled is filled."""
    order = lifecycle.apply(make_order(), make_report(OrderStatus.CANCELED, 0))
    assert lifecycle.apply(order, make_report(OrderStatus.FILLED, 10)).status is OrderStatus.FILLED


def test_a_market_order_that_expires_keeps_what_it_filled():
    """EXPIRED with a quantity books that quantity: never the status alone."""
    order = lifecycle.apply(make_order(), make_report(OrderStatus.EXPIRED, 3))
    assert (order.status, order.executed) == (OrderStatus.EXPIRED, 3)
