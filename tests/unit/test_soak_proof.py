"""The soak's judgement: which money it misses."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from decimal import Decimal

import pytest

from inference.domain.events import FillBooked, OrderIntended, TradeClosed
from inference.domain.order import Fill, OrderIntent, OrderType, Purpose, Side
from inference.domain.signal import Direction
from inference.domain.trade import ExitReason, TradeResult
from inference.execution.funding import FundingPayment, funding_event
from infra.prove.soak import money_of

D = Decimal
SYMBOL = "BTC/USDT:USDT"


def fill(number: str, side: Side, price: str, order: str) -> Fill:
    """Return an execution of two pieces for a fee of a tenth."""
    return Fill(
        client_order_id=order, venue_order_id=number, fill_id=number, symbol=SYMBOL, side=side, quantity=D(2),
        price=D(price), fee=D("0.1"), event_time_ms=int(number), is_maker=False,
    )  # fmt: skip


def intent(order: str, side: Side, purpose: Purpose) -> OrderIntent:
    """Return the intent behind an execution."""
    return OrderIntent(
        client_order_id=order, trade_id="trade", trace_id="", symbol=SYMBOL, side=side, order_type=OrderType.MARKET,
        purpose=purpose, quantity=D(2),
    )  # fmt: skip


RESULT = TradeResult(
    symbol=SYMBOL, direction=Direction.LONG, reason=ExitReason.TARGET, quantity=D(2), entry_price=D(100),
    exit_price=D(110), pnl=D("19.8"), fees=D("0.2"), opened_at_ms=1, closed_at_ms=2, fills_complete=True,
)  # fmt: skip
EVENTS = [
    OrderIntended(intent=intent("in", Side.BUY, Purpose.ENTRY)),
    FillBooked(fill=fill("1", Side.BUY, "100", "in")),
    OrderIntended(intent=intent("out", Side.SELL, Purpose.EXIT)),
    FillBooked(fill=fill("2", Side.SELL, "110", "out")),
    TradeClosed(trade_id="trade", result=RESULT),
    funding_event(FundingPayment(transaction_id="9", symbol=SYMBOL, amount=D("-1.5"), event_time_ms=2)),
]
AUDIT = {
    "fills": 2, "realized_pnl": "20", "fees": "0.2", "funding": "-1.5", "wallet": "1018.3", "opening_balance": "1000",
    "trades": [{"entry_client_ids": ["in"], "gross_pnl": "20", "fees": "0.2", "quantity": "2"}],
}  # fmt: skip


def audit(**changes: object) -> dict:
    """Return the venue's account with something else in it."""
    return {**deepcopy(AUDIT), **changes}


def test_what_agrees_has_no_differences():
    """Profit, fees, executions and the wallet explain each other, funding included."""
    money = money_of(EVENTS, AUDIT)

    assert money.differences == []
    assert (money.trades, money.earned, money.fees, money.funding) == (1, D(20), D("0.2"), D("-1.5"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"realized_pnl": "20.00000001"}, "earned before fees"),
        ({"fees": "0.20000001"}, "paid in fees"),
        ({"wallet": "1018.29999999"}, "in the wallet"),
        ({"funding": "-1.49999999"}, "received in funding"),
        ({"fills": 3}, "executions"),
        ({"trades": []}, "profit, fees and quantity"),
        ({"trades": [AUDIT["trades"][0] | {"fees": "0.3"}]}, "profit, fees and quantity"),
        ({"trades": [AUDIT["trades"][0] | {"quantity": "3"}]}, "profit, fees and quantity"),
        ({"trades": [*AUDIT["trades"], AUDIT["trades"][0] | {"entry_client_ids": ["strange"]}]}, "does not"),
    ],
)
def test_the_last_digit_is_missed(changes, words):
    """Whatever the venue says otherwise, by the smallest amount there is, is a difference that says what."""
    assert any(words in one for one in money_of(EVENTS, audit(**changes)).differences)


def test_an_execution_that_was_never_booked_is_missed():
    """A trade that ended without one of its executions does not pass."""
    assert money_of([one for one in EVENTS if one != EVENTS[3]], AUDIT).differences


def test_funding_that_was_never_journaled_is_missed_and_one_twice_there_counts_once():
    """The wallet is not explained without it, and a second entry of the same payment changes nothing."""
    assert money_of(EVENTS[:-1], AUDIT).differences
    assert money_of([*EVENTS, EVENTS[-1]], AUDIT).differences == []


def test_what_never_entered_is_no_trade():
    """An entry that did not happen counts for nothing and is no difference."""
    nothing = replace(RESULT, reason=ExitReason.NOT_ENTERED, pnl=D(0), fees=D(0), quantity=D(2), exit_price=None)
    money = money_of([*EVENTS, TradeClosed(trade_id="other", result=nothing)], AUDIT)

    assert (money.trades, money.differences) == (1, [])
