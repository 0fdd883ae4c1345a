"""The trading breaker: when it opens, what it lets through, and that a journal brings it back."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.domain.events import AccountMarked, Noted, OrderRefused, TradeClosed, TradePlanned
from inference.domain.policy import EntryStyle, Policy
from inference.domain.risk import BreakerState, RiskView
from inference.domain.signal import Direction
from inference.domain.trade import ExitReason, TradeResult
from inference.execution.planning import trade_plan
from inference.risk import breaker as breaking
from inference.risk.breaker import Breaker, after, as_of
from tests.worker_values import T0, make_approved

NOW = T0 + 1000
STEP = 300_000
VIEW = RiskView(clusters={"BTC/USDT:USDT": "BTC/USDT:USDT"}, betas={"BTC/USDT:USDT": 1.0})
BTC = "BTC/USDT:USDT"
decimals = st.decimals(allow_nan=True, allow_infinity=True, places=4)


@pytest.fixture
def make_plan():
    """Return a maker of plans by trade id."""

    def make(trade_id):
        return replace(
            trade_plan(
                make_approved(), candle_close_ms=T0, now_ms=T0, style=EntryStyle.MARKET, patience_ms=0,
                arrival_price=None,
            ),
            trade_id=trade_id,
        )  # fmt: skip

    return make


# -- breaker -----------------------------------------------------------------------------------------------------------


def result(pnl, reason=ExitReason.STOP, quantity="1"):
    return TradeResult(
        symbol=BTC, direction=Direction.LONG, reason=reason, quantity=Decimal(quantity), entry_price=Decimal(1),
        exit_price=Decimal(1), pnl=Decimal(pnl), fees=Decimal(0), opened_at_ms=0, closed_at_ms=0, fills_complete=True,
    )  # fmt: skip


def closes(*pnls, start=T0, policy, breaker=None):
    found = breaker or Breaker(equity=Decimal(1000))
    for number, pnl in enumerate(pnls):
        at = start + number * 1000
        found = after(found, TradeClosed(trade_id=f"t{at}", result=result(pnl)), at, policy)
    return found


LOSSES = Policy(breaker_losses=3, breaker_pause_seconds=60)


def test_losses_in_a_row_open_it_and_time_lets_one_try():
    """Three losses open it for a minute; then one trade is tried, and a minute later it is closed by itself."""
    opened = closes(-1, 5, -1, -1, -1, policy=LOSSES)

    assert opened.state is BreakerState.OPEN
    assert "3 losses in a row" in opened.reason
    half = as_of(opened, opened.until_ms, LOSSES)
    assert half.state is BreakerState.HALF_OPEN
    assert as_of(opened, opened.until_ms - 1, LOSSES) is opened
    assert as_of(half, half.until_ms, LOSSES).state is BreakerState.CLOSED


@pytest.mark.parametrize(("pnl", "state"), [(1, BreakerState.CLOSED), (-1, BreakerState.OPEN)])
def test_the_try_decides(make_plan, pnl, state):
    """A try that wins closes it; one that loses opens it again, for as long as before."""
    half = as_of(closes(-1, -1, -1, policy=LOSSES), T0 + 100_000, LOSSES)
    tried = after(half, TradePlanned(plan=make_plan("try")), T0 + 101_000, LOSSES)
    ended = after(tried, TradeClosed(trade_id="try", result=result(pnl)), T0 + 200_000, LOSSES)

    assert tried.view.is_tried
    assert as_of(tried, tried.until_ms, LOSSES) is tried
    assert ended.state is state


def test_loss_and_refusals_within_the_window_open_it():
    """A tenth of equity within the window, or five refusals, count; what is older does not, nor what is ordinary."""
    by_loss = Policy(breaker_loss_share=Decimal("0.1"), breaker_window_seconds=60)
    assert closes(-50, -50, policy=by_loss).state is BreakerState.OPEN
    later = closes(-50, start=T0 + 61_000, policy=by_loss, breaker=closes(-50, policy=by_loss))
    assert later.state is BreakerState.CLOSED

    by_errors = Policy(breaker_errors=2, breaker_window_seconds=60)
    found = Breaker()
    for code in ("-2021", "NOTHING_HAPPENED", "-4131"):
        found = after(found, OrderRefused(client_order_id="a", code=code, message=""), T0, by_errors)
    assert found.state is BreakerState.CLOSED
    found = after(found, OrderRefused(client_order_id="a", code="-2019", message=""), T0, by_errors)
    assert found.state is BreakerState.OPEN


def test_a_trade_that_never_was_gives_its_try_back(make_plan):
    """An entry that was not filled is no answer."""
    half = as_of(closes(-1, -1, -1, policy=LOSSES), T0 + 100_000, LOSSES)
    tried = after(half, TradePlanned(plan=make_plan("try")), T0 + 101_000, LOSSES)
    gone = result(0, reason=ExitReason.NOT_ENTERED, quantity="0")

    assert not after(tried, TradeClosed(trade_id="try", result=gone), T0 + 102_000, LOSSES).tried


events = st.lists(
    st.tuples(
        st.integers(0, 120_000),
        st.one_of(
            st.integers(-300, 200).map(lambda pnl: ("closed", pnl)),
            st.just(("refused", 0)),
            st.integers(1, 2000).map(lambda equity: ("marked", equity)),
        ),
    ),
    max_size=30,
)


@given(events)
def test_a_breaker_rebuilt_from_what_was_journaled_is_the_one_that_lived(happened):
    """Events of execution and the breaker's own, in the journal's order, give the same state after a restart."""
    policy = Policy(breaker_losses=2, breaker_loss_share=Decimal("0.2"), breaker_errors=3, breaker_pause_seconds=30)
    live, journal, at = Breaker(), [], T0
    for number, (later, (kind, value)) in enumerate(happened):
        at += later
        match kind:
            case "closed":
                event = TradeClosed(trade_id=f"t{number}", result=result(value))
            case "refused":
                event = OrderRefused(client_order_id=str(number), code="-4131", message="")
            case _:
                event = AccountMarked(
                    equity=Decimal(value), day_start_equity=Decimal(value), peak_equity=Decimal(value)
                )
        journal.append((event, at))
        before, live = live, after(live, event, at, policy)
        if (live.state, live.until_ms) != (before.state, before.until_ms):
            detail = {"reason": live.reason, "until_ms": str(live.until_ms)}
            journal.append((Noted(event_type=breaking.EVENT_OF[live.state], detail=detail), at))
    rebuilt = Breaker()
    for event, when in journal:
        rebuilt = after(rebuilt, event, when, policy)

    assert rebuilt == live


# -- emergency ---------------------------------------------------------------------------------------------------------
