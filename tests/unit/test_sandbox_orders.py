"""Orders at the sandbox's engine: how they enter, how long they wait, and what makes them go."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from infra.sandbox.engine.checks import SHORTEST_GTD_MS
from infra.sandbox.engine.model import (
    AlgoStatus,
    OrderStatus,
    OrderType,
    PositionSide,
    TimeInForce,
    WorkingType,
)
from tests.matching_support import (
    BUY,
    LIMIT,
    MARKET,
    NAME,
    SELL,
    STOP,
    TRAILING,
    code_of,
    executions,
    held,
    make_exchange,
    move,
)

D = Decimal
GTC, IOC, FOK, GTX, GTD = (getattr(TimeInForce, one) for one in ("GTC", "IOC", "FOK", "GTX", "GTD"))
LATER = 700_000
POST_ONLY = replace(LIMIT, time_in_force=GTX)
CLOSE = replace(STOP, close_position=True, reduce_only=False, quantity=D(0))


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        pytest.param(replace(LIMIT, symbol="NOUSDT", price=None), -1121, id="symbol-before-price"),
        pytest.param(replace(LIMIT, price=None, quantity=D("0.05")), -1102, id="missing-before-step"),
        pytest.param(replace(LIMIT, quantity=D("0.05"), price=D("99.005")), -1111, id="step-before-tick"),
        pytest.param(replace(LIMIT, quantity=D(20_000), price=D("99.005")), -4005, id="size-before-tick"),
        pytest.param(replace(LIMIT, price=D("130.005")), -4014, id="tick-before-band"),
        pytest.param(replace(LIMIT, quantity=D("0.1"), price=D(10)), -4024, id="band-before-notional"),
        pytest.param(
            replace(MARKET, type=OrderType.LIMIT, quantity=D("0.1"), price=D("20"), position_side=PositionSide.LONG),
            -4024, id="band-before-side",
        ),
        pytest.param(
            replace(MARKET, quantity=D(5_000), position_side=PositionSide.LONG), -4061, id="side-before-margin"
        ),
        pytest.param(replace(MARKET, quantity=D(5_000), client_order_id="taken"), -4116, id="id-before-margin"),
        pytest.param(replace(LIMIT, price=D(101), time_in_force=FOK, quantity=D(4_000)), -2019, id="margin-before-fok"),
        pytest.param(replace(MARKET, quantity=D(5_000), type=OrderType.STOP), -2019, id="margin-before-endpoint"),
        pytest.param(replace(MARKET, reduce_only=True, type=OrderType.STOP), -2022, id="reduce-before-endpoint"),
        pytest.param(replace(POST_ONLY, side=SELL, reduce_only=True), -2022, id="reduce-before-post-only"),
        pytest.param(replace(MARKET, type=OrderType.STOP_MARKET), -4120, id="endpoint"),
    ],
)  # fmt: skip
def test_the_first_broken_rule_is_told(request_, code):
    """An order that breaks several rules is refused by the one that the venue looks at first."""
    exchange = make_exchange()
    exchange.submit(replace(LIMIT, client_order_id="taken"), now_ms=2)
    before = dict(exchange.state.orders)

    assert code_of(lambda: exchange.submit(request_, now_ms=2)) == code
    assert exchange.state.orders == before


def test_leverage_is_looked_at_before_margin():
    """An exposure over the tier of the leverage is told before the margin that is missing too."""
    exchange = make_exchange(balance="1000")

    assert code_of(lambda: exchange.submit(replace(LIMIT, quantity=D(10_000), price=D(110)), now_ms=2)) == -2027
    assert code_of(lambda: exchange.submit(replace(LIMIT, quantity=D(9_000), price=D(110)), now_ms=2)) == -2019


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        pytest.param(replace(STOP, trigger_price=None, quantity=D("0.05")), -1102, id="missing-before-step"),
        pytest.param(replace(STOP, type=OrderType.STOP, price=None), -1102, id="limit-without-price"),
        pytest.param(replace(TRAILING, callback_rate=None), -1102, id="trailing-without-rate"),
        pytest.param(replace(STOP, trigger_price=D("100.505")), -4014, id="tick-before-trigger"),
        pytest.param(replace(STOP, type=OrderType.STOP, price=D(120)), -4016, id="limit-far-over-trigger"),
        pytest.param(replace(STOP, type=OrderType.STOP, price=D(80)), -4024, id="limit-far-under-trigger"),
        pytest.param(replace(STOP, reduce_only=False, quantity=D("0.01")), -1111, id="step"),
        pytest.param(replace(STOP, reduce_only=False, quantity=D("0.0")), -4003, id="no-quantity"),
        pytest.param(replace(STOP, trigger_price=D(101), client_algo_id="taken"), -4116, id="id-before-trigger"),
        pytest.param(replace(TRAILING, activate_price=D(99)), -2021, id="trailing-active-below-a-sell"),
        pytest.param(replace(CLOSE, trigger_price=D(101)), -2021, id="trigger-before-close-position"),
        pytest.param(replace(CLOSE, reduce_only=True), -1106, id="close-position-with-reduce-only"),
        pytest.param(replace(CLOSE, type=OrderType.STOP, price=D(98)), -4136, id="close-position-with-limit"),
    ],
)
def test_the_first_broken_rule_of_a_conditional_order_is_told(request_, code):
    """A conditional order is judged in the venue's order too."""
    exchange = make_exchange()
    exchange.submit_algo(replace(STOP, client_algo_id="taken"), now_ms=2)

    assert code_of(lambda: exchange.submit_algo(request_, now_ms=2)) == code
    assert len(exchange.state.algos) == 1


