"""Margin of the sandbox's account: modes, leverage, isolated margin, liquidation prices and funding."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from itertools import pairwise

import pytest

from infra.sandbox.engine import funding, margin
from infra.sandbox.engine import state as states
from infra.sandbox.engine.errors import VenueError
from infra.sandbox.engine.exchange import Exchange
from infra.sandbox.engine.instrument import BRACKETS, Instrument, bracket_for
from infra.sandbox.engine.model import AlgoRequest, OrderRequest, OrderType, PositionSide, Side, TimeInForce
from infra.sandbox.protocol.user_events import user_event

D = Decimal
COIN = Instrument("COINUSDT", "COIN", 2, 1, D(5), D(10_000), D(5_000), D(50_000))
OTHER = replace(COIN, symbol="OTHERUSDT", base="OTHER")
BUY, SELL = Side.BUY, Side.SELL
BOTH, LONG, SHORT = PositionSide
MARKET = OrderRequest("COINUSDT", BUY, OrderType.MARKET, D(10))
LIMIT = replace(MARKET, type=OrderType.LIMIT, price=D(99))


def make_exchange(balance: str = "10000", *, isolated: bool = False, hedge: bool = False) -> Exchange:
    exchange = Exchange([COIN, OTHER], states.new_state(D(balance)))
    move(exchange, "100", now_ms=1)
    exchange.tick({"OTHERUSDT": D(100)}, now_ms=1)
    if isolated:
        exchange.set_isolated("COINUSDT", isolated=True, now_ms=1)
    if hedge:
        exchange.set_hedge_mode(hedge=True)
    exchange.drain()
    return exchange


def move(exchange: Exchange, price: str, *, now_ms: int = 2) -> None:
    exchange.tick({"COINUSDT": D(price)}, now_ms=now_ms)


def code_of(call) -> int:
    with pytest.raises(VenueError) as refusal:
        call()
    return refusal.value.code


def own_margin(exchange: Exchange, side: PositionSide = BOTH) -> Decimal:
    return exchange.state.position("COINUSDT", side).isolated_wallet


def price_of_liquidation(exchange: Exchange, side: PositionSide = BOTH) -> Decimal:
    position = exchange.state.position("COINUSDT", side)
    return margin.liquidation_price(exchange.state, position, exchange.margin())


# -- modes --------------------------------------------------------------------------------------------------------


def test_position_mode_refuses_what_changes_nothing_or_too_much():
    """No change is -4059, open orders are -4067, an open position is -4068; the mode stays as it was."""
    exchange = make_exchange()
    assert code_of(lambda: exchange.set_hedge_mode(hedge=False)) == -4059
    order = exchange.submit(LIMIT, now_ms=2)
    assert code_of(lambda: exchange.set_hedge_mode(hedge=True)) == -4067
    exchange.cancel("COINUSDT", order_id=order.order_id, now_ms=3)
    exchange.submit(MARKET, now_ms=4)
    assert code_of(lambda: exchange.set_hedge_mode(hedge=True)) == -4068
    assert not exchange.state.hedge_mode


@pytest.mark.parametrize(
    ("hedge", "request_", "code"),
    [
        pytest.param(False, replace(MARKET, position_side=LONG), -4061, id="long-in-one-way"),
        pytest.param(True, MARKET, -4061, id="both-in-hedge"),
        pytest.param(True, replace(MARKET, position_side=LONG, reduce_only=True), -1106, id="reduce-only-in-hedge"),
        pytest.param(True, replace(MARKET, side=SELL, position_side=LONG), -2022, id="sell-long-of-nothing"),
        pytest.param(True, replace(MARKET, side=BUY, position_side=SHORT), -2022, id="buy-short-of-nothing"),
    ],
)
def test_position_side_must_fit_the_mode(hedge, request_, code):
    """In hedge mode an order names its leg and never reduceOnly; in one-way mode it names none."""
    exchange = make_exchange(hedge=hedge)

    assert code_of(lambda: exchange.submit(request_, now_ms=2)) == code


@pytest.mark.parametrize(("side", "leg"), [(BUY, LONG), (SELL, SHORT)])
def test_close_position_cannot_open_a_leg(side, leg):
    """A closePosition order in hedge mode is neither BUY of LONG nor SELL of SHORT."""
    exchange = make_exchange(hedge=True)
    trigger = D(120) if side is BUY else D(80)
    request = AlgoRequest(
        "COINUSDT", side, OrderType.STOP_MARKET, D(0), trigger_price=trigger, close_position=True, position_side=leg
    )

    assert code_of(lambda: exchange.submit_algo(request, now_ms=2)) == -4061


def test_each_leg_has_a_close_position_stop_of_its_own():
    """Closing the long at its stop leaves the short and the short's stop alone."""
    exchange = make_exchange(hedge=True)
    exchange.submit(replace(MARKET, position_side=LONG), now_ms=2)
    exchange.submit(replace(MARKET, side=SELL, quantity=D(4), position_side=SHORT), now_ms=2)
    stop = AlgoRequest(
        "COINUSDT", SELL, OrderType.STOP_MARKET, D(0), trigger_price=D(98), close_position=True, position_side=LONG
    )
    exchange.submit_algo(stop, now_ms=3)
    kept = exchange.submit_algo(replace(stop, side=BUY, trigger_price=D(110), position_side=SHORT), now_ms=3)
    move(exchange, "97", now_ms=4)

    assert exchange.state.position("COINUSDT", LONG).quantity == 0
    assert exchange.state.position("COINUSDT", SHORT).quantity == -4
    assert [one.algo_id for one in exchange.open_algos()] == [kept.algo_id]


