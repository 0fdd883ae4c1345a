from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from infra.sandbox.audit import Auditor
from infra.sandbox.engine.errors import VenueError
from infra.sandbox.engine.exchange import Exchange
from infra.sandbox.engine.instrument import Instrument
from infra.sandbox.engine.model import (
    AlgoRequest,
    AlgoStatus,
    OrderEvent,
    OrderRequest,
    OrderStatus,
    OrderType,
    PositionSide,
    Side,
    TimeInForce,
)
from infra.sandbox.engine.state import new_state

D = Decimal
COIN = Instrument("COINUSDT", "COIN", 2, 1, D(5), D(10_000), D(5_000), D(50_000))
BUY, SELL = Side.BUY, Side.SELL
MARKET = OrderRequest("COINUSDT", BUY, OrderType.MARKET, D(10))
LIMIT = OrderRequest("COINUSDT", BUY, OrderType.LIMIT, D(10), price=D("99"))
STOP = AlgoRequest("COINUSDT", SELL, OrderType.STOP_MARKET, D(10), trigger_price=D("98"), reduce_only=True)
TARGET = replace(STOP, type=OrderType.TAKE_PROFIT_MARKET, trigger_price=D("102"))


def make_exchange(price: str = "100", balance: str = "10000") -> Exchange:
    exchange = Exchange([COIN], new_state(D(balance)))
    move(exchange, price, now_ms=1)
    return exchange


def move(exchange: Exchange, price: str, *, now_ms: int = 2) -> None:
    exchange.tick({"COINUSDT": D(price)}, now_ms=now_ms)


def held(exchange: Exchange) -> Decimal:
    return exchange.state.position("COINUSDT", PositionSide.BOTH).quantity


def code_of(call) -> int:
    with pytest.raises(VenueError) as refusal:
        call()
    return refusal.value.code


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        pytest.param(replace(MARKET, symbol="NOUSDT"), -1121, id="unknown-symbol"),
        pytest.param(replace(MARKET, quantity=D("0.05")), -1111, id="off-step"),
        pytest.param(replace(MARKET, quantity=D(0)), -4003, id="no-quantity"),
        pytest.param(replace(MARKET, quantity=D(6_000)), -4005, id="over-market-lot"),
        pytest.param(replace(LIMIT, price=D("99.005")), -4014, id="off-tick"),
        pytest.param(replace(LIMIT, price=None), -1102, id="limit-without-price"),
        pytest.param(replace(LIMIT, price=D(130)), -4016, id="far-above"),
        pytest.param(replace(LIMIT, price=D(70)), -4024, id="far-below"),
        pytest.param(replace(LIMIT, quantity=D("0.0"), price=D(99)), -4003, id="zero"),
        pytest.param(replace(MARKET, quantity=D("0.1"), symbol="COINUSDT"), None, id="small-but-enough"),
        pytest.param(replace(MARKET, position_side=PositionSide.LONG), -4061, id="hedge-side-in-one-way-mode"),
        pytest.param(replace(MARKET, type=OrderType.STOP_MARKET), -4120, id="conditional-on-plain-endpoint"),
        pytest.param(replace(MARKET, reduce_only=True), -2022, id="nothing-to-reduce"),
        pytest.param(replace(MARKET, quantity=D(4_000)), -2019, id="too-little-margin"),
        pytest.param(replace(MARKET, client_order_id="white space"), -4015, id="unprintable-client-id"),
        pytest.param(replace(LIMIT, price=D(101), time_in_force=TimeInForce.GTX), -5022, id="post-only-crosses"),
        pytest.param(
            replace(LIMIT, price=D("100.01"), quantity=D(900), time_in_force=TimeInForce.FOK), -5021, id="fok-too-big"
        ),
    ],
)
def test_refusals_carry_the_venue_code(request_, code):
    """Each rule that an order breaks is answered with the code of the live venue, and nothing is booked."""
    exchange = make_exchange()
    if code is None:
        assert exchange.submit(request_, now_ms=2).status is OrderStatus.FILLED
        return

    assert code_of(lambda: exchange.submit(request_, now_ms=2)) == code
    assert exchange.state.orders == {}
    assert exchange.state.wallet == D(10_000)


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        pytest.param(replace(STOP, trigger_price=D("100.5")), -2021, id="sell-stop-above-price"),
        pytest.param(replace(TARGET, trigger_price=D("99")), -2021, id="sell-target-below-price"),
        pytest.param(replace(STOP, trigger_price=None), -1102, id="no-trigger"),
        pytest.param(replace(STOP, close_position=True, reduce_only=False), -1106, id="close-position-with-quantity"),
        pytest.param(replace(STOP, close_position=True, reduce_only=False, quantity=D(0)), -4509, id="close-nothing"),
        pytest.param(replace(STOP, type=OrderType.TRAILING_STOP_MARKET, callback_rate=D(50)), -1130, id="callback"),
        pytest.param(replace(STOP, type=OrderType.LIMIT), -1116, id="plain-on-algo-endpoint"),
    ],
)
def test_conditional_refusals_carry_the_venue_code(request_, code):
    """A conditional order that would trigger at once, or cannot be understood, is refused."""
    exchange = make_exchange()

    assert code_of(lambda: exchange.submit_algo(request_, now_ms=2)) == code
    assert exchange.state.algos == {}


