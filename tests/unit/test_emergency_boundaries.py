"""The emergency stop at and beside each of its walls, with the numbers it tells, and what it closes."""

from __future__ import annotations

import math
from dataclasses import replace
from decimal import Decimal

import pytest

from inference.domain.health import HealthLevel
from inference.domain.market import Quote
from inference.domain.policy import Policy
from inference.domain.position import Account
from inference.domain.signal import Direction
from inference.risk.emergency import (
    ACTIONS,
    FLATTEN,
    Action,
    Bases,
    Evaluator,
    Trip,
    bases_of,
    evaluate,
    positions_to_close,
)
from inference.risk.errors import ErrorCounts
from tests.property.test_emergency_rules import account, inputs, position
from tests.worker_values import T0

POLICY = Policy()
HOLD = (Action.CANCEL_ENTRIES, Action.KEEP_STOPS, Action.ALERT)


def tripped(**changes):
    return evaluate(inputs(**changes), POLICY).trips


def bases(*, day=10_000, week=10_000, peak=10_000):
    return Bases(day=Decimal(day), week=Decimal(week), peak=Decimal(peak))


def test_what_each_evaluator_does_is_this_and_in_this_order():
    """Drawdown closes losers and reduces the rest; all others hold; a person who flattens closes everything."""
    assert ACTIONS == {
        Evaluator.DRAWDOWN: (Action.CANCEL_ENTRIES, Action.KEEP_STOPS, Action.CLOSE_LOSERS, Action.REDUCE_REST,
                             Action.ALERT),
        Evaluator.SYSTEM_HEALTH: HOLD,
        Evaluator.EXECUTION_ERRORS: HOLD,
        Evaluator.DATA_FEED: HOLD,
        Evaluator.MANUAL: HOLD,
    }  # fmt: skip
    assert FLATTEN == (Action.CANCEL_ENTRIES, Action.KEEP_STOPS, Action.FLATTEN, Action.ALERT)


@pytest.mark.parametrize("kind", [Evaluator, Action])
def test_the_words_of_the_record_are_the_names(kind):
    """Journals hold them."""
    assert [one.value for one in kind] == [one.name for one in kind]


# -- drawdown ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("equity", "base", "what", "wall"),
    [
        pytest.param("8500", {"day": 10_000, "week": 8500, "peak": 8500}, "day", "0.15", id="day"),
        pytest.param("7500", {"day": 7500, "week": 10_000, "peak": 7500}, "week", "0.25", id="week"),
        pytest.param("8000", {"day": 8000, "week": 8000, "peak": 10_000}, "peak", "0.20", id="peak"),
    ],
)
def test_just_the_wall_stops_and_a_cent_less_does_not(equity, base, what, wall):
    """Each wall is of its own base, and the trip tells what was compared."""
    (trip,) = tripped(account=account(equity), bases=bases(**base))

    assert trip == Trip(
        evaluator=Evaluator.DRAWDOWN,
        reason=f"equity fell by {Decimal(wall):.2%} from the {what}'s 10000, the wall is {Decimal(wall):.2%}",
        actions=ACTIONS[Evaluator.DRAWDOWN],
        numbers={"of": what, "drawdown": wall.rstrip("0"), "wall": wall, "equity": equity},
    )
    assert tripped(account=account(Decimal(equity) + Decimal("0.01")), bases=bases(**base)) == ()


def test_a_fall_of_just_the_wall_stops_however_it_divides():
    """Divided, it may round to a little less than the wall."""
    third = Decimal(1) / 3
    for begun in (third * number for number in range(1, 60)):
        just = begun * (1 - POLICY.wall_daily_drawdown)
        held = Account(equity=just, day_start_equity=begun, peak_equity=begun)

        assert len(tripped(account=held, bases=Bases(day=begun, week=begun, peak=begun))) == 1


@pytest.mark.parametrize(
    ("equity", "base", "fall"),
    [("0", "0", "1"), ("-0.5", "0", "1"), ("-1", "-5", "1"), ("-10", "-5", "1"), ("0.5", "0", None),
     ("0.4", "0.5", "0.2"), ("0.3", "0.5", "0.4"), ("0.5", "-0.5", None)],
)  # fmt: skip
def test_of_a_base_that_is_nothing_everything_is_lost_or_nothing(equity, base, fall):
    """Without equity all is lost, with some of it nothing; a base of less than one counts like any other."""
    same = bases(day=base, week=base, peak=base)
    trips = tripped(account=account(equity, day=base, week=base, peak=base), bases=same)

    assert [one.numbers["drawdown"] for one in trips] == ([] if fall is None else [fall])


