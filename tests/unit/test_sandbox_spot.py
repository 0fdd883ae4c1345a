"""What a spot account is allowed, what it is refused by which code, and what an order does to its balances."""

from __future__ import annotations

from decimal import Decimal

import pytest

from infra.sandbox.engine.errors import VenueError
from infra.sandbox.engine.instrument import instrument_for_price
from infra.sandbox.engine.model import (
    AlgoRequest,
    AlgoStatus,
    OrderRequest,
    OrderStatus,
    OrderType,
    SelfTradePrevention,
    Side,
    TimeInForce,
)
from infra.sandbox.engine.rules import Rules
from infra.sandbox.engine.spot import SpotExchange
from infra.sandbox.engine.spot_ledger import Balances
from infra.sandbox.engine.spot_state import new_spot_state
from infra.sandbox.protocol.params import Params
from infra.sandbox.spot.words import OF_REPLACEMENT, SpotType, order_asked, type_of

D = Decimal
COIN = instrument_for_price("SOLUSDT", "SOL", 150.0)
LAST = D("150.000")


def account(balance: str = "10000", coins: str = "0") -> SpotExchange:
    """Return an account at a price, with some of both assets."""
    spot = SpotExchange([COIN], new_spot_state(D(balance)))
    spot.tick({"SOLUSDT": LAST}, now_ms=1)
    spot.state.last_prices["SOLUSDT"] = LAST
    if D(coins):
        spot.transfer("SOL", D(coins), now_ms=1)
    spot.news(1)
    return spot


def order(side: Side = Side.BUY, quantity: str = "1", price: str | None = None, **more) -> OrderRequest:
    """Return an order at market, or at a limit where a price is given."""
    kind = OrderType.MARKET if price is None else OrderType.LIMIT
    return OrderRequest("SOLUSDT", side, kind, D(quantity), None if price is None else D(price), **more)


def stop(quantity: str = "1", trigger: str = "140", *, side: Side = Side.SELL, **more) -> AlgoRequest:
    """Return an order that sells at market once a price has come."""
    return AlgoRequest("SOLUSDT", side, more.pop("kind", OrderType.STOP_MARKET), D(quantity), D(trigger), **more)


def at(spot: SpotExchange, price: str, now_ms: int) -> None:
    """Let the market be at a price."""
    spot.tick({"SOLUSDT": D(price)}, now_ms=now_ms)


def test_a_purchase_pays_quote_and_its_commission_in_what_was_bought():
    """Ten coins at the ask cost their price; a thousandth of the coins is kept by the venue."""
    spot = account()
    done = spot.submit(order(quantity="10"), now_ms=2)

    assert done.status is OrderStatus.FILLED
    assert spot.free("USDT") == D(10_000) - done.filled_notional
    assert spot.free("SOL") == D("9.99")
    assert spot.state.trades[0].fee == D("0.01")


def test_a_sale_pays_its_commission_in_quote():
    """What is sold leaves whole; of what comes in a thousandth is kept."""
    spot = account("0", "10")
    done = spot.submit(order(Side.SELL, "10"), now_ms=2)

    assert spot.free("SOL") == 0
    assert spot.free("USDT") == done.filled_notional * D("0.999")


def test_limits_lock_what_they_would_give_and_give_it_back():
    """A bid locks quote at its own price, an ask its coins; cancelled, both are free again, and the news say so."""
    spot = account("1000", "5")
    bid = spot.submit(order(quantity="2", price="120"), now_ms=2)
    ask = spot.submit(order(Side.SELL, "3", "170"), now_ms=3)
    assert (spot.locked("USDT"), spot.locked("SOL")) == (D(240), D(3))
    assert (spot.free("USDT"), spot.free("SOL")) == (D(760), D(2))

    for one in (bid, ask):
        spot.cancel_any("SOLUSDT", order_id=one.order_id, now_ms=4)
    assert (spot.free("USDT"), spot.free("SOL")) == (D(1000), D(5))
    *_, balances = spot.news(4)
    assert isinstance(balances, Balances)
    assert balances.assets == {"USDT": (D(1000), D(0)), "SOL": (D(5), D(0))}
    assert spot.news(5) == []


