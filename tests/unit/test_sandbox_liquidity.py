"""What fills orders at the sandbox's engine, and how much: touch, volume, impact, queue, and orders of one account."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from infra.sandbox.engine.model import (
    OrderStatus,
    SelfTradePrevention,
    TimeInForce,
)
from tests.matching_support import (
    BUY,
    LIMIT,
    MARKET,
    NAME,
    SELL,
    STOP,
    TARGET,
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


# -- liquidity ------------------------------------------------------------------------------------------------------


def test_touch_fills_as_often_as_was_said():
    """At a price that only touches, about the stated share of ticks fills; the same seed draws the same."""

    def ticks_until_filled(seed: int) -> int:
        exchange = make_exchange(touch_probability=D("0.25"), seed=seed)
        exchange.submit(LIMIT, now_ms=2)
        return next(n for n in range(1, 200) if move(exchange, "99.00", now_ms=10 * n) or held(exchange))

    waits = [ticks_until_filled(seed) for seed in range(300)]
    assert waits == [ticks_until_filled(seed) for seed in range(300)]
    assert 3.3 < sum(waits) / len(waits) < 4.8


def test_touch_fills_nothing_by_default():
    """However often the price touches the limit, it has to go beyond."""
    exchange = make_exchange()
    exchange.submit(LIMIT, now_ms=2)
    for n in range(100):
        move(exchange, "99.00", now_ms=3 + n)

    assert held(exchange) == 0


def test_participation_fills_a_resting_order_bar_by_bar():
    """A limit that was traded through takes its share of each bar, one event per part, until it is whole."""
    exchange = make_exchange(participation=D("0.1"))
    order = exchange.submit(LIMIT, now_ms=2)
    exchange.drain()
    for n, volume in enumerate(("45", "0", "39", "1000")):
        move(exchange, "98.50", now_ms=3 + n, volume=volume)
    done = exchange.state.orders[order.order_id]

    assert [trade.quantity for trade in exchange.state.trades] == [D("4.5"), D("3.9"), D("1.6")]
    assert {trade.price for trade in exchange.state.trades} == {D(99)}
    assert executions(exchange) == ["TRADE"] * 3
    assert done.status is OrderStatus.FILLED


def test_participation_bounds_all_orders_of_a_bar_together():
    """A market order takes what the bar allows and the rest expires; a second one in the same bar finds nothing."""
    exchange = make_exchange(participation=D("0.1"))
    move(exchange, "100", volume="60", now_ms=10)
    first = exchange.submit(MARKET, now_ms=11)
    second = exchange.submit(MARKET, now_ms=12)

    assert (first.status, first.filled) == (OrderStatus.EXPIRED, D(6))
    assert (second.status, second.filled) == (OrderStatus.EXPIRED, D(0))
    assert code_of(lambda: exchange.submit(replace(LIMIT, price=D(101), time_in_force=FOK), now_ms=13)) == -5021


def test_impact_grows_with_the_root_of_what_was_taken():
    """Four times as much moves the price twice as far, and two halves cost what the whole costs."""
    moved = []
    for quantity in ("4", "16"):
        exchange = make_exchange(impact_bps=D(100))
        move(exchange, "100", volume="1600", now_ms=10)
        exchange.submit(replace(MARKET, quantity=D(quantity)), now_ms=11)
        best = exchange.book.best(exchange.instruments[NAME], D(100), BUY)
        moved.append(exchange.state.trades[-1].price - best)
    exchange.submit(replace(MARKET, quantity=D(20)), now_ms=12)

    # 1 % of the price for the whole bar: a twentieth of it for a four-hundredth, a tenth for a hundredth.
    assert moved == [D("0.06"), D("0.11")]
    assert exchange.state.trades[-1].price == D("100.01") + D("0.16")


def test_impact_never_pushes_a_limit_beyond_itself():
    """A limit that takes stops where the price would be worse than its own, and rests there."""
    exchange = make_exchange(impact_bps=D(100))
    move(exchange, "100", volume="100", now_ms=10)
    order = exchange.submit(replace(LIMIT, price=D("100.05"), quantity=D(50)), now_ms=11)

    assert order.is_open
    assert order.filled == 0


def test_queue_is_served_before_our_order():
    """What was displayed first is traded first; only what is left of a trade fills, an amendment goes last."""
    exchange = make_exchange(queue=True)
    best = exchange.book.best(exchange.instruments[NAME], D(100), SELL)
    shown = next(size for price, size in exchange.book.levels(exchange.instruments[NAME], D(100), SELL))
    order = exchange.submit(replace(LIMIT, price=best), now_ms=2)
    exchange.trade(NAME, best, shown - 2, SELL, now_ms=3)
    assert held(exchange) == 0
    exchange.trade(NAME, best, D(5), BUY, now_ms=4)
    assert held(exchange) == 0
    exchange.trade(NAME, best, D(5), SELL, now_ms=5)
    assert held(exchange) == 3
    exchange.amend(NAME, order.order_id, quantity=D(9), price=best, now_ms=6)
    exchange.trade(NAME, best, D(5), SELL, now_ms=7)

    assert held(exchange) == 3
    assert exchange.state.trades[-1].price == best


def test_queue_shrinks_with_what_is_displayed():
    """Where a level is taken out of the book, nobody is before us; two orders of ours share what comes."""
    exchange = make_exchange(queue=True)
    best = exchange.book.best(exchange.instruments[NAME], D(100), SELL)
    first = exchange.submit(replace(LIMIT, price=best, quantity=D(4)), now_ms=2)
    second = exchange.submit(replace(LIMIT, price=best, quantity=D(4)), now_ms=2)
    exchange.see_level(NAME, BUY, best, D(0))
    exchange.trade(NAME, best, D(6), SELL, now_ms=3)

    assert exchange.state.orders[first.order_id].filled == 4
    assert exchange.state.orders[second.order_id].filled == 2


def test_trade_beyond_the_limit_leaves_no_queue():
    """A trade at a worse price than ours cannot have happened before ours."""
    exchange = make_exchange(queue=True)
    best = exchange.book.best(exchange.instruments[NAME], D(100), SELL)
    order = exchange.submit(replace(LIMIT, price=best), now_ms=2)
    exchange.trade(NAME, best - D("0.01"), D("0.1"), SELL, now_ms=3)

    assert exchange.state.orders[order.order_id].status is OrderStatus.FILLED


# -- orders of one account -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "taker", "filled", "maker"),
    [
        (SelfTradePrevention.NONE, OrderStatus.FILLED, 600, OrderStatus.NEW),
        (SelfTradePrevention.EXPIRE_MAKER, OrderStatus.FILLED, 600, OrderStatus.EXPIRED_IN_MATCH),
        (SelfTradePrevention.EXPIRE_TAKER, OrderStatus.EXPIRED_IN_MATCH, 499, OrderStatus.NEW),
        (SelfTradePrevention.EXPIRE_BOTH, OrderStatus.EXPIRED_IN_MATCH, 499, OrderStatus.EXPIRED_IN_MATCH),
    ],
)
def test_orders_of_one_account_make_way(mode, taker, filled, maker):
    """An order that would meet another one of its account ends, or that one does, or neither, as was asked for."""
    exchange = make_exchange()
    resting = exchange.submit(replace(LIMIT, side=SELL, price=D("100.02")), now_ms=2)
    order = exchange.submit(replace(MARKET, quantity=D(600), self_trade_prevention=mode), now_ms=3)

    assert order.status is taker
    assert int(order.filled) == filled
    assert exchange.state.orders[resting.order_id].status is maker


def test_overshot_target_keeps_its_trigger():
    """A target on the last price still fills at its trigger and not where the market jumped to."""
    exchange = make_exchange()
    exchange.submit(MARKET, now_ms=2)
    exchange.submit_algo(TARGET, now_ms=2)
    move(exchange, "110.00")

    assert D(101) < exchange.state.trades[-1].price < D(102)