def test_counts_of_open_orders_are_bounded():
    """200 plain and 10 conditional orders of a symbol may rest, and not one more."""
    exchange = make_exchange(balance="1000000")
    for _ in range(200):
        exchange.submit(replace(LIMIT, quantity=D("0.1")), now_ms=2)
    for _ in range(10):
        exchange.submit_algo(STOP, now_ms=2)

    assert code_of(lambda: exchange.submit(replace(LIMIT, quantity=D("0.1")), now_ms=2)) == -2025
    assert code_of(lambda: exchange.submit_algo(STOP, now_ms=2)) == -4045


def test_market_order_needs_a_counterparty_near_the_mark():
    """Where the best price is out of the band around the mark price, a market order is refused (-4131)."""
    exchange = make_exchange()
    move(exchange, "100", mark="84")

    assert code_of(lambda: exchange.submit(MARKET, now_ms=3)) == -4131
    move(exchange, "100", mark="99")
    assert exchange.submit(MARKET, now_ms=4).status is OrderStatus.FILLED


def test_market_order_stops_at_the_bound_of_takers():
    """What a market order would take beyond the bound expires; what it took before stays."""
    exchange = make_exchange(take_bound=D("0.0002"))
    order = exchange.submit(replace(MARKET, quantity=D(1_900)), now_ms=2)

    assert order.status is OrderStatus.EXPIRED
    assert 0 < order.filled < 1_900
    assert max(trade.price for trade in exchange.state.trades) == D("100.02")


# -- time in force ------------------------------------------------------------------------------------------------


def test_immediate_or_cancel_takes_what_is_there():
    """The part that cannot be filled at once expires."""
    exchange = make_exchange()
    order = exchange.submit(replace(LIMIT, price=D("100.01"), quantity=D(900), time_in_force=IOC), now_ms=2)

    assert order.status is OrderStatus.EXPIRED
    assert 0 < order.filled < 900
    assert executions(exchange)[-1] == "EXPIRED"


def test_fill_or_kill_is_whole_or_refused():
    """Filled whole, or -5021 and nothing; also where reduce-only leaves less to fill than was asked for."""
    exchange = make_exchange()
    fok = replace(LIMIT, price=D("100.01"), time_in_force=FOK)

    assert exchange.submit(fok, now_ms=2).status is OrderStatus.FILLED
    assert code_of(lambda: exchange.submit(replace(fok, quantity=D(900)), now_ms=2)) == -5021
    over = replace(fok, side=SELL, price=D("99.99"), quantity=D(11), reduce_only=True)
    assert code_of(lambda: exchange.submit(over, now_ms=2)) == -5021
    assert held(exchange) == 10


def test_post_only_rests_and_makes():
    """A post-only order that does not cross rests, and pays the maker's fee when it fills."""
    exchange = make_exchange()
    order = exchange.submit(POST_ONLY, now_ms=2)
    move(exchange, "98.90")

    assert exchange.state.orders[order.order_id].status is OrderStatus.FILLED
    assert [trade.is_maker for trade in exchange.state.trades] == [True]
    assert exchange.state.trades[0].fee == D("99") * 10 * exchange.fees.maker