def test_orders_that_close_a_leg_bind_no_margin():
    """In hedge mode what opens either leg binds margin, one beside the other; what closes a leg binds none."""
    exchange = make_exchange(hedge=True)
    exchange.submit(replace(MARKET, position_side=LONG), now_ms=2)
    before = exchange.margin().order_initial
    exchange.submit(replace(LIMIT, side=SELL, price=D(105), position_side=LONG), now_ms=3)
    assert exchange.margin().order_initial == before == 0
    exchange.submit(replace(LIMIT, position_side=LONG), now_ms=4)
    exchange.submit(replace(LIMIT, side=SELL, price=D(105), position_side=SHORT), now_ms=5)

    assert exchange.margin().order_initial == D(10 * 99 + 10 * 105) / 20


def test_margin_mode_refuses_what_changes_nothing_or_too_much():
    """No change is -4046, open orders are -4047, a position is -4048; a change is told on the stream."""
    exchange = make_exchange()
    assert code_of(lambda: exchange.set_isolated("COINUSDT", isolated=False)) == -4046
    order = exchange.submit(LIMIT, now_ms=2)
    assert code_of(lambda: exchange.set_isolated("COINUSDT", isolated=True)) == -4047
    exchange.cancel("COINUSDT", order_id=order.order_id, now_ms=3)
    exchange.submit(MARKET, now_ms=4)
    assert code_of(lambda: exchange.set_isolated("COINUSDT", isolated=True)) == -4048
    exchange.submit(replace(MARKET, side=SELL), now_ms=5)
    exchange.drain()
    exchange.set_isolated("COINUSDT", isolated=True, now_ms=6)

    (event,) = exchange.drain()
    told = user_event(event, exchange.state)
    assert (told["e"], told["a"]["m"], told["a"]["P"][0]["mt"]) == ("ACCOUNT_UPDATE", "MARGIN_TYPE_CHANGE", "isolated")


# -- leverage -----------------------------------------------------------------------------------------------------


def test_maintenance_is_continuous_where_tiers_meet():
    """Notional x rate - cum gives the same at a tier's cap as at the next one's floor."""
    for lower, upper in pairwise(BRACKETS):
        at = lower.notional_cap
        assert at == upper.notional_floor
        assert at * lower.maintenance_rate - lower.cumulative == at * upper.maintenance_rate - upper.cumulative


@pytest.mark.parametrize("leverage", [0, -1, 51, 126])
def test_leverage_outside_the_tiers_is_refused(leverage):
    """Leverage that no tier offers is -4028."""
    exchange = make_exchange()

    assert code_of(lambda: exchange.set_leverage("COINUSDT", leverage, now_ms=2)) == -4028


