"""The emergency stop's rules, what counts as an error, and the marks that drawdowns are measured from."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.domain.events import OrderRefused
from inference.domain.health import HealthLevel
from inference.domain.market import Quote
from inference.domain.policy import Policy
from inference.domain.position import Account, Position
from inference.domain.risk import RiskView
from inference.domain.signal import Direction
from inference.risk.emergency import (
    ACTIONS,
    FLATTEN,
    Action,
    Bases,
    EmergencyInputs,
    Evaluator,
    bases_of,
    evaluate,
    positions_to_close,
)
from inference.risk.errors import LEAST_OUTCOMES, ErrorCounts, ExecutionErrors, error_class
from inference.supervision.account_marks import account_of, marked
from tests.worker_values import T0

NOW = T0 + 1000
STEP = 300_000
VIEW = RiskView(clusters={"BTC/USDT:USDT": "BTC/USDT:USDT"}, betas={"BTC/USDT:USDT": 1.0})
BTC = "BTC/USDT:USDT"
decimals = st.decimals(allow_nan=True, allow_infinity=True, places=4)


def account(equity, *, day=10_000, week=10_000, peak=10_000):
    return Account(
        equity=Decimal(equity),
        day_start_equity=Decimal(day),
        peak_equity=Decimal(peak),
        week_start_equity=Decimal(week),
    )


def inputs(**changes):
    values = {
        "account": account(10_000),
        "account_age_seconds": 1.0,
        "bases": Bases(day=Decimal(10_000), week=Decimal(10_000), peak=Decimal(10_000)),
        "health": HealthLevel.HEALTHY,
        "health_seconds": 0.0,
        "errors": ErrorCounts(),
        "feed_overdue_seconds": 0.0,
    }
    return EmergencyInputs(**{**values, **changes})


@pytest.mark.parametrize(
    ("changes", "evaluator"),
    [
        pytest.param({"account": account(8_500)}, Evaluator.DRAWDOWN, id="15-percent-of-the-day"),
        pytest.param(
            {"bases": Bases(day=Decimal(10_000), week=Decimal(13_334), peak=Decimal(10_000))},
            Evaluator.DRAWDOWN,
            id="25-percent-of-the-week",
        ),
        pytest.param(
            {"bases": Bases(day=Decimal(10_000), week=Decimal(10_000), peak=Decimal(12_500))},
            Evaluator.DRAWDOWN,
            id="20-percent-of-the-peak",
        ),
        pytest.param({"health": HealthLevel.EMERGENCY}, Evaluator.SYSTEM_HEALTH, id="system-failed"),
        pytest.param(
            {"health": HealthLevel.CRITICAL, "health_seconds": 60.0}, Evaluator.SYSTEM_HEALTH, id="critical-for-long"
        ),
        pytest.param({"errors": ErrorCounts(in_row=6)}, Evaluator.EXECUTION_ERRORS, id="six-in-a-row"),
        pytest.param(
            {"errors": ErrorCounts(failed=11, outcomes=LEAST_OUTCOMES)}, Evaluator.EXECUTION_ERRORS, id="half-failed"
        ),
        pytest.param({"feed_overdue_seconds": 301.0}, Evaluator.DATA_FEED, id="five-minutes-without-candles"),
    ],
)
def test_each_evaluator_trips_by_itself(changes, evaluator):
    """Each of the four has its own cause, its own actions, and its numbers."""
    verdict = evaluate(inputs(**changes), Policy())

    (trip,) = verdict.trips
    assert (trip.evaluator, trip.actions) == (evaluator, ACTIONS[evaluator])
    assert trip.numbers
    assert not verdict.missing


@pytest.mark.parametrize(
    ("changes", "evaluator"),
    [
        ({"account": None}, Evaluator.DRAWDOWN),
        ({"bases": None}, Evaluator.DRAWDOWN),
        ({"account_age_seconds": 61.0}, Evaluator.DRAWDOWN),
        ({"account_age_seconds": math.nan}, Evaluator.DRAWDOWN),
        ({"account": account("NaN")}, Evaluator.DRAWDOWN),
        ({"bases": Bases(day=Decimal("NaN"), week=Decimal(1), peak=Decimal(1))}, Evaluator.DRAWDOWN),
        ({"health": None}, Evaluator.SYSTEM_HEALTH),
        ({"errors": None}, Evaluator.EXECUTION_ERRORS),
        ({"feed_overdue_seconds": None}, Evaluator.DATA_FEED),
        ({"feed_overdue_seconds": math.nan}, Evaluator.DATA_FEED),
    ],
)
def test_a_missing_input_is_named_and_closes_nothing(changes, evaluator):
    """Who cannot see trips nothing, and says so: entries are held for it."""
    verdict = evaluate(inputs(**changes), Policy())

    assert verdict.missing == (evaluator,)
    assert not verdict.trips


def test_all_is_well_where_all_is_well():
    """At half of every limit nobody trips."""
    verdict = evaluate(inputs(account=account(9_300), health_seconds=30.0, feed_overdue_seconds=150.0), Policy())

    assert verdict.trips == verdict.missing == ()


def position(symbol, *, direction=Direction.LONG, quantity=1, price=100):
    return Position(
        symbol=symbol, direction=direction, quantity=Decimal(quantity), entry_price=Decimal(price), entry_time_ms=T0,
        trade_id=symbol,
    )  # fmt: skip


@given(
    st.lists(st.tuples(st.integers(1, 100), st.sampled_from([90, 100, 110, None]), st.booleans()), max_size=8),
    st.sampled_from([Decimal("0.5"), Decimal("0.1"), Decimal(1)]),
)
def test_losers_are_closed_and_of_the_rest_at_least_the_share(given_positions, share):
    """Every position that loses at its price goes; what is left of the others carries no more than the rest."""
    positions, quotes, heat = {}, {}, {}
    for number, (quantity, price, is_long) in enumerate(given_positions):
        name = f"S{number}"
        positions[name] = position(name, quantity=quantity, direction=Direction.LONG if is_long else Direction.SHORT)
        heat[name] = Decimal(quantity)
        if price is not None:
            quotes[name] = Quote(symbol=name, bid=Decimal(price), ask=Decimal(price), event_time_ms=T0)
    chosen = positions_to_close(
        ACTIONS[Evaluator.DRAWDOWN], positions=positions, quotes=quotes, heat=heat, reduce_share=share
    )
    losing = {
        name
        for name, one in positions.items()
        if name in quotes and (quotes[name].bid < 100 if one.direction is Direction.LONG else quotes[name].ask > 100)
    }
    rest = sum(one.notional for name, one in positions.items() if name not in losing)
    left = sum(one.notional for name, one in positions.items() if name not in chosen)

    assert losing <= set(chosen)
    assert left <= (1 - share) * rest


@pytest.mark.parametrize("evaluator", [one for one in Evaluator if one is not Evaluator.DRAWDOWN])
def test_who_cannot_trust_prices_closes_nothing(evaluator):
    """Only drawdown closes of its own accord; a person flattens."""
    held = {"A": position("A")}
    quotes = {"A": Quote(symbol="A", bid=Decimal(1), ask=Decimal(1), event_time_ms=T0)}
    common = {"positions": held, "quotes": quotes, "heat": {}, "reduce_share": Decimal("0.5")}

    assert positions_to_close(ACTIONS[evaluator], **common) == {}
    assert positions_to_close(FLATTEN, **common) == {"A": "flatten"}
    assert Action.KEEP_STOPS in ACTIONS[evaluator]


def test_a_reset_accepts_what_was_lost_until_then():
    """Day and week are then measured from the equity at the reset, where it is lower, and only while they last."""
    lost = account(8_400)

    today = bases_of(lost, reset_equity=Decimal(8_400), same_day=True, same_week=True)
    later = bases_of(lost, reset_equity=Decimal(8_400), same_day=False, same_week=False)

    assert today == Bases(day=Decimal(8_400), week=Decimal(8_400), peak=Decimal(10_000))
    assert later == Bases(day=Decimal(10_000), week=Decimal(10_000), peak=Decimal(10_000))
    assert bases_of(None, reset_equity=None, same_day=False, same_week=False) is None


@pytest.mark.parametrize("code", ["-2021", "-2022", "-4118", "-5022"])
def test_what_is_part_of_trading_is_no_error(code):
    """A stop that would trigger, or nothing left to reduce, says nothing of execution's health."""
    errors = ExecutionErrors(window_seconds=60)
    errors.note(OrderRefused(client_order_id="a", code=code, message=""), 0.0)

    assert error_class(code) is None
    assert errors.counts(1.0) == ErrorCounts()