def test_amending_post_only_across_the_market_cancels_it():
    """An amendment that would make a post-only order a taker cancels it instead."""
    exchange = make_exchange()
    order = exchange.submit(POST_ONLY, now_ms=2)
    amended = exchange.amend(NAME, order.order_id, quantity=D(10), price=D(101), now_ms=3)

    assert amended.status is OrderStatus.CANCELED
    assert exchange.state.trades == []


def test_amending_below_what_is_filled_cancels():
    """An amendment to no more than what was filled leaves nothing to wait for."""
    exchange = make_exchange(participation=D("0.1"))
    order = exchange.submit(LIMIT, now_ms=2)
    move(exchange, "98.90", now_ms=3, volume="60")
    amended = exchange.amend(NAME, order.order_id, quantity=D(6), price=D(99), now_ms=4)

    assert (amended.status, amended.filled) == (OrderStatus.CANCELED, D(6))


def test_good_till_date_ends_at_its_second():
    """An order that is good till a date is open until then and expires then, with or without a price."""
    exchange = make_exchange()
    order = exchange.submit(replace(LIMIT, time_in_force=GTD, good_till_ms=LATER), now_ms=2)
    algo = exchange.submit_algo(replace(STOP, time_in_force=GTD, good_till_ms=LATER + 1_000), now_ms=2)
    exchange.elapse(LATER - 1)
    assert exchange.state.orders[order.order_id].is_open
    exchange.elapse(LATER)

    ended = exchange.state.orders[order.order_id]
    assert (ended.status, ended.updated_ms) == (OrderStatus.EXPIRED, LATER)
    assert exchange.state.algos[algo.algo_id].is_open
    exchange.elapse(LATER + 5_000)
    late = exchange.state.algos[algo.algo_id]
    assert (late.status, late.updated_ms) == (AlgoStatus.EXPIRED, LATER + 1_000)


def test_good_till_date_is_over_before_the_price_of_its_second():
    """A tick at the moment of expiry fills nothing."""
    exchange = make_exchange()
    exchange.submit(replace(LIMIT, time_in_force=GTD, good_till_ms=LATER), now_ms=2)
    move(exchange, "90", now_ms=LATER)

    assert exchange.state.trades == []
    assert exchange.open_orders() == []


@pytest.mark.parametrize(
    ("force", "good_till_ms", "code"),
    [
        (GTD, 0, -1102),
        (GTC, LATER, -1106),
        (GTD, 2 + SHORTEST_GTD_MS, -5040),
        (GTD, 253_402_300_799_000, -5040),
    ],
)
def test_good_till_date_needs_a_date_that_can_be_kept(force, good_till_ms, code):
    """A date that is missing, needless, too near or without end is refused."""
    exchange = make_exchange()
    request = replace(LIMIT, time_in_force=force, good_till_ms=good_till_ms)

    assert code_of(lambda: exchange.submit(request, now_ms=2)) == code
    assert code_of(lambda: exchange.submit_algo(replace(STOP, time_in_force=force, good_till_ms=good_till_ms), now_ms=2)) == code  # fmt: skip # noqa: E501


# -- conditional orders ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "trigger", "limit", "through"),
    [(OrderType.STOP, "98", "97.50", "97.90"), (OrderType.TAKE_PROFIT, "102", "102.50", "102.10")],
)
def test_conditional_limits_rest_after_their_trigger(kind, trigger, limit, through):
    """STOP and TAKE_PROFIT send a limit when they trigger; it is filled or waits, at its price or better."""
    exchange = make_exchange()
    exchange.submit(MARKET, now_ms=2)
    algo = exchange.submit_algo(replace(STOP, type=kind, trigger_price=D(trigger), price=D(limit)), now_ms=2)
    move(exchange, through, now_ms=3)
    child = exchange.state.orders[exchange.state.algos[algo.algo_id].order_id]

    assert (child.type, child.original_type, child.price) == (OrderType.LIMIT, kind, D(limit))
    assert child.is_open == (kind is OrderType.TAKE_PROFIT)
    assert all(trade.price >= D(limit) for trade in exchange.state.trades if trade.side is SELL)