def test_leverage_that_the_position_is_too_large_for():
    """A position above the first tier cannot be levered as the first tier may (-2027)."""
    exchange = make_exchange("1000000")
    exchange.submit(replace(MARKET, quantity=D(600)), now_ms=2)

    assert bracket_for(D(60_000)).initial_leverage == 25
    assert code_of(lambda: exchange.set_leverage("COINUSDT", 50, now_ms=3)) == -2027
    exchange.set_leverage("COINUSDT", 25, now_ms=3)
    assert exchange.state.leverage_of("COINUSDT") == 25


def test_leverage_that_the_wallet_cannot_carry():
    """Less leverage binds more margin; what the wallet does not have is -2028, and nothing changes."""
    exchange = make_exchange("1000")
    exchange.submit(replace(MARKET, quantity=D(100)), now_ms=2)

    assert code_of(lambda: exchange.set_leverage("COINUSDT", 5, now_ms=3)) == -2028
    assert exchange.state.leverage_of("COINUSDT") == states.DEFAULT_LEVERAGE


def test_an_isolated_position_keeps_its_leverage_or_takes_more():
    """The venue refuses to lower the leverage of an isolated position (-4161)."""
    exchange = make_exchange(isolated=True)
    exchange.submit(MARKET, now_ms=2)

    assert code_of(lambda: exchange.set_leverage("COINUSDT", 10, now_ms=3)) == -4161
    exchange.set_leverage("COINUSDT", 25, now_ms=3)
    assert exchange.state.leverage_of("COINUSDT") == 25


# -- isolated margin ----------------------------------------------------------------------------------------------


def test_an_isolated_position_takes_its_margin_out_of_the_wallet():
    """Opening moves initial margin from the cross wallet, closing half gives half back, closing all gives all."""
    exchange = make_exchange(isolated=True)
    exchange.submit(MARKET, now_ms=2)
    opened = sum((t.notional for t in exchange.state.trades), D(0)) / 20
    assert own_margin(exchange) == opened
    assert exchange.state.cross_wallet() == exchange.state.wallet - opened

    exchange.submit(replace(MARKET, side=SELL, quantity=D(5), reduce_only=True), now_ms=3)
    assert own_margin(exchange) == opened / 2
    exchange.submit(replace(MARKET, side=SELL, quantity=D(5), reduce_only=True), now_ms=4)
    assert own_margin(exchange) == 0
    assert exchange.state.cross_wallet() == exchange.state.wallet
    assert sum(one.amount for one in exchange.state.margin_moves) == 0


def test_a_flip_leaves_only_the_new_positions_margin():
    """An order that turns an isolated long into a short gives the old margin back and binds the new."""
    exchange = make_exchange(isolated=True)
    exchange.submit(MARKET, now_ms=2)
    exchange.submit(replace(MARKET, side=SELL, quantity=D(14)), now_ms=3)
    position = exchange.state.position("COINUSDT", BOTH)

    assert position.quantity == -4
    assert own_margin(exchange) == (-position.cost / 20).quantize(D("1e-8"))


def test_margin_is_added_and_taken_back():
    """Both move the liquidation price, are remembered and told; the wallet as a whole does not change."""
    exchange = make_exchange(isolated=True)
    exchange.submit(MARKET, now_ms=2)
    wallet, margin_before, price_before = exchange.state.wallet, own_margin(exchange), price_of_liquidation(exchange)
    exchange.drain()
    exchange.move_margin("COINUSDT", BOTH, D(100), now_ms=3)
    (event,) = exchange.drain()

    assert own_margin(exchange) == margin_before + 100
    assert price_of_liquidation(exchange) < price_before
    assert exchange.state.wallet == wallet
    told = user_event(event, exchange.state)["a"]
    assert (told["m"], D(told["P"][0]["iw"])) == ("MARGIN_TRANSFER", margin_before + 100)
    assert D(told["B"][0]["cw"]) == exchange.state.cross_wallet()
    move(exchange, "101", now_ms=4)
    exchange.move_margin("COINUSDT", BOTH, D(-50), now_ms=4)
    assert own_margin(exchange) == margin_before + 50
    assert [one.amount for one in exchange.state.margin_moves if one.by_user] == [100, -50]