def test_one_outage_is_no_row_of_refusals():
    """Orders that nobody answered count in the share alone, and only where there are enough to take one of."""
    errors = ExecutionErrors(window_seconds=60)
    for number in range(30):
        errors.note(OrderRefused(client_order_id=str(number), code="NOTHING_HAPPENED", message=""), number / 10)

    assert errors.counts(4.0) == ErrorCounts(in_row=0, failed=30, outcomes=30)
    assert errors.counts(100.0) == ErrorCounts()


def test_what_was_never_sent_is_nobodys_error():
    """While the account's lease is in doubt our own guard keeps orders back: no refusal, and no silence."""
    errors = ExecutionErrors(window_seconds=60)
    for number in range(100):
        errors.note(OrderRefused(client_order_id=str(number), code="NOT_SENT", message=""), number / 10)

    assert errors.counts(10.0) == ErrorCounts()


# -- marks -------------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(-90_000_000, 200_000_000), st.integers(1, 20_000)), min_size=1, max_size=20))
def test_marks_begin_days_and_weeks_only_forwards(readings):
    """The week's start is a day's start or older, the peak never falls, and a clock that goes back resets nothing."""
    mark, at = None, T0
    for later, equity in readings:
        now = max(0, at + later)
        before, mark = mark, marked(mark, at, equity=Decimal(equity), now_ms=now)
        if before is not None:
            assert mark.peak_equity >= before.peak_equity
            if now <= at:
                assert (mark.day_start_equity, mark.week_start_equity) == (
                    before.day_start_equity,
                    before.week_start_equity,
                )
        at = now
    assert mark is not None
    assert account_of(mark).weekly_drawdown is not None


def test_weeks_begin_on_mondays():
    """2025-06-16 was a Monday: the week's start moves there and at no other midnight of that week."""
    monday, day = 1_750_032_000_000, 86_400_000
    sunday = marked(None, 0, equity=Decimal(100), now_ms=monday - 1)
    begun = marked(sunday, monday - 1, equity=Decimal(90), now_ms=monday)
    tuesday = marked(begun, monday, equity=Decimal(80), now_ms=monday + day)

    assert begun.week_start_equity == Decimal(100)
    assert (tuesday.week_start_equity, tuesday.day_start_equity) == (Decimal(100), Decimal(90))
