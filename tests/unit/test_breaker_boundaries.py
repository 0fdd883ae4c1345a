"""The trading breaker at and beside each of its boundaries: losses, shares, refusals, times, and what it remembers."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from msgspec import UNSET

from inference.domain.decision import DenyCode
from inference.domain.events import AccountMarked, Noted, OrderRefused, TradeClosed, TradePlanned
from inference.domain.policy import EntryStyle, Policy
from inference.domain.risk import BreakerState, BreakerView, RiskView
from inference.domain.trade import ExitReason
from inference.execution.planning import trade_plan
from inference.risk.breaker import CLOSED, EVENT_OF, HALF_OPENED, OPENED, Breaker, after, as_of, breaker_refusal
from tests.property.test_breaker_rules import result
from tests.worker_values import T0, make_approved, make_snapshot

OFF = Policy()
LOSSES = Policy(breaker_losses=3, breaker_pause_seconds=60, breaker_window_seconds=600)
HALF = Breaker(state=BreakerState.HALF_OPEN, reason="why", until_ms=T0 + 60_000, losses_in_row=0)
OPEN = replace(HALF, state=BreakerState.OPEN)


def plan(trade_id="try"):
    made = trade_plan(
        make_approved(), candle_close_ms=T0, now_ms=T0, style=EntryStyle.MARKET, patience_ms=0, arrival_price=None
    )
    return TradePlanned(plan=replace(made, trade_id=trade_id))


def closed(breaker, pnl, *, key="a", at=T0, policy=OFF, **changes):
    return after(breaker, TradeClosed(trade_id=key, result=result(pnl, **changes)), at, policy)


def noted(breaker, kind, **detail):
    return after(breaker, Noted(event_type=kind, detail=detail), T0, OFF)


def test_a_breaker_begins_closed_with_nothing_known():
    """Nothing has happened yet, and all entries pass."""
    assert Breaker() == Breaker(
        state=BreakerState.CLOSED, reason="", until_ms=0, tried="", losses_in_row=0, equity=Decimal(0), results={},
        errors=(),
    )  # fmt: skip
    assert Breaker().view == BreakerView(state=BreakerState.CLOSED, reason="", until_ms=0, is_tried=False)


def test_a_decision_sees_state_reason_time_and_try():
    """Not by which trade it is tried, only whether it is."""
    seen = BreakerView(state=BreakerState.HALF_OPEN, reason="why", until_ms=T0 + 60_000, is_tried=True)

    assert replace(HALF, tried="x").view == seen


def test_its_words_in_the_journal():
    """Each state has an event of its own, which readers of old journals know by these names."""
    assert (OPENED, HALF_OPENED, CLOSED) == ("risk.breaker_opened", "risk.breaker_half_opened", "risk.breaker_closed")
    assert EVENT_OF == {
        BreakerState.OPEN: OPENED, BreakerState.HALF_OPEN: HALF_OPENED, BreakerState.CLOSED: CLOSED
    }  # fmt: skip


# -- time --------------------------------------------------------------------------------------------------------------


def test_time_opens_it_by_half_and_then_closes_it():
    """At the millisecond that was said, not one before; half open lasts as long as open did."""
    until = OPEN.until_ms
    half = as_of(replace(OPEN, tried="old"), until + 5, LOSSES)

    assert as_of(OPEN, until - 1, LOSSES) is OPEN
    assert half == replace(OPEN, state=BreakerState.HALF_OPEN, until_ms=until + 5 + 60_000, tried="")
    assert as_of(half, half.until_ms - 1, LOSSES) is half
    assert as_of(half, half.until_ms, LOSSES) == Breaker()
    assert as_of(Breaker(until_ms=-1), 0, LOSSES) == Breaker(until_ms=-1)


def test_a_trade_that_is_tried_is_waited_for():
    """However late it is, nothing is decided before it ends."""
    tried = replace(HALF, tried="x")

    assert as_of(tried, T0 + 10**9, LOSSES) is tried


def test_time_does_its_part_before_an_event_does():
    """A loss after the pause is that of a half-open breaker, not of an open one."""
    found = closed(OPEN, -1, at=OPEN.until_ms, policy=LOSSES)

    assert (found.state, found.losses_in_row) == (BreakerState.HALF_OPEN, 1)


# -- events ------------------------------------------------------------------------------------------------------------


def test_an_accounts_mark_is_its_equity_and_nothing_else():
    """What shares are taken of is the last mark."""
    mark = AccountMarked(equity=Decimal(7), day_start_equity=Decimal(8), peak_equity=Decimal(9))

    assert after(OPEN, mark, T0, OFF) == replace(OPEN, equity=Decimal(7))


def test_only_the_first_entry_of_a_half_open_breaker_is_the_try():
    """Entries of another state are none, and a second one does not take its place."""
    tried = after(HALF, plan("first"), T0, OFF)

    assert tried == replace(HALF, tried="first")
    assert after(tried, plan("second"), T0, OFF) == tried
    assert after(Breaker(), plan(), T0, OFF) == Breaker()
    assert after(OPEN, plan(), T0, OFF) == OPEN


def test_what_it_does_not_know_changes_nothing():
    """Other notes, and refusals that are part of trading."""
    assert noted(OPEN, "risk.emergency", reason="x") == OPEN
    ordinary = OrderRefused(client_order_id="a", code="-2021", message="")
    assert after(Breaker(), ordinary, T0, Policy(breaker_errors=1)) == Breaker()


# -- losses in a row ---------------------------------------------------------------------------------------------------


def test_the_row_grows_by_losses_and_ends_with_a_trade_that_did_not_lose():
    """Nothing won and nothing lost is no loss."""
    found = Breaker()
    rows = []
    for number, pnl in enumerate(("-1", "-0.5", "0", "-1", "-1", "0.5", "-1")):
        found = closed(found, pnl, key=str(number), at=T0 + number, policy=OFF)
        rows.append(found.losses_in_row)

    assert rows == [1, 2, 0, 1, 2, 0, 1]
    assert found.results["1"] == (T0 + 1, Decimal("-0.5"))
    assert len(found.results) == 7


def test_a_late_execution_closes_a_trade_again_and_is_the_same_loss():
    """The row does not grow; what the trade came to is what was said last."""
    once = closed(Breaker(), -1, at=T0)
    again = closed(once, -2, at=T0 + 5)

    assert again == replace(once, results={"a": (T0 + 5, Decimal(-2))})


def test_a_late_execution_of_a_loss_that_opened_it_does_not_open_it_again():
    """What made it open is used up for good, whatever the same trade comes to later; another trade counts."""
    policy = Policy(breaker_loss_share=Decimal("0.1"), breaker_window_seconds=86_400, breaker_pause_seconds=60)
    opened = closed(Breaker(equity=Decimal(1000)), -150, policy=policy)
    over = as_of(as_of(opened, T0 + 60_000, policy), T0 + 120_000, policy)
    again = closed(over, -151, at=T0 + 130_000, policy=policy)

    assert (opened.state, over.state, again.state) == (BreakerState.OPEN, BreakerState.CLOSED, BreakerState.CLOSED)
    assert closed(again, -150, key="b", at=T0 + 140_000, policy=policy).state is BreakerState.OPEN


@pytest.mark.parametrize("losses", [1, 2, 3])
def test_as_many_losses_as_the_limit_open_it(losses):
    """At the limit, for the pause, with the reason; what made it open is used up."""
    policy = replace(LOSSES, breaker_losses=losses)
    found = Breaker()
    for number in range(losses):
        assert found.state is BreakerState.CLOSED
        found = closed(found, -1, key=str(number), at=T0 + number, policy=policy)
    last = T0 + losses - 1

    assert found == Breaker(
        state=BreakerState.OPEN,
        reason=f"{losses} losses in a row, the limit is {losses}",
        until_ms=last + 60_000,
        results={str(number): (T0 + number, Decimal(0)) for number in range(losses)},
        used=frozenset(map(str, range(losses))),
    )


def test_without_a_limit_nothing_opens_it():
    """A hundred losses, refusals and everything lost are nobody's business then."""
    found = Breaker(equity=Decimal(10))
    for number in range(100):
        found = closed(found, -1, key=str(number), at=T0 + number)
        found = after(found, OrderRefused(client_order_id="a", code="-2019", message=""), T0 + number, OFF)

    assert (found.state, found.losses_in_row, len(found.errors)) == (BreakerState.CLOSED, 100, 100)