@pytest.mark.parametrize(
    ("isolated", "held", "side", "amount", "code"),
    [
        pytest.param(False, True, BOTH, "1", -4049, id="cross"),
        pytest.param(True, False, BOTH, "1", -4054, id="no-position"),
        pytest.param(True, True, LONG, "1", -4061, id="leg-in-one-way"),
        pytest.param(True, True, BOTH, "0", -4055, id="nothing"),
        pytest.param(True, True, BOTH, "9999999", -4050, id="more-than-the-wallet"),
        pytest.param(True, True, BOTH, "-1", -4051, id="below-initial-margin"),
    ],
)
def test_margin_that_cannot_be_moved(isolated, held, side, amount, code):
    """Each reason has the venue's code, and nothing moves."""
    exchange = make_exchange(isolated=isolated)
    if held:
        exchange.submit(MARKET, now_ms=2)
    before = own_margin(exchange)

    assert code_of(lambda: exchange.move_margin("COINUSDT", side, D(amount), now_ms=3)) == code
    assert own_margin(exchange) == before


def test_isolated_margin_is_not_available_to_others():
    """What an isolated position holds, and what it gains, cannot be bound by another order."""
    exchange = make_exchange(isolated=True)
    exchange.submit(MARKET, now_ms=2)
    move(exchange, "150", now_ms=3)
    account = exchange.margin()

    assert account.unrealized > 400
    assert account.available == account.cross_balance == exchange.state.cross_wallet()


# -- liquidation price --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [BUY, SELL])
@pytest.mark.parametrize("isolated", [False, True])
def test_at_the_liquidation_price_equity_is_maintenance(side, isolated):
    """The formula's price is where the account, or the isolated position, has no more than it must."""
    exchange = make_exchange("700", isolated=isolated)
    exchange.submit(replace(MARKET, side=side, quantity=D(100)), now_ms=2)
    price = price_of_liquidation(exchange)
    exchange.state.last_prices["COINUSDT"] = price
    account, position = exchange.margin(), exchange.state.position("COINUSDT", BOTH)
    equity = position.isolated_wallet + position.unrealized(price) if isolated else account.cross_balance

    assert price > 0
    assert abs(equity - margin.maintenance_margin(position, price)) < D("1e-6")
    assert (price < 100) == (side is BUY)


def test_a_hedged_pair_in_cross_margin_has_one_liquidation_price():
    """Both legs share the wallet, so that they are liquidated at the same price; at it equity is maintenance."""
    exchange = make_exchange("700", hedge=True)
    exchange.submit(replace(MARKET, quantity=D(100), position_side=LONG), now_ms=2)
    exchange.submit(replace(MARKET, side=SELL, quantity=D(20), position_side=SHORT), now_ms=3)
    price = price_of_liquidation(exchange, LONG)
    exchange.state.last_prices["COINUSDT"] = price

    assert price == price_of_liquidation(exchange, SHORT) > 0
    assert abs(exchange.margin().cross_balance - exchange.margin().cross_maintenance) < D("1e-6")


def test_other_positions_move_the_liquidation_price_in_cross_margin_only():
    """A loss elsewhere comes closer in cross margin and does not matter to an isolated position."""
    for isolated in (False, True):
        exchange = make_exchange("700", isolated=isolated)
        exchange.submit(replace(MARKET, quantity=D(50)), now_ms=2)
        exchange.submit(replace(MARKET, symbol="OTHERUSDT", quantity=D(30)), now_ms=3)
        before = price_of_liquidation(exchange)
        exchange.tick({"OTHERUSDT": D(98)}, now_ms=4)
        assert (price_of_liquidation(exchange) > before) == (not isolated)


def test_no_position_and_enough_money_have_no_liquidation_price():
    """Zero is what the venue writes where no price liquidates."""
    exchange = make_exchange("100000")
    assert price_of_liquidation(exchange) == 0
    exchange.submit(MARKET, now_ms=2)
    assert price_of_liquidation(exchange) == 0


# -- funding ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("isolated", [False, True])
def test_funding_is_paid_from_the_wallet_that_carries_the_position(isolated):
    """Cross positions pay from the cross wallet and no position is told; isolated ones pay from their margin."""
    exchange = make_exchange(isolated=isolated)
    exchange.submit(MARKET, now_ms=2)
    before, cross = own_margin(exchange), exchange.state.cross_wallet()
    exchange.drain()
    exchange.settle_funding({"COINUSDT": D("0.001")}, now_ms=3)
    (event,) = exchange.drain()
    told = user_event(event, exchange.state)["a"]

    assert own_margin(exchange) - before == (D(-1) if isolated else 0)
    assert exchange.state.cross_wallet() - cross == (0 if isolated else D(-1))
    assert (told["m"], D(told["B"][0]["bc"]), len(told["P"])) == ("FUNDING_FEE", -1, int(isolated))