@pytest.mark.parametrize("what", ["day", "week", "peak"])
@pytest.mark.parametrize("value", ["NaN", "Infinity"])
def test_a_base_that_is_no_number_is_a_missing_input(what, value):
    """The other two do not stand in for it."""
    verdict = evaluate(inputs(bases=bases(**{what: value})), POLICY)

    assert (verdict.missing, verdict.trips) == ((Evaluator.DRAWDOWN,), ())


@pytest.mark.parametrize(("age", "is_missing"), [(60.0, False), (60.5, True), (math.inf, True)])
def test_equity_of_a_minute_ago_counts_still(age, is_missing):
    """What is older says nothing of drawdown."""
    verdict = evaluate(inputs(account_age_seconds=age), POLICY)

    assert verdict.missing == ((Evaluator.DRAWDOWN,) if is_missing else ())


def test_everyone_may_trip_or_be_blind_at_once():
    """Each is asked whatever the others say, in a fixed order."""
    all_four = tripped(
        account=account(1), health=HealthLevel.EMERGENCY, errors=ErrorCounts(in_row=9), feed_overdue_seconds=1e9
    )
    blind = evaluate(inputs(account=None, health=None, errors=None, feed_overdue_seconds=None), POLICY)
    order = (Evaluator.DRAWDOWN, Evaluator.SYSTEM_HEALTH, Evaluator.EXECUTION_ERRORS, Evaluator.DATA_FEED)

    assert tuple(one.evaluator for one in all_four) == order
    assert (blind.missing, blind.trips) == (order, ())


# -- health, errors, feed ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "seconds", "trips"),
    [
        (HealthLevel.CRITICAL, 59.9, False),
        (HealthLevel.CRITICAL, 60.0, True),
        (HealthLevel.DEGRADED, 600.0, False),
        (HealthLevel.HEALTHY, 600.0, False),
        (HealthLevel.EMERGENCY, 0.0, True),
        (HealthLevel.EMERGENCY, 600.0, True),
    ],
)
def test_critical_health_stops_once_it_lasts(level, seconds, trips):
    """What has failed stops at once."""
    found = tripped(health=level, health_seconds=seconds)
    numbers = {"health": level.value, "seconds": f"{seconds:.1f}", "limit": "60"}

    assert [one.numbers for one in found] == ([numbers] if trips else [])


@pytest.mark.parametrize(
    ("counts", "numbers"),
    [
        (ErrorCounts(in_row=5), None),
        (ErrorCounts(in_row=6), {"in_row": "6", "limit": "5"}),
        (ErrorCounts(failed=10, outcomes=20), None),
        (ErrorCounts(failed=11, outcomes=20), {"failed": "11", "outcomes": "20", "limit": "0.5"}),
        (ErrorCounts(in_row=6, failed=11, outcomes=20), {"in_row": "6", "limit": "5"}),
    ],
)
def test_more_errors_than_the_limits_stop(counts, numbers):
    """Five in a row and half of all are allowed; the row is looked at first."""
    assert [one.numbers for one in tripped(errors=counts)] == ([] if numbers is None else [numbers])


@pytest.mark.parametrize(
    ("overdue", "trips", "is_missing"),
    [(0.0, False, False), (0.5, False, False), (300.0, False, False), (300.5, True, False), (-0.5, False, True)],
)
def test_a_feed_that_is_silent_for_more_than_the_limit_stops(overdue, trips, is_missing):
    """What lies in the future is no time."""
    verdict = evaluate(inputs(feed_overdue_seconds=overdue), POLICY)
    numbers = {"overdue_seconds": f"{overdue:.1f}", "limit": "300"}

    assert [one.numbers for one in verdict.trips] == ([numbers] if trips else [])
    assert verdict.missing == ((Evaluator.DATA_FEED,) if is_missing else ())


# -- what is closed ----------------------------------------------------------------------------------------------------


def quote(symbol, bid, ask):
    return Quote(symbol=symbol, bid=Decimal(bid), ask=Decimal(ask), event_time_ms=T0)


def chosen(actions, positions, *, quotes=(), heat=None, share="0.5"):
    return positions_to_close(
        actions, positions={one.symbol: one for one in positions}, quotes={one.symbol: one for one in quotes},
        heat={symbol: Decimal(value) for symbol, value in (heat or {}).items()}, reduce_share=Decimal(share),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("direction", "bid", "ask", "loses"),
    [
        (Direction.LONG, 99, 102, True),
        (Direction.LONG, 100, 102, False),
        (Direction.LONG, 101, 102, False),
        (Direction.SHORT, 98, 101, True),
        (Direction.SHORT, 98, 100, False),
        (Direction.SHORT, 98, 99, False),
    ],
)
def test_who_loses_is_seen_at_the_price_a_position_can_be_left_at(direction, bid, ask, loses):
    """A long is sold at the bid, a short bought back at the ask; at its entry neither loses."""
    one = position("A", direction=direction)
    found = chosen((Action.CLOSE_LOSERS,), [one], quotes=[quote("A", bid, ask)])

    assert found == ({"A": "close losers"} if loses else {})
    assert chosen((Action.CLOSE_LOSERS,), [one]) == {}