def test_client_id_is_unique_among_open_orders_only():
    """While an order is open its client id is refused (-4116); afterwards the same id executes again."""
    exchange = make_exchange()
    resting = replace(LIMIT, client_order_id="one")
    order = exchange.submit(resting, now_ms=2)

    assert code_of(lambda: exchange.submit(resting, now_ms=2)) == -4116
    exchange.cancel("COINUSDT", order_id=order.order_id, now_ms=3)
    assert exchange.submit(resting, now_ms=4).is_open


def test_market_order_walks_the_book_and_pays_the_spread():
    """A taker buys at the ask and above, one fill per level, at no less than the last price."""
    exchange = make_exchange()
    order = exchange.submit(replace(MARKET, quantity=D(700)), now_ms=2)
    prices = [trade.price for trade in exchange.state.trades]

    assert order.status is OrderStatus.FILLED
    assert len(prices) > 1
    assert prices == sorted(prices)
    assert prices[0] > D(100)


def test_limit_fills_at_its_price_when_traded_through():
    """Touching is not enough; once the price goes beyond, the order fills at its own price as maker."""
    exchange = make_exchange()
    exchange.submit(LIMIT, now_ms=2)

    move(exchange, "99.00")
    assert held(exchange) == 0
    move(exchange, "98.50")

    assert held(exchange) == 10
    assert exchange.state.trades[0].price == D("99")
    assert exchange.state.trades[0].is_maker


def test_stop_gap_fills_at_the_worse_price():
    """A stop that the price jumped over fills at the market, not at its trigger."""
    exchange = make_exchange()
    exchange.submit(MARKET, now_ms=2)
    algo = exchange.submit_algo(replace(STOP, client_algo_id="guard"), now_ms=2)
    move(exchange, "90.00")

    child = exchange.state.orders[exchange.state.algos[algo.algo_id].order_id]
    assert exchange.state.algos[algo.algo_id].status is AlgoStatus.FINISHED
    assert child.client_order_id == "guard"
    assert child.status is OrderStatus.FILLED
    assert child.average_price < D(90)
    assert held(exchange) == 0


def test_overshot_target_gets_its_trigger_and_no_more():
    """A target fills at the worse of trigger and market."""
    exchange = make_exchange()
    exchange.submit(MARKET, now_ms=2)
    exchange.submit_algo(TARGET, now_ms=2)
    move(exchange, "110.00")

    assert held(exchange) == 0
    assert exchange.state.trades[-1].price < D(102)