def test_a_stop_keeps_its_number_and_gives_what_it_locked():
    """A stop locks its coins; triggered, it is an order of the same number and time that sells them."""
    spot = account("0", "5")
    waiting = spot.submit_algo(stop("5", client_algo_id="guard"), now_ms=2)
    with pytest.raises(VenueError, match="insufficient balance"):
        spot.submit(order(Side.SELL, "1"), now_ms=3)
    at(spot, "139", 4)

    sold = spot.find("SOLUSDT", client_order_id="guard")
    assert (sold.order_id, sold.created_ms, sold.status) == (waiting.algo_id, 2, OrderStatus.FILLED)
    assert type_of(sold) is SpotType.STOP_LOSS
    assert spot.state.algos[waiting.algo_id].status is AlgoStatus.FINISHED
    assert (spot.free("SOL"), spot.locked("SOL")) == (0, 0)
    assert spot.submit(order(quantity="0.1"), now_ms=5).order_id > waiting.algo_id


def test_a_stop_that_buys_spends_no_more_than_there_is():
    """A market beyond its trigger costs more than was locked: it buys what the money pays, and the rest expires."""
    spot = account("1600")
    spot.submit_algo(stop("10", "160", side=Side.BUY, client_algo_id="chase"), now_ms=2)
    at(spot, "170", 3)
    bought = spot.find("SOLUSDT", client_order_id="chase")

    assert bought.status is OrderStatus.EXPIRED
    assert D("9.4") < bought.filled < 10
    assert 0 <= spot.free("USDT") < D("0.1")
    assert spot.locked("USDT") == 0


def test_an_amount_of_money_buys_whole_steps_for_no_more_than_that():
    """A market order that says what it spends is given as many steps as that pays; one that sells brings in no more."""
    spot = account()
    bought = spot.submit_for_quote(order(quantity="0"), D(500), now_ms=2)
    assert D(499) < bought.filled_notional <= D(500)
    assert bought.quantity == bought.filled
    assert bought.quantity % spot.lots["SOLUSDT"].step == 0
    assert spot.state.quote_quantities == {bought.order_id: D(500)}

    sold = spot.submit_for_quote(order(Side.SELL, "0"), D(200), now_ms=3)
    assert D(199) < sold.filled_notional <= D(200)
    before = dict(spot.state.assets)
    for money, words in ((D(20_000), "insufficient"), (D("0.001"), "NOTIONAL")):
        with pytest.raises(VenueError, match=words):
            spot.submit_for_quote(order(quantity="0"), money, now_ms=4)
    assert spot.state.assets == before
    assert len(spot.state.quote_quantities) == 2


@pytest.mark.parametrize(
    ("force", "quantity", "status"),
    [
        (TimeInForce.IOC, "10", OrderStatus.FILLED),
        (TimeInForce.FOK, "10", OrderStatus.FILLED),
        (TimeInForce.IOC, "900", OrderStatus.EXPIRED),
        (TimeInForce.FOK, "900", OrderStatus.EXPIRED),
    ],
)
def test_orders_that_do_not_wait_end_at_once(force, quantity, status):
    """What cannot be had at once expires: of an IOC the rest, of a FOK all of it, and it is taken first."""
    spot = account("200000")
    price = spot.book.best(COIN, LAST, Side.BUY)
    done = spot.submit(order(quantity=quantity, price=str(price), time_in_force=force), now_ms=2)

    assert done.status is status
    assert spot.locked("USDT") == 0
    if status is OrderStatus.EXPIRED:
        assert (done.filled > 0) is (force is TimeInForce.IOC)


BID = "149.000"