def test_an_open_breaker_counts_on_and_is_not_opened_anew():
    """Its time stays as it was said; losses while it is open count for when it is not."""
    found = closed(closed(OPEN, -1, policy=LOSSES), -1, key="b", policy=LOSSES)
    third = closed(found, -1, key="c", policy=LOSSES)

    assert (third.state, third.until_ms, third.losses_in_row) == (BreakerState.OPEN, OPEN.until_ms, 3)


# -- the loss of a window ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("lost", "opens"), [("99.9", False), ("100", True), ("100.1", True), ("-100", False)])
def test_a_tenth_of_equity_within_the_window_opens_it(lost, opens):
    """Just the share is reached; a gain of as much is not."""
    policy = Policy(breaker_loss_share=Decimal("0.1"), breaker_window_seconds=60)
    found = closed(Breaker(equity=Decimal(1000)), -Decimal(lost), policy=policy)

    assert (found.state is BreakerState.OPEN) is opens
    assert not opens or found.reason == f"{Decimal(lost):f} lost within 60 s, the limit is 100.0"


def test_gains_within_the_window_make_up_for_losses():
    """What counts is the sum."""
    policy = Policy(breaker_loss_share=Decimal("0.1"), breaker_window_seconds=60)
    found = closed(closed(Breaker(equity=Decimal(1000)), 50, policy=policy), -149, key="b", policy=policy)

    assert found.state is BreakerState.CLOSED
    assert closed(found, -1, key="c", policy=policy).state is BreakerState.OPEN


