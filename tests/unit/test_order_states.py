"""The life of an order, state by state: what may follow what, and what each piece of news leaves as it was."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from inference.domain.order import OrderStatus
from inference.execution import lifecycle
from inference.execution.lifecycle import ABSENT, NOT_SENT, NOTHING_HAPPENED, REJECTED, TRANSITIONS, Order
from tests.property.test_lifecycle_reports import make_fill, make_order, make_report

INTENT = make_order().intent
VENUE = "ACCEPTED TRIGGERED PARTIALLY_FILLED FILLED CANCELED EXPIRED"
MAY_FOLLOW = {
    "INTENDED": f"IN_FLIGHT UNKNOWN REFUSED {VENUE}",
    "IN_FLIGHT": f"UNKNOWN REFUSED {VENUE}",
    "UNKNOWN": f"REFUSED {VENUE}",
    "ACCEPTED": "TRIGGERED PARTIALLY_FILLED REFUSED FILLED CANCELED EXPIRED",
    "TRIGGERED": "PARTIALLY_FILLED FILLED CANCELED EXPIRED",
    "PARTIALLY_FILLED": "FILLED CANCELED EXPIRED",
    "CANCELED": "FILLED",
    "EXPIRED": "FILLED",
    "REFUSED": VENUE,
    "FILLED": "",
}
STATES = [OrderStatus(name) for name in MAY_FOLLOW]


def in_state(status, **changes):
    return replace(Order(intent=INTENT), status=status, **changes)


def with_fills(*quantities, **changes):
    """Return an order with executions of so much each, at 101, 102 and so on."""
    fills = {str(number): make_fill(number, quantity) for number, quantity in enumerate(quantities, 1)}
    return replace(Order(intent=INTENT), fills=fills, **changes)


@pytest.mark.parametrize("status", STATES)
def test_what_may_follow_a_state_is_this_and_nothing_else(status):
    """A report moves an order along the table; what the table does not have changes no state."""
    allowed = {OrderStatus(name) for name in MAY_FOLLOW[status].split()}
    order = in_state(status, refusal="-2010" if status is OrderStatus.REFUSED else "")

    assert TRANSITIONS[status] == allowed
    for told in STATES:
        assert lifecycle.apply(order, make_report(told, 0)).status is (told if told in allowed else status)


def test_an_order_begins_with_nothing_known_of_it():
    """It is intended, nothing is executed, nobody refused it."""
    order = Order(intent=INTENT)

    assert (order.status, order.filled, order.average_price) == (OrderStatus.INTENDED, 0, None)
    assert (order.venue_order_id, order.child_order_id, order.refusal, order.fills) == ("", None, "", {})
    assert (order.executed, order.booked, order.remaining, order.price) == (0, 0, 10, None)


@pytest.mark.parametrize("status", STATES)
def test_each_state_is_at_the_venue_or_in_doubt_or_neither(status):
    """Live are three states, in doubt are three others; the rest is neither."""
    assert in_state(status).is_live is (status in ("ACCEPTED", "TRIGGERED", "PARTIALLY_FILLED"))
    assert in_state(status).may_exist is (status in ("INTENDED", "IN_FLIGHT", "UNKNOWN"))


@pytest.mark.parametrize(
    ("status", "refusal", "expected"),
    [
        ("REFUSED", "ABSENT", True),
        ("REFUSED", "NOTHING_HAPPENED", True),
        ("REFUSED", "NOT_SENT", True),
        ("REFUSED", "REJECTED", False),
        ("REFUSED", "-2010", False),
        ("EXPIRED", "ABSENT", False),
        ("ACCEPTED", "NOT_SENT", False),
    ],
)
def test_only_a_refusal_of_our_own_proves_that_it_never_existed(status, refusal, expected):
    """What the venue took and rejected existed, and so did what ended; the words are those of the journal."""
    assert in_state(OrderStatus(status), refusal=refusal).never_existed is expected
    assert (ABSENT, NOTHING_HAPPENED, NOT_SENT, REJECTED) == ("ABSENT", "NOTHING_HAPPENED", "NOT_SENT", "REJECTED")


def test_executed_is_what_the_better_source_knows():
    """Reports may be ahead of executions or behind them; no more remains than was asked for."""
    assert with_fills(2, filled=Decimal(3)).executed == 3
    assert with_fills(2, 2, filled=Decimal(1)).executed == 4
    assert with_fills(2, 2, filled=Decimal(1)).booked == 4
    assert with_fills(2, 2).remaining == 6
    assert with_fills(2, 2, 8).remaining == 0


@pytest.mark.parametrize(
    ("quantities", "filled", "average", "expected"),
    [
        pytest.param((), 0, None, None, id="nothing"),
        pytest.param((), 5, "99", "99", id="reports-alone"),
        pytest.param((1,), 1, "99", "101", id="executions-explain-all"),
        pytest.param((1, 3), 2, "99", "101.75", id="executions-know-more"),
        pytest.param((1, 3), 5, "99", "99", id="reports-know-more"),
        pytest.param((1, 3), 5, None, "101.75", id="reports-know-no-price"),
    ],
)
def test_the_price_is_that_of_whoever_knows_all(quantities, filled, average, expected):
    """Executions give the price once they explain what is reported, or where no report has one."""
    order = with_fills(*quantities, filled=Decimal(filled), average_price=average and Decimal(average))

    assert order.price == (None if expected is None else Decimal(expected))


def test_a_report_that_knows_no_more_changes_no_price():
    """An average comes with more executed, or not at all."""
    order = lifecycle.apply(make_order(), make_report(OrderStatus.PARTIALLY_FILLED, 4))
    other = replace(make_report(OrderStatus.PARTIALLY_FILLED, 4), average_price=Decimal(50))
    unpriced = replace(make_report(OrderStatus.PARTIALLY_FILLED, 6), average_price=None)
    more = replace(make_report(OrderStatus.PARTIALLY_FILLED, 6), average_price=Decimal(90))

    assert lifecycle.apply(order, other).average_price == 100
    assert (lifecycle.apply(order, unpriced).average_price, lifecycle.apply(order, unpriced).filled) == (100, 6)
    assert lifecycle.apply(order, more).average_price == 90


def test_a_full_quantity_is_filled_whatever_the_report_calls_it():
    """Ten of ten is filled; nine of ten is what the venue says."""
    assert lifecycle.apply(make_order(), make_report(OrderStatus.CANCELED, 10)).status is OrderStatus.FILLED
    assert lifecycle.apply(make_order(), make_report(OrderStatus.CANCELED, 9)).status is OrderStatus.CANCELED


def test_the_first_ids_stay_and_a_childs_is_not_the_orders_own():
    """What a stop became reports under the stop's name with an id of its own, which is kept beside it."""
    fired = replace(make_report(OrderStatus.TRIGGERED, 0), venue_order_id="9", child_order_id="9")
    own = replace(make_report(OrderStatus.ACCEPTED, 0), venue_order_id="7", child_order_id=None)
    other = replace(make_report(OrderStatus.TRIGGERED, 0), venue_order_id="8", child_order_id="5")

    child_first = lifecycle.apply(make_order(), fired)
    both = lifecycle.apply(lifecycle.apply(make_order(), own), fired)

    assert (child_first.venue_order_id, child_first.child_order_id) == ("", "9")
    assert (both.venue_order_id, both.child_order_id) == ("7", "9")
    later = lifecycle.apply(both, other)
    assert (later.venue_order_id, later.child_order_id) == ("7", "9")