@pytest.mark.parametrize(
    ("request_", "code", "words"),
    [
        (order(quantity="0"), -1013, "Invalid quantity"),
        (order(quantity="-1"), -1013, "Invalid quantity"),
        (order(quantity="0.00005"), -1013, "LOT_SIZE"),
        (order(quantity="0.123456789"), -1111, "too much precision"),
        (order(quantity="100000.0001", price=BID), -1013, "LOT_SIZE"),
        (order(quantity="20000.0001"), -1013, "MARKET_LOT_SIZE"),
        (order(price="0"), -1013, "Invalid price"),
        (order(price="149.0001"), -1013, "PRICE_FILTER"),
        (order(price="1000"), -1013, "PERCENT_PRICE_BY_SIDE"),
        (order(price="29.999"), -1013, "PERCENT_PRICE_BY_SIDE"),
        (order(quantity="0.01"), -1013, "NOTIONAL"),
        (order(quantity="90000", price=BID), -1013, "NOTIONAL"),
        (order(quantity="80"), -2010, "insufficient balance"),
        (order(quantity="80", price=BID), -2010, "insufficient balance"),
        (order(Side.SELL, "1"), -2010, "insufficient balance"),
        (order(price="151.000", time_in_force=TimeInForce.GTX), -2010, "immediately match and take"),
        (order(price=BID, client_order_id="taken"), -2010, "Duplicate order sent"),
        (order(price=BID, client_order_id="x" * 37), -4015, "not valid"),
        (order(price=BID, time_in_force=TimeInForce.GTD), -1115, "timeInForce"),
        (stop("1", "160", side=Side.BUY, client_algo_id="taken"), -2010, "Duplicate order sent"),
        (stop("1", "160"), -2010, "would trigger immediately"),
        (stop("1", "149.9999"), -1013, "PRICE_FILTER"),
        (stop("1", "140"), -2010, "insufficient balance"),
        (stop("70", "160", side=Side.BUY), -2010, "insufficient balance"),
        (stop("0.01", "140"), -1013, "NOTIONAL"),
        (stop("1", "140", kind=OrderType.TRAILING_STOP_MARKET), -1102, "stopPrice"),
        (AlgoRequest("SOLUSDT", Side.SELL, OrderType.STOP_MARKET, D(1)), -1102, "stopPrice"),
        (OrderRequest("NOPEUSDT", Side.BUY, OrderType.MARKET, D(1)), -1121, "symbol"),
        (AlgoRequest("NOPEUSDT", Side.SELL, OrderType.STOP_MARKET, D(1), D(1)), -1121, "symbol"),
    ],
)
def test_what_spot_refuses_has_its_code_and_changes_nothing(request_, code, words):
    """Filters first, then what the account lacks, in the venue's numbers and words; nothing is left of the order."""
    spot = account()
    spot.submit(order(price="120", client_order_id="taken"), now_ms=2)
    before = (dict(spot.state.assets), len(spot.state.orders), spot.locked("USDT"), spot.state.next_order_id)
    send = spot.submit_algo if isinstance(request_, AlgoRequest) else spot.submit
    with pytest.raises(VenueError) as refused:
        send(request_, now_ms=3)

    assert (refused.value.code, words in refused.value.message) == (code, True), refused.value
    assert before == (dict(spot.state.assets), len(spot.state.orders), spot.locked("USDT"), spot.state.next_order_id)


def test_so_many_orders_may_be_open():
    """Five that wait for a price, and two hundred in all, of one symbol."""
    spot = account("1000000", "100")
    for _ in range(5):
        spot.submit_algo(stop(), now_ms=2)
    with pytest.raises(VenueError, match="MAX_NUM_ALGO_ORDERS"):
        spot.submit_algo(stop(), now_ms=2)
    for _ in range(195):
        spot.submit(order(price="120"), now_ms=2)
    with pytest.raises(VenueError, match="MAX_NUM_ORDERS"):
        spot.submit(order(price="120"), now_ms=2)


def test_an_order_makes_way_before_the_account_trades_with_itself():
    """The maker expires by default, and what it had locked is free."""
    spot = account("1000", "5")
    price = spot.book.best(COIN, LAST, Side.BUY)
    ask = spot.submit(order(Side.SELL, "2", str(price)), now_ms=2)
    spot.submit(order(quantity="1", price=str(price)), now_ms=3)

    assert spot.find("SOLUSDT", order_id=ask.order_id).status is OrderStatus.EXPIRED_IN_MATCH
    assert spot.locked("SOL") == 0
    kept = order(Side.SELL, "1", str(price), self_trade_prevention=SelfTradePrevention.NONE)
    assert spot.submit(kept, now_ms=4).is_open