def test_fill_overtakes_the_news_of_its_trigger():
    """The child's fill is reported before the conditional order's trigger, as on the live venue."""
    exchange = make_exchange()
    exchange.submit(MARKET, now_ms=2)
    exchange.submit_algo(STOP, now_ms=2)
    exchange.drain()
    move(exchange, "97.00")
    kinds = [
        event.execution if isinstance(event, OrderEvent) else getattr(getattr(event, "algo", None), "status", "ACCOUNT")
        for event in exchange.drain()
    ]

    assert kinds == ["NEW", "ACCOUNT", "TRADE", AlgoStatus.TRIGGERED, AlgoStatus.FINISHED]


def test_reduce_only_is_capped_again_at_the_fill():
    """A resting reduce-only order larger than what is left of the position closes it and expires; it never flips."""
    exchange = make_exchange()
    exchange.submit(MARKET, now_ms=2)
    exchange.submit(replace(LIMIT, side=SELL, price=D(105), reduce_only=True), now_ms=2)
    exchange.submit(replace(MARKET, side=SELL, quantity=D(7)), now_ms=3)
    move(exchange, "106.00")

    assert held(exchange) == 0
    assert exchange.open_orders() == []


def test_reduce_only_orders_that_cover_the_position_block_another():
    """With a resting reduce-only order over the whole position, a second one is refused (-4118)."""
    exchange = make_exchange()
    exchange.submit(MARKET, now_ms=2)
    exchange.submit(replace(LIMIT, side=SELL, price=D(105), reduce_only=True), now_ms=2)

    assert code_of(lambda: exchange.submit(replace(MARKET, side=SELL, reduce_only=True), now_ms=3)) == -4118


def test_close_position_resolves_at_trigger_and_dies_with_the_position():
    """ClosePosition closes whatever is held when it triggers; a second in the same direction is refused (-4130)."""
    exchange = make_exchange()
    guard = replace(STOP, close_position=True, reduce_only=False, quantity=D(0))
    exchange.submit(MARKET, now_ms=2)
    exchange.submit_algo(guard, now_ms=2)
    assert code_of(lambda: exchange.submit_algo(replace(guard, trigger_price=D(97)), now_ms=2)) == -4130
    exchange.submit(replace(MARKET, quantity=D(5)), now_ms=3)
    move(exchange, "97.50")
    assert held(exchange) == 0

    move(exchange, "100.00")
    exchange.submit(MARKET, now_ms=4)
    again = exchange.submit_algo(guard, now_ms=4)
    exchange.submit(replace(MARKET, side=SELL), now_ms=5)
    assert exchange.state.algos[again.algo_id].status is AlgoStatus.EXPIRED


def test_target_does_not_cancel_its_stop():
    """There is no one-cancels-other on futures: the orphan stays the client's business."""
    exchange = make_exchange()
    exchange.submit(MARKET, now_ms=2)
    exchange.submit_algo(STOP, now_ms=2)
    exchange.submit_algo(TARGET, now_ms=2)
    move(exchange, "103.00")

    assert held(exchange) == 0
    assert [algo.type for algo in exchange.open_algos()] == [OrderType.STOP_MARKET]


def test_orphan_stop_is_rejected_when_it_triggers():
    """A reduce-only stop that outlived its position opens nothing."""
    exchange = make_exchange()
    algo = exchange.submit_algo(STOP, now_ms=2)
    move(exchange, "97.00")

    assert exchange.state.algos[algo.algo_id].status is AlgoStatus.REJECTED
    assert exchange.state.trades == []


def test_trailing_stop_follows_the_best_price():
    """A trailing stop triggers when the price falls the callback rate below the best since activation."""
    exchange = make_exchange()
    exchange.submit(MARKET, now_ms=2)
    exchange.submit_algo(
        replace(STOP, type=OrderType.TRAILING_STOP_MARKET, trigger_price=None, callback_rate=D(2)), now_ms=2
    )
    for price in ("104.00", "110.00", "108.50"):
        move(exchange, price)
    assert held(exchange) == 10
    move(exchange, "107.70")

    assert held(exchange) == 0


