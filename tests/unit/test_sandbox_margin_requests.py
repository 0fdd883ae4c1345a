"""What a client or a person may write about margin, funding and liquidations, and what the sandbox says to nonsense."""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache

import pytest

from feature_store.terminal import BAD_USAGE, run
from infra.sandbox.cli import app
from infra.sandbox.engine import state as states
from infra.sandbox.engine.errors import VenueError
from infra.sandbox.engine.exchange import Exchange
from infra.sandbox.engine.model import OrderRequest, OrderType, PositionSide, Side
from infra.sandbox.handlers import account, isolated
from infra.sandbox.handlers.call import Call
from infra.sandbox.market.synthetic import SyntheticMarket
from infra.sandbox.market.timetable import TimetabledMarket
from infra.sandbox.protocol.params import Params
from infra.sandbox.venue import Venue

START = 1_767_571_200_000
D = Decimal


@lru_cache
def synthetic() -> SyntheticMarket:
    return SyntheticMarket(symbols=2, seed=7, edge=0.0, start_ms=START, history_days=1)


def make_venue(*, hedge: bool = False) -> Venue:
    state = states.new_state(D(100_000))
    market = TimetabledMarket(synthetic(), state)
    venue = Venue(market, Exchange(market.instruments, state), 7)
    venue.begin(START)
    venue.exchange.set_isolated("BTCUSDT", isolated=True)
    if hedge:
        venue.exchange.set_hedge_mode(hedge=True)
    side = PositionSide.LONG if hedge else PositionSide.BOTH
    order = OrderRequest("BTCUSDT", Side.BUY, OrderType.MARKET, D("0.1"), position_side=side)
    venue.exchange.submit(order, now_ms=START)
    return venue


def ask(handler, venue: Venue, **values: str):
    return handler(Call(venue, Params(values), START))


@pytest.mark.parametrize(
    ("values", "code"),
    [
        pytest.param({}, -1102, id="nothing"),
        pytest.param({"amount": "5"}, -1102, id="no-type"),
        pytest.param({"type": "1"}, -1102, id="no-amount"),
        pytest.param({"amount": "five", "type": "1"}, -1100, id="a-word"),
        pytest.param({"amount": "NaN", "type": "1"}, -1100, id="nan"),
        pytest.param({"amount": "Infinity", "type": "1"}, -1100, id="infinity"),
        pytest.param({"amount": "-5", "type": "1"}, -4055, id="negative"),
        pytest.param({"amount": "0", "type": "2"}, -4055, id="zero"),
        pytest.param({"amount": "0.000000001", "type": "1"}, -1111, id="too-fine"),
        pytest.param({"amount": "5", "type": "3"}, -1130, id="unknown-type"),
        pytest.param({"amount": "5", "type": "one"}, -1130, id="type-a-word"),
        pytest.param({"amount": "5", "type": "1", "positionSide": "UP"}, -4061, id="unknown-side"),
        pytest.param({"amount": "5", "type": "1", "positionSide": "LONG"}, -4061, id="leg-in-one-way"),
        pytest.param({"amount": "1e9", "type": "1"}, -4050, id="more-than-there-is"),
        pytest.param({"amount": "1e9", "type": "2"}, -4051, id="more-than-it-holds"),
    ],
)
def test_a_request_to_move_margin_that_makes_no_sense(values, code):
    """Each is refused with the venue's code, and no margin moves."""
    venue = make_venue()
    before = venue.exchange.state.positions
    with pytest.raises(VenueError) as refusal:
        ask(isolated.move_margin, venue, **({"symbol": "BTCUSDT"} | values))

    assert refusal.value.code == code
    assert venue.exchange.state.positions == before


def test_margin_history_is_asked_by_type_and_time():
    """Moves by trading and by hand are told apart; a type and a time range choose among them."""
    venue = make_venue()
    ask(isolated.move_margin, venue, symbol="BTCUSDT", amount="5", type="1")
    both = ask(isolated.margin_history, venue, symbol="BTCUSDT")

    assert [one["deltaType"] for one in both] == ["TRADE", "USER_ADJUST"]
    assert D(both[1]["amount"]) == 5
    assert ask(isolated.margin_history, venue, symbol="BTCUSDT", type="2") == []
    assert ask(isolated.margin_history, venue, symbol="BTCUSDT", startTime=str(START + 1)) == []
    with pytest.raises(VenueError):
        ask(isolated.margin_history, venue, symbol="NOUSDT")


def test_deleveraging_ranks_by_gain():
    """A loser comes last, and the more a position gained on its margin, the sooner it would go."""
    ranks = []
    for factor in ("0.99", "1.005", "1.02", "1.04", "1.2"):
        venue = make_venue(hedge=True)
        last = venue.exchange.state.last_prices
        last["BTCUSDT"] = last["BTCUSDT"] * D(factor)
        ranks.append(ask(isolated.adl_quantiles, venue, symbol="BTCUSDT")["adlQuantile"])

    assert [one["LONG"] for one in ranks] == [0, 1, 2, 3, 4]
    assert all(one["SHORT"] == 0 and set(one) == {"LONG", "SHORT"} for one in ranks)


def test_forced_orders_are_chosen_by_kind():
    """Liquidations and deleveragings are listed together or apart; another kind is refused."""
    venue = make_venue()
    venue.exchange.deleverage("BTCUSDT", PositionSide.BOTH, D("0.5"), now_ms=START)
    venue.exchange.liquidate(now_ms=START)

    assert len(ask(isolated.force_orders, venue)) == 2
    assert [one["clientOrderId"] for one in ask(isolated.force_orders, venue, autoCloseType="ADL")] == ["adl_autoclose"]
    assert len(ask(isolated.force_orders, venue, autoCloseType="LIQUIDATION", symbol="BTCUSDT")) == 1
    assert ask(isolated.force_orders, venue, symbol="ETHUSDT") == []
    with pytest.raises(VenueError):
        ask(isolated.force_orders, venue, autoCloseType="OTHER")


@pytest.mark.parametrize("word", ["maybe", "1", "yes", " true"])
def test_a_position_mode_is_true_or_false(word):
    """Anything else is refused rather than taken for one-way mode."""
    venue = make_venue()
    with pytest.raises(VenueError) as refusal:
        ask(account.set_position_mode, venue, dualSidePosition=word)

    assert refusal.value.code == -1130


def test_a_hedged_account_shows_both_legs_of_what_it_does_not_hold():
    """The older account call has a row for every leg of every symbol."""
    venue = make_venue(hedge=True)
    rows = ask(account.account_v2, venue)["positions"]

    assert {(one["symbol"], one["positionSide"]) for one in rows} >= {("ETHUSDT", "LONG"), ("ETHUSDT", "SHORT")}


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--funding-hours", "3", "expects 1, 4 or 8"),
        ("--funding-hours", "", "expects 1, 4 or 8"),
        ("--funding-hours", "BTCUSDT=", "expects 1, 4 or 8"),
        ("--funding-hours", "8,BTCUSDT=-1", "expects 1, 4 or 8"),
        ("--funding-hours", "NOUSDT=4", "names NOUSDT"),
        ("--liquidation-fee", "-1", "at least 0"),
        ("--liquidation-fee", "NaN", "at least 0"),
    ],
)
def test_options_that_cannot_be_used_end_in_one_sentence(capsys, option, value, said):
    """The venue does not start, and says which option it is about."""
    status = run(app, ["serve", "--symbols", "1", "--history-days", "1", "--port", "0", f"{option}={value}"])
    error = capsys.readouterr().err

    assert status == BAD_USAGE
    assert option in error
    assert said in error