def test_rules_of_liquidity_hold_for_spot_too():
    """A bound of what may be taken from a bar bounds a purchase; the rest of it expires."""
    spot = account("100000")
    spot.state.rules = Rules(participation=D("0.1"))
    spot.see_bar("SOLUSDT", D(50), start_ms=1)
    done = spot.submit(order(quantity="20"), now_ms=2)

    assert (done.filled, done.status) == (D(5), OrderStatus.EXPIRED)


def test_what_is_delisted_is_kept_and_its_orders_expire():
    """Nothing is settled on spot: coins stay, and what was locked for them is free."""
    spot = account("1000", "5")
    spot.submit(order(price="120"), now_ms=2)
    spot.submit_algo(stop("5"), now_ms=2)
    spot.end_trading("SOLUSDT", now_ms=3)

    assert spot.all_open() == []
    assert (spot.free("USDT"), spot.free("SOL")) == (D(1000), D(5))


def test_a_transfer_takes_only_what_is_free():
    """What an open order keeps cannot leave the account."""
    spot = account("1000")
    spot.submit(order(quantity="5", price="120"), now_ms=2)
    with pytest.raises(VenueError, match="insufficient"):
        spot.transfer("USDT", D(-500), now_ms=3)
    spot.transfer("USDT", D(-400), now_ms=3)

    assert spot.free("USDT") == 0


def pair_of(spot: SpotExchange, quantity: str = "5", limit: str = "170", trigger: str = "140"):
    """Place a pair that sells above or below the market."""
    resting = order(Side.SELL, quantity, limit, time_in_force=TimeInForce.GTX, client_order_id="above")
    return spot.submit_pair(resting, stop(quantity, trigger, client_algo_id="below"), "either", now_ms=2)


@pytest.mark.parametrize(
    ("price", "traded", "ended"),
    [pytest.param("171", "above", "below", id="the-limit"), pytest.param("139", "below", "above", id="the-stop")],
)
def test_of_a_pair_one_is_executed_and_the_other_ends(price, traded, ended):
    """Both lock their coins once; whichever the market reaches sells them, and the other expires."""
    spot = account("0", "5")
    pair = pair_of(spot)
    assert (spot.locked("SOL"), len(spot.all_open())) == (D(5), 2)
    at(spot, price, 3)

    found = {one: spot.find("SOLUSDT", client_order_id=one) for one in (traded, ended)}
    assert found[traded].status is OrderStatus.FILLED
    assert found[ended].status in {OrderStatus.EXPIRED, AlgoStatus.EXPIRED}
    assert (spot.locked("SOL"), spot.free("SOL"), spot.all_open()) == (0, 0, [])
    assert not spot.find_pair(list_id=pair.list_id).is_open


def test_a_limit_of_a_pair_that_trades_in_part_rests_alone():
    """The first execution ends the other one, and what is left goes on locking what it would give."""
    spot = account("0", "5")
    pair_of(spot)
    spot.state.rules = Rules(participation=D("0.1"))
    spot.tick({"SOLUSDT": D(171)}, now_ms=3, volumes={"SOLUSDT": D(20)})

    (left,) = spot.all_open()
    assert (left.remaining, spot.locked("SOL"), spot.free("SOL")) == (D(3), D(3), D(0))