def test_stop_limit_may_stay_unfilled():
    """A stop with a limit that the price left behind rests after its trigger; it is not a protection that filled."""
    exchange = make_exchange()
    exchange.submit(MARKET, now_ms=2)
    exchange.submit_algo(replace(STOP, type=OrderType.STOP, price=D("97.90")), now_ms=2)
    move(exchange, "95.00")

    assert held(exchange) == 10
    assert [order.price for order in exchange.open_orders()] == [D("97.90")]


def test_amend_requeues_and_refuses_no_change():
    """An amendment to the same values is refused (-5027); one below what filled cancels; any other re-queues."""
    exchange = make_exchange()
    first = exchange.submit(LIMIT, now_ms=2)
    second = exchange.submit(LIMIT, now_ms=2)
    assert code_of(lambda: exchange.amend("COINUSDT", first.order_id, quantity=D(10), price=D(99), now_ms=3)) == -5027
    amended = exchange.amend("COINUSDT", first.order_id, quantity=D(9), price=D(99), now_ms=3)

    assert amended.queued > second.queued


def test_funding_moves_the_wallet_once_per_open_position():
    """Longs pay a positive rate on notional at the mark price, and the round trip remembers it."""
    exchange = make_exchange()
    exchange.submit(MARKET, now_ms=2)
    before = exchange.state.wallet
    exchange.settle_funding({"COINUSDT": D("0.0001")}, now_ms=3)

    assert exchange.state.wallet - before == D("-0.1")
    assert exchange.state.incomes[-1].kind == "FUNDING_FEE"
    assert exchange.state.open_trips["COINUSDT|BOTH"].funding == D("-0.1")


def test_equity_below_maintenance_is_liquidated():
    """When equity no longer covers maintenance the venue closes everything under a client id of its own."""
    exchange = make_exchange(balance="600")
    exchange.submit(replace(MARKET, quantity=D(100)), now_ms=2)
    move(exchange, "94.50")

    assert exchange.liquidate_if_needed(now_ms=3)
    assert held(exchange) == 0
    assert exchange.state.trades[-1].client_order_id.startswith("autoclose-")


def test_hedge_mode_keeps_two_positions():
    """In hedge mode long and short live side by side, and neither can be overclosed."""
    exchange = make_exchange()
    exchange.set_hedge_mode(hedge=True)
    exchange.submit(replace(MARKET, position_side=PositionSide.LONG), now_ms=2)
    exchange.submit(replace(MARKET, side=SELL, quantity=D(4), position_side=PositionSide.SHORT), now_ms=2)
    exchange.submit(replace(MARKET, side=SELL, quantity=D(25), position_side=PositionSide.LONG), now_ms=3)

    assert exchange.state.position("COINUSDT", PositionSide.LONG).quantity == 0
    assert exchange.state.position("COINUSDT", PositionSide.SHORT).quantity == -4


def test_auditor_measures_protection_in_wall_time():
    """A position counts as unprotected from its fill until stops cover all of it, on the wall's clock."""
    exchange, auditor = make_exchange(), Auditor()
    exchange.submit(MARKET, now_ms=2)
    auditor.observe(exchange, now_ms=2, wall_ms=1_000.0)
    exchange.submit_algo(replace(STOP, quantity=D(6)), now_ms=3)
    auditor.observe(exchange, now_ms=3, wall_ms=1_040.0)
    exchange.submit_algo(replace(STOP, quantity=D(4)), now_ms=4)
    auditor.observe(exchange, now_ms=4, wall_ms=1_100.0)

    assert [one.wall_ms for one in auditor.intervals(now_ms=9, wall_ms=9_999.0)] == [100.0]


def test_duplicate_execution_is_remembered():
    """A client id under which two orders filled is known to the engine; partial fills of one order are not two."""
    exchange = make_exchange()
    exchange.submit(replace(MARKET, quantity=D(700), client_order_id="once"), now_ms=2)
    exchange.submit(replace(MARKET, side=SELL, client_order_id="twice"), now_ms=3)
    exchange.submit(replace(MARKET, side=SELL, client_order_id="twice"), now_ms=4)

    doubled = [cid for cid, orders in exchange.state.executed.items() if len(orders) > 1]
    assert doubled == ["twice"]