def test_both_legs_pay_and_receive():
    """Equal legs of a hedged pair cancel each other's funding to the last digit."""
    exchange = make_exchange(hedge=True)
    exchange.submit(replace(MARKET, position_side=LONG), now_ms=2)
    exchange.submit(replace(MARKET, side=SELL, position_side=SHORT), now_ms=3)
    exchange.settle_funding({"COINUSDT": D("0.00033333")}, now_ms=4)
    paid = [one.amount for one in exchange.state.incomes if one.kind == "FUNDING_FEE"]

    assert len(paid) == 2
    assert sum(paid) == 0 != paid[0]


@pytest.mark.parametrize("hours", funding.HOURS)
def test_funding_intervals(hours):
    """Each interval has its boundaries; a shorter one pays its share of what eight hours cost."""
    interval = funding.interval_ms(replace(COIN, funding_hours=hours))
    at = 1_767_571_200_000
    rate = funding.rate_at(7, "COINUSDT", at, interval)

    assert funding.next_boundary(at, interval) == at + hours * 3_600_000
    assert funding.next_boundary(at - 1, interval) == at
    assert 0 <= rate <= D("0.0002") * hours / 8
    assert rate == funding.rate_at(7, "COINUSDT", at + interval - 1, interval)
    assert -rate.as_tuple().exponent <= 8


# -- state and events ---------------------------------------------------------------------------------------------


def test_a_state_from_before_reads_as_cross_margin():
    """What was saved by an engine that knew none of this goes on without isolated margin, halts or delistings."""
    exchange = make_exchange()
    exchange.submit(MARKET, now_ms=2)
    raw = states.encode(exchange.state)
    for name in (b"margin_moves", b"margin_called", b"interruptions", b"settled", b"restricted"):
        assert b'"' + name + b'":[],' in raw or b',"' + name + b'":[]' in raw
        raw = raw.replace(b'"' + name + b'":[],', b"")
    raw = raw.replace(b'"delistings":{},', b"").replace(b',"isolated_wallet":"0"', b"")

    assert b"isolated_wallet" not in raw
    assert states.decode(raw) == exchange.state


def test_account_events_say_how_it_was_right_after():
    """Of two fills told late, the first still says what wallet and position were after it."""
    exchange = make_exchange()
    exchange.submit(replace(MARKET, quantity=D(700)), now_ms=2)
    told = [user_event(event, exchange.state) for event in exchange.drain()]
    accounts = [one["a"] for one in told if one["e"] == "ACCOUNT_UPDATE"]
    amounts = [D(one["P"][0]["pa"]) for one in accounts]

    assert len(accounts) == len(exchange.state.trades) > 1
    assert amounts == sorted(set(amounts))
    assert D(accounts[0]["B"][0]["wb"]) == 10_000 - exchange.state.trades[0].fee


def test_resting_orders_of_a_restricted_symbol_may_only_reduce():
    """Where the venue allows reduce-only orders alone, opening is -4400 and closing goes on."""
    exchange = make_exchange()
    exchange.submit(MARKET, now_ms=2)
    exchange.state.restricted.add("COINUSDT")

    assert code_of(lambda: exchange.submit(MARKET, now_ms=3)) == -4400
    assert code_of(lambda: exchange.submit(replace(MARKET, side=SELL, quantity=D(11)), now_ms=3)) == -4400
    exchange.submit(replace(MARKET, side=SELL, time_in_force=TimeInForce.IOC), now_ms=3)
    assert exchange.state.open_positions() == []


def test_a_symbol_about_to_be_delisted_takes_no_new_positions():
    """Between announcement and settlement opening is -4140, closing goes on."""
    exchange = make_exchange()
    exchange.submit(MARKET, now_ms=2)
    exchange.state.delistings["COINUSDT"] = 1_000

    assert code_of(lambda: exchange.submit(LIMIT, now_ms=3)) == -4140
    assert exchange.submit(replace(MARKET, side=SELL, reduce_only=True), now_ms=3).filled == 10