@pytest.mark.parametrize("equity", [0, -5])
def test_of_no_equity_any_loss_is_too_much_and_no_loss_is_none(equity):
    """The limit is not above nothing then; a trade that lost nothing opens it no more than before."""
    policy = Policy(breaker_loss_share=Decimal("0.1"))
    before = Breaker(equity=Decimal(equity))

    assert closed(before, 0, policy=policy).state is BreakerState.CLOSED
    assert closed(before, "0.5", policy=policy).state is BreakerState.CLOSED
    assert closed(before, "-0.5", policy=policy).state is BreakerState.OPEN


@pytest.mark.parametrize(("later_ms", "counts"), [(59_999, True), (60_000, False)])
def test_what_is_as_old_as_the_window_counts_no_more(later_ms, counts):
    """The same for losses and for refusals: a minute ago is over."""
    by_loss = Policy(breaker_loss_share=Decimal("0.1"), breaker_window_seconds=60)
    by_errors = Policy(breaker_errors=2, breaker_window_seconds=60)
    refusal = OrderRefused(client_order_id="a", code="-2019", message="")
    lost = closed(closed(Breaker(equity=Decimal(1000)), -50, policy=by_loss), -50, key="b", at=T0 + later_ms,
                  policy=by_loss)  # fmt: skip
    denied = after(after(Breaker(), refusal, T0, by_errors), refusal, T0 + later_ms, by_errors)

    assert (lost.state is BreakerState.OPEN) is counts
    assert (denied.state is BreakerState.OPEN) is counts
    assert counts or (set(lost.results), denied.errors) == ({"b"}, (T0 + later_ms,))


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_as_many_refusals_as_the_limit_open_it():
    """They are used up with it."""
    policy = Policy(breaker_errors=2, breaker_window_seconds=60, breaker_pause_seconds=30)
    refusal = OrderRefused(client_order_id="a", code="-2019", message="")
    once = after(Breaker(), refusal, T0, policy)
    twice = after(once, refusal, T0 + 1, policy)

    assert once == Breaker(errors=(T0,))
    assert twice == Breaker(
        state=BreakerState.OPEN, reason="2 orders refused within 60 s, the limit is 2", until_ms=T0 + 1 + 30_000
    )


# -- the try -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pnl", "opens"), [("-0.5", True), ("0", False), ("0.5", False)])
def test_the_try_ends_it_or_opens_it_again(pnl, opens):
    """A loss, however small, opens it for another pause; what did not lose closes it."""
    tried = replace(HALF, tried="try")
    found = closed(tried, pnl, key="try", at=T0 + 7, policy=LOSSES)

    if opens:
        assert (found.state, found.reason) == (BreakerState.OPEN, "the trade that was tried lost")
        assert (found.until_ms, found.tried, found.losses_in_row) == (T0 + 7 + 60_000, "", 0)
    else:
        assert (found.state, found.reason, found.until_ms, found.tried) == (BreakerState.CLOSED, "", 0, "")