def test_a_rejection_without_a_code_has_a_word_of_its_own():
    """A code that is known already stays, and what is not refused has no new one."""
    rejected = make_report(OrderStatus.REFUSED, 0)

    assert lifecycle.apply(make_order(), rejected).refusal == "REJECTED"
    assert lifecycle.apply(in_state(OrderStatus.REFUSED, refusal="-2010"), rejected).refusal == "-2010"
    assert lifecycle.apply(make_order(), make_report(OrderStatus.ACCEPTED, 0)).refusal == ""
    found = lifecycle.apply(in_state(OrderStatus.REFUSED, refusal=ABSENT), make_report(OrderStatus.ACCEPTED, 0))
    assert (found.status, found.refusal) == (OrderStatus.ACCEPTED, ABSENT)


@pytest.mark.parametrize("status", STATES)
def test_a_part_that_executes_moves_what_may_still_execute(status):
    """Two of ten move an order to partly filled where the table has it; the rest fills it from anywhere."""
    part = lifecycle.book(in_state(status), make_fill(1, 2))
    whole = lifecycle.book(part, make_fill(2, 8))
    moves = "PARTIALLY_FILLED" in MAY_FOLLOW[status].split()

    assert part.status is (OrderStatus.PARTIALLY_FILLED if moves else status)
    assert (part.booked, whole.booked, whole.status) == (2, 10, OrderStatus.FILLED)
    assert lifecycle.book(part, make_fill(1, 8)) is part


@pytest.mark.parametrize("status", STATES)
def test_only_what_is_in_doubt_or_never_was_is_sent_again(status):
    """Sent, an order is in flight with its new intent and without its old refusal; all others stay as they are."""
    again = replace(INTENT, quantity=Decimal(7))
    for refusal in ("-2010", ABSENT):
        order = in_state(status, refusal=refusal)
        sent = lifecycle.sent(order, again)
        if status in ("INTENDED", "IN_FLIGHT", "UNKNOWN") or (status == "REFUSED" and refusal == ABSENT):
            assert (sent.status, sent.intent, sent.refusal) == (OrderStatus.IN_FLIGHT, again, "")
        else:
            assert sent is order


@pytest.mark.parametrize("status", STATES)
def test_a_refusal_reaches_only_what_has_not_executed(status):
    """Evidence that the venue has an order outweighs its denial."""
    order = in_state(status)
    refused = lifecycle.refused(order, "-2010")
    begun = in_state(status, filled=Decimal(1))
    if status in ("INTENDED", "IN_FLIGHT", "UNKNOWN", "ACCEPTED"):
        assert (refused.status, refused.refusal) == (OrderStatus.REFUSED, "-2010")
    else:
        assert refused is order

    assert lifecycle.refused(begun, "-2010") is begun


@pytest.mark.parametrize("status", STATES)
def test_what_the_venue_has_no_more_ended_if_it_ever_did_anything(status):
    """Executed or fired, it is over; otherwise it never was; what has ended stays as it ended."""
    order, begun = in_state(status), in_state(status, filled=Decimal(1))
    if status in ("FILLED", "CANCELED", "EXPIRED", "REFUSED"):
        assert lifecycle.absent(order) is order
        return
    gone = lifecycle.absent(order)

    assert gone.refusal == lifecycle.absent(begun).refusal == ABSENT
    assert gone.status is (OrderStatus.EXPIRED if status == "TRIGGERED" else OrderStatus.REFUSED)
    assert lifecycle.absent(begun).status is OrderStatus.EXPIRED