def test_flattening_closes_all_and_says_so_in_order():
    """Whatever else is to be done."""
    held = [position("B"), position("A")]

    assert list(chosen((*FLATTEN, Action.CLOSE_LOSERS), held).items()) == [("A", "flatten"), ("B", "flatten")]
    assert chosen((Action.ALERT, Action.KEEP_STOPS), held, quotes=[quote("A", 1, 1)]) == {}


def test_losers_are_named_in_order_and_the_rest_is_left():
    """Closing losers reduces nothing by itself, and reducing asks for no loser."""
    held = [position("C"), position("B"), position("A")]
    quotes = [quote("C", 1, 1), quote("A", 1, 1), quote("B", 200, 200)]

    assert list(chosen((Action.CLOSE_LOSERS,), held, quotes=quotes)) == ["A", "C"]
    assert chosen((Action.REDUCE_REST,), held, quotes=quotes, heat={"B": 1}, share="0.1") == {"B": "reduce the rest"}


def test_of_the_rest_the_riskiest_go_first_then_the_largest_then_by_name():
    """Until the share of what is left after the losers is gone; a position without a known risk has none."""
    held = [position("E"), position("D"), position("C", quantity=2), position("B"), position("A")]
    actions, quotes = (Action.CLOSE_LOSERS, Action.REDUCE_REST), [quote("A", 1, 1)]

    def order(share):
        return list(chosen(actions, held, quotes=quotes, heat={"E": 5, "A": 9}, share=share).items())

    whole = [("A", "close losers"), *((name, "reduce the rest") for name in ("E", "C", "B", "D"))]
    # Of 500 that are left: E is 100, C 200, B and D 100 each.
    assert [len(order(share)) for share in ("0.2", "0.201", "0.6", "0.601", "0.8", "0.801")] == [2, 3, 3, 4, 4, 5]
    assert order("1") == whole
    assert order("0.6") == whole[:3]


def test_nothing_more_is_closed_once_the_share_is_gone_to_the_last_fraction():
    """A share of half of two equal positions is one of them; a fraction more is both."""
    held = [position("A", quantity=1, price=1), position("B", quantity=1, price=1)]

    assert list(chosen((Action.REDUCE_REST,), held, share="0.5")) == ["A"]
    assert list(chosen((Action.REDUCE_REST,), held, share="0.75")) == ["A", "B"]
    assert chosen((Action.REDUCE_REST,), held, share="0") == {}


# -- what drawdown is measured from ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reset", "same_day", "same_week", "day", "week"),
    [
        (None, True, True, 9000, 9500),
        (8000, True, True, 8000, 8000),
        (8000, True, False, 8000, 9500),
        (8000, False, True, 9000, 8000),
        (8000, False, False, 9000, 9500),
        (9200, True, True, 9000, 9200),
        (9900, True, True, 9000, 9500),
        (0, True, True, 9000, 9500),
        (-5, True, True, 9000, 9500),
        ("0.5", True, True, "0.5", "0.5"),
    ],
)
def test_a_reset_lowers_the_base_of_its_day_and_its_week(reset, same_day, same_week, day, week):
    """Only where it is lower, only while they last, and only by equity that is something."""
    held = account(9700, day=9000, week=9500, peak=11_000)
    found = bases_of(
        held, reset_equity=None if reset is None else Decimal(reset), same_day=same_day, same_week=same_week
    )

    assert found == bases(day=day, week=week, peak=11_000)


@pytest.mark.parametrize(("day", "week"), [("NaN", 9500), (9000, "NaN"), ("Infinity", 9500), (9000, "Infinity")])
def test_a_reset_mends_no_base_that_is_no_number(day, week):
    """Who cannot say what was lost is not told that nothing was."""
    held = account(9700, day=day, week=week)
    found = bases_of(held, reset_equity=Decimal(8000), same_day=True, same_week=True)

    assert found is not None
    assert (str(found.day), str(found.week)) == (str(day), str(week))


def test_a_journal_from_before_weeks_measures_the_week_from_the_day():
    """An account without a week's mark has the day's."""
    held = Account(equity=Decimal(1), day_start_equity=Decimal(7), peak_equity=Decimal(9))

    assert bases_of(held, reset_equity=None, same_day=True, same_week=True) == bases(day=7, week=7, peak=9)
    assert replace(held, equity=Decimal(2)).week_start_equity is held.week_start_equity