@pytest.mark.parametrize(("force", "reason"), [(GTX, "Post Only"), (FOK, "FOK")])
def test_child_that_breaks_its_time_in_force_is_not_sent(force, reason):
    """A triggered limit that is post-only and would take, or fill-or-kill and would not be filled, is rejected."""
    exchange = make_exchange()
    exchange.submit(MARKET, now_ms=2)
    size = D(10) if force is GTX else D(900)
    price = D("97") if force is GTX else D("98.00")
    request = replace(
        STOP, type=OrderType.STOP, price=price, quantity=size, time_in_force=force, reduce_only=force is GTX,
        side=SELL,
    )  # fmt: skip
    algo = exchange.submit_algo(request, now_ms=2)
    move(exchange, "97.99", now_ms=3)

    assert exchange.state.algos[algo.algo_id].status is AlgoStatus.REJECTED
    assert reason in exchange.state.algos[algo.algo_id].reason
    assert len(exchange.state.trades) == 1


def test_working_type_says_which_price_is_watched():
    """A stop on the mark price ignores the last price, and the other way round."""
    exchange = make_exchange()
    exchange.submit(MARKET, now_ms=2)
    on_mark = exchange.submit_algo(replace(STOP, quantity=D(4), working_type=WorkingType.MARK_PRICE), now_ms=2)
    on_last = exchange.submit_algo(replace(STOP, quantity=D(3)), now_ms=2)
    move(exchange, "97", now_ms=3, mark="99")
    assert exchange.state.algos[on_mark.algo_id].is_open
    assert held(exchange) == 7
    move(exchange, "99", now_ms=4, mark="97.50")

    assert held(exchange) == 3
    child = exchange.state.orders[exchange.state.algos[on_mark.algo_id].order_id]
    assert child.working_type is WorkingType.MARK_PRICE
    # What triggered on the mark price fills where the market is.
    assert child.average_price > D("98.5")
    assert exchange.state.algos[on_last.algo_id].status is AlgoStatus.FINISHED


def test_trigger_is_judged_by_the_price_that_is_watched():
    """Whether a stop would trigger at once depends on its working type."""
    exchange = make_exchange()
    move(exchange, "100", mark="97")
    on_mark = replace(STOP, working_type=WorkingType.MARK_PRICE)

    assert code_of(lambda: exchange.submit_algo(on_mark, now_ms=2)) == -2021
    assert exchange.submit_algo(STOP, now_ms=2).is_open


def test_trailing_stop_waits_for_its_activation():
    """Nothing before activation counts; from there on the best price does."""
    exchange = make_exchange()
    exchange.submit(MARKET, now_ms=2)
    algo = exchange.submit_algo(replace(TRAILING, activate_price=D(105)), now_ms=2)
    for price in ("104", "101", "99"):
        move(exchange, price)
    assert not exchange.state.algos[algo.algo_id].activated
    for price in ("105", "106", "104"):
        move(exchange, price)
    assert (exchange.state.algos[algo.algo_id].extreme, held(exchange)) == (D(106), 10)
    move(exchange, "103.88")

    assert held(exchange) == 0


def test_trailing_stop_of_a_short_follows_downwards():
    """A trailing buy triggers when the price rises the callback rate above the lowest since activation."""
    exchange = make_exchange()
    exchange.submit(replace(MARKET, side=SELL), now_ms=2)
    exchange.submit_algo(replace(TRAILING, side=BUY, callback_rate=D(1)), now_ms=2)
    for price in ("98", "95", "95.90"):
        move(exchange, price)
    assert held(exchange) == -10
    move(exchange, "95.95")

    assert held(exchange) == 0


def test_close_position_ends_when_the_position_turns():
    """A fill that turns the position around closed it: what was to close it is gone."""
    exchange = make_exchange()
    exchange.submit(MARKET, now_ms=2)
    guard = exchange.submit_algo(CLOSE, now_ms=2)
    exchange.submit(replace(MARKET, side=SELL, quantity=D(15)), now_ms=3)

    assert held(exchange) == -5
    assert exchange.state.algos[guard.algo_id].status is AlgoStatus.EXPIRED


def test_stop_and_target_may_both_close_the_position():
    """One closePosition stop and one closePosition target rest together; a second of either is refused."""
    exchange = make_exchange()
    exchange.submit(MARKET, now_ms=2)
    goal = replace(CLOSE, type=OrderType.TAKE_PROFIT_MARKET, trigger_price=D(103))
    exchange.submit_algo(CLOSE, now_ms=2)
    exchange.submit_algo(goal, now_ms=2)

    assert code_of(lambda: exchange.submit_algo(replace(goal, trigger_price=D(104)), now_ms=2)) == -4130
    assert len(exchange.open_algos()) == 2