def test_another_trade_does_not_decide_for_the_try():
    """What was open before ends as it may: the breaker waits for its own."""
    tried = replace(HALF, tried="try")

    assert closed(tried, -1, key="other", policy=LOSSES).state is BreakerState.HALF_OPEN
    assert closed(tried, 1, key="other", policy=LOSSES).tried == "try"
    assert closed(replace(HALF, tried=""), 1, key="x", policy=LOSSES).state is BreakerState.HALF_OPEN


@pytest.mark.parametrize(
    ("reason", "quantity", "is_try"),
    [
        (ExitReason.NOT_ENTERED, "0", False),
        (ExitReason.NOT_ENTERED, "1", False),
        (ExitReason.STOP, "0", False),
        (ExitReason.STOP, "0.5", True),
    ],
)
def test_a_trade_that_never_was_is_no_try_and_no_trade(reason, quantity, is_try):
    """Not entered, or nothing of it: the try is free again, and no other trade's is."""
    tried = replace(HALF, tried="try")
    found = closed(tried, -1, key="try", policy=LOSSES, reason=reason, quantity=quantity)
    other = closed(tried, -1, key="other", policy=LOSSES, reason=reason, quantity=quantity)

    assert (found.state is BreakerState.OPEN) is is_try
    assert is_try or found == replace(HALF, tried="")
    assert is_try or other == tried


# -- what the journal says ---------------------------------------------------------------------------------------------


def test_what_was_journaled_was_so():
    """State, reason and time are taken as they were told; a closed breaker has neither."""
    assert noted(Breaker(), OPENED, reason="r", until_ms=str(T0 + 9)) == Breaker(
        state=BreakerState.OPEN, reason="r", until_ms=T0 + 9
    )
    assert noted(OPEN, HALF_OPENED, reason="r", until_ms=str(T0 + 9)).state is BreakerState.HALF_OPEN
    assert noted(replace(HALF, tried="x"), CLOSED) == Breaker()


@pytest.mark.parametrize("until", [None, "", "soon", "-5", "٣", "1.5"])
def test_a_note_without_a_usable_time_keeps_the_time_of_before(until):
    """Only plain digits are a time; a reason that is missing is the one of before."""
    detail = {} if until is None else {"until_ms": until}
    found = noted(OPEN, OPENED, **detail)

    assert found == OPEN


# -- what it lets through ----------------------------------------------------------------------------------------------


def asked(breaker, *, entries=0, now_ms=T0):
    risk = UNSET if breaker is UNSET else RiskView(breaker=breaker)
    return breaker_refusal(make_snapshot(risk=risk), entries=entries, now_ms=now_ms)


@pytest.mark.parametrize("breaker", [UNSET, None, BreakerView(state=BreakerState.CLOSED, until_ms=T0 + 9)])
def test_a_breaker_that_is_closed_or_not_there_refuses_nothing(breaker):
    """However many entries there are."""
    assert asked(breaker, entries=5) is None


@pytest.mark.parametrize(
    ("state", "entries", "is_tried", "until_ms", "passes"),
    [
        (BreakerState.OPEN, 0, False, T0 + 1, False),
        (BreakerState.OPEN, 0, False, T0, True),
        (BreakerState.OPEN, 0, False, T0 - 1, True),
        (BreakerState.OPEN, 1, False, T0, False),
        (BreakerState.HALF_OPEN, 0, False, T0 + 1, True),
        (BreakerState.HALF_OPEN, 1, False, T0 + 1, False),
        (BreakerState.HALF_OPEN, 0, True, T0 + 1, False),
        (BreakerState.HALF_OPEN, 0, True, T0 - 1, False),
    ],
)
def test_one_entry_passes_once_the_pause_is_over(state, entries, is_tried, until_ms, passes):
    """None while it is open, one of a pass while it is half open, none beside a try."""
    refusal = asked(BreakerView(state=state, until_ms=until_ms, is_tried=is_tried), entries=entries)

    assert (refusal is None) is passes


@pytest.mark.parametrize(("reason", "told"), [("three losses", "three losses"), ("", "unknown")])
def test_a_breakers_refusal_says_why_and_until_when(reason, told):
    """In the venue's milliseconds."""
    refusal = asked(BreakerView(state=BreakerState.OPEN, reason=reason, until_ms=T0 + 1))

    assert refusal is not None
    assert refusal.code is DenyCode.BREAKER_OPEN
    assert refusal.context == {"state": "OPEN", "reason": told, "until_ms": str(T0 + 1), "now_ms": str(T0)}