def test_a_pair_is_cancelled_as_one():
    """By the list or by either of its orders: both are gone, and all is free."""
    for cancel in (
        lambda spot: spot.cancel_pair("SOLUSDT", client_list_id="either", now_ms=3),
        lambda spot: spot.cancel_any("SOLUSDT", client_order_id="above", now_ms=3),
        lambda spot: spot.cancel_any("SOLUSDT", client_order_id="below", now_ms=3),
        lambda spot: spot.cancel_every("SOLUSDT", now_ms=3),
    ):
        spot = account("0", "5")
        pair_of(spot)
        cancel(spot)
        assert (spot.all_open(), spot.free("SOL"), spot.locked("SOL")) == ([], D(5), D(0))
        with pytest.raises(VenueError, match="Unknown order"):
            spot.cancel_pair("SOLUSDT", client_list_id="either", now_ms=4)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"limit": "130"}, "relationship"),
        ({"trigger": "150"}, "immediately"),
        ({"quantity": "6"}, "insufficient"),
        ({"quantity": "0.01"}, "NOTIONAL"),
        ({"limit": "1000"}, "PERCENT_PRICE"),
    ],
)
def test_a_pair_that_cannot_be_is_refused_whole(asked, words):
    """Neither of its orders is left, nothing is locked, and its number is not used."""
    spot = account("0", "5")
    with pytest.raises(VenueError, match=words):
        pair_of(spot, **asked)

    assert (spot.all_orders(), spot.locked("SOL"), spot.state.pairs) == ([], D(0), {})
    pair_of(spot)
    with pytest.raises(VenueError, match="Duplicate"):
        pair_of(spot)


MARKET = {"symbol": "SOLUSDT", "side": "BUY", "type": "MARKET"}
LIMIT = {"symbol": "SOLUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "1", "price": "9"}


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({}, -1102),
        (MARKET, -1102),
        (MARKET | {"quantity": "1", "quoteOrderQty": "9"}, -1128),
        (MARKET | {"quoteOrderQty": "-9"}, -1013),
        (MARKET | {"quantity": "1", "price": "9"}, -1106),
        (MARKET | {"quantity": "1", "timeInForce": "GTC"}, -1106),
        (MARKET | {"quantity": "1", "reduceOnly": "true"}, -1104),
        (MARKET | {"quantity": "1", "positionSide": "LONG"}, -1104),
        (MARKET | {"quantity": "1", "cancelOrderId": "3"}, -1104),
        (MARKET | {"quantity": "1e400"}, -1100),
        (MARKET | {"quantity": "NaN"}, -1100),
        (MARKET | {"quantity": "1", "side": "HOLD"}, -1117),
        (MARKET | {"quantity": "1", "type": "STOP_MARKET"}, -1116),
        (MARKET | {"quantity": "1", "selfTradePreventionMode": "MAYBE"}, -1130),
        (LIMIT | {"timeInForce": "GTX"}, -1115),
        (LIMIT | {"timeInForce": ""}, -1102),
        (LIMIT | {"price": ""}, -1102),
        (LIMIT | {"stopPrice": "8"}, -1106),
        (LIMIT | {"type": "LIMIT_MAKER"}, -1106),
        (LIMIT | {"type": "STOP_LOSS", "timeInForce": "", "price": ""}, -1102),
        (LIMIT | {"type": "STOP_LOSS_LIMIT"}, -1102),
    ],
)
def test_an_order_that_says_too_little_or_too_much_is_refused(values, code):
    """What is missing, contradicts the type, or would be read by nobody: each has the venue's number."""
    with pytest.raises(VenueError) as refused:
        order_asked(Params(values))

    assert refused.value.code == code, refused.value


@pytest.mark.parametrize("kind", SpotType)
def test_every_type_is_read_and_named_as_it_was_asked_for(kind):
    """An order of each type is what the engine makes of it, and is shown by the word that it came with."""
    spot = account("10000", "10")
    priced, waits = kind in {"LIMIT", "LIMIT_MAKER", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"}, "_" in kind[4:]
    is_target = kind.startswith("TAKE")
    asked = {"symbol": "SOLUSDT", "side": "SELL", "type": kind.value, "quantity": "1"}
    asked |= {"price": "170"} if priced else {}
    asked |= {"timeInForce": "GTC"} if priced and kind is not SpotType.LIMIT_MAKER else {}
    asked |= {"stopPrice": "160" if is_target else "140"} if waits and kind is not SpotType.LIMIT_MAKER else {}
    found = order_asked(Params(asked), known=OF_REPLACEMENT)
    made = (spot.submit_algo if isinstance(found.request, AlgoRequest) else spot.submit)(found.request, now_ms=2)

    assert found.kind is kind
    assert type_of(made) is kind
