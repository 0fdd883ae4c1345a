"""Which words of a venue count as errors, and how they are counted."""

from __future__ import annotations

from decimal import Decimal

import pytest

from inference.domain.events import AccountMarked, OrderFoundAbsent, OrderIntended, OrderRefused, OrderReported
from inference.domain.order import OrderStatus
from inference.risk.errors import LEAST_OUTCOMES, ErrorClass, ErrorCounts, ExecutionErrors, error_class, is_error
from tests.property.test_lifecycle_reports import make_order, make_report

KEY = "qt-a-E1"


def refused(code="-2019", key=KEY):
    return OrderRefused(client_order_id=key, code=code, message="")


def reported(status):
    return OrderReported(report=make_report(status, 0))


def counted(*events, window=60.0):
    """Return a counter that heard of these, a second apart from 0 on."""
    errors = ExecutionErrors(window_seconds=window)
    for at, event in enumerate(events):
        errors.note(event, float(at))
    return errors


INTENDED = OrderIntended(intent=make_order().intent)


@pytest.mark.parametrize(
    "code",
    ["AccountError", "-1002", "-1022", "-2008", "-2014", "-2015", "-4400", "-4028", "-4046", "-4047", "-4048",
     "-4059", "-4061", "-4067", "-4068", "-4108", "-4140", "-2021", "-2022", "-4118", "-5022", "NOT_SENT"],
)  # fmt: skip
def test_what_is_ordinary_or_holds_entries_back_by_itself_is_no_error(code):
    """Keys, account, symbol, a price that moved, a guard of our own: none says that execution is broken."""
    assert error_class(code) is None
    assert not is_error(code)
    assert counted(refused(code)).counts(1.0) == ErrorCounts()


@pytest.mark.parametrize("code", ["NOTHING_HAPPENED", "ABSENT"])
def test_what_nobody_answered_is_a_class_of_its_own(code):
    """It counts in the share of the window, and in no row."""
    assert error_class(code) is ErrorClass.UNANSWERED
    assert not is_error(code)
    assert counted(refused(code)).counts(1.0) == ErrorCounts(in_row=0, failed=1, outcomes=1)


@pytest.mark.parametrize("code", ["-2019", "REJECTED", "-1", ""])
def test_every_other_no_is_an_error(code):
    """What is not known to be harmless is not taken to be."""
    assert error_class(code) is ErrorClass.REFUSED
    assert is_error(code)
    assert counted(refused(code)).counts(1.0) == ErrorCounts(in_row=1, failed=1, outcomes=1)


def test_classes_are_called_as_they_are_written():
    """The words of the record are the names."""
    assert [(one.name, one.value) for one in ErrorClass] == [("REFUSED", "REFUSED"), ("UNANSWERED", "UNANSWERED")]


def test_no_share_is_taken_of_fewer_than_twenty():
    """Of 19 outcomes nothing is said, of 20 the share is exact."""
    assert LEAST_OUTCOMES == 20
    assert ErrorCounts(failed=19, outcomes=19).share == 0
    assert ErrorCounts(failed=5, outcomes=20).share == 0.25
    assert ErrorCounts() == ErrorCounts(in_row=0, failed=0, outcomes=0)
    assert ErrorCounts().share == 0


def test_an_order_has_one_outcome_for_each_time_it_is_sent():
    """The first report counts, those after it and those of orders that we did not send do not."""
    accepted, filled = reported(OrderStatus.ACCEPTED), reported(OrderStatus.FILLED)

    assert counted(accepted).counts(1.0) == ErrorCounts()
    assert counted(INTENDED, accepted, filled).counts(3.0) == ErrorCounts(outcomes=1)
    assert counted(INTENDED, accepted, INTENDED, filled).counts(4.0) == ErrorCounts(outcomes=2)
    assert counted(INTENDED, refused(), accepted).counts(3.0) == ErrorCounts(in_row=1, failed=1, outcomes=1)


def test_refusals_count_in_a_row_until_one_is_taken():
    """A rejection by report counts as a refusal does; an order that is taken ends the row."""
    rejected, accepted = reported(OrderStatus.REFUSED), reported(OrderStatus.ACCEPTED)

    assert counted(refused(), refused(), INTENDED, rejected).counts(4.0) == ErrorCounts(in_row=3, failed=3, outcomes=3)
    assert counted(refused(), INTENDED, accepted).counts(3.0) == ErrorCounts(in_row=0, failed=1, outcomes=2)
    assert counted(refused(), refused("ABSENT")).counts(2.0) == ErrorCounts(in_row=1, failed=2, outcomes=2)


def test_an_order_that_is_found_absent_failed_and_is_no_refusal():
    """It counts once: what is reported of it afterwards is no other outcome."""
    gone = OrderFoundAbsent(client_order_id=KEY)
    errors = counted(INTENDED, gone, reported(OrderStatus.ACCEPTED))

    assert errors.counts(3.0) == ErrorCounts(in_row=0, failed=1, outcomes=1)


def test_what_is_not_of_orders_counts_nothing():
    """An account's mark is no outcome."""
    mark = AccountMarked(equity=Decimal(1), day_start_equity=Decimal(1), peak_equity=Decimal(1))

    assert counted(mark).counts(1.0) == ErrorCounts()


def test_the_oldest_outcomes_leave_the_window_first():
    """A window of 60 s holds what happened 60 s ago, and nothing older; the row has no window."""
    errors = counted(refused(), INTENDED, reported(OrderStatus.ACCEPTED), refused())

    assert errors.counts(60.0) == ErrorCounts(in_row=1, failed=2, outcomes=3)
    assert errors.counts(60.5) == ErrorCounts(in_row=1, failed=1, outcomes=2)
    assert errors.counts(62.5) == ErrorCounts(in_row=1, failed=1, outcomes=1)
    assert errors.counts(1000.0) == ErrorCounts(in_row=1)


def test_after_a_reset_nothing_was_and_what_was_sent_still_counts():
    """Row and window begin anew; an order under way has its outcome still before it."""
    errors = counted(refused(), refused(), INTENDED)
    errors.forget()

    assert errors.counts(3.0) == ErrorCounts()
    errors.note(reported(OrderStatus.REFUSED), 4.0)
    assert errors.counts(4.0) == ErrorCounts(in_row=1, failed=1, outcomes=1)
